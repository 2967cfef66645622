//! The record: learning it, and swapping it for another.

use std::collections::BTreeMap;
use std::time::Duration;

use super::action::{Action, Level, SwapId};
use super::beats::Beats;
use super::controller::Controller;
use super::event::{Message, ReadRecord, Swap};
use super::record::{Phase, ProxyId, RECORD_FORMAT, Record, Revision};

/// What this proxy knows of the coordinator.
#[derive(Debug, Default)]
pub(super) struct Coordination {
    pub(super) revision: Revision,
    pub(super) record: Option<Record>,
    /// When this state of the record was first seen here.
    pub(super) changed: Duration,
    /// When the epoch was first seen here.
    pub(super) epoch_seen: Duration,
    /// When it was first seen that the primary of this epoch takes writes.
    pub(super) opened: Duration,
    pub(super) proxies: Vec<ProxyId>,
    /// When the last read that was answered was asked.
    pub(super) asked: Option<Duration>,
    pub(super) barred: Option<String>,
    /// Why the coordinator does not answer.
    pub(super) lost: Option<String>,
    /// The wall clock at time zero of the process's clock, in milliseconds.
    wall_at_zero: i128,
    pub(super) pending: Option<Pending>,
    /// How old each change of the primary was at time zero, in milliseconds: negative if it came later.
    pub(super) ages: BTreeMap<u64, i128>,
}

/// A swap that has not been answered.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) id: SwapId,
    pub(super) record: Box<Record>,
    pub(super) sent: Duration,
}

impl Controller {
    /// Asks for the record to become `record`; one at a time.
    pub(super) fn swap(&mut self, mut record: Record) {
        if self.coordination.pending.is_some() || self.coordination.barred.is_some() {
            return;
        }
        record.format = RECORD_FORMAT;
        record.actor = self.settings.proxy.clone();
        self.swaps += 1;
        let id = SwapId(self.swaps);
        let record = Box::new(record);
        self.coordination.pending = Some(Pending { id, record: record.clone(), sent: self.now });
        self.out.push(Action::Swap { id, expected: self.coordination.revision, record });
    }

    /// Whether a swap may be tried now.
    pub(super) fn may_swap(&self) -> bool {
        let coordination = &self.coordination;
        let known = coordination.record.as_ref().is_none_or(|record| record.format <= RECORD_FORMAT);
        coordination.pending.is_none()
            && coordination.barred.is_none()
            && coordination.lost.is_none()
            && coordination.asked.is_some()
            && known
    }

    pub(super) fn take_swap(&mut self, id: SwapId, outcome: Swap) {
        let Some(pending) = self.coordination.pending.take_if(|pending| pending.id == id) else { return };
        match outcome {
            Swap::Won { revision } => {
                let late = self.now.saturating_sub(pending.sent) > super::FROZEN_AFTER;
                self.adopt(revision, *pending.record);
                if late {
                    self.verify();
                }
            }
            Swap::Lost { revision, record: Some(record) } => self.learn_record(revision, *record),
            Swap::Lost { record: None, .. } => {
                self.coordination.revision = Revision::default();
                self.coordination.record = None;
            }
            Swap::Failed { reason } => {
                self.note(Level::Warning, format!("the coordinator did not take the record: {reason}"));
                self.verify();
            }
        }
    }

    /// Does nothing more before the record has been read again.
    fn verify(&mut self) {
        if let Some(acting) = &mut self.acting {
            acting.verify_after = Some(self.now);
        }
        self.out.push(Action::ReadRecord);
    }

    pub(super) fn take_read(&mut self, read: ReadRecord) {
        let ReadRecord { asked, revision, record, proxies, barred, wall } = read;
        if self.coordination.asked.is_some_and(|before| before > asked) {
            return;
        }
        let wall = i128::try_from(wall.as_millis()).unwrap_or(0);
        self.coordination.wall_at_zero = wall - i128::try_from(self.now.as_millis()).unwrap_or(0);
        self.coordination.asked = Some(asked);
        self.coordination.lost = None;
        if self.coordination.proxies.iter().any(|id| !proxies.contains(id)) {
            self.departed = self.now;
            self.baseline = None;
        }
        self.coordination.proxies = proxies;
        self.coordination.proxies.sort();
        self.coordination.barred = barred;
        let now = self.now;
        self.peers.retain(|_, peer| {
            peer.heard.is_none_or(|heard| now.saturating_sub(heard) < super::PEER_FORGOTTEN)
        });
        let known = self.coordination.revision;
        if self.coordination.pending.as_ref().is_some_and(|p| p.sent < asked && revision != known) {
            // Whatever became of the swap, this is newer.
            self.coordination.pending = None;
        }
        match record {
            Some(record) => self.learn_record(revision, record),
            None if self.coordination.record.is_some() && asked > self.coordination.changed => {
                self.note(Level::Alarm, "the record is gone from the coordinator".into());
                self.coordination.record = None;
                self.coordination.revision = revision;
            }
            None => {}
        }
        if let Some(acting) = &mut self.acting
            && acting.verify_after.is_some_and(|after| asked >= after)
        {
            acting.verify_after = None;
        }
    }

    pub(super) fn learn_record(&mut self, revision: Revision, record: Record) {
        if revision > self.coordination.revision {
            self.adopt(revision, record);
        }
    }

    fn adopt(&mut self, revision: Revision, record: Record) {
        if revision <= self.coordination.revision {
            return;
        }
        let is_new_epoch = self.epoch() != record.epoch || self.coordination.record.is_none();
        let is_open = |record: &Record| matches!(record.phase, Phase::Stable | Phase::Active);
        if is_open(&record) && (is_new_epoch || !self.coordination.record.as_ref().is_some_and(is_open)) {
            self.coordination.opened = self.now;
        }
        let before = self.coordination.record.replace(record);
        self.coordination.revision = revision;
        self.coordination.changed = self.now;
        if is_new_epoch {
            self.coordination.epoch_seen = self.now;
            self.beats = Beats::default();
            // While a change goes on, nobody acknowledges: what was known of the epoch before still counts.
            if self
                .coordination
                .record
                .as_ref()
                .is_some_and(|r| matches!(r.phase, Phase::Stable | Phase::Active))
            {
                self.baseline = None;
            }
            self.upkeep.clear();
        }
        self.date_history(before.is_none());
        self.start_or_stop_acting(is_new_epoch);
    }

    /// Puts the past on this process's clock: what it sees happen happens now, older things are dated by the wall clock.
    fn date_history(&mut self, is_first: bool) {
        let Some(record) = &self.coordination.record else { return };
        let now = i128::try_from(self.now.as_millis()).unwrap_or(0);
        for past in &record.history {
            let dated = i128::from(past.at_ms) - self.coordination.wall_at_zero;
            let at = if is_first { dated.min(now) } else { now };
            self.coordination.ages.entry(past.epoch).or_insert(at);
        }
        self.coordination.ages.retain(|epoch, _| record.history.iter().any(|past| past.epoch == *epoch));
    }

    /// How long ago the change to `epoch` was.
    pub(super) fn age(&self, epoch: u64) -> Duration {
        let now = i128::try_from(self.now.as_millis()).unwrap_or(0);
        let at = self.coordination.ages.get(&epoch).copied().unwrap_or(now);
        Duration::from_millis(u64::try_from((now - at).max(0)).unwrap_or(u64::MAX))
    }

    pub(super) fn wall_ms(&self) -> u64 {
        let now = i128::try_from(self.now.as_millis()).unwrap_or(0);
        u64::try_from((self.coordination.wall_at_zero + now).max(0)).unwrap_or(u64::MAX)
    }

    /// Whether a lease that was valid when the epoch began may still be so for somebody.
    pub(super) fn leases_over(&self) -> bool {
        let coordination = &self.coordination;
        let lease = self.settings.lease;
        if self.now >= coordination.epoch_seen + lease + self.settings.lease_margin() {
            return true;
        }
        // Who registers later reads the record first.
        if coordination.asked.is_none_or(|asked| asked < coordination.epoch_seen) {
            return false;
        }
        let others = coordination.proxies.iter().filter(|id| **id != self.settings.proxy);
        others.into_iter().all(|id| {
            let fenced = self.peers.get(id).and_then(|peer| peer.fenced.as_ref());
            fenced.is_some_and(|(epoch, _)| *epoch >= self.epoch())
        })
    }

    /// Until when what this proxy knows of the record is certainly still so.
    pub(super) fn lease_until(&self) -> Option<Duration> {
        let asked = self.coordination.asked?;
        Some(asked + self.settings.lease.saturating_sub(self.settings.lease_margin()))
    }

    pub(super) fn take_message(&mut self, from: ProxyId, message: Message) {
        if from == self.settings.proxy {
            return;
        }
        let now = self.now;
        match message {
            Message::Fenced { epoch, mark } => {
                let peer = self.peers.entry(from).or_default();
                peer.heard = Some(now);
                if peer.fenced.as_ref().is_none_or(|(known, _)| *known <= epoch) {
                    peer.fenced = Some((epoch, mark));
                }
            }
            Message::Alive(alive) => {
                let peer = self.peers.entry(from).or_default();
                peer.heard = Some(now);
                peer.alive = *alive;
            }
            Message::Record { revision, record } => self.learn_record(revision, *record),
        }
    }
}
