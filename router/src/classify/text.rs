//! One statement as tokens, with the questions that readers ask of it.

use std::borrow::Cow;

use super::mode::Mode;
use super::token::{Token, TokenKind};

/// One statement: its tokens, and the whole text that they point into.
#[derive(Clone, Copy)]
pub(super) struct Text<'a> {
    pub(super) sql: &'a [u8],
    pub(super) tokens: &'a [Token],
    pub(super) mode: &'a Mode,
}

impl<'a> Text<'a> {
    pub(super) fn len(&self) -> usize {
        self.tokens.len()
    }

    pub(super) fn token(&self, at: usize) -> Option<&'a Token> {
        self.tokens.get(at)
    }

    pub(super) fn kind(&self, at: usize) -> Option<TokenKind> {
        self.tokens.get(at).map(|token| token.kind)
    }

    /// The bytes of a token; empty behind the end.
    pub(super) fn bytes(&self, at: usize) -> &'a [u8] {
        self.tokens.get(at).map_or(&[], |token| token.text(self.sql))
    }

    /// The bytes from one token up to another one, without the latter.
    pub(super) fn between(&self, from: usize, to: usize) -> &'a [u8] {
        match (self.tokens.get(from), to.checked_sub(1).and_then(|last| self.tokens.get(last))) {
            (Some(first), Some(last)) => self.sql.get(first.start..last.end).unwrap_or_default(),
            _ => &[],
        }
    }

    /// Whether a token is this word without quotes, in any case.
    pub(super) fn is(&self, at: usize, word: &str) -> bool {
        self.kind(at) == Some(TokenKind::Word) && self.bytes(at).eq_ignore_ascii_case(word.as_bytes())
    }

    pub(super) fn is_any(&self, at: usize, words: &[&str]) -> bool {
        self.kind(at) == Some(TokenKind::Word)
            && words.iter().any(|word| self.bytes(at).eq_ignore_ascii_case(word.as_bytes()))
    }

    /// Whether these words stand one after the other.
    pub(super) fn reads(&self, at: usize, words: &[&str]) -> bool {
        words.iter().enumerate().all(|(offset, word)| self.is(at + offset, word))
    }

    pub(super) fn symbol(&self, at: usize, symbol: u8) -> bool {
        self.token(at).is_some_and(|token| token.is_symbol(symbol))
    }

    /// The name that a token spells, without its quotes.
    pub(super) fn name(&self, at: usize) -> Option<Cow<'a, [u8]>> {
        let bytes = self.bytes(at);
        match self.kind(at)? {
            TokenKind::Word | TokenKind::Member => Some(Cow::Borrowed(bytes)),
            TokenKind::QuotedName => unquote_name(bytes),
            _ => None,
        }
    }

    /// The statement without its first tokens.
    pub(super) fn tail(&self, from: usize) -> Self {
        Self { tokens: self.tokens.get(from..).unwrap_or_default(), ..*self }
    }

    pub(super) fn position(&self, words: &[&str]) -> Option<usize> {
        (0..self.len()).find(|at| self.is_any(*at, words))
    }
}

/// The name inside quotes, with doubled quotes undone.
pub(super) fn unquote_name(bytes: &[u8]) -> Option<Cow<'_, [u8]>> {
    let (&quote, rest) = bytes.split_first()?;
    let inside = rest.strip_suffix(&[quote])?;
    if !inside.contains(&quote) {
        return Some(Cow::Borrowed(inside));
    }
    let mut name = Vec::with_capacity(inside.len());
    let mut bytes = inside.iter();
    while let Some(&byte) = bytes.next() {
        name.push(byte);
        if byte == quote {
            bytes.next();
        }
    }
    Some(Cow::Owned(name))
}
