//! From the start of the process to its end, for everybody who must know where it stands.

use tokio::sync::watch;

/// Where the process stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// The first monitor round is not over, or the listeners are not open.
    Starting,
    Serving,
    /// Not ready any more, but still accepting: balancers need time to notice.
    Leaving,
    /// Accepts nobody; sessions end at their next transaction boundary.
    Draining,
}

impl Phase {
    pub fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Serving => "serving",
            Self::Leaving => "leaving",
            Self::Draining => "draining",
        }
    }
}

/// The phase of the process, and the wish that it ends.
#[derive(Debug)]
pub struct Lifecycle {
    phase: watch::Sender<Phase>,
    asked_to_end: watch::Sender<bool>,
}

impl Default for Lifecycle {
    fn default() -> Self {
        Self { phase: watch::Sender::new(Phase::Starting), asked_to_end: watch::Sender::new(false) }
    }
}

impl Lifecycle {
    pub fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// Goes on to a later phase; there is no way back.
    pub fn advance(&self, to: Phase) {
        self.phase.send_if_modified(|phase| {
            let later = to > *phase;
            if later {
                *phase = to;
            }
            later
        });
    }

    /// Asks the process to drain and end, as SIGTERM does.
    pub fn ask_to_end(&self) {
        self.asked_to_end.send_replace(true);
    }

    /// Waits until somebody asked for the end.
    pub async fn asked_to_end(&self) {
        // The sender is in `self`, so it cannot have gone away.
        drop(self.asked_to_end.subscribe().wait_for(|asked| *asked).await);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_no_way_back() {
        let lifecycle = Lifecycle::default();
        assert_eq!(lifecycle.phase(), Phase::Starting);
        lifecycle.advance(Phase::Leaving);
        lifecycle.advance(Phase::Serving);
        assert_eq!(lifecycle.phase(), Phase::Leaving);
    }
}
