//! The forms of comments, and which of them servers execute.

use crate::intent::Flavour;

/// What begins at a `/`, `#` or `-`. Lengths are in bytes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Comment {
    /// No comment.
    None,
    /// A comment for some character sets only: `--` before a byte that may be white space.
    Doubtful,
    /// `# ...` or `-- ...`, up to the end of the line.
    Line(usize),
    /// `/* ... */` in full; 0 where it does not end.
    Plain(usize),
    /// The opening of an executable comment that every supported version of the flavour executes.
    Code(usize),
    /// An executable comment in full that no version executes; 0 where it does not end.
    Skipped(usize),
    /// The opening of an executable comment that some versions execute.
    Unsure(usize),
}

/// MariaDB skips what MySQL 5.7 and later added (`MYSQL_VERSION_ID` check in sql/sql_lex.cc).
const MARIADB_SKIPS: std::ops::RangeInclusive<u32> = 50_700..=99_999;
/// Every supported MariaDB is at least this version, and every supported MySQL at least 8.0.
const OLDEST_MARIADB: u32 = 100_500;
const OLDEST_MYSQL: u32 = 80_000;
/// Dump programs hide text from every server behind versions from here on.
const NEVER: u32 = 99_000;
const NEVER_SIX_DIGITS: u32 = 990_000;

const DIRECTIVE: &[u8] = b"pointsman:";

impl Comment {
    /// What begins at the first byte of `text`.
    pub(super) fn at(text: &[u8], flavour: Flavour) -> Self {
        match text {
            [b'#', ..] => Self::Line(line_length(text)),
            [b'-', b'-', rest @ ..] => match rest.first() {
                None | Some(0..=0x20 | 0x7f) => Self::Line(line_length(text)),
                Some(0x80..) => Self::Doubtful,
                Some(_) => Self::None,
            },
            [b'/', b'*', b'!', rest @ ..] => Self::executable(text, rest, 3, flavour, false),
            [b'/', b'*', b'M', b'!', rest @ ..] if flavour == Flavour::Mariadb => {
                Self::executable(text, rest, 4, flavour, true)
            }
            [b'/', b'*', ..] => Self::Plain(block_length(text)),
            _ => Self::None,
        }
    }

    fn executable(text: &[u8], rest: &[u8], opening: usize, flavour: Flavour, marked: bool) -> Self {
        let digits = rest.iter().take(7).take_while(|byte| byte.is_ascii_digit()).count();
        if digits < 5 {
            return Self::Code(opening);
        }
        let taken = digits.min(6);
        let version = rest[..taken].iter().fold(0, |sum, digit| sum * 10 + u32::from(digit - b'0'));
        let verdict = match flavour {
            Flavour::Mariadb => mariadb_executes(version, marked),
            Flavour::Mysql => mysql_executes(version, taken),
        };
        match verdict {
            Some(true) if digits < 7 => Self::Code(opening + taken),
            Some(false) => Self::Skipped(block_length(text)),
            Some(true) | None => Self::Unsure(opening + taken),
        }
    }
}

fn mariadb_executes(version: u32, marked: bool) -> Option<bool> {
    if !marked && MARIADB_SKIPS.contains(&version) {
        return Some(false);
    }
    match version {
        0..=OLDEST_MARIADB => Some(true),
        NEVER_SIX_DIGITS.. => Some(false),
        _ => None,
    }
}

fn mysql_executes(version: u32, digits: usize) -> Option<bool> {
    match (digits, version) {
        (5, 0..=OLDEST_MYSQL) => Some(true),
        (5, NEVER..) | (6, NEVER_SIX_DIGITS..) => Some(false),
        _ => None,
    }
}

/// Whether a block comment speaks to Pointsman.
pub(super) fn is_directive(text: &[u8]) -> bool {
    directive(text).is_some()
}

/// What `/* pointsman: ... */` says, without the name and the comment signs.
pub(super) fn directive(text: &[u8]) -> Option<&[u8]> {
    let inside = text.strip_prefix(b"/*")?.strip_suffix(b"*/")?.trim_ascii();
    let (name, rest) = inside.split_at_checked(DIRECTIVE.len())?;
    name.eq_ignore_ascii_case(DIRECTIVE).then(|| rest.trim_ascii())
}

/// Whether every quote in an optimizer hint is closed: then the servers' hint lexer ends where the comment ends.
pub(super) fn quotes_are_closed(text: &[u8]) -> bool {
    let mut open = None;
    for &byte in text {
        match open {
            Some(quote) if quote == byte => open = None,
            None if matches!(byte, b'`' | b'"' | b'\'') => open = Some(byte),
            Some(_) | None => {}
        }
    }
    open.is_none() && !text.contains(&b'\\')
}

fn line_length(text: &[u8]) -> usize {
    memchr::memchr(b'\n', text).map_or(text.len(), |end| end + 1)
}

/// The length of the block comment that `text` begins with, or 0 where it does not end.
fn block_length(text: &[u8]) -> usize {
    let mut at = 2;
    while let Some(star) = text.get(at..).and_then(|rest| memchr::memchr(b'*', rest)) {
        at += star + 1;
        if text.get(at) == Some(&b'/') {
            return at + 1;
        }
    }
    0
}
