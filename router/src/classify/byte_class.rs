//! What a byte can begin, as one table look-up.

/// What a token that begins with a byte can be.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Class {
    /// White space of both servers: space, tab, line feed, vertical tab, form feed, carriage return.
    Space,
    /// A letter, `_`, `$` or a byte of 0x80 and above: begins a word.
    Letter,
    Digit,
    /// `'`, `"` or a backquote.
    Quote,
    /// `/`, `#`, `-`: may begin a comment.
    Comment,
    /// `*`: may end an executable comment.
    Star,
    /// `.`: a point, or the start of a number.
    Dot,
    At,
    /// `:`: may be an assignment.
    Colon,
    /// `?`: a parameter marker.
    Parameter,
    /// Any other printable character.
    Symbol,
    /// A control character, which no statement holds outside quotes.
    Control,
}

/// The class of each byte.
pub(super) static CLASS: [Class; 256] = classes();

/// Each byte with `A`-`Z` turned to lower case.
pub(super) static LOWER: [u8; 256] = lower();

/// Whether a byte continues a word.
#[inline]
pub(super) fn continues_word(byte: u8) -> bool {
    matches!(CLASS[usize::from(byte)], Class::Letter | Class::Digit)
}

const fn classes() -> [Class; 256] {
    let mut table = [Class::Symbol; 256];
    let mut at = 0;
    while at < 256 {
        table[at] = class_of(at as u8);
        at += 1;
    }
    table
}

const fn class_of(byte: u8) -> Class {
    match byte {
        b' ' | b'\t'..=b'\r' => Class::Space,
        b'a'..=b'z' | b'A'..=b'Z' | b'_' | b'$' | 0x80.. => Class::Letter,
        b'0'..=b'9' => Class::Digit,
        b'\'' | b'"' | b'`' => Class::Quote,
        b'/' | b'#' | b'-' => Class::Comment,
        b'*' => Class::Star,
        b'.' => Class::Dot,
        b'@' => Class::At,
        b':' => Class::Colon,
        b'?' => Class::Parameter,
        0..0x20 | 0x7f => Class::Control,
        _ => Class::Symbol,
    }
}

const fn lower() -> [u8; 256] {
    let mut table = [0; 256];
    let mut at = 0;
    while at < 256 {
        table[at] = (at as u8).to_ascii_lowercase();
        at += 1;
    }
    table
}
