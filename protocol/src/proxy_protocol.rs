//! The header by which a load balancer in front says who the client is: PROXY protocol, versions 1 and 2.
//!
//! <https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt>. Whoever may send one can claim any address, so
//! headers are taken from trusted networks only; that is the caller's business.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use thiserror::Error;

/// A header at the start of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProxyHeader {
    /// How many bytes it takes.
    pub len: usize,
    /// Where the client comes from; none where the balancer speaks for itself, as in a health check, and where the
    /// client's is no address of the internet.
    pub source: Option<SocketAddr>,
}

/// What the first bytes of a connection are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyParse {
    Header(ProxyHeader),
    /// The beginning of a header.
    Incomplete,
    /// No header.
    Absent,
}

/// Why a header cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ProxyHeaderError {
    #[error("expected a line of at most {MAX_LINE_LEN} bytes in a PROXY header of version 1")]
    NoLineEnd,
    #[error("expected PROXY, a family, two addresses and two ports")]
    Line,
    #[error("expected version 2 of the PROXY header, got {0}")]
    Version(u8),
    #[error("expected PROXY command 0 or 1, got {0}")]
    Command(u8),
    #[error("a PROXY header of {len} bytes is longer than {MAX_BINARY_LEN}")]
    TooLong { len: usize },
    #[error("expected {wanted} bytes of addresses in a PROXY header, got {len}")]
    Addresses { wanted: usize, len: usize },
}

impl ProxyHeader {
    /// Reads the header at the start of `bytes`.
    ///
    /// # Errors
    ///
    /// [`ProxyHeaderError`] when the bytes begin as a header does and go on otherwise.
    pub fn parse(bytes: &[u8]) -> Result<ProxyParse, ProxyHeaderError> {
        if begins_as(bytes, BINARY_SIGNATURE) {
            parse_binary(bytes)
        } else if begins_as(bytes, LINE_SIGNATURE) {
            parse_line(bytes)
        } else {
            Ok(ProxyParse::Absent)
        }
    }
}

/// Whether what is there of `bytes` agrees with `signature`.
fn begins_as(bytes: &[u8], signature: &[u8]) -> bool {
    let known = bytes.len().min(signature.len());
    bytes[..known] == signature[..known]
}

fn parse_line(bytes: &[u8]) -> Result<ProxyParse, ProxyHeaderError> {
    let window = &bytes[..bytes.len().min(MAX_LINE_LEN)];
    let Some(end) = window.windows(2).position(|pair| pair == b"\r\n") else {
        return if bytes.len() < MAX_LINE_LEN {
            Ok(ProxyParse::Incomplete)
        } else {
            Err(ProxyHeaderError::NoLineEnd)
        };
    };
    let line = std::str::from_utf8(&window[..end]).map_err(|_| ProxyHeaderError::Line)?;
    let source = parse_words(line).ok_or(ProxyHeaderError::Line)?;
    Ok(ProxyParse::Header(ProxyHeader { len: end + 2, source }))
}

fn parse_words(line: &str) -> Option<Option<SocketAddr>> {
    let mut words = line.split(' ');
    if words.next() != Some("PROXY") {
        return None;
    }
    let family = words.next()?;
    if family == "UNKNOWN" {
        return Some(None);
    }
    let (source, destination) = (words.next()?, words.next()?);
    let (source_port, destination_port): (u16, u16) =
        (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    let (source, _): (IpAddr, IpAddr) = (source.parse().ok()?, destination.parse().ok()?);
    let _ = destination_port;
    let fits = match family {
        "TCP4" => source.is_ipv4(),
        "TCP6" => source.is_ipv6(),
        _other => false,
    };
    (fits && words.next().is_none()).then_some(Some(SocketAddr::new(source, source_port)))
}

fn parse_binary(bytes: &[u8]) -> Result<ProxyParse, ProxyHeaderError> {
    let Some(&[version_and_command, family, high, low]) =
        bytes.get(BINARY_SIGNATURE.len()..).and_then(<[u8]>::first_chunk)
    else {
        return Ok(ProxyParse::Incomplete);
    };
    if version_and_command >> 4 != 2 {
        return Err(ProxyHeaderError::Version(version_and_command >> 4));
    }
    let len = BINARY_HEAD_LEN + usize::from(u16::from_be_bytes([high, low]));
    if len > MAX_BINARY_LEN {
        return Err(ProxyHeaderError::TooLong { len });
    }
    let Some(body) = bytes.get(BINARY_HEAD_LEN..len) else { return Ok(ProxyParse::Incomplete) };
    let source = match version_and_command & 0xf {
        COMMAND_LOCAL => None,
        COMMAND_PROXY => parse_addresses(family, body)?,
        other => return Err(ProxyHeaderError::Command(other)),
    };
    Ok(ProxyParse::Header(ProxyHeader { len, source }))
}

/// Source, destination, and their ports; what follows are extensions.
fn parse_addresses(family: u8, body: &[u8]) -> Result<Option<SocketAddr>, ProxyHeaderError> {
    let short = |wanted| ProxyHeaderError::Addresses { wanted, len: body.len() };
    match family {
        TCP_OVER_IPV4 => {
            let block: &[u8; 12] = body.first_chunk().ok_or(short(12))?;
            let [a, b, c, d, .., high, low, _, _] = *block;
            Ok(Some(SocketAddr::new(Ipv4Addr::new(a, b, c, d).into(), u16::from_be_bytes([high, low]))))
        }
        TCP_OVER_IPV6 => {
            let block: &[u8; 36] = body.first_chunk().ok_or(short(36))?;
            let [.., high, low, _, _] = *block;
            let mut address = [0; 16];
            address.copy_from_slice(&block[..16]);
            Ok(Some(SocketAddr::new(Ipv6Addr::from(address).into(), u16::from_be_bytes([high, low]))))
        }
        // Datagrams and Unix sockets: the connection is good, its address is not known.
        _other => Ok(None),
    }
}

const LINE_SIGNATURE: &[u8] = b"PROXY ";
/// Longest line with its end, from the specification.
const MAX_LINE_LEN: usize = 107;
const BINARY_SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
const BINARY_HEAD_LEN: usize = 16;
/// Extensions included; balancers send some dozens of bytes of them.
const MAX_BINARY_LEN: usize = 4096;
const COMMAND_LOCAL: u8 = 0;
const COMMAND_PROXY: u8 = 1;
const TCP_OVER_IPV4: u8 = 0x11;
const TCP_OVER_IPV6: u8 = 0x21;

#[cfg(test)]
mod tests {
    use super::*;

    const V2_IPV4: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\xa8\x01\x02\x0a\0\0\x01\x30\x39\x0c\xea";
    const V2_IPV6_WITH_EXTENSION: &[u8] =
        b"\r\n\r\n\0\r\nQUIT\n\x21\x21\0\x28\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01\
        \x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x02\x30\x39\x0c\xea\x04\0\x01\x07";
    const V2_LOCAL: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";

    #[test]
    fn headers() {
        check(b"PROXY TCP4 192.168.1.2 10.0.0.1 12345 3306\r\n", Some("192.168.1.2:12345"));
        check(b"PROXY TCP6 2001:db8::1 2001:db8::2 12345 3306\r\n", Some("[2001:db8::1]:12345"));
        check(b"PROXY UNKNOWN\r\n", None);
        check(b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n", None);
        check(V2_IPV4, Some("192.168.1.2:12345"));
        check(V2_IPV6_WITH_EXTENSION, Some("[2001:db8::1]:12345"));
        check(V2_LOCAL, None);
        check(b"\r\n\r\n\0\r\nQUIT\n\x21\x31\0\x02ab", None);
    }

    /// A whole header with more behind it, and the same cut at every length.
    #[track_caller]
    fn check(header: &[u8], source: Option<&str>) {
        let source = source.map(|text| text.parse().expect("an address"));
        let expected = ProxyParse::Header(ProxyHeader { len: header.len(), source });
        assert_eq!(ProxyHeader::parse(&[header, b"\r\nmore"].concat()), Ok(expected));
        for cut in 0..header.len() {
            assert_eq!(ProxyHeader::parse(&header[..cut]), Ok(ProxyParse::Incomplete), "cut at {cut}");
        }
    }

    #[test]
    fn faults() {
        check_fault(b"PROXY TCP4 192.168.1.2 10.0.0.1 12345\r\n", ProxyHeaderError::Line);
        check_fault(b"PROXY TCP4 192.168.1.2 10.0.0.1 1 2 3\r\n", ProxyHeaderError::Line);
        check_fault(b"PROXY TCP4 ::1 ::1 1 2\r\n", ProxyHeaderError::Line);
        check_fault(b"PROXY TCP4 192.168.1.2 10.0.0.1 12345 99999\r\n", ProxyHeaderError::Line);
        check_fault(b"PROXY UDP4 1.1.1.1 1.1.1.2 1 2\r\n", ProxyHeaderError::Line);
        check_fault(&[b"PROXY ".as_slice(), &[b'x'; 101]].concat(), ProxyHeaderError::NoLineEnd);
        check_fault(b"\r\n\r\n\0\r\nQUIT\n\x11\x11\0\0", ProxyHeaderError::Version(1));
        check_fault(b"\r\n\r\n\0\r\nQUIT\n\x22\x11\0\0", ProxyHeaderError::Command(2));
        check_fault(b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff", ProxyHeaderError::TooLong { len: 65_551 });
        check_fault(
            b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x02ab",
            ProxyHeaderError::Addresses { wanted: 12, len: 2 },
        );
    }

    #[track_caller]
    fn check_fault(bytes: &[u8], expected: ProxyHeaderError) {
        assert_eq!(ProxyHeader::parse(bytes), Err(expected));
    }

    #[test]
    fn other_first_bytes() {
        assert_eq!(ProxyHeader::parse(b"GET / HTTP"), Ok(ProxyParse::Absent));
        assert_eq!(ProxyHeader::parse(b"\x20\0\0\x01"), Ok(ProxyParse::Absent));
        assert_eq!(ProxyHeader::parse(b"PROXX"), Ok(ProxyParse::Absent));
    }
}
