//! What `/* pointsman: ... */` comments, query attributes and SET ask of Pointsman.

use super::comment;
use crate::intent::{Consistency, Hint};

/// The system variable that is Pointsman's own.
pub(super) const CONSISTENCY_VARIABLE: &[u8] = b"pointsman_consistency";

/// What a comment asks for; none where it is not understood.
pub(super) fn of_comment(text: &[u8]) -> Option<Hint> {
    of_words(comment::directive(text)?)
}

/// What a query attribute asks for: `pointsman` with the text of a comment, or `pointsman_consistency`.
pub(super) fn of_attribute(name: &[u8], value: &[u8]) -> Option<Hint> {
    if name.eq_ignore_ascii_case(b"pointsman") {
        return of_words(value);
    }
    if name.eq_ignore_ascii_case(CONSISTENCY_VARIABLE) {
        return consistency(value).map(Hint::Consistency);
    }
    None
}

/// The stricter of two hints: the primary before all else.
pub(super) fn stricter(one: Option<Hint>, other: Option<Hint>) -> Option<Hint> {
    match (one, other) {
        (Some(Hint::Primary), _) | (_, Some(Hint::Primary)) => Some(Hint::Primary),
        (Some(hint), _) | (None, Some(hint)) => Some(hint),
        (None, None) => None,
    }
}

/// `primary`, `replica`, `consistency = session`, separated by blanks, commas or semicolons.
fn of_words(text: &[u8]) -> Option<Hint> {
    let compact: Vec<u8> = compact(text);
    let words = compact.split(|byte| matches!(byte, b' ' | b',' | b';')).filter(|word| !word.is_empty());
    words.map(of_word).fold(None, stricter)
}

fn of_word(word: &[u8]) -> Option<Hint> {
    if word.eq_ignore_ascii_case(b"primary") {
        return Some(Hint::Primary);
    }
    if word.eq_ignore_ascii_case(b"replica") {
        return Some(Hint::Replica);
    }
    let (name, value) = word.split_at(word.iter().position(|byte| *byte == b'=')?);
    if !name.eq_ignore_ascii_case(b"consistency") {
        return None;
    }
    consistency(value.get(1..)?).map(Hint::Consistency)
}

/// Blanks of any kind as single ones, and none around `=`.
fn compact(text: &[u8]) -> Vec<u8> {
    let mut compact: Vec<u8> = Vec::with_capacity(text.len());
    for &byte in text {
        let byte = if byte.is_ascii_whitespace() { b' ' } else { byte };
        if byte == b' ' && matches!(compact.last(), None | Some(b' ' | b'=')) {
            continue;
        }
        if byte == b'=' && compact.last() == Some(&b' ') {
            compact.pop();
        }
        compact.push(byte);
    }
    compact
}

/// A level of consistency by its name in any case.
pub(super) fn consistency(name: &[u8]) -> Option<Consistency> {
    [
        (&b"session"[..], Consistency::Session),
        (b"eventual", Consistency::Eventual),
        (b"global", Consistency::Global),
    ]
    .into_iter()
    .find_map(|(known, level)| name.trim_ascii().eq_ignore_ascii_case(known).then_some(level))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Option<Hint>) {
        assert_eq!(of_comment(text.as_bytes()), expected, "{text}");
    }

    #[test]
    fn comments_are_read() {
        check("/* pointsman: primary */", Some(Hint::Primary));
        check("/*pointsman:Replica*/", Some(Hint::Replica));
        check("/* POINTSMAN:  consistency\n=\teventual */", Some(Hint::Consistency(Consistency::Eventual)));
        check("/* pointsman: consistency=session; replica */", Some(Hint::Consistency(Consistency::Session)));
        check("/* pointsman: replica,primary */", Some(Hint::Primary));
        check("/* pointsman: replicas */", None);
        check("/* pointsman: consistency=none */", None);
        check("/* pointsman */", None);
        check("/* pointsman: */", None);
    }

    #[test]
    fn attributes_are_read() {
        assert_eq!(of_attribute(b"pointsman", b"primary"), Some(Hint::Primary));
        let global = Some(Hint::Consistency(Consistency::Global));
        assert_eq!(of_attribute(b"Pointsman_Consistency", b"GLOBAL"), global);
        assert_eq!(of_attribute(b"traceparent", b"primary"), None);
    }
}
