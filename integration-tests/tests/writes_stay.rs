//! A statement that would write never reaches a replica.
//!
//! All statements that the router's tests know as not being reads run through the proxy, each in a session of its own,
//! while the replicas note in their general logs what they are sent.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use mysql_async::prelude::Queryable;
use pointsman_integration_tests::sandbox::{APP, Server};
use pointsman_integration_tests::{FLAVOURS, Failure, Flavour, Outcome, Plan, Stage, Suite};
use tokio::time::timeout;

fn main() {
    let mut suite = Suite::new();
    for flavour in FLAVOURS {
        let stage = suite.stage(Plan::new(flavour));
        suite.test(&stage, "no statement but a read is seen by a replica", nothing_but_reads);
        suite.test(&stage, "95 % of pure reads are seen by replicas", reads_are_seen);
    }
    suite.run()
}

async fn nothing_but_reads(stage: Arc<Stage>) -> Outcome {
    tables(&stage).await?;
    let statements = cases(include_str!("../../router/tests/cases/writes.txt"), stage.flavour())?;
    assert!(statements.len() > 200, "only {} statements", statements.len());
    let mut watched = BTreeMap::new();
    let seen = watch(&stage, async |stage| {
        for case in &statements {
            run(stage, &case.sql).await?;
            if case.target == "primary" {
                watched.insert(normal(&case.sql), case);
            }
        }
        Ok(())
    })
    .await?;
    let leaked: Vec<_> = seen.iter().filter(|text| watched.contains_key(*text)).collect();
    assert!(leaked.is_empty(), "replicas were sent {leaked:#?}");
    same_history(&stage).await
}

async fn reads_are_seen(stage: Arc<Stage>) -> Outcome {
    tables(&stage).await?;
    let statements = cases(include_str!("../../router/tests/cases/reads.txt"), stage.flavour())?;
    let seen = watch(&stage, async |stage| {
        for case in &statements {
            run(stage, &case.sql).await?;
        }
        Ok(())
    })
    .await?;
    let missed: Vec<_> =
        statements.iter().map(|case| normal(&case.sql)).filter(|sql| !seen.contains(sql)).collect();
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

/// Runs a statement as the first one of a session; what the servers answer does not matter.
async fn run(stage: &Stage, sql: &[u8]) -> Outcome {
    let mut client = stage.client().await?;
    let answer = timeout(STATEMENT_LIMIT, client.query_drop(sql)).await;
    answer.map(drop).map_err(|_| format!("no answer to {}", String::from_utf8_lossy(sql)))?;
    // A dropped connection ends its session, and with it locks and transactions.
    drop(client);
    if sql.to_ascii_lowercase().starts_with(b"set password") {
        let (user, password) = APP;
        let back = format!("ALTER USER '{user}'@'%' IDENTIFIED BY '{password}'");
        stage.sandbox().await?.primary().run(&[&back]).await?;
    }
    Ok(())
}

/// What clients' statements replicas were sent during `work`.
async fn watch(
    stage: &Arc<Stage>,
    work: impl AsyncFnOnce(&Stage) -> Outcome,
) -> Result<Vec<String>, Failure> {
    let sandbox = stage.sandbox().await?;
    stage.proxy().await?;
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
        seen.extend(ours.map(|line| normal(line.argument.as_bytes())));
    }
    Ok(seen)
}

/// Replicas hold exactly what the primary sent them: no transaction of their own, no different rows.
async fn same_history(stage: &Stage) -> Outcome {
    let sandbox = stage.sandbox().await?;
    sandbox.caught_up(LIMIT).await?;
    let position = sandbox.primary().position().await?;
    for replica in sandbox.replicas() {
        assert_eq!(replica.position().await?, position);
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

/// The general log trims a statement and its final semicolon.
fn normal(sql: &[u8]) -> String {
    let text = String::from_utf8_lossy(sql);
    text.trim().trim_end_matches(';').trim().to_owned()
}

const LIMIT: Duration = Duration::from_secs(20);
const STATEMENT_LIMIT: Duration = Duration::from_secs(60);
