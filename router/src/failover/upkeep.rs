//! While the primary is well: who acknowledges, who has to become a replica again, what has expired.

use super::action::{Level, Step};
use super::controller::Controller;
use super::event::{Outcome, StepError};
use super::record::{Durability, Record};
use crate::discover::{Channel, Receiver, Report};
use crate::topology::ServerId;

impl Controller {
    /// Whether this proxy looks after the servers: one of them does.
    pub(super) fn leads(&self) -> bool {
        let Some(record) = &self.coordination.record else { return false };
        let proxies = &self.coordination.proxies;
        let actor = proxies.iter().find(|id| **id == record.actor);
        actor.or(proxies.first()) == Some(&self.settings.proxy)
    }

    /// One round of STABLE.
    pub(super) fn tend(&mut self) {
        self.learn_maintenance();
        if !self.leads() || !self.may_swap() {
            return;
        }
        let (Some(record), Some(primary)) = (self.coordination.record.clone(), self.primary()) else {
            return;
        };
        let Some(watch) = self.watch(primary).filter(|w| w.up() && w.asked >= self.coordination.opened)
        else {
            return;
        };
        let Some(report) = watch.report.clone() else { return };
        if self.primary_lost_its_role() {
            return;
        }
        let waits = record.durability == Durability::Lossless && report.semi_sync.source;
        let stands_still = waits && report.semi_sync.ackers < record.wait_for;
        self.unacknowledged = stands_still.then(|| self.unacknowledged.unwrap_or(self.now));
        if let Some(changed) = self.kept_up(&record, &report) {
            self.swap(changed);
            return;
        }
        if !report.read_only && self.epoch_row_written < record.epoch {
            self.epoch_row_written = record.epoch;
            if report.epoch.as_ref().is_none_or(|row| row.epoch < record.epoch) {
                let name = self.name(primary);
                self.upkeep_order(primary, Step::WriteEpoch { epoch: record.epoch, primary: name });
            }
        }
        if report.read_only && self.was_fenced_late(&record) {
            self.upkeep_order(primary, record.make_writable());
        }
        for id in self.ids().filter(|id| *id != primary) {
            self.tend_replica(id, primary, &report);
        }
    }

    /// The primary was fenced in a failover not long ago, and what was sent against it then may have come last.
    ///
    /// At any other time a primary that is read-only was made so by somebody, and stays so.
    fn was_fenced_late(&self, record: &Record) -> bool {
        let fenced = record.history.iter().filter(|past| past.from == record.primary);
        fenced.into_iter().any(|past| self.age(past.epoch) < super::FENCE_TIMEOUT * 3)
    }

    /// The record as it should be, if it should be another one.
    fn kept_up(&mut self, record: &Record, primary: &Report) -> Option<Record> {
        let mut changed = record.clone();
        let name = record.primary.clone().unwrap_or_default();
        let settled = self.now >= self.coordination.opened + super::DEGRADED_AFTER;
        if record.durability == Durability::Lossless {
            let semi_sync = &primary.semi_sync;
            let holds = semi_sync.source && semi_sync.active && semi_sync.waits_alone;
            if settled && !holds {
                changed.durability = Durability::Async;
                self.note(
                    Level::Alarm,
                    format!("{name} no longer waits for acknowledgements: writes may be lost"),
                );
            }
            // Whoever could attach counts, before it does or not.
            let attached = |id: &ServerId| self.report(*id).is_some_and(|report| report.semi_sync.replica);
            let more = self.ids().filter(|id| self.primary() != Some(*id)).filter(attached);
            changed.ackers.extend(more.map(|id| self.name(id)));
            self.let_strangers_go(&mut changed, primary);
        } else if settled {
            self.set_durability(&mut changed, primary);
        }
        let another_life = primary.incarnation != 0 && record.lives.get(&name) != Some(&primary.incarnation);
        if another_life && !self.primary_lost_its_role() {
            changed.lives = [(name, primary.incarnation)].into();
        }
        let rejoined: Vec<_> =
            record.strayed.iter().filter(|name| self.has_rejoined(name, record)).cloned().collect();
        for name in rejoined {
            changed.strayed.remove(&name);
        }
        // An acker is counted before it may acknowledge.
        let ready = record.strayed.iter().filter(|name| {
            let id = self.find(name);
            record.durability == Durability::Lossless
                && id.is_some_and(|id| self.follows_closely(id) || self.lacks_own.contains(&id))
        });
        changed.ackers.extend(ready.cloned());
        self.expire_maintenance(&mut changed);
        (changed != *record).then_some(changed)
    }

    /// An acker that the configuration names no more counts until it certainly acknowledges no more, and what it may have
    /// acknowledged alone has arrived at the others.
    fn let_strangers_go(&mut self, record: &mut Record, primary: &Report) {
        let (known, strangers): (Vec<_>, Vec<_>) =
            record.ackers.iter().cloned().partition(|name| self.find(name).is_some());
        if strangers.is_empty() || known.is_empty() {
            self.known_alone = None;
            return;
        }
        let acknowledges = |id: &ServerId| {
            self.watch(*id).filter(|watch| watch.up()).is_some_and(|watch| {
                let attached = watch.report.as_ref().is_some_and(|report| report.semi_sync.acknowledges);
                attached && watch.channel().is_some_and(|channel| self.leads_to_primary(channel))
            })
        };
        let acknowledging = self.ids().filter(acknowledges).count();
        if usize::try_from(primary.semi_sync.ackers).is_ok_and(|attached| attached > acknowledging) {
            self.known_alone = None;
            let names = strangers.join(", ");
            self.note(
                Level::Warning,
                format!("{names} is in no configuration and may acknowledge: stop its replication"),
            );
            return;
        }
        let now = self.now;
        let (since, position) =
            self.known_alone.get_or_insert_with(|| (now, primary.executed.clone())).clone();
        let holds = |name: &String| {
            self.find(name).and_then(|id| self.report(id)).is_some_and(|report| report.holds(&position))
        };
        if known.iter().all(holds) && now >= since + super::DEGRADED_AFTER {
            record.ackers.retain(|name| known.contains(name));
            self.known_alone = None;
        }
    }

    fn has_rejoined(&self, name: &str, record: &Record) -> bool {
        let Some(id) = self.find(name) else { return true };
        let acks = self.report(id).is_some_and(|report| report.semi_sync.replica);
        let filtered = self.watch(id).and_then(|w| w.channel()).is_some_and(|channel| channel.filtered);
        let plays_its_part =
            record.durability == Durability::Async || filtered || (acks && record.ackers.contains(name));
        // As it looks since it strayed, not as it looked before.
        let seen = self.watch(id).is_some_and(|watch| watch.asked > self.coordination.changed);
        seen && self.follows_closely(id) && plays_its_part
    }

    /// Replicates from the primary and has caught up with it.
    fn follows_closely(&self, id: ServerId) -> bool {
        let Some(watch) = self.watch(id).filter(|watch| watch.up()) else { return false };
        let fresh = watch.asked >= self.coordination.opened;
        fresh
            && watch.whole
            && watch.channel().is_some_and(|channel| runs(channel) && self.leads_to_primary(channel))
    }

    pub(super) fn leads_to_primary(&self, channel: &Channel) -> bool {
        self.primary().is_some_and(|primary| self.leads_to(channel, primary))
    }

    /// Whether a channel's source is `source`.
    pub(super) fn leads_to(&self, channel: &Channel, source: ServerId) -> bool {
        let Some(server) = self.settings.servers.get(usize::from(source.0)) else { return false };
        let identity = self.report(source).is_some_and(|report| {
            let uuid = !report.uuid.is_empty() && channel.source_uuid.eq_ignore_ascii_case(&report.uuid);
            uuid || (channel.source_server_id != 0 && channel.source_server_id == report.server_id)
        });
        identity || channel.source().eq_ignore_ascii_case(&server.address)
    }

    fn tend_replica(&mut self, id: ServerId, primary: ServerId, of_primary: &Report) {
        let name = self.name(id);
        let Some(record) = &self.coordination.record else { return };
        let strayed = record.strayed.contains(&name);
        let counts = record.ackers.contains(&name);
        let fenced = record.fenced.contains(&name);
        if record.maintenance.contains_key(&name) && !fenced {
            return;
        }
        let Some(watch) = self.watch(id).filter(|w| w.up() && w.asked >= self.coordination.opened) else {
            return;
        };
        let Some(report) = watch.report.clone() else { return };
        if fenced {
            return self.keep_isolated(id, report.read_only);
        }
        let channel = report.channels().first();
        let placed = channel.is_some_and(|channel| self.leads_to_primary(channel));
        let running = channel.is_some_and(runs);
        let was_primary =
            record.history.iter().any(|past| past.to == name || past.from.as_ref() == Some(&name));
        if placed && !report.read_only && was_primary {
            self.note(Level::Alarm, format!("{name} is a replica and accepts writes: it is set read-only"));
            self.upkeep_order(id, Step::SetReadOnly { deadline: super::STEP_EXPIRES });
            return;
        }
        let lost_its_threads = watch.returned && placed && !running;
        // Whoever restarted while no proxy looked has no threads either, and somebody has to acknowledge.
        let needed = counts
            && placed
            && !running
            && self.unacknowledged.is_some_and(|since| self.now >= since + super::DEGRADED_AFTER);
        if !strayed && !lost_its_threads && !needed {
            return;
        }
        if placed && running {
            if counts && !report.semi_sync.replica && watch.whole {
                self.upkeep_order(id, Step::Repoint { source: primary, acker: true });
            }
            return;
        }
        if !report.read_only {
            self.note(Level::Alarm, format!("{name} came back and accepts writes: it is being fenced"));
            self.upkeep_order(id, Step::Fence);
            return;
        }
        if let Some(error) = channel.map(|channel| &channel.receiver_error).filter(|error| error.code != 0)
            && placed
            && !error.is_connection_trouble()
        {
            self.note(Level::Alarm, format!("{name} cannot rejoin: error {}: {}", error.code, error.message));
            return;
        }
        if channel.is_some_and(|channel| channel.applies && !report.has_applied_all()) {
            return;
        }
        // Only what the primary had when asked after this server had come to its position says anything.
        if self.watch(primary).is_none_or(|of_primary| of_primary.asked < watch.executed_since) {
            return;
        }
        let waits = !strayed && has_what_waits(&report, of_primary);
        if let Some(errant) = errant(&report, of_primary).filter(|_| !waits) {
            self.note(
                Level::Alarm,
                format!(
                    "{name} cannot rejoin: it holds transactions that the primary does not have: {errant}"
                ),
            );
            return;
        }
        self.upkeep_order(id, Step::Repoint { source: primary, acker: counts });
    }

    pub(super) fn upkeep_order(&mut self, id: ServerId, step: Step) {
        let upkeep = self.upkeep.entry(id).or_default();
        if upkeep.flight.is_some() || self.now < upkeep.not_before {
            return;
        }
        let step_id = self.order(id, step.clone());
        if let Some(upkeep) = self.upkeep.get_mut(&id) {
            upkeep.flight = Some((step_id, step));
        }
    }

    pub(super) fn upkeep_step_done(&mut self, id: ServerId, step: Step, result: Result<Outcome, StepError>) {
        let name = self.name(id);
        match (&step, result) {
            (Step::Repoint { acker: false, .. }, Err(StepError::LacksOwn(reason))) => {
                self.lacks_own.insert(id);
                self.note(Level::Info, format!("{name} has to acknowledge while it rejoins: {reason}"));
            }
            (_, Err(error)) => {
                self.note(Level::Warning, format!("{} on {name} failed: {error}", step.name()))
            }
            (Step::Fence, Ok(_)) => {
                self.isolated.insert(id);
            }
            (Step::Repoint { .. }, Ok(_)) => {
                self.lacks_own.remove(&id);
                self.note(Level::Info, format!("{name} is a replica again"));
            }
            (_, Ok(_)) => {}
        }
    }

    /// Counts maintenance on this process's clock, from when it was first seen.
    fn learn_maintenance(&mut self) {
        let Some(record) = &self.coordination.record else { return };
        let now = self.now;
        self.maintenance_until.retain(|name, (since, _)| {
            record.maintenance.get(name).is_some_and(|maintenance| maintenance.since_ms == *since)
        });
        for (name, maintenance) in &record.maintenance {
            let length = std::time::Duration::from_secs(maintenance.seconds);
            self.maintenance_until.entry(name.clone()).or_insert((maintenance.since_ms, now + length));
        }
    }

    fn expire_maintenance(&self, record: &mut Record) {
        let over =
            |name: &String| self.maintenance_until.get(name).is_some_and(|(_, until)| self.now >= *until);
        record.maintenance.retain(|name, _| !over(name));
    }
}

/// What a server has executed that the primary has not, as far as it can be seen.
///
/// MariaDB's numbers go on from server to server: once the primary's are higher, only its strict mode tells.
pub(super) fn errant(report: &Report, of_primary: &Report) -> Option<String> {
    let errant = report.executed.subtract(&of_primary.executed);
    if !errant.is_empty() {
        return Some(errant.to_string());
    }
    let is_out_of_order = report.channels().iter().any(|c| c.applier_error.code == OUT_OF_ORDER);
    is_out_of_order.then(|| report.executed.to_string())
}

/// Whether all that a replica has beyond the primary is the primary's own: what that does not show yet waits for an
/// acknowledgement, for this one's perhaps.
fn has_what_waits(report: &Report, of_primary: &Report) -> bool {
    let ahead = report.executed.subtract(&of_primary.executed);
    of_primary.semi_sync.source
        && !ahead.is_empty()
        && ahead.is_only_of(of_primary.server_id, &of_primary.uuid)
}

/// ER_GTID_STRICT_OUT_OF_ORDER.
const OUT_OF_ORDER: u16 = 1950;

fn runs(channel: &Channel) -> bool {
    channel.applies && channel.receiver == Receiver::Running
}
