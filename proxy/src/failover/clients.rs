//! Ends clients' connections so that nobody is told that a write is safe which no replica has acknowledged.
//!
//! `KILL` ends MariaDB's wait for an acknowledgement, and the commit goes on. One thread waits for all that commit in
//! its group: once it is let go, the others answer OK if they have not been killed before (measured on 10.11.19: 128 of
//! 300 writers, and none of 380 where it was killed last). `KILL SOFT` closes a connection and leaves the wait alone,
//! for good: a plain KILL after it has no effect.

use std::collections::BTreeSet;
use std::time::Duration;

use pointsman_router::intent::Flavour;
use tokio::time::{Instant, sleep};

use super::stall;
use super::steps::{StepFailure, Work};
use crate::cluster::connection::{Record, is_on};
use crate::cluster::epoch;

/// A connection on the server.
struct Thread {
    id: String,
    user: String,
    is_client: bool,
    is_idle: bool,
    /// For an acknowledgement or for room on the disk, on behalf of all that commit with it.
    waits: bool,
}

fn clients_of(work: &Work<'_>, rows: &[Record]) -> Vec<Thread> {
    threads(work, rows).filter(|thread| thread.is_client).collect()
}

fn state(row: &Record) -> String {
    row.text_or_empty(&["State"])
}

fn waits(row: &Record) -> bool {
    stall::waits_for_ack(&state(row)) || stall::waits_for_room(&state(row))
}

fn threads(work: &Work<'_>, rows: &[Record]) -> impl Iterator<Item = Thread> {
    let own = work.realm.account.user().to_owned();
    rows.iter().map(move |row| {
        let (user, command) = (row.text_or_empty(&["User"]), row.text_or_empty(&["Command"]));
        // What we write ourselves and waits holds up read_only as any other write does.
        let writes = row.text_or_empty(&["Info"]).starts_with(epoch::BEAT) || waits(row);
        let is_client = (user != own || writes)
            && user != "system user"
            && user != "event_scheduler"
            && !command.starts_with("Binlog Dump")
            && command != "Daemon";
        Thread {
            id: row.text_or_empty(&["Id"]),
            user,
            is_client,
            is_idle: command == "Sleep",
            waits: waits(row),
        }
    })
}

/// Ends the connections of everybody but ourselves, replication and the server's own threads, on a server that is being
/// made read-only by a statement that `is_read_only` knows.
pub(super) async fn end(
    work: &mut Work<'_>,
    is_read_only: impl Fn(&Record) -> bool,
) -> Result<(), StepFailure> {
    if work.flavour() == Flavour::Mysql {
        // Its KILL ends no wait.
        let rows = work.threads().await?;
        return kill(work, clients_of(work, &rows)).await;
    }
    let mut waiter: Option<(String, Instant)> = None;
    let began = Instant::now();
    let mut interrupted = false;
    while began.elapsed() < SHUT_WITHIN {
        // Asked before the list: who comes after it cannot write.
        let settings = work.ask("SELECT @@global.read_only, @@global.rpl_semi_sync_master_enabled").await?;
        let is_on = |at| settings.first().and_then(|row| row.at(at)).is_some_and(|value| is_on(&value));
        let rows = work.threads().await?;
        let clients = clients_of(work, &rows);
        if is_on(0) || !is_on(1) {
            return kill(work, clients).await;
        }
        // While acknowledgements come, commits end, and it becomes read-only.
        let is_shut = rows.iter().any(|row| is_read_only(row) && state(row).starts_with("Waiting"));
        let now = rows.iter().find(|row| is_shut && waits(row)).map(|row| row.text_or_empty(&["Id"]));
        waiter = now.map(|id| match waiter.take() {
            Some((before, since)) if before == id => (before, since),
            Some(_) | None => (id, Instant::now()),
        });
        if waiter.as_ref().is_some_and(|(_, since)| since.elapsed() >= STANDS_STILL) {
            return kill(work, clients).await;
        }
        if waiter.is_none() && began.elapsed() >= INTERRUPTED_AFTER && !interrupted {
            interrupted = true;
            interrupt(work, &clients).await?;
        }
        sleep(STANDS_STILL / 4).await;
    }
    Err(work.stopped("not all clients are ended: it has not become read-only"))
}

/// Ends connections; those last that wait for others, too.
async fn kill(work: &mut Work<'_>, clients: Vec<Thread>) -> Result<(), StepFailure> {
    let (last, first): (Vec<_>, Vec<_>) = clients.into_iter().partition(|client| client.waits);
    work.kill(first.into_iter().chain(last).map(|client| client.id).collect()).await
}

/// Ends long statements and idle connections, one of which may hold a lock, and no commit.
async fn interrupt(work: &mut Work<'_>, clients: &[Thread]) -> Result<(), StepFailure> {
    let target = |client: &Thread| match client.is_idle {
        true => format!("{SOFT} {}", client.id),
        false => format!("{SOFT} QUERY {}", client.id),
    };
    work.kill(clients.iter().map(target).collect()).await
}

/// Ends the clients of a server that is read-only and waits until they are gone. When a client leaves, MariaDB writes
/// the end of its temporary tables into the binary log, under `read_only`, too: behind the last position it would be a
/// transaction that no other server has.
pub(super) async fn end_and_wait(work: &mut Work<'_>) -> Result<(), StepFailure> {
    let rows = work.threads().await?;
    let before: Vec<_> = threads(work, &rows).collect();
    let is_mixed = |user: &str| before.iter().any(|thread| thread.user == user && !thread.is_client);
    // Writes wait meanwhile: one statement for all connections of a user.
    let target = |client: &Thread| match is_mixed(&client.user) {
        true => format!("{SOFT} {}", client.id),
        false => format!("{SOFT} USER {}", epoch::quote(&client.user)),
    };
    let clients: Vec<&Thread> = before.iter().filter(|thread| thread.is_client).collect();
    let targets: BTreeSet<String> = clients.iter().map(|client| target(client)).collect();
    work.kill(targets.into_iter().collect()).await?;
    let gone_by = Instant::now() + GONE_LIMIT;
    let is_there = |rows: &[Record]| {
        let id = |row: &Record| row.text_or_empty(&["Id"]);
        rows.iter().any(|row| clients.iter().any(|client| client.id == id(row)))
    };
    while is_there(&work.threads().await?) && Instant::now() < gone_by {
        sleep(LOOK).await;
    }
    Ok(())
}

const SOFT: &str = "SOFT";
/// How long it may take until commits end, or stand still.
const SHUT_WITHIN: Duration = Duration::from_secs(6);
const INTERRUPTED_AFTER: Duration = Duration::from_secs(1);
/// Nothing has been acknowledged for so long.
const STANDS_STILL: Duration = Duration::from_millis(200);
pub(super) const GONE_LIMIT: Duration = Duration::from_millis(500);
pub(super) const LOOK: Duration = Duration::from_millis(10);
