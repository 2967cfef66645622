//! The parser's second opinion on what the scanner holds for a read.
//!
//! sqlparser knows the grammar better than a scanner and the servers' dialects worse: it takes about a twentieth of
//! the SELECTs that servers accept for errors. So it can take a statement away from the replicas, and never gives
//! one to them. It is guarded: it grows its stack by itself in most of its recursion, but not per JOIN, and its trees
//! are dropped recursively, so that both text and tokens are limited.

use std::ops::ControlFlow;

use sqlparser::ast::{Query, Select, SetExpr, Statement, Visit, Visitor};
use sqlparser::dialect::MySqlDialect;
use sqlparser::parser::Parser;

use super::text::Text;

/// The longest text that is parsed, in bytes.
const MAX_TEXT_BYTES: usize = 16 * 1024;
/// The most tokens that are parsed.
const MAX_TOKENS: usize = 2_000;
/// The most joins that are parsed: servers take 61 tables, and each JOIN costs the parser some KiB of stack.
const MAX_JOINS: usize = 64;

/// What the parser says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Opinion {
    Read,
    /// Not a read, and why.
    NotRead(&'static str),
    /// Cannot say: too long, or not its dialect.
    Silent,
}

/// What the parser says about the statement. The tokens may be a part of `text.sql`.
pub(super) fn ask(text: &Text<'_>) -> Opinion {
    let Some(sql) = parsable(text) else { return Opinion::Silent };
    let Ok(statements) = Parser::parse_sql(&MySqlDialect {}, sql) else { return Opinion::Silent };
    let [statement] = statements.as_slice() else { return Opinion::NotRead("more than one statement") };
    match statement.visit(&mut Reads) {
        ControlFlow::Continue(()) => Opinion::Read,
        ControlFlow::Break(why) => Opinion::NotRead(why),
    }
}

/// The statement's text, where the parser reads it as the server does and can bear it.
fn parsable<'a>(text: &Text<'a>) -> Option<&'a str> {
    let sql = text.between(0, text.len());
    let joins = (0..text.len()).filter(|at| text.is_any(*at, &["join", "straight_join"])).count();
    if sql.len() > MAX_TEXT_BYTES || text.len() > MAX_TOKENS || joins > MAX_JOINS {
        return None;
    }
    if (text.mode.no_backslash_escapes && sql.contains(&b'\\'))
        || (text.mode.ansi_quotes && sql.contains(&b'"'))
    {
        return None;
    }
    std::str::from_utf8(sql).ok()
}

/// Breaks at the first thing that no pure read holds.
struct Reads;

impl Visitor for Reads {
    type Break = &'static str;

    fn pre_visit_statement(&mut self, statement: &Statement) -> ControlFlow<Self::Break> {
        if matches!(statement, Statement::Query(_)) {
            ControlFlow::Continue(())
        } else {
            ControlFlow::Break("not a query")
        }
    }

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<Self::Break> {
        if !query.locks.is_empty() || query.for_clause.is_some() {
            return ControlFlow::Break("a locking clause");
        }
        match &*query.body {
            SetExpr::Select(_)
            | SetExpr::Query(_)
            | SetExpr::SetOperation { .. }
            | SetExpr::Values(_)
            | SetExpr::Table(_) => ControlFlow::Continue(()),
            SetExpr::Insert(_) | SetExpr::Update(_) | SetExpr::Delete(_) | SetExpr::Merge(_) => {
                ControlFlow::Break("a write inside of a query")
            }
        }
    }

    fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<Self::Break> {
        match select.into {
            Some(_) => ControlFlow::Break("SELECT INTO"),
            None => ControlFlow::Continue(()),
        }
    }
}
