//! Writers whose every row says which server took it and in which epoch, and the proof over all rows in the end.
//!
//! Samples of `read_only` would prove nothing: between two of them anything may happen. What clients were told is
//! written down row by row, and every row is looked at.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, OptsBuilder};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use crate::sandbox::Server;
use crate::{Failure, eventually};

/// Writers through one or several proxies; they end when this value is dropped.
#[derive(Debug)]
pub struct Ledger {
    books: Arc<Books>,
    /// At each proxy.
    writers: usize,
    /// Dropping it ends the writers.
    _writers: JoinSet<()>,
}

#[derive(Debug, Default)]
struct Books {
    next_id: AtomicU64,
    paused: AtomicBool,
    in_flight: AtomicUsize,
    acknowledged: Mutex<Vec<Acknowledged>>,
    failed: Mutex<Vec<Failed>>,
}

#[derive(Clone, Copy, Debug)]
struct Acknowledged {
    id: u64,
    /// Which of the proxies.
    via: usize,
    at: Instant,
}

/// A statement that ended in an error.
#[derive(Clone, Debug)]
pub struct Failed {
    pub via: usize,
    pub error: String,
}

/// What all rows together say.
#[derive(Clone, Debug, Default)]
pub struct Proof {
    pub acknowledged: usize,
    /// Which server acknowledged in which epoch.
    pub epochs: BTreeMap<u64, u32>,
}

impl Ledger {
    /// Makes the table on `primary`, waits until that has marked its epoch, and starts `writers` at each proxy, whose options are given in order.
    ///
    /// # Errors
    ///
    /// When the table cannot be made.
    pub async fn start(primary: &Server, proxies: &[OptsBuilder], writers: usize) -> Result<Self, Failure> {
        primary.run(&[TABLE, READABLE]).await?;
        // Written soon after the first record, which clients do not wait for.
        eventually("the primary has the row of its epoch", LIMIT, async || {
            let rows = primary.rows::<Option<u64>>("SELECT MAX(epoch) FROM pointsman.epoch").await;
            rows.is_ok_and(|rows| rows.first().is_some_and(Option::is_some))
        })
        .await;
        let books = Arc::new(Books::default());
        let mut clients = JoinSet::new();
        for (via, options) in proxies.iter().enumerate() {
            for _ in 0..writers {
                clients.spawn(write(options.clone(), books.clone(), via));
            }
        }
        Ok(Self { books, writers, _writers: clients })
    }

    /// Rows acknowledged through a proxy up to now.
    pub fn written(&self, via: usize) -> usize {
        locked(&self.books.acknowledged).iter().filter(|row| row.via == via).count()
    }

    /// Waits until rows that were begun from now on are acknowledged through each of `proxies`.
    pub async fn goes_on(&self, proxies: &[usize]) {
        for &via in proxies {
            let enough = self.written(via) + ENOUGH_ROWS;
            eventually(&format!("writes go on through proxy {via}"), LIMIT, async || {
                self.written(via) >= enough
            })
            .await;
        }
    }

    /// When the first row after `since` was acknowledged through a proxy; waits for it.
    pub async fn next(&self, via: usize, since: Instant) -> Instant {
        let first = || {
            let rows = locked(&self.books.acknowledged);
            rows.iter().find(|row| row.via == via && row.at > since).map(|row| row.at)
        };
        eventually(&format!("writes go on through proxy {via}"), LIMIT, async || first().is_some()).await;
        first().unwrap_or(since)
    }

    /// The longest time from one acknowledged row to the next one through a proxy, of those after `since`.
    pub fn longest_pause(&self, via: usize, since: Instant) -> Duration {
        let rows = locked(&self.books.acknowledged);
        let mut before = since;
        let mut longest = Duration::ZERO;
        for row in rows.iter().filter(|row| row.via == via && row.at > since) {
            longest = longest.max(row.at.saturating_duration_since(before));
            before = row.at;
        }
        longest
    }

    /// Lets no statement begin, and waits for the end of those that run.
    pub async fn pause(&self) {
        self.books.paused.store(true, Ordering::SeqCst);
        eventually("no row is under way", LIMIT, async || self.books.in_flight.load(Ordering::SeqCst) == 0)
            .await;
    }

    /// Lets writers go on.
    pub fn go_on(&self) {
        self.books.paused.store(false, Ordering::SeqCst);
    }

    /// What ended in an error.
    pub fn failed(&self) -> Vec<Failed> {
        locked(&self.books.failed).clone()
    }

    /// At most what was in flight when a server died may have ended in an error: one statement of each writer for
    /// each of `deaths`. Of proxies that were killed nothing is expected.
    ///
    /// # Panics
    ///
    /// When there are more.
    pub fn few_failed(&self, proxies: &[usize], deaths: usize) {
        let failed: Vec<_> =
            self.failed().into_iter().filter(|failed| proxies.contains(&failed.via)).collect();
        let most = self.writers * proxies.len() * deaths;
        assert!(failed.len() <= most, "{} statements failed: {failed:?}", failed.len());
    }

    /// Every acknowledged row is on `primary`, once, and no two servers took rows in one epoch.
    ///
    /// # Errors
    ///
    /// When the rows cannot be read.
    ///
    /// # Panics
    ///
    /// When it is not so, with the rows.
    pub async fn prove(&self, primary: &Server) -> Result<Proof, Failure> {
        // Taken before the table is read: every one of them must be in it.
        let acknowledged: Vec<_> = locked(&self.books.acknowledged).clone();
        let rows: Vec<(u64, u32, Option<u64>)> =
            primary.rows("SELECT id, server, epoch FROM app.ledger").await?;
        let mut there = BTreeMap::new();
        for &(id, server, epoch) in &rows {
            let before = there.insert(id, (server, epoch));
            assert!(before.is_none(), "row {id} was written twice: {before:?}, then {server} in {epoch:?}");
        }
        let lost: Vec<_> = acknowledged.iter().filter(|row| !there.contains_key(&row.id)).collect();
        assert!(lost.is_empty(), "{} of {} rows are lost: {lost:?}", lost.len(), acknowledged.len());
        let mut servers: BTreeMap<u64, BTreeSet<u32>> = BTreeMap::new();
        for row in &acknowledged {
            let (server, epoch) = there[&row.id];
            let epoch = epoch.ok_or("a row without an epoch")?;
            servers.entry(epoch).or_default().insert(server);
        }
        for (epoch, servers) in &servers {
            assert_eq!(servers.len(), 1, "servers {servers:?} acknowledged in epoch {epoch}");
        }
        let epochs = servers.into_iter().filter_map(|(epoch, of)| Some((epoch, of.first().copied()?)));
        Ok(Proof { acknowledged: acknowledged.len(), epochs: epochs.collect() })
    }
}

/// One writer: keeps a connection, opens a new one when it breaks. A row whose outcome is unknown is not tried again.
async fn write(options: OptsBuilder, books: Arc<Books>, via: usize) {
    let mut conn = None;
    let mut next = interval(PACE);
    next.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        next.tick().await;
        // Said before it is asked whether to pause: who pauses sees one or the other.
        books.in_flight.fetch_add(1, Ordering::SeqCst);
        if books.paused.load(Ordering::SeqCst) {
            books.in_flight.fetch_sub(1, Ordering::SeqCst);
            continue;
        }
        let id = books.next_id.fetch_add(1, Ordering::Relaxed);
        let outcome = match timeout(STATEMENT_LIMIT, insert(&options, &mut conn, id)).await {
            Ok(outcome) => outcome.map_err(|error| error.to_string()),
            Err(_) => Err(format!("no answer within {STATEMENT_LIMIT:?}")),
        };
        match outcome {
            Ok(()) => locked(&books.acknowledged).push(Acknowledged { id, via, at: Instant::now() }),
            Err(error) => {
                conn = None;
                locked(&books.failed).push(Failed { via, error });
            }
        }
        books.in_flight.fetch_sub(1, Ordering::SeqCst);
    }
}

async fn insert(options: &OptsBuilder, conn: &mut Option<Conn>, id: u64) -> mysql_async::Result<()> {
    let open = match conn.take() {
        Some(open) => open,
        None => Conn::new(options.clone()).await?,
    };
    let sql =
        format!("INSERT INTO ledger SELECT {id}, @@server_id, (SELECT MAX(epoch) FROM pointsman.epoch)");
    conn.insert(open).query_drop(sql).await
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Without a key that would keep a row from being written twice.
const TABLE: &str = "CREATE TABLE app.ledger (id BIGINT UNSIGNED NOT NULL, server INT UNSIGNED NOT NULL, \
                     epoch BIGINT UNSIGNED, KEY (id))";
/// Every row names the epoch.
const READABLE: &str = "GRANT SELECT ON pointsman.* TO app@'%'";
const PACE: Duration = Duration::from_millis(4);
const STATEMENT_LIMIT: Duration = Duration::from_secs(60);
const ENOUGH_ROWS: usize = 50;
const LIMIT: Duration = Duration::from_secs(30);
