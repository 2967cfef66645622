//! MariaDB's COM_STMT_BULK_EXECUTE: one statement, many rows of parameters.

use std::ops::Range;

use crate::codec::{Malformed, Reader, put_u16};

/// The parameters of a bulk execution, up to the values: the rows behind the types are the server's to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BulkBody {
    pub types_sent: bool,
    /// Where in the payload the types lie or, when there are none, belong.
    pub types: Range<usize>,
}

impl BulkBody {
    /// Where in the payload the flags lie.
    pub const FLAGS_AT: usize = 5;
    /// Where in the payload the types or the rows start.
    pub const REST_AT: usize = 7;
    /// The flag that says that types are sent.
    pub const SEND_TYPES: u16 = 128;

    /// Reads what follows id and flags.
    ///
    /// # Errors
    ///
    /// [`Malformed`] when it is cut before the end of the types.
    pub fn parse(flags: u16, rest: &[u8], parameter_count: u16) -> Result<Self, Malformed> {
        let types_sent = flags & Self::SEND_TYPES != 0;
        let len = if types_sent { TYPE_LEN * usize::from(parameter_count) } else { 0 };
        Reader::new(rest).take(len)?;
        Ok(Self { types_sent, types: Self::REST_AT..Self::REST_AT + len })
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

const TYPE_LEN: usize = 2;
