//! What of a session a server connection has, and what it takes to bring it to another session's state.

use std::sync::Arc;

use super::replayable::{NAMES, Replayable, Setting};
use super::{Pins, Reading, SessionState};
use crate::intent::Flavour;

/// The state that is applied on one server connection.
#[derive(Clone, Debug)]
pub struct ConnectionState {
    applied: Arc<Replayable>,
    /// Holds what cannot be undone by settings: only a reset makes it clean.
    dirty: bool,
    /// What autocommit is after a login or a reset.
    fresh_autocommit: bool,
    /// Elements of a SET list that put the character set of the login back; empty where they are not known.
    login_charset: Arc<str>,
}

/// How a connection gets into a session's state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SyncPlan {
    /// It is there.
    Nothing,
    Apply(Steps),
    /// COM_RESET_CONNECTION, the base state of the login, then the steps.
    ResetThenApply(Steps),
    /// Neither settings nor a reset lead there: a schema or a role that the session has not cannot be unset.
    Unusable,
}

/// Commands to send in this order, each of which must succeed.
pub type Steps = Vec<Step>;

/// One command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// COM_INIT_DB with this schema.
    InitDb(Box<[u8]>),
    /// COM_QUERY with a statement without result.
    Query(Vec<u8>),
}

impl ConnectionState {
    /// A connection that has just logged in with this schema, and whose base settings are the server's.
    pub fn fresh(schema: Option<&[u8]>) -> Self {
        Self::new(schema, true)
    }

    /// As [`Self::fresh`], where the login's status flags said whether autocommit is on.
    pub fn new(schema: Option<&[u8]>, autocommit: bool) -> Self {
        let applied = Arc::new(Replayable::new(schema.map(Box::from), autocommit));
        Self { applied, dirty: false, fresh_autocommit: autocommit, login_charset: "".into() }
    }

    /// Tells how the character set of the login is put back without a reset, as elements of a SET list:
    /// `character_set_client = latin1, ...`. By name, because a server may not know the number of the login.
    #[must_use]
    pub fn with_login_charset(self, elements: &str) -> Self {
        Self { login_charset: elements.into(), ..self }
    }

    /// Equal to a session's fingerprint when the connection is in its state; [`Self::plan`] is exact.
    pub fn fingerprint(&self) -> u64 {
        if self.dirty { !self.applied.fingerprint() } else { self.applied.fingerprint() }
    }

    /// A session without a schema cannot use a connection that has one.
    pub fn has_schema(&self) -> bool {
        self.applied.schema.is_some()
    }

    /// Only a reset makes the connection fit for another session.
    pub fn is_dirty(&self) -> bool {
        self.dirty
    }

    /// What has to be sent before a statement of this session.
    ///
    /// A pinned session's own connection is never asked about: what pins it cannot be planned.
    pub fn plan(&self, session: &SessionState) -> SyncPlan {
        let wanted = session.replayable();
        if !self.dirty && (Arc::ptr_eq(&self.applied, wanted) || self.applied == *wanted) {
            return SyncPlan::Nothing;
        }
        if self.has_schema() && wanted.schema.is_none() {
            return SyncPlan::Unusable;
        }
        // Neither a reset nor a statement brings MariaDB back to the role of the login.
        if self.applied.role.is_some() && wanted.role.is_none() && session.flavour() == Flavour::Mariadb {
            return SyncPlan::Unusable;
        }
        if self.dirty || leaves_behind(&self.applied, wanted, &self.login_charset) {
            let mut reset = self.clone();
            reset.after_reset();
            return SyncPlan::ResetThenApply(steps(&reset.applied, wanted, &self.login_charset));
        }
        SyncPlan::Apply(steps(&self.applied, wanted, &self.login_charset))
    }

    /// The steps to where texts are read in another way than the session's now, and those back; none where it is
    /// the same. For a connection that is in the session's state, pinned or not.
    pub fn detour(&self, session: &SessionState, reading: &Reading) -> Option<(Steps, Steps)> {
        let now = session.replayable();
        let then = reading.applied_to(now)?;
        Some((steps(now, &then, &self.login_charset), steps(&then, now, &self.login_charset)))
    }

    /// The connection is now in the session's state, and holds what the session is pinned by.
    pub fn adopt(&mut self, session: &SessionState) {
        if !Arc::ptr_eq(&self.applied, session.replayable()) {
            self.applied = session.replayable().clone();
        }
        self.dirty = !(session.pins() - Pins::FLEETING).is_empty();
    }

    /// COM_RESET_CONNECTION has succeeded and the base state of the login is set again. Schema and role outlive it.
    pub fn after_reset(&mut self) {
        let mut applied = Replayable::new(self.applied.schema.clone(), self.fresh_autocommit);
        applied.role.clone_from(&self.applied.role);
        applied.seal();
        self.applied = Arc::new(applied);
        self.dirty = false;
    }
}

/// Whether the connection has something that the session has not, and that only a reset takes away.
fn leaves_behind(applied: &Replayable, wanted: &Replayable, login_charset: &str) -> bool {
    let charset_stays = login_charset.is_empty()
        && wanted.setting(NAMES).is_none()
        && applied.settings.iter().any(Setting::is_charset)
        && differ_in_charset(applied, wanted);
    // What is set next would add to it.
    let adds_up = |setting: &Setting| {
        setting.is_partial() && wanted.setting(&setting.name).is_some_and(|s| s != setting)
    };
    charset_stays
        || applied.settings.iter().any(adds_up)
        || applied.user_variables.iter().any(|variable| wanted.user_variable(&variable.name).is_none())
}

fn differ_in_charset(applied: &Replayable, wanted: &Replayable) -> bool {
    !applied.settings.iter().filter(|s| s.is_charset()).eq(wanted.settings.iter().filter(|s| s.is_charset()))
}

fn steps(from: &Replayable, to: &Replayable, login_charset: &str) -> Steps {
    let mut steps = Vec::new();
    if from.role != to.role {
        let sql = to.role.as_deref().unwrap_or("SET ROLE DEFAULT");
        steps.push(Step::Query(sql.as_bytes().to_vec()));
    }
    // After the role, which may be what allows the schema.
    if let Some(schema) = to.schema.as_ref().filter(|_| from.schema != to.schema) {
        steps.push(Step::InitDb(schema.clone()));
    }
    steps.extend(set_statement(from, to, login_charset).map(Step::Query));
    // In a statement of their own: their literals are read in the character set and sql_mode just set.
    steps.extend(user_variables_statement(from, to).map(Step::Query));
    steps
}

/// One SET of everything that differs; both flavours take NAMES as an element of the list.
fn set_statement(from: &Replayable, to: &Replayable, login_charset: &str) -> Option<Vec<u8>> {
    let mut list = List::default();
    for dropped in from.settings.iter().filter(|s| !s.is_charset() && to.setting(&s.name).is_none()) {
        let fresh = if is_wrong_by_default(&dropped.name) {
            format!("@@GLOBAL.{}", dropped.name)
        } else {
            "DEFAULT".to_owned()
        };
        list.element(&["@@SESSION.", &dropped.name, "=", &fresh]);
    }
    if differ_in_charset(from, to) {
        // All or none, as they override each other; without SET NAMES, from what the login gave.
        if to.setting(NAMES).is_none() && from.settings.iter().any(Setting::is_charset) {
            list.element(&[login_charset]);
        }
        to.settings.iter().filter(|s| s.is_charset()).for_each(|setting| list.setting(setting));
    }
    for setting in to.settings.iter().filter(|s| !s.is_charset()) {
        if from.setting(&setting.name) != Some(setting) {
            list.setting(setting);
        }
    }
    if from.autocommit != to.autocommit {
        list.element(&["@@SESSION.autocommit=", if to.autocommit { "1" } else { "0" }]);
    }
    list.finish()
}

/// Verified on MySQL 9.7: DEFAULT sets these two to 0, whatever the global value is.
fn is_wrong_by_default(name: &str) -> bool {
    matches!(name, "foreign_key_checks" | "unique_checks")
}

fn user_variables_statement(from: &Replayable, to: &Replayable) -> Option<Vec<u8>> {
    let mut list = List::default();
    for variable in &to.user_variables {
        if from.user_variable(&variable.name) != Some(variable) {
            list.element(&["@`", &variable.name.replace('`', "``"), "`="]);
            list.sql.extend_from_slice(&variable.value);
        }
    }
    list.finish()
}

/// A SET statement that grows.
#[derive(Default)]
struct List {
    sql: Vec<u8>,
}

impl List {
    fn element(&mut self, parts: &[&str]) {
        self.sql.extend_from_slice(if self.sql.is_empty() { b"SET " } else { b"," });
        for part in parts {
            self.sql.extend_from_slice(part.as_bytes());
        }
    }

    fn setting(&mut self, setting: &Setting) {
        if &*setting.name == NAMES {
            self.element(&[&setting.value]);
        } else {
            self.element(&["@@SESSION.", &setting.name, "=", &setting.value]);
        }
    }

    fn finish(self) -> Option<Vec<u8>> {
        (!self.sql.is_empty()).then_some(self.sql)
    }
}
