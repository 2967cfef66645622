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
        let kind = self.kind(at)?;
        if kind == TokenKind::QuotedName {
            return unquote_name(bytes);
        }
        matches!(kind, TokenKind::Word | TokenKind::Member).then_some(Cow::Borrowed(bytes))
    }

    /// How a token changes the depth of parentheses.
    fn step(&self, at: usize, depth: usize) -> usize {
        if self.symbol(at, b'(') {
            depth + 1
        } else if self.symbol(at, b')') {
            depth.saturating_sub(1)
        } else {
            depth
        }
    }

    /// The parenthesis that closes the one at `open`.
    pub(super) fn close_of(&self, open: usize) -> Option<usize> {
        let mut depth = 0;
        (open..self.len()).find(|at| {
            depth = self.step(*at, depth);
            depth == 0
        })
    }

    /// How many commas stand directly inside the parenthesis at `open`; none where it does not close.
    pub(super) fn commas(&self, open: usize) -> Option<usize> {
        let close = self.close_of(open)?;
        let mut at = open + 1;
        let mut commas = 0;
        while at < close {
            if self.symbol(at, b'(') {
                at = self.close_of(at)?;
            }
            commas += usize::from(self.symbol(at, b','));
            at += 1;
        }
        Some(commas)
    }

    /// Where the parenthesis at `open` closes, if it holds names and commas only.
    pub(super) fn name_list(&self, open: usize) -> Option<usize> {
        let mut at = open + 1;
        loop {
            if !matches!(self.kind(at)?, TokenKind::Word | TokenKind::QuotedName) {
                return None;
            }
            if self.symbol(at + 1, b')') {
                return Some(at + 1);
            }
            if !self.symbol(at + 1, b',') {
                return None;
            }
            at += 2;
        }
    }

    /// The first token from `from` on, outside of parentheses, that fits.
    pub(super) fn outside_parentheses(&self, from: usize, fits: impl Fn(usize) -> bool) -> Option<usize> {
        let mut depth = 0;
        (from..self.len()).find(|at| {
            depth = self.step(*at, depth);
            depth == 0 && fits(*at)
        })
    }

    /// The parts between the separators that stand outside of parentheses.
    pub(super) fn split(&self, separator: u8) -> Vec<Self> {
        let mut parts = Vec::new();
        let mut rest = *self;
        while let Some(end) = rest.outside_parentheses(0, |at| rest.symbol(at, separator)) {
            parts.push(Self { tokens: &rest.tokens[..end], ..rest });
            rest = rest.tail(end + 1);
        }
        parts.push(rest);
        parts
    }

    /// The statement without its first tokens.
    pub(super) fn tail(&self, from: usize) -> Self {
        Self { tokens: self.tokens.get(from..).unwrap_or_default(), ..*self }
    }

    /// A token for people: its first bytes, with everything that does not print replaced.
    ///
    /// In the case of the normal form: statements of one digest share what is said of them.
    pub(super) fn shown(&self, at: usize) -> String {
        const MAX_SHOWN_BYTES: usize = 40;
        let bytes = self.bytes(at);
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(MAX_SHOWN_BYTES)]);
        let shown = shown.chars().map(|c| if c.is_control() { ' ' } else { c });
        let kind = self.tokens.get(at).map(|token| token.kind);
        if matches!(kind, Some(TokenKind::Word | TokenKind::UserVariable | TokenKind::SystemVariable)) {
            shown.map(|c| c.to_ascii_lowercase()).collect()
        } else {
            shown.collect()
        }
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
