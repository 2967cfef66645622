//! An intent in the making.

use std::sync::Arc;

use super::survey::{Objection, Survey};
use super::text::Text;
use crate::intent::{Action, Effects, Hint, Intent, Kind, Needs, Reason, Target};

/// An intent in the making.
#[derive(Clone, Debug)]
pub(super) struct Draft {
    pub(super) kind: Kind,
    pub(super) target: Target,
    pub(super) effects: Effects,
    pub(super) needs: Needs,
    pub(super) reason: String,
    pub(super) actions: Vec<Action>,
    /// False where values of literals decided, which the digest does not hold.
    pub(super) cacheable: bool,
}

/// The effects that a function or variable has wherever it is used; the others depend on the kind of statement.
const EFFECTS_ANYWHERE: Effects = Effects::USER_LOCK
    .union(Effects::USER_LOCKS_RELEASED)
    .union(Effects::SETS_INSERT_ID)
    .union(Effects::UNTRACKED_USER_VARIABLE);

impl Draft {
    pub(super) fn new(kind: Kind, target: Target, reason: &str) -> Self {
        Self {
            kind,
            target,
            effects: Effects::empty(),
            needs: Needs::empty(),
            reason: reason.to_owned(),
            actions: Vec::new(),
            cacheable: true,
        }
    }

    pub(super) fn primary(kind: Kind, reason: &str) -> Self {
        Self::new(kind, Target::Primary, reason)
    }

    pub(super) fn session(kind: Kind, reason: &str) -> Self {
        Self::new(kind, Target::Session, reason)
    }

    /// A definition or an account changes.
    pub(super) fn ddl(reason: &str) -> Self {
        Self::primary(Kind::Ddl, reason).with(Effects::IMPLICIT_COMMIT | Effects::MAY_COMMIT)
    }

    /// What cannot be read. It is the server's to answer, most likely with an error; where it succeeds, anything
    /// may have happened.
    pub(super) fn unknown(reason: &str) -> Self {
        Self::primary(Kind::Unknown, reason).with(Effects::UNKNOWN_STATE | Effects::MAY_COMMIT)
    }

    pub(super) fn with(mut self, effects: Effects) -> Self {
        self.effects |= effects;
        self
    }

    pub(super) fn needing(mut self, needs: Needs) -> Self {
        self.needs |= needs;
        self
    }

    pub(super) fn acting(mut self, action: Action) -> Self {
        self.actions.push(action);
        self.cacheable = false;
        self
    }

    pub(super) fn uncached(mut self) -> Self {
        self.cacheable = false;
        self
    }

    /// Adds what the functions and variables used in a statement mean for its session.
    pub(super) fn surveyed(mut self, survey: &Survey) -> Self {
        self.effects |= survey.effects & EFFECTS_ANYWHERE;
        self.needs |= survey.needs;
        self.cacheable &= !survey.literals_matter;
        self
    }

    /// The statement of an objection.
    pub(super) fn objected(objection: &Objection, survey: &Survey, text: &Text<'_>) -> Self {
        let mut draft = Self::new(objection.kind, objection.target, "");
        draft.reason = format!("`{}` {}", text.shown(objection.token), objection.why);
        draft.effects |= survey.effects;
        draft.needs |= survey.needs;
        draft.cacheable = !survey.literals_matter;
        draft
    }

    /// Sends it to the primary if it would go elsewhere for its data.
    pub(super) fn restrain(&mut self, why: &str) {
        if matches!(self.target, Target::Replica | Target::Any) {
            self.target = Target::Primary;
            why.clone_into(&mut self.reason);
            if self.kind == Kind::Read {
                self.kind = Kind::UnprovenRead;
            }
        }
    }

    pub(super) fn finish(mut self, hint: Option<Hint>) -> Intent {
        if self.effects.intersects(Effects::SETS_INSERT_ID | Effects::UNKNOWN_STATE) {
            // They may also leave it alone: an UPDATE that finds no row, a procedure that inserts nothing.
            self.needs |= Needs::MAY_KEEP_INSERT_ID;
        }
        Intent {
            kind: self.kind,
            target: self.target,
            effects: self.effects,
            needs: self.needs,
            reason: Reason(self.reason.into()),
            actions: (!self.actions.is_empty()).then(|| Arc::from(self.actions)),
            hint,
        }
    }
}
