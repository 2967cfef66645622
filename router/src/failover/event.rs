//! What the controller is told.

use std::time::Duration;

use super::action::{StepId, SwapId};
use super::plan::RequestId;
use super::record::{ProxyId, Record, Revision};
use crate::discover::{Observation, Report};
use crate::gtid::GtidSet;
use crate::topology::ServerId;

/// Something happened. Events about servers and the coordinator may come late, twice, or never.
#[derive(Clone, Debug)]
pub enum Event {
    /// Time has passed: to be sent at [`super::Controller::deadline`], and harmless at any other time.
    Tick,
    /// A probe of a server ended; the same stream that feeds [`crate::discover::Discovery`].
    Observed(Observation),
    /// The write heartbeat on the primary.
    Heartbeat { server: ServerId, epoch: u64, outcome: Heartbeat },
    /// The record was read after `asked`: a linearizable read, each third of the lease and once at the start.
    Read(Box<ReadRecord>),
    /// The coordinator's watch says that the record has changed.
    Changed { revision: Revision, record: Box<Record> },
    /// A swap ended.
    Swapped { id: SwapId, outcome: Swap },
    /// The coordinator did not answer in time. Reads go on failing until the next [`Event::Read`].
    CoordinatorLost { reason: String },
    /// A step ended; exactly one for each [`super::Action::Step`].
    StepDone { id: StepId, result: Result<Outcome, StepError> },
    /// This proxy holds writes, and no connection of an epoch before `epoch` can bring an OK to a client any more.
    Held { epoch: u64, mark: Mark },
    /// Another proxy said so of itself, through a link or in its registration.
    Peer { from: ProxyId, message: Message },
    /// An operator wants something.
    Request { id: RequestId, request: super::plan::Request },
}

/// See [`Event::Read`].
#[derive(Clone, Debug)]
pub struct ReadRecord {
    /// When the question was sent. The lease counts from here, because whatever changed later is not in the answer.
    pub asked: Duration,
    /// Zero when there is no record yet.
    pub revision: Revision,
    pub record: Option<Record>,
    /// All proxies that are registered, this one included.
    pub proxies: Vec<ProxyId>,
    /// Why this proxy may not act, for the `local` coordinator without a majority of locks.
    pub barred: Option<String>,
    /// The wall clock, since 1970. Used for people, and for the age of what was recorded before this process began.
    pub wall: Duration,
}

/// How a compare-and-swap ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Swap {
    Won {
        revision: Revision,
    },
    /// The record is another one by now.
    Lost {
        revision: Revision,
        record: Option<Box<Record>>,
    },
    /// No answer, or no permission: whether it was done is unknown, a [`Event::Read`] tells.
    Failed {
        reason: String,
    },
}

/// What the write heartbeat met.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heartbeat {
    /// Committed and acknowledged.
    Written,
    /// No answer for `since`: no acker, full disk, hung engine. A lock that a client holds is not a stall.
    Stalled { since: Duration, cause: Stall },
    /// The row of this epoch was not there or the server is read-only: nothing was written.
    Refused { reason: String },
}

/// Why writes do not end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stall {
    /// Waiting for an acknowledgement.
    NoAcker,
    DiskFull,
    /// Perhaps only behind a transaction that takes long to commit.
    LargeTransaction,
    Unknown,
}

/// What a step brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Done,
    /// The server as it is after the step, read on the same connection.
    Report(Box<Report>),
}

/// Why a step did not end well.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StepError {
    /// Certainly nothing was changed: not connected, expired before it was sent, refused.
    #[error("not done: {0}")]
    NotDone(String),
    /// Nothing was changed: the server lacks transactions that it once wrote itself, and gets back only while it
    /// acknowledges.
    #[error("not done: {0}")]
    LacksOwn(String),
    /// It may have been done, wholly or in part, or may yet be.
    #[error("unknown: {0}")]
    Unknown(String),
}

/// Highest GTID that was acknowledged to any client of a proxy.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum Mark {
    /// Some OK packets carried no GTID.
    #[default]
    Unknown,
    Known(GtidSet),
}

/// What proxies tell each other. Nothing depends on these arriving; they only make things faster, but for `Fenced`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// The sender holds writes and has dropped every connection of an epoch before `epoch`.
    Fenced { epoch: u64, mark: Mark },
    /// Sent each [`super::PEER_EVERY`]: the sender is alive, and what it sees.
    Alive(Box<Alive>),
    /// The record as the sender knows it.
    Record { revision: Revision, record: Box<Record> },
}

/// See [`Message::Alive`].
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Alive {
    pub epoch: u64,
    /// The sender's last probe of the primary of `epoch` was answered.
    pub reaches_primary: bool,
    /// The last probe of every server was answered.
    pub reaches_all: bool,
    /// The sender has lost the coordinator.
    pub coordinator_lost: bool,
    pub mark: Mark,
}
