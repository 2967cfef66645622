//! Bytes that no client should send, collected from what has ended or bloated other proxies and servers.

use pointsman_protocol::capability::Capabilities;
use pointsman_protocol::compress::{Algorithm, Compressor};
use pointsman_protocol::packet::{HEADER_LEN, Header, MAX_PAYLOAD, write_packet};

/// One piece of bad input.
#[derive(Clone, Debug)]
pub(crate) struct Bad {
    pub(crate) name: String,
    pub(crate) bytes: Vec<u8>,
    pub(crate) then: Then,
}

/// What is to come of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Then {
    /// An ERR packet, and the end.
    Told,
    /// The end, of which an ERR packet or the proxy's log says why.
    Ended,
    /// Half of something, behind which the client ends: no OK.
    Left,
    /// An ERR packet with this code, and the session goes on.
    Refused(u16),
    /// No answer, and the session goes on.
    Ignored,
    /// Any answer, or the end.
    Either,
}

/// What comes in place of the client's answer to the greeting.
pub(crate) fn logins() -> Vec<Bad> {
    let good = response();
    let mut list = vec![
        left("nothing", &[]),
        ended("http", b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec()),
        ended("tls without asking", b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03".to_vec()),
        told("an empty packet", vec![0, 0, 0, 1]),
        told("a header of 16 MiB", vec![0xff, 0xff, 0xff, 1]),
        ended("the start of 16 MiB", [&[0xff, 0xff, 0xff, 1][..], &[0; 70_000]].concat()),
        ended("more than a login may be", framed(1, &[0x01; 80_000])),
        told("a wrong sequence number", framed(9, &good)),
        told("before 4.1", framed(1, b"\x05\0\0\0\x40root\0")),
        ended(
            "junk instead of tls",
            [framed(1, &ssl_request()), b"not tls at all, by no means".to_vec()].concat(),
        ),
        told("tls asked for with more behind it", framed(1, &[&ssl_request()[..], b"app\0"].concat())),
        told(
            "an answer longer than the packet",
            framed(1, &[&head()[..], b"app\0\xfe\xff\xff\xff\xff\xff\xff\xff\x7f"].concat()),
        ),
        told("capabilities that nobody has", framed(1, &every_capability())),
        told("a null answer", framed(1, &[&head()[..], b"app\0\xfb"].concat())),
        told("no end of the user", framed(1, &[&head()[..], &[b'a'; 300]].concat())),
        told(
            "attributes longer than the packet",
            framed(1, &[&good[..good.len() - 1], b"\xfd\xff\xff\xff"].concat()),
        ),
        told(
            "an attribute longer than the attributes",
            framed(1, &[&good[..good.len() - 1], b"\x03\x09ab"].concat()),
        ),
    ];
    for len in 0..good.len() {
        list.push(told(&format!("a response cut to {len}"), framed(1, &good[..len])));
        list.push(left(&format!("a packet cut to {len}"), &framed(1, &good)[..len]));
    }
    list
}

/// Commands of a client that has logged in.
pub(crate) fn commands() -> Vec<Bad> {
    let mut list = vec![
        told("an empty packet", vec![0, 0, 0, 0]),
        told("a wrong sequence number", framed(7, &[PING])),
        Bad { then: Then::Either, ..ended("a table without end", framed(0, b"\x04app")) },
        refused("junk for a statement", 1064, &[&[QUERY][..], &[0xff; 64]].concat()),
        refused("a statement of nothing", 1065, &[QUERY]),
        Bad { then: Then::Either, ..ended("a user of nothing", framed(0, &[0x11])) },
        Bad {
            then: Then::Either,
            ..ended("a user without end", framed(0, &[&[0x11][..], &[b'a'; 500]].concat()))
        },
        Bad { then: Then::Either, ..ended("a position of nothing", framed(0, &[0x12])) },
        Bad { then: Then::Either, ..ended("a gtid position of junk", framed(0, &[0x1e, 0xff, 0xff, 1])) },
        Bad { then: Then::Either, ..ended("an option of no meaning", framed(0, &[0x1b, 7, 7])) },
        Bad { then: Then::Ignored, ..ended("an unknown statement closed", framed(0, &[0x19, 9, 9, 9, 9])) },
        Bad {
            then: Then::Ignored,
            ..ended("data for an unknown statement", framed(0, b"\x18\x09\x09\x09\x09\xff\xffdata"))
        },
        refused("an unknown statement executed", 1243, &[0x17, 9, 9, 9, 9, 0, 1, 0, 0, 0]),
        refused("an unknown statement fetched", 1243, &[0x1c, 9, 9, 9, 9, 1, 0, 0, 0]),
        refused("an unknown statement reset", 1243, &[0x1a, 9, 9, 9, 9]),
    ];
    for (name, code, least) in [
        ("execute", 0x17, 10),
        ("long data", 0x18, 7),
        ("close", 0x19, 5),
        ("reset", 0x1a, 5),
        ("option", 0x1b, 3),
        ("fetch", 0x1c, 9),
        ("bulk execute", 0xfa, 7),
        ("kill", 0x0c, 5),
    ] {
        for len in 1..least {
            let mut payload = vec![0; len];
            payload[0] = code;
            list.push(told(&format!("{name} of {len} bytes"), framed(0, &payload)));
        }
    }
    for code in [0x00, 0x05, 0x06, 0x0b, 0x0f, 0x10, 0x13, 0x14, 0x1d, 0x20, 0x21, 0x7f, 0xf0, 0xff] {
        list.push(refused(&format!("command 0x{code:02x}"), 1047, &[code, 1, 2, 3]));
    }
    list
}

/// Executions of a statement with one parameter, whose id stands in place of [`ID`], each with its name.
pub(crate) fn executions() -> Vec<(String, Vec<u8>)> {
    let good = [0x17, ID, ID, ID, ID, 0, 1, 0, 0, 0, 0, 1, 0xfd, 0, 3, b'a', b'b', b'c'];
    let mut list: Vec<_> =
        (10..good.len()).map(|len| (format!("cut to {len}"), framed(0, &good[..len]))).collect();
    for at in 5..good.len() {
        for value in [0, 1, 7, 0xf4, 0xfb, 0xfe, 0xff] {
            let mut payload = good;
            payload[at] = value;
            let name = format!("byte {at} is 0x{value:02x}");
            list.push((name, framed(0, &payload)));
        }
    }
    list
}

/// What a client sends that has agreed on compression.
pub(crate) fn compressed() -> Vec<Bad> {
    let ping = framed(0, &[PING]);
    let mut good = Vec::new();
    Compressor::new(Algorithm::Zlib)
        .write(&[&framed(0, &[&[QUERY][..], &[b' '; 200], b"DO 1"].concat())[..]].concat(), &mut good);
    let with = |at: usize, value: u8| {
        let mut packet = good.clone();
        packet[at] = value;
        packet
    };
    vec![
        left("a header cut short", &[1, 0, 0, 0, 0]),
        ended("not compressed at all", [&ping[..], &[0; 20]].concat()),
        ended("junk for a body", [&[20, 0, 0, 0, 100, 0, 0][..], &[0xa5; 20]].concat()),
        ended("a body of nothing", vec![0, 0, 0, 0, 100, 0, 0, 1, 0, 0, 1, 0, 0, 0, 1]),
        ended("a longer body promised", with(4, good[4].wrapping_add(1))),
        ended("a shorter body promised", with(4, good[4].wrapping_sub(1))),
        ended("a damaged checksum", with(good.len() - 1, good[good.len() - 1] ^ 1)),
        ended(
            "16 MiB promised",
            [&[255, 255, 255, 0, 255, 255, 255][..], &[0x78, 0x9c], &[0; 5000]].concat(),
        ),
        told("16 MiB of zeros", bomb()),
        told("an empty packet inside", vec![4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
    ]
}

/// A short packet that inflates to 16 MiB: an empty packet, of which there is none.
fn bomb() -> Vec<u8> {
    let mut packets = Vec::new();
    Compressor::new(Algorithm::Zlib).write(&vec![0; MAX_PAYLOAD], &mut packets);
    packets
}

/// A packet of more than `max_allowed_packet`, whose end never comes.
pub(crate) fn endless() -> Vec<u8> {
    let mut payload = vec![b' '; MAX_PAYLOAD];
    payload[0] = QUERY;
    let mut bytes = Vec::with_capacity(HEADER_LEN + MAX_PAYLOAD);
    bytes.extend_from_slice(&Header { len: MAX_PAYLOAD, sequence: 0 }.to_bytes());
    bytes.extend_from_slice(&payload);
    bytes
}

/// A good response to the greeting, of a client without attributes.
fn response() -> Vec<u8> {
    [&head()[..], b"app\0\0app\0mysql_native_password\0\0"].concat()
}

fn head() -> Vec<u8> {
    hello(
        Capabilities::PLUGIN_AUTH
            | Capabilities::PLUGIN_AUTH_LENENC_CLIENT_DATA
            | Capabilities::CONNECT_ATTRS,
    )
}

/// All bits but that for TLS, and of MariaDB's.
fn every_capability() -> Vec<u8> {
    let mut bytes = response();
    bytes[..4].copy_from_slice(&(!Capabilities::SSL.bits()).to_le_bytes());
    bytes[9..32].fill(0xff);
    bytes
}

fn ssl_request() -> Vec<u8> {
    hello(Capabilities::SSL)
}

fn hello(more: Capabilities) -> Vec<u8> {
    let capabilities =
        Capabilities::PROTOCOL_41 | Capabilities::SECURE_CONNECTION | Capabilities::CONNECT_WITH_DB | more;
    let mut bytes = capabilities.bits().to_le_bytes().to_vec();
    bytes.extend_from_slice(&[0, 0, 0, 1, 45]);
    bytes.extend_from_slice(&[0; 23]);
    bytes
}

pub(crate) fn framed(sequence: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    write_packet(&mut bytes, sequence, payload);
    bytes
}

fn told(name: &str, bytes: Vec<u8>) -> Bad {
    Bad { then: Then::Told, ..ended(name, bytes) }
}

fn left(name: &str, bytes: &[u8]) -> Bad {
    Bad { then: Then::Left, ..ended(name, bytes.to_vec()) }
}

fn ended(name: &str, bytes: Vec<u8>) -> Bad {
    Bad { name: name.to_owned(), bytes, then: Then::Ended }
}

fn refused(name: &str, code: u16, payload: &[u8]) -> Bad {
    Bad { name: name.to_owned(), bytes: framed(0, payload), then: Then::Refused(code) }
}

const QUERY: u8 = 0x03;
pub(crate) const PING: u8 = 0x0e;
/// Four of these are the statement's id.
pub(crate) const ID: u8 = 0x77;
