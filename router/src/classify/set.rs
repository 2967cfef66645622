//! SET in all its forms. sqlparser reads too few of them, and drops what the session has to know.

use super::draft::Draft;
use super::mode::Catalogue;
use super::set_value::{self, Place, Scope};
use super::survey::survey;
use super::text::Text;
use super::token::TokenKind;
use crate::intent::{Action, Effects, Kind, Target};

/// SET.
pub(super) fn set(text: &Text<'_>, catalogue: &Catalogue) -> Draft {
    let scoped = usize::from(text.is_any(1, &["session", "local", "global"]));
    if text.is(1 + scoped, "transaction") {
        return transaction(text, scoped).uncached();
    }
    if text.is(1, "statement") && !assigns(text, 2) {
        return for_statement(text, catalogue).uncached();
    }
    if text.reads(1, &["default", "role"]) {
        return super::define::grant().uncached();
    }
    if text.is(1, "role") && !assigns(text, 2) {
        return Draft::session(Kind::Set, "changes the session's role")
            .acting(Action::SetRole { sql: lossy(text.between(0, text.len())) });
    }
    if text.reads(1, &["resource", "group"]) {
        return untracked("binds the connection to a resource group");
    }
    assignments(text, catalogue).uncached()
}

/// The SQL text of bytes; what is not UTF-8 does not survive, and never counts as replayable.
pub(super) fn lossy(bytes: &[u8]) -> Box<str> {
    String::from_utf8_lossy(bytes).into()
}

fn untracked(reason: &str) -> Draft {
    Draft::session(Kind::Set, reason).with(Effects::UNTRACKED_SET)
}

fn assigns(text: &Text<'_>, at: usize) -> bool {
    text.symbol(at, b'=') || text.kind(at) == Some(TokenKind::Assign)
}

/// `SET [SESSION | LOCAL | GLOBAL] TRANSACTION ...`
fn transaction(text: &Text<'_>, scoped: usize) -> Draft {
    if text.is(1, "global") {
        return Draft::primary(Kind::SetTransaction, "sets a default of the server");
    }
    let sql = lossy(text.between(0, text.len()));
    let draft = Draft::session(Kind::SetTransaction, "sets how transactions of the session run")
        .acting(Action::SetTransaction { session: scoped == 1, sql });
    if scoped == 1 { draft } else { draft.with(Effects::ONE_SHOT) }
}

/// `SET STATEMENT a = 1, b = 2 FOR statement` of MariaDB: the variables hold for the statement only.
fn for_statement(text: &Text<'_>, catalogue: &Catalogue) -> Draft {
    let Some(end) = text.outside_parentheses(2, |at| text.is(at, "for")) else {
        return Draft::unknown("SET STATEMENT without a statement");
    };
    let inner = text.tail(end + 1);
    if inner.reads(0, &["set", "statement"]) {
        // Each level would take its part of the stack.
        return Draft::unknown("SET STATEMENT inside of SET STATEMENT");
    }
    let mut draft = super::statement::single(&inner, catalogue);
    let settings = Text { tokens: &text.tokens[2..end], ..*text };
    let harmless = settings.split(b',').iter().all(set_value::is_harmless_for_one_statement);
    if !harmless {
        draft.restrain("runs with settings that are not literals, or that change how it is read");
    }
    draft
}

/// A list of assignments, or SET NAMES and the like in their place.
fn assignments(text: &Text<'_>, catalogue: &Catalogue) -> Draft {
    let mut draft = Draft::session(Kind::Set, "sets what the session tracks");
    let items = text.tail(1).split(b',');
    let is_alone = items.len() == 1;
    for item in items {
        if item.is(0, "password") && (assigns(&item, 1) || item.is_any(1, &["for", "to"])) {
            return super::define::grant();
        }
        match item_of(&item, &mut draft) {
            Some(place) => {
                if place.scope == Scope::Global {
                    draft.target = Target::Primary;
                    "sets a variable of the server".clone_into(&mut draft.reason);
                }
                evaluate(&item.tail(place.value), &mut draft, catalogue);
            }
            None => unreadable(&mut draft),
        }
    }
    let is_ours = |action: &Action| matches!(action, Action::SetConsistency(_));
    if !is_alone && draft.actions.iter().any(is_ours) {
        // Nobody could do both parts: the server refuses all of it, because it does not know the variable.
        draft.actions.retain(|action| !is_ours(action));
        unreadable(&mut draft);
        "pointsman_consistency beside other variables".clone_into(&mut draft.reason);
    }
    draft
}

/// Notes what computing a value does.
fn evaluate(value: &Text<'_>, draft: &mut Draft, catalogue: &Catalogue) {
    let found = survey(value, catalogue);
    draft.effects |= found.effects;
    draft.needs |= found.needs;
    let Some(worst) = found.worst() else { return };
    let may_write = worst.target == Target::Primary && worst.kind != Kind::ServerQuestion;
    if may_write {
        draft.target = Target::Primary;
        draft.reason = format!("`{}` {}", value.shown(worst.token), worst.why);
    }
}

fn unreadable(draft: &mut Draft) {
    draft.target = Target::Primary;
    draft.effects |= Effects::UNTRACKED_SET | Effects::UNKNOWN_STATE;
    "a form of SET that is not known".clone_into(&mut draft.reason);
}

/// One item of the list: what it records goes into the draft.
fn item_of(item: &Text<'_>, draft: &mut Draft) -> Option<Place> {
    let charset = if item.is_any(0, &["names", "charset"]) && !assigns(item, 1) {
        Some(1)
    } else if item.is_any(0, &["character", "char"]) && item.is(1, "set") {
        Some(2)
    } else {
        None
    };
    if let Some(at) = charset {
        return names(item, at, draft);
    }
    if item.kind(0) == Some(TokenKind::UserVariable) {
        return user_variable(item, draft);
    }
    set_value::system_variable(item, draft)
}

/// `NAMES charset [COLLATE collation]`, `CHARACTER SET charset`
fn names(item: &Text<'_>, at: usize, draft: &mut Draft) -> Option<Place> {
    let charset = set_value::word_or_string(item, at)?;
    let rest = item.tail(at + 1);
    let whole = rest.len() == 0
        || (rest.len() == 2 && rest.is(0, "collate") && set_value::word_or_string(&rest, 1).is_some());
    if !whole {
        return None;
    }
    let sql = format!("SET {}", lossy(item.between(0, item.len())));
    draft.actions.push(Action::SetNames { sql: sql.into(), charset: lossy(&charset.to_ascii_lowercase()) });
    Some(Place { scope: Scope::Session, value: item.len() })
}

/// `@name = value`
fn user_variable(item: &Text<'_>, draft: &mut Draft) -> Option<Place> {
    if !assigns(item, 1) || item.len() < 3 {
        return None;
    }
    let name = set_value::user_variable_name(item)?;
    match set_value::literal(&item.tail(2)) {
        Some(value) => draft.actions.push(Action::SetUserVariable { name, value: value.into() }),
        None => draft.effects |= Effects::UNTRACKED_USER_VARIABLE,
    }
    Some(Place { scope: Scope::Session, value: 2 })
}
