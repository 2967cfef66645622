//! The running proxy: what is started, in which order, and what it is given.
//!
//! Two kinds of threads: workers, which serve clients, and the control plane's runtime, which watches servers. The
//! state of servers never stops the start.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use pointsman_config::Config;
use tokio::sync::{mpsc, watch};

use crate::cluster::facts::Facts;
use crate::cluster::kill::Killer;
use crate::cluster::{self, Handle, ServiceAccount, positions};
use crate::failover;
use crate::shared::{Parts, Refresh, Shared};
use crate::tls::{self, ClientTls, ServerTls, TlsError};
use crate::users::Users;
use crate::users::reader::Reader;
use crate::vip;
use crate::worker::Workers;

/// What runs once everything is started.
#[derive(Debug)]
pub struct Running {
    pub shared: Arc<Shared>,
    pub workers: Arc<Workers>,
    pub cluster: Handle,
    /// None without `vip.address`.
    pub vip: Option<vip::Handle>,
    pub failover: failover::Handle,
}

/// Why nothing was started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("cannot start worker threads: {0}")]
    Workers(#[source] io::Error),
    #[error("the virtual address: {0}")]
    Vip(#[source] io::Error),
}

/// Starts workers and control plane; the latter on the runtime that this is called on.
///
/// # Errors
///
/// [`StartError`]; nothing is left running then.
pub async fn start(config: Arc<Config>) -> Result<Running, StartError> {
    let account = Arc::new(ServiceAccount::new(&config));
    let (topology_sender, topology) = watch::channel(Arc::default());
    let (catalogue_sender, catalogue) = watch::channel(Arc::default());
    let (refresh, refreshes) = mpsc::channel(MAX_WAITING);
    let (kills, kill_requests) = mpsc::channel(MAX_WAITING);
    let (positions, questions) = mpsc::channel(MAX_WAITING_QUESTIONS);
    let users = Users::new(&config);
    let parts = Parts {
        users: users.clone(),
        server_tls: ServerTls::new(&config.tls)?,
        client_tls: ClientTls::new(&config.backend_tls)?,
        topology: topology.clone(),
        catalogue,
        refresh,
        kills,
        positions,
        config: config.clone(),
    };
    let count = worker_count(&config);
    let shared = Shared::new(parts, count);
    let workers = Workers::start(&shared, count).map_err(StartError::Workers)?;
    // One clock for both sides: what a position covers is decided by comparing times.
    let (onlooker, observations) = failover::observations();
    let off_reason = failover::off_reason(&config);
    let onlooker = Some(onlooker).filter(|_| off_reason.is_none());
    let cluster = cluster::start(&config, &account, topology_sender, shared.started, onlooker);
    let vip = vip::start(&config, topology.clone()).await.map_err(StartError::Vip)?;
    let failover = match off_reason {
        Some(reason) => failover::off(reason),
        None => failover::start(&shared, &account, cluster.clone(), observations, vip.clone()),
    };
    let (stale_sender, stale) = mpsc::channel(1);
    tokio::spawn(pass_on(refreshes, users.clone(), stale_sender));
    let facts =
        Facts { shared: shared.clone(), account: account.clone(), catalogue: catalogue_sender, stale };
    tokio::spawn(facts.run());
    tokio::spawn(tls::watch(shared.clone()));
    tokio::spawn(Arc::new(Killer::new(account.clone())).run(kill_requests));
    tokio::spawn(positions::run(questions, topology.clone(), account.clone()));
    tokio::spawn(Reader { users, account, topology, period: config.users.refresh }.run());
    Ok(Running { shared, workers: Arc::new(workers), cluster, vip, failover })
}

/// Hands each notice of a statement that changed something to whoever reads that anew.
async fn pass_on(mut refreshes: mpsc::Receiver<Refresh>, users: Arc<Users>, stale: mpsc::Sender<()>) {
    while let Some(refresh) = refreshes.recv().await {
        match refresh {
            Refresh::Accounts => users.notice(),
            Refresh::Catalogue => {
                // A full queue means that it is about to be read.
                let _full = stale.try_send(());
            }
        }
    }
}

/// `runtime.workers`, or one for each CPU that this process may use.
fn worker_count(config: &Config) -> usize {
    match config.runtime.workers {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        count => count as usize,
    }
}

/// Waits until clients can be let in: the first monitor round is over and the accounts are read, or too much time has
/// passed.
pub async fn ready(running: &Running) {
    let mut topology = running.shared.topology.clone();
    let looked_at = async {
        // An error means that the cluster task has ended; then nothing will ever be ready.
        drop(topology.wait_for(|topology| topology.ready).await);
        running.shared.users.ready().await;
    };
    // The state of servers never keeps the listeners closed for good: clients are told what is missing.
    drop(tokio::time::timeout(READY_WITHIN, looked_at).await);
}

const MAX_WAITING: usize = 64;
const MAX_WAITING_QUESTIONS: usize = 1024;
const READY_WITHIN: Duration = Duration::from_secs(4);
