//! Where executions of prepared statements hold the types of their parameters, and how types come into one that
//! leaves them out: a client sends them once, and the connection that runs the next execution may not have seen them.

use pointsman_protocol::capability::Capabilities;
use pointsman_protocol::codec::Malformed;
use pointsman_protocol::command::{BulkBody, Command, ExecuteBody};

/// The parameter block of an execution, up to the values.
#[derive(Debug)]
pub(super) enum Execution {
    /// COM_STMT_EXECUTE.
    One(ExecuteBody),
    /// MariaDB's COM_STMT_BULK_EXECUTE, with its flags.
    Many(BulkBody, u16),
}

impl Execution {
    /// Reads a payload of a statement with this many parameters; none for another command.
    ///
    /// # Errors
    ///
    /// [`Malformed`] when it is cut before the end of the types.
    pub(super) fn parse(
        payload: &[u8],
        parameters: u16,
        capabilities: Capabilities,
    ) -> Result<Option<Self>, Malformed> {
        let command = Command::parse(payload, &capabilities)?;
        if let Command::StmtExecute(execute) = command {
            return ExecuteBody::parse(&execute, parameters, capabilities).map(Self::One).map(Some);
        }
        let Command::StmtBulkExecute { flags, rest, .. } = command else { return Ok(None) };
        Ok(Some(Self::Many(BulkBody::parse(flags, rest, parameters)?, flags)))
    }

    /// The types that it brings; none where it leaves them out.
    pub(super) fn types<'a>(&self, payload: &'a [u8]) -> Option<&'a [u8]> {
        let (are_sent, place) = match self {
            Self::One(body) => (body.new_params_bound, &body.types),
            Self::Many(body, _) => (body.types_sent, &body.types),
        };
        are_sent.then(|| payload.get(place.clone())).flatten()
    }

    /// The payload that it was read from with `types` in their place; none where it brings its own.
    pub(super) fn with_types(&self, payload: &[u8], types: &[u8]) -> Option<Vec<u8>> {
        if self.types(payload).is_some() {
            return None;
        }
        let mut with_types = Vec::with_capacity(payload.len() + types.len());
        match self {
            Self::One(body) => body.write_with_types(payload, types, &mut with_types),
            Self::Many(body, flags) => body.write_with_types(payload, *flags, types, &mut with_types),
        }
        Some(with_types)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two parameters: BIGINT and a string.
    const TYPES: [u8; 4] = [8, 0, 0xfd, 0];

    #[track_caller]
    fn check(with: &[u8], without: &[u8]) {
        let parse = |payload| Execution::parse(payload, 2, Capabilities::PROTOCOL_41);
        let bringing = parse(with).unwrap().unwrap();
        assert_eq!(bringing.types(with), Some(&TYPES[..]));
        assert_eq!(bringing.with_types(with, &[9; 4]), None, "its own types count");
        let lacking = parse(without).unwrap().unwrap();
        assert_eq!(lacking.types(without), None);
        assert_eq!(lacking.with_types(without, &TYPES).as_deref(), Some(with));
        let types_at = with.windows(TYPES.len()).position(|piece| piece == TYPES).expect("the types");
        assert!(parse(&with[..types_at + TYPES.len() - 1]).is_err(), "cut within the types");
    }

    #[test]
    fn single_executions() {
        let head = [0x17, 7, 0, 0, 0, 0, 1, 0, 0, 0, 0];
        let values = [1, 0, 0, 0, 0, 0, 0, 0, 2, b'a', b'b'];
        check(&[&head[..], &[1], &TYPES, &values].concat(), &[&head[..], &[0], &values].concat());
    }

    #[test]
    fn bulk_executions() {
        let values = [0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, b'a'];
        let with = [&[0xfa, 7, 0, 0, 0, 128, 0][..], &TYPES, &values].concat();
        check(&with, &[&[0xfa, 7, 0, 0, 0, 0, 0][..], &values].concat());
    }

    #[test]
    fn other_commands() {
        let parsed = Execution::parse(&[0x1a, 7, 0, 0, 0], 2, Capabilities::PROTOCOL_41);
        assert!(matches!(parsed, Ok(None)));
    }
}
