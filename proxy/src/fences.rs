//! From which epoch on, and until when, what a server acknowledges may be passed on to clients.

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
}

impl Fences {
    pub fn new(servers: usize, started: Instant) -> Self {
        let fence = || Fence { epoch: AtomicU64::new(0), until_ms: AtomicU64::new(u64::MAX) };
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
        until != u64::MAX && self.started.elapsed().as_millis() >= u128::from(until)
    }
}

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
}
