//! From which epoch on, and until when, what a server acknowledges may be passed on to clients, and which servers'
//! connections are not to be trusted for a moment.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use pointsman_router::topology::ServerId;

/// Looked at right before an OK is forwarded: without a lease that costs one load.
#[derive(Debug)]
pub struct Fences {
    started: Instant,
    servers: Vec<Fence>,
}

#[derive(Debug)]
struct Fence {
    /// Connections of earlier epochs are of no use.
    epoch: AtomicU64,
    /// Milliseconds on the process's clock after which nothing is passed on; the largest number is no limit.
    until_ms: AtomicU64,
    /// Milliseconds on the process's clock until which the server's other connections are not trusted.
    suspect_until_ms: AtomicU64,
}

impl Fences {
    pub fn new(servers: usize, started: Instant) -> Self {
        let fence = || Fence {
            epoch: AtomicU64::new(0),
            until_ms: AtomicU64::new(u64::MAX),
            suspect_until_ms: AtomicU64::new(0),
        };
        Self { started, servers: (0..servers).map(|_| fence()).collect() }
    }

    /// Nothing more is passed on from connections to `server` of an epoch before `epoch`.
    pub fn raise(&self, server: ServerId, epoch: u64) {
        if let Some(fence) = self.servers.get(usize::from(server.0)) {
            fence.epoch.fetch_max(epoch, Ordering::SeqCst);
        }
    }

    /// Connections of `epoch` are of use again, though not those before.
    pub fn admit(&self, server: ServerId, epoch: u64) {
        if let Some(fence) = self.servers.get(usize::from(server.0)) {
            fence.epoch.store(epoch, Ordering::SeqCst);
        }
    }

    /// What `server` acknowledges is passed on until then.
    pub fn lease(&self, server: ServerId, until: Option<Duration>) {
        if let Some(fence) = self.servers.get(usize::from(server.0)) {
            let until = until.map_or(u64::MAX, |until| u64::try_from(until.as_millis()).unwrap_or(u64::MAX));
            fence.until_ms.store(until, Ordering::SeqCst);
        }
    }

    /// Whether a connection of `epoch` may not be used, or passed on from, any more.
    pub fn stops(&self, server: ServerId, epoch: u64) -> bool {
        let Some(fence) = self.servers.get(usize::from(server.0)) else { return false };
        if fence.epoch.load(Ordering::SeqCst) > epoch {
            return true;
        }
        let until = fence.until_ms.load(Ordering::SeqCst);
        until != u64::MAX && self.now_ms() >= until
    }

    /// A connection to `server` has just ended, so that others may be about to.
    pub fn suspect(&self, server: ServerId) {
        if let Some(fence) = self.servers.get(usize::from(server.0)) {
            fence.suspect_until_ms.store(self.now_ms() + SUSPECT_MS, Ordering::Relaxed);
        }
    }

    /// Whether one of the server's connections has ended a moment ago.
    pub fn is_suspect(&self, server: ServerId) -> bool {
        let Some(fence) = self.servers.get(usize::from(server.0)) else { return false };
        let until = fence.suspect_until_ms.load(Ordering::Relaxed);
        until != 0 && self.now_ms() < until
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// How long a killed process may take to close its connections.
const SUSPECT_MS: u64 = 500;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epochs_and_leases() {
        let fences = Fences::new(2, Instant::now());
        let (a, b) = (ServerId(0), ServerId(1));
        assert!(!fences.stops(a, 0));
        fences.raise(a, 5);
        fences.raise(a, 4);
        assert!(fences.stops(a, 4) && !fences.stops(a, 5) && !fences.stops(b, 0));
        fences.admit(a, 4);
        assert!(fences.stops(a, 3) && !fences.stops(a, 4));
        fences.lease(b, Some(Duration::ZERO));
        assert!(fences.stops(b, 9));
        fences.lease(b, Some(Duration::from_secs(3600)));
        assert!(!fences.stops(b, 9));
        fences.lease(b, None);
        assert!(!fences.stops(b, 9) && !fences.stops(ServerId(7), 0));
    }

    #[test]
    fn suspicion_is_of_one_server_and_ends() {
        let long_ago = Instant::now().checked_sub(Duration::from_secs(60)).unwrap();
        let fences = Fences::new(2, long_ago);
        assert!(!fences.is_suspect(ServerId(0)));
        fences.suspect(ServerId(0));
        assert!(fences.is_suspect(ServerId(0)) && !fences.is_suspect(ServerId(1)));
        let past = fences.now_ms() - 1;
        fences.servers[0].suspect_until_ms.store(past, Ordering::Relaxed);
        assert!(!fences.is_suspect(ServerId(0)));
    }
}
