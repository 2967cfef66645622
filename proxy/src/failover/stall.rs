//! What a write that does not end waits for, as the server's other connections see it.

use std::time::Duration;

use pointsman_router::failover::Stall;
use pointsman_router::intent::Flavour;

use tokio::time::timeout;

use crate::cluster::connection::ConnectionError;
use crate::cluster::{Record, ServiceAccount, ServiceConnection};

/// A connection beside the one that writes.
#[derive(Debug)]
pub(super) struct Watcher<'a> {
    account: &'a ServiceAccount,
    address: String,
    flavour: Flavour,
    connection: Option<ServiceConnection>,
}

/// What a write waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Waits {
    For(Stall),
    ForALock,
    /// The server does not say it to this account.
    Unseen(String),
}

/// What a server says of one of its threads.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Thread {
    id: Option<u32>,
    command: String,
    state: String,
    /// For how long it has been in it.
    seconds: u64,
}

impl<'a> Watcher<'a> {
    pub(super) fn new(account: &'a ServiceAccount, address: String, flavour: Flavour) -> Self {
        Self { account, address, flavour, connection: None }
    }

    /// # Errors
    ///
    /// When the server does not answer within `LIMIT`; the next question is asked on a new connection.
    pub(super) async fn rows(&mut self, sql: &str) -> Result<Vec<Record>, ConnectionError> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.account.connect(&self.address, LIMIT).await?,
        };
        let rows = connection.rows(sql, LIMIT).await;
        if matches!(rows, Ok(_) | Err(ConnectionError::Server { .. })) {
            self.connection = Some(connection);
        }
        rows
    }

    /// Whether somebody's commit has not ended for a second.
    pub(super) async fn a_commit_hangs(&mut self) -> Result<bool, ConnectionError> {
        Ok(self.threads().await?.iter().any(Thread::hangs_in_commit))
    }

    /// What the write of `thread` has waited for since then. A server that says nothing of it is stuck altogether.
    pub(super) async fn cause(&mut self, thread: u32, since: Duration) -> Waits {
        match timeout(LOOK_LIMIT, self.known_cause(thread, since)).await {
            Ok(Ok(waits)) => waits,
            Ok(Err(ConnectionError::Server { code, message })) => {
                Waits::Unseen(format!("what a write waits for cannot be seen: error {code}: {message}"))
            }
            Ok(Err(_)) | Err(_) => Waits::For(Stall::Unknown),
        }
    }

    async fn known_cause(&mut self, thread: u32, since: Duration) -> Result<Waits, ConnectionError> {
        let threads = self.threads().await?;
        if let Some(known) = by_state(&threads) {
            return Ok(Waits::For(known));
        }
        let hangs = threads.iter().any(Thread::hangs_in_commit);
        if is_locked(&threads, thread) && !hangs {
            return Ok(Waits::ForALock);
        }
        // A lock on a row shows in no state.
        let transactions = self.rows(&transactions_sql(thread)).await?;
        let says = |name: &str| transactions.first().is_some_and(|row| row.is_on(&[name]));
        // A commit that hangs keeps its locks: then they are not what is waited for in the end.
        if says("waits") && !hangs {
            return Ok(Waits::ForALock);
        }
        if self.flavour == Flavour::Mysql && self.has_logged_full(since).await {
            return Ok(Waits::For(Stall::DiskFull));
        }
        Ok(Waits::For(if says("large") { Stall::LargeTransaction } else { Stall::Unknown }))
    }

    async fn threads(&mut self) -> Result<Vec<Thread>, ConnectionError> {
        let rows = self.rows("SHOW PROCESSLIST").await?;
        let threads = rows.iter().map(|row| Thread {
            id: row.number(&["Id"]),
            command: row.text_or_empty(&["Command"]),
            state: row.text_or_empty(&["State"]),
            seconds: row.number(&["Time"]).unwrap_or_default(),
        });
        Ok(threads.collect())
    }

    /// MySQL's threads do not say that they wait for room, its error log does (`wait_for_free_space` in
    /// `mysys/errors.cc`): when it begins, and each ten minutes.
    async fn has_logged_full(&mut self, since: Duration) -> bool {
        let seconds = since.as_secs() + LOGGED_BEFORE.as_secs();
        let sql = format!(
            "SELECT 1 FROM performance_schema.error_log WHERE DATA LIKE '%Disk is full%' \
             AND LOGGED > NOW(6) - INTERVAL {seconds} SECOND LIMIT 1"
        );
        // Where it may not look, the reason is not known.
        self.rows(&sql).await.is_ok_and(|rows| !rows.is_empty())
    }
}

impl Thread {
    /// A commit that waits is named so, or for what it waits.
    fn hangs_in_commit(&self) -> bool {
        let works = self.command == "Query" || self.command == "Execute";
        let commits = self.state.to_lowercase().contains("commit") && !self.waits_for_lock();
        works && self.seconds > 0 && (commits || self.waits_for_ack() || self.waits_for_room())
    }

    fn waits_for_lock(&self) -> bool {
        self.state.ends_with(" lock") || self.state.ends_with(" table flush")
    }

    fn waits_for_ack(&self) -> bool {
        waits_for_ack(&self.state)
    }

    fn waits_for_room(&self) -> bool {
        waits_for_room(&self.state)
    }
}

pub(super) fn waits_for_ack(state: &str) -> bool {
    state.contains("semi-sync ACK")
}

pub(super) fn waits_for_room(state: &str) -> bool {
    state.contains("free space") || state.contains("disk space")
}

/// What the threads say that writes wait for. Of commits that wait together only one says for what.
fn by_state(threads: &[Thread]) -> Option<Stall> {
    if threads.iter().any(Thread::waits_for_room) {
        return Some(Stall::DiskFull);
    }
    threads.iter().any(Thread::waits_for_ack).then_some(Stall::NoAcker)
}

/// Whether the thread `own` says that it waits for a lock.
fn is_locked(threads: &[Thread], own: u32) -> bool {
    threads.iter().any(|thread| thread.id == Some(own) && thread.waits_for_lock())
}

fn transactions_sql(thread: u32) -> String {
    format!(
        "SELECT MAX(trx_mysql_thread_id = {thread} AND trx_state = 'LOCK WAIT') AS waits, \
         MAX(trx_rows_modified > {LARGE_ROWS}) AS large FROM information_schema.INNODB_TRX"
    )
}

/// Whether an error says that there is no room: ENOSPC, by its number or text, or a table that cannot grow.
pub(super) fn is_full(message: &str) -> bool {
    let signs = [
        "No space left",
        "error 28 ",
        "rrcode: 28",
        "rrno: 28",
        "rrno 28",
        "Disk full",
        "Disk is full",
        "is full",
    ];
    signs.iter().any(|sign| message.contains(sign))
}

/// All that is asked at one look.
const LOOK_LIMIT: Duration = Duration::from_secs(2);
/// A login, and a question.
const LIMIT: Duration = Duration::from_secs(1);
/// It begins before the heartbeat that meets it.
const LOGGED_BEFORE: Duration = Duration::from_secs(10);
/// Committing so much takes a while, in which nobody else commits.
const LARGE_ROWS: u64 = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn thread(id: u32, state: &str) -> Thread {
        Thread { id: Some(id), command: "Query".into(), state: state.into(), seconds: 1 }
    }

    fn threads(states: &[(u32, &str)]) -> Vec<Thread> {
        states.iter().map(|(id, state)| thread(*id, state)).collect()
    }

    #[test]
    fn what_writes_wait_for() {
        let check = |states: &[(u32, &str)], expected: Option<Stall>| {
            assert_eq!(by_state(&threads(states)), expected, "{states:?}");
        };
        let ack = "Waiting for semi-sync ACK from slave";
        check(&[(1, ack)], Some(Stall::NoAcker));
        // It queues behind the one that waits.
        check(&[(2, ack), (1, "Commit")], Some(Stall::NoAcker));
        check(&[(2, "Waiting for semi-sync ACK from replica")], Some(Stall::NoAcker));
        // SET read_only waits for those that wait, and everybody waits for it.
        check(&[(1, "Waiting for backup lock"), (2, ack)], Some(Stall::NoAcker));
        check(&[(2, "Waiting for someone to free space"), (1, "Commit")], Some(Stall::DiskFull));
        check(&[(1, "Waiting for disk space"), (2, ack)], Some(Stall::DiskFull));
        check(&[(1, "waiting for handler commit")], None);
        check(&[(1, "Waiting for global read lock")], None);
        check(&[(1, "")], None);
    }

    #[test]
    fn who_waits_for_a_lock() {
        let check = |states: &[(u32, &str)], expected: bool| {
            assert_eq!(is_locked(&threads(states), 1), expected, "{states:?}");
        };
        check(&[(1, "Waiting for table metadata lock")], true);
        check(&[(1, "Waiting for global read lock")], true);
        check(&[(1, "Waiting for table flush")], true);
        check(&[(2, "Waiting for table metadata lock"), (1, "Updating")], false);
    }

    #[test]
    fn whose_commit_hangs() {
        let check = |command: &str, state: &str, seconds: u64, expected: bool| {
            let thread = Thread { id: Some(2), command: command.into(), state: state.into(), seconds };
            assert_eq!(thread.hangs_in_commit(), expected, "{thread:?}");
        };
        check("Query", "Commit", 1, true);
        check("Query", "Commit", 0, false);
        check("Query", "Waiting for commit lock", 9, false);
        check("Execute", "waiting for handler commit", 3, true);
        check("Query", "Waiting for someone to free space", 9, true);
        check("Query", "Waiting for semi-sync ACK from replica", 9, true);
        check("Query", "Sending data", 9, false);
        check("Sleep", "", 9, false);
        check("Slave_SQL", "Waiting for prior transaction to commit", 9, false);
    }

    #[test]
    fn errors_that_say_that_there_is_no_room() {
        let check = |message: &str, expected: bool| assert_eq!(is_full(message), expected, "{message}");
        check("The table 'epoch' is full", true);
        check("Disk full (/tmp/a); waiting for someone to free some space... (errno: 28)", true);
        check("Error writing file './binlog' (Errcode: 28 \"No space left on device\")", true);
        check("Got error 28 from storage engine", true);
        check("Error writing file './binlog.000001' (errno: 5 - Input/output error)", false);
        check("Table 'pointsman.epoch' doesn't exist", false);
        check("Got error 281 from storage engine", false);
    }
}
