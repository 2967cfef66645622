//! The one immutable picture of the servers that every statement is routed by.
//!
//! The cluster task builds a [`Topology`] whole and publishes it; nobody patches one in place.

use std::time::Duration;

use crate::gtid::GtidSet;
use crate::intent::Flavour;

/// A server's place in the [`crate::roster::Roster`]; stable while the process lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServerId(pub u16);

/// Primary, replicas, health and lag as they were at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Topology {
    /// Rises with every change of the primary; a server connection belongs to one epoch.
    pub epoch: u64,
    /// The server that gets writes, or none: see [`Topology::no_primary_reason`].
    pub primary: Option<ServerId>,
    /// Why there is no primary, for people; empty while there is one.
    pub no_primary_reason: String,
    /// Whether the first monitor round is over.
    pub ready: bool,
    pub flavour: Flavour,
    /// The primary's own version string, as in its greeting without the `5.5.5-` prefix.
    pub version: String,
    /// Indexed by [`ServerId`]; see [`Topology::members`].
    pub servers: Vec<ServerView>,
}

/// One server as the monitor last saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerView {
    pub id: ServerId,
    pub name: String,
    /// `host:port`, resolved anew at every connect.
    pub address: String,
    pub weight: u32,
    pub zone: String,
    pub role: Role,
    pub state: State,
    /// Why the state is what it is, for people; empty when online.
    pub reason: String,
    /// How far the server is behind; none where it is not known. The primary has zero.
    pub lag: Option<Duration>,
    /// What the server had executed at the last probe.
    pub position: GtidSet,
    /// When that was asked, on the caller's clock: everything executed before is in the position.
    pub position_at: Duration,
    /// When the server last came (back) into the pool, on the caller's clock: the start of its slow start.
    pub online_since: Duration,
    pub read_only: bool,
    pub version: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    Primary,
    Replica,
    /// Not seen yet, or neither writable nor replicating.
    Unknown,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// Takes part.
    Online,
    /// Behind the limit: gets no reads.
    Lagging,
    /// Taken out by an operator: existing work ends, nothing new starts.
    Draining,
    /// Answers, but must not be used: replication stopped, errant transactions, two writable servers.
    Excluded,
    /// Does not answer.
    Down,
    /// Not probed yet.
    Unknown,
    /// The configuration names it no more: existing work ends, nothing new starts.
    Gone,
}

impl Topology {
    pub fn server(&self, id: ServerId) -> Option<&ServerView> {
        self.servers.get(usize::from(id.0))
    }

    pub fn primary(&self) -> Option<&ServerView> {
        self.primary.and_then(|id| self.server(id))
    }

    /// The servers that the configuration names.
    pub fn members(&self) -> impl Iterator<Item = &ServerView> {
        self.servers.iter().filter(|s| s.state != State::Gone)
    }

    /// Replicas that may get reads, in the order of the configuration.
    pub fn readable_replicas(&self) -> impl Iterator<Item = &ServerView> {
        self.servers.iter().filter(|s| s.role == Role::Replica && s.state == State::Online)
    }
}

impl Role {
    pub fn name(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::Replica => "replica",
            Self::Unknown => "unknown",
        }
    }
}

impl State {
    pub fn name(self) -> &'static str {
        match self {
            Self::Online => "online",
            Self::Lagging => "lagging",
            Self::Draining => "draining",
            Self::Excluded => "excluded",
            Self::Down => "down",
            Self::Unknown => "unknown",
            Self::Gone => "gone",
        }
    }
}
