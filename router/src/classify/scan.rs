//! One pass over a text: its tokens, with long lists of literals cut short.
//!
//! `IN (1, 2, ..., 900)` and `VALUES (1, 2), (3, 4), ...` keep three of their elements, so that statements that differ
//! in nothing else have the same tokens and a bulk insert has few. Three, because what a call with one or two
//! arguments means may depend on their number.

use super::lexer::Lexer;
use super::mode::Mode;
use super::token::{Token, TokenKind, Traits};

/// The most tokens that are kept of a text, after lists were cut short.
const MAX_TOKENS: usize = 4096;
/// Where reading an INSERT ends when nothing but its rows can follow.
const FAR_BYTES: usize = 64 * 1024;
/// The most tokens of a row of literals: `( ? , ? , ? )`.
const ROW_TOKENS: usize = 7;

/// What one pass over a text yields. The vector is used again for the next text.
#[derive(Debug, Default)]
pub(super) struct Scan {
    pub(super) tokens: Vec<Token>,
    pub(super) traits: Traits,
    /// Not all of the text is in the tokens.
    pub(super) cut: bool,
    /// A further statement begins in what is not in the tokens.
    pub(super) more_statements: bool,
}

impl Scan {
    /// Reads a text in place of the one before.
    pub(super) fn read(&mut self, sql: &[u8], mode: &Mode) {
        self.tokens.clear();
        self.cut = false;
        self.more_statements = false;
        let mut lexer = Lexer::new(sql, mode);
        while let Some(token) = lexer.next_token() {
            if self.tokens.len() >= MAX_TOKENS {
                self.cut = true;
                self.more_statements |= self.follows_end(&token, sql);
            } else {
                self.push(token, sql);
            }
            if token.end > FAR_BYTES && !mode.multi_statements && (self.cut || self.is_bulk(sql)) {
                self.cut = true;
                break;
            }
        }
        self.traits = lexer.traits();
    }

    /// Once cut: whether a token stands behind a semicolon.
    fn follows_end(&self, token: &Token, sql: &[u8]) -> bool {
        let last = self.tokens.last().is_some_and(|last| last.is_symbol(b';'));
        (last && !token.is_symbol(b';')) || (token.is_symbol(b';') && !rest_is_empty(&sql[token.end..]))
    }

    fn is_bulk(&self, sql: &[u8]) -> bool {
        self.tokens.first().is_some_and(|first| {
            let word = first.text(sql);
            word.eq_ignore_ascii_case(b"insert") || word.eq_ignore_ascii_case(b"replace")
        })
    }

    #[inline]
    fn push(&mut self, token: Token, sql: &[u8]) {
        if token.is_literal() {
            self.push_literal(token);
        } else if token.is_symbol(b',') {
            self.settle_null(sql);
            self.tokens.push(token);
        } else if token.is_symbol(b')') {
            self.settle_null(sql);
            self.close(token);
        } else {
            self.tokens.push(token);
        }
    }

    fn push_literal(&mut self, mut token: Token) {
        let negative = token.kind == TokenKind::Number && self.is_negative();
        if negative && let Some(sign) = self.tokens.pop() {
            token.start = sign.start;
            token.gap = sign.gap;
        }
        if self.ends_with_three_literals() {
            self.tokens.pop();
            return;
        }
        self.tokens.push(token);
    }

    /// Whether the last tokens are the minus of a number at the start of a list's element.
    fn is_negative(&self) -> bool {
        match self.tokens.as_slice() {
            [.., before, minus] => {
                minus.is_symbol(b'-') && (before.is_symbol(b',') || before.is_symbol(b'('))
            }
            _ => false,
        }
    }

    /// `?, ?, ?,`
    fn ends_with_three_literals(&self) -> bool {
        match self.tokens.as_slice() {
            [.., a, b, c, d, e, comma] => {
                comma.is_symbol(b',')
                    && e.is_literal()
                    && d.is_symbol(b',')
                    && c.is_literal()
                    && b.is_symbol(b',')
                    && a.is_literal()
            }
            _ => false,
        }
    }

    /// A NULL that is a list's whole element counts as a literal.
    fn settle_null(&mut self, sql: &[u8]) {
        let [.., before, word] = self.tokens.as_slice() else { return };
        let alone = before.is_symbol(b',') || before.is_symbol(b'(');
        if !alone || word.kind != TokenKind::Word || !word.text(sql).eq_ignore_ascii_case(b"null") {
            return;
        }
        let literal = Token { kind: TokenKind::Number, ..*word };
        self.tokens.pop();
        self.push_literal(literal);
    }

    /// Takes a closing parenthesis; a row of literals behind three like it is dropped.
    fn close(&mut self, token: Token) {
        self.tokens.push(token);
        let Some(start) = self.row(self.tokens.len()) else { return };
        let length = self.tokens.len() - start;
        let mut end = start;
        for _ in 0..3 {
            let Some(before) = end.checked_sub(1) else { return };
            if !self.tokens[before].is_symbol(b',') {
                return;
            }
            match self.row(before) {
                Some(earlier) if before - earlier == length => end = earlier,
                _ => return,
            }
        }
        self.tokens.truncate(start - 1);
    }

    /// Where the row of literals begins that ends before token `end`.
    fn row(&self, end: usize) -> Option<usize> {
        let first = end.saturating_sub(ROW_TOKENS);
        let row = self.tokens.get(first..end)?;
        let (last, inside) = row.split_last()?;
        if !last.is_symbol(b')') {
            return None;
        }
        let open = inside.iter().rposition(|token| !token.is_literal() && !token.is_symbol(b','))?;
        (inside[open].is_symbol(b'(') && open + 1 < inside.len()).then_some(first + open)
    }
}

fn rest_is_empty(rest: &[u8]) -> bool {
    rest.iter().all(|byte| byte.is_ascii_whitespace() || *byte == b';')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::classify::digest::write_form;

    #[track_caller]
    fn check(sql: &str, expected: &str) {
        let mut scan = Scan::default();
        scan.read(sql.as_bytes(), &Mode::default());
        let mut form = Vec::new();
        assert!(write_form(&mut form, &scan.tokens, sql.as_bytes()));
        assert_eq!(String::from_utf8_lossy(&form).trim_end(), expected, "{sql}");
    }

    #[test]
    fn lists_of_literals_are_cut_short() {
        check("f(1)", "f ( ? )");
        check("f(1, 'a')", "f ( ? , ? )");
        check("f(1, 2, 3)", "f ( ? , ? , ? )");
        check("f(1, 2, 3, 4, 5)", "f ( ? , ? , ? )");
        check("f(1, -2, NULL, x'5', ?, a, 6)", "f ( ? , ? , ? , a , ? )");
        check("f(null)", "f ( ? )");
        check("a IS NULL", "a is null");
        check("f(1 - 2, -3)", "f ( ? - ? , ? )");
        check("f(a, - 3)", "f ( a , ? )");
    }

    #[test]
    fn rows_of_literals_are_cut_short() {
        let three = "values ( ? , ? ) , ( ? , ? ) , ( ? , ? )";
        check("VALUES (1, 2)", "values ( ? , ? )");
        check("VALUES (1, 2), (3, 4), (5, 6)", three);
        check("VALUES (1, 2), (3, 4), (5, NULL), (7, 8), (9, 0)", three);
        check("VALUES (1), (2), (3), (4), (5, 6)", "values ( ? ) , ( ? ) , ( ? ) , ( ? , ? )");
        check("VALUES (1), (2), (3), (f(4)), (5)", "values ( ? ) , ( ? ) , ( ? ) , ( f ( ? ) ) , ( ? )");
        check(
            "VALUES (1,2,3,4), (1,2,3,4), (1,2,3,4), (1,2,3,4)",
            &format!("values{}", [" ( ? , ? , ? )"; 3].join(" ,")),
        );
        check("f((1), (2), (3), (4), a)", "f ( ( ? ) , ( ? ) , ( ? ) , a )");
    }

    #[test]
    fn forms_keep_what_matters() {
        check("SELECT  A\n FROM `B`", "select a from `B`");
        check("a.B /* c */ -- d", "a . \u{1}B");
        check("COUNT (a) in (1)", "count \u{2}( a ) in ( ? )");
        check("/* pointsman: primary */ a", "/* pointsman: primary */ a");
        check("@A = @@B", "@a = @@b");
    }

    #[test]
    fn what_is_cut_is_noticed() {
        let mut scan = Scan::default();
        let mode = Mode { multi_statements: true, ..Mode::default() };
        let long = "a + ".repeat(MAX_TOKENS);
        for (rest, more) in [("", false), (";", false), ("; ;\n", false), ("; b", true), (";/**/", true)] {
            scan.read(format!("{long}{rest}").as_bytes(), &mode);
            assert_eq!((scan.cut, scan.more_statements), (true, more), "{rest}");
        }
        scan.read(b"a; b", &mode);
        assert_eq!((scan.cut, scan.more_statements), (false, false));
    }
}
