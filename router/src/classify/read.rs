//! SELECT and its kin: what may be read, and from where.

use super::draft::Draft;
use super::mode::Catalogue;
use super::opinion::{self, Opinion};
use super::survey::{Survey, survey};
use super::text::Text;
use crate::intent::{Flavour, Kind, Needs, Target};

/// SELECT, WITH, VALUES, TABLE, or one of them in parentheses.
pub(super) fn query(text: &Text<'_>, catalogue: &Catalogue) -> Draft {
    let found = survey(text, catalogue);
    if let Some(objection) = found.worst() {
        return Draft::objected(&objection, &found, text);
    }
    match opinion::ask(text) {
        Opinion::NotRead(why) => {
            let mut draft = Draft::primary(Kind::UnprovenRead, "the parser sees ");
            draft.reason.push_str(why);
            draft.surveyed(&found)
        }
        Opinion::Read | Opinion::Silent => proven(&found, text),
    }
}

fn proven(found: &Survey, text: &Text<'_>) -> Draft {
    let (target, reason) = if found.reads_tables || text.is(0, "table") {
        (Target::Replica, "a pure read")
    } else if found.calls {
        (Target::Replica, "a pure read without tables")
    } else {
        (Target::Any, "constants only")
    };
    let mut draft = Draft::new(Kind::Read, target, reason);
    draft.effects = found.effects;
    draft.needs = found.needs;
    draft.cacheable = !found.literals_matter;
    draft
}

/// `DO expression, ...`: a SELECT without an answer.
pub(super) fn do_statement(text: &Text<'_>, catalogue: &Catalogue) -> Draft {
    let found = survey(&text.tail(1), catalogue);
    match found.worst() {
        Some(objection) => Draft::objected(&objection, &found, &text.tail(1)),
        None => proven(&found, text),
    }
}

/// EXPLAIN, DESCRIBE and DESC: of a table, of a statement, or of a connection's statement.
pub(super) fn explain(text: &Text<'_>, catalogue: &Catalogue) -> Draft {
    let (at, analyze) = explain_options(text);
    if text.is(at, "for") && text.is(at + 1, "connection") {
        return super::show::of_connections("explains a statement of a connection");
    }
    let inner = text.tail(at);
    if begins_query(&inner) {
        return query(&inner, catalogue);
    }
    if inner.is_any(0, &["insert", "update", "delete", "replace"]) {
        let kind = if analyze { Kind::Write } else { Kind::UnprovenRead };
        let found = survey(&inner, catalogue);
        return Draft::primary(kind, "explains a write").surveyed(&found);
    }
    if at == 1 {
        return describe_table(&inner, catalogue);
    }
    Draft::primary(Kind::UnprovenRead, "explains what is not known")
}

/// `ANALYZE statement` of MariaDB runs the statement; ANALYZE TABLE is administration.
pub(super) fn analyze(text: &Text<'_>, catalogue: &Catalogue) -> Draft {
    let (at, _) = explain_options(text);
    let inner = text.tail(at);
    let runs = begins_query(&inner) && !inner.is(0, "table");
    if runs && text.mode.flavour == Flavour::Mariadb {
        return query(&inner, catalogue);
    }
    if inner.is_any(0, &["insert", "update", "delete", "replace"]) {
        let found = survey(&inner, catalogue);
        let draft = Draft::primary(Kind::Write, "runs the write that it analyzes").surveyed(&found);
        return draft.needing(Needs::MAY_KEEP_INSERT_ID);
    }
    super::administration::of_tables("analyzes tables")
}

/// Whether a statement is a query by its first word.
pub(super) fn begins_query(text: &Text<'_>) -> bool {
    let first = (0..text.len()).find(|at| !text.symbol(*at, b'('));
    first.is_some_and(|at| text.is_any(at, &["select", "with", "table", "values"]))
}

/// Where the explained statement or table begins, and whether ANALYZE stands before it.
fn explain_options(text: &Text<'_>) -> (usize, bool) {
    let mut at = 1;
    let mut analyze = false;
    loop {
        if text.is(at, "analyze") {
            analyze = true;
            at += 1;
        } else if text.is_any(at, &["extended", "partitions"]) && text.len() > at + 1 {
            at += 1;
        } else if text.is(at, "format") && text.symbol(at + 1, b'=') {
            at += 3;
        } else {
            return (at, analyze);
        }
    }
}

/// `DESCRIBE table [column | 'pattern']`
fn describe_table(inner: &Text<'_>, catalogue: &Catalogue) -> Draft {
    if inner.name(0).is_none() || inner.len() > 4 {
        return Draft::primary(Kind::UnprovenRead, "describes what is not known");
    }
    let found = survey(inner, catalogue);
    match found.worst() {
        Some(objection) => Draft::objected(&objection, &found, inner),
        None => Draft::new(Kind::Read, Target::Replica, "describes a table").surveyed(&found),
    }
}
