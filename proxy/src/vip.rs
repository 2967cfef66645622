//! The read pool behind a virtual address: the kernel's IPVS spreads connections over the replicas, and this keeps
//! its table in step with the topology. Clients of it never pass through the proxy.
//!
//! One thread of its own, [`director`], does all the calls to the kernel, so that no runtime is held up by them and
//! none can hold up the timer that gives the address away. Who serves is decided by `pointsman_router::vip`.

mod announce;
pub mod check;
mod director;
pub mod ipvs;
mod kernel;
pub mod lease;
pub mod link;
mod memory;
pub mod nat;
mod netlink;
mod nft;
mod resolve;
mod sysctl;
mod threshold;
mod view;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use pointsman_config::{Config, CoordinationBackend};
use pointsman_router::topology::{ServerId, Topology};
use pointsman_router::vip::{Policy, ServiceKey};
use tokio::sync::{mpsc, oneshot, watch};

pub use self::view::{State, View};

use self::director::Director;
use self::lease::{Ask, Host, Keeper, Refused};
use crate::failover::coordinator::{Coordinator, CoordinatorError, Etcd, Kubernetes};

/// What the director is started with.
#[derive(Clone, Debug)]
pub struct Settings {
    pub service: ServiceKey,
    /// The interface towards clients; none is found out.
    pub interface: Option<String>,
    /// The dummy link that holds the address.
    pub link: String,
    /// Of idle connections; zero leaves the kernel's.
    pub idle_timeout: Duration,
    pub policy: Policy,
    /// Where it is written down what is ours.
    pub state_dir: PathBuf,
}

impl Settings {
    /// None without `vip.address`.
    pub fn new(config: &Config) -> Option<Self> {
        let vip = &config.vip;
        Some(Self {
            service: ServiceKey { address: vip.address?, port: vip.port },
            interface: vip.interface.clone(),
            link: vip.link.clone(),
            idle_timeout: vip.idle_timeout,
            policy: Policy::new(config),
            state_dir: config.coordination.state_dir.clone(),
        })
    }
}

/// Whether the address is ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ownership {
    /// Somebody else's, or nobody's: the table is kept ready without the address.
    None,
    /// Ours until this moment unless it is said again; the address goes a margin before it.
    Until(Instant),
    /// There is no other director; the address stays when this process dies.
    Alone,
}

/// Addresses of servers by their place in the configuration.
pub type Addresses = BTreeMap<ServerId, SocketAddr>;

/// What the director is told.
#[derive(Debug)]
pub(crate) enum Command {
    Servers(Arc<Topology>, Addresses),
    Own(Ownership),
    /// The address goes to somebody else, in an orderly way; answers whether it is gone.
    GiveUp(oneshot::Sender<bool>),
    Evict(ServerId, oneshot::Sender<bool>),
    Readmit(ServerId),
    Leave(oneshot::Sender<()>),
}

/// The way to the director.
#[derive(Clone, Debug)]
pub struct Handle {
    commands: Sender<Command>,
    view: watch::Receiver<Arc<View>>,
    /// The way to whoever keeps the lease; none where there is no other director.
    asks: Option<mpsc::Sender<Ask>>,
}

impl Handle {
    /// Starts the director's thread. It changes nothing before it has heard of servers.
    ///
    /// # Errors
    ///
    /// When there can be no thread.
    pub fn start(settings: Settings, ownership: Ownership) -> std::io::Result<Self> {
        let (commands, inbox) = channel();
        let (publisher, view) = watch::channel(Arc::new(View::new(&settings)));
        let director = Director::new(settings, ownership, inbox, publisher);
        std::thread::Builder::new().name("vip".to_owned()).spawn(move || director.run())?;
        Ok(Self { commands, view, asks: None })
    }

    /// What was known at the last look.
    pub fn view(&self) -> Arc<View> {
        self.view.borrow().clone()
    }

    /// Tells what the servers are now.
    pub fn servers(&self, topology: Arc<Topology>, addresses: Addresses) {
        self.tell(Command::Servers(topology, addresses));
    }

    /// Tells whose the address is.
    pub fn own(&self, ownership: Ownership) {
        self.tell(Command::Own(ownership));
    }

    /// Takes the address away for somebody else, after the connections that are being made; answers whether it is gone.
    pub async fn give_up(&self) -> bool {
        let (done, gone) = oneshot::channel();
        self.tell(Command::GiveUp(done));
        // An error means that the director has ended, and has taken the address away.
        gone.await.unwrap_or(true)
    }

    /// Takes a server out with all connections to it, and waits until the kernel has done so; false when that cannot
    /// be said. To be called before a candidate for promotion becomes writable.
    pub async fn evict(&self, server: ServerId) -> bool {
        let (done, waiting) = oneshot::channel();
        self.tell(Command::Evict(server, done));
        waiting.await.unwrap_or(false)
    }

    /// Lets a server in again.
    pub fn readmit(&self, server: ServerId) {
        self.tell(Command::Readmit(server));
    }

    /// Gives the address to another proxy and says to which; none where there can be no other director.
    pub async fn give_away(&self) -> Option<Result<String, Refused>> {
        let (moved, answer) = oneshot::channel();
        self.asks.as_ref()?.send(Ask::Move(moved)).await.ok()?;
        answer.await.ok()
    }

    /// Gives the address away, then takes away everything that was made, and ends the thread.
    pub async fn leave(&self) {
        if let Some(asks) = &self.asks {
            let (done, waiting) = oneshot::channel();
            if asks.send(Ask::Leave(done)).await.is_ok() {
                drop(waiting.await);
            }
        }
        let (done, waiting) = oneshot::channel();
        self.tell(Command::Leave(done));
        // An error means that it has ended already.
        drop(waiting.await);
    }

    fn tell(&self, command: Command) {
        // After its end nothing needs to be told.
        drop(self.commands.send(command));
    }
}

impl Handle {
    fn keep_lease(mut self, coordinator: Arc<dyn Coordinator>, name: String, length: Duration) -> Self {
        let (asks, inbox) = mpsc::channel(MAX_ASKS);
        let host = DirectorHost { handle: self.clone() };
        tokio::spawn(Keeper::new(coordinator, name, length, host).run(inbox));
        self.asks = Some(asks);
        self
    }
}

/// The director, as whoever keeps the lease sees it.
struct DirectorHost {
    handle: Handle,
}

impl Host for DirectorHost {
    fn is_able(&self) -> bool {
        matches!(self.handle.view.borrow().state, State::Serving | State::Standby)
    }

    fn own(&self, ownership: Ownership) {
        self.handle.own(ownership);
    }

    async fn give_up(&mut self) -> bool {
        self.handle.give_up().await
    }
}

/// Another one for each life of each proxy; people recognise the host.
fn own_name() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    format!("{}-{}-{:08x}", host.trim(), std::process::id(), rand::random::<u32>())
}

/// Where the directors agree whose the address is; none where there is one director only.
async fn register(
    config: &Config,
    address: IpAddr,
    name: &str,
) -> Result<Option<Arc<dyn Coordinator>>, CoordinatorError> {
    let settings = &config.coordination;
    Ok(match settings.backend {
        CoordinationBackend::Local => None,
        CoordinationBackend::Etcd => {
            // One lease for each address of a cluster.
            let register = format!("{}/vip/{address}", config.cluster);
            let etcd = Etcd::new(&settings.endpoints, &settings.prefix, &register, name, settings.lease)?;
            Some(Arc::new(etcd))
        }
        // A fixed name, that a Role can be limited to: one address for each record.
        CoordinationBackend::Kubernetes => {
            Some(Arc::new(Kubernetes::of_address(settings, &config.cluster, name).await?))
        }
    })
}

const MAX_ASKS: usize = 16;

/// Starts the director with what feeds it, where there is a `vip.address`.
///
/// # Errors
///
/// When there can be no thread, or the coordinator is not where the configuration says.
pub async fn start(
    config: &Config,
    topology: watch::Receiver<Arc<Topology>>,
) -> std::io::Result<Option<Handle>> {
    let Some(settings) = Settings::new(config) else { return Ok(None) };
    let name = own_name();
    let address = settings.service.address;
    let handle = match register(config, address, &name).await.map_err(std::io::Error::other)? {
        None => Handle::start(settings, Ownership::Alone)?,
        // Others may have the same address: the lease says whose it is.
        Some(coordinator) => {
            let handle = Handle::start(settings, Ownership::None)?;
            handle.keep_lease(coordinator, name, config.coordination.lease)
        }
    };
    tokio::spawn(resolve::feed(handle.clone(), topology));
    Ok(Some(handle))
}
