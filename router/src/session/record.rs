//! What a session has set: from a statement's text, and from the server's trackers, which win.

use std::time::Duration;

use super::observe::{Observed, actions};
use super::replayable::{Replayable, Setting, TooMuch, is_charset};
use super::{NAMES, Pins, SessionState, mode, sql};
use crate::intent::{Action, Flavour, Intent};

impl SessionState {
    /// Records what one part of a statement's text has set, now that the server has accepted it.
    pub(super) fn act(&mut self, action: &Action, observed: &Observed<'_>, now: Duration) {
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
            // Never done.
            Action::RefuseConsistency(_) => {}
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
    pub(super) fn observe_trackers(&mut self, intent: &Intent, observed: &Observed<'_>, now: Duration) {
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

fn names_a_charset(action: &Action) -> bool {
    matches!(action, Action::SetNames { charset, .. } if !charset.eq_ignore_ascii_case(DEFAULT))
}

fn sets(action: &Action, variable: &str) -> bool {
    matches!(action, Action::SetVariable { name, .. } if name.eq_ignore_ascii_case(variable))
}

/// The word that stands for a server's own value.
const DEFAULT: &str = "default";
/// Tracked variables that are no setting.
const OURS: [&str; 2] = ["last_gtid", "statement_id"];
