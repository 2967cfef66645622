//! OK and EOF packets, and the session changes that an OK packet carries.

use crate::capability::{Capabilities, Status};
use crate::codec::{Malformed, Reader, put_lenenc, put_lenenc_bytes, put_u16};

/// The end of a statement that worked.
///
/// Also the end of rows when [`Capabilities::DEPRECATE_EOF`] is agreed; the first byte is [`EofPacket::HEADER`] then.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OkPacket<'a> {
    pub affected_rows: u64,
    pub last_insert_id: u64,
    pub status: Status,
    pub warnings: u16,
    /// Text for people, as in `Rows matched: 1`.
    pub info: &'a [u8],
    /// Session trackers, see [`OkPacket::changes`]. Written only with [`Status::SESSION_STATE_CHANGED`].
    pub session_state: &'a [u8],
}

impl<'a> OkPacket<'a> {
    /// First byte of the payload, except at the end of rows.
    pub const HEADER: u8 = 0x00;

    /// Reads a payload that starts with 0x00 or 0xfe.
    ///
    /// Servers write the text with its length whatever is agreed (`net_send_ok` in MySQL's
    /// `sql/protocol_classic.cc`), although the manual has it run to the end of the packet for clients without
    /// [`Capabilities::SESSION_TRACK`]; there both forms are read.
    ///
    /// # Errors
    ///
    /// [`Malformed`] when the payload is no OK packet, too short, or has session trackers that cannot be read.
    pub fn parse(payload: &'a [u8], capabilities: Capabilities) -> Result<Self, Malformed> {
        let mut reader = Reader::new(payload);
        let header = reader.u8()?;
        if header != Self::HEADER && header != EofPacket::HEADER {
            return Err(Malformed::Header { expected: "OK", got: header });
        }
        let mut ok =
            Self { affected_rows: reader.lenenc()?, last_insert_id: reader.lenenc()?, ..Self::default() };
        if capabilities.intersects(Capabilities::PROTOCOL_41 | Capabilities::TRANSACTIONS) {
            ok.status = Status::from_bits_retain(reader.u16()?);
        }
        if capabilities.contains(Capabilities::PROTOCOL_41) {
            ok.warnings = reader.u16()?;
        }
        if !capabilities.contains(Capabilities::SESSION_TRACK) {
            ok.info = plain_info(reader);
            return Ok(ok);
        }
        if !reader.is_empty() {
            ok.info = reader.lenenc_bytes()?;
        }
        if ok.status.contains(Status::SESSION_STATE_CHANGED) && !reader.is_empty() {
            ok.session_state = reader.lenenc_bytes()?;
            check_changes(ok.session_state)?;
        }
        Ok(ok)
    }

    /// Appends the payload with `header` as its first byte, in the form that `capabilities` ask for.
    ///
    /// Session trackers and their status flag are left out for a peer without [`Capabilities::SESSION_TRACK`].
    pub fn write(&self, out: &mut Vec<u8>, header: u8, capabilities: Capabilities) {
        let tracks = capabilities.contains(Capabilities::SESSION_TRACK);
        let status = if tracks { self.status } else { self.status - Status::SESSION_STATE_CHANGED };
        let changed = status.contains(Status::SESSION_STATE_CHANGED);
        out.push(header);
        put_lenenc(out, self.affected_rows);
        put_lenenc(out, self.last_insert_id);
        if capabilities.intersects(Capabilities::PROTOCOL_41 | Capabilities::TRANSACTIONS) {
            put_u16(out, status.bits());
        }
        if capabilities.contains(Capabilities::PROTOCOL_41) {
            put_u16(out, self.warnings);
        }
        if changed || !self.info.is_empty() {
            put_lenenc_bytes(out, self.info);
        }
        if changed {
            put_lenenc_bytes(out, self.session_state);
        }
    }

    /// What the statement has changed in the session, in the server's order.
    ///
    /// Ends early at bytes that are no tracker; [`OkPacket::parse`] lets no such packet through.
    pub fn changes(&self) -> impl Iterator<Item = SessionChange<'a>> + use<'a> {
        let mut reader = Reader::new(self.session_state);
        std::iter::from_fn(move || if reader.is_empty() { None } else { next_change(&mut reader).ok() })
    }
}

/// One session tracker (`SESSION_TRACK_*` in MySQL's `include/mysql_com.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionChange<'a> {
    SystemVariable {
        name: &'a [u8],
        value: &'a [u8],
    },
    Schema(&'a [u8]),
    /// Whether any state was changed, for servers that track no more than that.
    StateChange(bool),
    /// Transactions that the statement has committed, in the server's own syntax.
    Gtids(&'a [u8]),
    /// Statements that would start the running transaction again.
    TransactionCharacteristics(&'a [u8]),
    /// Eight letters, see the manual on `session_track_transaction_info`.
    TransactionState(&'a [u8]),
    Unknown,
}

/// The end of column definitions or rows when [`Capabilities::DEPRECATE_EOF`] is not agreed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EofPacket {
    pub warnings: u16,
    pub status: Status,
}

impl EofPacket {
    /// First byte of the payload.
    pub const HEADER: u8 = 0xfe;
    /// Length of the payload.
    pub const LEN: usize = 5;

    /// Reads a payload.
    ///
    /// # Errors
    ///
    /// [`Malformed`] when it is not an EOF packet or too short for one.
    pub fn parse(payload: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(payload);
        let header = reader.u8()?;
        if header != Self::HEADER {
            return Err(Malformed::Header { expected: "EOF", got: header });
        }
        Ok(Self { warnings: reader.u16()?, status: Status::from_bits_retain(reader.u16()?) })
    }

    /// Appends the payload.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.push(Self::HEADER);
        put_u16(out, self.warnings);
        put_u16(out, self.status.bits());
    }
}

/// The text of an OK packet for a client without session trackers: with its length, or all that is left.
fn plain_info(rest: Reader<'_>) -> &[u8] {
    let (mut with_length, mut whole) = (rest, rest);
    match with_length.lenenc_bytes() {
        Ok(info) if with_length.is_empty() => info,
        Ok(_) | Err(_) => whole.rest(),
    }
}

fn check_changes(session_state: &[u8]) -> Result<(), Malformed> {
    let mut reader = Reader::new(session_state);
    while !reader.is_empty() {
        next_change(&mut reader)?;
    }
    Ok(())
}

fn next_change<'a>(reader: &mut Reader<'a>) -> Result<SessionChange<'a>, Malformed> {
    let kind = reader.u8()?;
    let mut body = Reader::new(reader.lenenc_bytes()?);
    Ok(match kind {
        TRACK_SYSTEM_VARIABLES => {
            SessionChange::SystemVariable { name: body.lenenc_bytes()?, value: body.lenenc_bytes()? }
        }
        TRACK_SCHEMA => SessionChange::Schema(body.lenenc_bytes()?),
        // One letter, on some servers with its length in front.
        TRACK_STATE_CHANGE => SessionChange::StateChange(body.rest().last() == Some(&b'1')),
        TRACK_GTIDS => {
            let _encoding = body.u8()?;
            SessionChange::Gtids(body.lenenc_bytes()?)
        }
        TRACK_TRANSACTION_CHARACTERISTICS => SessionChange::TransactionCharacteristics(body.lenenc_bytes()?),
        TRACK_TRANSACTION_STATE => SessionChange::TransactionState(body.lenenc_bytes()?),
        _other => SessionChange::Unknown,
    })
}

const TRACK_SYSTEM_VARIABLES: u8 = 0;
const TRACK_SCHEMA: u8 = 1;
const TRACK_STATE_CHANGE: u8 = 2;
const TRACK_GTIDS: u8 = 3;
const TRACK_TRANSACTION_CHARACTERISTICS: u8 = 4;
const TRACK_TRANSACTION_STATE: u8 = 5;

#[cfg(test)]
mod tests;
