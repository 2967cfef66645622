//! The flag words of the protocol: capabilities of both families and the server status.
//!
//! Bits without a name are kept, so that a word can be passed on as it came.

use bitflags::bitflags;

bitflags! {
    /// What a client or server can do (`CLIENT_*` in MySQL's `include/mysql_com.h`).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct Capabilities: u32 {
        /// Also `CLIENT_MYSQL`: MariaDB leaves it out to say that [`MariadbCapabilities`] are valid.
        const LONG_PASSWORD = 1 << 0;
        const FOUND_ROWS = 1 << 1;
        const LONG_FLAG = 1 << 2;
        const CONNECT_WITH_DB = 1 << 3;
        const NO_SCHEMA = 1 << 4;
        const COMPRESS = 1 << 5;
        const ODBC = 1 << 6;
        const LOCAL_FILES = 1 << 7;
        const IGNORE_SPACE = 1 << 8;
        const PROTOCOL_41 = 1 << 9;
        const INTERACTIVE = 1 << 10;
        const SSL = 1 << 11;
        const IGNORE_SIGPIPE = 1 << 12;
        const TRANSACTIONS = 1 << 13;
        const RESERVED = 1 << 14;
        const SECURE_CONNECTION = 1 << 15;
        const MULTI_STATEMENTS = 1 << 16;
        const MULTI_RESULTS = 1 << 17;
        const PS_MULTI_RESULTS = 1 << 18;
        const PLUGIN_AUTH = 1 << 19;
        const CONNECT_ATTRS = 1 << 20;
        const PLUGIN_AUTH_LENENC_CLIENT_DATA = 1 << 21;
        const CAN_HANDLE_EXPIRED_PASSWORDS = 1 << 22;
        const SESSION_TRACK = 1 << 23;
        const DEPRECATE_EOF = 1 << 24;
        const OPTIONAL_RESULTSET_METADATA = 1 << 25;
        const ZSTD_COMPRESSION_ALGORITHM = 1 << 26;
        const QUERY_ATTRIBUTES = 1 << 27;
        const MULTI_FACTOR_AUTHENTICATION = 1 << 28;
        const SSL_VERIFY_SERVER_CERT = 1 << 30;
        const REMEMBER_OPTIONS = 1 << 31;
    }
}

bitflags! {
    /// The upper 32 capability bits that MariaDB adds (`MARIADB_CLIENT_*`), shifted down.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct MariadbCapabilities: u32 {
        const PROGRESS = 1 << 0;
        const COM_MULTI = 1 << 1;
        const STMT_BULK_OPERATIONS = 1 << 2;
        const EXTENDED_METADATA = 1 << 3;
        const CACHE_METADATA = 1 << 4;
        const BULK_UNIT_RESULTS = 1 << 5;
    }
}

bitflags! {
    /// What OK and EOF packets say about the session (`SERVER_STATUS_*`).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct Status: u16 {
        const IN_TRANS = 0x0001;
        const AUTOCOMMIT = 0x0002;
        const MORE_RESULTS = 0x0008;
        const NO_GOOD_INDEX_USED = 0x0010;
        const NO_INDEX_USED = 0x0020;
        const CURSOR_EXISTS = 0x0040;
        const LAST_ROW_SENT = 0x0080;
        const DB_DROPPED = 0x0100;
        const NO_BACKSLASH_ESCAPES = 0x0200;
        const METADATA_CHANGED = 0x0400;
        const QUERY_WAS_SLOW = 0x0800;
        const PS_OUT_PARAMS = 0x1000;
        const IN_TRANS_READONLY = 0x2000;
        const SESSION_STATE_CHANGED = 0x4000;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The words that a MariaDB 10.11 greeting carries.
    #[test]
    fn words_keep_their_bits() {
        let word = 0x81bf_f7fe;
        let capabilities = Capabilities::from_bits_retain(word);
        assert_eq!(capabilities.bits(), word);
        assert!(!capabilities.contains(Capabilities::LONG_PASSWORD));
        assert!(capabilities.contains(Capabilities::DEPRECATE_EOF | Capabilities::SESSION_TRACK));
        let mariadb = MariadbCapabilities::from_bits_retain(0x1d);
        assert!(mariadb.contains(MariadbCapabilities::STMT_BULK_OPERATIONS));
        assert_eq!(Status::from_bits_retain(0x8002) - Status::AUTOCOMMIT, Status::from_bits_retain(0x8000));
    }
}
