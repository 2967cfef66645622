//! MariaDB's positions: `domain-server-sequence`, one for each replication domain.
//!
//! Sequence numbers rise within a domain whichever server wrote, so a position says "everything up to here".
//! The server id tells only who wrote the last one. See "GTID positions" in MariaDB's documentation of global
//! transaction ids.

use std::fmt;

use super::{Fragment, GtidError, decimal};

/// The last transaction of each domain, ordered by domain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MariadbPosition {
    last: Vec<Last>,
}

/// The last transaction of one domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Last {
    domain: u32,
    server: u32,
    sequence: u64,
}

impl MariadbPosition {
    /// Adds the elements of a comma list such as `0-1-5, 7-2-33`.
    ///
    /// # Errors
    ///
    /// [`GtidError::Position`] with the first element that is none.
    pub fn merge_text(&mut self, text: &[u8]) -> Result<(), GtidError> {
        for element in text.split(|&byte| byte == b',') {
            let element = element.trim_ascii();
            if !element.is_empty() {
                self.raise(parse_one(element).ok_or(GtidError::Position(Fragment::new(element)))?);
            }
        }
        Ok(())
    }

    /// Raises every domain to at least what `other` has.
    pub fn merge(&mut self, other: &Self) {
        for &last in &other.last {
            self.raise(last);
        }
    }

    /// Whether every domain of `other` has come as far here.
    pub fn contains(&self, other: &Self) -> bool {
        other
            .last
            .iter()
            .all(|theirs| self.sequence(theirs.domain).is_some_and(|mine| mine >= theirs.sequence))
    }

    /// The domains that are further here than in `other`.
    #[must_use]
    pub fn subtract(&self, other: &Self) -> Self {
        let further = |mine: &&Last| other.sequence(mine.domain).is_none_or(|theirs| theirs < mine.sequence);
        Self { last: self.last.iter().filter(further).copied().collect() }
    }

    /// Whether a server wrote the last transaction of any domain.
    pub fn names_author(&self, server_id: u32) -> bool {
        self.last.iter().any(|last| last.server == server_id)
    }

    /// Whether a server wrote the last transaction of every domain.
    pub fn is_only_of(&self, server_id: u32) -> bool {
        self.last.iter().all(|last| last.server == server_id)
    }

    pub fn is_empty(&self) -> bool {
        self.last.is_empty()
    }

    fn sequence(&self, domain: u32) -> Option<u64> {
        let at = self.find(domain).ok()?;
        Some(self.last[at].sequence)
    }

    fn raise(&mut self, last: Last) {
        match self.find(last.domain) {
            Ok(at) if self.last[at].sequence < last.sequence => self.last[at] = last,
            Ok(_) => {}
            Err(at) => self.last.insert(at, last),
        }
    }

    /// Where a domain is, or where it belongs.
    fn find(&self, domain: u32) -> Result<usize, usize> {
        self.last.binary_search_by_key(&domain, |last| last.domain)
    }
}

impl fmt::Display for MariadbPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, last) in self.last.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            write!(f, "{comma}{}-{}-{}", last.domain, last.server, last.sequence)?;
        }
        Ok(())
    }
}

fn parse_one(element: &[u8]) -> Option<Last> {
    let mut parts = element.splitn(3, |&byte| byte == b'-');
    let domain = u32::try_from(decimal(parts.next()?)?).ok()?;
    let server = u32::try_from(decimal(parts.next()?)?).ok()?;
    let sequence = decimal(parts.next()?)?;
    Some(Last { domain, server, sequence })
}
