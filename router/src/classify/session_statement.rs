//! USE, KILL, and statements prepared as text.

use super::draft::Draft;
use super::mode::Catalogue;
use super::survey::survey;
use super::text::Text;
use super::token::TokenKind;
use crate::intent::{Action, Effects, Kind, Target};

/// `USE schema`
pub(super) fn use_schema(text: &Text<'_>) -> Draft {
    match text.name(1) {
        Some(name) if text.len() == 2 => {
            Draft::session(Kind::Use, "changes the session's schema").acting(Action::Use(name.into()))
        }
        _ => Draft::unknown("no schema behind USE").uncached(),
    }
}

/// `KILL [HARD | SOFT] [CONNECTION | QUERY] id`. With any other operand the server has to know what is meant.
pub(super) fn kill(text: &Text<'_>) -> Draft {
    let mut at = 1 + usize::from(text.is_any(1, &["hard", "soft"]));
    let query_only = text.is(at, "query");
    at += usize::from(text.is_any(at, &["connection", "query"]));
    let id = (text.len() == at + 1 && text.kind(at) == Some(TokenKind::Number))
        .then(|| std::str::from_utf8(text.bytes(at)).ok()?.parse().ok())
        .flatten();
    match id {
        Some(id) => Draft::session(Kind::Kill, "names a connection id of this proxy")
            .acting(Action::Kill { query_only, id }),
        None => Draft::primary(Kind::Kill, "kills what the server knows").uncached(),
    }
}

/// `PREPARE name FROM ...`
pub(super) fn prepare(text: &Text<'_>, catalogue: &Catalogue) -> Draft {
    Draft::primary(Kind::TextPrepare, "a statement prepared as text belongs to the connection")
        .with(Effects::TEXT_PREPARE)
        .surveyed(&survey(text, catalogue))
        .uncached()
}

/// `EXECUTE name`, `EXECUTE IMMEDIATE ...`: what runs is not in the text.
pub(super) fn execute(text: &Text<'_>, catalogue: &Catalogue) -> Draft {
    Draft::primary(Kind::TextPrepare, "runs a statement that is not in the text")
        .with(Effects::UNKNOWN_STATE | Effects::MAY_COMMIT)
        .surveyed(&survey(text, catalogue))
        .uncached()
}

/// `DEALLOCATE PREPARE name`, `DROP PREPARE name`
pub(super) fn deallocate() -> Draft {
    Draft::new(Kind::TextPrepare, Target::Session, "drops a statement of the connection")
        .with(Effects::TEXT_DEALLOCATE)
        .uncached()
}
