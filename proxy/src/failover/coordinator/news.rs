//! What has been heard of a register, for those who wait for news.

use pointsman_router::failover::Revision;
use tokio::sync::watch;

use super::{Heard, Sessions};

#[derive(Clone, Debug, Default)]
pub(super) struct News {
    pub(super) heard: watch::Sender<Heard>,
    pub(super) sessions: watch::Sender<Sessions>,
}

impl News {
    pub(super) fn hear(&self, revision: Revision, value: Option<&String>) {
        let Some(value) = value else { return };
        self.heard.send_if_modified(|known| {
            let is_new = known.as_ref().is_none_or(|(known, _)| *known < revision);
            if is_new {
                *known = Some((revision, value.clone()));
            }
            is_new
        });
    }

    pub(super) fn hear_sessions(&self, change: impl FnOnce(&mut Sessions)) {
        self.sessions.send_if_modified(|known| {
            let before = known.clone();
            change(known);
            *known != before
        });
    }
}
