//! What a replica has received and not applied counts, if it can still apply it.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use pointsman_integration_tests::sandbox::Server;
use pointsman_integration_tests::{Flavour, Locks, Outcome, Stage, Suite, eventually};
use tokio::time::Instant;

use crate::scene::{LIMIT, RESUMED_WITHIN, Scene};
use crate::{add_all, plain};

pub(crate) fn add(suite: &mut Suite, flavour: Flavour) {
    add_all(
        suite,
        vec![
            plain("1: the primary dies while it sends a large transaction", flavour, |stage| {
                Box::pin(amid_transaction(stage))
            }),
            plain("16: all replicas are three seconds behind in applying", flavour, |stage| {
                Box::pin(far_behind(stage))
            }),
            plain("20: a replica that is delayed on purpose holds the only copy", flavour, |stage| {
                Box::pin(delayed(stage))
            }),
        ],
    );
}

/// The replicas have received the beginning, and nobody will send the rest. MySQL's applier would wait for it.
///
/// Frozen, they take no more than what fits between them and the primary, which is far less than the whole.
async fn amid_transaction(stage: Arc<Stage>) -> Outcome {
    let scene = Scene::set(&stage).await?;
    let primary = scene.sandbox.primary();
    primary.run(&["CREATE TABLE app.large (text LONGTEXT)"]).await?;
    // Commits that wait for an acknowledgement would keep it out of MariaDB's binary log.
    scene.ledger.pause().await;
    scene.rests(primary).await?;
    for replica in scene.sandbox.replicas() {
        replica.freeze().await?;
    }
    let sender = primary.clone();
    let sending = tokio::spawn(async move { sender.run(&[LARGE]).await.is_ok() });
    eventually("it is in the binary log", LIMIT, async || binary_log_bytes(&scene, primary) > LARGE_BYTES)
        .await;
    primary.kill().await?;
    let let_go = Instant::now();
    scene.ledger.go_on();
    for replica in scene.sandbox.replicas() {
        replica.thaw().await?;
    }
    let (new, pause) = scene.replaced(primary, let_go).await?;
    assert!(!sending.await?, "the large transaction was acknowledged");
    assert_eq!(new.rows::<u32>("SELECT COUNT(*) FROM app.large").await?, [0], "it has come whole");
    assert!(pause < RESUMED_WITHIN, "{pause:?}");
    scene.prove(2, 1).await?;
    Ok(())
}

fn binary_log_bytes(scene: &Scene, server: &Server) -> u64 {
    let data = scene.sandbox.directory().join(server.name()).join("data");
    let files = fs::read_dir(data).into_iter().flatten().flatten();
    let logs = files.filter(|file| file.file_name().to_string_lossy().starts_with("binlog."));
    logs.filter_map(|log| log.metadata().ok()).map(|log| log.len()).sum()
}

/// A little more than `LARGE_BYTES` in the binary log: what no other server would make alike is logged as rows.
const LARGE: &str = "INSERT INTO app.large WITH RECURSIVE n (i) AS \
                     (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100) \
                     SELECT CONCAT(UUID(), REPEAT('x', 10000)) FROM n a, n b";
const LARGE_BYTES: u64 = 100_000_000;

/// Rows of the writers cannot be applied as long as this is held; they are received.
const HOLDS_APPLYING: &str = "FLUSH TABLES app.ledger WITH READ LOCK";
const BEHIND_BY: Duration = Duration::from_secs(3);

async fn far_behind(stage: Arc<Stage>) -> Outcome {
    let scene = Scene::set(&stage).await?;
    let locks = Locks::take(scene.sandbox.replicas(), HOLDS_APPLYING).await?;
    let began = Instant::now();
    while began.elapsed() < BEHIND_BY {
        scene.goes_on().await;
    }
    scene.sandbox.primary().kill().await?;
    scene.held(&["has not applied yet all that it has received"]).await;
    scene.nobody_writable(&[]).await?;
    let released = Instant::now();
    locks.release().await?;
    let (_, pause) = scene.replaced(scene.sandbox.primary(), released).await?;
    assert!(pause < APPLIED_WITHIN, "{pause:?}");
    scene.prove(2, 1).await?;
    Ok(())
}

/// The delay ends when there is nobody else: at once on MySQL. MariaDB changes it only at the price of what is not applied,
/// so there it is waited for.
async fn delayed(stage: Arc<Stage>) -> Outcome {
    let scene = Scene::set(&stage).await?;
    let [other, delayed] = scene.sandbox.replicas() else { return Err("expected two replicas".into()) };
    let (delay, within) = match scene.sandbox.options().flavour {
        Flavour::Mariadb => (SHORT_DELAY, SHORT_DELAY + RESUMED_WITHIN),
        Flavour::Mysql => (LONG_DELAY, RESUMED_WITHIN),
    };
    delayed.delay_replication(delay).await?;
    scene.goes_on().await;
    // Each of these rows is acknowledged by the delayed one alone.
    other.run(&["STOP REPLICA IO_THREAD"]).await?;
    scene.goes_on().await;
    scene.ready().await;
    let (new, pause) = scene.lose_primary().await?;
    assert_eq!(new.name(), delayed.name());
    assert!(pause < within, "{pause:?}");
    scene.prove(2, 1).await?;
    Ok(())
}

const SHORT_DELAY: Duration = Duration::from_secs(3);
const LONG_DELAY: Duration = Duration::from_secs(60);
/// Three seconds of rows are applied first.
const APPLIED_WITHIN: Duration = Duration::from_secs(9);
