//! How texts are read, which a prepared statement keeps from the moment when it was prepared.

use std::sync::Arc;

use super::replayable::{Replayable, Setting};

/// The schema of unqualified names, sql_mode and character set, as they were at one moment.
#[derive(Clone, Debug)]
pub struct Reading(Arc<Replayable>);

impl Reading {
    pub(super) fn new(then: Arc<Replayable>) -> Self {
        Self(then)
    }

    /// The state of a session that reads as it did then; none where it does so now.
    pub(super) fn applied_to(&self, now: &Replayable) -> Option<Replayable> {
        let then = &*self.0;
        // A session that has no schema any more could not go back to none.
        let schema_stays = then.schema == now.schema || then.schema.is_none() || now.schema.is_none();
        let reads = |setting: &&Setting| setting.is_charset() || &*setting.name == "sql_mode";
        if schema_stays && then.settings.iter().filter(reads).eq(now.settings.iter().filter(reads)) {
            return None;
        }
        let mut mixed = now.clone();
        if !schema_stays {
            mixed.schema.clone_from(&then.schema);
        }
        mixed.settings.retain(|setting| !reads(&setting));
        mixed.settings.extend(then.settings.iter().filter(reads).cloned());
        mixed.seal();
        Some(mixed)
    }
}
