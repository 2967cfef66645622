//! A switchover's own part of FENCING: the primary takes part, so its last position is the proof.

use std::time::Duration;

use super::action::Step;
use super::controller::Controller;
use crate::discover::Report;
use crate::topology::ServerId;

impl Controller {
    /// One round; false when the common way of FENCING is to be gone: the primary is gone, or it was given up.
    pub(super) fn switch_over(&mut self) -> bool {
        let (Some(primary), Some(target)) = (self.primary(), self.candidate()) else {
            self.give_up("there is nobody to switch to".into());
            return false;
        };
        let failures = self.settings.failures;
        let final_position = self.acting.as_ref().and_then(|acting| acting.final_position.clone());
        if final_position.is_none() && self.watch(primary).is_none_or(|watch| watch.down(failures)) {
            self.give_up("the primary does not answer any more".into());
            return false;
        }
        if self.watch(target).is_none_or(|watch| watch.down(failures)) {
            self.give_up(format!("{} does not answer any more", self.name(target)));
            return false;
        }
        let since = self.acting.as_ref().map_or(self.now, |acting| acting.since);
        if self.now.saturating_sub(since) > self.settings.switchover_timeout {
            self.give_up("it took longer than switchover.timeout".into());
            return false;
        }
        let Some(position) = final_position else {
            if self.all_have_let_go(since) {
                self.hand_order(primary, Step::SetReadOnly { deadline: READ_ONLY_DEADLINE });
            }
            return true;
        };
        // The others go on from here, too, and are stopped meanwhile.
        for id in self.ids().filter(|id| *id != primary && *id != target) {
            let has_all = self.report(id).is_some_and(|report| report.executed.contains(&position));
            if has_all && let Some(step) = self.next_replica_step(id) {
                self.hand_order(id, step);
            }
        }
        if self.report(target).is_some_and(|report| report.executed.contains(&position)) {
            if let Some(acting) = &mut self.acting {
                acting.floor = Some(position.clone());
            }
            self.swap_chosen(target, position);
        } else {
            self.hand_order(target, Step::WaitApplied { position });
        }
        true
    }

    /// The old primary goes on.
    pub(super) fn give_up(&mut self, reason: String) {
        if let Some(acting) = &mut self.acting {
            acting.given_up.get_or_insert(reason);
        }
    }

    /// Every proxy holds writes, or has had the time that transactions get; what still comes meets `read_only`.
    fn all_have_let_go(&self, since: Duration) -> bool {
        let own = self.held.as_ref().is_some_and(|(epoch, _)| *epoch >= self.epoch());
        let patience = self.settings.transaction_timeout + LET_GO_PATIENCE;
        own && (self.all_fenced() || self.now.saturating_sub(since) > patience)
    }

    pub(super) fn report(&self, id: ServerId) -> Option<&Report> {
        self.watch(id)?.report.as_ref()
    }
}

/// `SET read_only` waits for commits in progress, and holds up new ones while it does.
const READ_ONLY_DEADLINE: Duration = Duration::from_millis(500);
/// Beyond `switchover.transaction_timeout`.
const LET_GO_PATIENCE: Duration = Duration::from_millis(300);
