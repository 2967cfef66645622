//! A database server, as far as replication goes: MariaDB in GTID mode, with semi-synchronous acknowledgement.

use std::collections::BTreeMap;
use std::time::Duration;

use pointsman_router::discover::{Channel, EpochRow, Pulse, Receiver, Replication, Report, SemiSync};
use pointsman_router::gtid::GtidSet;
use pointsman_router::intent::Flavour;

/// One transaction in a binary log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) origin: u8,
    /// A row of a client, or none for an epoch row.
    pub(crate) row: u32,
    pub(crate) epoch: u64,
    /// Of everything up to here: two logs agree up to a place if the hashes there are equal.
    hash: u64,
}

pub(crate) const NO_ROW: u32 = u32::MAX;

/// A client that waits for its commit.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Waiter {
    /// Its entry is the last of this many.
    pub(crate) length: usize,
    pub(crate) row: u32,
    /// The proxy and its life, or none of a client that came directly.
    pub(crate) via: Option<(usize, u32)>,
    pub(crate) epoch: u64,
}

#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) id: u8,
    /// The binary log; on a replica, what is applied.
    pub(crate) log: Vec<Entry>,
    /// Received and not applied.
    pub(crate) relay: Vec<Entry>,
    /// How much of the log the engine has committed.
    pub(crate) committed: usize,
    pub(crate) waiters: Vec<Waiter>,
    pub(crate) up: bool,
    pub(crate) frozen: bool,
    boot: u64,
    applier: u64,
    pub(crate) read_only: bool,
    pub(crate) semi_source: bool,
    pub(crate) semi_replica: bool,
    pub(crate) wait_for: u32,
    pub(crate) source: Option<usize>,
    pub(crate) receives: bool,
    /// Its source serves it at this moment.
    pub(crate) connected: bool,
    pub(crate) applies: bool,
    pub(crate) slow: bool,
    /// Nothing can be written any more: its disk is full.
    pub(crate) full: bool,
    /// Whose writes wait for room.
    pub(crate) stuck: Vec<Waiter>,
    beat: u64,
    /// What a crash cannot take: the engine has committed everything from before the last `FLUSH BINARY LOGS`.
    durable: usize,
    /// Restarted with `--init-rpl-role=SLAVE`: what was not committed is cut off.
    pub(crate) truncates: bool,
    positions: BTreeMap<(usize, u8), GtidSet>,
}

impl Server {
    pub(crate) fn new(id: u8, lossless: bool) -> Self {
        let is_primary = id == 0;
        Self {
            id,
            log: Vec::new(),
            relay: Vec::new(),
            committed: 0,
            waiters: Vec::new(),
            up: true,
            frozen: false,
            boot: 1,
            applier: 1,
            read_only: !is_primary,
            semi_source: is_primary && lossless,
            semi_replica: !is_primary && lossless,
            wait_for: 1,
            source: (!is_primary).then_some(0),
            receives: !is_primary,
            connected: false,
            applies: !is_primary,
            slow: false,
            full: false,
            stuck: Vec::new(),
            beat: 0,
            durable: 0,
            truncates: lossless,
            positions: BTreeMap::new(),
        }
    }

    pub(crate) fn alive(&self) -> bool {
        self.up && !self.frozen
    }

    pub(crate) fn push(&mut self, row: u32, epoch: u64) -> usize {
        let before = self.log.last().map_or(0, |entry| entry.hash);
        let origin = self.id;
        let mut hash = before ^ (u64::from(row) << 8 | u64::from(origin)) ^ epoch.rotate_left(40);
        hash = hash.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (hash >> 29);
        self.log.push(Entry { origin, row, epoch, hash });
        if !self.semi_source {
            self.committed = self.log.len();
        }
        self.log.len()
    }

    pub(crate) fn received(&self) -> usize {
        self.log.len() + self.relay.len()
    }

    /// The hash of everything up to `length`, received or applied.
    fn hash_at(&self, length: usize) -> Option<u64> {
        match length.checked_sub(1) {
            None => Some(0),
            Some(at) if at < self.log.len() => Some(self.log[at].hash),
            Some(at) => self.relay.get(at - self.log.len()).map(|entry| entry.hash),
        }
    }

    /// Whether all that `self` has is in the binary log of `source`: otherwise it gets error 1236.
    pub(crate) fn fits(&self, source: &Self) -> bool {
        let length = self.received();
        length <= source.log.len() && source.hash_at(length) == self.hash_at(length)
    }

    pub(crate) fn has_row(&self, row: u32) -> bool {
        self.log.iter().chain(&self.relay).any(|entry| entry.row == row)
    }

    /// As [`Self::has_row`], but for a relay log that no thread can read any more.
    pub(crate) fn can_show_row(&self, row: u32) -> bool {
        let relay: &[Entry] = if self.receives || self.applies { &self.relay } else { &[] };
        self.log.iter().chain(relay).any(|entry| entry.row == row)
    }

    pub(crate) fn epoch_row(&self) -> Option<u64> {
        self.log.iter().rev().map(|entry| entry.epoch).max().filter(|epoch| *epoch > 0)
    }

    /// One round: applies, and takes what the source has.
    pub(crate) fn apply(&mut self, most: usize) {
        if self.alive() && self.applies && !self.full {
            let count = self.relay.len().min(most);
            self.log.extend(self.relay.drain(..count));
            self.committed = self.log.len();
        }
    }

    pub(crate) fn receive(&mut self, entries: &[Entry]) {
        self.relay.extend_from_slice(entries);
    }

    pub(crate) fn hear(&mut self) {
        self.beat += 1;
    }

    /// Unapplied relay logs are thrown away when either thread starts while both are stopped.
    fn lose_relay_if_stopped(&mut self) {
        if !self.receives && !self.applies {
            self.relay.clear();
        }
    }

    pub(crate) fn start_applier(&mut self) {
        // Also when the receiving thread alone is stopped and the applying one was not running.
        if !self.applies {
            self.lose_relay_if_stopped();
            self.applies = true;
            self.applier += 1;
        }
    }

    pub(crate) fn stop_applier(&mut self) {
        self.applies = false;
    }

    pub(crate) fn start_receiver(&mut self) {
        self.lose_relay_if_stopped();
        self.receives = true;
    }

    /// Somebody makes room on its disk: what has waited for it goes on, whoever may write by now.
    pub(crate) fn make_room(&mut self) {
        self.full = false;
        for mut waiter in std::mem::take(&mut self.stuck) {
            waiter.length = self.push(waiter.row, 0);
            self.waiters.push(waiter);
        }
    }

    pub(crate) fn stop_receiver(&mut self) {
        self.receives = false;
        self.connected = false;
    }

    /// kill -9.
    pub(crate) fn crash(&mut self) {
        self.up = false;
        self.frozen = false;
        self.connected = false;
        self.waiters.clear();
        self.stuck.clear();
    }

    /// Starts again; `behind` is how much of what was acknowledged had only been prepared in the engine.
    pub(crate) fn start(&mut self, behind: usize, autostart: bool) {
        if self.up {
            return;
        }
        self.up = true;
        self.boot += 1;
        // What was not applied will be thrown away as soon as a thread starts.
        self.relay.clear();
        if self.truncates && self.source.is_none() {
            self.log.truncate(self.committed.saturating_sub(behind).max(self.durable));
        }
        self.committed = self.log.len();
        self.read_only = true;
        self.semi_source = false;
        self.receives = false;
        self.applies = false;
        self.applier += 1;
        if autostart && self.source.is_some() {
            self.start_receiver();
            self.start_applier();
        }
    }

    pub(crate) fn repoint(&mut self, source: usize, acker: bool) {
        self.relay.clear();
        self.source = Some(source);
        self.semi_source = false;
        self.semi_replica = acker;
        self.committed = self.log.len();
        self.receives = true;
        self.applies = true;
        self.applier += 1;
        self.connected = false;
        self.waiters.clear();
    }

    pub(crate) fn promote(&mut self, lossless: bool, wait_for: u32) {
        self.source = None;
        self.durable = self.log.len();
        self.relay.clear();
        self.receives = false;
        self.applies = false;
        self.connected = false;
        self.semi_replica = false;
        self.semi_source = lossless;
        self.wait_for = wait_for;
        if lossless {
            self.committed = self.committed.min(self.log.len());
        } else {
            self.committed = self.log.len();
        }
    }

    pub(crate) fn open(&mut self, lossless: bool, wait_for: u32) {
        if self.source.is_none() {
            self.semi_source |= lossless;
            self.wait_for = wait_for;
        }
        self.read_only = false;
    }

    /// Ends clients' connections: those that wait commit locally, and their clients hear nothing good.
    pub(crate) fn kill_clients(&mut self) {
        self.waiters.clear();
        self.stuck.clear();
        self.committed = self.log.len();
    }

    pub(crate) fn incarnation(&self) -> u64 {
        let applier = if self.source.is_some() && self.applies { self.applier } else { 0 };
        u64::from(self.id) << 32 | self.boot << 16 | applier
    }

    pub(crate) fn position(&mut self, length: usize) -> GtidSet {
        let Some(at) = length.checked_sub(1) else { return GtidSet::Empty };
        let entry = self.log.get(at).or_else(|| self.relay.get(at - self.log.len()));
        let origin = entry.map_or(0, |entry| entry.origin);
        let text = || format!("0-{}-{length}", origin + 1);
        let known = self.positions.entry((length, origin));
        known.or_insert_with(|| GtidSet::parse(Flavour::Mariadb, &text()).unwrap_or_default()).clone()
    }

    pub(crate) fn report(&mut self, attached: u32) -> Report {
        let executed = self.position(self.log.len());
        let received = self.position(self.received());
        let receiver = match (self.receives, self.connected) {
            (false, _) => Receiver::Stopped,
            (true, false) => Receiver::Connecting,
            (true, true) => Receiver::Running,
        };
        let channel = self.source.map(|source| Channel {
            source_host: format!("s{source}"),
            source_port: 3306,
            source_server_id: 1 + source as u32,
            receiver,
            applies: self.applies,
            received,
            pulse: Some(Pulse { beat: self.beat, period: Duration::from_millis(100) }),
            ..Channel::default()
        });
        Report {
            flavour: Flavour::Mariadb,
            server_id: 1 + u32::from(self.id),
            read_only: self.read_only,
            applied: executed.clone(),
            executed,
            gtids: true,
            replication: Replication::Channels(channel.into_iter().collect()),
            semi_sync: SemiSync {
                source: self.semi_source,
                replica: self.semi_replica,
                acknowledges: self.semi_replica && self.connected,
                active: self.semi_source,
                after_sync: true,
                waits_alone: true,
                timeout: Duration::from_secs(1_000_000),
                ackers: attached,
                wait_for: self.wait_for,
            },
            incarnation: self.incarnation(),
            epoch: self.epoch_row().map(|epoch| EpochRow { epoch, primary: String::new() }),
            ..Report::default()
        }
    }
}
