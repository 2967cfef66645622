//! The one task that judges what the monitors see and publishes the topology.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use pointsman_config::Config;
use pointsman_router::discover::{Appointment, Discovery, Observation, SemiSync, Withdrawn};
use pointsman_router::roster::Roster;
use pointsman_router::topology::{Role, ServerId, State, Topology};
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{debug, info, warn};

use super::clock::Clock;
use super::monitor::Monitors;

/// What an operator asks of the cluster task.
#[derive(Debug)]
pub enum Request {
    /// Take a server out of the read pool, or let it back in.
    SetDraining { server: ServerId, draining: bool, answer: oneshot::Sender<Result<(), Refusal>> },
    /// Take up what of this configuration needs no restart, and its servers.
    Reconfigure { config: Arc<Config>, roster: Arc<Roster> },
    /// Keep these servers from clients, and no others.
    Withdraw(Withdrawn),
    /// Follow the failover controller; answered once the topology that says so is published.
    Appoint { appointment: Appointment, answer: oneshot::Sender<()> },
}

/// Why a request was refused; nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("{server} is the primary; move the primary first, then drain the server")]
    IsPrimary { server: String },
    #[error("there is no such server; known are {known}")]
    UnknownServer { known: String },
}

/// What the admin side knows beyond the topology; both come from the same moment.
#[derive(Clone, Debug, Default)]
pub struct View {
    pub topology: Arc<Topology>,
    pub durability: Durability,
}

/// What an acknowledged transaction survives at this moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// At least two replicas acknowledge every transaction before the client hears of it, however long it takes.
    Lossless,
    #[default]
    Async,
}

impl Durability {
    /// The name in status.
    pub fn name(self) -> &'static str {
        match self {
            Self::Lossless => "lossless",
            Self::Async => "async",
        }
    }

    fn of(semi_sync: &SemiSync) -> Self {
        let lossless = semi_sync.waits_for_ever() && semi_sync.ackers >= LOSSLESS_ACKERS;
        if lossless { Self::Lossless } else { Self::Async }
    }
}

/// With one, the promotion's own proof would wait for ever.
const LOSSLESS_ACKERS: u32 = 2;

/// The cluster task's state and ends of channels.
pub(super) struct Cluster {
    pub(super) discovery: Discovery,
    pub(super) monitors: Monitors,
    pub(super) observations: mpsc::Receiver<Observation>,
    pub(super) requests: mpsc::Receiver<Request>,
    pub(super) topology: watch::Sender<Arc<Topology>>,
    pub(super) view: watch::Sender<Arc<View>>,
    pub(super) clock: Clock,
    pub(super) beat: Arc<Beat>,
    /// Where every observation goes as well: the failover controller, if there is one.
    pub(super) onlooker: Option<mpsc::Sender<Observation>>,
    /// When the topology was published last.
    pub(super) published: Duration,
    /// How often it is published while nothing changes but the time of the last probe.
    pub(super) interval: Duration,
}

/// When the cluster task last looked at the servers.
#[derive(Debug, Default)]
pub struct Beat(AtomicU64);

impl Beat {
    fn at(&self, now: Duration) {
        self.0.store(u64::try_from(now.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// On the process's clock.
    pub fn last(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::Relaxed))
    }
}

impl Cluster {
    /// Runs until the monitors and the admin side are gone.
    pub(super) async fn run(mut self) {
        loop {
            tokio::select! {
                observation = self.observations.recv() => {
                    let Some(observation) = observation else { return };
                    self.observe(observation);
                    // What has come in the meantime is published together.
                    while let Ok(observation) = self.observations.try_recv() {
                        self.observe(observation);
                    }
                    self.beat.at(self.clock.now());
                }
                Some(request) = self.requests.recv() => {
                    if let Some(published) = self.serve(request) {
                        self.publish();
                        // Who has gone away need not know.
                        let _gone = published.send(());
                    }
                }
            }
            self.publish();
        }
    }

    fn observe(&mut self, observation: Observation) {
        if let Some(onlooker) = &self.onlooker {
            // One that is so late that its queue is full learns it from the next round.
            drop(onlooker.try_send(observation.clone()));
        }
        self.discovery.observe(observation);
    }

    /// Does what is asked; gives back who waits for the topology to be published.
    fn serve(&mut self, request: Request) -> Option<oneshot::Sender<()>> {
        match request {
            Request::Appoint { appointment, answer } => {
                self.discovery.appoint(appointment, self.clock.now());
                return Some(answer);
            }
            Request::SetDraining { server, draining, answer } => {
                let outcome = self.set_draining(server, draining);
                // The asker may have gone away; the work is done all the same.
                drop(answer.send(outcome));
            }
            Request::Withdraw(servers) => self.discovery.withdraw(&servers, self.clock.now()),
            Request::Reconfigure { config, roster } => {
                self.monitors.follow(&roster);
                self.discovery.reconfigure(&config, &roster, self.clock.now());
            }
        }
        None
    }

    fn set_draining(&mut self, server: ServerId, draining: bool) -> Result<(), Refusal> {
        let topology = self.discovery.topology();
        let Some(view) = topology.server(server) else {
            let known: Vec<_> = topology.members().map(|server| server.name.as_str()).collect();
            return Err(Refusal::UnknownServer { known: known.join(", ") });
        };
        if draining && topology.primary == Some(server) {
            return Err(Refusal::IsPrimary { server: view.name.clone() });
        }
        self.discovery.set_draining(server, draining, self.clock.now());
        Ok(())
    }

    fn publish(&mut self) {
        let new = self.discovery.topology();
        let old = self.topology.borrow().clone();
        let semi_sync = new.primary.and_then(|id| self.discovery.report(id)).map(|report| report.semi_sync);
        let durability = semi_sync.map(|semi_sync| Durability::of(&semi_sync)).unwrap_or_default();
        let now = self.clock.now();
        let is_due = now.saturating_sub(self.published) >= self.interval;
        if !is_due && is_same(&old, &new) && self.view.borrow().durability == durability {
            return;
        }
        self.published = now;
        log_changes(&old, &new);
        let topology = Arc::new(new);
        self.view.send_replace(Arc::new(View { topology: topology.clone(), durability }));
        self.topology.send_replace(topology);
    }
}

/// Whether two pictures differ in nothing but the times of probes.
fn is_same(old: &Topology, new: &Topology) -> bool {
    let timeless = |topology: &Topology| {
        let mut topology = topology.clone();
        for server in &mut topology.servers {
            server.position_at = Duration::ZERO;
        }
        topology
    };
    timeless(old) == timeless(new)
}

fn log_changes(old: &Topology, new: &Topology) {
    for server in &new.servers {
        let before = old.server(server.id).map_or((Role::Unknown, State::Unknown), |s| (s.role, s.state));
        if before == (server.role, server.state) {
            continue;
        }
        let (role, state) = (server.role.name(), server.state.name());
        metrics::counter!("pointsman_server_state_changes_total", "server" => server.name.clone(), "to" => state)
            .increment(1);
        match server.state {
            State::Unknown => {
                debug!(server = server.name, role, state, reason = server.reason, "server changed")
            }
            State::Online | State::Draining | State::Gone => {
                info!(server = server.name, role, state, "server changed")
            }
            State::Lagging | State::Excluded | State::Down => {
                warn!(server = server.name, role, state, reason = server.reason, "server changed");
            }
        }
    }
    if old.epoch != new.epoch {
        let name = new.primary().map_or("none", |primary| primary.name.as_str());
        info!(primary = name, epoch = new.epoch, "primary changed");
    } else if old.primary.is_some() && new.primary.is_none() {
        warn!(reason = new.no_primary_reason, "no primary: writes are held, then refused; reads go on");
    } else if old.primary.is_none() && new.primary.is_some() && new.epoch > 0 {
        info!(epoch = new.epoch, "the primary is back");
    }
}
