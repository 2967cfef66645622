//! CHOSEN and ACTIVE: make the candidate the primary, and the others its replicas.

use super::action::{Level, Step};
use super::controller::Controller;
use super::plan::Answer;
use super::record::{Durability, Kind, Past, Phase};
use crate::topology::ServerId;

impl Controller {
    /// One round of CHOSEN.
    pub(super) fn establish(&mut self) {
        let (Some(record), Some(candidate)) = (self.coordination.record.clone(), self.candidate()) else {
            return;
        };
        if self.candidate_failed(candidate) {
            return self.abandon(candidate);
        }
        let is_lossless = record.durability == Durability::Lossless;
        for id in self.ids().filter(|id| *id != candidate) {
            self.bring_under(id, candidate, is_lossless);
        }
        let Some(hand) = self.acting.as_ref().and_then(|acting| acting.hand(candidate)) else { return };
        let (promoted, epoch_written) = (hand.promoted, hand.epoch_written);
        let Some(promoted) = promoted else {
            self.hand_order(candidate, Step::Promote { lossless: is_lossless, wait_for: record.wait_for });
            return;
        };
        let seen = self.watch(candidate).is_some_and(|watch| watch.life_asked >= promoted);
        if !epoch_written {
            let primary = self.name(candidate);
            self.hand_order(candidate, Step::WriteEpoch { epoch: record.epoch, primary });
        } else if !seen {
            self.probe_now();
        } else {
            self.swap_active(candidate);
        }
    }

    /// Makes a server a replica of the candidate, as soon as it may be.
    fn bring_under(&mut self, id: ServerId, candidate: ServerId, is_lossless: bool) {
        let is_old_primary = self.primary() == Some(id);
        let Some(watch) = self.watch(id).filter(|watch| watch.up()) else { return };
        let Some(hand) = self.acting.as_ref().and_then(|acting| acting.hand(id)) else { return };
        if hand.repointed.is_some() {
            return;
        }
        let stopped = hand.stopped.is_some();
        let Some(report) = &watch.report else { return };
        let floor = self.acting.as_ref().and_then(|acting| acting.floor.clone()).unwrap_or_default();
        let filtered = watch.channel().is_some_and(|channel| channel.filtered);
        let fits = floor.contains(&Self::surely_holds(report));
        let has_applied = report.has_applied_all() || !watch.channel().is_some_and(|channel| channel.applies);
        if is_old_primary && (!report.read_only || watch.asked < self.coordination.epoch_seen) {
            // It may still have clients; a later round, or the upkeep, takes it when it is fenced.
            return;
        }
        if !stopped {
            let step = if is_old_primary { Some(Step::ReadPosition) } else { self.next_replica_step(id) };
            if let Some(step) = step {
                self.hand_order(id, step);
            }
            return;
        }
        if !has_applied {
            if let Some(step) = self.next_replica_step(id) {
                self.hand_order(id, step);
            }
            return;
        }
        if !fits {
            self.note(
                Level::Alarm,
                format!("{} holds what the new primary does not: it is left alone", self.name(id)),
            );
            return;
        }
        let acker = is_lossless && !filtered;
        if acker && let Some(acting) = &mut self.acting {
            acting.ackers.insert(id);
        }
        self.hand_order(id, Step::Repoint { source: candidate, acker });
    }

    /// The candidate is gone, and somebody else has everything too.
    fn candidate_failed(&self, candidate: ServerId) -> bool {
        let failures = self.settings.failures;
        let Some(watch) = self.watch(candidate) else { return false };
        let gone = watch
            .missing_since
            .is_some_and(|since| self.now.saturating_sub(since) >= super::CANDIDATE_PATIENCE);
        let Some(record) = &self.coordination.record else { return false };
        let holds = |id: &ServerId| {
            let watch = self.watch(*id).filter(|watch| watch.up());
            watch
                .and_then(|w| w.report.as_ref())
                .is_some_and(|r| Self::surely_holds(r).contains(&record.floor))
        };
        gone && watch.down(failures)
            && self.ids().any(|id| id != candidate && holds(&id) && self.ineligible(id).is_none())
    }

    /// A new epoch without the candidate. It was never writable: nobody can have been told of a write on it.
    fn abandon(&mut self, candidate: ServerId) {
        let Some(mut record) = self.coordination.record.clone() else { return };
        record.epoch += 1;
        record.phase = Phase::Fencing;
        record.candidate = None;
        if record.kind == Kind::Switchover {
            record.kind = Kind::Automatic;
        }
        record.reason = format!("the candidate {} does not answer any more", self.name(candidate));
        self.swap(record);
    }

    fn swap_active(&mut self, primary: ServerId) {
        let Some(mut record) = self.coordination.record.clone() else { return };
        let ackers = self.acting.as_ref().map(|acting| acting.ackers.clone()).unwrap_or_default();
        let name = self.name(primary);
        let life = self.watch(primary).map_or(0, super::watch::Watch::incarnation);
        let from = record.primary.replace(name.clone());
        record.remember(Past {
            epoch: record.epoch,
            kind: record.kind,
            from,
            to: name.clone(),
            at_ms: self.wall_ms(),
            reason: record.reason.clone(),
        });
        record.phase = Phase::Active;
        record.candidate = None;
        record.floor = crate::gtid::GtidSet::default();
        record.accept_loss = false;
        record.ackers = ackers.into_iter().map(|id| self.name(id)).collect();
        let follows = |id: &ServerId| {
            self.acting
                .as_ref()
                .and_then(|acting| acting.hand(*id))
                .is_some_and(|hand| hand.repointed.is_some())
        };
        let others = self.ids().filter(|id| *id != primary && !follows(id));
        record.strayed = others.map(|id| self.name(id)).collect();
        record.lives = [(name, life)].into();
        self.swap(record);
    }

    /// One round of ACTIVE: anybody may open the new primary.
    pub(super) fn open(&mut self) {
        let Some(primary) = self.primary() else { return };
        let writable = self.acting.as_ref().and_then(|a| a.hand(primary)).is_some_and(|hand| hand.writable);
        if !writable {
            self.hand_order(primary, Step::SetWritable);
            return;
        }
        let Some(mut record) = self.coordination.record.clone() else { return };
        record.phase = Phase::Stable;
        self.finish_requests(&record);
        self.swap(record);
    }

    fn finish_requests(&mut self, record: &super::record::Record) {
        let given_up = self.acting.as_ref().and_then(|acting| acting.given_up.clone());
        let to = record.primary.clone().unwrap_or_default();
        for id in std::mem::take(&mut self.waiting) {
            let answer = match &given_up {
                Some(reason) => Answer::Refused(super::plan::Refusal {
                    reason: reason.clone(),
                    alternative: format!("{to} is the primary; everything else was undone"),
                }),
                None => Answer::Done { text: format!("{to} is the primary of epoch {}", record.epoch) },
            };
            self.out.push(super::Action::Answer { id, answer });
        }
    }
}
