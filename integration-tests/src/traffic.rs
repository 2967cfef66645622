//! Clients that read and write through a proxy without a pause, and the books of what came of it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, OptsBuilder};
use tokio::sync::{OwnedRwLockWriteGuard, RwLock};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use crate::{Failure, eventually};

/// How much of it.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    pub readers: usize,
    /// One INSERT at a time.
    pub writers: usize,
    /// An INSERT and a read in a transaction.
    pub transactions: usize,
    /// Between the starts of two statements of one client.
    pub pace: Duration,
}

/// Clients at work; they end when this value is dropped.
#[derive(Debug)]
pub struct Traffic {
    books: Arc<Books>,
    load: Load,
    /// Dropping it ends the clients.
    _clients: JoinSet<()>,
}

/// What has happened up to now, or between two moments.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub reads: u64,
    pub failed_reads: u64,
    pub writes: u64,
    pub failed_writes: u64,
    /// The longest that a read took since it was last asked for.
    pub slowest_read: Duration,
    pub slowest_write: Duration,
}

/// One INSERT into `app.traffic_log`, and what came of it.
#[derive(Clone, Debug)]
pub struct Write {
    pub id: u64,
    pub sent: Instant,
    pub answered: Instant,
    /// How many statements of its transaction were answered, or whether the INSERT alone was.
    pub answers: usize,
    /// None when it was acknowledged.
    pub error: Option<String>,
}

#[derive(Debug, Default)]
struct Books {
    read: Ledger,
    write: Ledger,
    /// What came of every INSERT, in the order of their ends.
    writes: Mutex<Vec<Write>>,
    next_id: AtomicU64,
    /// Held shared by each statement under way.
    under_way: Arc<RwLock<()>>,
}

#[derive(Debug, Default)]
struct Ledger {
    done: AtomicU64,
    failed: AtomicU64,
    slowest_micros: AtomicU64,
    /// What went wrong, and how often.
    errors: Mutex<BTreeMap<String, u64>>,
}

impl Traffic {
    /// Makes the tables and starts the clients.
    ///
    /// # Errors
    ///
    /// When the tables cannot be made.
    pub async fn start(options: OptsBuilder, load: Load) -> Result<Self, Failure> {
        Self::start_through(&[options], load).await
    }

    /// The same, each client through the next one of several proxies.
    ///
    /// # Errors
    ///
    /// When the tables cannot be made.
    pub async fn start_through(proxies: &[OptsBuilder], load: Load) -> Result<Self, Failure> {
        let mut conn = Conn::new(proxies.first().ok_or("no proxy")?.clone()).await?;
        for statement in TABLES {
            conn.query_drop(statement).await?;
        }
        let books = Arc::new(Books::default());
        let mut clients = JoinSet::new();
        let jobs =
            [(Job::Read, load.readers), (Job::Write, load.writers), (Job::Transact, load.transactions)];
        let jobs = jobs.into_iter().flat_map(|(job, count)| std::iter::repeat_n(job, count));
        for (job, options) in jobs.zip(proxies.iter().cycle()) {
            clients.spawn(work(options.clone(), books.clone(), load.pace, job));
        }
        Ok(Self { books, load, _clients: clients })
    }

    /// Clients that write, each one statement at a time.
    pub fn writers(&self) -> usize {
        self.load.writers + self.load.transactions
    }

    /// Waits for the statements under way; the next begin when the answer is dropped.
    pub async fn pause(&self) -> OwnedRwLockWriteGuard<()> {
        self.books.under_way.clone().write_owned().await
    }

    /// Waits until many more writes are acknowledged.
    ///
    /// # Panics
    ///
    /// When it takes too long.
    pub async fn goes_on(&self) {
        let enough = self.tally().writes + ENOUGH_WRITES;
        eventually("writes go on", LIMIT, async || self.tally().writes >= enough).await;
    }

    /// Everything up to now.
    pub fn tally(&self) -> Tally {
        let (read, write) = (&self.books.read, &self.books.write);
        Tally {
            reads: read.done.load(Ordering::Relaxed),
            failed_reads: read.failed.load(Ordering::Relaxed),
            writes: write.done.load(Ordering::Relaxed),
            failed_writes: write.failed.load(Ordering::Relaxed),
            slowest_read: read.take_slowest(),
            slowest_write: write.take_slowest(),
        }
    }

    /// What went wrong with reads, and how often.
    pub fn read_errors(&self) -> BTreeMap<String, u64> {
        locked(&self.books.read.errors).clone()
    }

    /// What went wrong with writes, and how often.
    pub fn write_errors(&self) -> BTreeMap<String, u64> {
        locked(&self.books.write.errors).clone()
    }

    /// The ids of the rows of `app.traffic_log` of which no acknowledgement came, with the error that came instead.
    pub fn unacknowledged(&self) -> Vec<(u64, String)> {
        let writes = locked(&self.books.writes);
        writes.iter().filter_map(|write| Some((write.id, write.error.clone()?))).collect()
    }

    /// The ids of the rows of `app.traffic_log` whose INSERT was acknowledged.
    pub fn acknowledged(&self) -> Vec<u64> {
        let writes = locked(&self.books.writes);
        writes.iter().filter(|write| write.error.is_none()).map(|write| write.id).collect()
    }

    /// The INSERTs that were answered after `moment`, in the order of the answers.
    pub fn writes_since(&self, moment: Instant) -> Vec<Write> {
        let writes = locked(&self.books.writes);
        let first = writes.partition_point(|write| write.answered <= moment);
        writes[first..].to_vec()
    }
}

impl Tally {
    /// What happened since `earlier`.
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            reads: self.reads - earlier.reads,
            failed_reads: self.failed_reads - earlier.failed_reads,
            writes: self.writes - earlier.writes,
            failed_writes: self.failed_writes - earlier.failed_writes,
            slowest_read: self.slowest_read,
            slowest_write: self.slowest_write,
        }
    }
}

impl Ledger {
    fn enter(&self, started: Instant, outcome: Result<(), String>) {
        let micros = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.slowest_micros.fetch_max(micros, Ordering::Relaxed);
        match outcome {
            Ok(()) => {
                self.done.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => {
                self.failed.fetch_add(1, Ordering::Relaxed);
                let mut errors = locked(&self.errors);
                if errors.len() < MAX_DIFFERENT_ERRORS || errors.contains_key(&error) {
                    *errors.entry(error).or_default() += 1;
                }
            }
        }
    }

    fn take_slowest(&self) -> Duration {
        Duration::from_micros(self.slowest_micros.swap(0, Ordering::Relaxed))
    }
}

#[derive(Clone, Copy, Debug)]
enum Job {
    Read,
    Write,
    Transact,
}

/// One client: keeps a connection, opens a new one when it breaks.
async fn work(options: OptsBuilder, books: Arc<Books>, pace: Duration, job: Job) {
    let mut conn = None;
    let mut next = interval(pace);
    next.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        next.tick().await;
        let _under_way = books.under_way.read().await;
        let started = Instant::now();
        let statement = statement(&books, job);
        let mut answers = 0;
        let done = run(&options, &mut conn, &statement.sql, &mut answers);
        let outcome = match timeout(STATEMENT_LIMIT, done).await {
            Ok(outcome) => outcome.map_err(|error| error.to_string()),
            Err(_) => Err(format!("no answer within {STATEMENT_LIMIT:?}")),
        };
        if outcome.as_ref().is_err_and(|error| !error.contains("ERROR 1290")) {
            conn = None;
        }
        if let Some(id) = statement.id {
            let mut writes = locked(&books.writes);
            // The time is taken under the lock: the list is in order.
            let (answered, error) = (Instant::now(), outcome.as_ref().err().cloned());
            writes.push(Write { id, sent: started, answered, answers, error });
        }
        let ledger = match job {
            Job::Read => &books.read,
            Job::Write | Job::Transact => &books.write,
        };
        ledger.enter(started, outcome);
    }
}

/// What a client does in one go.
struct Statement {
    sql: Vec<String>,
    /// The id of the row that it inserts.
    id: Option<u64>,
}

fn statement(books: &Books, job: Job) -> Statement {
    match job {
        Job::Read => {
            let id = rand::random_range(1..=ROWS);
            Statement { sql: vec![format!("SELECT value FROM traffic WHERE id = {id}")], id: None }
        }
        Job::Write | Job::Transact => {
            let id = books.next_id.fetch_add(1, Ordering::Relaxed);
            let insert = format!("INSERT INTO traffic_log (id, server) VALUES ({id}, @@server_id)");
            let sql = match job {
                Job::Transact => {
                    let own = format!("SELECT COUNT(*) FROM traffic_log WHERE id = {id}");
                    vec!["BEGIN".to_owned(), insert, own, "COMMIT".to_owned()]
                }
                Job::Read | Job::Write => vec![insert],
            };
            Statement { sql, id: Some(id) }
        }
    }
}

async fn run(
    options: &OptsBuilder,
    conn: &mut Option<Conn>,
    statements: &[String],
    answers: &mut usize,
) -> mysql_async::Result<()> {
    let open = match conn.take() {
        Some(open) => open,
        None => Conn::new(options.clone()).await?,
    };
    let open = conn.insert(open);
    for sql in statements {
        open.query_drop(sql).await?;
        *answers += 1;
    }
    Ok(())
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

const ROWS: u32 = 100;
const TABLES: [&str; 4] = [
    "CREATE TABLE IF NOT EXISTS traffic (id INT PRIMARY KEY, value INT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS traffic_log (id BIGINT UNSIGNED PRIMARY KEY, server INT UNSIGNED NOT NULL DEFAULT 0)",
    "REPLACE INTO traffic WITH RECURSIVE n AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM n WHERE i < 100) SELECT i, i FROM n",
    "TRUNCATE TABLE traffic_log",
];
const STATEMENT_LIMIT: Duration = Duration::from_secs(30);
const ENOUGH_WRITES: u64 = 200;
const LIMIT: Duration = Duration::from_secs(30);
const MAX_DIFFERENT_ERRORS: usize = 50;
