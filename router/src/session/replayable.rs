//! The part of a session that can be made again on any server connection.
//!
//! Settings are kept in the order in which they were made, because some override others: SET NAMES sets four
//! variables, and each of those can be set again after it. A session shares its value with the connections that
//! have it, so that "nothing differs" is one comparison of pointers.

use std::hash::Hasher;
use std::sync::Arc;

use siphasher::sip::SipHasher13;

/// Current schema, settings and user variables.
#[derive(Clone, Debug, Default)]
pub(super) struct Replayable {
    pub(super) schema: Option<Box<[u8]>>,
    pub(super) autocommit: bool,
    /// The `SET ROLE` statement, where one was made.
    pub(super) role: Option<Arc<str>>,
    pub(super) settings: Vec<Setting>,
    pub(super) user_variables: Vec<UserVariable>,
    /// Of all names and values.
    bytes: usize,
    fingerprint: u64,
}

/// One element of a SET list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Setting {
    /// Lower case; [`NAMES`] for SET NAMES and SET CHARACTER SET.
    pub(super) name: Arc<str>,
    /// SQL text that reads the same in every sql_mode and character set: for a variable its value, for
    /// [`NAMES`] the whole element.
    pub(super) value: Arc<str>,
}

/// `@name` with the SQL text of its literal, which is read in the session's own sql_mode and character set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct UserVariable {
    /// Lower case, without `@`.
    pub(super) name: Arc<str>,
    pub(super) value: Arc<[u8]>,
}

/// More was set than is remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooMuch;

impl Replayable {
    /// Without any setting.
    pub(super) fn new(schema: Option<Box<[u8]>>, autocommit: bool) -> Self {
        let mut new = Self { schema, autocommit, ..Self::default() };
        new.seal();
        new
    }

    pub(super) fn setting(&self, name: &str) -> Option<&Setting> {
        self.settings.iter().find(|setting| &*setting.name == name)
    }

    pub(super) fn user_variable(&self, name: &str) -> Option<&UserVariable> {
        self.user_variables.iter().find(|variable| &*variable.name == name)
    }

    /// Whether setting this would change nothing.
    pub(super) fn stands(&self, name: &str, value: &str) -> bool {
        let last = self.settings.iter().rev().find(|setting| {
            if is_charset(name) { is_charset(&setting.name) } else { *setting.name == *name }
        });
        last.is_some_and(|setting| *setting.name == *name && *setting.value == *value)
    }

    /// Records a setting as the last one made; what it overrides is forgotten.
    ///
    /// # Errors
    ///
    /// [`TooMuch`] at the limit; the value is unchanged then.
    pub(super) fn set(&mut self, name: &str, value: &str) -> Result<(), TooMuch> {
        let is_overridden = |setting: &Setting| overrides(name, &setting.name);
        let freed = self.settings.iter().filter(|s| is_overridden(s)).map(Setting::bytes).sum::<usize>();
        let new = Setting { name: name.into(), value: value.into() };
        if self.settings.len() >= MAX_SETTINGS || self.bytes - freed + new.bytes() > MAX_BYTES {
            return Err(TooMuch);
        }
        self.bytes = self.bytes - freed + new.bytes();
        self.settings.retain(|setting| !is_overridden(setting));
        self.settings.push(new);
        Ok(())
    }

    /// Records a user variable.
    ///
    /// # Errors
    ///
    /// As [`Self::set`].
    pub(super) fn set_user_variable(&mut self, name: &str, value: &[u8]) -> Result<(), TooMuch> {
        let freed = self.user_variable(name).map_or(0, UserVariable::bytes);
        let new = UserVariable { name: name.into(), value: value.into() };
        if self.user_variables.len() >= MAX_USER_VARIABLES || self.bytes - freed + new.bytes() > MAX_BYTES {
            return Err(TooMuch);
        }
        self.bytes = self.bytes - freed + new.bytes();
        self.user_variables.retain(|variable| *variable.name != *name);
        self.user_variables.push(new);
        Ok(())
    }

    /// To be called after every change.
    pub(super) fn seal(&mut self) {
        let mut hash = SipHasher13::new();
        let mut field = |bytes: &[u8]| {
            hash.write_usize(bytes.len());
            hash.write(bytes);
        };
        field(&[u8::from(self.schema.is_some()), u8::from(self.autocommit), u8::from(self.role.is_some())]);
        field(self.schema.as_deref().unwrap_or_default());
        field(self.role.as_deref().unwrap_or_default().as_bytes());
        field(&self.settings.len().to_le_bytes());
        for setting in &self.settings {
            field(setting.name.as_bytes());
            field(setting.value.as_bytes());
        }
        for variable in &self.user_variables {
            field(variable.name.as_bytes());
            field(&variable.value);
        }
        self.fingerprint = hash.finish();
    }

    pub(super) fn fingerprint(&self) -> u64 {
        self.fingerprint
    }
}

/// Field by field; [`Replayable::fingerprint`] may be equal by chance.
impl PartialEq for Replayable {
    fn eq(&self, other: &Self) -> bool {
        self.fingerprint == other.fingerprint
            && self.schema == other.schema
            && self.autocommit == other.autocommit
            && self.role == other.role
            && self.settings == other.settings
            && self.user_variables == other.user_variables
    }
}

impl Setting {
    pub(super) fn is_charset(&self) -> bool {
        is_charset(&self.name)
    }

    /// Whether the value changes only a part of what the variable holds, so that it means something else on
    /// another server connection than where it was set.
    pub(super) fn is_partial(&self) -> bool {
        is_partial(&self.name) && !self.value.eq_ignore_ascii_case("default")
    }

    fn bytes(&self) -> usize {
        self.name.len() + self.value.len()
    }
}

impl UserVariable {
    fn bytes(&self) -> usize {
        self.name.len() + self.value.len()
    }
}

/// Whether setting `name` leaves nothing of an earlier `other`.
fn overrides(name: &str, other: &str) -> bool {
    match name {
        NAMES => is_charset(other),
        // Each of these two sets the other along.
        "character_set_connection" | "collation_connection" => {
            matches!(other, "character_set_connection" | "collation_connection")
        }
        _ => name == other,
    }
}

/// Whether a setting belongs to those that SET NAMES sets.
pub(super) fn is_charset(name: &str) -> bool {
    matches!(
        name,
        NAMES
            | "character_set_client"
            | "character_set_connection"
            | "character_set_results"
            | "collation_connection"
    )
}

/// Whether assignments to a variable name the flags that change and leave the others as they are.
pub(super) fn is_partial(name: &str) -> bool {
    matches!(name, "optimizer_switch" | "optimizer_trace" | "optimizer_trace_features")
}

/// Stands for SET NAMES among the names of variables; no variable has this name.
pub(super) const NAMES: &str = "names";
const MAX_SETTINGS: usize = 64;
const MAX_USER_VARIABLES: usize = 64;
const MAX_BYTES: usize = 16 * 1024;
