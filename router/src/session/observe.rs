//! What an answer says about the session.

use std::time::Duration;

use super::replayable::{Replayable, Setting, TooMuch, is_charset};
use super::{NAMES, Pins, Seen, SessionState, Transaction, mode, sql};
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
    pub insert_id: u64,
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
        self.may_have_insert_id = observed.insert_id != 0
            || intent.effects.intersects(Effects::SETS_INSERT_ID | Effects::UNKNOWN_STATE);
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
        let mut pins = self.pins;
        pins.set(Pins::TRANSACTION, observed.in_transaction);
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
        if effects.contains(Effects::UNLOCK_TABLES) {
            pins -= Pins::LOCK_TABLES | Pins::GLOBAL_READ_LOCK;
        }
        if matches!(intent.kind, Kind::Begin | Kind::BeginReadOnly) {
            // Beginning a transaction releases LOCK TABLES.
            pins -= Pins::LOCK_TABLES;
        }
        if effects.contains(Effects::GLOBAL_READ_UNLOCK) {
            pins -= Pins::GLOBAL_READ_LOCK;
        }
        if effects.contains(Effects::USER_LOCKS_RELEASED) {
            pins -= Pins::USER_LOCK;
        }
        count(&mut self.text_prepared, effects, Effects::TEXT_PREPARE, Effects::TEXT_DEALLOCATE);
        pins.set(Pins::TEXT_PREPARE, self.text_prepared > 0);
        count(&mut self.handlers, effects, Effects::HANDLER_OPEN, Effects::HANDLER_CLOSE);
        pins.set(Pins::HANDLER, self.handlers > 0);
        if effects.contains(Effects::ONE_SHOT) {
            let is_transaction = |action| matches!(action, &Action::SetTransaction { session: false, .. });
            self.one_shot_transaction =
                actions(intent).any(is_transaction) && !self.pins.contains(Pins::ONE_SHOT);
        }
        if observed.state_changed && !changes_state(intent.kind) {
            // A trigger or a function set a user variable: which one is not told.
            pins |= Pins::USER_VARIABLE;
        }
        self.set_pins(pins, now);
        for action in actions(intent) {
            self.act(action, observed, now);
        }
        self.observe_trackers(intent, observed, now);
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

    fn act(&mut self, action: &Action, observed: &Observed<'_>, now: Duration) {
        match action {
            Action::SetVariable { name, value } => self.set_variable(name, value, now),
            Action::SetNames { charset, .. } if charset.eq_ignore_ascii_case(DEFAULT) => {
                // The server's own default, which only the trackers tell.
                if !observed.tells("character_set_client") {
                    self.pin(Pins::UNTRACKED_SET, now);
                }
            }
            Action::SetNames { sql, charset } => self.set_names(sql, charset, now),
            Action::SetUserVariable { name, value } => {
                let set = self.try_change(|replayable| replayable.set_user_variable(name, value));
                self.pin_unless(set, Pins::USER_VARIABLE, now);
            }
            Action::SetTransaction { session, sql } => {
                if *session {
                    self.set_characteristics(sql, now);
                }
            }
            // The status flags of the answer say what became of it.
            Action::SetAutocommit(_) => {}
            Action::SetFromExpression { name } => {
                if name.eq_ignore_ascii_case("sql_mode") {
                    self.mode.sql_mode_known = false;
                }
            }
            Action::SetRole { sql } => self.change(|replayable| replayable.role = Some((**sql).into())),
            Action::SetConsistency(consistency) => self.consistency = *consistency,
            Action::Use(schema) => self.change_schema(schema, now),
            Action::Kill { .. } => {}
        }
    }

    fn set_variable(&mut self, name: &str, value: &str, now: Duration) {
        let name = name.to_ascii_lowercase();
        if name == "autocommit" {
            return;
        }
        if name == "sql_mode" {
            let text = sql::bare(value).to_ascii_uppercase();
            let mut mode = self.mode;
            mode.sql_mode_known = mode::apply_sql_mode(&mut mode, &text) && text != "DEFAULT";
            self.mode = mode;
        }
        if name == "character_set_client" {
            self.mode.unsafe_charset = mode::is_unsafe_charset(&sql::bare(value));
        }
        // Our own trackers must stay on; and a value that reads differently elsewhere cannot be made again.
        let known = if name.starts_with("session_track_") {
            None
        } else {
            sql::literal_value(value, self.mode.ansi_quotes).map(|value| value.into_owned())
        };
        self.record(&name, known.as_deref(), now);
    }

    fn set_names(&mut self, sql: &str, charset: &str, now: Duration) {
        self.mode.unsafe_charset = mode::is_unsafe_charset(charset);
        let text = sql.trim();
        let has_set = text.get(..4).is_some_and(|start| start.eq_ignore_ascii_case("set "));
        let element = if has_set { text[4..].trim_start() } else { text };
        self.record(NAMES, Some(element), now);
    }

    /// SET SESSION TRANSACTION as the variables that it sets, which fit into a list.
    fn set_characteristics(&mut self, sql: &str, now: Duration) {
        let upper = sql.to_ascii_uppercase();
        let words: Vec<&str> =
            upper.split(|c: char| !c.is_ascii_alphanumeric()).filter(|w| !w.is_empty()).collect();
        let has = |phrase: &[&str]| words.windows(phrase.len()).any(|window| window == phrase);
        let isolation = [
            (&["READ", "COMMITTED"], "'READ-COMMITTED'"),
            (&["READ", "UNCOMMITTED"], "'READ-UNCOMMITTED'"),
            (&["REPEATABLE", "READ"], "'REPEATABLE-READ'"),
        ];
        let level = isolation.iter().find(|(phrase, _)| has(*phrase)).map(|(_, value)| *value);
        let level = level.or_else(|| has(&["SERIALIZABLE"]).then_some("'SERIALIZABLE'"));
        if let Some(level) = level {
            self.record(characteristic_name(self.flavour(), "isolation"), Some(level), now);
        }
        if has(&["READ", "ONLY"]) || has(&["READ", "WRITE"]) {
            let value = if has(&["READ", "ONLY"]) { "1" } else { "0" };
            self.record(characteristic_name(self.flavour(), "read_only"), Some(value), now);
        }
    }

    /// An empty name is none.
    fn change_schema(&mut self, schema: &[u8], now: Duration) {
        let before = self.replayable.clone();
        self.set_schema((!schema.is_empty()).then_some(schema));
        // SET CHARACTER SET took the collation of the schema of its time.
        let took =
            |setting: &Setting| !setting.value.get(..5).is_some_and(|w| w.eq_ignore_ascii_case("names"));
        if before.schema != self.replayable.schema && self.replayable.setting(NAMES).is_some_and(took) {
            self.pin(Pins::UNTRACKED_SET, now);
        }
    }

    /// Trackers win over what the text said, except where the text was exact and the tracker is coarser.
    fn observe_trackers(&mut self, intent: &Intent, observed: &Observed<'_>, now: Duration) {
        if let Some(schema) = observed.schema {
            self.change_schema(schema, now);
        }
        for (name, value) in observed.variables {
            let Ok(name) = str::from_utf8(name) else { continue };
            let name = name.to_ascii_lowercase();
            self.observe_variable(intent, &name, value, now);
        }
    }

    fn observe_variable(&mut self, intent: &Intent, name: &str, value: &[u8], now: Duration) {
        if name == "autocommit" || name.starts_with("session_track_") || OURS.contains(&name) {
            return;
        }
        let text = String::from_utf8_lossy(value);
        if name == "sql_mode" {
            self.mode.sql_mode_known = mode::apply_sql_mode(&mut self.mode, &text.to_ascii_uppercase());
        }
        if name == "character_set_client" {
            self.mode.unsafe_charset = mode::is_unsafe_charset(&text.to_ascii_lowercase());
        }
        if is_charset(name) && actions(intent).any(names_a_charset) {
            // SET NAMES says more: it has the collation too.
            return;
        }
        let told = sql::tracked_value(name, value);
        if told.is_some() || !actions(intent).any(|action| sets(action, name)) {
            self.record(name, told.as_deref(), now);
        }
    }

    /// Records a setting, or pins where that is not possible.
    fn record(&mut self, name: &str, value: Option<&str>, now: Duration) {
        let name = canonical(self.flavour(), name);
        let Some(value) = value else {
            self.pin(Pins::UNTRACKED_SET, now);
            return;
        };
        if self.replayable.stands(name, value) {
            return;
        }
        if self.replayable.setting(name).is_some_and(Setting::is_partial)
            && !value.eq_ignore_ascii_case(DEFAULT)
        {
            // It adds to what was set before; only the sum could be set elsewhere.
            self.pin(Pins::UNTRACKED_SET, now);
            return;
        }
        // Text in user variables was read in the character set and sql_mode of its time.
        let rereads = (is_charset(name) || name == "sql_mode")
            && self
                .replayable
                .user_variables
                .iter()
                .any(|variable| variable.value.iter().any(|b| b"'\"".contains(b)));
        if rereads {
            self.pin(Pins::USER_VARIABLE, now);
        }
        let set = self.try_change(|replayable| replayable.set(name, value));
        self.pin_unless(set, Pins::UNTRACKED_SET, now);
    }

    fn try_change(
        &mut self,
        change: impl FnOnce(&mut Replayable) -> Result<(), TooMuch>,
    ) -> Result<(), TooMuch> {
        let mut result = Ok(());
        self.change(|replayable| result = change(replayable));
        result
    }

    fn pin_unless(&mut self, set: Result<(), TooMuch>, pins: Pins, now: Duration) {
        if set.is_err() {
            self.pin(pins, now);
        }
    }
}

impl Observed<'_> {
    /// Whether the trackers tell a value of this variable.
    fn tells(&self, name: &str) -> bool {
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
            insert_id: 0,
            schema: None,
            variables: &[],
            state_changed: false,
            gtid: &GtidSet::Empty,
            eventual: false,
        }
    }
}

/// The variable that holds a characteristic of transactions.
pub(super) fn characteristic_name(flavour: Flavour, which: &str) -> &'static str {
    match (flavour, which) {
        (Flavour::Mariadb, "isolation") => "tx_isolation",
        (Flavour::Mariadb, _) => "tx_read_only",
        (Flavour::Mysql, "isolation") => "transaction_isolation",
        (Flavour::Mysql, _) => "transaction_read_only",
    }
}

/// One name for variables that have two.
fn canonical(flavour: Flavour, name: &str) -> &str {
    match name {
        "tx_isolation" | "transaction_isolation" => characteristic_name(flavour, "isolation"),
        "tx_read_only" | "transaction_read_only" => characteristic_name(flavour, "read_only"),
        _ => name,
    }
}

fn actions(intent: &Intent) -> impl Iterator<Item = &Action> {
    intent.actions.iter().flat_map(|actions| actions.iter())
}

fn names_a_charset(action: &Action) -> bool {
    matches!(action, Action::SetNames { charset, .. } if !charset.eq_ignore_ascii_case(DEFAULT))
}

fn sets(action: &Action, variable: &str) -> bool {
    matches!(action, Action::SetVariable { name, .. } if name.eq_ignore_ascii_case(variable))
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

/// Whether the answer may have shown data that a later read must not go back behind.
fn shows_data(intent: &Intent) -> bool {
    let reads = matches!(intent.kind, Kind::Read | Kind::UnprovenRead) && intent.target != Target::Any;
    reads
        || matches!(intent.kind, Kind::Call | Kind::Multi | Kind::TextPrepare | Kind::Handler | Kind::Unknown)
}

/// Counts what can be made and taken away several times.
fn count(counter: &mut u32, effects: Effects, more: Effects, fewer: Effects) {
    if effects.contains(more) {
        *counter = counter.saturating_add(1);
    }
    if effects.contains(fewer) {
        *counter = counter.saturating_sub(1);
    }
}

/// How long a session stays with one replica before it chooses anew.
pub(crate) const STAY: Duration = Duration::from_secs(2);
/// The word that stands for a server's own value.
const DEFAULT: &str = "default";
/// Tracked variables that are no setting.
const OURS: [&str; 2] = ["last_gtid", "statement_id"];
/// Errors that come before anything is executed: 1044, 1064, 1142, 1143, 1227, 1370.
const NOTHING_EXECUTED: [u16; 6] = [1044, 1064, 1142, 1143, 1227, 1370];
