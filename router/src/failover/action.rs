//! What the controller wants done. The caller does it and reports back; the controller never waits.

use std::time::Duration;

use super::event::{Mark, Message};
use super::plan::{Answer, RequestId};
use super::record::{ProxyId, Record, Revision};
use crate::gtid::GtidSet;
use crate::topology::ServerId;

/// Names a step; rises, never repeats within a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StepId(pub u64);

/// Names a compare-and-swap; rises, never repeats within a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SwapId(pub u64);

/// One thing to do. Actions of one call are independent of each other and may run at the same time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Put `record` in the coordinator if the record there still has `expected`; answered by `Event::Swapped`.
    Swap { id: SwapId, expected: Revision, record: Box<Record> },
    /// Read the record now; answered by `Event::Read` or `Event::CoordinatorLost`.
    ReadRecord,
    /// Do something on a server; answered by `Event::StepDone`.
    Step(StepOrder),
    /// What the data plane does with writes from now on; it replaces what was said before.
    Serve(Service),
    /// Tell other proxies, at once, and again with each renewal of this proxy's registration.
    Tell { to: To, message: Message },
    /// Probe all servers at once instead of at the next interval.
    ProbeNow,
    /// Answer an operator.
    Answer { id: RequestId, answer: Answer },
    /// For the log, the timeline of `history`, and metrics.
    Note(Note),
}

/// A step on one server. Steps on the same server are done in the order of their ids, on a held connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepOrder {
    pub id: StepId,
    pub server: ServerId,
    pub step: Step,
    /// The epoch that this belongs to, for the log.
    pub epoch: u64,
    /// Not to be sent to the server after this time: a process that was frozen must not go on where it was.
    pub expires: Duration,
    /// Give up, with `StepError::Unknown`, this long after it was sent.
    pub timeout: Duration,
}

/// See [`StepOrder`]. Every step is idempotent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Start the applying (SQL) thread if it is stopped; only ever sent while the receiving thread is not stopped.
    StartApplier,
    /// Apply without delay from now on; only ever sent while the receiving thread is not stopped.
    RemoveDelay,
    /// Stop the receiving (IO) thread, with the double KILL on MariaDB; brings a report that was read afterwards.
    StopReceiver,
    /// Brings a report.
    ReadPosition,
    /// Wait until the server has applied `position`; brings a report. A group that is still arriving and will not
    /// be completed (the applier says that it has read all, the receiver is stopped) counts as not received: the
    /// report's `received` then is what was applied.
    WaitApplied { position: GtidSet },
    /// Stop and forget replication, take the semi-sync role of a source (before anything else is possible), close
    /// the binary log. The server stays read-only. Brings a report.
    Promote { lossless: bool, wait_for: u32 },
    /// Write the row of this epoch as the service account, while the server is still read-only; ends only when the
    /// transaction is acknowledged, so it proves that acknowledgements flow.
    WriteEpoch { epoch: u64, primary: String },
    /// Take the semi-sync role of a source again if `lossless`, then `read_only = 0`; `NotDone` in another life of the
    /// server than `life`, where both can be told: a restart may have lost what the others have got from it.
    SetWritable { lossless: bool, wait_for: u32, life: u64 },
    /// `read_only = 1` with a deadline of `deadline`, after which it is undone (`KILL`) and reported as
    /// `NotDone`; brings a report, whose position is final.
    SetReadOnly { deadline: Duration },
    /// Replicate from `source`: stop, change the source (nothing to change if it is that one already), start both
    /// threads. `acker` says whether it takes the role of an acker or loses it; the source's role is taken away.
    Repoint { source: ServerId, acker: bool },
    /// Start both threads with the source that is configured.
    StartReplication,
    /// Best effort against a primary that was judged dead, never waited for: `fence_command` if there is one, else
    /// end its clients and set it read-only. Never switches its semi-sync off.
    Fence,
}

/// What sessions do with writes. Reads go on all the time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Service {
    /// Writes go to `primary`, over connections of `epoch` only. With `until`, an OK that has not been forwarded by
    /// then, on the process's clock, must not be any more: its outcome is unknown.
    Writes { primary: ServerId, epoch: u64, until: Option<Duration> },
    /// New writes and transactions wait. Those that run may end within `grace`; then connections of epochs before
    /// `epoch` are dropped, in a way that no late OK can reach a client. Answered by `Event::Held` when that is so.
    Hold { epoch: u64, grace: Duration, reason: String },
    /// As `Hold`, and it will not end by itself: why, for the error text and for status.
    ReadsOnly { epoch: u64, reason: String },
}

/// Whom to tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum To {
    All,
    One(ProxyId),
}

/// What happened, for people and for metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    pub level: Level,
    pub epoch: u64,
    pub text: String,
}

/// How much somebody should care.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    Info,
    /// Something has to be looked at soon.
    Warning,
    /// Something does not work that should.
    Alarm,
}

impl Service {
    pub fn epoch(&self) -> u64 {
        match self {
            Self::Writes { epoch, .. } | Self::Hold { epoch, .. } | Self::ReadsOnly { epoch, .. } => *epoch,
        }
    }
}

impl Step {
    pub fn name(&self) -> &'static str {
        match self {
            Self::StartApplier => "start applier",
            Self::RemoveDelay => "remove delay",
            Self::StopReceiver => "stop receiver",
            Self::ReadPosition => "read position",
            Self::WaitApplied { .. } => "wait applied",
            Self::Promote { .. } => "promote",
            Self::WriteEpoch { .. } => "write epoch",
            Self::SetWritable { .. } => "set writable",
            Self::SetReadOnly { .. } => "set read-only",
            Self::Repoint { .. } => "repoint",
            Self::StartReplication => "start replication",
            Self::Fence => "fence",
        }
    }
}

impl Mark {
    /// The position, if it is known.
    pub fn known(&self) -> Option<&GtidSet> {
        match self {
            Self::Known(position) => Some(position),
            Self::Unknown => None,
        }
    }
}
