//! Two proxies that agree through Leases.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use pointsman::failover::coordinator::{Coordinator, Kubernetes};
use pointsman_integration_tests::sandbox::{APP, Server};
use pointsman_integration_tests::{
    ApiServer, Failure, Installed, Ledger, Outcome, Proxy, Stage, eventually, program,
};
use pointsman_router::failover::Record;
use tokio::process::Command;
use tokio::time::Instant;

use crate::chart::installed;

/// Two proxies with the rights of the chart's service account, and writers at each.
struct Scene {
    stage: Arc<Stage>,
    server: Arc<ApiServer>,
    /// Sees the register without any proxy.
    register: Arc<Kubernetes>,
    proxies: Vec<Proxy>,
    ledger: Ledger,
}

impl Scene {
    async fn set(stage: Arc<Stage>) -> Result<Self, Failure> {
        let (server, release) = installed().await?;
        let sandbox = stage.sandbox().await?;
        let register = release.join("watcher").await?;
        let as_pod = as_pod(&server, &release).await?;
        let proxies = vec![
            Proxy::spawn_by(as_pod, &sandbox, &sandbox.configuration(), &tables(&release, None))?,
            Proxy::spawn(&sandbox, &tables(&release, Some(&release.kubeconfig)))?,
        ];
        for proxy in &proxies {
            proxy.ready(LIMIT).await?;
            proxy.armed("lossless").await;
        }
        eventually("both proxies are registered", LIMIT, async || {
            register.get().await.is_ok_and(|found| found.sessions.len() == 2)
        })
        .await;
        let options: Vec<_> = proxies.iter().map(|proxy| proxy.options(APP, "app")).collect();
        let ledger = Ledger::start(sandbox.primary(), &options, 3).await?;
        let scene = Self { stage, server, register, proxies, ledger };
        scene.ledger.goes_on(&BOTH).await;
        Ok(scene)
    }

    async fn record(&self) -> Result<Record, Failure> {
        let value = self.register.get().await?.value.ok_or("no record")?;
        Ok(serde_json::from_str(&value)?)
    }

    /// The server that the record names.
    async fn primary(&self) -> Result<Arc<Server>, Failure> {
        let name = self.record().await?.primary.ok_or("no primary")?;
        let sandbox = self.stage.sandbox().await?;
        let found = sandbox.servers().iter().find(|server| server.name() == name || server.address() == name);
        found.cloned().ok_or_else(|| format!("no server {name}").into())
    }

    async fn status(&self, at: usize, key: &str) -> Option<serde_json::Value> {
        self.proxies[at].status().await.ok().map(|status| status["failover"][key].clone())
    }
}

/// The namespace is that of the pod or of the kubeconfig.
fn tables(release: &Installed, kubeconfig: Option<&Path>) -> String {
    let file = kubeconfig.map(|path| format!("kubeconfig_file = \"{}\"\n", path.display()));
    format!(
        "[coordination]\nbackend = \"kubernetes\"\nlease = \"3s\"\nname = \"{}\"\n{}",
        release.record,
        file.unwrap_or_default()
    )
}

/// Becomes the program, which finds what the kubelet puts into a pod: variables, and the files of a service account.
async fn as_pod(server: &ApiServer, release: &Installed) -> Result<Command, Failure> {
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "sh", "-euc", AS_POD, "sh"])
        .arg(program()?)
        .env("KUBERNETES_SERVICE_HOST", "127.0.0.1")
        .env("KUBERNETES_SERVICE_PORT", server.port().to_string())
        .env("TOKEN", server.token_of(&release.namespace, &release.record).await?)
        .env("AUTHORITY", server.authority())
        .env("NAMESPACE", &release.namespace);
    Ok(command)
}

/// Only for the process itself: its `/run` is nobody else's.
const AS_POD: &str = "
mount -t tmpfs tmpfs /run
cd /run
mkdir -p secrets/kubernetes.io/serviceaccount
cd secrets/kubernetes.io/serviceaccount
printf %s \"$TOKEN\" >token
printf %s \"$NAMESPACE\" >namespace
cp \"$AUTHORITY\" ca.crt
unset TOKEN AUTHORITY NAMESPACE
cd /
exec \"$@\"
";

pub(crate) async fn primary_killed(stage: Arc<Stage>) -> Outcome {
    let scene = Scene::set(stage).await?;
    let (first, epoch) = (scene.primary().await?, scene.record().await?.epoch);
    let killed = Instant::now();
    first.kill().await?;
    scene.ledger.goes_on(&BOTH).await;
    let pause = BOTH.iter().map(|via| scene.ledger.longest_pause(*via, killed)).max().unwrap_or_default();
    println!("writes paused for {} ms at most", pause.as_millis());
    assert!(pause < RESUMED_WITHIN, "{pause:?}");
    let second = scene.primary().await?;
    assert_ne!(first.name(), second.name());
    assert!(scene.record().await?.epoch > epoch);
    let proof = scene.ledger.prove(&second).await?;
    println!("{} rows acknowledged, server of each epoch: {:?}", proof.acknowledged, proof.epochs);
    assert_eq!(proof.epochs.len(), 2, "{proof:?}");
    scene.ledger.few_failed(&BOTH, 1);
    Ok(())
}

pub(crate) async fn server_away(stage: Arc<Stage>) -> Outcome {
    let scene = Scene::set(stage).await?;
    let lost = async |at| scene.status(at, "coordinator_lost").await.is_some_and(|reason| !reason.is_null());
    assert!(!lost(0).await);
    scene.server.kill().await?;
    for at in BOTH {
        eventually("the proxy says that it is alone", LIMIT, async || lost(at).await).await;
    }
    // Longer than any lease: with lossless replication writes need none.
    let since = Instant::now();
    eventually("more than a lease has passed", LIMIT, async || since.elapsed() > Duration::from_secs(4))
        .await;
    scene.ledger.goes_on(&BOTH).await;
    scene.server.run().await?;
    for at in BOTH {
        eventually("the proxies agree again", LIMIT, async || {
            scene.status(at, "coordinator_lost").await.is_some_and(|reason| reason.is_null())
        })
        .await;
    }
    let first = scene.primary().await?;
    first.kill().await?;
    scene.ledger.goes_on(&BOTH).await;
    scene.ledger.prove(&*scene.primary().await?).await?;
    Ok(())
}

const BOTH: [usize; 2] = [0, 1];
/// Far below the lease, and far above what a busy machine needs: a wait for a lease would be found.
const RESUMED_WITHIN: Duration = Duration::from_millis(2500);
const LIMIT: Duration = Duration::from_secs(60);
