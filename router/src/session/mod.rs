//! What a client believes about its session, and what a server connection has of it.
//!
//! [`SessionState::observe`] takes note of every answer; everything else only asks. What can be made again on
//! another connection is kept as values; what cannot is a pin, which keeps the session on its connection. The
//! truth about transactions comes from the status flags of answers and the truth about variables from the
//! server's trackers; the text of a statement only fills the gaps.

mod connection;
mod mode;
mod observe;
mod pins;
mod reading;
mod record;
mod replayable;
mod sql;

use std::sync::Arc;
use std::time::Duration;

use pointsman_config::Consistency;

pub use connection::{ConnectionState, Step, Steps, SyncPlan};
pub use mode::mode_of;
pub use observe::Observed;
pub(crate) use observe::STAY;
pub use pins::Pins;
pub use reading::Reading;
use replayable::{NAMES, Replayable};

use crate::classify::Mode;
use crate::gtid::GtidSet;
use crate::intent::Flavour;
use crate::topology::ServerId;

/// One client's session.
#[derive(Clone, Debug, Default)]
pub struct SessionState {
    /// What a reset goes back to.
    fresh: Arc<Fresh>,
    replayable: Arc<Replayable>,
    mode: Mode,
    pins: Pins,
    pinned_since: Option<Duration>,
    /// As the status flags of the last answer said.
    transaction: Transaction,
    text_prepared: u32,
    handlers: u32,
    one_shot_transaction: bool,
    /// SAVEPOINT with autocommit off, before anything has begun the transaction that it belongs to.
    early_savepoint: bool,
    floor: GtidSet,
    seen: Option<Seen>,
    consistency: Option<Consistency>,
    /// A statement failed in which triggers or functions may have run, and none has succeeded since.
    failed_code: bool,
}

/// What a session is when it has just logged in.
#[derive(Clone, Debug)]
pub struct Fresh {
    pub flavour: Flavour,
    pub schema: Option<Vec<u8>>,
    pub autocommit: bool,
    pub sql_mode: String,
    /// As asked for by the login's capabilities.
    pub multi_statements: bool,
    pub ignore_space: bool,
    /// The collation of the login.
    pub collation: u16,
    /// Variables, with their values as SQL text, that every server connection is brought to first: the primary's
    /// session defaults, where servers may differ.
    pub variables: Vec<(String, String)>,
    /// The character set that COM_RESET_CONNECTION leaves, as an element of a SET list; empty: that of the login.
    /// MySQL goes back to the global one, MariaDB to the login's.
    pub names_after_reset: String,
}

/// Where the session stands with transactions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Transaction {
    #[default]
    None,
    ReadWrite,
    ReadOnly,
}

/// Where the session last read data, which its next read must not be older than.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) server: ServerId,
    /// When the last answer came.
    pub(crate) at: Duration,
    /// When the session came to this server or last chose to stay.
    pub(crate) since: Duration,
    /// The server had reached the session's floor as it is now.
    pub(crate) covers_floor: bool,
}

impl SessionState {
    /// A session that has just logged in.
    pub fn new(fresh: Fresh) -> Self {
        let mut state = Self { fresh: Arc::new(fresh), ..Self::default() };
        state.start_over(state.fresh.schema.as_deref().map(Box::from));
        state
    }

    /// COM_RESET_CONNECTION has succeeded: all is as after the login, but for schema and role, which stay, and
    /// for what the session has seen.
    pub fn reset(&mut self) {
        let schema = self.replayable.schema.clone();
        let role = self.replayable.role.clone();
        self.start_over(schema);
        self.change(|replayable| replayable.role = role);
        let names = self.fresh.names_after_reset.clone();
        if !names.is_empty() {
            self.mode.unsafe_charset = mode::is_unsafe_names(&names);
            // A state that has just started over has room for it.
            self.change(|replayable| _ = replayable.set(NAMES, &names));
        }
    }

    fn start_over(&mut self, schema: Option<Box<[u8]>>) {
        let fresh = &*self.fresh;
        let mut mode = Mode { flavour: fresh.flavour, ..Mode::default() };
        mode.sql_mode_known = mode::apply_sql_mode(&mut mode, &fresh.sql_mode.to_ascii_uppercase());
        mode.ignore_space |= fresh.ignore_space;
        mode.multi_statements = fresh.multi_statements;
        mode.unsafe_charset = mode::is_unsafe_collation(fresh.collation);
        mode.system_schema = schema.as_deref().is_some_and(mode::is_system_schema);
        let mut replayable = Replayable::new(schema, fresh.autocommit);
        for (name, value) in &fresh.variables {
            // The primary's defaults are few; what does not fit is the server's own value then.
            let _fits = replayable.set(&name.to_ascii_lowercase(), value);
        }
        replayable.seal();
        *self = Self {
            fresh: self.fresh.clone(),
            replayable: Arc::new(replayable),
            mode,
            floor: std::mem::take(&mut self.floor),
            seen: self.seen,
            ..Self::default()
        };
    }

    /// How the classifier has to read this session's next statement.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    pub fn flavour(&self) -> Flavour {
        self.fresh.flavour
    }

    pub fn schema(&self) -> Option<&[u8]> {
        self.replayable.schema.as_deref()
    }

    /// The schema was dropped by somebody else: a server would leave the session without any.
    pub fn schema_is_gone(&mut self) {
        self.set_schema(None);
    }

    pub fn autocommit(&self) -> bool {
        self.replayable.autocommit
    }

    pub fn in_transaction(&self) -> bool {
        self.transaction != Transaction::None
    }

    pub fn in_read_only_transaction(&self) -> bool {
        self.transaction == Transaction::ReadOnly
    }

    pub(crate) fn transaction(&self) -> Transaction {
        self.transaction
    }

    /// Whether transactions begin SERIALIZABLE.
    pub fn is_serializable(&self) -> bool {
        self.characteristic("isolation").is_some_and(|value| sql::bare(value) == "serializable")
    }

    /// Whether transactions begin READ ONLY.
    pub fn begins_read_only(&self) -> bool {
        let on = |value| matches!(sql::bare(value).as_str(), "1" | "on" | "true");
        self.characteristic("read_only").is_some_and(on)
    }

    fn characteristic(&self, which: &str) -> Option<&str> {
        let name = record::characteristic_name(self.flavour(), which);
        self.replayable.setting(name).map(|setting| &*setting.value)
    }

    /// Why the session must keep its server connection; empty when it need not.
    pub fn pins(&self) -> Pins {
        self.pins
    }

    /// Since when it has had any pin.
    pub fn pinned_since(&self) -> Option<Duration> {
        self.pinned_since
    }

    /// Adds pins that no statement's text or answer tells of: cursors, long data.
    pub fn pin(&mut self, pins: Pins, now: Duration) {
        self.set_pins(self.pins | pins, now);
    }

    pub fn unpin(&mut self, pins: Pins) {
        // No pin is new, so the time does not matter.
        self.set_pins(self.pins - pins, self.pinned_since.unwrap_or_default());
    }

    fn set_pins(&mut self, pins: Pins, now: Duration) {
        self.pins = pins;
        self.pinned_since = (!pins.is_empty()).then(|| self.pinned_since.unwrap_or(now));
        self.mode.temporary_tables = pins.intersects(Pins::TEMPORARY_TABLE | Pins::UNKNOWN_STATE);
    }

    /// The held connection was closed: what pinned the session has ended with it.
    pub fn connection_is_gone(&mut self) {
        self.transaction = Transaction::None;
        self.text_prepared = 0;
        self.handlers = 0;
        self.one_shot_transaction = false;
        self.set_pins(Pins::empty(), Duration::ZERO);
    }

    /// COM_SET_OPTION has succeeded.
    pub fn set_multi_statements(&mut self, on: bool, now: Duration) {
        self.mode.multi_statements = on;
        if on == self.fresh.multi_statements {
            self.unpin(Pins::MULTI_STATEMENTS_OPTION);
        } else {
            self.pin(Pins::MULTI_STATEMENTS_OPTION, now);
        }
    }

    /// Equal for sessions in the same replayable state, and for connections that are in it.
    pub fn fingerprint(&self) -> u64 {
        self.replayable.fingerprint()
    }

    fn replayable(&self) -> &Arc<Replayable> {
        &self.replayable
    }

    /// How texts of this session are read now.
    pub fn reading(&self) -> Reading {
        Reading::new(self.replayable.clone())
    }

    /// What this session's reads have to see.
    pub fn floor(&self) -> &GtidSet {
        &self.floor
    }

    /// Raises what this session's reads have to see, for reasons that lie outside of its own statements.
    pub fn raise_floor(&mut self, position: &GtidSet) {
        if self.floor.contains(position) {
            return;
        }
        self.floor.merge(position);
        if let Some(seen) = &mut self.seen {
            seen.covers_floor = false;
        }
    }

    /// The primary's position, asked after all that this session has read, is its floor from now on.
    pub fn floor_is_asked(&mut self, position: &GtidSet) {
        self.raise_floor(position);
        // Whatever was seen is in the position.
        self.seen = self.seen.filter(|seen| seen.covers_floor);
    }

    pub(crate) fn seen(&self) -> Option<Seen> {
        self.seen
    }

    /// What `SET pointsman_consistency` asked for.
    pub fn consistency(&self) -> Option<Consistency> {
        self.consistency
    }

    pub fn set_consistency(&mut self, consistency: Option<Consistency>) {
        self.consistency = consistency;
    }

    fn set_schema(&mut self, schema: Option<&[u8]>) {
        if self.schema() == schema {
            return;
        }
        self.mode.system_schema = schema.is_some_and(mode::is_system_schema);
        self.change(|replayable| replayable.schema = schema.map(Box::from));
    }

    fn change(&mut self, change: impl FnOnce(&mut Replayable)) {
        let replayable = Arc::make_mut(&mut self.replayable);
        change(replayable);
        replayable.seal();
    }
}

impl Default for Fresh {
    fn default() -> Self {
        Self {
            flavour: Flavour::default(),
            schema: None,
            autocommit: true,
            sql_mode: String::new(),
            multi_statements: false,
            ignore_space: false,
            collation: 0,
            variables: Vec::new(),
            names_after_reset: String::new(),
        }
    }
}

#[cfg(test)]
mod tests;
