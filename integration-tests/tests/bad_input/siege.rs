//! Many at once, and servers that die: nobody else waits for it.

use std::sync::Arc;
use std::time::Duration;
use std::{fs, process};

use mysql_async::prelude::Queryable;
use pointsman_integration_tests::sandbox::APP;
use pointsman_integration_tests::{Failure, Outcome, Rounds, Stage, eventually, program};
use tokio::time::{Instant, interval, timeout};

use super::wire::Wire;
use super::{Bystander, MEMORY_MIB};

/// Clients that send one byte of a login after the other are shown out; meanwhile others come in.
pub(super) async fn slow_logins(stage: Arc<Stage>) -> Outcome {
    let bystander = Bystander::new(&stage).await?;
    let before = bystander.memory()?;
    let started = Instant::now();
    let mut slow = Vec::new();
    for _client in 0..SLOW_CLIENTS {
        slow.push(Wire::greeted(bystander.proxy.port()).await?.0);
    }
    for byte in [40, 0, 0] {
        for wire in &mut slow {
            wire.send(&[byte]).await;
        }
        let asked = Instant::now();
        bystander.proxy.connect(APP, "app").await?.disconnect().await?;
        assert!(asked.elapsed() < PROMPT, "a login took {:?}", asked.elapsed());
    }
    for mut wire in slow {
        wire.closed().await?;
    }
    assert!(started.elapsed() < Duration::from_secs(30), "shown out after {:?}", started.elapsed());
    let grown = bystander.memory()?.saturating_sub(before);
    assert!(grown < MEMORY_MIB, "{grown} MiB more");
    bystander.unaffected().await
}

/// Logins that fail, as fast as they can: open sessions go on.
pub(super) async fn login_flood(stage: Arc<Stage>) -> Outcome {
    let mut bystander = Bystander::new(&stage).await?;
    let before = bystander.memory()?;
    let mut rounds = Rounds::within(NO_STANDSTILL);
    while rounds.go_on() {
        rounds.took(flood(&mut bystander).await?);
    }
    rounds.outcome()?;
    let grown = bystander.memory()?.saturating_sub(before);
    assert!(grown < MEMORY_MIB, "{grown} MiB more");
    bystander.unaffected().await
}

/// How long one read of a hundred takes meanwhile.
async fn flood(bystander: &mut Bystander) -> Result<Duration, Failure> {
    let end = Instant::now() + Duration::from_secs(3);
    let flood: Vec<_> = (0..FLOOD_CLIENTS)
        .map(|_| {
            // Not with wrong passwords, which shut this address out for a while, as they should.
            let options = bystander.proxy.options(APP, "no_such_schema");
            tokio::spawn(async move {
                let mut refused = 0_u32;
                while Instant::now() < end {
                    refused += u32::from(mysql_async::Conn::new(options.clone()).await.is_err());
                }
                refused
            })
        })
        .collect();
    // Reads that are due while another one waits count from then: else a standstill is one slow read of many.
    let mut due = interval(READ_PERIOD);
    let mut took = Vec::new();
    while Instant::now() < end {
        let due = due.tick().await;
        timeout(PROMPT, bystander.conn.query_drop("SELECT 1")).await??;
        took.push(due.elapsed());
    }
    took.sort();
    let p99 = took[took.len() * 99 / 100];
    let mut refused = 0;
    for client in flood {
        refused += client.await?;
    }
    assert!(refused > FLOOD_CLIENTS, "only {refused} logins were refused");
    Ok(p99)
}

/// The servers of running reads die in the middle of their packets.
pub(super) async fn dying_servers(stage: Arc<Stage>) -> Outcome {
    let bystander = Bystander::new(&stage).await?;
    let sandbox = stage.sandbox().await?;
    let wires = bystander.large_results().await?;
    for replica in sandbox.replicas() {
        replica.kill().await?;
    }
    for mut wire in wires {
        // What follows half a packet cannot be an error; the end is what tells.
        wire.closed().await?;
    }
    for replica in sandbox.replicas() {
        replica.start().await?;
        replica.run(&["START REPLICA"]).await?;
    }
    all_online(&bystander).await;
    bystander.unaffected().await
}

/// The primary dies under a write and under a transaction, and nobody takes its place: one client is told that nobody
/// knows what came of it, the other that it is rolled back, and others read on.
pub(super) async fn dying_primary(stage: Arc<Stage>) -> Outcome {
    let mut bystander = Bystander::new(&stage).await?;
    let sandbox = stage.sandbox().await?;
    sandbox.primary().run(&["CREATE TABLE app.dying (id INT)"]).await?;
    let mut in_transaction = bystander.proxy.connect(APP, "app").await?;
    in_transaction.query_drop("BEGIN").await?;
    in_transaction.query_drop("INSERT INTO dying VALUES (1)").await?;
    let mut writer = bystander.proxy.connect(APP, "app").await?;
    let write = tokio::spawn(async move { writer.query_drop("INSERT INTO dying SELECT SLEEP(60)").await });
    let asleep = "SELECT COUNT(*) FROM information_schema.processlist WHERE info LIKE 'INSERT INTO dying%'";
    eventually("the write is under way", Duration::from_secs(10), async || {
        sandbox.primary().rows::<u64>(asleep).await.is_ok_and(|found| found == [1])
    })
    .await;
    sandbox.primary().kill().await?;
    let told = timeout(PROMPT, write).await??;
    assert_eq!(code_and_state(told)?, (1158, "08007".to_owned()));
    // After routing.hold_timeout.
    let told = timeout(2 * PROMPT, in_transaction.query_drop("INSERT INTO dying VALUES (2)")).await?;
    assert_eq!(code_and_state(told)?, (1180, "HY000".to_owned()));
    let read =
        timeout(PROMPT, bystander.conn.query_first::<u64, _>("SELECT COUNT(*) FROM sandbox")).await??;
    assert!(read.is_some());
    sandbox.primary().start().await?;
    all_online(&bystander).await;
    // It has not been run a second time.
    assert_eq!(bystander.conn.query_first::<u64, _>("SELECT COUNT(*) FROM dying").await?, Some(0));
    bystander.unaffected().await
}

fn code_and_state(told: mysql_async::Result<()>) -> Result<(u16, String), Failure> {
    match told {
        Err(mysql_async::Error::Server(error)) => Ok((error.code, error.state)),
        other => Err(format!("expected an error of the proxy, got {other:?}").into()),
    }
}

async fn all_online(bystander: &Bystander) {
    eventually("all servers are back", Duration::from_secs(20), async || {
        bystander.proxy.status().await.is_ok_and(|status| {
            let servers = status["servers"].as_array();
            servers.is_some_and(|servers| servers.iter().all(|server| server["state"] == "online"))
        })
    })
    .await;
}

/// Every fault is told with its place, and nothing has started.
pub(super) async fn wrong_configuration(stage: Arc<Stage>) -> Outcome {
    let sandbox = stage.sandbox().await?;
    let path = sandbox.directory().join("wrong.toml");
    fs::write(
        &path,
        "servers = [\"db-1:99999\"]\nuser = 5\n[rooting]\nlag = 1\n[lag]\nmaximum = \"10 parsecs\"\n",
    )?;
    for command in [["serve"].as_slice(), &["config", "check"]] {
        let program = program()?;
        let mut started = process::Command::new(program);
        let output = started.args(command).arg("--config").arg(&path).output()?;
        let told =
            String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(2), "{command:?}: {told}");
        for place in ["wrong.toml:1:", "wrong.toml:2:", "wrong.toml:3:", "wrong.toml:6:"] {
            assert!(told.contains(place), "{command:?}: expected {place} in {told}");
        }
        assert!(told.contains("routing"), "{command:?}: expected the nearest name in {told}");
        assert!(!told.contains("listening"), "{command:?}: {told}");
    }
    Ok(())
}

const SLOW_CLIENTS: usize = 300;
const FLOOD_CLIENTS: u32 = 32;
const READ_PERIOD: Duration = Duration::from_millis(50);
/// A standstill of half a second delays some of the sixty reads by more than that.
const NO_STANDSTILL: Duration = Duration::from_millis(400);
/// On a busy machine; far less than any of the deadlines of logins.
const PROMPT: Duration = Duration::from_secs(5);
