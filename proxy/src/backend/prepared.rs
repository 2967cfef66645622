//! Which statements of which sessions are prepared on one server connection.

use std::collections::HashMap;

use pointsman_protocol::command::code;
use pointsman_protocol::packet::write_packet;

/// A session's prepared statement: the session's connection id and the statement id that the client knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StatementKey {
    pub session: u32,
    pub statement: u32,
}

/// A statement as the server knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prepared {
    pub server_id: u32,
    /// The version of the parameter types that the server has seen; 0 for none.
    pub types_version: u32,
    used: u64,
}

/// The statements of one connection, least recently used out first.
#[derive(Debug, Default)]
pub struct PreparedStatements {
    known: HashMap<StatementKey, Prepared>,
    clock: u64,
    /// COM_STMT_CLOSE packets that go out with the next write; they have no answer.
    pending_closes: Vec<u8>,
}

impl PreparedStatements {
    pub fn find(&mut self, key: StatementKey) -> Option<Prepared> {
        self.clock += 1;
        let entry = self.known.get_mut(&key)?;
        entry.used = self.clock;
        Some(*entry)
    }

    pub fn insert(&mut self, key: StatementKey, server_id: u32) {
        if self.known.len() >= MAX_PREPARED
            && let Some(oldest) = self.known.iter().min_by_key(|(_, entry)| entry.used).map(|(key, _)| *key)
        {
            self.close(oldest);
        }
        self.clock += 1;
        self.known.insert(key, Prepared { server_id, types_version: 0, used: self.clock });
    }

    pub fn saw_types(&mut self, key: StatementKey, version: u32) {
        if let Some(entry) = self.known.get_mut(&key) {
            entry.types_version = version;
        }
    }

    /// Forgets a statement; the server hears of it with the next write.
    pub fn close(&mut self, key: StatementKey) {
        if let Some(entry) = self.known.remove(&key) {
            let mut payload = [code::STMT_CLOSE, 0, 0, 0, 0];
            payload[1..].copy_from_slice(&entry.server_id.to_le_bytes());
            write_packet(&mut self.pending_closes, 0, &payload);
        }
    }

    pub fn close_session(&mut self, session: u32) {
        let keys: Vec<_> = self.known.keys().filter(|key| key.session == session).copied().collect();
        for key in keys {
            self.close(key);
        }
    }

    /// A reset of the connection has closed everything on the server.
    pub fn clear(&mut self) {
        self.known.clear();
        self.pending_closes.clear();
    }

    pub fn has_pending_closes(&self) -> bool {
        !self.pending_closes.is_empty()
    }

    pub fn take_pending_closes(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.pending_closes)
    }

    pub fn len(&self) -> usize {
        self.known.len()
    }

    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }
}

/// Statements kept on one connection; the oldest goes when one more is prepared.
const MAX_PREPARED: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    fn key(statement: u32) -> StatementKey {
        StatementKey { session: 7, statement }
    }

    #[test]
    fn the_least_recently_used_goes_first_and_is_closed_on_the_server() {
        let mut prepared = PreparedStatements::default();
        for statement in 0..MAX_PREPARED as u32 {
            prepared.insert(key(statement), statement + 1000);
        }
        assert!(prepared.find(key(0)).is_some(), "touched, so no longer the oldest");
        prepared.insert(key(9999), 5);
        assert!(prepared.find(key(1)).is_none());
        assert!(prepared.find(key(0)).is_some());
        assert_eq!(prepared.take_pending_closes(), [5, 0, 0, 0, code::STMT_CLOSE, 0xe9, 3, 0, 0]);
    }

    #[test]
    fn a_session_takes_its_statements_with_it() {
        let mut prepared = PreparedStatements::default();
        prepared.insert(key(1), 1);
        prepared.insert(StatementKey { session: 8, statement: 1 }, 2);
        prepared.close_session(7);
        assert_eq!(prepared.len(), 1);
        assert!(prepared.has_pending_closes());
    }
}
