//! Pieces of SQL text that mean the same in every session.

use std::borrow::Cow;

/// Makes SQL text of a value as a server's tracker tells it; none when it cannot be written so that every
/// sql_mode and character set reads it alike.
pub(super) fn tracked_value(name: &str, value: &[u8]) -> Option<String> {
    let text = str::from_utf8(value).ok()?;
    if text.is_empty() && name == "character_set_results" {
        return Some("NULL".to_owned());
    }
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some(text.to_owned());
    }
    text.bytes().all(is_plain).then(|| format!("'{text}'"))
}

/// Takes SQL text of a literal as a client wrote it; none when its meaning depends on sql_mode or character set.
pub(super) fn literal_value(value: &str, ansi_quotes: bool) -> Option<Cow<'_, str>> {
    let value = value.trim();
    let inner = |quote| value.strip_prefix(quote)?.strip_suffix(quote);
    if let Some(text) = inner('\'') {
        return text.bytes().all(is_plain).then_some(Cow::Borrowed(value));
    }
    if let Some(text) = inner('"') {
        // A name where ANSI_QUOTES is on, which only a few variables take.
        return (!ansi_quotes && text.bytes().all(is_plain)).then(|| Cow::Owned(format!("'{text}'")));
    }
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'+' | b'-' | b'.');
    (!value.is_empty() && value.bytes().all(is_word)).then_some(Cow::Borrowed(value))
}

/// The text of a literal without its quotes, lower case.
pub(super) fn bare(value: &str) -> String {
    value.trim().trim_matches(['\'', '"']).to_ascii_lowercase()
}

/// Printable ASCII but quotes and backslash.
fn is_plain(byte: u8) -> bool {
    matches!(byte, b' '..=b'~') && !matches!(byte, b'\'' | b'"' | b'\\')
}
