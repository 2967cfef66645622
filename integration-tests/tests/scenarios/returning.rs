//! The former primary comes back, or goes on: as a replica if it holds nothing that the new one does not, else it is kept
//! out; and nobody gets an OK from it any more.

use std::sync::Arc;
use std::time::Duration;

use mysql_async::prelude::Queryable;
use pointsman_integration_tests::sandbox::{APP, Server};
use pointsman_integration_tests::{Flavour, Outcome, Plan, Stage, Suite, eventually};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::scene::{LIMIT, RESUMED_WITHIN, Scene, lossless};
use crate::{add_all, plain};

pub(crate) fn add(suite: &mut Suite, flavour: Flavour) {
    add_all(
        suite,
        vec![
            plain("3: the primary is stopped in an orderly way", flavour, |stage| Box::pin(stopped(stage))),
            plain("4: a frozen primary is let go after its place was taken", flavour, |stage| {
                Box::pin(let_go(stage))
            }),
            plain("4: a frozen primary is killed by fence_command", flavour, |stage| {
                Box::pin(killed_by_command(stage))
            }),
            plain("5: short freezes of the primary, again and again", flavour, |stage| {
                Box::pin(short_freezes(stage))
            }),
            (
                "40 (b), (c): the primary returns with a tail that nobody acknowledged",
                keeps_its_tail(flavour),
                |stage| Box::pin(tail(stage)),
            ),
        ],
    );
}

async fn stopped(stage: Arc<Stage>) -> Outcome {
    let scene = Scene::set(&stage).await?;
    let primary = scene.sandbox.primary();
    let asked = Instant::now();
    primary.stop().await?;
    // MySQL refuses connections at once and goes on feeding its replicas until it ends, so it is not dead before.
    let fault = match primary.flavour() {
        Flavour::Mariadb => asked,
        Flavour::Mysql => Instant::now(),
    };
    let (_, pause) = scene.replaced(primary, fault).await?;
    assert!(pause < RESUMED_WITHIN, "{pause:?}");
    primary.start().await?;
    scene.proxy.settled(&scene.sandbox, LIMIT).await;
    scene.goes_on().await;
    scene.prove(2, 1).await?;
    Ok(())
}

/// Clients that came past the proxy wait on the frozen primary, too, and get no OK. Ending them commits what waited,
/// which nobody else has: the server is kept out until it is set up anew.
async fn let_go(stage: Arc<Stage>) -> Outcome {
    let scene = Scene::set(&stage).await?;
    let primary = scene.sandbox.primary();
    let mut direct = Vec::new();
    for _ in 0..DIRECT {
        direct.push(primary.connect_as(APP, "app").await?);
    }
    let fault = Instant::now();
    primary.freeze().await?;
    let mut waiting = JoinSet::new();
    for (id, mut client) in (5_000_000_000_u64..).zip(direct) {
        let sql = format!("INSERT INTO ledger VALUES ({id}, 0, 0)");
        waiting.spawn(async move { client.query_drop(sql).await.is_ok() });
    }
    let (_, pause) = scene.replaced(primary, fault).await?;
    assert!(pause < RESUMED_WITHIN, "{pause:?}");
    primary.thaw().await?;
    eventually("it is kept out", LIMIT, async || scene.status_of(primary).await["state"] == "excluded").await;
    if primary.flavour() == Flavour::Mariadb {
        // On MySQL read_only waits for the commits that wait, and nothing ends those.
        eventually("it is read-only", LIMIT, async || {
            let read_only = primary.rows::<bool>("SELECT @@global.read_only").await;
            read_only.is_ok_and(|rows| rows == [true])
        })
        .await;
    }
    scene.goes_on().await;
    let mut acknowledged = 0;
    while let Some(answer) = timeout(LIMIT, waiting.join_next()).await? {
        acknowledged += usize::from(answer?);
    }
    assert_eq!(acknowledged, 0, "of {DIRECT} clients");
    scene.prove(2, 1).await?;
    Ok(())
}

const DIRECT: usize = 20;

/// A command that kills the frozen one is all that it takes: it comes back clean.
async fn killed_by_command(stage: Arc<Stage>) -> Outcome {
    let sandbox = stage.sandbox().await?;
    let pid = sandbox.primary().pid().await.ok_or("the primary does not run")?;
    let command = format!("[failover]\nfence_command = [\"kill\", \"-9\", \"{pid}\"]\n");
    let scene = Scene::set_with(&stage, &[], &command).await?;
    let primary = scene.sandbox.primary();
    let fault = Instant::now();
    primary.freeze().await?;
    let (_, pause) = scene.replaced(primary, fault).await?;
    assert!(pause < RESUMED_WITHIN, "{pause:?}");
    // It is dead already, and is only cleared away.
    primary.kill().await?;
    scene.proxy.bring_back(&scene.sandbox, primary).await?;
    scene.proxy.settled(&scene.sandbox, LIMIT).await;
    scene.goes_on().await;
    scene.prove(2, 1).await?;
    Ok(())
}

/// Each is shorter than what counts as silence.
async fn short_freezes(stage: Arc<Stage>) -> Outcome {
    let scene = Scene::set_with(&stage, &[], "[monitor]\ntimeout = \"1500ms\"\n").await?;
    let epoch = scene.status().await["epoch"].clone();
    for _ in 0..FREEZES {
        scene.sandbox.primary().freeze().await?;
        // This is the fault, not a wait for something.
        sleep(SHORT).await;
        scene.sandbox.primary().thaw().await?;
        scene.goes_on().await;
    }
    assert_eq!(scene.status().await["epoch"], epoch);
    scene.prove(1, 0).await?;
    Ok(())
}

const FREEZES: usize = 5;
const SHORT: Duration = Duration::from_millis(800);

/// MariaDB's recovery leaves the tail, as MySQL's always does.
fn keeps_its_tail(flavour: Flavour) -> Plan {
    let mut plan = lossless(flavour);
    if flavour == Flavour::Mariadb {
        plan.sandbox.options.push("--init-rpl-role=MASTER".to_owned());
    }
    plan
}

async fn tail(stage: Arc<Stage>) -> Outcome {
    let scene = Scene::set(&stage).await?;
    let primary = scene.sandbox.primary();
    for replica in scene.sandbox.replicas() {
        replica.run(&["STOP REPLICA IO_THREAD"]).await?;
    }
    writes_wait(primary).await;
    let fault = Instant::now();
    primary.kill().await?;
    let (new, pause) = scene.replaced(primary, fault).await?;
    assert!(pause < RESUMED_WITHIN, "{pause:?}");
    primary.start().await?;
    eventually("it is kept out, and why is said", LIMIT, async || {
        let shown = scene.status_of(primary).await;
        shown["state"] == "excluded" && scene.proxy.log().contains(ERRANT)
    })
    .await;
    scene.goes_on().await;
    never_reads(&scene, primary).await?;
    if primary.flavour() == Flavour::Mysql {
        let refused = scene.order(&["rejoin", primary.name(), "--yes"]).await?;
        assert_eq!(refused.code, 3, "{}{}", refused.out, refused.err);
        for words in [ERRANT, "set the server up anew"] {
            assert!(refused.err.contains(words), "{words} in {}", refused.err);
        }
    }
    assert_eq!(scene.proxy.primary(&scene.sandbox).await?.name(), new.name());
    scene.prove(2, 1).await?;
    Ok(())
}

const ERRANT: &str = "holds transactions that ";

/// Waits until a commit waits for an acknowledgement. The receivers are started again after three seconds.
async fn writes_wait(primary: &Server) {
    let sql = "SELECT COUNT(*) FROM information_schema.PROCESSLIST \
               WHERE INFO LIKE 'INSERT INTO ledger%' AND STATE LIKE '%semi-sync ACK%'";
    eventually("a commit waits", LIMIT, async || {
        primary.rows::<u32>(sql).await.is_ok_and(|rows| rows.first().is_some_and(|waiting| *waiting > 0))
    })
    .await;
}

/// None of many reads is answered by `server`.
async fn never_reads(scene: &Scene, server: &Server) -> Outcome {
    let mut client = scene.proxy.connect(APP, "app").await?;
    for _ in 0..READS {
        let id: Option<u32> = client.query_first("SELECT @@server_id").await?;
        assert_ne!(id, Some(server.id()));
    }
    Ok(())
}

const READS: usize = 50;
