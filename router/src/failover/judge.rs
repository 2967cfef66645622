//! What is thought of the primary, from all that is seen of it.

use super::controller::Controller;
use super::event::Stall;
use super::record::Durability;
use super::verdict::Verdict;
use super::watch::Watch;
use crate::topology::ServerId;

impl Controller {
    /// Judges the primary anew.
    pub(super) fn judge(&mut self) {
        let verdict = self.primary().map_or(Verdict::Alive, |primary| self.verdict_on(primary));
        if verdict.name() != self.verdict.name() {
            self.verdict_since = self.now;
        }
        self.verdict = verdict;
        let missing = self.primary().and_then(|id| self.watch(id)).is_some_and(|watch| watch.misses > 0);
        if missing {
            self.probe_now();
        }
    }

    fn verdict_on(&self, primary: ServerId) -> Verdict {
        let Some(watch) = self.watch(primary) else { return Verdict::Alive };
        let name = self.name(primary);
        let Some(since) = watch.missing_since else { return self.verdict_on_living(primary, watch) };
        if !self.has_gone(watch) {
            return Verdict::Alive;
        }
        let reason = format!("{name} does not answer: {}", watch.trouble);
        if let Some(peer) = self.peers.iter().find(|(_, peer)| {
            peer.alive.reaches_primary
                && peer.alive.epoch == self.epoch()
                && peer
                    .heard
                    .is_some_and(|heard| heard > since && self.now.saturating_sub(heard) < super::FED_WITHIN)
        }) {
            return Verdict::Unreachable { reason: format!("{reason}, but the proxy {} reaches it", peer.0) };
        }
        let lost = watch.refused.unwrap_or(since);
        let fed =
            self.ids().find(|id| *id != primary && self.watch(*id).is_some_and(|w| w.fed(lost, self.now)));
        match fed {
            Some(id) => {
                Verdict::Unreachable { reason: format!("{reason}, but {} hears from it", self.name(id)) }
            }
            None => Verdict::Dead { reason },
        }
    }

    /// Whether silence has lasted long enough.
    fn has_gone(&self, watch: &Watch) -> bool {
        if watch.refused.is_some() {
            return true;
        }
        let waited = watch.answered.map_or(self.now, |at| self.now.saturating_sub(at));
        // A virtual machine that is only paused would lose what it acknowledges to others than us.
        let is_async = self.coordination.record.as_ref().is_some_and(|r| r.durability == Durability::Async);
        watch.misses >= self.settings.failures && (!is_async || waited >= self.settings.async_silence)
    }

    fn verdict_on_living(&self, primary: ServerId, watch: &Watch) -> Verdict {
        let name = self.name(primary);
        if self.primary_lost_its_role() {
            return Verdict::ReadOnly { reason: format!("{name} has restarted and lost its role") };
        }
        // On a busy machine a write may take a while.
        let long = super::ACK_STALL.min(self.settings.stalled_for);
        if let Some((since, cause)) = self.beats.stall(self.now).filter(|(since, _)| *since >= long) {
            let cause = match cause {
                Stall::NoAcker => "no replica acknowledges",
                Stall::DiskFull => "the disk is full",
                Stall::LargeTransaction => "perhaps behind a large transaction",
                Stall::Unknown => "for no reason that can be seen",
            };
            return Verdict::Stalled {
                reason: format!("writes on {name} have not ended for {:.1} s: {cause}", since.as_secs_f64()),
            };
        }
        let read_only = watch.report.as_ref().is_some_and(|report| report.read_only);
        if read_only && watch.asked >= self.coordination.opened {
            return Verdict::ReadOnly { reason: format!("{name} was set read-only") };
        }
        Verdict::Alive
    }
}
