//! Finds the end of a server response without decoding rows.
//!
//! The caller shows the bytes it has; the walker steps from packet header to packet header, remembers packets that
//! are cut by the end of the bytes, and says how many bytes may be passed on as they are. Only the packets that end
//! a result are held until they are whole and handed over to be looked into.
//!
//! The grammars are those of the manual pages on COM_QUERY, COM_STMT_PREPARE, COM_STMT_EXECUTE, COM_STMT_FETCH,
//! COM_FIELD_LIST and COM_STATISTICS, and MariaDB's pages on the same and on progress reporting.

use crate::capability::Status;
use crate::codec::{Malformed, Reader};
use crate::err::ErrPacket;
use crate::ok::{EofPacket, OkPacket};
use crate::packet::{HEADER_LEN, Header, MAX_PAYLOAD};

/// Why a response cannot be followed any further.
pub type ResponseError = Malformed;

/// Longest packet, header included, that ends a result: OK with its trackers, EOF, ERR, a file request.
pub const MAX_END_PACKET_BYTES: usize = 1024 * 1024;

/// What answers a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grammar {
    /// OK, ERR, a file request or result sets: COM_QUERY, COM_STMT_EXECUTE, bulk execution, COM_PROCESS_INFO.
    Query,
    /// The head of a prepared statement, its parameters and columns.
    Prepare,
    /// Rows of a cursor, without columns before them.
    Fetch,
    /// Column definitions without a count.
    FieldList,
    /// One packet of bare text.
    Statistics,
    /// OK, EOF or ERR: COM_PING, COM_INIT_DB and all others that only do something.
    Ok,
    /// COM_SET_OPTION: EOF or ERR.
    SetOption,
    /// No answer at all: COM_STMT_CLOSE, COM_STMT_SEND_LONG_DATA, COM_QUIT.
    None,
}

/// The packet that comes after the bytes that may be passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// None that is whole: read more and call again with what is left.
    NeedMore,
    /// A packet of `len` bytes, header included, that ends a result; `last` when it ends the response too.
    End { len: usize, kind: EndKind, last: bool },
    /// The head of a prepared statement, see [`PrepareOk`].
    PrepareOk { len: usize },
    /// The server asks for a file; its OK or ERR follows the client's last packet.
    LocalInfile { len: usize },
    /// Nothing: the response was complete with the bytes passed on. Ends the grammars that have no packet for it.
    Done,
}

/// Which packet ended a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndKind {
    Ok,
    /// An OK packet with the first byte of an EOF packet, the end of rows with DEPRECATE_EOF.
    OkEof,
    Eof,
    Err,
}

/// The head of the answer to COM_STMT_PREPARE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PrepareOk {
    pub id: u32,
    pub columns: u16,
    pub parameters: u16,
}

impl PrepareOk {
    /// Where the payload holds the four bytes of the statement id.
    pub const ID_AT: usize = 1;

    /// Reads a payload.
    ///
    /// # Errors
    ///
    /// [`Malformed`] when it is too short or does not start with 0x00.
    pub fn parse(payload: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(payload);
        let header = reader.u8()?;
        if header != OkPacket::HEADER {
            return Err(Malformed::Header { expected: "the head of a prepared statement", got: header });
        }
        Ok(Self { id: reader.u32()?, columns: reader.u16()?, parameters: reader.u16()? })
    }
}

/// Follows the response to one command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResponseWalker {
    phase: Phase,
    deprecate_eof: bool,
    cache_metadata: bool,
    /// More than one result may come.
    multiple: bool,
    /// Bytes of a packet already decided on that have not been shown yet.
    owed: usize,
    /// The next header belongs to the packet before it.
    continued: bool,
    rows: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Before the first packet of a result.
    Result,
    /// After a file request.
    FileAnswer,
    /// Before the only packet of a command without results.
    Plain,
    PrepareHead,
    /// That many column definitions, then what follows them.
    Definitions(u32, Section),
    /// The EOF packet after column definitions.
    DefinitionsEnd(Section),
    Rows,
    /// Column definitions of COM_FIELD_LIST.
    Fields,
    Text,
    Finished,
}

/// What follows a block of column definitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Section {
    Rows,
    /// The columns of a prepared statement, after its parameters.
    Columns(u16),
    Nothing,
}

/// What to do with a packet, from its length and first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// Passed on in pieces.
    Pass,
    ColumnCount,
    DefinitionsEnd(Section),
    PrepareOk,
    LocalInfile,
    End(EndKind),
}

impl ResponseWalker {
    /// Both flags as agreed with the server.
    pub fn new(grammar: Grammar, deprecate_eof: bool, cache_metadata: bool) -> Self {
        let phase = match grammar {
            Grammar::Query => Phase::Result,
            Grammar::Prepare => Phase::PrepareHead,
            Grammar::Fetch => Phase::Rows,
            Grammar::FieldList => Phase::Fields,
            Grammar::Statistics => Phase::Text,
            Grammar::Ok | Grammar::SetOption => Phase::Plain,
            Grammar::None => Phase::Finished,
        };
        let multiple = grammar == Grammar::Query;
        Self { phase, deprecate_eof, cache_metadata, multiple, owed: 0, continued: false, rows: 0 }
    }

    /// How many rows have been passed, over all results.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Walks over `bytes` and returns how many of them may be passed on as they are, and what follows those.
    ///
    /// The caller uses up these bytes, and the whole packet that [`Stop`] names, and shows what comes after them in
    /// the next call. The bytes passed on may end inside a packet. Bytes left over with [`Stop::NeedMore`] are at
    /// most one packet of [`MAX_END_PACKET_BYTES`].
    ///
    /// # Errors
    ///
    /// [`ResponseError`] when a packet does not fit the grammar; the stream cannot be followed after that.
    pub fn walk(&mut self, bytes: &[u8]) -> Result<(usize, Stop), ResponseError> {
        let mut at = 0;
        loop {
            at = self.pass(bytes, at);
            if self.is_inside_packet() {
                return Ok((at, Stop::NeedMore));
            }
            if self.phase == Phase::Finished {
                return Ok((at, Stop::Done));
            }
            let Some(frame) = Frame::parse(&bytes[at..])? else { return Ok((at, Stop::NeedMore)) };
            let step = self.step(frame)?;
            if step == Step::Pass {
                self.count();
                self.begin(frame.header);
                continue;
            }
            let Some(payload) = frame.whole()? else { return Ok((at, Stop::NeedMore)) };
            if let Some(stop) = self.take(step, payload)? {
                return Ok((at, stop));
            }
            at += frame.header.frame_len();
        }
    }

    /// Steps over what needs no look: the rest of a packet, its continuations, and ordinary rows.
    fn pass(&mut self, bytes: &[u8], mut at: usize) -> usize {
        loop {
            let shown = self.owed.min(bytes.len() - at);
            self.owed -= shown;
            at += shown;
            match Header::parse(&bytes[at..]) {
                Some(header) if self.continued => self.begin(header),
                Some(_) | None => break,
            }
        }
        if self.phase == Phase::Rows && !self.is_inside_packet() { self.pass_rows(bytes, at) } else { at }
    }

    /// The hot loop: steps over rows as long as they are ordinary, and leaves all else to [`Self::walk`].
    fn pass_rows(&mut self, bytes: &[u8], mut at: usize) -> usize {
        while let Some(&[low, middle, high, _sequence, first]) =
            bytes.get(at..).and_then(|rest| rest.first_chunk())
        {
            let len = u32::from_le_bytes([low, middle, high, 0]) as usize;
            if first >= EofPacket::HEADER || len == 0 || len == MAX_PAYLOAD {
                return at;
            }
            self.rows += 1;
            at += HEADER_LEN + len;
        }
        self.owed = at.saturating_sub(bytes.len());
        at - self.owed
    }

    fn begin(&mut self, header: Header) {
        self.owed = header.frame_len();
        self.continued = header.continues();
    }

    fn is_inside_packet(&self) -> bool {
        self.owed > 0 || self.continued
    }

    /// Takes note of a packet that is passed on.
    fn count(&mut self) {
        match self.phase {
            Phase::Rows => self.rows += 1,
            Phase::Definitions(0 | 1, section) => self.end_definitions(section),
            Phase::Definitions(left, section) => self.phase = Phase::Definitions(left - 1, section),
            Phase::Text => self.phase = Phase::Finished,
            Phase::Fields
            | Phase::Result
            | Phase::FileAnswer
            | Phase::Plain
            | Phase::PrepareHead
            | Phase::DefinitionsEnd(_)
            | Phase::Finished => {}
        }
    }

    /// Expects the first of `count` column definitions.
    fn expect_definitions(&mut self, count: u32, section: Section) {
        self.phase = if count == 0 { section.start() } else { Phase::Definitions(count, section) };
    }

    /// Expects what stands between the last column definition and the next section.
    fn end_definitions(&mut self, section: Section) {
        self.phase = if self.deprecate_eof { section.start() } else { Phase::DefinitionsEnd(section) };
    }

    fn step(&self, frame: Frame<'_>) -> Result<Step, ResponseError> {
        let len = frame.header.len;
        let unexpected = |expected| Err(Malformed::Header { expected, got: frame.first });
        match (self.phase, frame.first) {
            (_, ErrPacket::HEADER) => Ok(Step::End(EndKind::Err)),
            (Phase::Result | Phase::FileAnswer | Phase::Plain, OkPacket::HEADER) => {
                Ok(Step::End(EndKind::Ok))
            }
            (Phase::Result, LOCAL_INFILE) => Ok(Step::LocalInfile),
            (Phase::Result, EofPacket::HEADER) => unexpected("OK, ERR or a column count"),
            (Phase::Result, _count) => Ok(Step::ColumnCount),
            (Phase::FileAnswer, _) => unexpected("OK or ERR after a file"),
            (Phase::Plain, EofPacket::HEADER) => Ok(Step::End(eof_kind(len))),
            (Phase::Plain, _) => unexpected("OK, EOF or ERR"),
            (Phase::PrepareHead, OkPacket::HEADER) => Ok(Step::PrepareOk),
            (Phase::PrepareHead, _) => unexpected("the head of a prepared statement"),
            (Phase::Definitions(..), EofPacket::HEADER) => unexpected("a column definition"),
            (Phase::DefinitionsEnd(section), EofPacket::HEADER) => Ok(Step::DefinitionsEnd(section)),
            (Phase::DefinitionsEnd(_), _) => unexpected("EOF after column definitions"),
            (Phase::Rows | Phase::Fields, EofPacket::HEADER) if self.ends_rows(len) => {
                Ok(Step::End(eof_kind(len)))
            }
            (Phase::Definitions(..) | Phase::Rows | Phase::Fields | Phase::Text, _) => Ok(Step::Pass),
            (Phase::Finished, _) => unexpected("no more packets"),
        }
    }

    /// Whether a packet that starts with 0xfe ends the rows. Otherwise it is a row whose first value is longer
    /// than 16 MiB, and so is the packet.
    fn ends_rows(&self, len: usize) -> bool {
        if self.deprecate_eof { len < MAX_PAYLOAD } else { len < SHORTEST_LONG_VALUE }
    }

    /// Looks into a whole packet; none when it is to be passed on like any other.
    fn take(&mut self, step: Step, payload: &[u8]) -> Result<Option<Stop>, ResponseError> {
        let len = HEADER_LEN + payload.len();
        match step {
            Step::Pass => Ok(None),
            Step::ColumnCount => self.on_column_count(payload).map(|()| None),
            Step::DefinitionsEnd(section) => self.on_definitions_end(section, payload),
            Step::PrepareOk => {
                let head = PrepareOk::parse(payload)?;
                self.expect_definitions(head.parameters.into(), Section::Columns(head.columns));
                Ok(Some(Stop::PrepareOk { len }))
            }
            Step::LocalInfile => {
                self.phase = Phase::FileAnswer;
                Ok(Some(Stop::LocalInfile { len }))
            }
            Step::End(kind) => self.on_end(kind, payload),
        }
    }

    fn on_column_count(&mut self, payload: &[u8]) -> Result<(), ResponseError> {
        let mut reader = Reader::new(payload);
        let count = reader.lenenc()?;
        // A count of more than three bytes begins like an EOF packet and has been refused as one.
        let columns = u32::try_from(count)
            .map_err(|_| Malformed::Field { expected: "at most 16777215 columns", got: count })?;
        let described = !self.cache_metadata || reader.u8()? != 0;
        if !reader.is_empty() {
            return Err(Malformed::Trailing { what: "a column count", len: reader.remaining() });
        }
        if described {
            self.expect_definitions(columns, Section::Rows);
        } else {
            self.end_definitions(Section::Rows);
        }
        Ok(())
    }

    /// An open cursor has no rows here: they follow in COM_STMT_FETCH. (With DEPRECATE_EOF the packet in this place
    /// is the end of the rows, there are just none before it.)
    fn on_definitions_end(
        &mut self,
        section: Section,
        payload: &[u8],
    ) -> Result<Option<Stop>, ResponseError> {
        let eof = EofPacket::parse(payload)?;
        let cursor = section == Section::Rows && eof.status.contains(Status::CURSOR_EXISTS);
        self.phase = section.start();
        if cursor || self.phase == Phase::Finished {
            return Ok(Some(self.end(EndKind::Eof, eof.status, payload.len())));
        }
        Ok(None)
    }

    fn on_end(&mut self, kind: EndKind, payload: &[u8]) -> Result<Option<Stop>, ResponseError> {
        let mut reader = Reader::new(payload);
        let _header = reader.u8()?;
        let status = match kind {
            EndKind::Err if reader.u16()? == ErrPacket::PROGRESS => return Ok(None),
            EndKind::Err => Status::empty(),
            EndKind::Ok | EndKind::OkEof => {
                let _affected_rows = reader.lenenc()?;
                let _last_insert_id = reader.lenenc()?;
                Status::from_bits_retain(reader.u16()?)
            }
            EndKind::Eof => EofPacket::parse(payload)?.status,
        };
        Ok(Some(self.end(kind, status, payload.len())))
    }

    fn end(&mut self, kind: EndKind, status: Status, len: usize) -> Stop {
        let more = self.multiple && status.contains(Status::MORE_RESULTS);
        self.phase = if more { Phase::Result } else { Phase::Finished };
        Stop::End { len: HEADER_LEN + len, kind, last: !more }
    }
}

impl Section {
    fn start(self) -> Phase {
        match self {
            Self::Rows => Phase::Rows,
            Self::Columns(0) | Self::Nothing => Phase::Finished,
            Self::Columns(columns) => Phase::Definitions(columns.into(), Self::Nothing),
        }
    }
}

/// The start of a packet: its header, its first byte, and what there is of it.
#[derive(Clone, Copy, Debug)]
struct Frame<'a> {
    header: Header,
    first: u8,
    /// All bytes after the header, of this packet and the next.
    rest: &'a [u8],
}

impl<'a> Frame<'a> {
    /// None when the first byte is not there yet; no packet of a server is empty.
    fn parse(bytes: &'a [u8]) -> Result<Option<Self>, ResponseError> {
        let Some(header) = Header::parse(bytes) else { return Ok(None) };
        if header.len == 0 {
            return Err(Malformed::Short { wanted: 1, left: 0 });
        }
        let rest = &bytes[HEADER_LEN..];
        Ok(rest.first().map(|first| Self { header, first: *first, rest }))
    }

    /// The payload of a packet that is looked into; none when its end is not there yet.
    fn whole(&self) -> Result<Option<&'a [u8]>, ResponseError> {
        let len = self.header.frame_len();
        if len > MAX_END_PACKET_BYTES {
            let limit = MAX_END_PACKET_BYTES;
            return Err(Malformed::TooLong { what: "a packet that ends a result", len: len as u64, limit });
        }
        Ok(self.rest.get(..self.header.len))
    }
}

/// With DEPRECATE_EOF an OK packet stands in for EOF; only the length tells a plain EOF that a server sends anyway.
fn eof_kind(len: usize) -> EndKind {
    if len < SHORTEST_OK { EndKind::Eof } else { EndKind::OkEof }
}

const LOCAL_INFILE: u8 = 0xfb;
/// First byte, two numbers, status, warnings.
const SHORTEST_OK: usize = 7;
/// A length prefix of 0xfe has eight bytes after it.
const SHORTEST_LONG_VALUE: usize = 9;

#[cfg(test)]
mod tests;
