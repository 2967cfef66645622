//! The servers of a file of promises, and the proxy in front of them.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use mysql_async::Conn;
use nix::sys::statvfs::statvfs;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::sandbox::{APP, Options, Sandbox, Server};
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

/// For tests that are not about outages: a busy machine must not look like one.
pub const NO_OUTAGE: &str = "[monitor]\ntimeout = \"3s\"\n";

/// A write is held until a server or etcd has been started again, on any machine.
pub const PATIENT: &str = "[routing]\nhold_timeout = \"50s\"\n";

/// Servers and proxy, each started when first asked for.
#[derive(Debug)]
pub struct Stage {
    plan: Plan,
    set: Mutex<Set>,
    /// How many tests have yet to run on it.
    tests: AtomicUsize,
    given_up: AtomicBool,
}

#[derive(Debug, Default)]
struct Set {
    proxy: Option<Arc<Proxy>>,
    sandbox: Option<Arc<Sandbox>>,
}

/// Free space where the servers write: on a full disk they wait for room without an error.
fn room_of(directory: &Path) -> String {
    match statvfs(directory) {
        Ok(disk) => {
            format!(
                "{} MiB free at {}\n",
                disk.blocks_available() * disk.fragment_size() / (1 << 20),
                directory.display()
            )
        }
        Err(error) => format!("free space at {} unknown: {error}\n", directory.display()),
    }
}

/// What a server's threads do, and the end of its log.
async fn threads_of(server: &Server) -> String {
    let rows = timeout(ASK_LIMIT, server.rows::<mysql_async::Row>("SHOW FULL PROCESSLIST")).await;
    let threads = match rows {
        Ok(Ok(rows)) => rows.into_iter().map(line).collect(),
        Ok(Err(error)) => format!("{error}\n"),
        Err(_) => "no answer\n".to_owned(),
    };
    let log = server.log();
    let lines: Vec<&str> = log.lines().collect();
    let last = lines[lines.len().saturating_sub(LOG_LINES)..].join("\n");
    format!("--- threads of {}\n{threads}--- its log ends with\n{last}\n", server.name())
}

fn line(row: mysql_async::Row) -> String {
    let cells: Vec<String> =
        row.unwrap_raw().into_iter().flatten().map(|value| value.as_sql(false)).collect();
    format!("{:.300}\n", cells.join(" "))
}

fn all_online(status: &serde_json::Value) -> bool {
    let servers = status["servers"].as_array();
    servers.is_some_and(|servers| servers.iter().all(|server| server["state"] == "online"))
}

const ONLINE_LIMIT: Duration = Duration::from_secs(30);
/// For a question to servers that may stand still.
const ASK_LIMIT: Duration = Duration::from_secs(5);
const LOG_LINES: usize = 5;

impl Stage {
    pub(crate) fn new(plan: Plan) -> Self {
        Self { plan, set: Mutex::default(), tests: AtomicUsize::new(0), given_up: AtomicBool::new(false) }
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

    /// Counts a test that will run on it.
    pub(crate) fn enter(&self) {
        self.tests.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a test that has run, and ends proxy and servers after the last: many at rest are slow together, and
    /// their files need space.
    pub(crate) async fn leave(&self) {
        if self.tests.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.end().await;
        }
    }

    /// Whether a test on these servers did not end.
    pub(crate) fn is_given_up(&self) -> bool {
        self.given_up.load(Ordering::Relaxed)
    }

    /// What the servers do while a test does not end; the test is ended.
    pub(crate) async fn give_up<T>(&self, test: JoinHandle<T>) -> String {
        self.given_up.store(true, Ordering::Relaxed);
        // A test that waits for its servers to start holds them.
        let set = timeout(ASK_LIMIT, self.set.lock()).await;
        let sandbox = set.ok().and_then(|set| set.sandbox.clone());
        let mut story = String::new();
        if let Some(sandbox) = &sandbox {
            story = room_of(sandbox.directory());
            for server in sandbox.servers() {
                story += &threads_of(server).await;
            }
        }
        test.abort();
        // It lets go of what it holds before others ask for it.
        let _ended = timeout(ASK_LIMIT, test).await;
        story
    }

    /// Ends proxy and servers.
    pub(crate) async fn end(&self) {
        *self.set.lock().await = Set::default();
    }
}
