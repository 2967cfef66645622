//! One assignment of a SET: the name, the scope, and whether the value can be set again elsewhere.

use std::borrow::Cow;

use super::directive::{self, CONSISTENCY_VARIABLE};
use super::draft::Draft;
use super::set::lossy;
use super::text::{Text, unquote_name};
use super::token::TokenKind;
use crate::intent::{Action, Effects};

/// For whom a variable is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    Session,
    /// The server, or its configuration.
    Global,
}

/// Whose variable an item sets, and where its value begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) scope: Scope,
    pub(super) value: usize,
}

/// The name on the left of an assignment.
struct Target {
    scope: Scope,
    /// `@@name` without a scope means the next transaction for some variables.
    bare: bool,
    /// Lower case.
    name: String,
    /// Where the value begins.
    value: usize,
}

/// Reads `[scope] name = value` or `@@[scope.]name = value`.
pub(super) fn system_variable(item: &Text<'_>, draft: &mut Draft) -> Option<Place> {
    let target = target(item)?;
    if target.scope == Scope::Session {
        assign(item, &target, &item.tail(target.value), draft)?;
    }
    Some(Place { scope: target.scope, value: target.value })
}

fn target(item: &Text<'_>) -> Option<Target> {
    let (scope, bare, from) = if item.kind(0) == Some(TokenKind::SystemVariable) {
        let lower = item.bytes(0).to_ascii_lowercase();
        let global = [&b"@@global"[..], b"@@persist"].iter().any(|scope| lower.starts_with(scope));
        let named =
            global || [&b"@@session"[..], b"@@local"].iter().any(|scope| has_scope(item, &lower, scope));
        (if global { Scope::Global } else { Scope::Session }, !named, 0)
    } else if item.is_any(0, &["global", "persist", "persist_only"]) && item.name(1).is_some() {
        (Scope::Global, false, 1)
    } else {
        let scoped = item.is_any(0, &["session", "local"]) && item.name(1).is_some();
        (Scope::Session, false, usize::from(scoped))
    };
    let (name, sign) = if item.kind(0) == Some(TokenKind::SystemVariable) {
        let sign = (1..item.len().min(4)).find(|at| is_sign(item, *at))?;
        (super::survey::system_variable(item, 0), sign)
    } else {
        dotted_name(item, from)?
    };
    let name = String::from_utf8(name).ok()?;
    (sign + 1 < item.len()).then_some(Target { scope, bare, name, value: sign + 1 })
}

fn has_scope(item: &Text<'_>, lower: &[u8], scope: &[u8]) -> bool {
    match lower.strip_prefix(scope) {
        Some(rest) => rest.first() == Some(&b'.') || (rest.is_empty() && item.symbol(1, b'.')),
        None => false,
    }
}

fn is_sign(item: &Text<'_>, at: usize) -> bool {
    item.symbol(at, b'=') || item.kind(at) == Some(TokenKind::Assign)
}

/// A name with points, in lower case, and where the sign stands behind it.
fn dotted_name(item: &Text<'_>, from: usize) -> Option<(Vec<u8>, usize)> {
    let mut name = item.name(from)?.to_ascii_lowercase();
    let mut at = from + 1;
    while item.symbol(at, b'.') {
        name.push(b'.');
        name.extend(item.name(at + 1)?.to_ascii_lowercase());
        at += 2;
    }
    is_sign(item, at).then_some((name, at))
}

/// Records the assignment of a session variable.
fn assign(item: &Text<'_>, target: &Target, value: &Text<'_>, draft: &mut Draft) -> Option<()> {
    let name: Box<str> = target.name.as_str().into();
    match target.name.as_str() {
        name if name.as_bytes() == CONSISTENCY_VARIABLE => return consistency(value, draft),
        "autocommit" => autocommit(value, draft),
        "transaction_isolation" | "tx_isolation" | "transaction_read_only" | "tx_read_only"
            if target.bare =>
        {
            draft.effects |= Effects::ONE_SHOT;
            let sql = format!("SET {}", lossy(item.between(0, item.len())));
            draft.actions.push(Action::SetTransaction { session: false, sql: sql.into() });
        }
        "insert_id" | "rand_seed1" | "rand_seed2" => draft.effects |= Effects::ONE_SHOT,
        "last_insert_id" | "identity" => draft.effects |= Effects::SETS_INSERT_ID,
        // These hold for what the connection writes, or leave something behind on it.
        "sql_log_bin"
        | "gtid_next"
        | "gtid_domain_id"
        | "gtid_seq_no"
        | "server_id"
        | "skip_replication"
        | "pseudo_thread_id"
        | "pseudo_slave_mode"
        | "pseudo_replica_mode"
        | "profiling"
        | "debug"
        | "debug_dbug"
        | "debug_sync"
        | "wsrep_on" => {
            draft.effects |= Effects::UNTRACKED_SET;
            draft.actions.push(Action::SetFromExpression { name });
        }
        _ => match word_or_literal(value).and_then(|value| String::from_utf8(value.to_vec()).ok()) {
            Some(value) => draft.actions.push(Action::SetVariable { name, value: value.into() }),
            None => {
                draft.effects |= Effects::UNTRACKED_SET;
                draft.actions.push(Action::SetFromExpression { name });
            }
        },
    }
    Some(())
}

fn autocommit(value: &Text<'_>, draft: &mut Draft) {
    draft.effects |= Effects::AUTOCOMMIT_CHANGED | Effects::MAY_COMMIT;
    let word = word_or_literal(value).unwrap_or_default().to_ascii_lowercase();
    let on = match unquote(&word) {
        b"1" | b"on" | b"true" => true,
        b"0" | b"off" | b"false" => false,
        _ => {
            draft.effects |= Effects::IMPLICIT_COMMIT | Effects::UNTRACKED_SET;
            draft.actions.push(Action::SetFromExpression { name: "autocommit".into() });
            return;
        }
    };
    draft.effects.set(Effects::IMPLICIT_COMMIT, on);
    draft.actions.push(Action::SetAutocommit(on));
}

/// `SET pointsman_consistency = session | eventual | global | DEFAULT`, with or without quotes.
fn consistency(value: &Text<'_>, draft: &mut Draft) -> Option<()> {
    let alone = word_or_string(value, 0).filter(|_| value.len() == 1);
    let name = alone.unwrap_or_else(|| value.between(0, value.len()));
    draft.actions.push(match directive::consistency(name) {
        None if !name.eq_ignore_ascii_case(b"default") => {
            Action::RefuseConsistency(String::from_utf8_lossy(name).into())
        }
        level => Action::SetConsistency(level),
    });
    "sets how much reads must have seen".clone_into(&mut draft.reason);
    Some(())
}

/// The name of the user variable that an item begins with, without `@`, in lower case.
pub(super) fn user_variable_name(item: &Text<'_>) -> Option<Box<str>> {
    let bytes = item.bytes(0).strip_prefix(b"@")?;
    let name = match bytes.first()? {
        b'`' | b'"' | b'\'' => unquote_name(bytes)?,
        _ => Cow::Borrowed(bytes),
    };
    Some(String::from_utf8(name.into_owned()).ok()?.to_lowercase().into())
}

/// The SQL text of a value that is a literal: a number with any sign, a string with any introducer, NULL, TRUE, FALSE.
pub(super) fn literal<'a>(value: &Text<'a>) -> Option<&'a [u8]> {
    let constant = |at: usize| matches!(value.kind(at), Some(TokenKind::Number | TokenKind::Text));
    let is_literal = match value.len() {
        1 => constant(0) || value.is_any(0, &["null", "true", "false"]),
        2 => {
            let signed =
                (value.symbol(0, b'-') || value.symbol(0, b'+')) && value.kind(1) == Some(TokenKind::Number);
            let introduced = value.kind(0) == Some(TokenKind::Word)
                && value.bytes(0).starts_with(b"_")
                && value.kind(1) == Some(TokenKind::Text);
            signed || introduced
        }
        _ => false,
    };
    is_literal.then(|| value.between(0, value.len()))
}

/// The SQL text of a value of a system variable: a literal, or a word such as ON, DEFAULT or utf8mb4.
fn word_or_literal<'a>(value: &Text<'a>) -> Option<&'a [u8]> {
    let word = value.len() == 1 && matches!(value.kind(0), Some(TokenKind::Word | TokenKind::QuotedName));
    if word { Some(value.bytes(0)) } else { literal(value) }
}

/// A word, or the inside of a string without escapes.
pub(super) fn word_or_string<'a>(text: &Text<'a>, at: usize) -> Option<&'a [u8]> {
    let bytes = text.bytes(at);
    let kind = text.kind(at)?;
    if kind == TokenKind::Word {
        return Some(bytes);
    }
    matches!(kind, TokenKind::Text | TokenKind::QuotedName).then(|| unquote(bytes))
}

fn unquote(bytes: &[u8]) -> &[u8] {
    match bytes {
        [b'\'', inside @ .., b'\''] | [b'"', inside @ .., b'"'] | [b'`', inside @ .., b'`'] => inside,
        _ => bytes,
    }
}

/// Whether an assignment of SET STATEMENT leaves open where its statement may run: its value is a literal, and it
/// does not change how text is read.
pub(super) fn is_harmless_for_one_statement(item: &Text<'_>) -> bool {
    let Some(target) = target(item) else { return false };
    let reads_text = target.name == "sql_mode" || target.name.starts_with("character_set");
    target.scope == Scope::Session && !reads_text && word_or_literal(&item.tail(target.value)).is_some()
}
