//! Hosts with ports.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

/// The port of servers that are given without one.
const DEFAULT_PORT: u16 = 3306;

/// A host name or address and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    /// Without the brackets of IPv6.
    pub host: String,
    pub port: u16,
}

impl HostPort {
    /// Reads the address of a server; the port is 1 to 65535, and 3306 where none is given.
    pub fn parse(text: &str) -> Option<Self> {
        Self::parse_with(text, Some(DEFAULT_PORT)).filter(|address| address.port != 0)
    }

    /// Reads `host:port`; port 0 lets the kernel choose.
    pub(crate) fn parse_with(text: &str, default_port: Option<u16>) -> Option<Self> {
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (host, after) = rest.split_once(']')?;
                host.parse::<Ipv6Addr>().ok()?;
                (host, if after.is_empty() { None } else { Some(after.strip_prefix(':')?) })
            }
            None => match text.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (text, None),
            },
        };
        let digits = |port: &str| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
        let port = match port {
            Some(port) => port.parse().ok().filter(|_| digits(port))?,
            None => default_port?,
        };
        (is_ip(host) || is_host_name(host)).then(|| Self { host: host.to_owned(), port })
    }

    /// Whether two listeners cannot both have their address: same port, and same host or one of them all hosts.
    pub(crate) fn clashes(&self, other: &Self) -> bool {
        let wildcard = |address: &Self| matches!(address.host.as_str(), "::" | "0.0.0.0");
        self.port != 0
            && self.port == other.port
            && (self.host == other.host || wildcard(self) || wildcard(other))
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

fn is_ip(host: &str) -> bool {
    host.parse::<IpAddr>().is_ok()
}

/// RFC 1123 with underscores, which people use, and no label of digits alone at the end, which would be an address.
fn is_host_name(host: &str) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host);
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let last_is_number = host.rsplit('.').next().is_some_and(|last| last.bytes().all(|b| b.is_ascii_digit()));
    host.len() <= 253 && host.split('.').all(label) && !last_is_number
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_servers() {
        let check = |text: &str, expected: Option<&str>| {
            let parsed = HostPort::parse(text).map(|address| address.to_string());
            assert_eq!(parsed.as_deref(), expected, "{text}");
        };
        check("db-1:3306", Some("db-1:3306"));
        check("db-1", Some("db-1:3306"));
        check("db_1.example.com.:65535", Some("db_1.example.com.:65535"));
        check("10.0.0.1:1", Some("10.0.0.1:1"));
        check("[::1]:3307", Some("[::1]:3307"));
        check("[fd00::1]", Some("[fd00::1]:3306"));
        for text in [
            "",
            ":3306",
            "db:",
            "db:0",
            "db:65536",
            "db:+1",
            "db:x",
            "::1",
            "[::1",
            "[db]:1",
            "a b:1",
            "10.0.0.256",
            "db:1:2",
            "-a:1",
            "a..b:1",
            "[::1]3306",
        ] {
            check(text, None);
        }
    }

    #[test]
    fn listeners_clash_on_one_port() {
        let check = |one: &str, two: &str, expected: bool| {
            let parse = |text| HostPort::parse_with(text, None).unwrap();
            assert_eq!(parse(one).clashes(&parse(two)), expected, "{one} {two}");
        };
        check("127.0.0.1:1", "127.0.0.1:1", true);
        check("127.0.0.1:1", "127.0.0.1:2", false);
        check("[::]:1", "127.0.0.1:1", true);
        check("10.0.0.1:1", "127.0.0.1:1", false);
        check("127.0.0.1:0", "127.0.0.1:0", false);
    }
}
