//! What an open transaction has done, for as long as doing it again on another server is the same.

use pointsman_router::intent::{Effects, Intent, Kind, Needs};
use pointsman_router::session::Pins;

/// The statements since the transaction began, with what was answered.
///
/// Grows with the transaction up to `failover.replay_limit` and is emptied at its end.
#[derive(Debug, Default)]
pub(super) struct Journal {
    /// The packets of all statements, one after the other, as they were sent.
    packets: Vec<u8>,
    entries: Vec<Entry>,
    /// Why the transaction cannot be done again.
    spoilt: Option<&'static str>,
    /// A statement of it has made an id: LAST_INSERT_ID() is the transaction's own.
    made_id: bool,
    /// LAST_INSERT_ID() before its first statement.
    insert_id_before: u64,
}

/// One statement.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    /// Where its packet ends; it begins where the one before ends.
    end: usize,
    /// The session's prepared statement that it executes.
    pub(super) statement: Option<u32>,
    /// See [`crate::backend::digest::AnswerDigest`].
    pub(super) answer: u64,
}

/// A statement that has been answered within a transaction.
#[derive(Clone, Copy, Debug)]
pub(super) struct Done<'a> {
    pub(super) intent: &'a Intent,
    /// None where it is not at hand as a whole.
    pub(super) packet: Option<&'a [u8]>,
    pub(super) statement: Option<u32>,
    pub(super) answer: u64,
    /// What pinned the session before or after it.
    pub(super) pins: Pins,
    pub(super) insert_id: u64,
    /// LAST_INSERT_ID() before it.
    pub(super) insert_id_before: u64,
    /// The answer told of a committed transaction.
    pub(super) has_gtid: bool,
}

impl Journal {
    /// Why the transaction cannot be done again; none while it can.
    pub(super) fn spoilt(&self) -> Option<&'static str> {
        self.spoilt
    }

    /// LAST_INSERT_ID() as the first statement has to find it: not every INSERT that shows an id makes one.
    pub(super) fn insert_id_before(&self) -> u64 {
        self.insert_id_before
    }

    /// No transaction is open.
    pub(super) fn clear(&mut self) {
        if self.entries.is_empty() && self.spoilt.is_none() {
            return;
        }
        self.packets.clear();
        self.packets.shrink_to(KEPT_BYTES);
        self.entries.clear();
        self.entries.shrink_to(KEPT_ENTRIES);
        (self.spoilt, self.made_id) = (None, false);
    }

    /// Takes note of a statement after which a transaction is open.
    pub(super) fn note(&mut self, done: &Done<'_>, limit: u64) {
        if matches!(done.intent.kind, Kind::Begin | Kind::BeginReadOnly) {
            // It has ended whatever was before it.
            self.clear();
        }
        if self.spoilt.is_some() {
            return;
        }
        let obstacle = self.obstacle(done, limit);
        if let (None, Some(packet)) = (obstacle, done.packet) {
            if self.entries.is_empty() {
                self.insert_id_before = done.insert_id_before;
            }
            self.packets.extend_from_slice(packet);
            let (end, statement, answer) = (self.packets.len(), done.statement, done.answer);
            self.entries.push(Entry { end, statement, answer });
            self.made_id |= done.insert_id != 0;
        } else {
            self.clear();
            self.spoilt = obstacle.or(Some("a statement of it is too long"));
        }
    }

    fn obstacle(&self, done: &Done<'_>, limit: u64) -> Option<&'static str> {
        if done.has_gtid {
            return Some("a part of it is committed already");
        }
        if !may_be_repeated(done.intent) {
            return Some("a statement of it may do more than its text says");
        }
        if !(done.pins - Pins::TRANSACTION - Pins::FLEETING).is_empty() {
            return Some("the session has more on its connection than the transaction");
        }
        if done.intent.kind == Kind::Write && done.intent.needs.contains(Needs::INSERT_ID) && !self.made_id {
            return Some("a statement of it uses a LAST_INSERT_ID() from before");
        }
        let size = self.packets.len() + done.packet.map_or(0, <[u8]>::len);
        (size as u64 > limit).then_some("it is larger than failover.replay_limit")
    }

    /// The statements in their order, each with its packet.
    pub(super) fn statements(&self) -> impl Iterator<Item = (Entry, &[u8])> {
        let starts = std::iter::once(0).chain(self.entries.iter().map(|entry| entry.end));
        starts.zip(&self.entries).map(|(start, entry)| (*entry, &self.packets[start..entry.end]))
    }
}

/// Whether a statement of this kind does the same when it is run again in the same order, and cannot commit.
pub(super) fn may_be_repeated(intent: &Intent) -> bool {
    let harmless = Effects::SETS_INSERT_ID | Effects::CALC_FOUND_ROWS | Effects::CONSISTENT_SNAPSHOT;
    // BEGIN commits what was before it; of its own transaction it is the first.
    let own = Effects::IMPLICIT_COMMIT | Effects::MAY_COMMIT;
    let begins = matches!(intent.kind, Kind::Begin | Kind::BeginReadOnly);
    let effects = if begins { intent.effects - own } else { intent.effects };
    let is_kind = matches!(
        intent.kind,
        Kind::Read
            | Kind::UnprovenRead
            | Kind::Write
            | Kind::Begin
            | Kind::BeginReadOnly
            | Kind::Savepoint
            | Kind::Diagnostics
            | Kind::ServerQuestion
            | Kind::Empty
    );
    is_kind
        && (effects - harmless).is_empty()
        && intent.actions.as_ref().is_none_or(|actions| actions.is_empty())
}

/// What an empty journal keeps of its room: transactions of one client are alike.
const KEPT_BYTES: usize = 2 * 1024;
const KEPT_ENTRIES: usize = 32;

#[cfg(test)]
mod tests {
    use pointsman_router::classify::{Catalogue, Classifier, Mode};

    use super::*;

    fn intent(sql: &str) -> Intent {
        let mut classifier = Classifier::new([7; 32], 16);
        (*classifier.classify(sql.as_bytes(), &Mode::default(), &Catalogue::default()).intent).clone()
    }

    fn note(journal: &mut Journal, sql: &str, change: impl FnOnce(&mut Done<'_>)) {
        let intent = intent(sql);
        let mut done = Done {
            intent: &intent,
            packet: Some(sql.as_bytes()),
            statement: None,
            answer: 1,
            pins: Pins::TRANSACTION,
            insert_id: 0,
            insert_id_before: 0,
            has_gtid: false,
        };
        change(&mut done);
        journal.note(&done, 100);
    }

    #[test]
    fn what_may_be_done_again() {
        let check = |sql: &str, expected: bool| assert_eq!(may_be_repeated(&intent(sql)), expected, "{sql}");
        check("BEGIN", true);
        check("START TRANSACTION READ ONLY", true);
        check("INSERT INTO t VALUES (1)", true);
        check("SELECT a FROM t FOR UPDATE", true);
        check("SAVEPOINT a", true);
        check("ROLLBACK TO SAVEPOINT a", true);
        check("COMMIT", false);
        check("ROLLBACK AND CHAIN", false);
        check("CALL p()", false);
        check("EXECUTE s", false);
        check("SET autocommit = 0", false);
        check("SET @a = 1", false);
        check("SELECT @a := 1", false);
        check("CREATE TABLE t (a INT)", false);
        check("LOCK TABLES t WRITE", false);
        check("XA START 'x'", false);
        check("INSERT INTO t VALUES (1); COMMIT", false);
        check("LOAD DATA LOCAL INFILE 'f' INTO TABLE t", false);
        check("USE s", false);
    }

    #[test]
    fn statements_come_back_in_their_order() {
        let mut journal = Journal::default();
        for sql in ["BEGIN", "INSERT INTO t VALUES (1)", "SELECT 1"] {
            note(&mut journal, sql, |_| {});
        }
        let packets: Vec<_> = journal.statements().map(|(_, packet)| packet.to_vec()).collect();
        assert_eq!(packets, [&b"BEGIN"[..], b"INSERT INTO t VALUES (1)", b"SELECT 1"]);
        note(&mut journal, "BEGIN", |_| {});
        assert_eq!(journal.statements().count(), 1);
        journal.clear();
        assert_eq!((journal.statements().count(), journal.spoilt()), (0, None));
    }

    #[test]
    fn what_spoils_it_stays_until_the_end() {
        let check = |sql: &str, change: &dyn Fn(&mut Done<'_>)| {
            let mut journal = Journal::default();
            note(&mut journal, "BEGIN", |_| {});
            note(&mut journal, sql, change);
            assert!(journal.spoilt().is_some(), "{sql}");
            note(&mut journal, "SELECT 1", |_| {});
            assert!(journal.spoilt().is_some() && journal.statements().count() == 0, "{sql}");
            journal.clear();
            assert!(journal.spoilt().is_none(), "{sql}");
        };
        check("INSERT INTO t VALUES (1)", &|done| done.has_gtid = true);
        check("INSERT INTO t VALUES (1)", &|done| done.pins |= Pins::TEMPORARY_TABLE);
        check("INSERT INTO t VALUES (1)", &|done| done.packet = None);
        check("INSERT INTO t VALUES (LAST_INSERT_ID())", &|_| {});
        check("CALL p()", &|_| {});
        check(&format!("INSERT INTO t VALUES ('{}')", "x".repeat(100)), &|_| {});
    }

    #[test]
    fn an_id_of_the_transaction_itself_may_be_used() {
        let mut journal = Journal::default();
        note(&mut journal, "BEGIN", |_| {});
        note(&mut journal, "INSERT INTO t VALUES ()", |done| done.insert_id = 7);
        note(&mut journal, "INSERT INTO u VALUES (LAST_INSERT_ID())", |_| {});
        assert_eq!(journal.spoilt(), None);
    }
}
