//! Who takes writes: the failover controller.
//!
//! A pure state machine: [`Event`]s in, [`Action`]s out, time as an argument. The caller probes servers, talks to
//! the coordinator and to the other proxies, runs the steps, and reports back; the controller never waits, and
//! every proxy runs one. What all of them agree on is one [`Record`], changed only by compare-and-swap.
//!
//! It revokes before it establishes: a primary's acknowledgements are taken away from N - k + 1 of its ackers before
//! a candidate is chosen, so that the candidate holds everything acknowledged and the old primary can acknowledge
//! nothing more, whether it can be reached or not.

mod acting;
mod action;
mod beats;
mod cancel;
mod claim;
mod controller;
mod coordination;
mod defect;
mod election;
mod establish;
mod event;
mod fencing;
mod isolate;
mod judge;
mod plan;
mod planned;
mod readiness;
mod record;
mod request;
mod serve;
mod settings;
mod upkeep;
mod verdict;
mod watch;

use std::time::Duration;

pub use self::action::{Action, Level, Note, Service, Step, StepId, StepOrder, SwapId, To};
pub use self::controller::Controller;
pub use self::defect::Defect;
pub use self::event::{Alive, Event, Heartbeat, Mark, Message, Outcome, ReadRecord, Stall, StepError, Swap};
pub use self::plan::{Answer, Plan, Refusal, Request, RequestId};
pub use self::record::{
    Durability, HISTORY_LENGTH, Kind, Maintenance, Past, Phase, ProxyId, RECORD_FORMAT, Record, Revision,
};
pub use self::settings::{ServerSettings, Settings};
pub use self::verdict::Verdict;

/// How often proxies tell each other that they are alive.
pub const PEER_EVERY: Duration = Duration::from_millis(100);

/// The longest time between two events of an actor, and of anybody who has lost sight of the primary.
const TICK_ACTING: Duration = Duration::from_millis(20);
/// The longest time between two events of anybody else.
const TICK_IDLE: Duration = Duration::from_millis(100);
/// A process that has not run for so long looks at the record before it goes on.
const FROZEN_AFTER: Duration = Duration::from_millis(500);
/// A step must have been sent by then, or not at all.
const STEP_EXPIRES: Duration = Duration::from_millis(500);
const STEP_TIMEOUT: Duration = Duration::from_secs(2);
const APPLY_TIMEOUT: Duration = Duration::from_secs(5);
const FENCE_TIMEOUT: Duration = Duration::from_secs(10);
/// A step whose end was never reported does not block its server for ever.
const STEP_LOST: Duration = Duration::from_secs(12);
const RETRY_EVERY: Duration = Duration::from_millis(50);
const UPKEEP_EVERY: Duration = Duration::from_secs(1);
/// How long reports may be older than they look after something was changed.
const SETTLE: Duration = Duration::from_millis(500);
/// A replica that shows a sign of life from its source this often is fed.
const FED_WITHIN: Duration = Duration::from_millis(300);
/// How long FENCING waits for servers that answer but are not needed for the proof.
const GATHER_PATIENCE: Duration = Duration::from_millis(300);
/// How long an old primary is waited for before `data_loss = "accept"` is made use of.
const LOSS_PATIENCE: Duration = Duration::from_secs(5);
/// How long replicas that are not needed at first leave the others alone with a candidate.
const HEAD_START: Duration = Duration::from_millis(150);
const CANDIDATE_PATIENCE: Duration = Duration::from_millis(300);
/// Silence of the actor after which another proxy goes on.
const ACTOR_PATIENCE: Duration = Duration::from_millis(500);
/// The same for an actor from which no message has ever come.
const ACTOR_PATIENCE_UNHEARD: Duration = Duration::from_millis(1500);
/// How long what a proxy said that is gone now is remembered.
const PEER_FORGOTTEN: Duration = Duration::from_secs(600);
/// From when on clients are told that a change does not get on.
const STUCK_AFTER: Duration = Duration::from_secs(3);
/// See [`Settings::stalled_for`].
const STALLED_FOR: Duration = Duration::from_secs(5);
/// See [`Stall::patience`].
const LARGE_TRANSACTION_PATIENCE: u32 = 6;
/// After so many times [`Settings::stalled_for`] without a successor the primary may stand again.
const STALLS_FORGIVEN: u32 = 6;
/// Without the coordinator, writes that hang this long may mean that another primary was made.
const ACK_STALL: Duration = Duration::from_millis(500);
/// How long a new primary has to show that it waits for acknowledgements.
const DEGRADED_AFTER: Duration = Duration::from_secs(3);
/// How long what a heartbeat met is believed; it is told each 100 ms, or 2 s where the server answers nothing.
const HEARTBEAT_KNOWN: Duration = Duration::from_secs(3);
