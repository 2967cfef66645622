//! How often the accounts may be read on behalf of clients that could not be let in.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

use crate::net::ClientAddress;

/// Readings that one address may cause in a row, and the time after which it may cause one more.
const PER_ADDRESS: Rate = Rate { burst: 3, interval: Duration::from_secs(2) };
/// The same for all addresses together.
const OVERALL: Rate = Rate { burst: 10, interval: Duration::from_millis(200) };
/// Addresses that are remembered; when there are more, those that have been quiet are forgotten.
const MAX_ADDRESSES: usize = 4096;

#[derive(Clone, Copy, Debug)]
struct Rate {
    burst: u32,
    interval: Duration,
}

/// A bucket of tokens that fills up again with time, kept as the moment at which it is full.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    full_at: Instant,
}

impl Bucket {
    fn full(now: Instant) -> Self {
        Self { full_at: now }
    }

    fn take(&mut self, rate: Rate, now: Instant) -> bool {
        let full_at = self.full_at.max(now) + rate.interval;
        let allowed = full_at.duration_since(now) <= rate.interval * rate.burst;
        if allowed {
            self.full_at = full_at;
        }
        allowed
    }
}

/// Counts readings by client address and overall.
#[derive(Debug)]
pub(super) struct Limiter {
    overall: Bucket,
    addresses: HashMap<Option<IpAddr>, Bucket>,
}

impl Limiter {
    pub(super) fn new(now: Instant) -> Self {
        Self { overall: Bucket::full(now), addresses: HashMap::new() }
    }

    /// Whether a client from here may cause one more reading.
    pub(super) fn allows(&mut self, client: &ClientAddress, now: Instant) -> bool {
        if self.addresses.len() >= MAX_ADDRESSES {
            self.addresses.retain(|_, bucket| bucket.full_at > now);
        }
        let known = self.addresses.len() < MAX_ADDRESSES || self.addresses.contains_key(&origin(client));
        known
            && self
                .addresses
                .entry(origin(client))
                .or_insert_with(|| Bucket::full(now))
                .take(PER_ADDRESS, now)
            && self.overall.take(OVERALL, now)
    }
}

/// What counts as one address: of IPv6 the network of a site's customer, which has addresses without number.
fn origin(client: &ClientAddress) -> Option<IpAddr> {
    client.ip().map(|ip| match ip {
        IpAddr::V4(_) => ip,
        IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() & (u128::MAX << 64))),
    })
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    fn client(ip: &str) -> ClientAddress {
        ClientAddress::Ip(SocketAddr::new(ip.parse().unwrap(), 1))
    }

    #[test]
    fn one_address_does_not_use_up_what_others_need() {
        let start = Instant::now();
        let mut limiter = Limiter::new(start);
        let allowed = |limiter: &mut Limiter, ip: &str, at: u64| {
            (0..20).filter(|_| limiter.allows(&client(ip), start + Duration::from_millis(at))).count()
        };
        assert_eq!(allowed(&mut limiter, "10.0.0.1", 0), 3);
        assert_eq!(allowed(&mut limiter, "10.0.0.1", 1000), 0);
        assert_eq!(allowed(&mut limiter, "10.0.0.1", 2000), 1);
        assert_eq!(allowed(&mut limiter, "10.0.0.2", 2000), 3);
        assert_eq!(allowed(&mut limiter, "fd00::1", 2000), 3);
        assert_eq!(allowed(&mut limiter, "fd00::2", 2000), 0);
        assert_eq!(allowed(&mut limiter, "10.0.0.3", 2000), 3);
        assert_eq!(allowed(&mut limiter, "10.0.0.4", 2000), 0);
        assert_eq!(allowed(&mut limiter, "10.0.0.5", 2200), 1);
    }

    #[test]
    fn addresses_without_number_take_bounded_memory() {
        let start = Instant::now();
        let mut limiter = Limiter::new(start);
        for number in 0..20_000u32 {
            let address = ClientAddress::Ip(SocketAddr::new(IpAddr::V4(number.into()), 1));
            limiter.allows(&address, start);
        }
        assert!(limiter.addresses.len() <= MAX_ADDRESSES);
        assert!(limiter.allows(&client("10.0.0.1"), start + Duration::from_secs(60)));
    }
}
