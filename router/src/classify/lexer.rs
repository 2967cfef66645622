//! Cuts a statement into tokens as the servers' own lexers do, in one pass and without allocation.
//!
//! The rules are those of `lex_one_token` in sql/sql_lex.cc of both servers. Where the two families, or versions of
//! one, would cut differently and the mode does not say which, [`Traits::DOUBT`] is raised: the tokens are then one
//! possible reading, good enough to name the statement but not to prove anything.

use super::byte_class::{CLASS, Class, continues_word};
use super::comment::{self, Comment};
use super::mode::Mode;
use super::token::{Token, TokenKind, Traits};
use crate::intent::Flavour;

pub(super) struct Lexer<'a> {
    sql: &'a [u8],
    at: usize,
    mode: Mode,
    traits: Traits,
    /// The last token was a comment.
    commented: bool,
    /// Inside an executable comment that is read as code.
    in_executable: bool,
    /// Where the last word without quotes ended: a point here cannot begin a number.
    word_end: usize,
    /// Where the last point ended: a word that begins here is a member's name.
    point_end: usize,
}

impl<'a> Lexer<'a> {
    pub(super) fn new(sql: &'a [u8], mode: &Mode) -> Self {
        Self {
            sql,
            at: 0,
            mode: *mode,
            traits: Traits::empty(),
            commented: false,
            in_executable: false,
            word_end: usize::MAX,
            point_end: usize::MAX,
        }
    }

    /// What was noticed in the text read so far.
    pub(super) fn traits(&self) -> Traits {
        self.traits
    }

    /// The next token, or none at the end of the text.
    #[inline]
    pub(super) fn next_token(&mut self) -> Option<Token> {
        let mut gap = std::mem::take(&mut self.commented);
        loop {
            let start = self.at;
            let Some(&byte) = self.sql.get(start) else {
                if self.in_executable {
                    self.traits |= Traits::UNTERMINATED;
                }
                return None;
            };
            let kind = match CLASS[usize::from(byte)] {
                Class::Space => {
                    self.at += 1;
                    gap = true;
                    continue;
                }
                Class::Letter => self.word(byte),
                Class::Digit => self.digit(),
                Class::Quote => self.quoted(byte),
                Class::Comment => match self.comment(byte) {
                    Some(kind) => kind,
                    None => {
                        gap = true;
                        continue;
                    }
                },
                Class::Star if self.in_executable && self.peek(1) == Some(b'/') => {
                    self.in_executable = false;
                    self.at += 2;
                    gap = true;
                    continue;
                }
                Class::Dot => self.dot(),
                Class::At => self.variable(),
                Class::Colon if self.peek(1) == Some(b'=') => self.take(2, TokenKind::Assign),
                Class::Parameter => self.take(1, TokenKind::Parameter),
                Class::Control => {
                    self.traits |= Traits::DOUBT;
                    self.take(1, TokenKind::Symbol(byte))
                }
                Class::Symbol if byte == b'\\' && self.is_null() => self.take(2, TokenKind::Number),
                Class::Star | Class::Colon | Class::Symbol => self.take(1, TokenKind::Symbol(byte)),
            };
            return Some(Token { kind, start, end: self.at, gap });
        }
    }

    /// `\N` stands for NULL on MariaDB.
    fn is_null(&self) -> bool {
        self.mode.flavour == Flavour::Mariadb && self.peek(1) == Some(b'N')
    }

    fn peek(&self, ahead: usize) -> Option<u8> {
        self.sql.get(self.at + ahead).copied()
    }

    fn take(&mut self, length: usize, kind: TokenKind) -> TokenKind {
        self.at += length;
        kind
    }

    fn skip_word(&mut self) {
        while self.sql.get(self.at).is_some_and(|byte| continues_word(*byte)) {
            self.at += 1;
        }
        self.word_end = self.at;
    }

    fn skip_digits(&mut self) {
        while self.sql.get(self.at).is_some_and(u8::is_ascii_digit) {
            self.at += 1;
        }
    }

    #[inline]
    fn word(&mut self, first: u8) -> TokenKind {
        if self.point_end == self.at {
            self.skip_word();
            return TokenKind::Member;
        }
        if self.peek(1) == Some(b'\'') && matches!(first, b'x' | b'X' | b'b' | b'B' | b'n' | b'N') {
            self.at += 1;
            self.skip_text(b'\'');
            return TokenKind::Text;
        }
        self.at += 1;
        self.skip_word();
        TokenKind::Word
    }

    /// A number, or a name that begins with a digit.
    fn digit(&mut self) -> TokenKind {
        if self.point_end == self.at {
            self.skip_word();
            return TokenKind::Member;
        }
        if self.radix_number() {
            return TokenKind::Number;
        }
        self.skip_digits();
        match self.peek(0) {
            Some(b'e' | b'E') if self.exponent() => TokenKind::Number,
            Some(b'.') => {
                self.at += 1;
                self.fraction()
            }
            Some(byte) if continues_word(byte) => {
                self.skip_word();
                TokenKind::Word
            }
            Some(_) | None => TokenKind::Number,
        }
    }

    /// `0x1f` and `0b11`, with a lower-case letter and nothing else of a name behind; else nothing is taken.
    fn radix_number(&mut self) -> bool {
        let digits: fn(&u8) -> bool = match (self.peek(0), self.peek(1)) {
            (Some(b'0'), Some(b'x')) => u8::is_ascii_hexdigit,
            (Some(b'0'), Some(b'b')) => |byte| matches!(byte, b'0' | b'1'),
            _ => return false,
        };
        let rest = self.sql.get(self.at + 2..).unwrap_or_default();
        let length = rest.iter().take_while(|byte| digits(byte)).count();
        if length == 0 || rest.get(length).is_some_and(|byte| continues_word(*byte)) {
            return false;
        }
        self.at += 2 + length;
        true
    }

    /// `e`, a sign if any, and digits; takes nothing where digits are missing.
    fn exponent(&mut self) -> bool {
        let sign = usize::from(matches!(self.peek(1), Some(b'+' | b'-')));
        if !self.peek(1 + sign).is_some_and(|byte| byte.is_ascii_digit()) {
            return false;
        }
        self.at += 1 + sign;
        self.skip_digits();
        true
    }

    /// What follows the point of a number.
    fn fraction(&mut self) -> TokenKind {
        self.skip_digits();
        if matches!(self.peek(0), Some(b'e' | b'E')) {
            self.exponent();
        }
        TokenKind::Number
    }

    fn dot(&mut self) -> TokenKind {
        let after_word = self.word_end == self.at;
        self.at += 1;
        if !after_word && self.peek(0).is_some_and(|byte| byte.is_ascii_digit()) {
            return self.fraction();
        }
        self.point_end = self.at;
        TokenKind::Symbol(b'.')
    }

    fn quoted(&mut self, quote: u8) -> TokenKind {
        if quote == b'`' || (quote == b'"' && self.mode.ansi_quotes) {
            self.skip_name(quote);
            return TokenKind::QuotedName;
        }
        self.skip_text(quote);
        TokenKind::Text
    }

    /// Skips a quoted name; a doubled quote stands for itself and a backslash has no meaning.
    fn skip_name(&mut self, quote: u8) {
        let start = self.at + 1;
        self.at = start;
        loop {
            let rest = self.sql.get(self.at..).unwrap_or_default();
            let Some(length) = memchr::memchr(quote, rest) else {
                self.at = self.sql.len();
                self.traits |= Traits::UNTERMINATED;
                break;
            };
            self.at += length + 1;
            if self.peek(0) != Some(quote) {
                break;
            }
            self.at += 1;
        }
        self.note_quoted(start, quote);
    }

    /// Skips a string with its escapes.
    fn skip_text(&mut self, quote: u8) {
        let start = self.at + 1;
        self.at = start;
        let backslash = if self.mode.no_backslash_escapes { quote } else { b'\\' };
        loop {
            let rest = self.sql.get(self.at..).unwrap_or_default();
            let Some(length) = memchr::memchr2(quote, backslash, rest) else {
                self.at = self.sql.len();
                self.traits |= Traits::UNTERMINATED;
                break;
            };
            self.at += length + 1;
            if rest[length] != quote {
                self.at = self.sql.len().min(self.at + 1);
            } else if self.peek(0) == Some(quote) {
                self.at += 1;
            } else {
                break;
            }
        }
        self.note_quoted(start, quote);
    }

    /// Raises what the session's character set and sql_mode make doubtful in the quotes just read.
    #[inline]
    fn note_quoted(&mut self, start: usize, quote: u8) {
        if self.mode.sql_mode_known && !self.mode.unsafe_charset {
            return;
        }
        let inside = self.sql.get(start..self.at).unwrap_or_default();
        if !self.mode.sql_mode_known && (quote == b'"' || inside.contains(&b'\\')) {
            self.traits |= Traits::DOUBT;
        }
        if self.mode.unsafe_charset && !inside.is_ascii() {
            self.traits |= Traits::FOREIGN_TEXT;
            if inside.windows(2).any(|pair| pair[0] >= 0x80 && matches!(pair[1], b'\\' | b'`')) {
                self.traits |= Traits::DOUBT;
            }
        }
    }

    fn variable(&mut self) -> TokenKind {
        if self.peek(1) == Some(b'@') {
            self.at += 2;
            self.skip_parts();
            return TokenKind::SystemVariable;
        }
        self.at += 1;
        match self.peek(0) {
            Some(quote @ (b'`' | b'"' | b'\'')) => {
                self.quoted(quote);
            }
            _ => self.skip_parts_of_user_variable(),
        }
        TokenKind::UserVariable
    }

    fn skip_parts_of_user_variable(&mut self) {
        while self.sql.get(self.at).is_some_and(|byte| continues_word(*byte) || *byte == b'.') {
            self.at += 1;
        }
    }

    /// `name`, `scope.name`, with any part in backquotes.
    fn skip_parts(&mut self) {
        loop {
            match self.peek(0) {
                Some(b'`') => self.skip_name(b'`'),
                _ => self.skip_word(),
            }
            let next = self.peek(1).is_some_and(|byte| continues_word(byte) || byte == b'`');
            if self.peek(0) != Some(b'.') || !next {
                return;
            }
            self.at += 1;
        }
    }

    /// Skips a comment, or gives the token that begins like one.
    fn comment(&mut self, first: u8) -> Option<TokenKind> {
        match Comment::at(&self.sql[self.at..], self.mode.flavour) {
            Comment::None => Some(self.take(1, TokenKind::Symbol(first))),
            Comment::Doubtful => {
                self.traits |= Traits::DOUBT;
                Some(self.take(1, TokenKind::Symbol(first)))
            }
            Comment::Line(length) => {
                let end = self.at + length;
                if self.sql[self.at..end].contains(&0) {
                    self.traits |= Traits::DOUBT;
                }
                self.at = end;
                None
            }
            Comment::Plain(length) => self.block(length),
            Comment::Code(opening) => {
                self.open_executable(opening);
                None
            }
            Comment::Skipped(length) => {
                self.traits |= Traits::EXECUTABLE;
                self.traits.set(Traits::DOUBT, self.traits.contains(Traits::DOUBT) || self.nests(length));
                self.block(length)
            }
            Comment::Unsure(opening) => {
                self.traits |= Traits::DOUBT;
                self.open_executable(opening);
                None
            }
        }
    }

    fn nests(&self, length: usize) -> bool {
        let inside = self.sql.get(self.at + 2..self.at + length).unwrap_or_default();
        inside.windows(2).any(|pair| pair == b"/*")
    }

    fn open_executable(&mut self, opening: usize) {
        if self.in_executable {
            self.traits |= Traits::DOUBT;
        }
        self.traits |= Traits::EXECUTABLE;
        self.in_executable = true;
        self.at += opening;
    }

    /// Skips a block comment of `length` bytes; 0 means that it does not end.
    fn block(&mut self, length: usize) -> Option<TokenKind> {
        if self.in_executable {
            self.traits |= Traits::DOUBT;
        }
        if length == 0 {
            self.traits |= Traits::UNTERMINATED;
            self.at = self.sql.len();
            return None;
        }
        let text = &self.sql[self.at..self.at + length];
        self.at += length;
        let directive = comment::is_directive(text);
        let hint = self.mode.flavour == Flavour::Mysql && text[2] == b'+';
        self.commented = directive || hint;
        if directive {
            return Some(TokenKind::Directive);
        }
        if hint {
            if !comment::quotes_are_closed(text) {
                self.traits |= Traits::DOUBT;
            }
            return Some(TokenKind::OptimizerHint);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Cuts the text and writes each token's first letter of its kind and its text.
    fn cut(sql: &[u8], mode: &Mode) -> (String, Traits) {
        let mut lexer = Lexer::new(sql, mode);
        let mut shown = Vec::new();
        while let Some(token) = lexer.next_token() {
            let letter = match token.kind {
                TokenKind::Word => "w",
                TokenKind::Member => "m",
                TokenKind::QuotedName => "q",
                TokenKind::Number => "n",
                TokenKind::Text => "t",
                TokenKind::Parameter => "p",
                TokenKind::UserVariable => "u",
                TokenKind::SystemVariable => "s",
                TokenKind::Assign => "a",
                TokenKind::OptimizerHint => "h",
                TokenKind::Directive => "d",
                TokenKind::Symbol(_) => "",
            };
            let text = String::from_utf8_lossy(token.text(sql)).into_owned();
            shown.push(if letter.is_empty() { text } else { format!("{letter}:{text}") });
        }
        (shown.join(" "), lexer.traits())
    }

    #[track_caller]
    fn check(sql: &str, expected: &str) {
        for flavour in [Flavour::Mariadb, Flavour::Mysql] {
            let (tokens, traits) = cut(sql.as_bytes(), &Mode { flavour, ..Mode::default() });
            assert_eq!((tokens.as_str(), traits), (expected, Traits::empty()), "{sql}");
        }
    }

    #[track_caller]
    fn check_in(mode: Mode, sql: &[u8], expected: &str, traits: Traits) {
        let cut = cut(sql, &mode);
        assert_eq!((cut.0.as_str(), cut.1), (expected, traits), "{}", String::from_utf8_lossy(sql));
    }

    #[test]
    fn words_and_names() {
        check("a _b $c d1 é", "w:a w:_b w:$c w:d1 w:é");
        check("a.b a . b a .b a. b", "w:a . m:b w:a . w:b w:a . m:b w:a . w:b");
        check("a.for.update", "w:a . m:for . m:update");
        check("`a``b`.c `x;y`", "q:`a``b` . m:c q:`x;y`");
        check("a.1b t.5for", "w:a . m:1b w:t . m:5for");
        check("`t`.5for", "q:`t` n:.5 w:for");
        check("a+b;c", "w:a + w:b ; w:c");
    }

    #[test]
    fn numbers() {
        check("1 1.5 .5 1. 1e5 1.5e-3 1E+2", "n:1 n:1.5 n:.5 n:1. n:1e5 n:1.5e-3 n:1E+2");
        check("1a 1e 1e+ 2ex", "w:1a w:1e w:1e + w:2ex");
        check("1.for 1e5a .5for", "n:1. w:for n:1e5 w:a n:.5 w:for");
        check("0x1F 0x 0x1g 0X1 0b10 0b 0b12", "n:0x1F w:0x w:0x1g w:0X1 n:0b10 w:0b w:0b12");
        check("1-1 1--1", "n:1 - n:1 n:1 - - n:1");
        check("?", "p:?");
    }

    #[test]
    fn strings() {
        check("'a''b' \"c\"\"d\" '' 'e;f'", "t:'a''b' t:\"c\"\"d\" t:'' t:'e;f'");
        check(r"'a\'b' 'c\\' d", r"t:'a\'b' t:'c\\' w:d");
        check(
            "x'1f' X'1F' b'1' n'a' N'b' _latin1'c'",
            "t:x'1f' t:X'1F' t:b'1' t:n'a' t:N'b' w:_latin1 t:'c'",
        );
        check("'/*' '-- ' '#'", "t:'/*' t:'-- ' t:'#'");
        let mode = Mode { no_backslash_escapes: true, ..Mode::default() };
        check_in(mode, br"'\' a", r"t:'\' w:a", Traits::empty());
        let mode = Mode { ansi_quotes: true, ..Mode::default() };
        check_in(mode, br#""a\" "b""c""#, r#"q:"a\" q:"b""c""#, Traits::empty());
        for open in ["'a", "\"a", "`a", "'a\\", "/* a", "x'1"] {
            assert_eq!(cut(open.as_bytes(), &Mode::default()).1, Traits::UNTERMINATED, "{open}");
        }
    }

    #[test]
    fn variables() {
        check("@a @a.b @`c d` @'e' @\"f\"", "u:@a u:@a.b u:@`c d` u:@'e' u:@\"f\"");
        check("@@a @@global.b @@`c` @@session . d", "s:@@a s:@@global.b s:@@`c` s:@@session . w:d");
        check("@a:=1 @@a := 2", "u:@a a::= n:1 s:@@a a::= n:2");
    }

    #[test]
    fn comments() {
        check("a/**/b/* c */d", "w:a w:b w:d");
        check("a -- b\nc # d\ne --", "w:a w:c w:e");
        check("a --b", "w:a - - w:b");
        check("a /*/ b */ c", "w:a w:c");
        check("a /* pointsman: x */ b", "w:a d:/* pointsman: x */ w:b");
        let mysql = Mode { flavour: Flavour::Mysql, ..Mode::default() };
        check_in(mysql, b"a /*+ b */ c /*M! d */", "w:a h:/*+ b */ w:c", Traits::empty());
        check_in(mysql, b"a /*+ `*/` */", "w:a h:/*+ `*/ q:` */", Traits::DOUBT | Traits::UNTERMINATED);
        let maria = Mode::default();
        check_in(maria, b"a /*+ b */ c /*M! d */", "w:a w:c w:d", Traits::EXECUTABLE);
        check_in(maria, b"a --\xa0b", "w:a - - w:\u{fffd}b", Traits::DOUBT);
    }

    #[test]
    fn executable_comments() {
        let (maria, mysql) = (Mode::default(), Mode { flavour: Flavour::Mysql, ..Mode::default() });
        let code = Traits::EXECUTABLE;
        let doubt = Traits::EXECUTABLE | Traits::DOUBT;
        for mode in [maria, mysql] {
            check_in(mode, b"a /*! b */ c", "w:a w:b w:c", code);
            check_in(mode, b"a /*!40101 b*/", "w:a w:b", code);
            check_in(mode, b"/*!50000.5for*/", "n:.5 w:for", code);
            check_in(mode, b"a /*!1234 b */", "w:a n:1234 w:b", code);
            check_in(mode, b"a /*!999999 b */ c", "w:a w:c", code);
            check_in(mode, b"a /*!40000 /* b */ c */", "w:a w:c", doubt);
            check_in(mode, b"a /*! b", "w:a w:b", code | Traits::UNTERMINATED);
        }
        check_in(maria, b"a /*!50700 b */", "w:a", code);
        check_in(maria, b"a /*!80000 b */", "w:a", code);
        check_in(maria, b"a /*!100100 b */", "w:a w:b", code);
        check_in(maria, b"a /*!101100 b */", "w:a w:b", doubt);
        check_in(maria, b"a /*M!80000 b */", "w:a w:b", code);
        check_in(mysql, b"a /*!50700 b */", "w:a w:b", code);
        check_in(mysql, b"a /*!90000 b */", "w:a w:b", doubt);
        check_in(mysql, b"a /*!080000 b */", "w:a w:b", doubt);
    }

    #[test]
    fn doubts() {
        let unknown = Mode { sql_mode_known: false, ..Mode::default() };
        check_in(unknown, b"'a' b", "t:'a' w:b", Traits::empty());
        check_in(unknown, br"'a\\' b", r"t:'a\\' w:b", Traits::DOUBT);
        check_in(unknown, br#""a" b"#, r#"t:"a" w:b"#, Traits::DOUBT);
        let gbk = Mode { unsafe_charset: true, ..Mode::default() };
        check_in(gbk, "'ü' a".as_bytes(), "t:'ü' w:a", Traits::FOREIGN_TEXT);
        let hidden = Traits::FOREIGN_TEXT | Traits::DOUBT | Traits::UNTERMINATED;
        check_in(gbk, b"'\xbf\\' a", "t:'\u{fffd}\\' a", hidden);
        check_in(Mode::default(), b"a \x00", "w:a \0", Traits::DOUBT);
    }

    #[test]
    fn gaps_are_noticed() {
        let sql = b"a b(/**/c/* pointsman: x */d";
        let mut lexer = Lexer::new(sql, &Mode::default());
        let gaps: Vec<bool> = std::iter::from_fn(|| lexer.next_token()).map(|token| token.gap).collect();
        assert_eq!(gaps, [false, true, false, true, false, true]);
    }
}
