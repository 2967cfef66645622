//! Where a statement would go if this session's client sent it now: what `pointsman explain --session` asks.

use std::sync::Arc;

use pointsman_protocol::response::Grammar;
use pointsman_router::route::Decision;
use pointsman_router::session::Pins;
use pointsman_router::topology::ServerId;

use super::Session;
use super::command::Job;
use super::statement::{Attempts, own_answer};
use crate::worker::{Explained, Reply};

impl Session {
    /// Answers what has been asked about this session since it last waited for its client.
    pub(super) fn answer_questions(&self) {
        for question in self.slot.questions.take() {
            if !question.answer.is_closed() {
                let explained = Box::new(self.explain(&question.sql));
                // The asker may have given up.
                drop(question.answer.send(Reply::Explained(explained)));
            }
        }
    }

    /// The decision itself, not a copy of its rules; nothing of the session changes.
    fn explain(&self, sql: &[u8]) -> Explained {
        let job = Job::new(self.classify(sql), Grammar::Query, 0, false);
        let topology = self.worker.topology();
        let (server, route) = match own_answer(&job) {
            Some(_) => (None, "answered by Pointsman itself".to_owned()),
            None => {
                let decision = self.decide(&job, &topology, &Attempts::new(self));
                let held = self.held.as_ref().map(|held| held.server);
                told(decision, topology.primary, held, self.state.pins())
            }
        };
        let catalogue = Arc::clone(&self.worker.catalogue());
        Explained { intent: job.intent, mode: self.state.mode(), catalogue, server, route }
    }
}

/// The server that a statement would reach, and why.
fn told(
    decision: Decision,
    primary: Option<ServerId>,
    held: Option<ServerId>,
    pins: Pins,
) -> (Option<ServerId>, String) {
    match decision {
        Decision::Primary { reason } => (primary, reason.into_owned()),
        Decision::Replica { id, wait: _, reason } => (Some(id), reason.into_owned()),
        Decision::Pinned => {
            (held, format!("pinned to its connection: {}", pins.names().collect::<Vec<_>>().join(", ")))
        }
        Decision::LeaveReplica { reason } => {
            (primary, format!("{reason}; what the session has on its replica ends"))
        }
        Decision::AskPosition { reason } => {
            (None, format!("{reason}, once the primary has told its position"))
        }
        Decision::Hold { reason } => (None, format!("held: {reason}")),
        Decision::Refuse(refusal) => (None, format!("error {}: {}", refusal.code, refusal.message)),
    }
}

#[cfg(test)]
mod tests {
    use pointsman_router::route::Refusal;

    use super::*;

    #[test]
    fn every_decision_is_told() {
        let (primary, replica) = (ServerId(0), ServerId(2));
        let check = |decision, server, route: &str| {
            let pins = Pins::TRANSACTION | Pins::USER_LOCK;
            assert_eq!(told(decision, Some(primary), Some(replica), pins), (server, route.to_owned()));
        };
        let reason = || "why".into();
        check(Decision::Primary { reason: reason() }, Some(primary), "why");
        check(Decision::Replica { id: replica, wait: None, reason: reason() }, Some(replica), "why");
        check(Decision::Pinned, Some(replica), "pinned to its connection: transaction, user-lock");
        check(
            Decision::LeaveReplica { reason: reason() },
            Some(primary),
            "why; what the session has on its replica ends",
        );
        check(
            Decision::AskPosition { reason: reason() },
            None,
            "why, once the primary has told its position",
        );
        check(Decision::Hold { reason: reason() }, None, "held: why");
        let refusal = Refusal { code: 1290, sqlstate: *b"HY000", message: "read-only".to_owned() };
        check(Decision::Refuse(refusal), None, "error 1290: read-only");
    }
}
