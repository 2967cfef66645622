//! What every coordinator promises: one writer wins, revisions rise, sessions run out, news spreads.

use std::sync::Arc;
use std::time::Duration;

use pointsman::failover::coordinator::{Cas, Coordinator};
use pointsman_router::failover::Revision;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::{Outcome, eventually};

/// Of the sessions.
pub const LEASE: Duration = Duration::from_secs(3);
const LIMIT: Duration = Duration::from_secs(20);

/// The promises but those about time, of the same register as the proxies `one` and `other` see it, which is empty.
///
/// # Errors
///
/// When a promise is broken, or the coordinator does not answer.
///
/// # Panics
///
/// When a promise is broken.
pub async fn contract(one: Arc<dyn Coordinator>, other: Arc<dyn Coordinator>) -> Outcome {
    let found = one.get().await?;
    assert_eq!((found.revision, found.value), (Revision(0), None));
    let mut heard = one.watch();
    // A swap on a state that is not there is lost.
    assert_eq!(one.cas(Revision(7), "never".into()).await?, Cas::Lost { revision: Revision(0), value: None });
    let Cas::Won { revision: first } = one.cas(Revision(0), "first \u{e9}\n".into()).await? else {
        return Err("the first swap was lost".into());
    };
    assert!(first > Revision(0));
    timeout(LIMIT, heard.wait_for(|heard| heard.as_ref().is_some_and(|(at, _)| *at == first))).await??;
    // The other one, who knows of nothing yet, loses and learns.
    let lost = other.cas(Revision(0), "second".into()).await?;
    assert_eq!(lost, Cas::Lost { revision: first, value: Some("first \u{e9}\n".into()) });
    let found = other.get().await?;
    assert_eq!((found.revision, found.value.as_deref()), (first, Some("first \u{e9}\n")));
    // Of many at a time, one wins.
    let mut racing = JoinSet::new();
    for racer in 0..8 {
        let coordinator = if racer % 2 == 0 { one.clone() } else { other.clone() };
        racing.spawn(async move { coordinator.cas(first, format!("racer {racer}")).await });
    }
    let mut won = Vec::new();
    while let Some(outcome) = racing.join_next().await {
        if let Cas::Won { revision } = outcome?? {
            won.push(revision);
        }
    }
    assert_eq!(won.len(), 1, "{won:?}");
    assert!(won[0] > first);
    let found = one.get().await?;
    assert_eq!(found.revision, won[0]);
    // The sessions tell what was said last.
    one.session("hello".into()).await?;
    one.session(String::new()).await?;
    one.session("hello again".into()).await?;
    let found = one.get().await?;
    assert_eq!(found.sessions.get("one").map(String::as_str), Some("hello again"));
    Ok(())
}

/// The promises of those that several proxies can share: who is silent is gone, and what one writes the others
/// hear. The same views as of [`contract`].
///
/// # Errors
///
/// When a promise is broken, or the coordinator does not answer.
///
/// # Panics
///
/// When a promise is broken.
pub async fn sessions(one: Arc<dyn Coordinator>, other: Arc<dyn Coordinator>) -> Outcome {
    one.session("one".into()).await?;
    other.session("other".into()).await?;
    assert_eq!(one.get().await?.sessions.len(), 2);
    let mut told = one.sessions();
    timeout(LIMIT, told.wait_for(|told| told.len() == 2)).await??;
    // Only one of them goes on.
    eventually("the other session runs out", LIMIT, async || {
        one.session("one".into()).await.is_ok()
            && one.get().await.is_ok_and(|found| found.sessions.keys().eq(["one"]))
    })
    .await;
    timeout(LIMIT, told.wait_for(|told| told.keys().eq(["one"]))).await??;
    other.session("back".into()).await?;
    assert_eq!(one.get().await?.sessions.get("other").map(String::as_str), Some("back"));
    // What one writes the other one hears.
    let mut heard = other.watch();
    let expected = one.get().await?.revision;
    one.cas(expected, "news".into()).await?;
    timeout(LIMIT, heard.wait_for(|heard| heard.as_ref().is_some_and(|(_, text)| text == "news"))).await??;
    Ok(())
}
