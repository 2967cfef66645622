//! Undoing a change that an operator has begun.

use super::controller::Controller;
use super::plan::{Answer, Refusal, RequestId};
use super::record::{Kind, Phase};
use super::request::refusal;

impl Controller {
    /// A switchover can be undone until its candidate is chosen: the old primary goes on.
    pub(super) fn ask_cancel(&mut self, operation: RequestId) -> Result<Answer, Refusal> {
        if !self.waiting.contains(&operation) {
            return Err(refusal(
                format!("operation {} is not under way at this proxy", operation.0),
                "`pointsman ops list` shows what is",
            ));
        }
        let Some(record) = &self.coordination.record else {
            return Err(refusal("there is no record of a primary", "wait for its end"));
        };
        let primary = record.primary.clone().unwrap_or_default();
        if record.kind != Kind::Switchover {
            return Err(refusal(
                format!("{primary} has lost its role and may not get it back"),
                "bring back what status says is missing",
            ));
        }
        if record.phase != Phase::Fencing || self.acting.is_none() {
            let to = record.candidate.clone().or_else(|| record.primary.clone()).unwrap_or_default();
            return Err(refusal(format!("{to} is being promoted already"), "wait for its end"));
        }
        self.give_up("cancelled by an operator".into());
        Ok(Answer::Done { text: format!("{primary} goes on as the primary") })
    }
}
