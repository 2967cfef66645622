//! The record and the sessions.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use kube::api::{Patch, PatchParams};
use pointsman::failover::coordinator::{Cas, Coordinator};
use pointsman_integration_tests::contract::{self, contract};
use pointsman_integration_tests::{Outcome, eventually};
use pointsman_router::failover::Revision;
use serde_json::json;
use tokio::time::timeout;

use crate::chart::{NAMESPACE, installed};

/// What a proxy said is taken away after many leases.
const LIMIT: Duration = Duration::from_secs(90);

pub(crate) async fn contract_holds() -> Outcome {
    let (_server, release) = installed().await?;
    contract(release.join("one").await?, release.join("other").await?).await
}

pub(crate) async fn sessions() -> Outcome {
    let (server, release) = installed().await?;
    contract::sessions(release.join("one").await?, release.join("other").await?).await?;
    // What a proxy that never comes back has said is taken away after a while.
    let one = release.join("one").await?;
    let leases: Api<Lease> = Api::namespaced(server.client().await?, NAMESPACE);
    eventually("the word of the other one is gone", LIMIT, async || {
        if one.session("one".into()).await.is_err() {
            return false;
        }
        let annotations = leases.get("shop-pointsman-proxies").await.map(|lease| lease.metadata.annotations);
        let annotations = annotations.ok().flatten().unwrap_or_default();
        annotations.contains_key("proxies.pointsman/one")
            && !annotations.contains_key("proxies.pointsman/other")
    })
    .await;
    assert_eq!(one.get().await?.sessions.into_keys().collect::<Vec<_>>(), ["one"]);
    Ok(())
}

/// Other tools put labels and annotations on objects.
pub(crate) async fn shared() -> Outcome {
    let (server, release) = installed().await?;
    let (one, leases) =
        (release.join("one").await?, Api::<Lease>::namespaced(server.client().await?, NAMESPACE));
    one.cas(Revision(0), "first".into()).await?;
    let mark = Patch::Merge(json!({ "metadata": { "labels": { "team": "shop" } } }));
    leases.patch(&release.record, &PatchParams::default(), &mark).await?;
    // The version is another one now.
    let found = one.get().await?;
    let Cas::Won { revision } = one.cas(found.revision, "first".into()).await? else {
        return Err("the same value again was lost".into());
    };
    assert!(revision > found.revision, "{revision:?}");
    let lease = leases.get(&release.record).await?;
    assert_eq!(lease.metadata.labels.unwrap_or_default().get("team").map(String::as_str), Some("shop"));
    assert_eq!(lease.spec.and_then(|spec| spec.holder_identity).as_deref(), Some("one"));
    // One that somebody deletes begins anew.
    leases.delete(&release.record, &Default::default()).await?;
    assert_eq!(one.cas(revision, "late".into()).await?, Cas::Lost { revision: Revision(0), value: None });
    let Cas::Won { revision: again } = one.cas(Revision(0), "again".into()).await? else {
        return Err("nothing was there, and yet it was lost".into());
    };
    assert!(again > revision);
    Ok(())
}

pub(crate) async fn comes_back() -> Outcome {
    let (server, release) = installed().await?;
    let (one, other) = (release.join("one").await?, release.join("other").await?);
    let mut heard = other.watch();
    let Cas::Won { revision } = one.cas(Revision(0), "before".into()).await? else {
        return Err("the first swap was lost".into());
    };
    timeout(LIMIT, heard.wait_for(|heard| heard.as_ref().is_some_and(|(_, text)| text == "before")))
        .await??;
    server.kill().await?;
    assert!(one.get().await.is_err());
    server.run().await?;
    eventually("the API server answers again", LIMIT, async || one.get().await.is_ok()).await;
    one.cas(revision, "after".into()).await?;
    timeout(LIMIT, heard.wait_for(|heard| heard.as_ref().is_some_and(|(_, text)| text == "after"))).await??;
    Ok(())
}
