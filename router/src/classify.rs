//! What a statement does, as far as its text proves it.
//!
//! The rule behind all of it: a statement goes to a replica only if it is proven to be a pure read; doubt means
//! primary. Nothing here knows servers, health or what the session did before, except for what [`Mode`] carries.

mod byte_class;
mod comment;
mod lexer;
mod mode;
mod text;
mod token;

use std::ops::Range;
use std::sync::Arc;

pub use mode::{Catalogue, Mode};

use crate::intent::{Action, Effects, Intent, Kind, Needs, Reason, Target};
use lexer::Lexer;
use text::Text;
use token::{Token, TokenKind, Traits};

/// The digest of a statement's normal form, keyed at random per process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest(pub u128);

/// A statement's intent and digest.
#[derive(Clone, Debug)]
pub struct Classified {
    pub intent: Arc<Intent>,
    pub digest: Digest,
}

/// Classifies statements; one per worker.
#[derive(Debug)]
pub struct Classifier {
    #[allow(dead_code, reason = "the digest follows")]
    seed: [u8; 32],
}

/// Where a call or a variable stands in a statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Byte range of the whole expression, with its parentheses.
    pub range: Range<usize>,
    /// It is an item of a select list on its own and without an alias: its text names the column.
    pub alone_in_select_list: bool,
}

impl Classifier {
    /// `seed` keys the digests; `slots` is the size of the cache, in statements.
    pub fn new(seed: [u8; 32], _slots: usize) -> Self {
        Self { seed }
    }

    /// What `sql` does in a session of this mode.
    pub fn classify(&mut self, sql: &[u8], mode: &Mode, _catalogue: &Catalogue) -> Classified {
        Classified { intent: Arc::new(first_look(sql, mode)), digest: Digest(0) }
    }

    /// A replica refused the statement as a write: from now on it goes to the primary.
    pub fn mark_primary(&mut self, _classified: &Classified) {}
}

/// Calls of a function without quotes or schema in front.
pub fn calls(_sql: &[u8], _mode: &Mode, _name: &str) -> Vec<Call> {
    Vec::new()
}

/// References to a system variable, in any scope.
pub fn variables(_sql: &[u8], _mode: &Mode, _name: &str) -> Vec<Call> {
    Vec::new()
}

fn intent(kind: Kind, target: Target, reason: &str) -> Intent {
    Intent {
        kind,
        target,
        effects: Effects::empty(),
        needs: Needs::empty(),
        reason: Reason(reason.into()),
        actions: None,
        hint: None,
    }
}

fn first_look(sql: &[u8], mode: &Mode) -> Intent {
    let mut lexer = Lexer::new(sql, mode);
    let tokens: Vec<Token> = std::iter::from_fn(|| lexer.next_token()).collect();
    let text = Text { sql, tokens: &tokens, mode };
    if tokens.is_empty() {
        return intent(Kind::Empty, Target::Any, "no statement");
    }
    if (0..text.len()).any(|at| text.symbol(at, b';') && at + 1 < text.len()) {
        let mut made = intent(Kind::Multi, Target::Primary, "several statements");
        made.needs = Needs::MULTI_STATEMENTS;
        made.effects = Effects::UNKNOWN_STATE | Effects::MAY_COMMIT;
        return made;
    }
    by_first_word(&text, lexer.traits())
}

fn by_first_word(text: &Text<'_>, traits: Traits) -> Intent {
    let first = String::from_utf8_lossy(text.bytes(0)).to_ascii_lowercase();
    let (kind, target, effects) = match first.as_str() {
        "select" if traits.is_empty() && harmless(text) => (Kind::Read, Target::Replica, Effects::empty()),
        "select" | "with" | "(" => (Kind::UnprovenRead, Target::Primary, Effects::UNKNOWN_STATE),
        "insert" | "update" | "delete" | "replace" => (Kind::Write, Target::Primary, Effects::empty()),
        "begin" | "start" => (Kind::Begin, Target::Primary, Effects::MAY_COMMIT),
        "commit" => (Kind::Commit, Target::SameAsTransaction, Effects::empty()),
        "rollback" => (Kind::Rollback, Target::SameAsTransaction, Effects::empty()),
        "show" => (Kind::ServerQuestion, Target::Primary, Effects::empty()),
        "use" => (Kind::Use, Target::Session, Effects::empty()),
        "create" | "alter" | "drop" | "truncate" => {
            (Kind::Ddl, Target::Primary, Effects::IMPLICIT_COMMIT | Effects::MAY_COMMIT)
        }
        _ => (Kind::Unknown, Target::Primary, Effects::UNKNOWN_STATE | Effects::MAY_COMMIT),
    };
    let mut made = intent(kind, target, "first word");
    made.effects = effects;
    if let (Kind::Use, Some(name)) = (kind, text.name(1)) {
        made.actions = Some(Arc::from([Action::Use(name.into())]));
    }
    made
}

fn harmless(text: &Text<'_>) -> bool {
    (0..text.len()).all(|at| match text.token(at).map(|token| token.kind) {
        Some(TokenKind::Word) => {
            !text.is_any(at, &["for", "lock", "into", "procedure"])
                && (!text.symbol(at + 1, b'(')
                    || text.is_any(at, &["count", "sum", "min", "max", "avg", "in", "and", "or", "where"]))
        }
        Some(TokenKind::Number | TokenKind::Text | TokenKind::Parameter | TokenKind::Symbol(_)) => true,
        Some(TokenKind::Member | TokenKind::QuotedName) => !text.symbol(at + 1, b'('),
        _ => false,
    })
}
