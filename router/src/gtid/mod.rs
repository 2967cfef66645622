//! What a server has executed, in the words of either family of servers.
//!
//! MariaDB names a position: the last transaction of each replication domain. MySQL names a set: intervals of
//! each source. Both come as text, from system variables and from OK packets. What the two have in common is
//! here: the union, "has executed all of", and the difference. Sets of different families never mix: neither
//! contains the other, and a union keeps the set it started with.

mod mariadb;
mod mysql;

use std::fmt;

pub use mariadb::MariadbPosition;
pub use mysql::MysqlSet;

use crate::intent::Flavour;

/// The transactions that a server has executed, or that a session has to see.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum GtidSet {
    #[default]
    Empty,
    Mariadb(MariadbPosition),
    Mysql(MysqlSet),
}

/// Why text is no GTID set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GtidError {
    #[error("expected domain-server-sequence, got {0:?}")]
    Position(Fragment),
    #[error("expected uuid[:tag]:interval, got {0:?}")]
    Set(Fragment),
}

/// The first bytes of what could not be read.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Fragment {
    bytes: [u8; FRAGMENT_BYTES],
    len: u8,
}

impl GtidSet {
    /// Reads the text of a system variable or of a session tracker. Blanks and line ends are allowed around
    /// every element, as servers write them.
    ///
    /// # Errors
    ///
    /// [`GtidError`] with the element that could not be read.
    pub fn parse(flavour: Flavour, text: &str) -> Result<Self, GtidError> {
        let mut set = Self::Empty;
        set.merge_text(flavour, text.as_bytes())?;
        Ok(set)
    }

    /// Adds what `text` names; the cheap way for the one GTID of an OK packet.
    ///
    /// # Errors
    ///
    /// [`GtidError`]; elements before the faulty one have been added then.
    pub fn merge_text(&mut self, flavour: Flavour, text: &[u8]) -> Result<(), GtidError> {
        match (flavour, &mut *self) {
            (Flavour::Mariadb, Self::Mariadb(position)) => position.merge_text(text),
            (Flavour::Mysql, Self::Mysql(set)) => set.merge_text(text),
            (Flavour::Mariadb, Self::Empty) => {
                let mut position = MariadbPosition::default();
                let read = position.merge_text(text);
                if !position.is_empty() {
                    *self = Self::Mariadb(position);
                }
                read
            }
            (Flavour::Mysql, Self::Empty) => {
                let mut set = MysqlSet::default();
                let read = set.merge_text(text);
                if !set.is_empty() {
                    *self = Self::Mysql(set);
                }
                read
            }
            (Flavour::Mariadb, Self::Mysql(_)) => MariadbPosition::default().merge_text(text),
            (Flavour::Mysql, Self::Mariadb(_)) => MysqlSet::default().merge_text(text),
        }
    }

    /// Makes this the union of both. A set of the other flavour is ignored.
    pub fn merge(&mut self, other: &Self) {
        match (&mut *self, other) {
            (_, Self::Empty) | (Self::Mariadb(_), Self::Mysql(_)) | (Self::Mysql(_), Self::Mariadb(_)) => {}
            (Self::Empty, _) => *self = other.clone(),
            (Self::Mariadb(mine), Self::Mariadb(theirs)) => mine.merge(theirs),
            (Self::Mysql(mine), Self::Mysql(theirs)) => mine.merge(theirs),
        }
    }

    /// Whether everything in `other` is in here. The empty set is in every set.
    pub fn contains(&self, other: &Self) -> bool {
        match (self, other) {
            (_, Self::Empty) => true,
            (Self::Mariadb(mine), Self::Mariadb(theirs)) => mine.contains(theirs),
            (Self::Mysql(mine), Self::Mysql(theirs)) => mine.contains(theirs),
            (Self::Empty, _) | (Self::Mariadb(_), Self::Mysql(_)) | (Self::Mysql(_), Self::Mariadb(_)) => {
                false
            }
        }
    }

    /// What is in here and not in `other`. Of a MariaDB position, the domains that are further than in `other`.
    #[must_use]
    pub fn subtract(&self, other: &Self) -> Self {
        match (self, other) {
            (Self::Empty, _) => Self::Empty,
            (Self::Mariadb(mine), Self::Mariadb(theirs)) => Self::from_position(mine.subtract(theirs)),
            (Self::Mysql(mine), Self::Mysql(theirs)) => Self::from_set(mine.subtract(theirs)),
            (_, Self::Empty) | (Self::Mariadb(_), Self::Mysql(_)) | (Self::Mysql(_), Self::Mariadb(_)) => {
                self.clone()
            }
        }
    }

    /// Whether a server wrote any of this itself: the last transaction of a domain, or of a set any.
    pub fn names_author(&self, server_id: u32, uuid: &str) -> bool {
        match self {
            Self::Empty => false,
            Self::Mariadb(position) => position.names_author(server_id),
            Self::Mysql(set) => set.names_author(uuid),
        }
    }

    /// Whether one server wrote all of this, as far as it shows: the last transaction of each domain, or of a set all.
    pub fn is_only_of(&self, server_id: u32, uuid: &str) -> bool {
        match self {
            Self::Empty => true,
            Self::Mariadb(position) => position.is_only_of(server_id),
            Self::Mysql(set) => set.is_only_of(uuid),
        }
    }

    pub fn is_empty(&self) -> bool {
        matches!(self, Self::Empty)
    }

    fn from_position(position: MariadbPosition) -> Self {
        if position.is_empty() { Self::Empty } else { Self::Mariadb(position) }
    }

    fn from_set(set: MysqlSet) -> Self {
        if set.is_empty() { Self::Empty } else { Self::Mysql(set) }
    }
}

/// The server's own syntax on one line, as MASTER_GTID_WAIT and WAIT_FOR_EXECUTED_GTID_SET read it.
impl fmt::Display for GtidSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => Ok(()),
            Self::Mariadb(position) => position.fmt(f),
            Self::Mysql(set) => set.fmt(f),
        }
    }
}

impl Fragment {
    fn new(text: &[u8]) -> Self {
        let len = text.len().min(FRAGMENT_BYTES);
        let mut bytes = [0; FRAGMENT_BYTES];
        bytes[..len].copy_from_slice(&text[..len]);
        Self { bytes, len: u8::try_from(len).unwrap_or(u8::MAX) }
    }
}

impl fmt::Debug for Fragment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.bytes[..usize::from(self.len)].escape_ascii())
    }
}

/// Reads a decimal number without sign; none when it is empty, not decimal, or too large.
fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0_u64, |value, &byte| {
        let digit = byte.wrapping_sub(b'0');
        (digit < 10).then(|| value.checked_mul(10)?.checked_add(u64::from(digit))).flatten()
    })
}

/// How much of a faulty element an error repeats.
const FRAGMENT_BYTES: usize = 96;

#[cfg(test)]
mod tests;
