//! How a command ends: one place that knows the exit codes.

use std::process::ExitCode;

use serde_json::{Value, json};

use crate::admin::API_VERSION;

/// What a command's exit code says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Exit {
    Ok,
    /// Something unexpected.
    Error,
    /// A fault in the command line or in the configuration, or a missing confirmation.
    Usage,
    /// A precondition was not met; nothing was changed.
    Refused,
    /// It failed, and all of it was undone.
    RolledBack,
    /// It failed half-way; an operator is needed.
    HalfWay,
    /// The time to wait is over; it goes on.
    StillRunning,
    /// No proxy could be reached.
    Unreachable,
    /// The cluster works, though not with all servers.
    Degraded,
    /// There is no primary.
    NoPrimary,
}

impl Exit {
    fn number(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Error => 1,
            Self::Usage => 2,
            Self::Refused => 3,
            Self::RolledBack => 4,
            Self::HalfWay => 5,
            Self::StillRunning => 6,
            Self::Unreachable => 7,
            Self::Degraded => 10,
            Self::NoPrimary => 11,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.number())
    }
}

/// Why a command failed: the message for people, and the exit code.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) exit: Exit,
    pub(super) message: String,
}

impl Failure {
    pub(super) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into() }
    }

    /// For programs: what the exit code and standard error say.
    pub(super) fn document(&self) -> Value {
        json!({ "apiVersion": API_VERSION, "error": self.message, "exit": self.exit.number() })
    }

    /// A fault of the command line or the configuration.
    pub(super) fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message)
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::new(Exit::Error, error.to_string())
    }
}

/// What every command ends with.
pub(super) type Outcome = Result<Exit, Failure>;
