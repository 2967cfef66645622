//! Reads are answered by replicas and everything else by the primary, by the servers' own books.

use std::sync::Arc;
use std::time::Duration;

use mysql_async::prelude::Queryable;
use pointsman_integration_tests::sandbox::{APP, Logged, Server};
use pointsman_integration_tests::{FLAVOURS, Failure, Flavour, NO_OUTAGE, Outcome, Plan, Stage, Suite};
use tokio::process::Command;

fn main() {
    let mut suite = Suite::new();
    for flavour in FLAVOURS {
        let stage = suite.stage(Plan { configuration: NO_OUTAGE.to_owned(), ..Plan::new(flavour) });
        suite.test(&stage, "95 % of autocommit reads are answered by replicas", reads_spread);
        suite.test(&stage, "every replica takes its share", replicas_share);
        suite.test(&stage, "writes and transactions stay on the primary", writes_stay);
        suite.test(&stage, "read-only transactions run on one replica", read_only_transactions);
        suite.test(&stage, "the read-only listener never reaches the primary", read_only_listener);
        // MariaDB has no query attributes.
        if flavour == Flavour::Mysql {
            suite.test(&stage, "a query attribute asks for the primary", query_attributes);
        }
    }
    suite.run()
}

async fn reads_spread(stage: Arc<Stage>) -> Outcome {
    table(&stage, "spread").await?;
    let sandbox = stage.sandbox().await?;
    let before = selects(sandbox.servers()).await?;
    let mut clients = Vec::new();
    for at in 0..CLIENTS {
        let mut client = stage.client().await?;
        clients.push(tokio::spawn(async move {
            for id in 1..=READS_OF_EACH {
                let value: Option<u32> = if at % 2 == 0 {
                    client.query_first(format!("SELECT value FROM spread WHERE id = {}", id % 10 + 1)).await?
                } else {
                    client.exec_first("SELECT value FROM spread WHERE id = ?", (id % 10 + 1,)).await?
                };
                assert_eq!(value, Some(id % 10 + 1));
            }
            client.disconnect().await
        }));
    }
    for client in clients {
        client.await??;
    }
    let after = selects(sandbox.servers()).await?;
    let answered: Vec<u64> = after.iter().zip(before).map(|(after, before)| after - before).collect();
    let on_replicas: u64 = answered[1..].iter().sum();
    assert!(on_replicas * 5 > answered[0] * 95, "SELECTs by server: {answered:?}");
    Ok(())
}

async fn replicas_share(stage: Arc<Stage>) -> Outcome {
    table(&stage, "shared").await?;
    let sandbox = stage.sandbox().await?;
    let before = selects(sandbox.replicas()).await?;
    // A session stays with its replica, which is drawn: the faster one more often than the other.
    for _ in 0..SESSIONS {
        let mut client = stage.client().await?;
        for _ in 0..READS_OF_A_SESSION {
            let _: Option<u32> = client.query_first("SELECT value FROM shared WHERE id = 1").await?;
        }
        client.disconnect().await?;
    }
    let after = selects(sandbox.replicas()).await?;
    for (after, before) in after.iter().zip(before) {
        assert!(after - before > READS_OF_A_SESSION, "a replica answered {}", after - before);
    }
    Ok(())
}

async fn writes_stay(stage: Arc<Stage>) -> Outcome {
    table(&stage, "stay").await?;
    let seen = on_replicas(&stage, async |stage| {
        let mut client = stage.client().await?;
        for statement in WRITES {
            client.query_drop(*statement).await.map_err(|error| format!("{statement}: {error}"))?;
        }
        client.exec_drop("INSERT INTO stay VALUES (?, ?)", (21, 21)).await?;
        Ok(client.disconnect().await?)
    })
    .await?;
    // What a session set up on a replica for its reads is no statement of the client.
    let ours: Vec<_> = seen.iter().filter(|line| line.argument.contains("stay")).collect();
    assert!(ours.is_empty(), "replicas ran {ours:?}");
    Ok(())
}

async fn read_only_transactions(stage: Arc<Stage>) -> Outcome {
    table(&stage, "calm").await?;
    let seen = on_replicas(&stage, async |stage| {
        let mut client = stage.client().await?;
        client.query_drop("START TRANSACTION READ ONLY").await?;
        for _ in 0..10 {
            let _: Vec<u32> = client.query("SELECT value FROM calm").await?;
        }
        client.query_drop("COMMIT").await?;
        Ok(client.disconnect().await?)
    })
    .await?;
    let reads: Vec<_> = seen.iter().filter(|line| line.argument.contains("calm")).collect();
    assert_eq!(reads.len(), 10, "replicas ran {seen:?}");
    assert!(reads.iter().all(|line| line.thread == reads[0].thread), "not one connection: {reads:?}");
    Ok(())
}

async fn read_only_listener(stage: Arc<Stage>) -> Outcome {
    table(&stage, "pool").await?;
    let proxy = stage.proxy().await?;
    let options = proxy.options(APP, "app").tcp_port(proxy.read_only_port());
    let sandbox = stage.sandbox().await?;
    sandbox.primary().general_log(true).await?;
    let mut client = mysql_async::Conn::new(options).await?;
    for _ in 0..20 {
        let _: Vec<u32> = client.query("SELECT value FROM pool").await?;
    }
    let refused = client.query_drop("INSERT INTO pool VALUES (99, 99)").await;
    assert!(refused.is_err(), "the read-only listener took a write");
    sandbox.primary().general_log(false).await?;
    let logged = sandbox.primary().logged().await?;
    let ours: Vec<_> = logged.iter().filter(|line| line.argument.contains("FROM pool")).collect();
    assert!(ours.is_empty(), "the primary ran {ours:?}");
    Ok(())
}

async fn query_attributes(stage: Arc<Stage>) -> Outcome {
    table(&stage, "attributed").await?;
    let port = stage.proxy().await?.port();
    let script = "query_attributes pointsman primary\nSELECT 'there' FROM attributed;\nSELECT 'here' FROM attributed;\n";
    let seen = on_replicas(&stage, async |_stage| {
        let ran = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/mysql"))
            .args(["exec", "mysql", "--protocol=tcp", "--host=127.0.0.1", &format!("--port={port}")])
            .args([&format!("--user={}", APP.0), &format!("--password={}", APP.1)])
            .args(["--get-server-public-key", "--batch", "--commands", "--execute", script, "app"])
            .output()
            .await?;
        let printed = String::from_utf8_lossy(&ran.stdout);
        assert!(ran.status.success(), "{printed}{}", String::from_utf8_lossy(&ran.stderr));
        assert!(printed.contains("there") && printed.contains("here"), "{printed}");
        Ok(())
    })
    .await?;
    let ran = |word: &str| seen.iter().any(|line| line.argument.contains(word));
    assert!(ran("'here'") && !ran("'there'"), "on replicas: {seen:?}");
    Ok(())
}

/// A table of ten rows that every replica has.
async fn table(stage: &Stage, name: &str) -> Outcome {
    let mut client = stage.client().await?;
    client.query_drop(format!("CREATE TABLE {name} (id INT PRIMARY KEY, value INT)")).await?;
    let rows: Vec<String> = (1..=10).map(|id| format!("({id}, {id})")).collect();
    client.query_drop(format!("INSERT INTO {name} VALUES {}", rows.join(", "))).await?;
    client.disconnect().await?;
    Ok(stage.sandbox().await?.caught_up(LIMIT).await?)
}

/// What the application's account ran on replicas during `work`.
async fn on_replicas(
    stage: &Arc<Stage>,
    work: impl AsyncFnOnce(&Stage) -> Outcome,
) -> Result<Vec<Logged>, Failure> {
    let sandbox = stage.sandbox().await?;
    let mut earlier = Vec::new();
    for replica in sandbox.replicas() {
        replica.general_log(true).await?;
        earlier.push(replica.logged().await?.len());
    }
    work(stage).await?;
    let mut seen = Vec::new();
    for (replica, earlier) in sandbox.replicas().iter().zip(earlier) {
        replica.general_log(false).await?;
        let logged = replica.logged().await?.split_off(earlier);
        let ours = logged.into_iter().filter(|line| line.user == APP.0);
        // Prepare is noted besides Execute.
        seen.extend(ours.filter(|line| line.command != "Prepare"));
    }
    Ok(seen)
}

async fn selects(servers: &[Arc<Server>]) -> Result<Vec<u64>, Failure> {
    let mut counts = Vec::new();
    for server in servers {
        counts.push(server.counter("Com_select").await?);
    }
    Ok(counts)
}

const CLIENTS: usize = 8;
const READS_OF_EACH: u32 = 300;
const SESSIONS: usize = 40;
const READS_OF_A_SESSION: u64 = 60;
const LIMIT: Duration = Duration::from_secs(10);
const WRITES: &[&str] = &[
    "INSERT INTO stay VALUES (11, 11)",
    "UPDATE stay SET value = value + 1",
    "DELETE FROM stay WHERE id = 11",
    "REPLACE INTO stay VALUES (12, 12)",
    "INSERT INTO stay SELECT id + 20, value FROM stay WHERE id < 3 ON DUPLICATE KEY UPDATE value = 0",
    "SELECT value FROM stay WHERE id = 1 FOR UPDATE",
    "BEGIN",
    "SELECT value FROM stay WHERE id = 1",
    "UPDATE stay SET value = 5 WHERE id = 1",
    "SELECT value FROM stay WHERE id = 1",
    "COMMIT",
    "SET autocommit = 0",
    "SELECT value FROM stay WHERE id = 1",
    "COMMIT",
    "SET autocommit = 1",
    "LOCK TABLES stay READ",
    "SELECT value FROM stay WHERE id = 1",
    "UNLOCK TABLES",
    "CREATE TEMPORARY TABLE stay_for_now SELECT value FROM stay",
    "SELECT value FROM stay_for_now",
    "DROP TEMPORARY TABLE stay_for_now",
    "ALTER TABLE stay ADD COLUMN more INT",
    "ALTER TABLE stay DROP COLUMN more",
    "TRUNCATE TABLE stay",
];
