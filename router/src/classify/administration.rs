//! Locks of tables and of the server, FLUSH, and the rest of administration.

use super::draft::Draft;
use super::text::Text;
use crate::intent::{Effects, Kind};

const COMMITS: Effects = Effects::IMPLICIT_COMMIT.union(Effects::MAY_COMMIT);

/// Administration without effects on the session.
pub(super) fn plain(reason: &str) -> Draft {
    Draft::primary(Kind::Administration, reason).with(COMMITS)
}

/// OPTIMIZE, REPAIR, CHECK, ANALYZE TABLE and the like; some write, and all are logged or lock.
pub(super) fn of_tables(reason: &str) -> Draft {
    plain(reason)
}

/// `LOCK TABLES`, `LOCK INSTANCE FOR BACKUP`, `LOCK TABLES FOR BACKUP`.
pub(super) fn lock(text: &Text<'_>) -> Draft {
    let draft = Draft::primary(Kind::Lock, "locks tables or the server").with(COMMITS);
    if text.is(1, "instance") || text.reads(2, &["for", "backup"]) || text.is(1, "binlog") {
        return draft.with(Effects::GLOBAL_READ_LOCK);
    }
    draft.with(Effects::LOCK_TABLES)
}

/// `UNLOCK TABLES`, `UNLOCK INSTANCE`.
pub(super) fn unlock(text: &Text<'_>) -> Draft {
    let draft = Draft::session(Kind::Lock, "releases locks of the session").with(COMMITS);
    if text.is_any(1, &["table", "tables"]) {
        return draft.with(Effects::UNLOCK_TABLES | Effects::GLOBAL_READ_UNLOCK);
    }
    draft.with(Effects::GLOBAL_READ_UNLOCK)
}

/// `BACKUP STAGE ...`, `BACKUP LOCK t`, `BACKUP UNLOCK` of MariaDB.
pub(super) fn backup(text: &Text<'_>) -> Draft {
    let draft = Draft::primary(Kind::Lock, "a stage of a backup").with(COMMITS);
    let ends = text.is(1, "unlock") || text.reads(1, &["stage", "end"]);
    draft.with(if ends { Effects::GLOBAL_READ_UNLOCK } else { Effects::GLOBAL_READ_LOCK })
}

/// FLUSH. With a list of tables it may lock these, without one all.
pub(super) fn flush(text: &Text<'_>) -> Draft {
    let local = usize::from(text.is_any(1, &["local", "no_write_to_binlog"]));
    let rest = text.tail(1 + local);
    if rest.is_any(0, &["table", "tables"]) {
        let locks = (1..rest.len())
            .any(|at| rest.reads(at, &["with", "read", "lock"]) || rest.reads(at, &["for", "export"]));
        if !locks {
            return plain("flushes tables");
        }
        let all = rest.is(1, "with");
        return Draft::primary(Kind::Lock, "locks tables against writes").with(COMMITS).with(if all {
            Effects::GLOBAL_READ_LOCK
        } else {
            Effects::LOCK_TABLES
        });
    }
    let accounts = (0..rest.len()).any(|at| rest.is(at, "privileges"));
    let draft = plain("flushes caches of the server");
    if accounts { draft.with(Effects::ACCOUNTS_CHANGED) } else { draft }
}

/// `HANDLER t OPEN | READ | CLOSE`
pub(super) fn handler(text: &Text<'_>) -> Draft {
    let draft = Draft::primary(Kind::Handler, "a handler belongs to the connection");
    let has = |word: &str| (2..text.len().min(6)).any(|at| text.is(at, word));
    if has("open") {
        return draft.with(Effects::HANDLER_OPEN);
    }
    if has("close") { draft.with(Effects::HANDLER_CLOSE) } else { draft }
}
