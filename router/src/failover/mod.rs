//! Who takes writes: the failover controller.
//!
//! A pure state machine: [`Event`]s in, [`Action`]s out, time as an argument. The caller probes servers, talks to
//! the coordinator and to the other proxies, runs the steps, and reports back; the controller never waits, and
//! every proxy runs one. What all of them agree on is one [`Record`], changed only by compare-and-swap.
//!
//! It revokes before it establishes: a primary's acknowledgements are taken away from N - k + 1 of its ackers before
//! a candidate is chosen, so that the candidate holds everything acknowledged and the old primary can acknowledge
//! nothing more, whether it can be reached or not.

mod action;
mod controller;
mod event;
mod plan;
mod record;
mod settings;
mod verdict;

use std::time::Duration;

pub use self::action::{Action, Level, Note, Service, Step, StepId, StepOrder, SwapId, To};
pub use self::controller::Controller;
pub use self::event::{Alive, Event, Heartbeat, Mark, Message, Outcome, ReadRecord, Stall, StepError, Swap};
pub use self::plan::{Answer, Plan, Refusal, Request, RequestId};
pub use self::record::{
    Durability, HISTORY_LENGTH, Kind, Maintenance, Past, Phase, ProxyId, RECORD_FORMAT, Record, Revision,
};
pub use self::settings::{ServerSettings, Settings};
pub use self::verdict::Verdict;

/// How often proxies tell each other that they are alive.
pub const PEER_EVERY: Duration = Duration::from_millis(100);
