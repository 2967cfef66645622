//! Finds calls and variables in a statement whose values Pointsman puts in their place.

use std::ops::Range;

use super::lexer::Lexer;
use super::mode::Mode;
use super::survey::system_variable;
use super::text::Text;
use super::token::{Token, TokenKind};

/// Where a call or a variable stands in a statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Byte range of the whole expression, with its parentheses.
    pub range: Range<usize>,
    /// It is an item of a select list on its own and without an alias: its text names the column.
    pub alone_in_select_list: bool,
}

/// Calls of a function without quotes or schema in front.
pub fn calls(sql: &[u8], mode: &Mode, name: &str) -> Vec<Call> {
    find(sql, mode, |text, at| {
        let member = at > 0 && text.symbol(at - 1, b'.');
        if !text.is(at, name) || member || !text.symbol(at + 1, b'(') {
            return None;
        }
        text.close_of(at + 1)
    })
}

/// References to a system variable, in any scope.
pub fn variables(sql: &[u8], mode: &Mode, name: &str) -> Vec<Call> {
    find(sql, mode, |text, at| {
        let is_variable = text.kind(at) == Some(TokenKind::SystemVariable);
        if !is_variable || !system_variable(text, at).eq_ignore_ascii_case(name.as_bytes()) {
            return None;
        }
        // The scope may stand apart: `@@session . socket`.
        Some(if text.symbol(at + 1, b'.') { at + 2 } else { at })
    })
}

/// All places where an expression begins whose last token `ends` gives.
fn find(sql: &[u8], mode: &Mode, ends: impl Fn(&Text<'_>, usize) -> Option<usize>) -> Vec<Call> {
    let mut lexer = Lexer::new(sql, mode);
    let tokens: Vec<Token> =
        std::iter::from_fn(|| lexer.next_token()).filter(|token| !token.is_comment()).collect();
    let text = Text { sql, tokens: &tokens, mode };
    let mut found = Vec::new();
    let mut lists = SelectLists::default();
    for at in 0..text.len() {
        lists.pass(&text, at);
        let Some(end) = ends(&text, at) else { continue };
        let (Some(first), Some(last)) = (text.token(at), text.token(end)) else { continue };
        let alone = lists.inside() && begins_item(&text, at) && ends_item(&text, end + 1);
        found.push(Call { range: first.start..last.end, alone_in_select_list: alone });
    }
    found
}

/// Whether the walk is directly inside a select list, for each open parenthesis.
struct SelectLists {
    open: Vec<bool>,
}

impl Default for SelectLists {
    fn default() -> Self {
        Self { open: vec![false] }
    }
}

impl SelectLists {
    fn inside(&self) -> bool {
        self.open.last().copied().unwrap_or_default()
    }

    fn pass(&mut self, text: &Text<'_>, at: usize) {
        match text.kind(at) {
            Some(TokenKind::Symbol(b'(')) => self.open.push(false),
            Some(TokenKind::Symbol(b')')) => {
                self.open.pop();
            }
            Some(TokenKind::Symbol(b';')) => *self = Self::default(),
            _ if text.is(at, "select") => self.set(true),
            _ if text.is_any(at, &LIST_ENDS) => self.set(false),
            _ => {}
        }
    }

    fn set(&mut self, inside: bool) {
        if let Some(last) = self.open.last_mut() {
            *last = inside;
        }
    }
}

/// The words that may follow the last item of a select list.
const LIST_ENDS: [&str; 13] = [
    "from",
    "where",
    "group",
    "having",
    "order",
    "limit",
    "union",
    "except",
    "intersect",
    "into",
    "for",
    "lock",
    "window",
];

fn begins_item(text: &Text<'_>, at: usize) -> bool {
    let modifiers = [
        "select",
        "all",
        "distinct",
        "distinctrow",
        "high_priority",
        "straight_join",
        "sql_small_result",
        "sql_big_result",
        "sql_buffer_result",
        "sql_cache",
        "sql_no_cache",
        "sql_calc_found_rows",
    ];
    at > 0 && (text.symbol(at - 1, b',') || text.is_any(at - 1, &modifiers))
}

fn ends_item(text: &Text<'_>, at: usize) -> bool {
    let end = matches!(text.kind(at), None | Some(TokenKind::Symbol(b',' | b')' | b';')));
    end || text.is_any(at, &LIST_ENDS)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The texts that were found; those that name a column end in `!`.
    #[track_caller]
    fn check(sql: &str, expected: &[&str]) {
        let mode = Mode::default();
        let found =
            calls(sql.as_bytes(), &mode, "f").into_iter().chain(variables(sql.as_bytes(), &mode, "v"));
        let found: Vec<String> = found
            .map(|call| format!("{}{}", &sql[call.range], if call.alone_in_select_list { "!" } else { "" }))
            .collect();
        assert_eq!(found, expected, "{sql}");
    }

    #[test]
    fn calls_are_found() {
        check("SELECT F ( )", &["F ( )!"]);
        check("SELECT f(), f( ), 1", &["f()!", "f( )!"]);
        check("SELECT DISTINCT f() FROM t", &["f()!"]);
        check("SELECT f() AS x, f() y, f() + 1, -f()", &["f()", "f()", "f()", "f()"]);
        check("SELECT g(1, f(), 2), (f())", &["f()", "f()"]);
        check("SELECT (SELECT f()), a FROM (SELECT f() FROM t) x", &["f()!", "f()!"]);
        check("SELECT a FROM t WHERE a IN (1, f(), 2) ORDER BY 1, f()", &["f()", "f()"]);
        check("SELECT 1 UNION SELECT f() LIMIT 1", &["f()!"]);
        check("SELECT 1; SELECT f();", &["f()!"]);
        check("SELECT f(a, (b), 'c)')", &["f(a, (b), 'c)')!"]);
        check("INSERT INTO t VALUES (1, f(), 2)", &["f()"]);
        check("SELECT 'f()', `f`(), x.f(), f, /* f() */ 1 -- f()", &[]);
        check("SELECT f(", &[]);
        check("SELECT f(/* ) */)", &["f(/* ) */)!"]);
    }

    #[test]
    fn variables_are_found() {
        check("SELECT @@v", &["@@v!"]);
        check("SELECT @@GLOBAL.V, @@session . v, @@`v` AS x", &["@@GLOBAL.V!", "@@session . v!", "@@`v`"]);
        check("SELECT @v, @@w, '@@v'", &[]);
    }
}
