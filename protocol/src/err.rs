//! ERR packets.

use crate::capability::Capabilities;
use crate::codec::{Malformed, Reader, put_u16};

/// An error as it goes over the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErrPacket<'a> {
    pub code: u16,
    /// Missing in errors sent before the greeting, which no capabilities have been agreed for.
    pub sqlstate: Option<[u8; 5]>,
    pub message: &'a [u8],
}

impl<'a> ErrPacket<'a> {
    /// First byte of the payload.
    pub const HEADER: u8 = 0xff;
    /// MariaDB's progress reports wear an ERR packet with this code.
    pub const PROGRESS: u16 = 0xffff;

    pub fn new(code: u16, sqlstate: [u8; 5], message: &'a [u8]) -> Self {
        Self { code, sqlstate: Some(sqlstate), message }
    }

    /// Reads a payload.
    ///
    /// # Errors
    ///
    /// [`Malformed`] when it is not an ERR packet or too short for one.
    pub fn parse(payload: &'a [u8], capabilities: Capabilities) -> Result<Self, Malformed> {
        let mut reader = Reader::new(payload);
        let header = reader.u8()?;
        if header != Self::HEADER {
            return Err(Malformed::Header { expected: "ERR", got: header });
        }
        let code = reader.u16()?;
        let marked = capabilities.contains(Capabilities::PROTOCOL_41) && reader.peek() == Some(SQLSTATE_MARK);
        let sqlstate = if marked {
            reader.u8()?;
            Some(reader.array()?)
        } else {
            None
        };
        Ok(Self { code, sqlstate, message: reader.rest() })
    }

    /// Appends the payload; the SQLSTATE only for a peer that has agreed on the 4.1 protocol.
    pub fn write(&self, out: &mut Vec<u8>, capabilities: Capabilities) {
        out.push(Self::HEADER);
        put_u16(out, self.code);
        if let Some(sqlstate) = self.sqlstate
            && capabilities.contains(Capabilities::PROTOCOL_41)
        {
            out.push(SQLSTATE_MARK);
            out.extend_from_slice(&sqlstate);
        }
        out.extend_from_slice(self.message);
    }
}

const SQLSTATE_MARK: u8 = b'#';

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn packets_of_servers() {
        let agreed = Capabilities::PROTOCOL_41;
        let err = ErrPacket::new(1065, *b"42000", b"Query was empty");
        check(b"\xff\x29\x04#42000Query was empty", agreed, err);
        // Before the greeting nothing is agreed, and servers leave the SQLSTATE out.
        let early = ErrPacket { code: 1040, sqlstate: None, message: b"Too many connections" };
        check(b"\xff\x10\x04Too many connections", Capabilities::empty(), early);
        check(b"\xff\x10\x04Too many connections", agreed, early);
        check(b"\xff\x29\x04", agreed, ErrPacket { code: 1065, sqlstate: None, message: b"" });
    }

    #[track_caller]
    fn check(payload: &[u8], capabilities: Capabilities, expected: ErrPacket<'_>) {
        assert_eq!(ErrPacket::parse(payload, capabilities), Ok(expected));
        let mut out = Vec::new();
        expected.write(&mut out, capabilities);
        assert_eq!(out, payload);
    }

    #[test]
    fn what_is_no_error_packet() {
        let parse = |payload| ErrPacket::parse(payload, Capabilities::PROTOCOL_41);
        assert_eq!(parse(&[]), Err(Malformed::Short { wanted: 1, left: 0 }));
        assert_eq!(parse(&[0xff, 1]), Err(Malformed::Short { wanted: 2, left: 1 }));
        assert_eq!(parse(b"\xff\x29\x04#420"), Err(Malformed::Short { wanted: 5, left: 3 }));
        assert_eq!(parse(&[0, 0, 0]), Err(Malformed::Header { expected: "ERR", got: 0 }));
    }

    proptest! {
        #[test]
        fn round_trip(code: u16, sqlstate: [u8; 5], message: Vec<u8>) {
            let err = ErrPacket::new(code, sqlstate, &message);
            let mut out = Vec::new();
            err.write(&mut out, Capabilities::PROTOCOL_41);
            prop_assert_eq!(ErrPacket::parse(&out, Capabilities::PROTOCOL_41), Ok(err));
            out.clear();
            err.write(&mut out, Capabilities::empty());
            let plain = ErrPacket { sqlstate: None, ..err };
            prop_assert_eq!(ErrPacket::parse(&out, Capabilities::empty()), Ok(plain));
        }
    }
}
