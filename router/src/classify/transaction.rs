//! BEGIN, COMMIT, ROLLBACK, savepoints and XA.

use super::draft::Draft;
use super::text::Text;
use crate::intent::{Effects, Kind, Target};

/// `BEGIN [WORK]`; anything else that begins so is a block of statements.
pub(super) fn begin(text: &Text<'_>) -> Draft {
    let plain = text.len() == 1 || (text.len() == 2 && text.is(1, "work"));
    if !plain || text.mode.oracle {
        return super::statement::block(text);
    }
    started(Kind::Begin, Target::Primary, "begins a transaction")
}

/// `START TRANSACTION [WITH CONSISTENT SNAPSHOT] [READ ONLY | READ WRITE], ...`
pub(super) fn start(text: &Text<'_>) -> Draft {
    if !text.is(1, "transaction") {
        return super::administration::plain("starts a service of the server");
    }
    let has = |words: &[&str]| (2..text.len()).any(|at| text.reads(at, words));
    let draft = if has(&["read", "only"]) && !has(&["read", "write"]) {
        started(Kind::BeginReadOnly, Target::Replica, "begins a read-only transaction")
    } else {
        started(Kind::Begin, Target::Primary, "begins a transaction")
    };
    if has(&["with", "consistent", "snapshot"]) { draft.with(Effects::CONSISTENT_SNAPSHOT) } else { draft }
}

fn started(kind: Kind, target: Target, reason: &str) -> Draft {
    Draft::new(kind, target, reason).with(Effects::IMPLICIT_COMMIT | Effects::MAY_COMMIT)
}

/// `COMMIT [WORK] [AND [NO] CHAIN] [[NO] RELEASE]`
pub(super) fn commit(text: &Text<'_>) -> Draft {
    ended(text, Draft::new(Kind::Commit, Target::SameAsTransaction, "ends the transaction"))
}

/// ROLLBACK, whole or to a savepoint.
pub(super) fn rollback(text: &Text<'_>) -> Draft {
    let work = usize::from(text.is(1, "work"));
    if text.is(1 + work, "to") {
        return savepoint();
    }
    ended(text, Draft::new(Kind::Rollback, Target::SameAsTransaction, "ends the transaction"))
}

fn ended(text: &Text<'_>, draft: Draft) -> Draft {
    let releases = (1..text.len()).any(|at| text.is(at, "release") && !text.is(at - 1, "no"));
    if releases { draft.with(Effects::CLOSES_CONNECTION) } else { draft }
}

/// SAVEPOINT, RELEASE SAVEPOINT and ROLLBACK TO.
pub(super) fn savepoint() -> Draft {
    Draft::new(Kind::Savepoint, Target::SameAsTransaction, "a mark inside of the transaction")
}

/// XA in all its forms. What it opens is not in the status flags at all times, so the session stays where it is.
pub(super) fn xa(text: &Text<'_>) -> Draft {
    let draft = Draft::primary(Kind::Xa, "a distributed transaction").with(Effects::MAY_COMMIT);
    if text.is_any(1, &["start", "begin"]) { draft.with(Effects::UNKNOWN_STATE) } else { draft }
}
