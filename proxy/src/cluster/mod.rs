//! What is known of the servers: monitors ask, one task judges and publishes, and other tasks read what changes
//! slowly or interrupt statements. All of it runs on the control plane's own runtime.

mod catalogue;
mod clock;
pub mod connection;
mod defaults;
pub(crate) mod epoch;
pub mod facts;
pub mod flavour;
pub mod kill;
mod monitor;
pub mod positions;
pub(crate) mod subject;
mod task;

use std::sync::Arc;
use std::time::Instant;

use pointsman_config::Config;
use pointsman_router::discover::{Appointment, Discovery, Observation, Withdrawn};
use pointsman_router::roster::Roster;
use pointsman_router::topology::Topology;
use tokio::sync::{mpsc, oneshot, watch};

pub use self::clock::Clock;
pub use self::connection::{ConnectionError, Record, ServiceAccount, ServiceConnection};
pub use self::task::{Beat, Durability, Refusal, Request, View};

use self::monitor::{Monitors, Ways};
use self::task::Cluster;

/// Observations that may wait for the cluster task.
const MAX_WAITING_OBSERVATIONS: usize = 1024;
/// Requests that may wait for the cluster task.
const MAX_WAITING_REQUESTS: usize = 64;

/// The way to the cluster task.
#[derive(Clone, Debug)]
pub struct Handle {
    pub requests: mpsc::Sender<Request>,
    pub view: watch::Receiver<Arc<View>>,
    pub beat: Arc<Beat>,
    pub clock: Clock,
    /// Makes every monitor ask at once.
    pub hurry: Arc<watch::Sender<()>>,
}

impl Handle {
    /// Makes the topology follow the failover controller, in the order of the calls; what is given back ends once a
    /// topology that does is published.
    pub fn appoint(&self, appointment: Appointment) -> oneshot::Receiver<()> {
        let (answer, done) = oneshot::channel();
        if let Err(error) = self.requests.try_send(Request::Appoint { appointment, answer }) {
            // The queue is only full where somebody floods it, and only closed while the process ends.
            tracing::error!(%error, "the topology does not follow the failover controller");
        }
        done
    }

    /// Keeps these servers from clients, and no others.
    ///
    /// # Errors
    ///
    /// When the cluster task has too much to do, or has ended.
    pub fn withdraw(&self, servers: Withdrawn) -> Result<(), mpsc::error::TrySendError<Request>> {
        self.requests.try_send(Request::Withdraw(servers))
    }
}

/// Starts the monitors and the cluster task on the current runtime. They end when `topology` has no receiver and
/// every [`Handle`] is gone with the runtime. `onlooker` gets every observation as well.
pub fn start(
    config: &Config,
    account: &Arc<ServiceAccount>,
    topology: watch::Sender<Arc<Topology>>,
    started: Instant,
    onlooker: Option<mpsc::Sender<Observation>>,
) -> Handle {
    let clock = Clock::new(started);
    let discovery = Discovery::new(config);
    topology.send_replace(Arc::new(discovery.topology()));
    let (hurry, hurried) = watch::channel(());
    let (observer, observations) = mpsc::channel::<Observation>(MAX_WAITING_OBSERVATIONS);
    let ways = Ways {
        account: account.clone(),
        settings: config.monitor.clone(),
        observations: observer,
        clock,
        hurry: hurried,
    };
    let monitors = Monitors::start(ways, &Roster::new(&config.servers));
    let (requester, requests) = mpsc::channel(MAX_WAITING_REQUESTS);
    let (view_sender, view) = watch::channel(Arc::default());
    let beat = Arc::new(Beat::default());
    let cluster = Cluster {
        discovery,
        monitors,
        observations,
        requests,
        topology,
        view: view_sender,
        clock,
        beat: beat.clone(),
        onlooker,
        published: std::time::Duration::ZERO,
        interval: config.monitor.interval,
    };
    tokio::spawn(cluster.run());
    Handle { requests: requester, view, beat, clock, hurry: Arc::new(hurry) }
}
