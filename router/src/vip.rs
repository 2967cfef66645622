//! The read pool behind a virtual address: which replicas the kernel shall spread connections over, with which
//! weights, and by which changes its table gets there.
//!
//! [`ReadPool`] turns what is known of the servers into a [`Wish`]; [`plan()`] compares that with the kernel's
//! [`Table`]. Neither knows netlink, the clock or whose address it is; that is what [`Lease`] says.

mod lease;
mod plan;
mod pool;
mod steps;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use pointsman_config::{Forwarding, Scheduler};

pub use self::lease::{Lease, Swap, Terms};
pub use self::plan::{Change, Owned, plan};
pub use self::pool::{Policy, ReadPool};

/// Address and port of a TCP service in the kernel's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServiceKey {
    pub address: IpAddr,
    pub port: u16,
}

/// The kernel's table, as far as it consists of TCP services with an address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    pub services: BTreeMap<ServiceKey, Service>,
}

/// One virtual service as the kernel has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// None is one that Pointsman does not offer.
    pub scheduler: Option<Scheduler>,
    /// Sends a client to the server that it had before; Pointsman never asks for it.
    pub persistent: bool,
    pub destinations: BTreeMap<SocketAddr, Destination>,
}

/// One server of a virtual service as the kernel has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Destination {
    pub weight: u32,
    /// None is a way that Pointsman does not offer.
    pub forwarding: Option<Forwarding>,
    pub active: u32,
    pub inactive: u32,
}

/// What a virtual service shall be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    pub scheduler: Scheduler,
    pub forwarding: Forwarding,
    /// Everything that is in neither map nor set is deleted.
    pub destinations: BTreeMap<SocketAddr, Wanted>,
    /// Servers of which nothing is known yet: left as the kernel has them, or absent.
    pub untouched: BTreeSet<SocketAddr>,
}

/// What a server of a virtual service shall be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// 0 takes no new connections and keeps those that there are.
    pub weight: u32,
    pub cause: Cause,
    /// Ends: is deleted at zero active connections, or at this time with those that are left.
    pub until: Option<Duration>,
}

/// Why a server has its weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Cause {
    /// Full weight.
    Serving,
    /// Has come back a while ago.
    SlowStart,
    /// Behind `lag.preferred`.
    Behind,
    /// Behind `lag.maximum`.
    Lagging,
    /// Behind, but nobody is less so.
    LeastLagging,
    /// The primary, while nobody else can serve.
    LastResort,
    /// Taken out by an operator.
    Draining,
    /// Answers, but must not be used.
    Excluded,
    /// Has weight 0 in the configuration.
    NoWeight,
}

impl Cause {
    /// The name in status and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Serving => "serving",
            Self::SlowStart => "slow start",
            Self::Behind => "behind",
            Self::Lagging => "lagging",
            Self::LeastLagging => "least lagging",
            Self::LastResort => "last resort",
            Self::Draining => "draining",
            Self::Excluded => "excluded",
            Self::NoWeight => "no weight",
        }
    }
}
