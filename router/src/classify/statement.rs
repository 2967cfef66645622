//! Which reader a statement belongs to, by its first words; and several statements in one text.

use super::administration as admin;
use super::define;
use super::draft::Draft;
use super::mode::Catalogue;
use super::read;
use super::session_statement as session;
use super::survey::survey;
use super::text::Text;
use super::transaction;
use crate::intent::{Action, Effects, Kind, Needs, Target};

/// What a whole text does: one statement, several, or none.
pub(super) fn whole(text: &Text<'_>, catalogue: &Catalogue) -> Draft {
    let mut rest = *text;
    let mut parts = Vec::new();
    while let Some(end) = (0..rest.len()).find(|at| rest.symbol(*at, b';')) {
        if holds_statements(&rest) {
            break;
        }
        let part = Text { tokens: &rest.tokens[..end], ..rest };
        if part.len() > 0 {
            parts.push(single(&part, catalogue));
        }
        rest = rest.tail(end + 1);
    }
    if rest.len() > 0 {
        let part = single(&rest, catalogue);
        let open = rest.mode.multi_statements && (0..rest.len()).any(|at| rest.symbol(at, b';'));
        // Where a body ends is not known, so statements may follow it.
        parts.push(if open { part.with(Effects::UNKNOWN_STATE) } else { part });
    }
    match parts.len() {
        0 => Draft::new(Kind::Empty, Target::Any, "no statement"),
        1 => parts.remove(0),
        _ => several(parts),
    }
}

/// What one statement does.
pub(super) fn single(text: &Text<'_>, catalogue: &Catalogue) -> Draft {
    if read::begins_query(text) {
        return read::query(text, catalogue);
    }
    let first = text.bytes(0).to_ascii_lowercase();
    match first.as_slice() {
        b"insert" | b"update" | b"delete" | b"replace" => write(text, catalogue),
        b"set" => super::set::set(text, catalogue),
        b"begin" => transaction::begin(text),
        b"start" => transaction::start(text),
        b"commit" => transaction::commit(text),
        b"rollback" => transaction::rollback(text),
        b"savepoint" => transaction::savepoint(),
        b"release" => transaction::savepoint(),
        b"xa" => transaction::xa(text),
        b"show" => super::show::show(text, catalogue),
        b"explain" | b"describe" | b"desc" => read::explain(text, catalogue),
        b"analyze" => read::analyze(text, catalogue),
        b"do" => read::do_statement(text, catalogue),
        b"help" => super::show::help(text),
        b"use" => session::use_schema(text),
        b"kill" => session::kill(text),
        b"prepare" => session::prepare(text, catalogue),
        b"execute" => session::execute(text, catalogue),
        b"deallocate" => session::deallocate(),
        b"drop" if text.is(1, "prepare") => session::deallocate(),
        b"create" | b"alter" | b"drop" | b"rename" | b"truncate" => define::define(text, catalogue),
        b"grant" | b"revoke" => define::grant(),
        b"call" => call(text, catalogue),
        b"load" => load(text, catalogue),
        b"get" => diagnostics(text),
        _ => administrative(text, &first),
    }
}

fn administrative(text: &Text<'_>, first: &[u8]) -> Draft {
    match first {
        b"lock" => admin::lock(text),
        b"unlock" => admin::unlock(text),
        b"flush" => admin::flush(text),
        b"backup" => admin::backup(text),
        b"handler" => admin::handler(text),
        b"optimize" | b"repair" | b"check" | b"checksum" | b"cache" => admin::of_tables("looks after tables"),
        b"import" | b"install" | b"uninstall" => Draft::ddl("changes definitions"),
        b"reset" | b"change" | b"purge" | b"stop" | b"shutdown" | b"restart" | b"binlog" | b"clone" => {
            admin::plain("administers the server")
        }
        b"signal" | b"resignal" => Draft::primary(Kind::Diagnostics, "raises a condition"),
        _ if holds_statements(text) => block(text),
        _ => Draft::unknown("not a statement that is known"),
    }
}

/// A block of statements outside of a stored program (MariaDB's `BEGIN NOT ATOMIC` and its kin).
pub(super) fn block(_text: &Text<'_>) -> Draft {
    Draft::primary(Kind::Call, "a block of statements may do anything")
        .with(Effects::UNKNOWN_STATE | Effects::MAY_COMMIT)
        .uncached()
}

/// Whether semicolons separate statements inside of this one: a program's body, or a block.
fn holds_statements(text: &Text<'_>) -> bool {
    if define::has_body(text) || text.symbol(1, b':') || text.symbol(0, b'<') {
        return true;
    }
    let begins = text.is(0, "begin") && text.len() > 1 && !text.symbol(1, b';');
    let begins = begins && !(text.is(1, "work") && (text.len() == 2 || text.symbol(2, b';')));
    (text.is(0, "begin") && text.mode.oracle)
        || begins
        || text.is_any(0, &["if", "case", "while", "loop", "repeat", "for", "declare"])
}

fn write(text: &Text<'_>, catalogue: &Catalogue) -> Draft {
    let found = survey(text, catalogue);
    let mut draft = Draft::primary(Kind::Write, "writes").surveyed(&found);
    if text.is_any(0, &["insert", "replace"]) {
        draft = draft.needing(Needs::MAY_KEEP_INSERT_ID);
    }
    let accounts = (0..text.len()).any(|at| text.is(at, "mysql") && text.symbol(at + 1, b'.'));
    if accounts || text.mode.system_schema { draft.with(Effects::ACCOUNTS_CHANGED) } else { draft }
}

fn call(text: &Text<'_>, catalogue: &Catalogue) -> Draft {
    Draft::primary(Kind::Call, "a procedure may do anything")
        .with(Effects::UNKNOWN_STATE | Effects::MAY_COMMIT)
        .surveyed(&survey(text, catalogue))
}

/// LOAD DATA, LOAD XML, LOAD INDEX.
fn load(text: &Text<'_>, catalogue: &Catalogue) -> Draft {
    if !text.is_any(1, &["data", "xml"]) {
        return admin::of_tables("looks after tables");
    }
    let found = survey(text, catalogue);
    let local = (2..4).any(|at| text.is(at, "local"));
    let (kind, reason) =
        if local { (Kind::LoadLocal, "loads a file of the client") } else { (Kind::Write, "loads a file") };
    let draft = Draft::primary(kind, reason).needing(Needs::MAY_KEEP_INSERT_ID).surveyed(&found);
    // A column list may assign to user variables: `(a, @b)`.
    let variables = found.needs.contains(Needs::USER_VARIABLES);
    if variables { draft.with(Effects::UNTRACKED_USER_VARIABLE) } else { draft }
}

/// `GET [CURRENT | STACKED] DIAGNOSTICS @v = ...`
fn diagnostics(text: &Text<'_>) -> Draft {
    if !(1..3).any(|at| text.is(at, "diagnostics")) {
        return Draft::unknown("not a statement that is known");
    }
    Draft::session(Kind::Diagnostics, "asks about the statement before")
        .with(Effects::UNTRACKED_USER_VARIABLE)
        .needing(Needs::DIAGNOSTICS)
}

/// Several statements in one text: the strictest decides.
fn several(parts: Vec<Draft>) -> Draft {
    let mut whole = Draft::new(Kind::Multi, Target::Any, "several statements, all of them constants")
        .with(Effects::MAY_COMMIT)
        .needing(Needs::MULTI_STATEMENTS)
        .uncached();
    let mut first = true;
    for part in parts {
        let target = if first { part.target } else { together(whole.target, part.target) };
        if first || target != whole.target {
            whole.reason = format!("several statements: {}", part.reason);
        }
        first = false;
        whole.target = target;
        whole.effects |= part.effects;
        whole.needs |= part.needs;
        whole.actions.extend(part.actions.into_iter().filter(belongs_to_several));
    }
    whole
}

/// The target of two statements that run on the same server.
fn together(one: Target, other: Target) -> Target {
    match (one, other) {
        (Target::Any | Target::Replica, Target::Replica) | (Target::Replica, Target::Any) => Target::Replica,
        _ if one == other => one,
        _ => Target::Primary,
    }
}

/// What Pointsman answers itself cannot be one of several statements that a server answers.
fn belongs_to_several(action: &Action) -> bool {
    match action {
        Action::SetConsistency(_) | Action::RefuseConsistency(_) | Action::Kill { .. } => false,
        Action::SetVariable { .. }
        | Action::SetNames { .. }
        | Action::SetUserVariable { .. }
        | Action::SetTransaction { .. }
        | Action::SetAutocommit(_)
        | Action::SetFromExpression { .. }
        | Action::SetRole { .. }
        | Action::Use(_) => true,
    }
}
