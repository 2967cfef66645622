//! What the write heartbeat has met, one after the other.

use std::time::Duration;

use super::event::{Heartbeat, Stall};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Beats {
    /// When the last one was heard of.
    heard: Duration,
    last: Option<Heartbeat>,
    /// Since when each has told of a stall that is waited for as long as the last one's.
    blamed: Duration,
}

impl Beats {
    pub(super) fn hear(&mut self, outcome: Heartbeat, now: Duration) {
        let goes_on = self.stall(now).map(|(_, cause)| cause.patience()) == patience(&outcome);
        if !goes_on {
            self.blamed = now;
        }
        self.heard = now;
        self.last = Some(outcome);
    }

    /// For how long writes have not ended, and why.
    pub(super) fn stall(&self, now: Duration) -> Option<(Duration, Stall)> {
        match self.last.as_ref()? {
            Heartbeat::Stalled { since, cause }
                if now.saturating_sub(self.heard) < super::HEARTBEAT_KNOWN =>
            {
                Some((*since, *cause))
            }
            Heartbeat::Stalled { .. } | Heartbeat::Written | Heartbeat::Refused { .. } => None,
        }
    }

    /// Whether another server would do better, by `stalled_for` of [`super::Settings`]. A write may have waited long for
    /// something else, that has just ended: the time before this cause does not count.
    pub(super) fn is_stuck(&self, stalled_for: Duration, now: Duration) -> bool {
        let Some((_, cause)) = self.stall(now) else { return false };
        cause.patience().is_some_and(|times| now.saturating_sub(self.blamed) >= stalled_for * times)
    }
}

/// None of what is no stall.
fn patience(heartbeat: &Heartbeat) -> Option<Option<u32>> {
    match heartbeat {
        Heartbeat::Stalled { cause, .. } => Some(cause.patience()),
        Heartbeat::Written | Heartbeat::Refused { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STALLED_FOR: Duration = Duration::from_secs(5);

    /// Hears `beats`, each for so many seconds, every 100 ms, and tells after how many of them it was stuck.
    fn stuck_after(beats: &[(Option<Stall>, u64)]) -> Option<Duration> {
        let (mut heard, mut now) = (Beats::default(), Duration::ZERO);
        for (cause, seconds) in beats {
            for _ in 0..seconds * 10 {
                now += Duration::from_millis(100);
                let outcome = match cause {
                    Some(cause) => Heartbeat::Stalled { since: now, cause: *cause },
                    None => Heartbeat::Refused { reason: "a client holds a lock".into() },
                };
                heard.hear(outcome, now);
                if heard.is_stuck(STALLED_FOR, now) {
                    return Some(now);
                }
            }
        }
        None
    }

    #[test]
    fn only_the_time_of_this_cause_counts() {
        let after = |seconds: f64| Some(Duration::from_secs_f64(seconds));
        assert_eq!(stuck_after(&[(Some(Stall::DiskFull), 9)]), after(5.1));
        assert_eq!(stuck_after(&[(Some(Stall::DiskFull), 3), (Some(Stall::Unknown), 3)]), after(5.1));
        assert_eq!(stuck_after(&[(Some(Stall::LargeTransaction), 40)]), after(30.1));
        assert_eq!(stuck_after(&[(Some(Stall::NoAcker), 60)]), None);
        // It queues for a moment behind those that waited, too.
        assert_eq!(stuck_after(&[(Some(Stall::NoAcker), 60), (Some(Stall::Unknown), 4)]), None);
        assert_eq!(stuck_after(&[(None, 60), (Some(Stall::Unknown), 4)]), None);
        assert_eq!(stuck_after(&[(Some(Stall::LargeTransaction), 20), (Some(Stall::Unknown), 4)]), None);
        assert_eq!(stuck_after(&[(Some(Stall::Unknown), 4), (None, 1), (Some(Stall::Unknown), 4)]), None);
    }

    #[test]
    fn what_is_long_ago_is_not_known() {
        let mut beats = Beats::default();
        let stalled = || Heartbeat::Stalled { since: STALLED_FOR, cause: Stall::Unknown };
        beats.hear(stalled(), Duration::from_secs(10));
        assert!(beats.stall(Duration::from_secs(12)).is_some());
        assert_eq!(beats.stall(Duration::from_secs(13)), None);
        // Nor is it the same stall that is heard of later.
        beats.hear(stalled(), Duration::from_secs(16));
        assert!(!beats.is_stuck(STALLED_FOR, Duration::from_secs(16)));
    }
}
