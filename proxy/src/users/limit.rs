//! How often the accounts may be read on behalf of clients that could not be let in, and how often these may try.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use crate::net::ClientAddress;

/// Readings that one address may cause in a row, and the time after which it may cause one more.
const PER_ADDRESS: Rate = Rate { burst: 3, interval: Duration::from_secs(2) };
/// The same for all addresses together.
const OVERALL: Rate = Rate { burst: 10, interval: Duration::from_millis(200) };
/// Wrong passwords of one address before it is shut out, and the time after which it may try one more.
const WRONG_PASSWORDS: Rate = Rate { burst: 100, interval: Duration::from_secs(1) };
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

/// Buckets by client address.
#[derive(Debug)]
struct Buckets {
    rate: Rate,
    addresses: HashMap<IpAddr, Bucket>,
}

impl Buckets {
    fn new(rate: Rate) -> Self {
        Self { rate, addresses: HashMap::new() }
    }

    /// Takes a token of this address; none where it has none left, or where too many addresses are at work.
    fn take(&mut self, origin: IpAddr, now: Instant) -> bool {
        if self.addresses.len() >= MAX_ADDRESSES {
            self.addresses.retain(|_, bucket| bucket.full_at > now);
        }
        let known = self.addresses.len() < MAX_ADDRESSES || self.addresses.contains_key(&origin);
        known && self.addresses.entry(origin).or_insert_with(|| Bucket::full(now)).take(self.rate, now)
    }

    fn is_empty(&self, origin: IpAddr, now: Instant) -> bool {
        self.addresses.get(&origin).is_some_and(|bucket| !{ *bucket }.take(self.rate, now))
    }
}

/// Counts readings by client address and overall.
#[derive(Debug)]
pub(super) struct Limiter {
    overall: Bucket,
    addresses: Buckets,
}

impl Limiter {
    pub(super) fn new(now: Instant) -> Self {
        Self { overall: Bucket::full(now), addresses: Buckets::new(PER_ADDRESS) }
    }

    /// Whether a client from here may cause one more reading.
    pub(super) fn allows(&mut self, client: &ClientAddress, now: Instant) -> bool {
        self.addresses.take(origin(client).unwrap_or(LOCAL), now) && self.overall.take(OVERALL, now)
    }
}

/// Counts wrong passwords by client address. Clients of the Unix socket have none and are not counted.
#[derive(Debug)]
pub(super) struct WrongPasswords(Buckets);

impl WrongPasswords {
    pub(super) fn new() -> Self {
        Self(Buckets::new(WRONG_PASSWORDS))
    }

    pub(super) fn count(&mut self, client: &ClientAddress, now: Instant) {
        if let Some(origin) = origin(client) {
            self.0.take(origin, now);
        }
    }

    /// Whether there were so many from this address that no more are listened to for a moment.
    pub(super) fn shut_out(&self, client: &ClientAddress, now: Instant) -> bool {
        origin(client).is_some_and(|origin| self.0.is_empty(origin, now))
    }
}

/// Stands for the clients of the Unix socket.
const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

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
        assert!(limiter.addresses.addresses.len() <= MAX_ADDRESSES);
        assert!(limiter.allows(&client("10.0.0.1"), start + Duration::from_secs(60)));
    }

    #[test]
    fn wrong_passwords_shut_out_their_own_address_only() {
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let mut wrong = WrongPasswords::new();
        for _ in 0..99 {
            wrong.count(&client("10.0.0.1"), start);
        }
        assert!(!wrong.shut_out(&client("10.0.0.1"), start));
        wrong.count(&client("10.0.0.1"), start);
        assert!(wrong.shut_out(&client("10.0.0.1"), start));
        assert!(!wrong.shut_out(&client("10.0.0.2"), start));
        assert!(!wrong.shut_out(&client("10.0.0.1"), at(1)));
        wrong.count(&client("10.0.0.1"), at(1));
        assert!(wrong.shut_out(&client("10.0.0.1"), at(1)));
        assert!(!wrong.shut_out(&client("10.0.0.1"), at(200)));
        for _ in 0..200 {
            wrong.count(&ClientAddress::Local, start);
        }
        assert!(!wrong.shut_out(&ClientAddress::Local, start));
    }
}
