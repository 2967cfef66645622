//! KILL of our own ids: the session is found among the workers, its statement interrupted on its server.

use tokio::sync::mpsc;

use super::Session;
use crate::error::{ClientError, SessionError};
use crate::shared::OWN_ID_BIT;
use crate::worker::{KillAnswer, Killer, Message, Order};

impl Session {
    /// Serves a KILL of one of our own ids; those of servers go to the primary like any statement.
    pub(super) async fn kill(&mut self, id: u32, query_only: bool, len: usize) -> Result<(), SessionError> {
        self.consume(len);
        if id == self.slot.id {
            if query_only {
                // Servers interrupt the KILL statement itself.
                let error = ClientError::new(1317, b"70100", "Query execution was interrupted");
                return self.answer_error(&error).await;
            }
            return Err(SessionError::Ordered(Order::Kill));
        }
        match self.ask_workers(id, query_only).await {
            KillAnswer::Done => self.answer_ok().await,
            KillAnswer::NotHere => self.answer_error(&unknown_thread(id)).await,
            KillAnswer::NotAllowed => {
                let text = format!("You are not owner of thread {id}");
                self.answer_error(&ClientError::new(1095, b"HY000", text)).await
            }
        }
    }

    async fn ask_workers(&self, id: u32, query_only: bool) -> KillAnswer {
        let (answer, mut answers) = mpsc::unbounded_channel();
        let by = Killer { account: self.login.account.id, privileged: self.login.account.privileged };
        self.worker.shared.broadcast(|| Message::Kill {
            id,
            query_only,
            by: by.clone(),
            answer: answer.clone(),
        });
        drop(answer);
        while let Some(answer) = answers.recv().await {
            if answer != KillAnswer::NotHere {
                return answer;
            }
        }
        KillAnswer::NotHere
    }
}

/// Whether an id in a KILL is one that Pointsman has given out.
pub(super) fn own_id(id: u64) -> Option<u32> {
    u32::try_from(id).ok().filter(|id| id & OWN_ID_BIT != 0)
}

fn unknown_thread(id: u32) -> ClientError {
    ClientError::new(1094, b"HY000", format!("Unknown thread id: {id}"))
}
