//! Questions to all workers, with a limit on how long one of them may be silent.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::shared::Shared;
use crate::worker::{Message, SessionView};

/// A worker that does not look into its inbox for this long is stuck.
const LIMIT: Duration = Duration::from_secs(5);

/// A worker did not answer in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a worker has not answered for {} s", LIMIT.as_secs())]
pub(super) struct Stuck;

/// Asks every worker at once and waits for all.
async fn ask<T>(shared: &Shared, message: impl Fn(oneshot::Sender<T>) -> Message) -> Result<Vec<T>, Stuck> {
    let mut answers = Vec::new();
    for worker in shared.workers.get().into_iter().flatten() {
        let (sender, answer) = oneshot::channel();
        worker.send(message(sender)).map_err(|_| Stuck)?;
        answers.push(answer);
    }
    let all = async {
        let mut collected = Vec::new();
        for answer in answers {
            collected.push(answer.await.map_err(|_| Stuck)?);
        }
        Ok(collected)
    };
    tokio::time::timeout(LIMIT, all).await.map_err(|_| Stuck)?
}

/// All sessions, by their ids.
pub(super) async fn sessions(shared: &Shared) -> Result<Vec<SessionView>, Stuck> {
    let mut sessions: Vec<_> = ask(shared, Message::Sessions).await?.into_iter().flatten().collect();
    sessions.sort_by_key(|session| session.id);
    Ok(sessions)
}

/// How many sessions are pinned, by reason; also the sign of life of every worker.
pub(super) async fn pins(shared: &Shared) -> Result<BTreeMap<&'static str, u64>, Stuck> {
    let mut total = BTreeMap::new();
    for (reason, count) in ask(shared, Message::Pins).await?.into_iter().flatten() {
        *total.entry(reason).or_default() += count;
    }
    Ok(total)
}
