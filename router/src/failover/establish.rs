//! CHOSEN and ACTIVE: make the candidate the primary, and the others its replicas.

use super::acting::Hand;
use super::action::{Level, Step};
use super::controller::Controller;
use super::defect::Defect;
use super::plan::Answer;
use super::record::{Durability, Kind, Past, Phase};
use crate::discover::Receiver;
use crate::gtid::GtidSet;
use crate::topology::ServerId;

impl Controller {
    /// One round of CHOSEN.
    pub(super) fn establish(&mut self) {
        let (Some(record), Some(candidate)) = (self.coordination.record.clone(), self.candidate()) else {
            return;
        };
        if let Some(reason) = self.candidate_failed(candidate) {
            return self.abandon(candidate, reason);
        }
        let is_lossless = record.durability == Durability::Lossless;
        let now = self.now;
        if let Some(acting) = &mut self.acting {
            acting.gathers.get_or_insert(now);
        }
        for id in self.ids().filter(|id| *id != candidate) {
            self.bring_under(id, candidate, is_lossless);
        }
        self.notice_restart(candidate);
        let Some(hand) = self.acting.as_ref().and_then(|acting| acting.hand(candidate)) else { return };
        let epoch_written = hand.epoch_written;
        if hand.promoted.is_none() {
            // What another actor may have begun is seen before anything is added to it.
            let first = self.acting.as_ref().is_some_and(|acting| acting.chose);
            let seen = first || self.settled(&[candidate]) || self.errs(Defect::KeepShortCandidate);
            if seen && self.report(candidate).is_some_and(|report| report.executed.contains(&record.floor)) {
                self.hand_order(
                    candidate,
                    Step::Promote { lossless: is_lossless, wait_for: record.wait_for },
                );
            }
        } else if !epoch_written {
            let primary = self.name(candidate);
            self.stuck(format!("{primary} waits for a replica that acknowledges its first transaction"));
            self.hand_order(candidate, Step::WriteEpoch { epoch: record.epoch, primary });
        } else if self.errs(Defect::OpenBeforeActive) && !hand.writable {
            let step = Step::SetWritable { lossless: is_lossless, wait_for: record.wait_for, life: UNTOLD };
            self.hand_order(candidate, step);
        } else if let Some(life) = hand.promoted_life {
            self.swap_active(candidate, life);
        } else {
            self.probe_now();
        }
    }

    /// A candidate that has restarted since its promotion has lost its role in semi-synchronous replication.
    fn notice_restart(&mut self, candidate: ServerId) {
        let Some(watch) = self.watch(candidate) else { return };
        let (life, asked) = (watch.incarnation(), watch.life_asked);
        let Some(hand) = self.acting.as_mut().and_then(|acting| acting.hand_mut(candidate)) else { return };
        let Some(promoted) = hand.promoted.filter(|promoted| asked >= *promoted) else { return };
        match hand.promoted_life {
            None => hand.promoted_life = Some(life),
            Some(known) if known != life && asked > promoted => {
                hand.promoted = None;
                hand.promoted_life = None;
                hand.epoch_written = false;
                // What is still on its way was meant for the life before.
                hand.forget();
                self.look_again(candidate);
            }
            Some(_) => {}
        }
    }

    /// What the others have got from the candidate it may not have any more.
    fn look_again(&mut self, candidate: ServerId) {
        let now = self.now;
        let Some(acting) = &mut self.acting else { return };
        acting.gathers = Some(now);
        acting.chose = false;
        for (_, hand) in acting.hands.iter_mut().enumerate().filter(|(at, _)| *at != usize::from(candidate.0))
        {
            hand.repointed = None;
            hand.stopped = None;
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
        let floor = self.coordination.record.as_ref().map(|record| record.floor.clone()).unwrap_or_default();
        let filtered = watch.channel().is_some_and(|channel| channel.filtered);
        let holds = Self::surely_holds(report);
        let fits = floor.contains(&holds) || self.stands_with(candidate, &holds);
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
        let waits = self.enough_follow();
        if let Some(acting) = self.acting.as_mut().filter(|_| waits) {
            acting.held_back.insert(id, acker);
        } else {
            self.hand_order(id, Step::Repoint { source: candidate, acker });
        }
    }

    /// Lets those follow that were held back, unless they have restarted since.
    fn let_the_others_follow(&mut self, primary: ServerId) {
        let Some(acting) = &mut self.acting else { return };
        for (id, acker) in std::mem::take(&mut acting.held_back) {
            let hand = self.acting.as_ref().and_then(|acting| acting.hand(id));
            if hand.is_some_and(|hand| hand.stopped.is_some() && !hand.is_made_to_follow()) {
                self.hand_order(id, Step::Repoint { source: primary, acker });
            }
        }
    }

    /// Whether those that are needed to acknowledge the first transaction are on their way, with some to spare. The others
    /// wait a little: what they do would take processor time from the candidate and from those.
    fn enough_follow(&self) -> bool {
        let (Some(acting), Some(record)) = (&self.acting, &self.coordination.record) else { return false };
        let enough = usize::try_from(record.wait_for.max(1)).map_or(usize::MAX, |needed| needed * 2);
        let late = self.now.saturating_sub(self.coordination.changed) >= super::HEAD_START;
        let follows = |id: &&ServerId| acting.hand(**id).is_some_and(Hand::is_made_to_follow);
        !late && acting.ackers.iter().filter(follows).count() >= enough
    }

    /// Whether the candidate is the old primary, which has all of `holds`: it may be written to all the time, and another
    /// actor may have made its replicas follow it again already.
    fn stands_with(&self, candidate: ServerId, holds: &GtidSet) -> bool {
        self.primary() == Some(candidate)
            && self.report(candidate).is_some_and(|report| report.executed.contains(holds))
    }

    /// The candidate is gone and somebody else has everything too, or it has lost what it was chosen for.
    fn candidate_failed(&self, candidate: ServerId) -> Option<String> {
        let failures = self.settings.failures;
        let (watch, record) = (self.watch(candidate)?, self.coordination.record.as_ref()?);
        let name = self.name(candidate);
        let gone = watch
            .missing_since
            .is_some_and(|since| self.now.saturating_sub(since) >= super::CANDIDATE_PATIENCE);
        let fresh = watch.up() && watch.asked > self.coordination.changed;
        let lacks = fresh && watch.report.as_ref().is_some_and(|report| !report.holds(&record.floor));
        if lacks {
            return Some(format!("the candidate {name} has lost what it was chosen for"));
        }
        if gone && watch.down(failures) && self.another_holds(&record.floor, candidate) {
            return Some(format!("the candidate {name} does not answer any more"));
        }
        let longer =
            self.longer_than(candidate).filter(|_| fresh && !self.errs(Defect::KeepShortCandidate))?;
        Some(format!("{} holds more than the candidate {name}, which has restarted", self.name(longer)))
    }

    /// Who has received from the candidate, in this epoch, what that has cut off at a restart.
    fn longer_than(&self, candidate: ServerId) -> Option<ServerId> {
        let (watch, acting) = (self.watch(candidate)?, self.acting.as_ref()?);
        let own = &watch.report.as_ref()?.executed;
        self.ids().filter(|id| *id != candidate && self.primary() != Some(*id)).find(|id| {
            let rests = acting.hand(*id).is_some_and(|h| h.stopped.is_some() && h.repointed.is_none());
            let seen = self.watch(*id).filter(|other| rests && other.up() && watch.asked > other.noticed);
            let holds = seen.and_then(|other| other.report.as_ref()).map(Self::surely_holds);
            let longer = holds.is_some_and(|holds| holds.contains(own) && !own.contains(&holds));
            longer && self.has_followed(*id) && self.errant(*id).is_none()
        })
    }

    fn another_holds(&self, floor: &GtidSet, candidate: ServerId) -> bool {
        self.ids().filter(|id| *id != candidate && self.ineligible(*id).is_none()).any(|id| {
            let watch = self.watch(id).filter(|watch| watch.up());
            watch
                .and_then(|w| w.report.as_ref())
                .is_some_and(|report| Self::surely_holds(report).contains(floor))
        })
    }

    /// A new epoch without the candidate. It was never writable, unless it is the old primary: nobody can have been
    /// told of a write on it.
    fn abandon(&mut self, candidate: ServerId, reason: String) {
        let Some(mut record) = self.coordination.record.clone() else { return };
        record.epoch += 1;
        record.phase = Phase::Fencing;
        record.candidate = None;
        if record.kind == Kind::Switchover {
            record.kind = Kind::Automatic;
        }
        if self.primary() == Some(candidate) || !self.another_holds(&record.floor, candidate) {
            // It is more, or less, than what was acknowledged; that has to be proven anew.
            record.floor = GtidSet::default();
        }
        record.reason = reason;
        self.swap(record);
    }

    fn swap_active(&mut self, primary: ServerId, life: u64) {
        let Some(mut record) = self.coordination.record.clone() else { return };
        let mut ackers = self.acting.as_ref().map(|acting| acting.ackers.clone()).unwrap_or_default();
        // Whoever may be attached already counts, whether told to or not.
        let attached = |id: &ServerId| {
            let report = self.report(*id).filter(|report| report.semi_sync.replica);
            report
                .is_some_and(|report| report.channels().iter().any(|channel| self.leads_to(channel, primary)))
        };
        ackers.extend(self.ids().filter(|id| *id != primary).filter(attached));
        if self.primary() == Some(primary) {
            ackers.extend(self.ids().filter(|id| self.is_acker(*id)));
        }
        let name = self.name(primary);
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
        record.floor = GtidSet::default();
        record.accept_loss = false;
        record.stalled = false;
        record.ackers = ackers.into_iter().map(|id| self.name(id)).collect();
        let follows = |id: &ServerId| {
            let since =
                self.acting.as_ref().and_then(|acting| acting.hand(*id)).and_then(|hand| hand.repointed);
            let watch = self.watch(*id).filter(|watch| since.is_some_and(|since| watch.asked > since));
            watch.and_then(super::watch::Watch::channel).is_some_and(|channel| {
                channel.applies && channel.receiver == Receiver::Running && self.leads_to(channel, primary)
            })
        };
        let others = self.ids().filter(|id| *id != primary && !follows(id));
        record.strayed = others.map(|id| self.name(id)).collect();
        record.lives = [(name, life)].into();
        self.swap(record);
    }

    /// One round of ACTIVE: anybody may open the new primary, unless it has restarted: then it has lost its role.
    pub(super) fn open(&mut self) {
        let (Some(primary), Some(mut record)) = (self.primary(), self.coordination.record.clone()) else {
            return;
        };
        let writable = self.acting.as_ref().and_then(|a| a.hand(primary)).is_some_and(|hand| hand.writable);
        if !writable {
            if self.primary_lives_on() {
                self.hand_order(primary, record.make_writable());
            }
            return;
        }
        self.let_the_others_follow(primary);
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

/// No life has this number.
const UNTOLD: u64 = 0;
