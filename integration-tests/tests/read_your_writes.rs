//! A session reads what it wrote, however far the replicas are behind, and never goes back in time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use pointsman_integration_tests::sandbox::APP;
use pointsman_integration_tests::{FLAVOURS, NO_OUTAGE, Outcome, Plan, Proxy, Stage, Suite};
use sqlx::mysql::{MySqlConnectOptions, MySqlPoolOptions};
use tokio::task::JoinSet;
use tokio::time::sleep;

fn main() {
    let mut suite = Suite::new();
    for flavour in FLAVOURS {
        let mut plan = Plan::new(flavour);
        plan.sandbox.linked = true;
        plan.configuration = NO_OUTAGE.to_owned();
        let stage = suite.stage(plan);
        suite.test(&stage, "10,000 pairs with replicas 200 ms behind", pairs_far_behind);
        suite.test(&stage, "10,000 pairs at a lag of 20 ms, 90 % read on replicas", pairs_close_behind);
        suite.test(&stage, "10,000 pairs through a driver's pool", pairs_through_a_pool);
        suite.test(&stage, "reads of one session never go backwards", monotonic_reads);
        suite.test(&stage, "a listener's consistency is that of its sessions", consistency_of_a_listener);
    }
    suite.run()
}

async fn pairs_far_behind(stage: Arc<Stage>) -> Outcome {
    let outcome = delayed_pairs(&stage, Duration::from_millis(200)).await;
    delay(&stage, Duration::ZERO).await?;
    outcome
}

async fn pairs_close_behind(stage: Arc<Stage>) -> Outcome {
    let primary = stage.sandbox().await?.primary().clone();
    let proxy = stage.proxy().await?;
    let metric = format!("pointsman_queries_total{{server=\"{}\",kind=\"read\"}}", primary.name());
    // The server's own counter has the monitor's questions, too, the more of them the slower the machine.
    let idle = primary.counter("Com_select").await?;
    sleep(IDLE_FOR).await;
    let monitor = (primary.counter("Com_select").await? - idle) as f64 / IDLE_FOR.as_secs_f64();
    let (before, counted, began) =
        (primary.counter("Com_select").await?, proxy.metric(&metric).await?, Instant::now());
    let outcome = delayed_pairs(&stage, Duration::from_millis(20)).await;
    delay(&stage, Duration::ZERO).await?;
    let answered = (primary.counter("Com_select").await? - before) as f64;
    let expected = monitor * began.elapsed().as_secs_f64();
    let counted = proxy.metric(&metric).await? - counted;
    let most = PAIRS as f64 / 10.0;
    assert!(counted <= most, "the primary answered {counted} reads, says the proxy");
    assert!(
        answered <= most + expected,
        "the primary answered {answered} SELECTs, {expected} of the monitor"
    );
    outcome
}

/// How often a monitor at rest asks is measured for this long.
const IDLE_FOR: Duration = Duration::from_secs(2);

async fn delayed_pairs(stage: &Arc<Stage>, by: Duration) -> Outcome {
    rows(stage).await?;
    delay(stage, by).await?;
    let mut clients = JoinSet::new();
    for id in 0..CLIENTS {
        let client = stage.client().await?;
        clients.spawn(pairs(client, id));
    }
    while let Some(client) = clients.join_next().await {
        client??;
    }
    Ok(())
}

/// Writes in all the ways there are, and reads each time.
async fn pairs(mut client: Conn, id: u64) -> Outcome {
    for value in 1..=PAIRS / CLIENTS {
        match value % 3 {
            0 => client.query_drop(format!("UPDATE pairs SET value = {value} WHERE id = {id}")).await?,
            1 => client.exec_drop("UPDATE pairs SET value = ? WHERE id = ?", (value, id)).await?,
            _ => {
                client.query_drop("BEGIN").await?;
                client.query_drop(format!("UPDATE pairs SET value = {value} WHERE id = {id}")).await?;
                client.query_drop("COMMIT").await?;
            }
        }
        let read: Option<u64> = if value % 2 == 0 {
            client.query_first(format!("SELECT value FROM pairs WHERE id = {id}")).await?
        } else {
            client.exec_first("SELECT value FROM pairs WHERE id = ?", (id,)).await?
        };
        assert_eq!(read, Some(value), "client {id} read something else than it wrote");
    }
    Ok(client.disconnect().await?)
}

async fn pairs_through_a_pool(stage: Arc<Stage>) -> Outcome {
    rows(&stage).await?;
    let port = stage.proxy().await?.port();
    delay(&stage, Duration::from_millis(100)).await?;
    let options = MySqlConnectOptions::new()
        .host("127.0.0.1")
        .port(port)
        .username(APP.0)
        .password(APP.1)
        .database("app");
    let pool = MySqlPoolOptions::new().max_connections(40).min_connections(40).connect_with(options).await?;
    let mut clients = JoinSet::<sqlx::Result<()>>::new();
    for id in 0..POOL_CLIENTS {
        let pool = pool.clone();
        clients.spawn(async move {
            for value in 1..=PAIRS / POOL_CLIENTS {
                let mut writes = pool.acquire().await?;
                sqlx::query("UPDATE pairs SET value = ? WHERE id = ?")
                    .bind(value)
                    .bind(id)
                    .execute(&mut *writes)
                    .await?;
                // While the one that wrote is taken, the pool hands out another connection.
                let mut reads = pool.acquire().await?;
                let read: u64 = sqlx::query_scalar("SELECT value FROM pairs WHERE id = ?")
                    .bind(id)
                    .fetch_one(&mut *reads)
                    .await?;
                assert_eq!(read, value, "client {id} read something else than it wrote");
            }
            Ok(())
        });
    }
    while let Some(client) = clients.join_next().await {
        client??;
    }
    pool.close().await;
    delay(&stage, Duration::ZERO).await
}

async fn monotonic_reads(stage: Arc<Stage>) -> Outcome {
    rows(&stage).await?;
    // One replica is behind the other, so a reader that changes would go back.
    stage.sandbox().await?.replicas()[0].delay_replication(Duration::from_millis(60)).await?;
    let done = Arc::new(AtomicBool::new(false));
    let mut readers = JoinSet::new();
    for _ in 0..CLIENTS {
        let (mut client, done) = (stage.client().await?, done.clone());
        readers.spawn(async move {
            let mut newest = 0;
            while !done.load(Ordering::Relaxed) {
                let read: Option<u64> = client.query_first("SELECT value FROM pairs WHERE id = 0").await?;
                let read = read.unwrap_or(0);
                assert!(read >= newest, "read {read} after {newest}");
                newest = read;
            }
            client.disconnect().await.map(|()| newest)
        });
    }
    let mut writer = stage.client().await?;
    for value in 1..=MONOTONIC_WRITES {
        writer.query_drop(format!("UPDATE pairs SET value = {value} WHERE id = 0")).await?;
    }
    done.store(true, Ordering::Relaxed);
    while let Some(reader) = readers.join_next().await {
        reader??;
    }
    delay(&stage, Duration::ZERO).await
}

/// Only what is read without regard to the session's own writes can miss them.
async fn consistency_of_a_listener(stage: Arc<Stage>) -> Outcome {
    rows(&stage).await?;
    let sandbox = stage.sandbox().await?;
    let proxy =
        Proxy::start(&sandbox, "[failover]\nmode = \"off\"\n[listen.rw]\nconsistency = \"eventual\"\n")
            .await?;
    let mut client = proxy.connect(APP, "app").await?;
    delay(&stage, Duration::from_millis(200)).await?;
    let mut value = 0;
    let deadline = Instant::now() + LIMIT;
    loop {
        value += 1;
        client.query_drop(format!("UPDATE pairs SET value = {value} WHERE id = 0")).await?;
        let read: Option<u64> = client.query_first("SELECT value FROM pairs WHERE id = 0").await?;
        if read != Some(value) {
            break;
        }
        assert!(Instant::now() < deadline, "no read misses what its session wrote");
    }
    client.query_drop("SET pointsman_consistency = 'session'").await?;
    for value in value + 1..value + 20 {
        client.query_drop(format!("UPDATE pairs SET value = {value} WHERE id = 0")).await?;
        let read: Option<u64> = client.query_first("SELECT value FROM pairs WHERE id = 0").await?;
        assert_eq!(read, Some(value), "the session's own word goes before its listener's");
    }
    delay(&stage, Duration::ZERO).await
}

async fn rows(stage: &Stage) -> Outcome {
    let mut client = stage.client().await?;
    client.query_drop("DROP TABLE IF EXISTS pairs").await?;
    client.query_drop("CREATE TABLE pairs (id BIGINT PRIMARY KEY, value BIGINT UNSIGNED NOT NULL)").await?;
    let rows: Vec<String> = (0..CLIENTS).map(|id| format!("({id}, 0)")).collect();
    client.query_drop(format!("INSERT INTO pairs VALUES {}", rows.join(", "))).await?;
    client.disconnect().await?;
    Ok(stage.sandbox().await?.caught_up(LIMIT).await?)
}

async fn delay(stage: &Stage, by: Duration) -> Outcome {
    let sandbox = stage.sandbox().await?;
    for replica in sandbox.replicas() {
        replica.delay_replication(by).await?;
    }
    if by.is_zero() {
        sandbox.caught_up(LIMIT).await?;
    }
    Ok(())
}

const PAIRS: u64 = 10_000;
const CLIENTS: u64 = 50;
const POOL_CLIENTS: u64 = 20;
const MONOTONIC_WRITES: u64 = 1000;
const LIMIT: Duration = Duration::from_secs(120);
