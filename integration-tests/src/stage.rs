//! The servers of a file of promises, and the proxy in front of them.

use std::sync::Arc;
use std::time::Duration;

use mysql_async::Conn;
use tokio::sync::Mutex;

use crate::sandbox::{APP, Options, Sandbox};
use crate::{Failure, Flavour, Proxy, eventually};

/// What a stage consists of.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    pub sandbox: Options,
    /// Tables for the proxy's configuration beyond servers, listeners and the service account.
    pub configuration: String,
}

impl Plan {
    /// A primary with two replicas and a proxy with default settings.
    pub fn new(flavour: Flavour) -> Self {
        Self { sandbox: Options { flavour, replicas: 2, ..Options::default() }, configuration: String::new() }
    }
}

/// Servers and proxy, each started when first asked for.
#[derive(Debug)]
pub struct Stage {
    plan: Plan,
    set: Mutex<Set>,
}

#[derive(Debug, Default)]
struct Set {
    proxy: Option<Arc<Proxy>>,
    sandbox: Option<Arc<Sandbox>>,
}

fn all_online(status: &serde_json::Value) -> bool {
    let servers = status["servers"].as_array();
    servers.is_some_and(|servers| servers.iter().all(|server| server["state"] == "online"))
}

const ONLINE_LIMIT: Duration = Duration::from_secs(30);

impl Stage {
    pub(crate) fn new(plan: Plan) -> Self {
        Self { plan, set: Mutex::default() }
    }

    pub fn flavour(&self) -> Flavour {
        self.plan.sandbox.flavour
    }

    /// The servers.
    ///
    /// # Errors
    ///
    /// When they do not start.
    pub async fn sandbox(&self) -> Result<Arc<Sandbox>, Failure> {
        self.sandbox_of(&mut *self.set.lock().await).await
    }

    /// The proxy in front of the servers, ready for clients.
    ///
    /// # Errors
    ///
    /// When servers or proxy do not start.
    pub async fn proxy(&self) -> Result<Arc<Proxy>, Failure> {
        let mut set = self.set.lock().await;
        let sandbox = self.sandbox_of(&mut set).await?;
        if let Some(proxy) = &set.proxy {
            return Ok(proxy.clone());
        }
        let proxy = Arc::new(Proxy::start(&sandbox, &self.plan.configuration).await?);
        // Clients are let in a little before the replicas have answered for long enough to serve reads.
        eventually("every server is online", ONLINE_LIMIT, async || {
            proxy.status().await.is_ok_and(|status| all_online(&status))
        })
        .await;
        Ok(set.proxy.insert(proxy).clone())
    }

    /// A connection of the application's account through the proxy, in the schema `app`.
    ///
    /// # Errors
    ///
    /// When it is refused.
    pub async fn client(&self) -> Result<Conn, Failure> {
        self.proxy().await?.connect(APP, "app").await
    }

    async fn sandbox_of(&self, set: &mut Set) -> Result<Arc<Sandbox>, Failure> {
        if let Some(sandbox) = &set.sandbox {
            return Ok(sandbox.clone());
        }
        let sandbox = Arc::new(Sandbox::start(&self.plan.sandbox).await?);
        Ok(set.sandbox.insert(sandbox).clone())
    }

    /// What the proxy has to say about a failure.
    pub(crate) async fn story(&self) -> String {
        let set = self.set.lock().await;
        set.proxy.as_ref().map(|proxy| proxy.story()).unwrap_or_default()
    }

    /// Ends proxy and servers.
    pub(crate) async fn end(&self) {
        *self.set.lock().await = Set::default();
    }
}
