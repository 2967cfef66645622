//! From lag to a share of the weight, in steps that do not flap.

use std::time::Duration;

/// How much of its weight a server gets for its lag.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Step {
    Nothing,
    Half,
    Full,
}

/// The step of one server: worse at once, better only after a while of clearly less lag.
#[derive(Clone, Copy, Debug)]
pub(super) struct LagStep {
    step: Step,
    /// Since when the lag has allowed a better step without a break.
    better_since: Option<Duration>,
}

/// The limits between the steps.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) preferred: Duration,
    pub(super) maximum: Duration,
    pub(super) dwell: Duration,
}

impl LagStep {
    /// For a server that is seen for the first time.
    pub(super) fn first(lag: Option<Duration>, limits: Limits) -> Self {
        let step = lag.map_or(Step::Full, |lag| limits.step(lag, WHOLE_PERCENT));
        Self { step, better_since: None }
    }

    /// The step at `now`; a lag that is not known changes nothing.
    pub(super) fn update(&mut self, lag: Option<Duration>, limits: Limits, now: Duration) -> Step {
        let Some(lag) = lag else { return self.step };
        let worst = limits.step(lag, WHOLE_PERCENT);
        let best = limits.step(lag, CLEARLY_BELOW_PERCENT);
        if worst < self.step {
            self.step = worst;
            self.better_since = None;
        } else if best > self.step {
            let since = *self.better_since.get_or_insert(now);
            if now.saturating_sub(since) >= limits.dwell {
                self.step = best;
                self.better_since = None;
            }
        } else {
            self.better_since = None;
        }
        self.step
    }
}

impl Limits {
    /// The step of a lag when the limits are taken at this many percent.
    fn step(self, lag: Duration, percent: u32) -> Step {
        if lag > self.maximum * percent / WHOLE_PERCENT {
            Step::Nothing
        } else if lag > self.preferred * percent / WHOLE_PERCENT {
            Step::Half
        } else {
            Step::Full
        }
    }
}

const WHOLE_PERCENT: u32 = 100;
/// A lag must be this far below a limit before it counts as below.
const CLEARLY_BELOW_PERCENT: u32 = 80;

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> Limits {
        let seconds = Duration::from_secs;
        Limits { preferred: seconds(1), maximum: seconds(10), dwell: seconds(5) }
    }

    /// Lags in ms, one each second, and the step after each: `F`, `h` or `0`.
    fn check(lags: &[u64], expected: &str) {
        let mut step = LagStep::first(Some(Duration::from_millis(lags[0])), limits());
        let steps: String = (0_u64..)
            .zip(lags)
            .map(|(second, lag)| {
                match step.update(Some(Duration::from_millis(*lag)), limits(), Duration::from_secs(second)) {
                    Step::Full => 'F',
                    Step::Half => 'h',
                    Step::Nothing => '0',
                }
            })
            .collect();
        assert_eq!(steps, expected, "{lags:?}");
    }

    #[test]
    fn worse_at_once_and_better_after_a_while() {
        check(&[0, 1_000, 1_001, 10_000, 10_001], "FFhh0");
        check(&[20_000, 0, 0, 0, 0, 0, 0, 0], "000000FF");
        // From nothing over a half.
        check(&[20_000, 5_000, 5_000, 5_000, 5_000, 5_000, 5_000, 0], "000000hh");
        // Just under the limit is not clearly below it.
        check(&[20_000, 9_000, 9_000, 9_000, 9_000, 9_000, 9_000, 9_000], "00000000");
        // One bad look begins the while anew.
        check(&[20_000, 0, 0, 0, 0, 11_000, 0, 0, 0, 0, 0], "00000000000");
    }

    #[test]
    fn lag_that_goes_to_and_fro_changes_nothing_for_a_minute() {
        let lags: Vec<u64> = (0..60).map(|second| if second % 4 < 2 { 12_000 } else { 200 }).collect();
        check(&lags, &"0".repeat(60));
    }

    #[test]
    fn unknown_lag_changes_nothing() {
        let mut step = LagStep::first(None, limits());
        assert_eq!(step.update(None, limits(), Duration::ZERO), Step::Full);
        assert_eq!(step.update(Some(Duration::from_secs(20)), limits(), Duration::ZERO), Step::Nothing);
        assert_eq!(step.update(None, limits(), Duration::from_secs(100)), Step::Nothing);
    }
}
