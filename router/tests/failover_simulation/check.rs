//! What must never happen.

use std::collections::{BTreeMap, BTreeSet};

use pointsman_router::failover::{Phase, Record};

use crate::server::Server;

#[derive(Debug)]
pub(crate) struct Violation(pub(crate) String);

pub(crate) struct Checker {
    lossless: bool,
    rows: u32,
    acknowledged: BTreeSet<u32>,
    /// Rows that a step of the controller has thrown away from a relay log.
    dropped: BTreeSet<u32>,
    /// Who acknowledged in an epoch.
    acknowledger: BTreeMap<u64, usize>,
    /// Rows that no server has any more: every copy was lost by crashes.
    pub(crate) gone: u32,
    pub(crate) violation: Option<Violation>,
    pub(crate) changes: u32,
}

impl Checker {
    pub(crate) fn new(lossless: bool) -> Self {
        Self {
            lossless,
            rows: 0,
            acknowledged: BTreeSet::new(),
            dropped: BTreeSet::new(),
            acknowledger: BTreeMap::new(),
            gone: 0,
            violation: None,
            changes: 0,
        }
    }

    pub(crate) fn next_row(&mut self) -> u32 {
        self.rows += 1;
        self.rows
    }

    pub(crate) fn dropped_by_a_step(&mut self, rows: impl Iterator<Item = u32>) {
        self.dropped.extend(rows);
    }

    fn fail(&mut self, text: String) {
        self.violation.get_or_insert(Violation(text));
    }

    /// A client has its OK.
    pub(crate) fn acknowledged(
        &mut self,
        row: u32,
        server: usize,
        epoch: u64,
        record: Option<&Record>,
        servers: &[Server],
    ) {
        let first = *self.acknowledger.entry(epoch).or_insert(server);
        if first != server {
            self.fail(format!("s{first} and s{server} both acknowledged in epoch {epoch}"));
        }
        self.acknowledged.insert(row);
        let Some(primary) = record.filter(|record| is_open(record)).and_then(primary_of) else { return };
        if primary != server && !servers[primary].has_row(row) {
            self.fail(format!("row {row} acknowledged by s{server} is not on the primary s{primary}"));
        }
    }

    /// The record changes.
    pub(crate) fn record(&mut self, before: Option<&Record>, after: &Record, servers: &[Server]) {
        if let Some(before) = before {
            let rises = before.epoch <= after.epoch;
            let step = match (before.phase, after.phase) {
                (Phase::Stable | Phase::Active, Phase::Fencing) | (Phase::Chosen, Phase::Fencing) => {
                    after.epoch > before.epoch
                }
                (Phase::Fencing, Phase::Fencing | Phase::Chosen)
                | (Phase::Chosen, Phase::Chosen | Phase::Active)
                | (Phase::Active, Phase::Active | Phase::Stable)
                | (Phase::Stable, Phase::Stable) => after.epoch == before.epoch,
                _ => false,
            };
            if !rises || !step {
                self.fail(format!("{before:?} became {after:?}"));
            }
        }
        let chosen_again = after.phase == Phase::Chosen && after.candidate == after.primary;
        let same_life = primary_of(after).zip(after.primary.as_ref()).is_some_and(|(at, name)| {
            after.lives.get(name).is_some_and(|life| *life == servers[at].incarnation())
        });
        if after.stalled && chosen_again && same_life {
            self.fail(format!("{:?} was chosen again, whose writes do not end", after.primary));
        }
        if after.phase != Phase::Active || before.is_some_and(|before| before.phase == Phase::Active) {
            return;
        }
        self.changes += 1;
        let Some(primary) = primary_of(after) else { return };
        if before.is_some_and(|before| before.accept_loss) {
            let rows: BTreeSet<u32> = servers[primary].log.iter().map(|entry| entry.row).collect();
            let before = self.acknowledged.len();
            self.acknowledged.retain(|row| rows.contains(row));
            self.gone += (before - self.acknowledged.len()) as u32;
        }
        self.all_there(primary, servers);
    }

    /// Whether none of `holders` has some row that was acknowledged.
    pub(crate) fn is_lost(&self, holders: &[usize], servers: &[Server]) -> bool {
        let mut rows = self.acknowledged.iter();
        rows.any(|row| !holders.iter().any(|at| servers[*at].can_show_row(*row)))
    }

    fn all_there(&mut self, primary: usize, servers: &[Server]) {
        let rows: BTreeSet<u32> = servers[primary].log.iter().map(|entry| entry.row).collect();
        let missing: Vec<_> = self.acknowledged.iter().copied().filter(|row| !rows.contains(row)).collect();
        for row in missing {
            match servers.iter().position(|server| server.has_row(row)) {
                None if self.lossless && !self.dropped.contains(&row) => {
                    self.gone += 1;
                    self.acknowledged.remove(&row);
                }
                Some(_) | None => {
                    self.fail(format!("row {row} was acknowledged and is not on the new primary s{primary}"));
                    return;
                }
            }
        }
    }

    pub(crate) fn at_end(&mut self, record: Option<&Record>, servers: &[Server]) -> Result<(), Violation> {
        if let Some(primary) = record.and_then(primary_of) {
            self.all_there(primary, servers);
        }
        self.violation.take().map_or(Ok(()), Err)
    }
}

fn is_open(record: &Record) -> bool {
    matches!(record.phase, Phase::Stable | Phase::Active)
}

pub(crate) fn primary_of(record: &Record) -> Option<usize> {
    record.primary.as_deref()?.strip_prefix('s')?.parse().ok()
}
