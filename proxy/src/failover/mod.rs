//! Moves the primary's place: does what the controller in `router::failover` decides.
//!
//! The controller is fed from the cluster task's observations and answers with actions; this module runs them, on
//! servers ([`hand`]), in the coordinator ([`coordinator`]), and towards the sessions ([`service`]), and reports what
//! came of each.

mod clients;
pub mod coordinator;
mod engine;
mod fence;
mod hand;
mod heartbeat;
mod logged;
mod operations;
mod peers;
mod preflight;
mod repoint;
mod service;
mod stall;
mod steps;
mod timeline;
mod view;
mod words;

use std::sync::Arc;

use pointsman_config::{Config, CoordinationBackend, FailoverMode};
use pointsman_router::discover::{Appointment, Observation, Withdrawn};
use pointsman_router::failover::{Controller, ProxyId, Settings};
use pointsman_router::roster::Roster;
use tokio::sync::{mpsc, watch};

pub use self::hand::{Hands, Realm};
pub use self::operations::Operations;
pub use self::view::View;

use self::coordinator::{Coordinator, CoordinatorError, Etcd, Kubernetes, Local, Locks};
use self::engine::Engine;
use self::service::Sessions;
use self::timeline::Timeline;
use crate::cluster::{self, ServiceAccount};
use crate::shared::Shared;
use crate::vip;

/// The way to the failover engine.
#[derive(Clone, Debug)]
pub struct Handle {
    pub view: watch::Receiver<Arc<View>>,
    /// None where failover is off.
    pub operations: Option<Arc<Operations>>,
}

/// Events and observations that may wait for the engine.
const MAX_WAITING: usize = 1024;

/// Why nobody moves the primary's place, as far as the configuration says.
pub fn off_reason(config: &Config) -> Option<String> {
    (config.failover.mode == FailoverMode::Off).then(|| "failover.mode is off".into())
}

/// The queue through which the engine hears of what the monitors see.
pub fn observations() -> (mpsc::Sender<Observation>, mpsc::Receiver<Observation>) {
    mpsc::channel(MAX_WAITING)
}

/// A handle for a proxy that leaves the primary where it is.
pub fn off(reason: String) -> Handle {
    Handle { view: watch::channel(Arc::new(View::off(reason))).1, operations: None }
}

/// Starts the engine on the current runtime; writes are held until it has read the coordinator. Where the servers
/// do not allow a promotion, the primary is left where it is, and the view says why.
pub fn start(
    shared: &Arc<Shared>,
    account: &Arc<ServiceAccount>,
    cluster: cluster::Handle,
    mut observations: mpsc::Receiver<Observation>,
    vip: Option<vip::Handle>,
) -> Handle {
    let (operations, asked) = Operations::new(shared.roster.subscribe(), cluster.clock);
    let (sender, view) = watch::channel(Arc::new(View::off("the servers have not been looked at yet")));
    let (shared, account) = (shared.clone(), account.clone());
    let kept = operations.clone();
    tokio::spawn(async move {
        second_server(&shared, &sender).await;
        // What was seen before is of no use.
        while observations.try_recv().is_ok() {}
        let reason = "the coordinator has not been read yet".into();
        drop(cluster.appoint(Appointment::Nobody { epoch: 0, reason }));
        if let Some(reason) = preflight::obstacle(&shared.roster, &account).await {
            tracing::warn!(reason, "there will be no failover");
            sender.send_replace(Arc::new(View::off(reason)));
            drop(cluster.appoint(Appointment::Free));
            return;
        }
        let (shown, free) = (sender.clone(), cluster.clone());
        let inlets = Inlets { observations, asked, operations: kept, view: sender, vip };
        match assemble(&shared, &account, cluster, inlets).await {
            Ok(engine) => engine.run().await,
            Err(error) => {
                tracing::error!(%error, "there will be no failover");
                shown.send_replace(Arc::new(View::off(error.to_string())));
                drop(free.appoint(Appointment::Free));
            }
        }
    });
    Handle { view, operations: Some(operations) }
}

/// Waits until there is a server that could take the primary's place.
async fn second_server(shared: &Shared, view: &watch::Sender<Arc<View>>) {
    let mut roster = shared.roster.subscribe();
    let is_alone = |roster: &Arc<Roster>| roster.servers().count() < 2;
    if is_alone(&roster.borrow_and_update()) {
        view.send_replace(Arc::new(View::off("there is only one server")));
    }
    // An error means that the process ends.
    drop(roster.wait_for(|roster| !is_alone(roster)).await);
}

/// What comes into the engine from outside, and what it shows.
struct Inlets {
    observations: mpsc::Receiver<Observation>,
    asked: mpsc::Receiver<operations::Asked>,
    operations: Arc<Operations>,
    view: watch::Sender<Arc<View>>,
    vip: Option<vip::Handle>,
}

async fn assemble(
    shared: &Arc<Shared>,
    account: &Arc<ServiceAccount>,
    cluster: cluster::Handle,
    inlets: Inlets,
) -> Result<Engine, CoordinatorError> {
    let config = &shared.config;
    let proxy = ProxyId(format!("{}-{:08x}", std::process::id(), rand::random::<u32>()));
    let roster = shared.roster.subscribe();
    let (coordinator, locks) = coordinator(shared, account, &proxy.0).await?;
    let (back, events) = mpsc::channel(MAX_WAITING);
    let Inlets { observations, asked, operations, view, vip } = inlets;
    let realm = Arc::new(Realm::new(config, roster.clone(), account.clone(), cluster.clock).with_vip(vip));
    let voice = Arc::new(peers::Voice::new(coordinator.clone(), config.coordination.lease / 2));
    let settings = Settings::new(config, &roster.borrow(), proxy.clone());
    Ok(Engine {
        controller: Controller::new(settings),
        config: config.clone(),
        proxy,
        hands: Hands::start(&realm, &back),
        coordinator,
        entitlement: locks.as_ref().map(Locks::entitlement),
        locks,
        sessions: Sessions::new(shared.clone(), cluster.clone()),
        cluster,
        beats: heartbeat::Heart::start(&realm, &back),
        observations,
        events,
        back,
        asked,
        operations,
        timeline: Timeline::new(roster.clone()),
        roster,
        view,
        mode: match config.failover.mode {
            FailoverMode::Automatic => "automatic",
            FailoverMode::Manual => "manual",
            FailoverMode::Off => "off",
        },
        lease: config.coordination.lease,
        voice,
        heard: peers::Heard::default(),
        withdrawn: Withdrawn::default(),
        bystander: None,
    })
}

/// What the configuration says to agree through, and, where that knows of this proxy alone, whether it may act.
async fn coordinator(
    shared: &Shared,
    account: &Arc<ServiceAccount>,
    proxy: &str,
) -> Result<(Arc<dyn Coordinator>, Option<Locks>), CoordinatorError> {
    let (settings, cluster) = (&shared.config.coordination, &shared.config.cluster);
    Ok(match settings.backend {
        CoordinationBackend::Etcd => {
            let etcd = Etcd::new(&settings.endpoints, &settings.prefix, cluster, proxy, settings.lease)?;
            (Arc::new(etcd), None)
        }
        CoordinationBackend::Kubernetes => (Arc::new(Kubernetes::new(settings, cluster, proxy).await?), None),
        CoordinationBackend::Local => {
            let locks = Locks::start(account, &shared.roster.borrow().clone(), cluster);
            (Arc::new(Local::new(&settings.state_dir, cluster, proxy)), Some(locks))
        }
    })
}
