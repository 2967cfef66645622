//! Questions to the kernel over netlink: one at a time, each answered before the next is asked.
//!
//! The kernel does its work within `send`, so an answer is there when `send` has returned; the socket never blocks.
//! Whoever uses this must be on a thread of its own.

use std::io;

use netlink_packet_core::{NLA_F_NESTED, NetlinkBuffer, NlasIterator};
use netlink_sys::{Socket, SocketAddr};

/// A netlink socket to the kernel.
#[derive(Debug)]
pub(super) struct Netlink {
    socket: Socket,
    sequence: u32,
}

/// One message to the kernel.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) kind: u16,
    pub(super) flags: u16,
    pub(super) payload: Vec<u8>,
}

impl Netlink {
    /// Opens a socket of a netlink protocol; it belongs to the network namespace of this thread.
    pub(super) fn open(protocol: isize) -> io::Result<Self> {
        let mut socket = Socket::new(protocol)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        socket.set_non_blocking(true)?;
        socket.set_rx_buf_sz(RECEIVE_BUFFER_BYTES)?;
        Ok(Self { socket, sequence: 0 })
    }

    /// Asks for a change.
    pub(super) fn change(&mut self, kind: u16, flags: u16, payload: Vec<u8>) -> io::Result<()> {
        self.batch(vec![Message { kind, flags: flags | NLM_F_ACK, payload }])
    }

    /// Asks for one answer.
    pub(super) fn ask(&mut self, kind: u16, payload: Vec<u8>) -> io::Result<Vec<u8>> {
        let mut answers = self.exchange(&[Message { kind, flags: NLM_F_ACK, payload }])?;
        answers.pop().ok_or_else(|| malformed("expected an answer of the kernel, got none"))
    }

    /// Asks for everything of a kind.
    pub(super) fn dump(&mut self, kind: u16, payload: Vec<u8>) -> io::Result<Vec<Vec<u8>>> {
        // What changes during a dump makes the kernel say so; the next look sees it.
        self.exchange(&[Message { kind, flags: NLM_F_DUMP, payload }])
    }

    /// Sends messages in one piece; fails with the first that the kernel refuses.
    pub(super) fn batch(&mut self, messages: Vec<Message>) -> io::Result<()> {
        self.exchange(&messages).map(drop)
    }

    fn exchange(&mut self, messages: &[Message]) -> io::Result<Vec<Vec<u8>>> {
        let mut out = Vec::new();
        let first = self.sequence.wrapping_add(1);
        let mut awaited = 0_usize;
        for message in messages {
            self.sequence = self.sequence.wrapping_add(1);
            awaited += usize::from(message.flags & (NLM_F_ACK | NLM_F_DUMP) != 0);
            message.write(self.sequence, &mut out);
        }
        self.socket.send(&out, 0)?;
        let mut answers = Vec::new();
        let mut failure = None;
        while awaited > 0 {
            let (datagram, _) = self.socket.recv_from_full()?;
            for (kind, sequence, body) in messages_of(&datagram)? {
                // Answers to a question that failed half-way.
                if sequence.wrapping_sub(first) > self.sequence.wrapping_sub(first) {
                    continue;
                }
                match kind {
                    NLMSG_ERROR | NLMSG_DONE => {
                        awaited = awaited.saturating_sub(1);
                        if let Some(error) = error_of(body) {
                            failure.get_or_insert(error);
                        }
                    }
                    _ => answers.push(body.to_vec()),
                }
            }
            // A batch that fails is answered by its errors alone.
            if failure.is_some() {
                break;
            }
        }
        match failure {
            Some(error) => {
                self.drain();
                Err(error)
            }
            None => Ok(answers),
        }
    }

    /// Takes what the kernel still had to say.
    fn drain(&self) {
        while self.socket.recv_from_full().is_ok() {}
    }
}

impl Message {
    fn write(&self, sequence: u32, out: &mut Vec<u8>) {
        let length = u32::try_from(HEADER_BYTES + self.payload.len()).unwrap_or(u32::MAX);
        out.extend_from_slice(&length.to_ne_bytes());
        out.extend_from_slice(&self.kind.to_ne_bytes());
        out.extend_from_slice(&(self.flags | NLM_F_REQUEST).to_ne_bytes());
        out.extend_from_slice(&sequence.to_ne_bytes());
        // The port: the kernel knows it.
        out.extend_from_slice(&0_u32.to_ne_bytes());
        out.extend_from_slice(&self.payload);
        pad(out);
    }
}

/// Kind, sequence number and body of each message in a datagram.
fn messages_of(datagram: &[u8]) -> io::Result<Vec<(u16, u32, &[u8])>> {
    let mut messages = Vec::new();
    let mut rest = datagram;
    while rest.len() >= HEADER_BYTES {
        let message = NetlinkBuffer::new_checked(rest).map_err(|error| malformed(&error.to_string()))?;
        let length = message.length() as usize;
        messages.push((message.message_type(), message.sequence_number(), &rest[HEADER_BYTES..length]));
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(messages)
}

/// The error of an NLMSG_ERROR or NLMSG_DONE message; zero is success.
fn error_of(body: &[u8]) -> Option<io::Error> {
    let number = body.first_chunk().map_or(0, |bytes| i32::from_ne_bytes(*bytes));
    (number < 0).then(|| io::Error::from_raw_os_error(-number))
}

fn malformed(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

/// Netlink attributes: numbers in the byte order that the receiver wants, nested ones with their bit.
#[derive(Debug, Default)]
pub(super) struct Attributes(Vec<u8>);

impl Attributes {
    /// Attributes behind a fixed header.
    pub(super) fn after(header: &[u8]) -> Self {
        let mut bytes = header.to_vec();
        pad(&mut bytes);
        Self(bytes)
    }

    pub(super) fn bytes(mut self, kind: u16, value: &[u8]) -> Self {
        let length = u16::try_from(ATTRIBUTE_HEADER_BYTES + value.len()).unwrap_or(u16::MAX);
        self.0.extend_from_slice(&length.to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(value);
        pad(&mut self.0);
        self
    }

    /// A string with its final zero.
    pub(super) fn text(self, kind: u16, value: &str) -> Self {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.bytes(kind, &bytes)
    }

    pub(super) fn u16(self, kind: u16, value: u16) -> Self {
        self.bytes(kind, &value.to_ne_bytes())
    }

    pub(super) fn u16_be(self, kind: u16, value: u16) -> Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    pub(super) fn u32(self, kind: u16, value: u32) -> Self {
        self.bytes(kind, &value.to_ne_bytes())
    }

    pub(super) fn u32_be(self, kind: u16, value: u32) -> Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    pub(super) fn nested(self, kind: u16, inner: Self) -> Self {
        self.bytes(kind | NLA_F_NESTED, &inner.0)
    }

    pub(super) fn finish(self) -> Vec<u8> {
        self.0
    }
}

/// Kind and value of each attribute; a malformed one ends them.
pub(super) fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let attribute = NlasIterator::new(rest).next()?.ok()?;
        let (kind, length) = (attribute.kind(), usize::from(attribute.length()));
        let value = rest.get(ATTRIBUTE_HEADER_BYTES..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

pub(super) fn read_u16(value: &[u8]) -> Option<u16> {
    value.first_chunk().map(|bytes| u16::from_ne_bytes(*bytes))
}

pub(super) fn read_u32(value: &[u8]) -> Option<u32> {
    value.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
}

pub(super) fn read_u64(value: &[u8]) -> Option<u64> {
    value.first_chunk().map(|bytes| u64::from_ne_bytes(*bytes))
}

/// A string without its final zero.
pub(super) fn read_text(value: &[u8]) -> String {
    String::from_utf8_lossy(value.split(|byte| *byte == 0).next().unwrap_or_default()).into_owned()
}

fn pad(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

const HEADER_BYTES: usize = 16;
const ATTRIBUTE_HEADER_BYTES: usize = 4;
/// Room for the answers to a batch.
const RECEIVE_BUFFER_BYTES: u32 = 1 << 20;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 0x1;
pub(super) const NLM_F_ACK: u16 = 0x4;
pub(super) const NLM_F_REPLACE: u16 = 0x100;
pub(super) const NLM_F_EXCL: u16 = 0x200;
pub(super) const NLM_F_CREATE: u16 = 0x400;
pub(super) const NLM_F_APPEND: u16 = 0x800;
const NLM_F_DUMP: u16 = 0x300;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_padded_and_nested() {
        let inner = Attributes::default().u16_be(4, 3306);
        let bytes = Attributes::after(&[1, 2]).text(6, "wrr").nested(1, inner).u32(7, 9).finish();
        let (header, rest) = bytes.split_at(4);
        assert_eq!(header, [1, 2, 0, 0]);
        let all: Vec<_> = attributes(rest).collect();
        assert_eq!(all[0], (6, &b"wrr\0"[..]));
        assert_eq!((all[1].0, attributes(all[1].1).collect::<Vec<_>>()), (1, vec![(4, &[0x0c, 0xea][..])]));
        assert_eq!((all[2].0, read_u32(all[2].1)), (7, Some(9)));
        // Cut anywhere, it ends early and nothing panics.
        for length in 0..rest.len() {
            assert!(attributes(&rest[..length]).count() <= 3);
        }
    }

    #[test]
    fn splits_datagrams() {
        let mut datagram = Vec::new();
        Message { kind: 16, flags: 0, payload: vec![7; 5] }.write(1, &mut datagram);
        Message { kind: 3, flags: 0, payload: vec![0; 4] }.write(2, &mut datagram);
        let messages = messages_of(&datagram).unwrap();
        assert_eq!(messages, [(16, 1, &[7_u8; 5][..]), (3, 2, &[0_u8; 4][..])]);
        assert!(messages_of(&datagram[..20]).is_err());
        assert_eq!(error_of(&(-1_i32).to_ne_bytes()).and_then(|e| e.raw_os_error()), Some(1));
        assert!(error_of(&0_i32.to_ne_bytes()).is_none());
    }
}
