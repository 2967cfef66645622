//! Host patterns of accounts, matched and ordered as servers do it.
//!
//! MySQL's and MariaDB's `sql/auth/sql_acl.cc`: `compare_hostname`, `get_sort`, `ACL_compare`.

use std::cmp::Ordering;
use std::net::{IpAddr, Ipv4Addr};

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

/// How specific a pattern is; greater is tried first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    /// 128 without wildcards, else the place of the first one.
    literal: usize,
    /// Bits of the network; 32 for what is no network.
    prefix: u32,
}

impl HostPattern {
    /// Reads the `Host` column; an empty one is `%`.
    pub fn new(text: &str) -> Self {
        let text = if text.is_empty() { "%" } else { text };
        let network = Network::parse(text);
        let prefix = network.map_or(32, |network| network.mask.count_ones());
        Self { text: text.to_owned(), network, rank: Rank { literal: literal_rank(text.as_bytes()), prefix } }
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

    /// The order in which servers try accounts: the most specific host first.
    pub fn compare(&self, other: &Self) -> Ordering {
        other.rank.cmp(&self.rank)
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

/// 128 for a text without wildcards, else the place of the first wildcard counted from 1, at most 127.
fn literal_rank(text: &[u8]) -> usize {
    let mut at = 0;
    while let Some(byte) = text.get(at) {
        match byte {
            b'\\' if at + 1 < text.len() => at += 2,
            b'%' | b'_' => return (at + 1).min(127),
            _ => at += 1,
        }
    }
    128
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
        let mut patterns: Vec<_> = [
            "%",
            "10.%",
            "10.0.%",
            "10.0.0.1",
            "10.0.0.0/8",
            "10.0.0.0/255.255.255.0",
            "_.0.0.1",
            "localhost",
        ]
        .into_iter()
        .map(HostPattern::new)
        .collect();
        patterns.sort_by(HostPattern::compare);
        let sorted: Vec<_> = patterns.iter().map(HostPattern::as_str).collect();
        assert_eq!(
            sorted,
            [
                "10.0.0.1",
                "localhost",
                "10.0.0.0/255.255.255.0",
                "10.0.0.0/8",
                "10.0.%",
                "10.%",
                "%",
                "_.0.0.1",
            ]
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
