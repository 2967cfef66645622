//! CREATE, ALTER, DROP, RENAME, GRANT and REVOKE: definitions and accounts.

use super::draft::Draft;
use super::mode::Catalogue;
use super::survey::survey;
use super::text::Text;
use crate::intent::{Effects, Kind};

/// The words between CREATE and what is created are few; the first of these words says what it is.
const OBJECTS: [&str; 22] = [
    "table",
    "view",
    "database",
    "schema",
    "procedure",
    "function",
    "trigger",
    "event",
    "package",
    "user",
    "role",
    "index",
    "sequence",
    "server",
    "tablespace",
    "instance",
    "logfile",
    "resource",
    "spatial",
    "undo",
    "library",
    "materialized",
];

/// CREATE, ALTER, DROP, RENAME and TRUNCATE.
pub(super) fn define(text: &Text<'_>, catalogue: &Catalogue) -> Draft {
    let Some(at) = object(text) else { return Draft::ddl("changes definitions") };
    let temporary = (1..at).any(|before| text.is(before, "temporary"));
    if temporary && text.is_any(0, &["create", "drop"]) {
        return temporary_table(text, catalogue);
    }
    let draft = Draft::ddl("changes definitions");
    if text.is_any(at, &["user", "role"]) {
        return draft.with(Effects::ACCOUNTS_CHANGED);
    }
    if text.is_any(at, &["table", "sequence"]) && text.is(0, "create") {
        return selecting(draft, text, catalogue);
    }
    let reached =
        ["view", "database", "schema", "procedure", "function", "package", "trigger", "event", "library"];
    if text.is_any(at, &reached) || text.is(0, "rename") {
        return draft.with(Effects::CATALOGUE_CHANGED);
    }
    draft
}

/// CREATE TABLE ... SELECT calls what it selects; elsewhere a call is a part of the definition.
fn selecting(draft: Draft, text: &Text<'_>, catalogue: &Catalogue) -> Draft {
    let selects = (0..text.len()).any(|at| text.is(at, "select"));
    if selects { draft.surveyed(&survey(text, catalogue)) } else { draft }
}

fn temporary_table(text: &Text<'_>, catalogue: &Catalogue) -> Draft {
    let draft = Draft::primary(Kind::TemporaryTable, "a temporary table belongs to the connection")
        .with(Effects::MAY_COMMIT);
    let draft = selecting(draft, text, catalogue);
    if text.is(0, "create") { draft.with(Effects::TEMPORARY_TABLE) } else { draft }
}

/// GRANT and REVOKE.
pub(super) fn grant() -> Draft {
    Draft::ddl("changes what accounts may do").with(Effects::ACCOUNTS_CHANGED)
}

/// Where the kind of object stands; a name behind `DEFINER =` is none.
fn object(text: &Text<'_>) -> Option<usize> {
    (1..text.len()).find(|at| text.is_any(*at, &OBJECTS) && !text.symbol(at - 1, b'='))
}

/// Whether the statement defines a program, whose body holds statements of its own.
pub(super) fn has_body(text: &Text<'_>) -> bool {
    if !text.is_any(0, &["create", "alter"]) {
        return false;
    }
    object(text).is_some_and(|at| {
        text.is_any(at, &["procedure", "function", "trigger", "event", "package", "library"])
    })
}
