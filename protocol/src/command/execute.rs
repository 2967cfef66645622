//! COM_STMT_EXECUTE, and how parameter types that a server has not seen yet are put into it.

use std::ops::Range;

use super::value::{bounded_count, take_type};
use crate::capability::Capabilities;
use crate::codec::{Malformed, Reader};

/// The fixed head of COM_STMT_EXECUTE and what follows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Execute<'a> {
    pub id: u32,
    /// Cursor type and [`Execute::PARAMETER_COUNT_AVAILABLE`].
    pub flags: u8,
    /// Always 1.
    pub iterations: u32,
    /// Null bitmap, types and values; needs the statement's number of parameters to be read.
    pub rest: &'a [u8],
}

impl<'a> Execute<'a> {
    /// Where the payload holds the four bytes of the statement id.
    pub const ID_AT: usize = 1;
    /// Where in the payload [`Execute::rest`] starts.
    pub const REST_AT: usize = 10;
    /// The flag that says that the number of parameters is sent (MySQL's query attributes).
    pub const PARAMETER_COUNT_AVAILABLE: u8 = 8;
    /// The flags that ask for a cursor: read only, for update, scrollable.
    pub const CURSOR_FLAGS: u8 = 1 | 2 | 4;

    pub(super) fn parse(reader: &mut Reader<'a>) -> Result<Self, Malformed> {
        Ok(Self { id: reader.u32()?, flags: reader.u8()?, iterations: reader.u32()?, rest: reader.rest() })
    }

    /// Whether the rows are to stay on the server for COM_STMT_FETCH.
    pub fn wants_cursor(&self) -> bool {
        self.flags & Self::CURSOR_FLAGS != 0
    }
}

/// The parameter block of COM_STMT_EXECUTE, up to the values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecuteBody {
    /// How many parameters the packet carries, query attributes included.
    pub parameters: usize,
    /// Types are sent; otherwise the server goes on with those of the execution before.
    pub new_params_bound: bool,
    /// Where in the payload the types (with names where those are sent) lie or, when there are none, belong.
    pub types: Range<usize>,
}

impl ExecuteBody {
    /// Reads the block behind the fixed head.
    ///
    /// # Errors
    ///
    /// [`Malformed`] when it is cut before the end of the types. The values are the server's to check.
    pub fn parse(
        execute: &Execute<'_>,
        parameter_count: u16,
        capabilities: Capabilities,
    ) -> Result<Self, Malformed> {
        let mut reader = Reader::new(execute.rest);
        let at = |reader: &Reader<'_>| Execute::REST_AT + execute.rest.len() - reader.remaining();
        // Servers read the number whenever there may be one, the flag counts only for statements without parameters.
        let named = capabilities.contains(Capabilities::QUERY_ATTRIBUTES)
            && (parameter_count > 0 || execute.flags & Execute::PARAMETER_COUNT_AVAILABLE != 0);
        let parameters = if named { bounded_count(reader.lenenc()?)? } else { usize::from(parameter_count) };
        if parameters == 0 {
            let end = at(&reader);
            return Ok(Self { parameters, new_params_bound: false, types: end..end });
        }
        reader.take(parameters.div_ceil(8))?;
        let new_params_bound = reader.u8()? != 0;
        let start = at(&reader);
        if new_params_bound {
            for _ in 0..parameters {
                take_type(&mut reader, named)?;
            }
        }
        Ok(Self { parameters, new_params_bound, types: start..at(&reader) })
    }

    /// Appends `payload` to `out` with `types` in their place and the flag in front of them set.
    ///
    /// For a server that sees the statement for the first time while the client leaves the types out. `payload` is
    /// the one that this block has been read from.
    pub fn write_with_types(&self, payload: &[u8], types: &[u8], out: &mut Vec<u8>) {
        if self.parameters == 0 {
            out.extend_from_slice(payload);
            return;
        }
        out.extend_from_slice(&payload[..self.types.start - 1]);
        out.push(1);
        out.extend_from_slice(types);
        out.extend_from_slice(&payload[self.types.end..]);
    }
}
