//! Nothing is decided by the time of day.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use pointsman_integration_tests::{Layout, Outcome, Stage};
use tokio::time::Instant;

use crate::{RESUMED_WITHIN, Scene, TWO};

pub(crate) async fn jumps(stage: Arc<Stage>) -> Outcome {
    let scene = Scene::set(&stage, Layout { own_clocks: true, ..TWO }).await?;
    let before = scene.fleet.record().ok_or("no record")?;
    // The one that acts first.
    let wrong = *scene.fleet.ranks().await?.first().ok_or("no proxy is registered")?;
    for seconds in [HOUR, -HOUR] {
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
    assert!(pause < RESUMED_WITHIN, "{pause:?}");
    let proof = scene.prove().await?;
    assert_eq!(proof.epochs.len(), 2, "{proof:?}");
    scene.ledger.few_failed(&scene.all(), 1);
    // What it writes for people is wrong by that hour: the clock has jumped indeed.
    let after =
        scene.fleet.record_becomes("the change is written down", |record| record.epoch > before.epoch).await;
    let at_ms = after.history.last().ok_or("no history")?.at_ms;
    let now_ms = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_millis();
    let behind = now_ms.saturating_sub(u128::from(at_ms)) / 1000;
    assert!(behind >= u128::from(HOUR.unsigned_abs()), "only {behind} s behind");
    Ok(())
}

const HOUR: i64 = 3600;
/// Longer than a lease.
const WATCHED_FOR: Duration = Duration::from_secs(4);
