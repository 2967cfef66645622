//! What operators ask for and are told.

use std::time::Duration;

use super::record::Kind;
use crate::gtid::GtidSet;
use crate::topology::ServerId;

/// Names a request of an operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// What an operator wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// `promote` and `switchover`: move the primary's place in an orderly way; without `to`, to the best candidate.
    Switchover { to: Option<ServerId>, dry_run: bool },
    /// `failover --primary-is-dead`: an operator vouches that the primary is gone.
    Failover { to: Option<ServerId>, accept_loss: bool, dry_run: bool },
    /// Out of candidacy, reads and verdicts for `length`, or back.
    Maintenance { server: ServerId, length: Option<Duration>, reason: String },
    /// Automatic failover off or on for all proxies.
    Pause { paused: bool, reason: String },
    /// Make a former primary a replica again.
    Rejoin { server: ServerId, dry_run: bool },
    /// Keep all clients from a server that is not the primary, or let them back.
    Fence { server: ServerId, fenced: bool, dry_run: bool },
    /// Undo what was begun, as long as that can be done.
    Cancel { operation: RequestId },
}

/// The answer to a request; one at once, and for what takes time a second one at its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// A dry run ends with this.
    Planned(Plan),
    /// Begun.
    Started(Plan),
    Done {
        text: String,
    },
    /// Nothing was changed, or all of it was undone.
    Refused(Refusal),
}

/// What will be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    pub kind: Kind,
    pub from: Option<ServerId>,
    pub to: ServerId,
    /// For people, in order.
    pub steps: Vec<String>,
    /// What would be lost: acknowledged and not on `to`.
    pub lost: GtidSet,
    /// Why each other server is not the one.
    pub passed_over: Vec<(ServerId, String)>,
}

/// Why not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub reason: String,
    /// The best thing to do instead.
    pub alternative: String,
}
