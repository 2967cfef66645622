//! A planned move meets what does not end: it takes the transaction along, or is given up and leaves the primary writable.

use std::sync::Arc;

use mysql_async::prelude::Queryable;
use pointsman_integration_tests::sandbox::APP;
use pointsman_integration_tests::{Flavour, Locks, Outcome, Stage, Suite};
use tokio::time::Instant;

use crate::scene::{RESUMED_WITHIN, Scene};
use crate::{add_all, plain};

pub(crate) fn add(suite: &mut Suite, flavour: Flavour) {
    add_all(
        suite,
        vec![
            plain("38: a planned move while a transaction stays open", flavour, |stage| {
                Box::pin(open_transaction(stage))
            }),
            plain("38: a planned move while the primary cannot become read-only", flavour, |stage| {
                Box::pin(given_up(stage))
            }),
        ],
    );
}

/// It is done again on the new primary, where every answer is the same.
async fn open_transaction(stage: Arc<Stage>) -> Outcome {
    let scene = Scene::set(&stage).await?;
    let mut client = scene.proxy.connect(APP, "app").await?;
    client.query_drop("CREATE TABLE moved (id INT PRIMARY KEY)").await?;
    client.query_drop("BEGIN").await?;
    client.query_drop("INSERT INTO moved VALUES (1)").await?;
    let began = Instant::now();
    let ran = scene.order(&["switchover", "--yes"]).await?;
    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
    let (new, pause) = scene.replaced(scene.sandbox.primary(), began).await?;
    assert!(pause < RESUMED_WITHIN, "{pause:?}");
    client.query_drop("INSERT INTO moved VALUES (2)").await?;
    client.query_drop("COMMIT").await?;
    assert_eq!(new.rows::<u32>("SELECT id FROM app.moved ORDER BY id").await?, [1, 2]);
    scene.prove(2, 0).await?;
    Ok(())
}

/// Somebody's table lock keeps `read_only` from coming into effect, as a long ALTER does.
async fn given_up(stage: Arc<Stage>) -> Outcome {
    let scene = Scene::set(&stage).await?;
    let primary = scene.sandbox.primary();
    let locks = Locks::take(std::slice::from_ref(primary), "LOCK TABLES app.sandbox WRITE").await?;
    let began = Instant::now();
    let ran = scene.order(&["switchover", "--yes"]).await?;
    assert_ne!(ran.code, 0, "{}{}", ran.out, ran.err);
    assert!(ran.err.contains("read-only"), "{}{}", ran.out, ran.err);
    scene.goes_on().await;
    let pause = scene.ledger.longest_pause(0, began);
    println!("writes paused for {} ms", pause.as_millis());
    assert!(pause < RESUMED_WITHIN, "{pause:?}");
    assert_eq!(scene.proxy.primary(&scene.sandbox).await?.name(), primary.name());
    locks.release().await?;
    let proof = scene.ledger.prove(primary).await?;
    assert!(proof.epochs.values().all(|server| *server == primary.id()), "{proof:?}");
    scene.ledger.few_failed(&[0], 0);
    Ok(())
}
