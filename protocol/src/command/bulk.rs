//! MariaDB's COM_STMT_BULK_EXECUTE: one statement, many rows of parameters.

use std::ops::Range;

use super::value::take_value;
use crate::codec::{Malformed, Reader, put_u16};

/// The parameters of a bulk execution: types, and behind them the rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BulkBody<'a> {
    pub types_sent: bool,
    /// Where in the payload the types lie or, when there are none, belong.
    pub types: Range<usize>,
    /// All bytes behind the types.
    rows: &'a [u8],
}

impl<'a> BulkBody<'a> {
    /// Where in the payload the flags lie.
    pub const FLAGS_AT: usize = 5;
    /// Where in the payload the types or the rows start.
    pub const REST_AT: usize = 7;
    /// The flag that asks for an answer per row, where [`BULK_UNIT_RESULTS`] is agreed.
    ///
    /// [`BULK_UNIT_RESULTS`]: crate::capability::MariadbCapabilities::BULK_UNIT_RESULTS
    pub const SEND_UNIT_RESULTS: u16 = 64;
    /// The flag that says that types are sent.
    pub const SEND_TYPES: u16 = 128;

    /// Reads what follows id and flags.
    ///
    /// # Errors
    ///
    /// [`Malformed`] when it is cut before the end of the types.
    pub fn parse(flags: u16, rest: &'a [u8], parameter_count: u16) -> Result<Self, Malformed> {
        let mut reader = Reader::new(rest);
        let types_sent = flags & Self::SEND_TYPES != 0;
        let len = if types_sent { TYPE_LEN * usize::from(parameter_count) } else { 0 };
        reader.take(len)?;
        Ok(Self { types_sent, types: Self::REST_AT..Self::REST_AT + len, rows: reader.rest() })
    }

    /// Counts the rows by walking over their values; `types` as sent now or before.
    ///
    /// # Errors
    ///
    /// [`Malformed`] when a value is cut, an indicator unknown, or there is no type for a value.
    pub fn count_rows(&self, types: &[u8]) -> Result<u64, Malformed> {
        let mut reader = Reader::new(self.rows);
        let mut rows = 0;
        if types.is_empty() && !reader.is_empty() {
            return Err(Malformed::Trailing {
                what: "a bulk execution without types",
                len: reader.remaining(),
            });
        }
        while !reader.is_empty() {
            let mut kinds = Reader::new(types);
            while !kinds.is_empty() {
                take_indicated(&mut reader, kinds.u16()?)?;
            }
            rows += 1;
        }
        Ok(rows)
    }

    /// Appends `payload` to `out` with `types` in their place and the flag for them set.
    ///
    /// For a server that sees the statement for the first time while the client leaves the types out. `payload` is
    /// the one that this body has been read from, `flags` are its flags.
    pub fn write_with_types(&self, payload: &[u8], flags: u16, types: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(&payload[..Self::FLAGS_AT]);
        put_u16(out, flags | Self::SEND_TYPES);
        out.extend_from_slice(types);
        out.extend_from_slice(&payload[self.types.end..]);
    }
}

/// Takes one value of a row, an indicator and, unless that stands for a value, the value.
fn take_indicated(reader: &mut Reader<'_>, kind: u16) -> Result<(), Malformed> {
    match reader.u8()? {
        INDICATOR_NONE => take_value(reader, kind).map(|_value| ()),
        INDICATOR_NULL | INDICATOR_DEFAULT | INDICATOR_IGNORE => Ok(()),
        other => Err(Malformed::Field { expected: "an indicator from 0 to 3", got: other.into() }),
    }
}

const TYPE_LEN: usize = 2;
const INDICATOR_NONE: u8 = 0;
const INDICATOR_NULL: u8 = 1;
const INDICATOR_DEFAULT: u8 = 2;
const INDICATOR_IGNORE: u8 = 3;
