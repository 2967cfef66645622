//! How far a replica is behind, without comparing clocks.
//!
//! Only this process's clock counts: what the primary had executed is sampled with the time at which it was
//! asked, and a replica that has executed a sample is no older than that sample's time.

use std::collections::VecDeque;
use std::time::Duration;

use crate::gtid::GtidSet;

/// The primary's positions of the last while. One for each cluster, fed by whoever probes the primary.
#[derive(Clone, Debug, Default)]
pub struct LagClock {
    /// Rising in time; each position contains those before it.
    samples: VecDeque<Sample>,
}

#[derive(Clone, Debug)]
struct Sample {
    /// The latest time at which the primary was known to have executed no more than this.
    at: Duration,
    position: GtidSet,
}

impl LagClock {
    /// Notes that the primary, asked at `now`, had executed `position`.
    ///
    /// A position that lacks what an earlier one had belongs to another history, after a failover or a reset of
    /// the binary log: what was known is dropped.
    pub fn sample(&mut self, now: Duration, position: &GtidSet) {
        if let Some(newest) = self.samples.back_mut() {
            if newest.position == *position {
                newest.at = newest.at.max(now);
                return;
            }
            if !position.contains(&newest.position) {
                self.samples.clear();
            }
        }
        if self.samples.len() == MAX_SAMPLES {
            self.thin_out();
        }
        self.samples.push_back(Sample { at: now, position: position.clone() });
    }

    /// How old the data of a server is that has executed `position`; zero when it has executed the newest sample,
    /// none when it has not even executed the oldest.
    pub fn lag_of(&self, position: &GtidSet, now: Duration) -> Option<Duration> {
        let applied = self.samples.partition_point(|sample| position.contains(&sample.position));
        if applied == self.samples.len() {
            return (applied > 0).then_some(Duration::ZERO);
        }
        let newest_applied = applied.checked_sub(1)?;
        Some(now.saturating_sub(self.samples[newest_applied].at))
    }

    /// Makes room: of the older half, every second sample goes, so that old lag is told more coarsely.
    fn thin_out(&mut self) {
        let half = self.samples.len() / 2;
        let mut at = 0;
        self.samples.retain(|_| {
            at += 1;
            at > half || at % 2 == 1
        });
    }
}

/// At ten samples a second the last 12.8 s are kept at full detail.
const MAX_SAMPLES: usize = 256;
