//! When this proxy takes the pen: the first record, a dead primary, an actor that is gone.

use std::collections::BTreeMap;
use std::time::Duration;

use pointsman_config::{Durability as Wanted, FailoverMode};

use super::action::Level;
use super::controller::Controller;
use super::defect::Defect;
use super::record::{Durability, Kind, Phase, RECORD_FORMAT, Record};
use super::verdict::Verdict;
use super::watch::Watch;
use crate::discover::Report;
use crate::topology::ServerId;

impl Controller {
    /// Makes the first record when it is clear who the primary is.
    pub(super) fn bootstrap(&mut self) {
        let all_probed = self.members().all(|watch| watch.answered.is_some() || watch.misses > 0);
        if !self.may_swap() || !all_probed || self.now < self.started + self.stagger() {
            return;
        }
        let writes =
            |id: &ServerId| self.report(*id).is_some_and(|report| !report.read_only && !report.replicates());
        let writable: Vec<_> = self.ids().filter(writes).collect();
        let [primary] = writable.as_slice() else {
            let text = if writable.is_empty() {
                "no server accepts writes without replicating: there is no primary to begin with"
            } else {
                "several servers accept writes: it is not clear which one is the primary"
            };
            self.note(Level::Warning, text.into());
            return;
        };
        let primary = *primary;
        // Without its life nobody could tell later whether it has restarted.
        let Some(report) = self.report(primary).filter(|report| report.incarnation != 0).cloned() else {
            return self.probe_now();
        };
        // Who acknowledges is seen on the replicas: they get some time to answer.
        let all_seen = self.members().all(|watch| watch.report.is_some());
        if report.semi_sync.source && !all_seen && self.now < self.started + FIRST_PATIENCE {
            return;
        }
        let rows = self.members().filter_map(|watch| watch.report.as_ref()?.epoch.as_ref());
        let epoch = rows.map(|row| row.epoch).max().unwrap_or(0) + 1;
        let name = self.name(primary);
        let mut record = Record {
            format: RECORD_FORMAT,
            epoch,
            phase: Phase::Active,
            primary: Some(name.clone()),
            candidate: None,
            durability: Durability::Async,
            ackers: Default::default(),
            wait_for: report.semi_sync.wait_for.max(1),
            floor: Default::default(),
            lives: [(name, report.incarnation)].into(),
            witnesses: Default::default(),
            strayed: Default::default(),
            kind: Kind::Switchover,
            accept_loss: false,
            stalled: false,
            actor: self.settings.proxy.clone(),
            reason: "the primary as it was found".into(),
            paused: false,
            maintenance: BTreeMap::new(),
            fenced: Default::default(),
            history: Vec::new(),
        };
        self.set_durability(&mut record, &report);
        record.phase = Phase::Stable;
        self.swap(record);
    }

    /// Says in the record what an acknowledged transaction survives, as the primary's report proves it.
    pub(super) fn set_durability(&self, record: &mut Record, primary: &Report) {
        let semi_sync = &primary.semi_sync;
        let attachable = |id: &ServerId| {
            let name = self.name(*id);
            record.primary.as_ref() != Some(&name) && self.report(*id).is_some_and(|r| r.semi_sync.replica)
        };
        let ackers: Vec<_> = self.ids().filter(attachable).map(|id| self.name(id)).collect();
        let waits = semi_sync.waits_for_ever() && self.settings.durability != Wanted::Async;
        let all_known = usize::try_from(semi_sync.ackers).is_ok_and(|attached| attached <= ackers.len());
        if waits && all_known && ackers.len() >= LOSSLESS_ACKERS {
            record.durability = Durability::Lossless;
            record.wait_for = semi_sync.wait_for.max(1);
            record.ackers.extend(ackers);
        } else {
            record.durability = Durability::Async;
        }
    }

    /// Takes STABLE or ACTIVE to FENCING if the primary is to be replaced and this proxy may do it.
    pub(super) fn claim(&mut self) {
        let Some(reason) = self.reason_to_replace() else {
            self.refusal = None;
            return;
        };
        if let Err(refusal) = self.may_replace() {
            if self.refusal.as_ref() != Some(&refusal) {
                self.note(Level::Alarm, format!("no automatic failover although {reason}: {refusal}"));
            }
            self.refusal = Some(refusal);
            return;
        }
        self.refusal = None;
        if self.now < self.verdict_since + self.stagger() || !self.may_swap() {
            return;
        }
        self.swap_fencing(Kind::Automatic, None, reason);
    }

    pub(super) fn swap_fencing(&mut self, kind: Kind, candidate: Option<ServerId>, reason: String) {
        let Some(mut record) = self.coordination.record.clone() else { return };
        record.epoch += 1;
        record.phase = Phase::Fencing;
        record.kind = kind;
        record.candidate = candidate.map(|id| self.name(id));
        record.floor = crate::gtid::GtidSet::default();
        record.accept_loss = false;
        record.stalled = kind == Kind::Automatic && matches!(self.verdict, Verdict::Stalled { .. });
        record.reason = reason;
        record.witnesses = self.coordination.proxies.iter().cloned().collect();
        let primary_life =
            record.primary.as_ref().and_then(|name| Some((name.clone(), *record.lives.get(name)?)));
        let whole =
            self.ids().filter(|id| self.is_acker(*id) && self.watch(*id).is_some_and(|watch| watch.whole));
        record.lives = whole
            .map(|id| (self.name(id), self.watch(id).map_or(0, Watch::incarnation)))
            .chain(primary_life)
            .collect();
        self.swap(record);
        self.probe_now();
    }

    fn reason_to_replace(&self) -> Option<String> {
        match &self.verdict {
            Verdict::Dead { reason } => Some(reason.clone()),
            Verdict::Stalled { reason } => {
                self.beats.is_stuck(self.settings.stalled_for, self.now).then(|| reason.clone())
            }
            Verdict::ReadOnly { reason } if self.primary_lost_its_role() => Some(reason.clone()),
            Verdict::ReadOnly { .. } | Verdict::Alive | Verdict::Unreachable { .. } => None,
        }
    }

    /// A primary that has restarted may have cut off what was acknowledged (lossless), or waits to be opened (async).
    pub(super) fn primary_lost_its_role(&self) -> bool {
        let Some(record) = &self.coordination.record else { return false };
        let Some(watch) = self.primary().and_then(|id| self.watch(id)).filter(|watch| watch.up()) else {
            return false;
        };
        let name = record.primary.as_deref().unwrap_or_default();
        // Zero is not told yet, as in the first report that a proxy gets.
        let life = Some(watch.incarnation()).filter(|life| *life != 0);
        let restarted = record.lives.get(name).is_some_and(|known| life.is_some_and(|life| life != *known));
        let fresh = watch.asked >= self.coordination.opened;
        let read_only = watch.report.as_ref().is_some_and(|report| report.read_only);
        restarted && fresh && (read_only || record.durability == Durability::Lossless)
    }

    /// The primary is the same process that the record speaks of, and it takes writes.
    pub(super) fn primary_lives_on(&self) -> bool {
        let Some(record) = &self.coordination.record else { return false };
        let Some(name) = &record.primary else { return false };
        let life = self.primary().and_then(|id| self.watch(id)).map_or(0, Watch::incarnation);
        matches!(record.phase, Phase::Stable | Phase::Active) && record.lives.get(name) == Some(&life)
    }

    /// The rules that keep failovers from doing harm.
    fn may_replace(&self) -> Result<(), String> {
        let Some(record) = &self.coordination.record else { return Err("there is no record".into()) };
        let primary = record.primary.as_deref().unwrap_or_default();
        let failures = self.settings.failures;
        let down = self.members().filter(|watch| watch.down(failures)).count();
        let all = self.members().count();
        if self.settings.mode != FailoverMode::Automatic {
            return Err("failover.mode is not automatic".into());
        }
        if record.paused {
            return Err("automatic failover is paused".into());
        }
        if record.maintenance.contains_key(primary) {
            return Err(format!("{primary} is in maintenance"));
        }
        if let Some(reason) = &self.coordination.barred {
            return Err(reason.clone());
        }
        if let Some(reason) = &self.coordination.lost {
            return Err(format!("the coordinator does not answer: {reason}"));
        }
        if down * 2 > all {
            return Err(format!("{down} of {all} servers do not answer: it is more likely us"));
        }
        if record.durability == Durability::Async && self.settings.durability == Wanted::Lossless {
            return Err("failover.durability is lossless and replication was not".into());
        }
        if matches!(self.verdict, Verdict::Stalled { .. }) {
            self.enough_ackers(record)?;
        }
        self.not_flapping(record)
    }

    /// A primary that lives and takes no writes may yet do so again: it is given up only for a change that can end.
    fn enough_ackers(&self, record: &Record) -> Result<(), String> {
        let ackers = record.ackers.iter().filter_map(|name| self.find(name));
        let proves = |id: &ServerId| self.watch(*id).is_some_and(|watch| watch.up() && watch.whole);
        let there: Vec<_> = ackers.filter(|id| proves(id) && self.barred(*id).is_none()).collect();
        if record.durability == Durability::Async {
            return Err("in async mode it may be the only one that knows what was acknowledged".into());
        }
        let needed = record.quorum();
        if there.len() < needed {
            let (there, all) = (there.len(), record.ackers.len());
            return Err(format!("{there} of {all} ackers answer, {needed} are needed"));
        }
        if there.iter().all(|id| self.ineligible(*id).is_some()) {
            return Err("no replica that acknowledges may be promoted".into());
        }
        Ok(())
    }

    fn not_flapping(&self, record: &Record) -> Result<(), String> {
        let automatic = || record.history.iter().filter(|past| past.kind == Kind::Automatic);
        let last = automatic().map(|past| self.age(past.epoch)).min();
        let in_hour = automatic().filter(|past| self.age(past.epoch) < HOUR).count();
        let limit = usize::try_from(self.settings.max_per_hour).unwrap_or(usize::MAX);
        if limit > 0 && in_hour >= limit {
            return Err(format!("there were {in_hour} automatic failovers within the last hour"));
        }
        let Some(last) = last.filter(|last| *last < self.settings.min_interval) else { return Ok(()) };
        // Nothing can be lost when every acker is there.
        let there = |id: ServerId| self.watch(id).is_some_and(|watch| watch.up() && watch.whole);
        let ackers = record.ackers.iter().map(|name| self.find(name));
        let no_risk = record.durability == Durability::Lossless
            && !record.ackers.is_empty()
            && ackers.into_iter().all(|id| id.is_some_and(there));
        if no_risk {
            return Ok(());
        }
        Err(format!("the last automatic failover was {} s ago", last.as_secs()))
    }

    /// How long this proxy lets others go first.
    pub(super) fn stagger(&self) -> Duration {
        let rank = self.coordination.proxies.iter().position(|id| *id == self.settings.proxy).unwrap_or(0);
        match u32::try_from(rank).unwrap_or(u32::MAX) {
            0 => Duration::ZERO,
            rank => STAGGER + STAGGER_MORE * (rank - 1).min(MOST_STAGGERED),
        }
    }

    /// Goes on for an actor that has fallen silent.
    pub(super) fn take_over(&mut self) {
        let Some(record) = &self.coordination.record else { return };
        let is_gone = !self.coordination.proxies.contains(&record.actor);
        let peer = self.peers.get(&record.actor).and_then(|peer| peer.heard);
        let heard = peer.unwrap_or(Duration::ZERO).max(self.coordination.changed);
        let patience = if is_gone {
            Duration::ZERO
        } else if peer.is_some() {
            super::ACTOR_PATIENCE
        } else {
            super::ACTOR_PATIENCE_UNHEARD
        };
        let due = heard + patience + self.stagger();
        if self.now < due
            || !self.may_swap()
            || self.settings.mode == FailoverMode::Off
            || self.errs(Defect::NeverTakeOver)
        {
            return;
        }
        let record = record.clone();
        self.note(Level::Warning, format!("{} has fallen silent; this proxy goes on", record.actor));
        self.swap(record);
    }
}

/// With one, the promotion's own proof would wait for ever.
const LOSSLESS_ACKERS: usize = 2;
/// How long the first record waits for servers that do not answer.
const FIRST_PATIENCE: Duration = Duration::from_secs(3);
const HOUR: Duration = Duration::from_secs(3600);
const STAGGER: Duration = Duration::from_millis(100);
const STAGGER_MORE: Duration = Duration::from_millis(50);
const MOST_STAGGERED: u32 = 20;
