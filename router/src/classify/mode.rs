//! What the meaning of a statement's text depends on, besides the text.

use std::collections::BTreeSet;

use crate::intent::Flavour;

/// The session state that changes how text is read. The default is a fresh session.
#[allow(clippy::struct_excessive_bools, reason = "each is one independent switch of the server")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Mode {
    pub flavour: Flavour,
    /// sql_mode NO_BACKSLASH_ESCAPES: a backslash in a string is a backslash.
    pub no_backslash_escapes: bool,
    /// sql_mode ANSI_QUOTES: `"` quotes names.
    pub ansi_quotes: bool,
    /// sql_mode ORACLE of MariaDB.
    pub oracle: bool,
    /// sql_mode IGNORE_SPACE or the capability of that name: `count (x)` calls the built-in function.
    pub ignore_space: bool,
    /// The client's character set has 0x5C as a second byte: gbk, gb18030, big5, sjis, cp932.
    pub unsafe_charset: bool,
    /// More than one statement in a packet is allowed.
    pub multi_statements: bool,
    /// False after a SET of sql_mode by expression, until the server has told the new value.
    pub sql_mode_known: bool,
    /// The session may have temporary tables.
    pub temporary_tables: bool,
    /// The current schema is one that describes the server: information_schema, performance_schema, sys, mysql.
    pub system_schema: bool,
}

/// What the primary's catalogue says about stored programs. The default knows nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Catalogue {
    /// Differs between any two catalogues with different content.
    pub version: u64,
    /// Lower-case names of stored functions.
    pub functions: BTreeSet<Box<[u8]>>,
    /// Lower-case names of views that reach a stored function.
    pub views: BTreeSet<Box<[u8]>>,
}

impl Default for Mode {
    fn default() -> Self {
        Self {
            flavour: Flavour::default(),
            no_backslash_escapes: false,
            ansi_quotes: false,
            oracle: false,
            ignore_space: false,
            unsafe_charset: false,
            multi_statements: false,
            sql_mode_known: true,
            temporary_tables: false,
            system_schema: false,
        }
    }
}

impl Mode {
    /// Takes over what a value of sql_mode says about reading text. Combinations such as ANSI and ORACLE stand for
    /// their parts, as on the servers.
    pub fn apply_sql_mode(&mut self, sql_mode: &str) {
        let has = |names: &[&str]| {
            sql_mode.split(',').any(|one| names.iter().any(|name| one.trim().eq_ignore_ascii_case(name)))
        };
        let quotes = ["ANSI", "ORACLE", "DB2", "MAXDB", "MSSQL", "POSTGRESQL"];
        self.no_backslash_escapes = has(&["NO_BACKSLASH_ESCAPES"]);
        self.ansi_quotes = has(&["ANSI_QUOTES"]) || has(&quotes);
        self.ignore_space = has(&["IGNORE_SPACE"]) || has(&quotes);
        self.oracle = has(&["ORACLE"]);
        self.sql_mode_known = true;
    }

    /// All switches as one number, for cache keys.
    pub(super) fn bits(&self) -> u16 {
        let switches = [
            self.flavour == Flavour::Mysql,
            self.no_backslash_escapes,
            self.ansi_quotes,
            self.oracle,
            self.ignore_space,
            self.unsafe_charset,
            self.multi_statements,
            self.sql_mode_known,
            self.temporary_tables,
            self.system_schema,
        ];
        switches.iter().enumerate().fold(0, |bits, (at, on)| bits | (u16::from(*on) << at))
    }
}
