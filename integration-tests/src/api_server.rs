//! A real API server of Kubernetes on a real etcd, without anything behind it: no controller, no kubelet.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::PostParams;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use pointsman::failover::coordinator::Kubernetes;
use pointsman_config::Coordination;
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::sync::Mutex;

use crate::contract::LEASE;
use crate::sandbox::Port;
use crate::{Etcd, Failure, Outcome, eventually};

/// The server; gone with this value.
#[derive(Debug)]
pub struct ApiServer {
    etcd: Etcd,
    port: Port,
    process: Mutex<Option<Child>>,
    directory: TempDir,
}

/// A release of the chart, and who its proxies are.
#[derive(Debug)]
pub struct Installed {
    pub namespace: String,
    /// The name of the Lease with the record.
    pub record: String,
    /// With the token of the chart's service account.
    pub kubeconfig: PathBuf,
}

impl ApiServer {
    /// Starts etcd and the API server, and waits until it is ready.
    ///
    /// # Errors
    ///
    /// When etcd is missing, or `POINTSMAN_API_SERVER` does not name an API server.
    pub async fn start() -> Result<Arc<Self>, Failure> {
        let etcd = Etcd::start(1).await?;
        let server =
            Self { etcd, port: Port::reserve()?, process: Mutex::default(), directory: TempDir::new()? };
        server.write_identity()?;
        server.run().await?;
        let client = client(&server.admin()).await?;
        eventually("the API server is ready", START_LIMIT, async || answers(&client, "/readyz").await).await;
        Ok(Arc::new(server))
    }

    /// Certificate, key of the tokens, and who the administrator is.
    fn write_identity(&self) -> Outcome {
        let certified = rcgen::generate_simple_self_signed(["localhost".to_owned(), "127.0.0.1".to_owned()])?;
        let tokens = rcgen::KeyPair::generate()?;
        fs::write(self.file("server.crt"), certified.cert.pem())?;
        fs::write(self.file("server.key"), certified.signing_key.serialize_pem())?;
        fs::write(self.file("tokens.key"), tokens.serialize_pem())?;
        fs::write(self.file("tokens.pub"), tokens.public_key_pem())?;
        fs::write(self.file("tokens.csv"), format!("{ADMIN_TOKEN},admin,1,system:masters\n"))?;
        self.write_kubeconfig(&self.admin(), ADMIN_TOKEN, "default")
    }

    fn write_kubeconfig(&self, path: &Path, token: &str, namespace: &str) -> Outcome {
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: tests\ncontexts:\n- name: tests\n  context: \
             {{cluster: tests, user: tests, namespace: {namespace}}}\nclusters:\n- name: tests\n  cluster: {{server: \
             'https://127.0.0.1:{}', certificate-authority: '{}'}}\nusers:\n- name: tests\n  user: {{token: '{token}'}}\n",
            self.port.number(),
            self.file("server.crt").display()
        );
        Ok(fs::write(path, text)?)
    }

    /// Starts it, again with what it had.
    ///
    /// # Errors
    ///
    /// When `POINTSMAN_API_SERVER` does not name an API server.
    pub async fn run(&self) -> Outcome {
        let program = std::env::var_os("POINTSMAN_API_SERVER");
        let program = program.ok_or("POINTSMAN_API_SERVER is not set: run scripts/test api-server")?;
        let mut process = self.process.lock().await;
        let file = |name: &str| self.file(name).display().to_string();
        let options = [
            ("etcd-servers", self.etcd.endpoints().join(",")),
            ("bind-address", "127.0.0.1".into()),
            ("secure-port", self.port.number().to_string()),
            ("tls-cert-file", file("server.crt")),
            ("tls-private-key-file", file("server.key")),
            ("cert-dir", file("certificates")),
            ("token-auth-file", file("tokens.csv")),
            ("authorization-mode", "RBAC".into()),
            ("service-account-issuer", "https://kubernetes.default.svc".into()),
            ("service-account-signing-key-file", file("tokens.key")),
            ("service-account-key-file", file("tokens.pub")),
            ("service-cluster-ip-range", "10.96.0.0/16".into()),
            // Nobody makes service accounts or the addresses of endpoints here.
            ("disable-admission-plugins", "ServiceAccount".into()),
            ("endpoint-reconciler-type", "none".into()),
        ];
        let running = Command::new(&program)
            .args(options.map(|(option, value)| format!("--{option}={value}")))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(self.file("log"))?)
            .kill_on_drop(true)
            .spawn();
        let running = running.map_err(|error| format!("{}: {error}", program.display()))?;
        *process = Some(running);
        Ok(())
    }

    /// Kills it as a crash would.
    ///
    /// # Errors
    ///
    /// When it does not run.
    pub async fn kill(&self) -> Outcome {
        let process = self.process.lock().await.take();
        Ok(process.ok_or("the API server does not run")?.kill().await?)
    }

    /// The port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// The certificate that signs the server's own.
    pub fn authority(&self) -> PathBuf {
        self.file("server.crt")
    }

    /// The kubeconfig of somebody who may do everything.
    pub fn admin(&self) -> PathBuf {
        self.file("admin.kubeconfig")
    }

    /// A client that may do everything.
    ///
    /// # Errors
    ///
    /// When there can be none.
    pub async fn client(&self) -> Result<Client, Failure> {
        client(&self.admin()).await
    }

    /// The rights of a service account in a kubeconfig, by a token that the API server has signed.
    ///
    /// # Errors
    ///
    /// When there is no such account.
    pub async fn kubeconfig_of(&self, namespace: &str, account: &str) -> Result<PathBuf, Failure> {
        let path = self.file(&format!("{namespace}-{account}.kubeconfig"));
        self.write_kubeconfig(&path, &self.token_of(namespace, account).await?, namespace)?;
        Ok(path)
    }

    /// See [`Self::kubeconfig_of`].
    ///
    /// # Errors
    ///
    /// When there is no such account.
    pub async fn token_of(&self, namespace: &str, account: &str) -> Result<String, Failure> {
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client().await?, namespace);
        let request = TokenRequest { spec: TokenRequestSpec::default(), ..TokenRequest::default() };
        let made = accounts.create_token_request(account, &PostParams::default(), &request).await?;
        Ok(made.status.ok_or("no token")?.token)
    }

    /// A kubeconfig with that token.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn kubeconfig_with(&self, token: &str) -> Result<PathBuf, Failure> {
        let path = self.file(&format!("{token}.kubeconfig"));
        self.write_kubeconfig(&path, token, "default")?;
        Ok(path)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The last words of the server.
    pub fn story(&self) -> String {
        let log = fs::read_to_string(self.file("log")).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(TOLD_LINES)..].join("\n")
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // Beside the report of the failed test.
            drop(std::io::Write::write_all(&mut std::io::stderr(), self.story().as_bytes()));
        }
    }
}

impl Installed {
    /// The `[coordination]` of a proxy that has these rights.
    pub fn coordination(&self) -> Coordination {
        Coordination {
            lease: LEASE,
            namespace: Some(self.namespace.clone()),
            name: Some(self.record.clone()),
            kubeconfig_file: Some(self.kubeconfig.clone()),
            ..Coordination::default()
        }
    }

    /// The view of the register that a proxy of that name has.
    ///
    /// # Errors
    ///
    /// When the kubeconfig is none.
    pub async fn join(&self, proxy: &str) -> Result<Arc<Kubernetes>, Failure> {
        Ok(Arc::new(Kubernetes::new(&self.coordination(), "shop", proxy).await?))
    }
}

/// A client with the rights of a kubeconfig.
///
/// # Errors
///
/// When it is none.
pub async fn client(kubeconfig: &Path) -> Result<Client, Failure> {
    let file = Kubeconfig::read_from(kubeconfig)?;
    let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?;
    Ok(Client::try_from(config)?)
}

async fn answers(client: &Client, path: &str) -> bool {
    let Ok(request) = hyper::Request::get(path).body(Vec::new()) else { return false };
    client.request_text(request).await.is_ok_and(|text| text == "ok")
}

const ADMIN_TOKEN: &str = "the-administrator";
const START_LIMIT: Duration = Duration::from_secs(120);
const TOLD_LINES: usize = 20;
