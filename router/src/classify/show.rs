//! SHOW: questions about data, about the server, or about the statement before.

use super::draft::Draft;
use super::mode::Catalogue;
use super::survey::survey;
use super::text::Text;
use crate::intent::{Kind, Needs, Target};

/// SHOW in all its forms.
pub(super) fn show(text: &Text<'_>, catalogue: &Catalogue) -> Draft {
    let mut at = 1;
    while text.is_any(at, &["full", "extended"]) {
        at += 1;
    }
    if text.is_any(at, &["warnings", "errors"]) || asks_for_count(text, at) {
        return Draft::session(Kind::Diagnostics, "asks about the statement before")
            .needing(Needs::DIAGNOSTICS);
    }
    if text.is_any(at, &["processlist", "explain", "analyze"]) {
        return of_connections("shows connections of the server");
    }
    match describes_data(text, at) {
        Some(rest) => of_data(&text.tail(rest), catalogue),
        None => Draft::primary(Kind::ServerQuestion, "asks about the server").needing(needs(text, at)),
    }
}

/// A question about the server's connections, whose ids are in the question or in the answer.
pub(super) fn of_connections(reason: &str) -> Draft {
    Draft::primary(Kind::ServerQuestion, reason).needing(Needs::PROCESS_IDS)
}

/// HELP reads tables that every server has.
pub(super) fn help(text: &Text<'_>) -> Draft {
    if text.len() != 2 || text.symbol(1, b'(') {
        return Draft::unknown("no topic behind HELP");
    }
    Draft::new(Kind::Read, Target::Replica, "reads the server's help")
}

/// `SHOW COUNT(*) WARNINGS | ERRORS`
fn asks_for_count(text: &Text<'_>, at: usize) -> bool {
    text.is(at, "count") && text.symbol(at + 1, b'(') && text.is_any(at + 4, &["warnings", "errors"])
}

/// Where the rest begins of a question about data that is the same on every server.
fn describes_data(text: &Text<'_>, at: usize) -> Option<usize> {
    let one = [
        "tables",
        "columns",
        "fields",
        "index",
        "indexes",
        "keys",
        "databases",
        "schemas",
        "triggers",
        "events",
        "collation",
        "charset",
    ];
    if text.is_any(at, &one) {
        return Some(at + 1);
    }
    let created = [
        "table",
        "view",
        "database",
        "schema",
        "procedure",
        "function",
        "trigger",
        "event",
        "sequence",
        "package",
    ];
    let two = (text.is(at, "create") && text.is_any(at + 1, &created))
        || text.reads(at, &["table", "status"])
        || text.reads(at, &["character", "set"])
        || text.reads(at, &["char", "set"])
        || text.reads(at, &["procedure", "status"])
        || text.reads(at, &["function", "status"]);
    two.then_some(at + 2)
}

/// The patterns and conditions behind the question may hold anything that an expression may.
fn of_data(rest: &Text<'_>, catalogue: &Catalogue) -> Draft {
    let found = survey(rest, catalogue);
    match found.worst() {
        Some(objection) => Draft::objected(&objection, &found, rest),
        None => Draft::new(Kind::Read, Target::Replica, "asks about definitions").surveyed(&found),
    }
}

/// InnoDB's status names connections; the state of binary logs and replication is that of one server.
fn needs(text: &Text<'_>, at: usize) -> Needs {
    let replication =
        ["all", "binary", "binlog", "master", "relaylog", "replica", "replicas", "slave", "slaves", "gtid"];
    if text.is(at, "engine") {
        Needs::PROCESS_IDS
    } else if text.is_any(at, &replication) {
        Needs::PRIMARY_ITSELF
    } else {
        Needs::empty()
    }
}
