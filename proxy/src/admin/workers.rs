//! Questions to all workers, with a limit on how long one of them may be silent.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use crate::shared::Shared;
use crate::worker::{Explained, Message, Reply, SessionView};

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

/// A session has not told where it would send a statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unasked {
    #[error("there is no session {0}; `pointsman sessions` lists them")]
    Unknown(u32),
    #[error(
        "the session {0} has run a statement, or logged in, for {limit} s: ask again when that has ended",
        limit = IDLE_WITHIN.as_secs()
    )]
    Busy(u32),
    #[error("too many questions about the session {0} wait already: ask again when its statement has ended")]
    Crowded(u32),
}

/// Where a session would send a statement.
pub(super) async fn explain(shared: &Shared, session: u32, sql: &[u8]) -> Result<Explained, Unasked> {
    let sql: Arc<[u8]> = sql.into();
    let (answer, mut answers) = mpsc::unbounded_channel();
    shared.broadcast(|| Message::Explain { session, sql: sql.clone(), answer: answer.clone() });
    drop(answer);
    match tokio::time::timeout(IDLE_WITHIN, answers.recv()).await {
        Ok(Some(Reply::Explained(explained))) => Ok(*explained),
        Ok(Some(Reply::Crowded)) => Err(Unasked::Crowded(session)),
        Ok(None) => Err(Unasked::Unknown(session)),
        Err(_) => Err(Unasked::Busy(session)),
    }
}

/// How long a session's statement is waited for.
const IDLE_WITHIN: Duration = Duration::from_secs(5);
