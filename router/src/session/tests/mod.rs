mod model;
mod observed;
mod planned;

use std::sync::Arc;

use super::*;
use crate::intent::{Action, Effects, Intent, Kind, Needs, Reason, Target};

const NOW: Duration = Duration::from_secs(100);

/// An intent as the classifier makes it, reduced to what the session reads.
fn intent(kind: Kind) -> Intent {
    Intent {
        kind,
        target: Target::Primary,
        effects: Effects::empty(),
        needs: Needs::empty(),
        reason: Reason("test".into()),
        actions: None,
        hint: None,
    }
}

fn with(kind: Kind, effects: Effects) -> Intent {
    Intent { effects, ..intent(kind) }
}

fn set(actions: Vec<Action>) -> Intent {
    let by_expression = actions.iter().any(|action| matches!(action, Action::SetFromExpression { .. }));
    let effects = if by_expression { Effects::UNTRACKED_SET } else { Effects::empty() };
    Intent { effects, actions: Some(actions.into()), ..intent(Kind::Set) }
}

fn variable(name: &str, value: &str) -> Action {
    Action::SetVariable { name: name.into(), value: value.into() }
}

fn names(sql: &str, charset: &str) -> Action {
    Action::SetNames { sql: sql.into(), charset: charset.into() }
}

fn user_variable(name: &str, value: &str) -> Action {
    Action::SetUserVariable { name: name.into(), value: value.as_bytes().into() }
}

fn expression(name: &str) -> Action {
    Action::SetFromExpression { name: name.into() }
}

/// The answer of a statement that did nothing special, in a session with autocommit.
fn ok() -> Observed<'static> {
    Observed { has_status: true, autocommit: true, ..Observed::default() }
}

fn failed(code: u16) -> Observed<'static> {
    Observed { error: Some(code), ..Observed::default() }
}

fn session(flavour: Flavour) -> SessionState {
    SessionState::new(Fresh { flavour, collation: 45, schema: Some(b"app".to_vec()), ..Fresh::default() })
}

/// Names and values as trackers tell them.
fn told(variables: &[(&str, &str)]) -> Vec<(Vec<u8>, Vec<u8>)> {
    variables.iter().map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec())).collect()
}

fn pin_names(session: &SessionState) -> Vec<&'static str> {
    session.pins().names().collect()
}
