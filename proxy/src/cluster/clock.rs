//! The process's clock, as the pure code wants it.

use std::time::{Duration, Instant};

/// Counts from the start of the process.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    started: Instant,
}

impl Clock {
    pub fn new(started: Instant) -> Self {
        Self { started }
    }

    pub fn now(self) -> Duration {
        self.started.elapsed()
    }
}
