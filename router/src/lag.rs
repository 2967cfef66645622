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

    /// Makes room: drops the sample whose neighbours are closest to each other for their age, so that lag is told
    /// with the same relative precision however long it is.
    fn thin_out(&mut self) {
        let Some(newest) = self.samples.back().map(|sample| sample.at) else { return };
        let at = |index: usize| self.samples[index].at;
        let inner = 1..self.samples.len().saturating_sub(1);
        let relative_gap = |index: &usize| {
            let gap = at(index + 1).saturating_sub(at(index - 1));
            gap.as_secs_f64() / newest.saturating_sub(at(*index)).as_secs_f64()
        };
        let densest = inner.min_by(|a, b| relative_gap(a).total_cmp(&relative_gap(b)));
        if let Some(index) = densest {
            self.samples.remove(index);
        }
    }
}

/// Enough for a tenth of precision from a second to months.
const MAX_SAMPLES: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::intent::Flavour;

    fn position(sequence: u64) -> GtidSet {
        GtidSet::parse(Flavour::Mariadb, &format!("0-1-{sequence}")).unwrap()
    }

    fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    /// Samples of (time in ms, sequence), then the lag in ms of a server at a sequence.
    fn check(samples: &[(u64, u64)], server: u64, now: u64, expected: Option<u64>) {
        let mut clock = LagClock::default();
        for &(time, sequence) in samples {
            clock.sample(at(time), &position(sequence));
        }
        assert_eq!(clock.lag_of(&position(server), at(now)), expected.map(at), "{samples:?} {server} {now}");
    }

    #[test]
    fn lag_is_the_age_of_the_newest_sample_that_was_applied() {
        check(&[], 5, 100, None);
        check(&[(100, 5)], 5, 150, Some(0));
        check(&[(100, 5)], 9, 150, Some(0));
        check(&[(100, 5)], 4, 150, None);
        check(&[(100, 5), (200, 6)], 6, 250, Some(0));
        check(&[(100, 5), (200, 6)], 5, 250, Some(150));
        check(&[(100, 5), (200, 6), (300, 9)], 8, 350, Some(150));
        check(&[(100, 5), (200, 6), (300, 9)], 4, 350, None);
        // The primary stood still: a server that has what it had then is as new as the last look.
        check(&[(100, 5), (200, 5), (300, 5), (400, 6)], 5, 450, Some(150));
        // Time that goes backwards is no reason to panic.
        check(&[(300, 5), (200, 5), (250, 6)], 5, 100, Some(0));
    }

    #[test]
    fn another_history_starts_anew() {
        check(&[(100, 50), (200, 3)], 3, 250, Some(0));
        check(&[(100, 50), (200, 3)], 2, 250, None);
        let mut clock = LagClock::default();
        clock.sample(at(100), &position(5));
        let other = GtidSet::parse(Flavour::Mysql, "3e11fa47-71ca-11e1-9e33-c80aa9429562:1-7").unwrap();
        clock.sample(at(200), &other);
        assert_eq!(clock.lag_of(&position(5), at(300)), None);
        assert_eq!(clock.lag_of(&other, at(300)), Some(Duration::ZERO));
        assert_eq!(clock.lag_of(&GtidSet::Empty, at(300)), None);
    }

    #[test]
    fn memory_is_bounded_and_lag_stays_precise() {
        let mut clock = LagClock::default();
        for step in 1..=10_000_u64 {
            clock.sample(at(step * 100), &position(step));
            assert!(clock.samples.len() <= MAX_SAMPLES);
        }
        let now = at(1_000_000);
        // Never too small, and hardly too large.
        for behind in [0, 1, 2, 5, 10, 50, 100, 500, 1_000, 5_000, 9_000] {
            let (lag, exact) = (clock.lag_of(&position(10_000 - behind), now), at(behind * 100));
            let close = lag.is_some_and(|lag| lag >= exact && lag <= exact * 11 / 10 + at(100));
            assert!(close, "{behind}: {lag:?}");
        }
    }
}
