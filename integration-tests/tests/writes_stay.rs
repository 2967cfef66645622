//! A statement that would write never reaches a replica.
//!
//! All statements that the router's tests know as not being reads run through the proxy, each in a session of its own,
//! as text and prepared, while the servers note in their general logs what they are sent.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Value};
use pointsman_integration_tests::sandbox::{APP, Server};
use pointsman_integration_tests::{FLAVOURS, Failure, Flavour, Outcome, Plan, Stage, Suite, eventually};
use tokio::time::timeout;

fn main() {
    let mut suite = Suite::new();
    for flavour in FLAVOURS {
        let mut plan = Plan::new(flavour);
        if flavour == Flavour::Mysql {
            // As they came: else each part of several is noted by itself, passwords are left out, and what cannot be
            // parsed is not noted at all.
            plan.sandbox.options.push("--log-raw".to_owned());
        }
        let stage = suite.stage(plan);
        suite.test(&stage, "no statement but a read is seen by a replica", async |stage| {
            nothing_but_reads(&stage, Way::Text).await
        });
        suite
            .test(&stage, "nor a prepared one", async |stage| nothing_but_reads(&stage, Way::Prepared).await);
        suite.test(&stage, "95 % of pure reads are seen by replicas", reads_are_seen);
    }
    suite.run()
}

/// How a client sends a statement.
#[derive(Clone, Copy, Debug)]
enum Way {
    Text,
    Prepared,
}

/// What clients' statements the servers were sent.
#[derive(Debug, Default)]
struct Seen {
    primary: BTreeSet<String>,
    replicas: BTreeSet<String>,
}

async fn nothing_but_reads(stage: &Stage, way: Way) -> Outcome {
    tables(stage).await?;
    let statements = cases(include_str!("../../router/tests/cases/writes.txt"), stage.flavour())?;
    // Servers prepare only some.
    let least = match way {
        Way::Text => 300,
        Way::Prepared => 100,
    };
    let misrouted_before = misrouted(stage).await?;
    // Those that a server must have been sent; what changes nothing but the session need not be.
    let mut sent = BTreeSet::new();
    let seen = watch(stage, async |stage| {
        for case in &statements {
            if run(stage, &case.sql, way).await? && case.target == "primary" {
                sent.insert(normal(&case.sql));
            }
        }
        Ok(())
    })
    .await?;
    let leaked: Vec<_> =
        statements.iter().map(|case| normal(&case.sql)).filter(|sql| seen.replicas.contains(sql)).collect();
    assert!(leaked.is_empty(), "replicas were sent {leaked:#?}");
    // A replica that was sent nothing proves something only where the log shows statements as they were sent. A driver
    // writes `?` for `:a`, and what MySQL prepares it notes without passwords.
    let unseen: Vec<_> = sent.difference(&seen.primary).collect();
    assert!(sent.len() > least, "only {} statements were sent to a server", sent.len());
    assert!(unseen.len() * 100 <= sent.len() * 5, "of {} the primary's log lacks {unseen:#?}", sent.len());
    assert_eq!(misrouted(stage).await?, misrouted_before, "a replica refused a write");
    same_history(stage).await
}

/// The metric of the statements that a replica refused as writes.
async fn misrouted(stage: &Stage) -> Result<String, Failure> {
    let (_, metrics) = stage.proxy().await?.get("/metrics").await?;
    let line = metrics.lines().find(|line| line.starts_with("pointsman_misrouted_total "));
    Ok(line.ok_or("no metric of misrouted statements")?.to_owned())
}

async fn reads_are_seen(stage: Arc<Stage>) -> Outcome {
    tables(&stage).await?;
    let statements = cases(include_str!("../../router/tests/cases/reads.txt"), stage.flavour())?;
    let seen = watch(&stage, async |stage| {
        for case in &statements {
            run(stage, &case.sql, Way::Text).await?;
        }
        Ok(())
    })
    .await?;
    let missed: Vec<_> =
        statements.iter().map(|case| normal(&case.sql)).filter(|sql| !seen.replicas.contains(sql)).collect();
    let (all, found) = (statements.len(), statements.len() - missed.len());
    assert!(found * 100 >= all * 95, "{found} of {all}, not {missed:#?}");
    Ok(())
}

struct Case {
    target: String,
    sql: Vec<u8>,
}

/// Lines of flavour, perhaps target, and statement, of which those for this flavour.
fn cases(file: &str, flavour: Flavour) -> Result<Vec<Case>, Failure> {
    let name = format!("{flavour:?}").to_lowercase();
    let mut cases = Vec::new();
    for line in file.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let fields: Vec<&str> = line.split('\t').collect();
        let (&sql, before) = fields.split_last().ok_or("an empty line")?;
        if before[0] == "both" || before[0] == name {
            let target = before.get(1).copied().unwrap_or("replica").to_owned();
            cases.push(Case { target, sql: unescape(sql)? });
        }
    }
    Ok(cases)
}

/// Undoes `\\ \n \t \r` and `\xNN`.
fn unescape(text: &str) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        bytes.push(match rest.next() {
            Some(b'n') => b'\n',
            Some(b't') => b'\t',
            Some(b'r') => b'\r',
            Some(b'\\') => b'\\',
            Some(b'x') => {
                let digits: String = rest.by_ref().take(2).map(char::from).collect();
                u8::from_str_radix(&digits, 16)?
            }
            other => return Err(format!("unknown escape {other:?} in {text}").into()),
        });
    }
    Ok(bytes)
}

async fn tables(stage: &Stage) -> Outcome {
    let sandbox = stage.sandbox().await?;
    sandbox.primary().run(&["DROP DATABASE app", "CREATE DATABASE app"]).await?;
    let mut client = sandbox.primary().connect_as(APP, "app").await?;
    client.query_drop(include_str!("../../router/tests/cases/schema.sql")).await?;
    client.disconnect().await?;
    Ok(sandbox.caught_up(LIMIT).await?)
}

/// Runs a statement as the first one of a session; what the servers answer does not matter. False when it cannot be
/// prepared.
async fn run(stage: &Stage, sql: &[u8], way: Way) -> Result<bool, Failure> {
    let mut client = stage.client().await?;
    let answer = timeout(STATEMENT_LIMIT, send(&mut client, sql, way)).await;
    let sent = answer.map_err(|_| format!("no answer to {}", String::from_utf8_lossy(sql)))?;
    // A dropped connection ends its session, and with it locks and transactions.
    drop(client);
    if sql.to_ascii_lowercase().starts_with(b"set password") {
        let (user, password) = APP;
        let back = format!("ALTER USER '{user}'@'%' IDENTIFIED BY '{password}'");
        stage.sandbox().await?.primary().run(&[&back]).await?;
    }
    Ok(sent)
}

async fn send(client: &mut Conn, sql: &[u8], way: Way) -> bool {
    match way {
        Way::Text => {
            let _answer = client.query_drop(sql).await;
        }
        Way::Prepared => {
            let Ok(statement) = client.prep(sql).await else { return false };
            let nulls = vec![Value::NULL; usize::from(statement.num_params())];
            let _answer = client.exec_drop(&statement, nulls).await;
        }
    }
    true
}

/// What the servers were sent during `work`.
async fn watch(stage: &Stage, work: impl AsyncFnOnce(&Stage) -> Outcome) -> Result<Seen, Failure> {
    let sandbox = stage.sandbox().await?;
    stage.proxy().await?;
    let mut earlier = Vec::new();
    for server in sandbox.servers() {
        server.general_log(true).await?;
        earlier.push(server.logged().await?.len());
    }
    work(stage).await?;
    let mut seen = Seen::default();
    for (server, earlier) in sandbox.servers().iter().zip(earlier) {
        server.general_log(false).await?;
        let logged = server.logged().await?.split_off(earlier);
        let ours = logged.into_iter().filter(|line| line.user == APP.0);
        let place = match server.id() == sandbox.primary().id() {
            true => &mut seen.primary,
            false => &mut seen.replicas,
        };
        place.extend(ours.map(|line| normal(line.argument.as_bytes())));
    }
    Ok(seen)
}

/// Replicas hold exactly what the primary sent them: no transaction of their own, no different rows.
async fn same_history(stage: &Stage) -> Outcome {
    let sandbox = stage.sandbox().await?;
    sandbox.caught_up(LIMIT).await?;
    for replica in sandbox.replicas() {
        // Heartbeats go on for a while after the last write; what a replica has written itself never goes away.
        eventually("both are at the same place", LIMIT, async || {
            let here = replica.position().await;
            let there = sandbox.primary().position().await;
            here.is_ok_and(|here| there.is_ok_and(|there| here == there))
        })
        .await;
        assert_eq!(checksums(replica).await?, checksums(sandbox.primary()).await?);
    }
    Ok(())
}

async fn checksums(server: &Server) -> Result<Vec<(String, Option<i64>)>, Failure> {
    let tables: Vec<String> = server
        .rows(
            "SELECT CONCAT('app.`', table_name, '`') FROM information_schema.tables \
               WHERE table_schema = 'app' AND table_type = 'BASE TABLE' ORDER BY 1",
        )
        .await?;
    Ok(server.rows(&format!("CHECKSUM TABLE {}", tables.join(", "))).await?)
}

/// The general log trims a statement and its final semicolon, and MariaDB's shows what is not UTF-8 as question marks.
fn normal(sql: &[u8]) -> String {
    let text = String::from_utf8_lossy(sql);
    text.trim().trim_end_matches(';').trim().replace(char::REPLACEMENT_CHARACTER, "?")
}

const LIMIT: Duration = Duration::from_secs(20);
const STATEMENT_LIMIT: Duration = Duration::from_secs(60);
