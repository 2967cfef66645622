//! Many sessions that share few server connections are answered as one plain server would answer.
//!
//! Seeded random sessions run statement by statement through the proxy and on a single server, and every answer is
//! compared: rows, column names and types, affected rows, insert ids, warnings, messages. `POINTSMAN_SEED` repeats a run.

mod answer;
mod script;

use std::sync::Arc;
use std::time::Duration;

use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use pointsman_integration_tests::sandbox::{APP, Sandbox};
use pointsman_integration_tests::{FLAVOURS, Failure, Outcome, Plan, Proxy, Stage, Suite};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use self::answer::Answer;
use self::script::{Block, Script, Step};

fn main() {
    let mut suite = Suite::new();
    for flavour in FLAVOURS {
        let mut plan = Plan::new(flavour);
        plan.configuration = "[pool]\nmax_connections = 2\nacquire_timeout = \"60s\"\n".to_owned();
        let stage = suite.stage(plan);
        suite.test(&stage, "LAST_INSERT_ID() follows its session", insert_ids);
        suite.test(
            &stage,
            "ROW_COUNT() is of the statement before, also while other connections end",
            row_counts,
        );
        suite.test(&stage, "what a statement leaves is not lost to a login", login_between);
        suite.test(&stage, "20,000 statements of 8 clients on 2 connections per server", same_answers);
    }
    suite.run()
}

/// Through connections that others use in between, and behind INSERTs that show an id without making one.
async fn insert_ids(stage: Arc<Stage>) -> Outcome {
    let sandbox = stage.sandbox().await?;
    let table = "CREATE TABLE app.ids (id INT PRIMARY KEY AUTO_INCREMENT, n INT UNIQUE)";
    sandbox.primary().run(&[table]).await?;
    let proxy = Proxy::start(&sandbox, "[runtime]\nworkers = 1\n").await?;
    let mut one = proxy.connect(APP, "app").await?;
    let mut other = proxy.connect(APP, "app").await?;
    one.query_drop("INSERT INTO ids (n) VALUES (1)").await?;
    let made = one.last_insert_id();
    // Keeps the connection on which the id was made, and leaves one of its own there.
    other.query_drop("BEGIN").await?;
    other.query_drop("INSERT INTO ids (n) VALUES (2)").await?;
    let made_by_other = other.last_insert_id();
    assert!(made.is_some() && made_by_other.is_some() && made != made_by_other);
    for (sql, shown) in [
        ("INSERT INTO ids (id, n) VALUES (500, 3)", 500),
        ("INSERT INTO ids (n) VALUES (3) ON DUPLICATE KEY UPDATE n = 4", 500),
        ("REPLACE INTO ids (id, n) VALUES (501, 5)", 501),
    ] {
        one.query_drop(sql).await?;
        assert_eq!((one.last_insert_id(), last_insert_id(&mut one).await?), (Some(shown), made), "{sql}");
    }
    other.query_drop("COMMIT").await?;
    assert_eq!(last_insert_id(&mut other).await?, made_by_other);
    // One that has made none sees nobody else's, of the living or of the dead.
    let mut third = proxy.connect(APP, "app").await?;
    third.query_drop("INSERT INTO ids (id, n) VALUES (600, 6)").await?;
    assert_eq!(last_insert_id(&mut third).await?, Some(0));
    third.query_drop("INSERT INTO ids (n) VALUES (7)").await?;
    third.disconnect().await?;
    one.disconnect().await?;
    let mut fourth = proxy.connect(APP, "app").await?;
    fourth.query_drop("INSERT INTO ids (id, n) VALUES (700, 8)").await?;
    assert_eq!(last_insert_id(&mut fourth).await?, Some(0));
    // The common case costs no statement of ours.
    let before = sandbox.primary().counter("Com_set_option").await?;
    for n in 1000..1000 + INSERTS {
        fourth.query_drop(format!("INSERT INTO ids (n) VALUES ({n})")).await?;
    }
    let set = sandbox.primary().counter("Com_set_option").await? - before;
    assert!(set < INSERTS / 10, "{set} SETs for {INSERTS} INSERTs");
    Ok(())
}

/// After a connection has ended the server is asked whether it lives, which must not come between the two.
async fn row_counts(stage: Arc<Stage>) -> Outcome {
    let sandbox = stage.sandbox().await?;
    sandbox
        .primary()
        .run(&["CREATE TABLE app.counted (n INT)", "INSERT INTO app.counted VALUES (1), (2)"])
        .await?;
    let proxy = Proxy::start(&sandbox, "[runtime]\nworkers = 1\n").await?;
    let mut one = proxy.connect(APP, "app").await?;
    for _ in 0..ENDED {
        let mut other = proxy.connect(APP, "app").await?;
        other.query_drop("BEGIN").await?;
        let thread: Option<u64> = other.query_first("SELECT @@pseudo_thread_id").await?;
        let thread = thread.ok_or("no thread")?;
        one.query_drop("UPDATE counted SET n = n + 1").await?;
        other.query_drop("COMMIT").await?;
        sandbox.primary().run(&[&format!("KILL {thread}")]).await?;
        // Finds that its connection is gone.
        other.query_drop("UPDATE counted SET n = n + 1").await?;
        one.query_drop("UPDATE counted SET n = n + 1").await?;
        let counted: Option<i64> = one.query_first("SELECT ROW_COUNT()").await?;
        assert_eq!(counted, Some(2));
        other.disconnect().await?;
    }
    Ok(())
}

/// A login proves its schema on a connection on which another session has left something.
async fn login_between(stage: Arc<Stage>) -> Outcome {
    let sandbox = stage.sandbox().await?;
    let table = "CREATE TABLE app.left_behind (id INT PRIMARY KEY AUTO_INCREMENT, n INT)";
    sandbox.primary().run(&[table, "INSERT INTO app.left_behind (n) VALUES (1), (2)"]).await?;
    let proxy = Proxy::start(&sandbox, "[runtime]\nworkers = 1\n").await?;
    let mut one = proxy.connect(APP, "app").await?;
    one.query_drop("SET sql_mode = ''").await?;
    one.query_drop("INSERT INTO left_behind (n) VALUES (3)").await?;
    let made = one.last_insert_id();
    one.query_drop("UPDATE left_behind SET n = n + 1").await?;
    // Such a client asks nothing by itself.
    let options = proxy.options(APP, "app").max_allowed_packet(Some(1 << 20)).wait_timeout(Some(60));
    let other = Conn::new(options).await?;
    let counted: Option<i64> = one.query_first("SELECT ROW_COUNT()").await?;
    assert_eq!(counted, Some(3));
    let began = Instant::now();
    assert_eq!(last_insert_id(&mut one).await?, made);
    assert!(began.elapsed() < WAITED_FOR, "{:?}", began.elapsed());
    other.disconnect().await?;
    Ok(())
}

/// Below the time for which a value is waited for that nobody can tell.
const WAITED_FOR: Duration = Duration::from_millis(1900);

async fn last_insert_id(conn: &mut Conn) -> Result<Option<u64>, Failure> {
    Ok(conn.query_first("SELECT LAST_INSERT_ID()").await?)
}

async fn same_answers(stage: Arc<Stage>) -> Outcome {
    let seed: u64 = match std::env::var("POINTSMAN_SEED") {
        Ok(seed) => seed.parse()?,
        Err(_) => rand::random(),
    };
    let mut options = stage.sandbox().await?.options().clone();
    options.replicas = 0;
    let plain = Arc::new(Sandbox::start(&options).await?);
    // A block that keeps its server connection leaves the other one for everybody else.
    let pins = Arc::new(Semaphore::new(1));
    let mut compared = 0;
    let mut sessions = JoinSet::new();
    for number in 0..SESSIONS {
        let pair = Pair { stage: stage.clone(), plain: plain.clone(), number };
        sessions.spawn(session(pair, StdRng::seed_from_u64(seed ^ number), pins.clone()));
    }
    while let Some(session) = sessions.join_next().await {
        compared += session?.map_err(|failure| format!("POINTSMAN_SEED={seed}: {failure}"))?;
    }
    assert!(compared >= STATEMENTS, "compared {compared} of {STATEMENTS} statements");
    Ok(())
}

/// The two places where a session runs.
struct Pair {
    stage: Arc<Stage>,
    plain: Arc<Sandbox>,
    number: u64,
}

/// What a session has done up to now.
#[derive(Default)]
struct History {
    steps: Vec<String>,
    /// The steps without resets and reconnections.
    statements: usize,
}

impl History {
    fn note(&mut self, step: &Step) {
        self.statements += usize::from(matches!(step, Step::Text(_) | Step::Binary(..)));
        self.steps.push(step.to_string());
    }
}

/// The same session in both places.
struct Both {
    proxied: Conn,
    plain: Conn,
}

impl Pair {
    /// On the servers themselves, which leaves nothing in a session.
    async fn set_up(&self, script: &Script) -> Outcome {
        for sandbox in [&self.stage.sandbox().await?, &self.plain] {
            let mut conn = sandbox.primary().connect_as(APP, "app").await?;
            for sql in script.setup() {
                conn.query_drop(sql).await?;
            }
            conn.disconnect().await?;
            sandbox.caught_up(STATEMENT_LIMIT).await?;
        }
        Ok(())
    }

    async fn open(&self) -> Result<Both, Failure> {
        let proxied = self.stage.client().await?;
        let plain = self.plain.primary().connect_as(APP, "app").await?;
        Ok(Both { proxied, plain })
    }
}

/// Gives the number of statements that were answered alike.
async fn session(pair: Pair, mut random: StdRng, pins: Arc<Semaphore>) -> Result<usize, Failure> {
    let script = Script::new(pair.number, pair.stage.flavour());
    pair.set_up(&script).await?;
    let mut both = pair.open().await?;
    let mut history = History::default();
    while history.statements < STATEMENTS / SESSIONS as usize {
        let block = script.block(&mut random);
        let permit = match &block {
            Block::Free(_) => None,
            Block::Pinned(_) => match pins.try_acquire() {
                Ok(permit) => Some(permit),
                Err(_) => {
                    // Whatever pins the session, it must not wait here with a connection.
                    let same = compare(&mut both, &Step::Reset, &mut history).await;
                    same.map_err(|failure| told(&pair, &history, failure))?;
                    Some(pins.acquire().await?)
                }
            },
        };
        let (Block::Free(steps) | Block::Pinned(steps)) = block;
        for step in steps {
            if matches!(step, Step::Reconnect) {
                history.note(&step);
                both = reconnect(&pair, both).await.map_err(|failure| told(&pair, &history, failure))?;
            } else {
                compare(&mut both, &step, &mut history)
                    .await
                    .map_err(|failure| told(&pair, &history, failure))?;
            }
        }
        drop(permit);
        if random.random_ratio(1, 40) {
            history.note(&Step::Reconnect);
            both = reconnect(&pair, both).await.map_err(|failure| told(&pair, &history, failure))?;
        }
    }
    both.proxied.disconnect().await?;
    both.plain.disconnect().await?;
    Ok(history.statements)
}

async fn reconnect(pair: &Pair, both: Both) -> Result<Both, Failure> {
    both.proxied.disconnect().await?;
    both.plain.disconnect().await?;
    pair.open().await
}

async fn compare(both: &mut Both, step: &Step, history: &mut History) -> Outcome {
    history.note(step);
    let limited = timeout(STATEMENT_LIMIT, Answer::of(&mut both.proxied, step));
    let proxied = limited.await.map_err(|_| format!("no answer within {STATEMENT_LIMIT:?}"))??;
    let plain = Answer::of(&mut both.plain, step).await?;
    if proxied == plain {
        return Ok(());
    }
    Err(format!("through the proxy {proxied:#?}\non a plain server {plain:#?}").into())
}

fn told(pair: &Pair, history: &History, failure: Failure) -> Failure {
    let steps = &history.steps;
    let last = &steps[steps.len().saturating_sub(HISTORY_LINES)..];
    format!("session {}: {failure}\nafter\n  {}", pair.number, last.join("\n  ")).into()
}

const INSERTS: u64 = 100;
const ENDED: u32 = 10;
const SESSIONS: u64 = 8;
/// Of all sessions together, each of which runs its part.
const STATEMENTS: usize = 20_000;
const STATEMENT_LIMIT: Duration = Duration::from_secs(120);
const HISTORY_LINES: usize = 25;
