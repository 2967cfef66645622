//! What the chart's service account may do, and what it may not.

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams, WatchParams};
use pointsman::failover::coordinator::{Coordinator, Kubernetes};
use pointsman_config::Coordination;
use pointsman_integration_tests::{Outcome, client};
use pointsman_router::failover::Revision;
use serde_json::json;

use crate::chart::{NAMESPACE, installed, make_namespace, named};

pub(crate) async fn own_only() -> Outcome {
    let (server, release) = installed().await?;
    let admin = server.client().await?;
    make_namespace(&admin, "elsewhere").await?;
    let lease = |name: &str| Lease { metadata: named(name), ..Lease::default() };
    let params = PostParams::default();
    Api::namespaced(admin.clone(), NAMESPACE).create(&params, &lease("other")).await?;
    Api::namespaced(admin, "elsewhere").create(&params, &lease(&release.record)).await?;
    // With all that it needs for itself.
    let one = release.join("one").await?;
    one.cas(Revision(0), "record".into()).await?;
    one.session("hello".into()).await?;
    assert_eq!(one.get().await?.sessions.len(), 1);

    let account = client(&release.kubeconfig).await?;
    let own: Api<Lease> = Api::namespaced(account.clone(), NAMESPACE);
    let elsewhere: Api<Lease> = Api::namespaced(account.clone(), "elsewhere");
    let (secrets, pods): (Api<Secret>, Api<Pod>) =
        (Api::namespaced(account.clone(), NAMESPACE), Api::namespaced(account.clone(), NAMESPACE));
    let configs: Api<ConfigMap> = Api::namespaced(account.clone(), NAMESPACE);
    let patch = Patch::Merge(json!({ "metadata": { "labels": { "mine": "now" } } }));
    let mut other = lease("other");
    other.metadata.resource_version = Some("1".to_owned());
    let everything = Default::default();
    refused("get another Lease", own.get("other").await);
    refused("update another Lease", own.replace("other", &params, &other).await);
    refused("patch another Lease", own.patch("other", &PatchParams::default(), &patch).await);
    refused(
        "watch another Lease",
        own.watch(&WatchParams::default().fields("metadata.name=other"), "").await,
    );
    refused("watch all Leases", own.watch(&WatchParams::default(), "").await);
    refused("list Leases", own.list(&everything).await);
    refused("delete its own Lease", own.delete(&release.record, &Default::default()).await);
    refused("get a Lease elsewhere", elsewhere.get(&release.record).await);
    refused(
        "patch a Lease elsewhere",
        elsewhere.patch(&release.record, &PatchParams::default(), &patch).await,
    );
    refused("create a Lease elsewhere", elsewhere.create(&params, &lease("new")).await);
    refused("list Secrets", secrets.list(&everything).await);
    refused("get its own Secret", secrets.get("pointsman").await);
    refused("get its own ConfigMap", configs.get(&release.record).await);
    refused("list pods", pods.list(&everything).await);
    refused("list all Secrets", Api::<Secret>::all(account).list(&everything).await);
    Ok(())
}

fn refused<T>(what: &str, answer: Result<T, kube::Error>) {
    match answer {
        Err(kube::Error::Api(status)) if status.code == 403 => {}
        Err(error) => panic!("{what}: expected to be forbidden, got {error}"),
        Ok(_) => panic!("{what}: expected to be forbidden, and it was done"),
    }
}

async fn named_right(settings: Coordination, verb: &str, object: &str) -> Outcome {
    let one = Kubernetes::new(&settings, "shop", "one").await?;
    let error = match verb {
        "get" => one.get().await.err(),
        _ => one.session("hello".into()).await.err(),
    };
    let error = error.ok_or("it had the right")?.to_string();
    for part in
        [&format!("may not {verb} lease"), object, &format!("the verb \"{verb}\""), "rbac.create=true"]
    {
        assert!(error.contains(part), "{error}");
    }
    Ok(())
}

pub(crate) async fn named_rights() -> Outcome {
    let (server, release) = installed().await?;
    let other = Coordination { name: Some("other".to_owned()), ..release.coordination() };
    named_right(other.clone(), "get", "\"other\" in namespace \"databases\"").await?;
    named_right(other, "patch", "\"other-proxies\"").await?;
    // A token that was taken back.
    let stranger =
        Coordination { kubeconfig_file: Some(server.kubeconfig_with("no-token")?), ..release.coordination() };
    let one = Kubernetes::new(&stranger, "shop", "one").await?;
    let error = one.get().await.err().ok_or("a stranger was let in")?.to_string();
    assert!(error.contains("does not accept the token"), "{error}");
    // Outside of a pod, without a kubeconfig.
    let nowhere = Coordination { kubeconfig_file: None, ..release.coordination() };
    let error = Kubernetes::new(&nowhere, "shop", "one").await.err().ok_or("this is no pod")?.to_string();
    assert!(error.contains("coordination.kubeconfig_file"), "{error}");
    Ok(())
}
