//! What a client asks for: the first packet of each exchange.

use crate::capability::Capabilities;
use crate::codec::{Malformed, Reader};
use crate::response::Grammar;

mod bulk;
mod execute;
mod value;

pub use bulk::BulkBody;
pub use execute::{Execute, ExecuteBody};
pub use value::{Attribute, Attributes};

/// A command with its arguments, borrowed from the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command<'a> {
    Quit,
    /// The schema's name.
    InitDb(&'a [u8]),
    Query(Query<'a>),
    /// A table, and a pattern for its columns behind a zero byte. Servers do not insist on that byte, nor do we.
    FieldList(&'a [u8]),
    /// What to flush, as bits.
    Refresh(u8),
    Shutdown,
    Statistics,
    ProcessInfo,
    /// The connection id to end.
    ProcessKill(u32),
    Debug,
    Ping,
    /// All after the command byte; read by the authentication.
    ChangeUser(&'a [u8]),
    BinlogDump(&'a [u8]),
    BinlogDumpGtid(&'a [u8]),
    RegisterSlave(&'a [u8]),
    TableDump(&'a [u8]),
    /// The statement's text.
    StmtPrepare(&'a [u8]),
    StmtExecute(Execute<'a>),
    StmtSendLongData {
        id: u32,
        param: u16,
        data: &'a [u8],
    },
    StmtClose(u32),
    StmtReset(u32),
    /// 0 allows several statements in one text, 1 forbids them.
    SetOption(u16),
    StmtFetch {
        id: u32,
        rows: u32,
    },
    ResetConnection,
    /// MariaDB: one statement with many rows of parameters.
    StmtBulkExecute {
        id: u32,
        flags: u16,
        /// Types and values, see [`BulkBody`].
        rest: &'a [u8],
    },
    /// The command byte of one that no server knows or that we do not pass on.
    Unknown(u8),
}

/// A statement in text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Query<'a> {
    pub sql: &'a [u8],
    /// MySQL's query attributes; empty without [`Capabilities::QUERY_ATTRIBUTES`].
    pub attributes: Attributes<'a>,
}

impl<'a> Command<'a> {
    /// Reads the payload of a command packet. Of a payload that is continued, the first frame's part will do.
    ///
    /// # Errors
    ///
    /// [`Malformed`] when an argument is cut or a fixed argument has bytes after it.
    pub fn parse(payload: &'a [u8], capabilities: &Capabilities) -> Result<Self, Malformed> {
        let mut reader = Reader::new(payload);
        let byte = reader.u8()?;
        Ok(match byte {
            code::QUIT => Self::Quit,
            code::INIT_DB => Self::InitDb(reader.rest()),
            code::QUERY => Self::Query(Query::parse(&mut reader, *capabilities)?),
            code::FIELD_LIST => Self::FieldList(reader.rest()),
            code::REFRESH => Self::Refresh(reader.u8()?),
            code::SHUTDOWN => Self::Shutdown,
            code::STATISTICS => Self::Statistics,
            code::PROCESS_INFO => Self::ProcessInfo,
            code::PROCESS_KILL => Self::ProcessKill(reader.u32()?),
            code::DEBUG => Self::Debug,
            code::PING => Self::Ping,
            code::CHANGE_USER => Self::ChangeUser(reader.rest()),
            code::BINLOG_DUMP => Self::BinlogDump(reader.rest()),
            code::BINLOG_DUMP_GTID => Self::BinlogDumpGtid(reader.rest()),
            code::REGISTER_SLAVE => Self::RegisterSlave(reader.rest()),
            code::TABLE_DUMP => Self::TableDump(reader.rest()),
            code::STMT_PREPARE => Self::StmtPrepare(reader.rest()),
            code::STMT_EXECUTE => Self::StmtExecute(Execute::parse(&mut reader)?),
            code::STMT_SEND_LONG_DATA => {
                Self::StmtSendLongData { id: reader.u32()?, param: reader.u16()?, data: reader.rest() }
            }
            code::STMT_CLOSE => Self::StmtClose(reader.u32()?),
            code::STMT_RESET => Self::StmtReset(reader.u32()?),
            code::SET_OPTION => Self::SetOption(reader.u16()?),
            code::STMT_FETCH => Self::StmtFetch { id: reader.u32()?, rows: reader.u32()? },
            code::RESET_CONNECTION => Self::ResetConnection,
            code::STMT_BULK_EXECUTE => {
                Self::StmtBulkExecute { id: reader.u32()?, flags: reader.u16()?, rest: reader.rest() }
            }
            unknown => Self::Unknown(unknown),
        })
    }

    /// What a server answers; none for an exchange of its own kind: authentication, and streams of the binary log.
    pub fn grammar(&self) -> Option<Grammar> {
        Some(match self {
            Self::Query(_) | Self::StmtExecute(_) | Self::StmtBulkExecute { .. } | Self::ProcessInfo => {
                Grammar::Query
            }
            Self::StmtPrepare(_) => Grammar::Prepare,
            Self::StmtFetch { .. } => Grammar::Fetch,
            Self::FieldList(_) => Grammar::FieldList,
            Self::Statistics => Grammar::Statistics,
            Self::SetOption(_) => Grammar::SetOption,
            Self::InitDb(_)
            | Self::Refresh(_)
            | Self::Shutdown
            | Self::ProcessKill(_)
            | Self::Debug
            | Self::Ping
            | Self::RegisterSlave(_)
            | Self::StmtReset(_)
            | Self::ResetConnection
            | Self::Unknown(_) => Grammar::Ok,
            Self::Quit | Self::StmtSendLongData { .. } | Self::StmtClose(_) => Grammar::None,
            Self::ChangeUser(_) | Self::BinlogDump(_) | Self::BinlogDumpGtid(_) | Self::TableDump(_) => {
                return None;
            }
        })
    }
}

impl<'a> Query<'a> {
    fn parse(reader: &mut Reader<'a>, capabilities: Capabilities) -> Result<Self, Malformed> {
        let attributes = if capabilities.contains(Capabilities::QUERY_ATTRIBUTES) {
            Attributes::parse(reader)?
        } else {
            Attributes::default()
        };
        Ok(Self { sql: reader.rest(), attributes })
    }
}

/// The first byte of each command's payload (`enum_server_command` in `include/my_command.h`).
pub mod code {
    pub const QUIT: u8 = 0x01;
    pub const INIT_DB: u8 = 0x02;
    pub const QUERY: u8 = 0x03;
    pub const FIELD_LIST: u8 = 0x04;
    pub const REFRESH: u8 = 0x07;
    pub const SHUTDOWN: u8 = 0x08;
    pub const STATISTICS: u8 = 0x09;
    pub const PROCESS_INFO: u8 = 0x0a;
    pub const PROCESS_KILL: u8 = 0x0c;
    pub const DEBUG: u8 = 0x0d;
    pub const PING: u8 = 0x0e;
    pub const CHANGE_USER: u8 = 0x11;
    pub const BINLOG_DUMP: u8 = 0x12;
    pub const TABLE_DUMP: u8 = 0x13;
    pub const REGISTER_SLAVE: u8 = 0x15;
    pub const STMT_PREPARE: u8 = 0x16;
    pub const STMT_EXECUTE: u8 = 0x17;
    pub const STMT_SEND_LONG_DATA: u8 = 0x18;
    pub const STMT_CLOSE: u8 = 0x19;
    pub const STMT_RESET: u8 = 0x1a;
    pub const SET_OPTION: u8 = 0x1b;
    pub const STMT_FETCH: u8 = 0x1c;
    pub const BINLOG_DUMP_GTID: u8 = 0x1e;
    pub const RESET_CONNECTION: u8 = 0x1f;
    /// MariaDB only.
    pub const STMT_BULK_EXECUTE: u8 = 0xfa;
}

#[cfg(test)]
mod tests;
