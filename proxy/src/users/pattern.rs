//! Host patterns of accounts, matched and ordered as servers do it.
//!
//! MySQL's and MariaDB's `sql/auth/sql_acl.cc`: `compare_hostname`, `get_sort`, `ACL_compare`.

use std::cmp::{Ordering, Reverse};
use std::net::{IpAddr, Ipv4Addr};

use pointsman_router::intent::Flavour;

use crate::net::ClientAddress;

/// The host part of an account's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPattern {
    text: String,
    network: Option<Network>,
    rank: Rank,
}

/// `address/mask`, IPv4 only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Network {
    address: u32,
    mask: u32,
}

/// What makes a pattern more or less specific.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rank {
    network: (NetworkKind, u32),
    wildcards: Wildcards,
    /// Characters that stand for themselves.
    literals: usize,
    /// The place of the first wildcard, or the length.
    first_wildcard: usize,
}

/// The worst wildcard of a pattern; greater is more specific.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Wildcards {
    Any,
    One,
    None,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum NetworkKind {
    None,
    /// `address/255.255.0.0`
    Mask,
    /// `address/16`
    Prefix,
    Address,
}

impl HostPattern {
    /// Reads the `Host` column; an empty one is `%`.
    pub fn new(text: &str) -> Self {
        let text = if text.is_empty() { "%" } else { text };
        Self { text: text.to_owned(), network: Network::parse(text), rank: Rank::of(text) }
    }

    /// As servers show it in CURRENT_USER().
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether a client may come through this account. `names`: the server looks names up, so that loopback is
    /// `localhost`.
    pub fn matches(&self, client: &ClientAddress, names: bool) -> bool {
        let ip = client.ip();
        if let (Some(network), Some(IpAddr::V4(ip))) = (self.network, ip) {
            return network.contains(ip);
        }
        let is_localhost = ip.is_none() || (names && client.is_localhost());
        (is_localhost && like(self.text.to_ascii_lowercase().as_bytes(), LOCALHOST))
            || ip.is_some_and(|ip| like(self.text.as_bytes(), ip.to_string().as_bytes()))
    }

    /// The order in which servers try accounts: the most specific host first. Patterns that are equally specific
    /// come in the reverse order of their texts in MariaDB, and as chance has it in MySQL.
    pub fn compare(&self, other: &Self, flavour: Flavour) -> Ordering {
        let order = match flavour {
            Flavour::Mariadb => other.rank.in_mariadb().cmp(&self.rank.in_mariadb()),
            Flavour::Mysql => other.rank.in_mysql().cmp(&self.rank.in_mysql()),
        };
        order.then_with(|| other.text.cmp(&self.text))
    }
}

const LOCALHOST: &[u8] = b"localhost";

impl Network {
    fn parse(text: &str) -> Option<Self> {
        let (address, mask) = text.split_once('/')?;
        let address = u32::from(address.parse::<Ipv4Addr>().ok()?);
        let mask = match mask.parse::<u32>() {
            Ok(bits @ 1..=32) => u32::MAX << (32 - bits),
            Ok(0) => 0,
            Ok(_) => return None,
            Err(_) => u32::from(mask.parse::<Ipv4Addr>().ok()?),
        };
        Some(Self { address, mask })
    }

    fn contains(self, ip: Ipv4Addr) -> bool {
        u32::from(ip) & self.mask == self.address
    }
}

impl Rank {
    fn of(text: &str) -> Self {
        let bytes = text.as_bytes();
        let (mut wildcards, mut literals, mut first_wildcard) = (Wildcards::None, 0, None);
        let mut at = 0;
        while let Some(byte) = bytes.get(at) {
            match byte {
                b'%' | b'_' => {
                    let worst = if *byte == b'%' { Wildcards::Any } else { Wildcards::One };
                    wildcards = wildcards.min(worst);
                    first_wildcard.get_or_insert(at);
                }
                b'\\' if at + 1 < bytes.len() => {
                    literals += 1;
                    at += 1;
                }
                _ => literals += 1,
            }
            at += 1;
        }
        let first_wildcard = first_wildcard.unwrap_or(bytes.len());
        Self { network: network_rank(text), wildcards, literals, first_wildcard }
    }

    /// Without wildcards first, then those of single characters; then by literal characters, and where these are as
    /// many, by the place of the first wildcard, the earlier the better. Found out by asking MariaDB 10.11.
    fn in_mariadb(self) -> (Wildcards, usize, Reverse<usize>) {
        match self.wildcards {
            Wildcards::None => (Wildcards::None, 0, Reverse(0)),
            Wildcards::One | Wildcards::Any => (self.wildcards, self.literals, Reverse(self.first_wildcard)),
        }
    }

    /// Addresses, networks, names; then by the place of the first wildcard.
    fn in_mysql(self) -> ((NetworkKind, u32), bool, usize) {
        match self.wildcards {
            Wildcards::None => (self.network, true, 0),
            Wildcards::One | Wildcards::Any => (self.network, false, self.first_wildcard),
        }
    }
}

fn network_rank(text: &str) -> (NetworkKind, u32) {
    match (Network::parse(text), text.parse::<IpAddr>()) {
        (Some(network), _) if text.contains("/255") || text.ends_with("/0.0.0.0") => {
            (NetworkKind::Mask, network.mask)
        }
        (Some(network), _) => (NetworkKind::Prefix, network.mask),
        (None, Ok(_)) => (NetworkKind::Address, u32::MAX),
        (None, Err(_)) => (NetworkKind::None, 0),
    }
}

/// SQL's LIKE with `\` as escape.
fn like(pattern: &[u8], text: &[u8]) -> bool {
    let (mut at, mut from) = (0, 0);
    // Where to go on when the last `%` has to take one more.
    let mut resume = None;
    loop {
        match pattern.get(at) {
            Some(b'%') => {
                resume = Some((at + 1, from));
                at += 1;
                continue;
            }
            Some(b'_') if from < text.len() => (at, from) = (at + 1, from + 1),
            Some(&byte) => {
                let escaped = byte == b'\\' && at + 1 < pattern.len();
                let wanted = if escaped { pattern[at + 1] } else { byte };
                let literal = escaped || byte != b'_';
                if literal && text.get(from) == Some(&wanted) {
                    (at, from) = (at + 1 + usize::from(escaped), from + 1);
                } else {
                    match retry(&mut resume, text) {
                        Some(again) => (at, from) = again,
                        None => return false,
                    }
                }
            }
            None if from == text.len() => return true,
            None => match retry(&mut resume, text) {
                Some(again) => (at, from) = again,
                None => return false,
            },
        }
    }
}

fn retry(resume: &mut Option<(usize, usize)>, text: &[u8]) -> Option<(usize, usize)> {
    let (at, from) = resume.as_mut()?;
    *from += 1;
    (*from <= text.len()).then_some((*at, *from))
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use proptest::prelude::*;

    use super::*;

    fn client(ip: &str) -> ClientAddress {
        match ip {
            "socket" => ClientAddress::Local,
            ip => ClientAddress::Ip(SocketAddr::new(ip.parse().unwrap(), 1)),
        }
    }

    #[test]
    fn patterns_match_as_servers_match() {
        let check = |pattern: &str, ip: &str, names: bool, expected: bool| {
            let matches = HostPattern::new(pattern).matches(&client(ip), names);
            assert_eq!(matches, expected, "{pattern} {ip} {names}");
        };
        check("%", "10.0.0.1", true, true);
        check("", "10.0.0.1", true, true);
        check("%", "socket", false, true);
        check("localhost", "socket", false, true);
        check("LocalHost", "127.0.0.1", true, true);
        check("localhost", "127.0.0.1", false, false);
        check("localhost", "::1", true, true);
        check("localhost", "::ffff:127.0.0.1", true, true);
        check("localhost", "10.0.0.1", true, false);
        check("local%", "127.0.0.1", true, true);
        check("127.0.0.1", "127.0.0.1", true, true);
        check("127.0.0.1", "127.0.0.1", false, true);
        check("127.0.0.1", "socket", true, false);
        check("10.0.%", "10.0.3.4", true, true);
        check("10.0.%", "10.1.3.4", true, false);
        check("10.0.0._", "10.0.0.7", true, true);
        check("10.0.0._", "10.0.0.77", true, false);
        check("%.7", "10.0.0.7", true, true);
        check("10.%.7", "10.0.0.17", true, false);
        check("192.168.0.0/255.255.0.0", "192.168.3.4", true, true);
        check("192.168.0.0/255.255.0.0", "192.169.3.4", true, false);
        check("192.168.1.0/255.255.0.0", "192.168.1.4", true, false);
        check("10.0.0.0/8", "10.200.0.1", true, true);
        check("10.0.0.0/8", "11.0.0.1", true, false);
        check("10.0.0.0/8", "::1", true, false);
        check("10.0.0.0/33", "10.0.0.1", true, false);
        check("0.0.0.0/0", "10.0.0.1", true, true);
        check("fe80::%", "fe80::1", true, true);
        check("app.example.com", "10.0.0.1", true, false);
        check("10.0.0.1", "::ffff:10.0.0.1", true, true);
    }

    #[test]
    fn the_most_specific_comes_first() {
        let check = |flavour: Flavour, expected: &[&str]| {
            let mut patterns: Vec<_> = expected.iter().rev().map(|text| HostPattern::new(text)).collect();
            patterns.sort_by(|one, other| one.compare(other, flavour));
            let sorted: Vec<_> = patterns.iter().map(HostPattern::as_str).collect();
            assert_eq!(sorted, expected, "{flavour:?}");
        };
        // Both lists as the servers tried them, one account after the other dropped.
        check(
            Flavour::Mariadb,
            &[
                "localhost",
                "127.0.0.1",
                "127.0.0.0/255.255.255.0",
                "127.0.0.0/255.0.0.0",
                "_ocalhost",
                "_27.0.0.1",
                "1_7.0.0.1",
                "127.0._.1",
                "localhos_",
                "127.0.0._",
                "___.0.0.1",
                "127.0.0.%",
                "%.0.0.1",
                "127.0.%",
                "127._.%",
                "local%",
                "%host",
                "1%0.1",
                "12%.1",
                "127.%",
                "%.1",
                "%1",
                "1%",
                "_%",
                "%",
            ],
        );
        check(
            Flavour::Mysql,
            &[
                "127.0.0.1",
                "127.0.0.0/24",
                "127.0.0.0/8",
                "127.0.0.0/255.255.255.0",
                "127.0.0.0/255.0.0.0",
                "localhost",
                "127.0.0.%",
                "127.0.%",
                "local%",
                "127.%",
                "12%.1",
                "1%0.1",
                "%",
            ],
        );
    }

    /// The definition, in exponential time.
    fn like_by_definition(pattern: &[u8], text: &[u8]) -> bool {
        match (pattern, text) {
            ([], []) => true,
            ([b'%', rest @ ..], _) => (0..=text.len()).any(|skip| like_by_definition(rest, &text[skip..])),
            ([b'_', rest @ ..], [_, after @ ..]) => like_by_definition(rest, after),
            ([b'\\', byte, rest @ ..], [first, after @ ..]) => {
                byte == first && like_by_definition(rest, after)
            }
            ([byte, rest @ ..], [first, after @ ..]) => {
                byte == first && *byte != b'_' && like_by_definition(rest, after)
            }
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn like_is_like(pattern in r"[ab%_\\]{0,8}", text in r"[ab%_\\]{0,8}") {
            prop_assert_eq!(
                like(pattern.as_bytes(), text.as_bytes()),
                like_by_definition(pattern.as_bytes(), text.as_bytes())
            );
        }
    }
}
