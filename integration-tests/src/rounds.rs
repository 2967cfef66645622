//! What is promised within a time, on a machine that is busy now and then.

use std::time::Duration;

use crate::Outcome;

/// A fault is repeated until what follows it takes less than the limit: what a busy machine delays now and then is not
/// late each time.
#[derive(Debug)]
pub struct Rounds {
    limit: Duration,
    took: Vec<Duration>,
}

impl Rounds {
    pub fn within(limit: Duration) -> Self {
        Self { limit, took: Vec::new() }
    }

    /// Whether there has to be another round.
    pub fn go_on(&self) -> bool {
        !self.was_in_time() && self.took.len() < MOST_ROUNDS
    }

    /// Tells how long it took in this round.
    pub fn took(&mut self, took: Duration) {
        self.took.push(took);
    }

    /// # Errors
    ///
    /// When it took too long in each round.
    pub fn outcome(&self) -> Outcome {
        if self.was_in_time() {
            return Ok(());
        }
        Err(format!("expected less than {:?} once, it took {:?}", self.limit, self.took).into())
    }

    fn was_in_time(&self) -> bool {
        self.took.last().is_some_and(|took| *took < self.limit)
    }
}

const MOST_ROUNDS: usize = 3;
