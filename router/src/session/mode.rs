//! What the settings say about how text is read.

use crate::classify::Mode;
use crate::intent::Flavour;

/// How the text of a session with this sql_mode is read; a mode whose text does not tell is marked unknown.
pub fn mode_of(flavour: Flavour, sql_mode: &str) -> Mode {
    let mut mode = Mode { flavour, ..Mode::default() };
    mode.sql_mode_known = apply_sql_mode(&mut mode, &sql_mode.to_ascii_uppercase());
    mode
}

/// Takes the switches of an sql_mode from its text. False when the text does not tell.
pub(super) fn apply_sql_mode(mode: &mut Mode, text: &str) -> bool {
    let words = || text.split(',').map(str::trim).filter(|word| !word.is_empty());
    if words().any(|word| !word.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_')) {
        return false;
    }
    let combined = |word: &str| match mode.flavour {
        Flavour::Mysql => word == "ANSI",
        Flavour::Mariadb => {
            matches!(word, "ANSI" | "ORACLE" | "MSSQL" | "DB2" | "POSTGRESQL" | "MAXDB")
        }
    };
    let has = |name: &str| words().any(|word| word == name);
    let (ansi_quotes, ignore_space) =
        (has("ANSI_QUOTES") || words().any(combined), has("IGNORE_SPACE") || words().any(combined));
    mode.no_backslash_escapes = has("NO_BACKSLASH_ESCAPES");
    mode.ansi_quotes = ansi_quotes;
    mode.ignore_space = ignore_space;
    mode.oracle = mode.flavour == Flavour::Mariadb && has("ORACLE");
    true
}

/// Whether a character can hold 0x5C as its second byte.
pub(super) fn is_unsafe_charset(charset: &str) -> bool {
    matches!(charset, "gbk" | "gb18030" | "big5" | "sjis" | "cp932")
}

/// The same of `NAMES 'charset' COLLATE ...`.
pub(super) fn is_unsafe_names(element: &str) -> bool {
    element.split('\'').nth(1).is_none_or(is_unsafe_charset)
}

/// The same of a collation's number, as a login carries it: MySQL's numbers, and MariaDB's NO PAD ones.
pub(super) fn is_unsafe_collation(id: u16) -> bool {
    matches!(
        id,
        1 | 84 | 13 | 88 | 28 | 87 | 95 | 96 | 248
            ..=250 // big5, sjis, gbk, cp932, gb18030
            | 1025 | 1108 | 1037 | 1112 | 1052 | 1111 | 1119 | 1120
    )
}

/// Whether a schema describes the server instead of holding data.
pub(super) fn is_system_schema(name: &[u8]) -> bool {
    SYSTEM_SCHEMAS.iter().any(|system| name.eq_ignore_ascii_case(system))
}

const SYSTEM_SCHEMAS: [&[u8]; 4] = [b"information_schema", b"performance_schema", b"mysql", b"sys"];
