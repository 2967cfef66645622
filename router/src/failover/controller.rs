//! The controller of one proxy.

use std::time::Duration;

use super::action::{Action, Service};
use super::event::Event;
use super::record::{Record, Revision};
use super::settings::Settings;
use super::verdict::Verdict;

/// Decides, for one proxy, who takes writes. See [`super`].
#[derive(Debug)]
pub struct Controller {
    settings: Settings,
    revision: Revision,
    record: Option<Record>,
    verdict: Verdict,
    service: Service,
}

impl Controller {
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            revision: Revision::default(),
            record: None,
            verdict: Verdict::Alive,
            service: Service::Hold { epoch: 0, reason: "the coordinator has not been read yet".into() },
        }
    }

    /// Takes one event at `now`, on the process's clock, and says what to do. `now` never goes back.
    pub fn handle(&mut self, event: Event, now: Duration) -> Vec<Action> {
        let _ = (event, now, &self.settings);
        Vec::new()
    }

    /// When to send the next [`Event::Tick`], at the latest.
    pub fn deadline(&self) -> Option<Duration> {
        None
    }

    /// The record as this proxy knows it, and its revision.
    pub fn record(&self) -> Option<(&Record, Revision)> {
        self.record.as_ref().map(|record| (record, self.revision))
    }

    /// What is thought of the primary.
    pub fn verdict(&self) -> &Verdict {
        &self.verdict
    }

    /// What the data plane has been told last.
    pub fn service(&self) -> &Service {
        &self.service
    }
}
