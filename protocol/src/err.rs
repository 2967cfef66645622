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
