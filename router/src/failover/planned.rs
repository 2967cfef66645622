//! A switchover's own part of FENCING: the primary takes part, so its last position is the proof.

use std::time::Duration;

use super::acting::FinalPosition;
use super::action::Step;
use super::controller::Controller;
use super::defect::Defect;
use crate::discover::Report;
use crate::topology::ServerId;

impl Controller {
    /// One round; false when the common way of FENCING is to be gone: the primary is gone, or it was given up.
    pub(super) fn switch_over(&mut self) -> bool {
        let (Some(primary), Some(target)) = (self.primary(), self.candidate()) else {
            self.give_up("there is nobody to switch to".into());
            return false;
        };
        if let Err(reason) = self.hold_to_life(primary) {
            self.give_up(reason);
            return false;
        }
        let failures = self.settings.failures;
        if self.watch(target).is_none_or(|watch| watch.down(failures)) {
            self.give_up(format!("{} does not answer any more", self.name(target)));
            return false;
        }
        let since = self.acting.as_ref().map_or(self.now, |acting| acting.since);
        if self.now.saturating_sub(since) > self.settings.switchover_timeout {
            self.give_up("it took longer than switchover.timeout".into());
            return false;
        }
        let last = self.acting.as_ref().and_then(|acting| acting.final_position.clone());
        let Some(FinalPosition { position, proven, .. }) = last else {
            if self.all_have_let_go(since) {
                self.hand_order(primary, Step::SetReadOnly { deadline: READ_ONLY_DEADLINE });
            }
            return true;
        };
        if !proven {
            self.probe_now();
            return true;
        }
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

    /// What the primary says last counts only in the life that the record speaks of: where commits wait for acknowledgements,
    /// a restart may have cut off what was acknowledged. An error is why nothing more is to be expected of it.
    fn hold_to_life(&mut self, primary: ServerId) -> Result<(), String> {
        let last = self.acting.as_ref().and_then(|acting| acting.final_position.as_ref());
        if last.is_some_and(|last| last.proven) {
            return Ok(());
        }
        let failures = self.settings.failures;
        let watch = self.watch(primary).filter(|watch| !watch.down(failures));
        let watch = watch.ok_or("the primary does not answer any more")?;
        let is_told = last.is_none_or(|last| watch.life_asked >= last.told) || !self.is_lossless();
        if is_told && self.primary_has_restarted() && !self.errs(Defect::BelieveRestartedPrimary) {
            return Err("the primary has restarted".into());
        }
        if let Some(last) = self.acting.as_mut().and_then(|acting| acting.final_position.as_mut()) {
            last.proven = is_told;
        }
        Ok(())
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
