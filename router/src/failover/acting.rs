//! What a proxy does while the record names it as the actor: the steps that every phase shares.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::action::{Action, Step, StepId};
use super::controller::Controller;
use super::defect::Defect;
use super::event::{Outcome, StepError};
use super::record::{Durability, Kind, Phase};
use crate::discover::{Receiver, Report};
use crate::gtid::GtidSet;
use crate::topology::ServerId;

/// A change of the primary in which this proxy acts.
#[derive(Debug)]
pub(super) struct Acting {
    pub(super) since: Duration,
    /// Indexed by [`ServerId`].
    pub(super) hands: Vec<Hand>,
    /// Nothing is done before the record has been read again, by a question asked after this.
    pub(super) verify_after: Option<Duration>,
    pub(super) fenced: bool,
    /// Since when servers are being stopped and read.
    pub(super) gathers: Option<Duration>,
    /// What every candidate must hold: everything acknowledged in earlier epochs, once that is proven.
    pub(super) floor: Option<GtidSet>,
    /// The primary of a switchover is read-only, and this is its last position.
    pub(super) final_position: Option<FinalPosition>,
    /// A switchover that was given up, and why: the old primary goes on.
    pub(super) given_up: Option<String>,
    /// The candidate is this proxy's own choice: nobody else can have begun to promote it in this epoch.
    pub(super) chose: bool,
    /// Servers that were told to acknowledge to the candidate.
    pub(super) ackers: BTreeSet<ServerId>,
    /// Replicas that wait until writes go on, and whether they are to acknowledge.
    pub(super) held_back: BTreeMap<ServerId, bool>,
    /// Why it does not go on, for people.
    pub(super) stuck: Option<String>,
}

/// One server in it.
#[derive(Debug, Default)]
pub(super) struct Hand {
    flight: Option<Flight>,
    not_before: Duration,
    /// Nothing is received any more in this life; for the old primary: its position was read.
    pub(super) stopped: Option<u64>,
    applier_tried: bool,
    delay_removed: bool,
    /// When we had started the applying thread: before its new life is seen, a stopped receiver looks like a restart.
    applier_started: Option<Duration>,
    /// Gets from this server what it lacks, since then.
    pub(super) catching_up: Option<(ServerId, Duration)>,
    pub(super) promoted: Option<Duration>,
    /// The life that it was promoted in: a restart undoes half of it.
    pub(super) promoted_life: Option<u64>,
    pub(super) epoch_written: bool,
    pub(super) writable: bool,
    pub(super) repointed: Option<Duration>,
}

/// A position behind which a primary writes nothing any more.
#[derive(Clone, Debug)]
pub(super) struct FinalPosition {
    pub(super) position: GtidSet,
    pub(super) told: Duration,
    /// It was told in the life that the record speaks of: a restart may have cut off what was acknowledged.
    pub(super) proven: bool,
}

#[derive(Debug)]
struct Flight {
    id: StepId,
    step: Step,
    ordered: Duration,
}

impl Acting {
    /// A server has come, of which nothing is known yet.
    pub(super) fn meet(&mut self, id: ServerId) {
        let at = usize::from(id.0);
        self.hands.resize_with(self.hands.len().max(at + 1), Hand::default);
        self.hands[at] = Hand::default();
    }

    /// Takes a step out of its hand when it has ended.
    pub(super) fn land(&mut self, id: StepId) -> Option<(ServerId, Step)> {
        let (at, hand) = self.hands.iter_mut().enumerate().find(|(_, hand)| hand.flies(id))?;
        let flight = hand.flight.take()?;
        Some((ServerId(u16::try_from(at).ok()?), flight.step))
    }

    pub(super) fn hand(&self, id: ServerId) -> Option<&Hand> {
        self.hands.get(usize::from(id.0))
    }

    pub(super) fn hand_mut(&mut self, id: ServerId) -> Option<&mut Hand> {
        self.hands.get_mut(usize::from(id.0))
    }
}

impl Hand {
    /// Whatever the step in flight brings does not matter any more.
    pub(super) fn forget(&mut self) {
        self.flight = None;
    }

    /// It follows the candidate, or is on its way.
    pub(super) fn is_made_to_follow(&self) -> bool {
        let flies = self.flight.as_ref().is_some_and(|flight| matches!(flight.step, Step::Repoint { .. }));
        flies || self.repointed.is_some()
    }

    fn flies(&self, id: StepId) -> bool {
        self.flight.as_ref().is_some_and(|flight| flight.id == id)
    }
}

impl Controller {
    /// After the record has changed: whether this proxy is the one that acts.
    pub(super) fn start_or_stop_acting(&mut self, is_new_epoch: bool) {
        let Some(record) = &self.coordination.record else { return };
        if record.actor != self.settings.proxy || record.phase == Phase::Stable {
            self.acting = None;
            return;
        }
        if is_new_epoch || self.acting.is_none() {
            if record.durability == Durability::Async {
                // Who is registered counts from now on, and the next reading may be a third of the lease away.
                self.out.push(Action::ReadRecord);
            }
            self.acting = Some(Acting {
                since: self.now,
                hands: self.settings.servers.iter().map(|_| Hand::default()).collect(),
                verify_after: None,
                fenced: false,
                gathers: None,
                floor: (!record.floor.is_empty()).then(|| record.floor.clone()),
                final_position: None,
                given_up: None,
                chose: false,
                ackers: BTreeSet::new(),
                held_back: BTreeMap::new(),
                stuck: None,
            });
        }
    }

    /// The actor's work, or the wait for its place.
    pub(super) fn act(&mut self) {
        if self.acting.is_none() {
            self.take_over();
            return;
        }
        if self.acting.as_ref().is_some_and(|acting| acting.verify_after.is_some())
            || self.coordination.pending.is_some()
            || self.coordination.barred.is_some()
        {
            return;
        }
        self.drop_stale_hands();
        match self.phase() {
            Some(Phase::Fencing) => self.fence(),
            Some(Phase::Chosen) => self.establish(),
            Some(Phase::Active) => self.open(),
            Some(Phase::Stable) | None => {}
        }
    }

    /// What was done to a server that has restarted since, or receives again, has to be done again.
    fn drop_stale_hands(&mut self) {
        let now = self.now;
        let primary = self.primary();
        let Some(acting) = &mut self.acting else { return };
        for (at, hand) in acting.hands.iter_mut().enumerate() {
            if hand.flight.as_ref().is_some_and(|f| now.saturating_sub(f.ordered) > super::STEP_LOST) {
                hand.flight = None;
            }
            let Some(watch) = self.watches.get(at) else { continue };
            let Some(report) = &watch.report else { continue };
            let channel = report.channels().first();
            if let Some(since) = hand.repointed {
                let runs = channel.is_some_and(|c| c.applies && c.receiver != Receiver::Stopped);
                if watch.asked > since + super::SETTLE && !runs {
                    hand.repointed = None;
                    hand.stopped = None;
                }
                continue;
            }
            let receives = channel.is_some_and(|c| c.receiver != Receiver::Stopped);
            // A restart has ended it; the next election begins it anew.
            let ended = |(_, since)| watch.asked > since + super::SETTLE && !receives;
            if hand.catching_up.is_some_and(ended) {
                hand.catching_up = None;
            }
            let is_primary = primary.is_some_and(|id| usize::from(id.0) == at);
            if hand.stopped.is_some_and(|life| life != report.incarnation || (receives && !is_primary)) {
                hand.stopped = None;
            }
        }
    }

    /// Orders a step of this change, if nothing is in flight on that server.
    pub(super) fn hand_order(&mut self, id: ServerId, step: Step) {
        let now = self.now;
        let free = self.acting.as_ref().and_then(|acting| acting.hand(id));
        if !free.is_some_and(|hand| hand.flight.is_none() && now >= hand.not_before) {
            return;
        }
        let step_id = self.order(id, step.clone());
        if let Some(hand) = self.acting.as_mut().and_then(|acting| acting.hand_mut(id)) {
            hand.flight = Some(Flight { id: step_id, step, ordered: now });
        }
    }

    pub(super) fn acting_step_done(&mut self, id: ServerId, step: Step, result: Result<Outcome, StepError>) {
        let now = self.now;
        let report = match result {
            Ok(Outcome::Report(report)) => Some(*report),
            Ok(Outcome::Done) => None,
            Err(error) => {
                self.step_failed(id, &step, &error);
                return;
            }
        };
        let ordered_after = self.acting.as_ref().map_or(now, |acting| acting.since);
        if let Some(report) = report.clone()
            && let Some(watch) = self.watches.get_mut(usize::from(id.0))
        {
            watch.learn(report, now.max(ordered_after), now);
        }
        let life = self.watch(id).map_or(0, super::watch::Watch::incarnation);
        let Some(hand) = self.acting.as_mut().and_then(|acting| acting.hand_mut(id)) else { return };
        match step {
            Step::StopReceiver | Step::ReadPosition => {
                let receives = report.as_ref().is_none_or(|report| {
                    report.channels().first().is_some_and(|c| c.receiver != Receiver::Stopped)
                });
                if hand.catching_up.is_none() && !receives {
                    hand.stopped = Some(life);
                }
                if receives {
                    hand.not_before = now + super::RETRY_EVERY;
                }
            }
            Step::Promote { .. } => {
                hand.promoted = Some(now);
                hand.promoted_life = report.map(|report| report.incarnation).filter(|life| *life != 0);
                self.probe_now();
            }
            Step::WriteEpoch { .. } => hand.epoch_written = true,
            Step::SetWritable { .. } => hand.writable = true,
            Step::Repoint { source, .. } => self.repointed(id, source),
            Step::SetReadOnly { .. } => {
                if let (Some(acting), Some(report)) = (&mut self.acting, report) {
                    acting.final_position =
                        Some(FinalPosition { position: report.executed, told: now, proven: false });
                }
            }
            Step::StartApplier | Step::RemoveDelay => {
                hand.applier_started = Some(now);
                self.applier_started(id);
                self.probe_now();
            }
            Step::WaitApplied { .. } | Step::StartReplication | Step::Fence => {}
        }
    }

    fn repointed(&mut self, id: ServerId, source: ServerId) {
        let (now, is_chosen) = (self.now, self.phase() != Some(Phase::Fencing));
        let Some(hand) = self.acting.as_mut().and_then(|acting| acting.hand_mut(id)) else { return };
        if is_chosen {
            hand.repointed = Some(now);
        } else {
            hand.catching_up = Some((source, now));
            hand.stopped = None;
        }
    }

    fn step_failed(&mut self, id: ServerId, step: &Step, error: &StepError) {
        let now = self.now;
        self.note(
            super::action::Level::Warning,
            format!("{} on {} failed: {error}", step.name(), self.name(id)),
        );
        let Some(acting) = &mut self.acting else { return };
        let is_switchover = self.coordination.record.as_ref().is_some_and(|r| r.kind == Kind::Switchover);
        if matches!(step, Step::SetReadOnly { .. }) && is_switchover {
            acting.given_up.get_or_insert_with(|| format!("the primary did not become read-only: {error}"));
        }
        if let Some(hand) = acting.hand_mut(id) {
            hand.not_before = now + super::RETRY_EVERY;
            if matches!(step, Step::StartApplier | Step::RemoveDelay) {
                // It may have been done all the same.
                hand.applier_started = Some(now);
                self.applier_started(id);
            }
        }
    }

    fn applier_started(&mut self, id: ServerId) {
        if let Some(watch) = self.watches.get_mut(usize::from(id.0)) {
            watch.starting_applier = watch.starting_applier.map(|_| self.now);
        }
    }

    /// What has to be done before a replica's position counts, if anything.
    ///
    /// The applying thread is never started, stopped or reconfigured while the receiving one is stopped and anything is
    /// not applied: the relay log would be thrown away.
    pub(super) fn next_replica_step(&mut self, id: ServerId) -> Option<Step> {
        let (now, wrong_order) = (self.now, self.errs(Defect::StopReceiverFirst));
        let watch = self.watches.get_mut(usize::from(id.0)).filter(|watch| watch.up())?;
        let report = watch.report.as_ref()?;
        // What is answered is ordered: a step that is tried once only must not be passed over.
        let free = |hand: &&mut Hand| hand.flight.is_none() && now >= hand.not_before;
        let hand = self.acting.as_mut()?.hand_mut(id).filter(free)?;
        let channel = report.channels().first();
        if let Some((source, _)) = hand.catching_up {
            return self.next_catch_up_step(id, source);
        }
        if hand.stopped.is_some() {
            if wrong_order && channel.is_some_and(|channel| !channel.applies) {
                return Some(Step::StartApplier);
            }
            let channel = channel.filter(|channel| channel.applies && !report.has_applied_all())?;
            return Some(Step::WaitApplied { position: channel.received.clone() });
        }
        let Some(channel) = channel else { return Some(Step::ReadPosition) };
        if channel.receiver != Receiver::Stopped {
            if !channel.applies && channel.applier_error.code == 0 && !hand.applier_tried && !wrong_order {
                hand.applier_tried = true;
                watch.starting_applier = Some(now + super::STEP_TIMEOUT);
                return Some(Step::StartApplier);
            }
            if !channel.delay.is_zero() && !hand.delay_removed {
                hand.delay_removed = true;
                watch.starting_applier = Some(now + super::STEP_TIMEOUT);
                return Some(Step::RemoveDelay);
            }
            if hand.applier_started.is_some_and(|at| watch.asked <= at) {
                return None;
            }
        }
        Some(Step::StopReceiver)
    }

    fn next_catch_up_step(&mut self, id: ServerId, source: ServerId) -> Option<Step> {
        let target = self.watch(source)?.report.as_ref()?.executed.clone();
        let has_it = self.watch(id)?.report.as_ref()?.holds(&target);
        let hand = self.acting.as_mut()?.hand_mut(id)?;
        if has_it {
            hand.catching_up = None;
            return Some(Step::StopReceiver);
        }
        hand.not_before = hand.not_before.max(self.now + super::RETRY_EVERY);
        None
    }

    /// What the server has for certain; of a relay log that no thread may read any more, nothing.
    pub(super) fn surely_holds(report: &Report) -> GtidSet {
        let readable = |c: &crate::discover::Channel| c.applies || c.receiver != Receiver::Stopped;
        if report.channels().iter().all(readable) { report.held() } else { report.executed.clone() }
    }
}
