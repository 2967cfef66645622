//! The chart in the hands of Helm.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use k8s_openapi::ByteString;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Secret, Service};
use k8s_openapi::api::rbac::v1::Role;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use pointsman_integration_tests::{ApiServer, Failure, Installed, Outcome};
use tokio::process::Command;
use tokio::time::timeout;

pub(crate) const NAMESPACE: &str = "databases";

/// One of the pinned programs, towards one API server.
pub(crate) struct Helm {
    program: PathBuf,
    kubeconfig: PathBuf,
    /// Nothing of whoever runs the tests.
    home: tempfile::TempDir,
}

impl Helm {
    pub(crate) fn new(server: &ApiServer, major: u8) -> Result<Self, Failure> {
        let tools = std::env::var_os("POINTSMAN_CHART_TOOLS");
        let tools = tools.ok_or("POINTSMAN_CHART_TOOLS is not set: run scripts/test api-server")?;
        let program = Path::new(&tools).join(format!("helm{major}"));
        Ok(Self { program, kubeconfig: server.admin(), home: tempfile::TempDir::new()? })
    }

    /// What it printed; its complaint where it fails.
    async fn run(&self, arguments: &[&str]) -> Result<String, Failure> {
        let running = Command::new(&self.program)
            .args(["--namespace", NAMESPACE])
            .args(arguments)
            .env("KUBECONFIG", &self.kubeconfig)
            .env("HOME", self.home.path())
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        let output = timeout(LIMIT, running).await??;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        match output.status.success() {
            true => Ok(text(&output.stdout)),
            false => Err(text(&output.stderr).into()),
        }
    }

    /// Installs or upgrades the release; nothing behind the API server makes pods, so nothing is waited for.
    pub(crate) async fn put(&self, verb: &str, release: &str, settings: &[&str]) -> Result<String, Failure> {
        let chart = concat!(env!("CARGO_MANIFEST_DIR"), "/../charts/pointsman");
        let mut arguments = vec![verb, release, chart];
        for setting in COMMON.iter().chain(settings) {
            arguments.extend(["--set", setting]);
        }
        self.run(&arguments).await
    }
}

/// The namespace, and the Secret with the password in it.
pub(crate) async fn prepare(client: &Client) -> Outcome {
    make_namespace(client, NAMESPACE).await?;
    let data = BTreeMap::from([("password".to_owned(), ByteString(b"secret".to_vec()))]);
    let secret = Secret { metadata: named("pointsman"), data: Some(data), ..Secret::default() };
    Api::namespaced(client.clone(), NAMESPACE).create(&PostParams::default(), &secret).await?;
    Ok(())
}

pub(crate) async fn make_namespace(client: &Client, name: &str) -> Outcome {
    let namespace = Namespace { metadata: named(name), ..Namespace::default() };
    Api::all(client.clone()).create(&PostParams::default(), &namespace).await?;
    Ok(())
}

pub(crate) fn named(name: &str) -> ObjectMeta {
    ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() }
}

/// An API server with a release of the chart, and the rights of its service account.
pub(crate) async fn installed() -> Result<(std::sync::Arc<ApiServer>, Installed), Failure> {
    installed_with(&[]).await
}

/// As [`installed`], with directors of a virtual address.
pub(crate) async fn with_directors() -> Result<(std::sync::Arc<ApiServer>, Installed), Failure> {
    installed_with(&["director.enabled=true", "config.vip.address=10.20.0.100"]).await
}

async fn installed_with(values: &[&str]) -> Result<(std::sync::Arc<ApiServer>, Installed), Failure> {
    let server = ApiServer::start().await?;
    prepare(&server.client().await?).await?;
    Helm::new(&server, 4)?.put("install", "shop", values).await?;
    let account = "shop-pointsman";
    let kubeconfig = server.kubeconfig_of(NAMESPACE, account).await?;
    let release = Installed { namespace: NAMESPACE.to_owned(), record: account.to_owned(), kubeconfig };
    Ok((server, release))
}

pub(crate) async fn life(major: u8) -> Outcome {
    let server = ApiServer::start().await?;
    let (client, helm) = (server.client().await?, Helm::new(&server, major)?);
    make_namespace(&client, NAMESPACE).await?;
    let refused =
        helm.put("install", "shop", &[]).await.err().ok_or("installed without its Secret")?.to_string();
    assert!(refused.contains("there is no Secret \"pointsman\" in namespace \"databases\""), "{refused}");
    let secret = Secret { metadata: named("pointsman"), ..Secret::default() };
    Api::namespaced(client.clone(), NAMESPACE).create(&PostParams::default(), &secret).await?;
    let refused = helm.put("install", "shop", &["config.routing.read_wiat=1s"]).await;
    let refused = refused.err().ok_or("installed with a misspelt option")?.to_string();
    assert!(refused.contains("read_wiat"), "{refused}");

    let told = helm.put("install", "shop", &[]).await?;
    assert!(told.contains("mysql://"), "{told}");
    let first = Shown::of(&client).await?;
    assert_eq!((first.replicas, first.read_wait()), (3, None));
    assert_eq!(first.services, ["shop-pointsman", "shop-pointsman-admin", "shop-pointsman-ro"]);
    assert_eq!(first.leases, ["shop-pointsman", "shop-pointsman-proxies"]);

    helm.put("upgrade", "shop", &["config.routing.read_wait=300ms", "replicaCount=2"]).await?;
    let second = Shown::of(&client).await?;
    assert_eq!((second.replicas, second.read_wait().as_deref()), (2, Some("300ms")));
    assert_ne!(second.template, first.template, "the pods would not be replaced");
    // What the API server refuses leaves what is there.
    helm.put("upgrade", "shop", &["commonLabels.team=no label at all"])
        .await
        .err()
        .ok_or("upgraded to a bad label")?;
    assert_eq!(Shown::of(&client).await?, second);

    helm.run(&["rollback", "shop", "1"]).await?;
    assert_eq!(Shown::of(&client).await?, first);
    let history: serde_json::Value =
        serde_json::from_str(&helm.run(&["history", "shop", "-o", "json"]).await?)?;
    let states: Vec<_> = history.as_array().into_iter().flatten().map(|at| &at["status"]).collect();
    assert_eq!(states, ["superseded", "superseded", "failed", "deployed"]);

    helm.run(&["uninstall", "shop"]).await?;
    let left = Api::<Deployment>::namespaced(client.clone(), NAMESPACE).list(&Default::default()).await?;
    assert_eq!(left.items.len(), 0);
    assert_eq!(Api::<Role>::namespaced(client, NAMESPACE).list(&Default::default()).await?.items.len(), 0);
    Ok(())
}

/// What a release has made.
#[derive(Debug, PartialEq)]
struct Shown {
    replicas: i32,
    /// Of the pods.
    template: String,
    config: serde_json::Value,
    services: Vec<String>,
    /// That the Role names.
    leases: Vec<String>,
}

impl Shown {
    async fn of(client: &Client) -> Result<Self, Failure> {
        let name = "shop-pointsman";
        let deployment = Api::<Deployment>::namespaced(client.clone(), NAMESPACE).get(name).await?;
        let spec = deployment.spec.ok_or("no spec")?;
        let config = Api::<ConfigMap>::namespaced(client.clone(), NAMESPACE).get(name).await?;
        let config = config.data.and_then(|data| data.get("pointsman.json").cloned());
        let services =
            Api::<Service>::namespaced(client.clone(), NAMESPACE).list(&Default::default()).await?;
        let services = services.items.into_iter().filter_map(|service| service.metadata.name).collect();
        let role = Api::<Role>::namespaced(client.clone(), NAMESPACE).get(name).await?;
        let rules = role.rules.unwrap_or_default();
        Ok(Self {
            replicas: spec.replicas.ok_or("no replicas")?,
            template: serde_json::to_string(&spec.template)?,
            config: serde_json::from_str(&config.ok_or("no pointsman.json")?)?,
            services,
            leases: rules.into_iter().filter_map(|rule| rule.resource_names).flatten().collect(),
        })
    }

    fn read_wait(&self) -> Option<String> {
        self.config["routing"]["read_wait"].as_str().map(str::to_owned)
    }
}

/// The API server is too old for what the chart knows of budgets.
const COMMON: [&str; 3] = [
    "config.servers={db-0.db:3306,db-1.db:3306,db-2.db:3306}",
    "auth.existingSecret=pointsman",
    "podDisruptionBudget.enabled=false",
];
const LIMIT: Duration = Duration::from_secs(60);
