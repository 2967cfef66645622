//! What an answer says about the session.

use std::time::Duration;

use super::{Pins, Seen, SessionState, Transaction};
use crate::gtid::GtidSet;
use crate::intent::{Action, Effects, Flavour, Intent, Kind, Target};
use crate::topology::ServerId;

/// What the response to one statement said.
#[allow(clippy::struct_excessive_bools, reason = "each is one flag of the protocol")]
#[derive(Clone, Copy, Debug)]
pub struct Observed<'a> {
    /// The server that answered.
    pub server: ServerId,
    pub error: Option<u16>,
    /// Whether the answer had status flags, which an error has not; without them the flags below mean nothing.
    pub has_status: bool,
    pub in_transaction: bool,
    pub read_only_transaction: bool,
    pub autocommit: bool,
    pub no_backslash_escapes: bool,
    /// Bit 15 of the status, which is MariaDB's only.
    pub ansi_quotes: bool,
    pub cursor_open: bool,
    pub warnings: u16,
    /// The schema tracker; an empty name is no schema.
    pub schema: Option<&'a [u8]>,
    /// Name and value from the system variables tracker.
    pub variables: &'a [(Vec<u8>, Vec<u8>)],
    /// The state change tracker: a variable was set or a temporary table made, maybe by a trigger.
    pub state_changed: bool,
    /// What the statement committed.
    pub gtid: &'a GtidSet,
    /// It was a read that was routed without regard to the session's floor.
    pub eventual: bool,
}

impl SessionState {
    /// Takes note of a statement's answer. To be called once for every statement that reached a server.
    pub fn observe(&mut self, intent: &Intent, observed: &Observed<'_>, now: Duration) {
        self.observe_status(intent, observed, now);
        self.observe_diagnostics(intent, observed, now);
        self.observe_position(intent, observed, now);
        match observed.error {
            Some(code) => self.observe_failure(intent, code, now),
            None => self.observe_success(intent, observed, now),
        }
    }

    fn observe_status(&mut self, intent: &Intent, observed: &Observed<'_>, now: Duration) {
        if !observed.has_status {
            return;
        }
        self.transaction = match (observed.in_transaction, observed.read_only_transaction) {
            (false, _) => Transaction::None,
            (true, false) => Transaction::ReadWrite,
            (true, true) => Transaction::ReadOnly,
        };
        let saves = intent.kind == Kind::Savepoint && observed.error.is_none() && !observed.autocommit;
        let ends = matches!(intent.kind, Kind::Commit | Kind::Rollback | Kind::Begin | Kind::BeginReadOnly)
            || intent.effects.contains(Effects::IMPLICIT_COMMIT);
        self.early_savepoint = !observed.in_transaction && (saves || self.early_savepoint && !ends);
        let mut pins = self.pins;
        pins.set(Pins::TRANSACTION, observed.in_transaction || self.early_savepoint);
        pins.set(Pins::CURSOR, observed.cursor_open || pins.contains(Pins::CURSOR));
        if self.one_shot_transaction && !observed.in_transaction && uses_one_shot(intent) {
            self.one_shot_transaction = false;
            pins -= Pins::ONE_SHOT;
        }
        self.set_pins(pins, now);
        if self.autocommit() != observed.autocommit {
            self.change(|replayable| replayable.autocommit = observed.autocommit);
        }
        self.mode.no_backslash_escapes = observed.no_backslash_escapes;
        if self.flavour() == Flavour::Mariadb {
            self.mode.ansi_quotes = observed.ansi_quotes;
        }
    }

    /// What SHOW WARNINGS and FOUND_ROWS() would tell lies on this connection until the next statement.
    fn observe_diagnostics(&mut self, intent: &Intent, observed: &Observed<'_>, now: Duration) {
        if intent.kind == Kind::Diagnostics {
            return;
        }
        let mut pins = self.pins - Pins::FLEETING;
        pins.set(Pins::WARNINGS, observed.warnings > 0 || observed.error.is_some());
        pins.set(Pins::FOUND_ROWS, intent.effects.contains(Effects::CALC_FOUND_ROWS));
        self.set_pins(pins, now);
    }

    fn observe_position(&mut self, intent: &Intent, observed: &Observed<'_>, now: Duration) {
        if !observed.gtid.is_empty() {
            // What the primary commits now comes after all that this session has seen anywhere.
            self.floor.merge(observed.gtid);
            self.seen = None;
            return;
        }
        if observed.error.is_some() || observed.eventual || !shows_data(intent) {
            return;
        }
        let server = observed.server;
        let since = match self.seen {
            Some(seen) if seen.server == server && now.saturating_sub(seen.since) < STAY => seen.since,
            Some(_) | None => now,
        };
        self.seen = Some(Seen { server, at: now, since, covers_floor: true });
    }

    /// A failed statement changes nothing that is set, but may have left something behind.
    fn observe_failure(&mut self, intent: &Intent, code: u16, now: Duration) {
        self.failed_code |= runs_code(intent.kind);
        if NOTHING_EXECUTED.contains(&code) && intent.kind != Kind::Multi {
            return;
        }
        let mut pins = Pins::of(intent.effects) - Pins::FLEETING;
        if intent.kind == Kind::Multi {
            // Which of the statements failed is not known, nor what those before it set.
            pins |= Pins::UNKNOWN_STATE;
        } else {
            pins -= Pins::UNTRACKED_SET | Pins::ONE_SHOT | Pins::TEXT_PREPARE;
        }
        let may_have_begun = !self.autocommit()
            || intent.effects.contains(Effects::UNKNOWN_STATE)
            || matches!(intent.kind, Kind::Multi | Kind::Begin | Kind::Xa);
        pins.set(Pins::TRANSACTION, may_have_begun);
        self.pin(pins, now);
    }

    fn observe_success(&mut self, intent: &Intent, observed: &Observed<'_>, now: Duration) {
        let effects = intent.effects;
        let mut pins = self.pins | (Pins::of(effects) - Pins::FLEETING);
        if effects.contains(Effects::UNTRACKED_SET) && self.all_tracked(intent, observed) {
            pins.set(Pins::UNTRACKED_SET, self.pins.contains(Pins::UNTRACKED_SET));
        }
        // What a failed statement did is told with the next one that succeeds.
        let ran_code = runs_code(intent.kind) || std::mem::take(&mut self.failed_code);
        if observed.state_changed && ran_code && !changes_state(intent.kind) {
            // A trigger or a function set a user variable: which one is not told.
            pins |= Pins::USER_VARIABLE;
        }
        let one_if = |effect| u32::from(effects.contains(effect));
        self.text_prepared = self.text_prepared.saturating_add(one_if(Effects::TEXT_PREPARE));
        self.handlers = self.handlers.saturating_add(one_if(Effects::HANDLER_OPEN));
        if intent.kind != Kind::Multi {
            // Of several statements it is not known which came last.
            pins -= self.ended_by(intent);
        }
        if effects.contains(Effects::ONE_SHOT) {
            let is_transaction = |action| matches!(action, &Action::SetTransaction { session: false, .. });
            self.one_shot_transaction =
                actions(intent).any(is_transaction) && !self.pins.contains(Pins::ONE_SHOT);
        }
        self.set_pins(pins, now);
        for action in actions(intent) {
            self.act(action, observed, now);
        }
        self.observe_trackers(intent, observed, now);
    }

    /// The pins that end with a statement that has succeeded.
    fn ended_by(&mut self, intent: &Intent) -> Pins {
        let mut ended = Pins::ended_by(intent.effects);
        if matches!(intent.kind, Kind::Begin | Kind::BeginReadOnly) {
            // Beginning a transaction releases LOCK TABLES.
            ended |= Pins::LOCK_TABLES;
        }
        self.text_prepared =
            self.text_prepared.saturating_sub(intent.effects.contains(Effects::TEXT_DEALLOCATE).into());
        ended.set(Pins::TEXT_PREPARE, self.text_prepared == 0);
        self.handlers = self.handlers.saturating_sub(intent.effects.contains(Effects::HANDLER_CLOSE).into());
        ended.set(Pins::HANDLER, self.handlers == 0);
        ended
    }

    /// Whether the server's trackers told the value of everything that was set by expression.
    fn all_tracked(&self, intent: &Intent, observed: &Observed<'_>) -> bool {
        let mut named = false;
        let mut tracked = true;
        for action in actions(intent) {
            if let Action::SetFromExpression { name } = action {
                named = true;
                let is_autocommit = name.eq_ignore_ascii_case("autocommit") && observed.has_status;
                tracked &= is_autocommit || observed.tells(name);
            }
        }
        named && tracked
    }
}

impl Observed<'_> {
    /// Whether the trackers tell a value of this variable.
    pub(super) fn tells(&self, name: &str) -> bool {
        self.variables.iter().any(|(told, _)| told.eq_ignore_ascii_case(name.as_bytes()))
    }
}

impl Default for Observed<'_> {
    fn default() -> Self {
        Self {
            server: ServerId(0),
            error: None,
            has_status: false,
            in_transaction: false,
            read_only_transaction: false,
            autocommit: false,
            no_backslash_escapes: false,
            ansi_quotes: false,
            cursor_open: false,
            warnings: 0,
            schema: None,
            variables: &[],
            state_changed: false,
            gtid: &GtidSet::Empty,
            eventual: false,
        }
    }
}

pub(super) fn actions(intent: &Intent) -> impl Iterator<Item = &Action> {
    intent.actions.iter().flat_map(|actions| actions.iter())
}

/// Whether the statement ends the life of SET TRANSACTION for the next transaction.
fn uses_one_shot(intent: &Intent) -> bool {
    let touches_data = matches!(intent.kind, Kind::Read | Kind::UnprovenRead | Kind::Write | Kind::Ddl);
    touches_data && intent.target != Target::Any || matches!(intent.kind, Kind::Commit | Kind::Rollback)
}

/// Whether the text of such a statement tells by itself what state it changes.
fn changes_state(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::Set
            | Kind::SetTransaction
            | Kind::Use
            | Kind::TemporaryTable
            | Kind::TextPrepare
            | Kind::Call
            | Kind::Multi
    )
}

/// Whether triggers or functions may run, which change a session in ways that no text tells.
fn runs_code(kind: Kind) -> bool {
    !matches!(
        kind,
        Kind::Begin
            | Kind::BeginReadOnly
            | Kind::Commit
            | Kind::Rollback
            | Kind::Savepoint
            | Kind::SetTransaction
            | Kind::Use
            | Kind::Diagnostics
            | Kind::Empty
    )
}

/// Whether the answer may have shown data that a later read must not go back behind.
fn shows_data(intent: &Intent) -> bool {
    // What runs anywhere was routed without regard to the floor: it says nothing about the server.
    intent.target != Target::Any
        && matches!(
            intent.kind,
            Kind::Read
                | Kind::UnprovenRead
                | Kind::Call
                | Kind::Multi
                | Kind::TextPrepare
                | Kind::Handler
                | Kind::Unknown
        )
}

/// How long a session stays with one replica before it chooses anew.
pub(crate) const STAY: Duration = Duration::from_secs(2);
/// Errors that come before anything is executed: 1044, 1064, 1142, 1143, 1227, 1370.
const NOTHING_EXECUTED: [u16; 6] = [1044, 1064, 1142, 1143, 1227, 1370];
