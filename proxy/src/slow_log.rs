//! The log of slow statements: which lines are written, so that many slow statements do not make a flood of them.

use std::cell::Cell;
use std::time::Duration;

/// Which slow statements of one worker get a line.
#[derive(Debug, Default)]
pub struct SlowLog {
    /// When the first line of the running second was written.
    since: Cell<Duration>,
    lines: Cell<u32>,
    left_out: Cell<u64>,
}

impl SlowLog {
    /// How many lines were left out before this one; none when this one is left out too.
    ///
    /// `now` is the time since the start of the process.
    pub fn admit(&self, now: Duration) -> Option<u64> {
        if self.lines.get() == 0 || now.saturating_sub(self.since.get()) >= Duration::from_secs(1) {
            self.since.set(now);
            self.lines.set(0);
        }
        if self.lines.get() == LINES_PER_SECOND {
            self.left_out.set(self.left_out.get() + 1);
            return None;
        }
        self.lines.set(self.lines.get() + 1);
        Some(self.left_out.take())
    }
}

/// For each worker.
const LINES_PER_SECOND: u32 = 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_cut_to_so_many_lines_a_second() {
        let log = SlowLog::default();
        let at = |millis| log.admit(Duration::from_millis(millis));
        let admitted = (0..100).filter(|step| at(5000 + step).is_some()).count();
        assert_eq!(admitted, LINES_PER_SECOND as usize);
        assert_eq!(at(5999), None);
        assert_eq!(at(6000), Some(91));
        assert_eq!(at(6001), Some(0));
    }
}
