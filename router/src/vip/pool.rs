//! What the virtual service shall be: a function of health, lag and weights, and of what was seen before.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use pointsman_config::{Config, Forwarding, Scheduler, VipFallback};

use super::steps::{LagStep, Limits, Step};
use super::{Cause, Wanted, Wish};
use crate::topology::{Role, ServerId, ServerView, State, Topology};

/// The settings that decide who serves.
#[derive(Clone, Debug)]
pub struct Policy {
    pub scheduler: Scheduler,
    pub forwarding: Forwarding,
    pub lag: pointsman_config::Lag,
    /// How long lag must be clearly better before the weight rises again.
    pub dwell: Duration,
    /// How long a server that comes back takes to its full weight.
    pub slow_start: Duration,
    /// How long connections to a server that is taken out may last.
    pub drain: Duration,
    pub fallback: VipFallback,
}

impl Policy {
    pub fn new(config: &Config) -> Self {
        Self {
            scheduler: config.vip.scheduler,
            forwarding: config.vip.forwarding,
            lag: config.lag.clone(),
            dwell: DWELL,
            slow_start: config.routing.slow_start,
            drain: config.vip.drain,
            fallback: config.vip.fallback,
        }
    }

    fn limits(&self) -> Limits {
        Limits { preferred: self.lag.preferred, maximum: self.lag.maximum, dwell: self.dwell }
    }
}

/// The servers behind the virtual address, and what must be remembered of them.
#[derive(Debug)]
pub struct ReadPool {
    policy: Policy,
    seen: BTreeMap<ServerId, Seen>,
    evicted: BTreeSet<ServerId>,
}

/// What is remembered of one server.
#[derive(Debug)]
struct Seen {
    lag: LagStep,
    /// Serves now, since when with a slow start.
    serving: bool,
    /// Has served at any time: only a server that comes back starts slowly.
    served: bool,
    started: Option<Duration>,
    /// When it was taken out.
    ending_since: Option<Duration>,
}

impl ReadPool {
    pub fn new(policy: Policy) -> Self {
        Self { policy, seen: BTreeMap::new(), evicted: BTreeSet::new() }
    }

    /// Takes a server out at once, its connections included, whatever it seems to be, until it is let in again or has
    /// become the primary: a candidate for promotion must not have readers that take it for a replica.
    pub fn evict(&mut self, server: ServerId) {
        self.evicted.insert(server);
    }

    /// Lets a server in again.
    pub fn readmit(&mut self, server: ServerId) {
        self.evicted.remove(&server);
    }

    /// What the service shall be at `now`. A server without an address is as one that is not known yet.
    ///
    /// None while nothing is known: what the kernel has is kept then.
    pub fn wish(
        &mut self,
        topology: &Topology,
        addresses: &BTreeMap<ServerId, SocketAddr>,
        now: Duration,
    ) -> Option<Wish> {
        if !topology.ready {
            return None;
        }
        let mut wish = Wish {
            scheduler: self.policy.scheduler,
            forwarding: self.policy.forwarding,
            destinations: BTreeMap::new(),
            untouched: BTreeSet::new(),
        };
        let mut least_lagging: Option<(Duration, SocketAddr, u32)> = None;
        // From then on its role keeps it out, for as long as it has that.
        self.evicted.retain(|server| topology.primary != Some(*server));
        for view in topology.members() {
            let Some(&address) = addresses.get(&view.id) else { continue };
            if self.evicted.contains(&view.id) {
                self.forget(view.id);
                continue;
            }
            if view.state == State::Unknown {
                wish.untouched.insert(address);
                continue;
            }
            let Some(wanted) = self.wanted(view, now) else { continue };
            if wanted.cause == Cause::Lagging {
                let lag = view.lag.unwrap_or(Duration::MAX);
                if least_lagging.is_none_or(|(least, ..)| lag < least) {
                    least_lagging = Some((lag, address, view.weight));
                }
            }
            wish.destinations.insert(address, wanted);
        }
        if !wish.is_served() {
            self.fall_back(&mut wish, topology, addresses, least_lagging);
        }
        Some(wish)
    }

    /// Lag alone never empties the pool; nothing else fills it but the primary, where that is wanted.
    fn fall_back(
        &self,
        wish: &mut Wish,
        topology: &Topology,
        addresses: &BTreeMap<ServerId, SocketAddr>,
        least_lagging: Option<(Duration, SocketAddr, u32)>,
    ) {
        if let Some((_, address, weight)) = least_lagging {
            wish.destinations.insert(address, Wanted { weight, cause: Cause::LeastLagging, until: None });
        } else if self.policy.fallback == VipFallback::Primary
            && let Some(primary) = topology.primary().filter(|primary| primary.state == State::Online)
            && !self.evicted.contains(&primary.id)
            && let Some(&address) = addresses.get(&primary.id)
        {
            wish.destinations.insert(address, Wanted { weight: 1, cause: Cause::LastResort, until: None });
        }
    }

    /// None where the server shall not be in the table at all.
    fn wanted(&mut self, view: &ServerView, now: Duration) -> Option<Wanted> {
        // A down server keeps its role in the topology or not; connections to it are dead either way.
        if view.state == State::Down || view.role == Role::Primary {
            self.forget(view.id);
            return None;
        }
        let limits = self.policy.limits();
        let seen = self.seen.entry(view.id).or_insert_with(|| Seen::first(view, limits));
        if let Some(cause) = ending(view) {
            let since = *seen.ending_since.get_or_insert(now);
            seen.serving = false;
            return Some(Wanted { weight: 0, cause, until: Some(since + self.policy.drain) });
        }
        seen.ending_since = None;
        let mut step = seen.lag.update(view.lag, limits, now);
        if view.state == State::Lagging {
            step = Step::Nothing;
        }
        let (weight, cause) = match (view.weight, step) {
            (0, _) => (0, Cause::NoWeight),
            (_, Step::Nothing) => (0, Cause::Lagging),
            (weight, Step::Half) => (half(weight), Cause::Behind),
            (weight, Step::Full) => (weight, Cause::Serving),
        };
        let (weight, cause) = seen.start(weight, cause, self.policy.slow_start, now);
        Some(Wanted { weight, cause, until: None })
    }

    fn forget(&mut self, server: ServerId) {
        if let Some(seen) = self.seen.get_mut(&server) {
            seen.serving = false;
            seen.ending_since = None;
        }
    }
}

impl Wish {
    /// Whether anybody takes new connections.
    pub fn is_served(&self) -> bool {
        self.destinations.values().any(|wanted| wanted.weight > 0)
    }
}

impl Seen {
    fn first(view: &ServerView, limits: Limits) -> Self {
        let lag = LagStep::first(view.lag, limits);
        Self { lag, serving: false, served: false, started: None, ending_since: None }
    }

    /// The weight during a slow start, in quarters, so that the kernel's table changes seldom.
    fn start(&mut self, weight: u32, cause: Cause, slow_start: Duration, now: Duration) -> (u32, Cause) {
        if weight == 0 {
            // Lag has its own way back; it counts as still there.
            return (weight, cause);
        }
        if !self.serving {
            self.serving = true;
            self.started = self.served.then_some(now);
            self.served = true;
        }
        let Some(since) = self.started.map(|started| now.saturating_sub(started)) else {
            return (weight, cause);
        };
        if since >= slow_start {
            self.started = None;
            return (weight, cause);
        }
        let quarter = (since.as_millis() * QUARTERS) / slow_start.as_millis().max(1) + 1;
        let quarter = u32::try_from(quarter).unwrap_or(1);
        ((weight * quarter / 4).max(1), Cause::SlowStart)
    }
}

/// Why a server takes no new connections and loses those that it has.
fn ending(view: &ServerView) -> Option<Cause> {
    match (view.role, view.state) {
        (_, State::Draining) => Some(Cause::Draining),
        (Role::Replica, State::Online | State::Lagging) => None,
        _ => Some(Cause::Excluded),
    }
}

fn half(weight: u32) -> u32 {
    (weight / 2).max(1)
}

const DWELL: Duration = Duration::from_secs(5);
const QUARTERS: u128 = 4;
