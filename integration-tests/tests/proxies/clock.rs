//! Nothing is decided by the time of day.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use pointsman_integration_tests::{Layout, Outcome, Stage};
use tokio::time::Instant;

use crate::{SHORT_LEASE, Scene, TWO};

pub(crate) async fn jumps(stage: Arc<Stage>) -> Outcome {
    let scene = Scene::set(&stage, Layout { own_clocks: true, lease: SHORT_LEASE, ..TWO }).await?;
    let before = scene.fleet.record().ok_or("no record")?;
    // Whoever acts in the end, its clock is wrong by an hour.
    for (wrong, seconds) in [(0, HOUR), (0, -HOUR), (1, HOUR)] {
        scene.fleet.members[wrong].jump_clock(seconds)?;
        let jumped = Instant::now();
        while jumped.elapsed() < WATCHED_FOR {
            scene.ledger.goes_on(&scene.all()).await;
            assert_eq!(scene.fleet.record().as_ref(), Some(&before), "{seconds} s");
        }
    }
    let killed = Instant::now();
    scene.fleet.primary()?.kill().await?;
    let pause = scene.resumes(&scene.all(), killed).await;
    assert!(pause < SHORT_LEASE, "{pause:?}");
    let proof = scene.prove().await?;
    assert_eq!(proof.epochs.len(), 2, "{proof:?}");
    scene.ledger.few_failed(&scene.all(), 1);
    // What is written for people is wrong by that hour: the clocks have jumped indeed.
    let after =
        scene.fleet.record_becomes("the change is written down", |record| record.epoch > before.epoch).await;
    let at_ms = after.history.last().ok_or("no history")?.at_ms;
    let now_ms = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_millis();
    let wrong = now_ms.abs_diff(u128::from(at_ms)) / 1000;
    assert!(wrong.abs_diff(HOUR.unsigned_abs().into()) < 60, "wrong by {wrong} s");
    Ok(())
}

const HOUR: i64 = 3600;
/// Longer than a lease.
const WATCHED_FOR: Duration = Duration::from_secs(4);
