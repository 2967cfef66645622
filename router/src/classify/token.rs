//! The pieces that statements are made of.

use std::ops::Range;

use bitflags::bitflags;

/// One piece of a statement: where it stands and what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) kind: TokenKind,
    pub(super) start: usize,
    pub(super) end: usize,
    /// White space or a comment stands before it.
    pub(super) gap: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TokenKind {
    /// A keyword or a name without quotes.
    Word,
    /// A word directly after a point: a name, whatever it spells.
    Member,
    /// A name in backquotes, or in double quotes under ANSI_QUOTES.
    QuotedName,
    Number,
    /// A string, also `x'...'`, `b'...'`, `n'...'`.
    Text,
    /// `?` of a prepared statement.
    Parameter,
    /// `@name`, with the name in any quotes.
    UserVariable,
    /// `@@name` or `@@scope.name`.
    SystemVariable,
    /// `:=`
    Assign,
    /// `/*+ ... */` where the server reads it.
    OptimizerHint,
    /// `/* pointsman: ... */`
    Directive,
    /// Any other character, on its own.
    Symbol(u8),
}

bitflags! {
    /// What the lexer noticed between and inside tokens.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub(super) struct Traits: u8 {
        /// Holds an executable comment.
        const EXECUTABLE = 1 << 0;
        /// Servers may cut this text into other tokens than these.
        const DOUBT = 1 << 1;
        /// A string, a quoted name or a comment does not end.
        const UNTERMINATED = 1 << 2;
        /// Bytes of 0x80 and above inside quotes, in a character set where they may hide a quote.
        const FOREIGN_TEXT = 1 << 3;
    }
}

impl Token {
    pub(super) fn range(&self) -> Range<usize> {
        self.start..self.end
    }

    /// The token's bytes in the statement that it was read from.
    pub(super) fn text<'a>(&self, sql: &'a [u8]) -> &'a [u8] {
        sql.get(self.range()).unwrap_or_default()
    }

    pub(super) fn is_symbol(&self, symbol: u8) -> bool {
        self.kind == TokenKind::Symbol(symbol)
    }

    /// Whether it is a comment that says something to somebody, and no part of the statement.
    pub(super) fn is_comment(&self) -> bool {
        matches!(self.kind, TokenKind::OptimizerHint | TokenKind::Directive)
    }

    pub(super) fn is_literal(&self) -> bool {
        matches!(self.kind, TokenKind::Number | TokenKind::Text | TokenKind::Parameter)
    }
}
