//! What can be wrong with a configuration, each with its place.

use std::fmt;
use std::io;
use std::path::PathBuf;

use thiserror::Error;

use crate::units::UnitError;

/// Everything that is wrong, in the order of the sources.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Faults(pub Vec<Fault>);

impl std::error::Error for Faults {}

/// One line for each fault.
impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, fault) in self.0.iter().enumerate() {
            if at > 0 {
                f.write_str("\n")?;
            }
            fault.fmt(f)?;
        }
        Ok(())
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    pub place: Place,
    /// The path of the key, as in `listen.rw.address`; empty for a fault of a whole file.
    pub key: String,
    pub problem: Problem,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.place != Place::Nowhere {
            write!(f, "{}: ", self.place)?;
        }
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        self.problem.fmt(f)
    }
}

/// Where a value comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Place {
    /// Nobody wrote it: a default, or something that is missing.
    #[default]
    Nowhere,
    File(PathBuf),
    /// Line and column count from 1, the column in characters.
    Line {
        file: PathBuf,
        line: usize,
        column: usize,
    },
    /// The name of an environment variable.
    Environment(String),
    /// A command-line flag, with its dashes.
    Flag(String),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nowhere => f.write_str("default"),
            Self::File(file) => write!(f, "{}", file.display()),
            Self::Line { file, line, column } => write!(f, "{}:{line}:{column}", file.display()),
            Self::Environment(name) | Self::Flag(name) => f.write_str(name),
        }
    }
}

/// What is wrong with a value.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Problem {
    #[error("cannot be read: {0}")]
    Unreadable(ReadError),
    #[error("cannot read {file}: {error}", file = file.display())]
    FileOption { file: PathBuf, error: ReadError },
    #[error("expected a file name that ends with .toml or .json")]
    UnknownFormat,
    #[error("{0}")]
    Syntax(String),
    #[error("unknown key{}", hint(nearest.as_deref()))]
    UnknownKey { nearest: Option<String> },
    #[error("given more than once")]
    GivenTwice,
    #[error("set here and by {other}; expected one of them")]
    ValueAndFile { other: String },
    #[error("expected {expected}, got {got}")]
    Type { expected: String, got: String },
    #[error("expected one of {}, got \"{got}\"{}", expected.join(", "), hint(nearest.as_deref()))]
    Choice { expected: Vec<String>, got: String, nearest: Option<String> },
    #[error("expected {minimum} to {maximum}, got {got}")]
    Range { minimum: i64, maximum: i64, got: i64 },
    #[error("{error}, got \"{got}\"")]
    Unit { error: UnitError, got: String },
    #[error("{error}, got the plain number {got}; write \"{got}{unit}\"")]
    NoUnit { error: UnitError, got: String, unit: &'static str },
    #[error("expected a duration over zero")]
    ZeroDuration,
    #[error("no server is given; expected servers = [\"host:port\", ...]")]
    NoServer,
    #[error("the service account is missing; expected the name of a user")]
    NoUser,
    #[error("nothing to listen on; expected listen.rw or listen.ro to have an address or a socket")]
    NoListener,
    #[error("expected host:port as in \"db-1:3306\" or \"[::1]:3306\", got \"{got}\"")]
    Address { got: String },
    #[error("{what} \"{value}\" is given twice{}", at(other))]
    Duplicate { what: &'static str, value: String, other: Place },
    #[error("already used by {key}")]
    Taken { key: &'static str },
    #[error("expected {rule}, got \"{got}\"")]
    Name { rule: &'static str, got: String },
    #[error("needs {needs}")]
    Needs { needs: &'static str },
    #[error("expected at most {key} ({limit}), got {got}")]
    OverLimit { key: &'static str, limit: String, got: String },
    /// Found by the last step, after every check here: a fault of this crate.
    #[error("{0}")]
    Extraction(String),
}

fn hint(nearest: Option<&str>) -> String {
    nearest.map_or_else(String::new, |name| format!("; did you mean \"{name}\"?"))
}

fn at(other: &Place) -> String {
    if *other == Place::Nowhere { String::new() } else { format!(", first at {other}") }
}

/// Why a file could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ReadError {
    #[error("no such file")]
    Absent,
    #[error("permission denied")]
    Denied,
    #[error("is a directory")]
    Directory,
    #[error("not UTF-8")]
    NotText,
    #[error("larger than {limit} bytes")]
    TooLarge { limit: u64 },
    #[error("{0}")]
    Other(io::ErrorKind),
}

/// What is odd but does not stop anything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    pub place: Place,
    pub key: String,
    pub notice: Notice,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.place != Place::Nowhere {
            write!(f, "{}: ", self.place)?;
        }
        write!(f, "{}: {}", self.key, self.notice)
    }
}

/// What a warning is about.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Notice {
    #[error("{file} holds a secret and can be read by every user of this machine", file = file.display())]
    ReadableByOthers { file: PathBuf },
    #[error("every server has weight 0, so reads go to the primary")]
    NoWeight,
    #[error("has no effect: {because}")]
    NoEffect { because: &'static str },
}
