//! The task that reads what changes slowly: the catalogue and the session defaults.

use std::sync::Arc;
use std::time::Duration;

use pointsman_router::classify::Catalogue;
use pointsman_router::topology::{ServerId, ServerView, State, Topology};
use tokio::sync::{mpsc, watch};
use tokio::time::{MissedTickBehavior, interval, sleep};
use tracing::{debug, warn};

use super::connection::{ConnectionError, ServiceAccount};
use super::flavour;
use super::{catalogue, defaults};
use crate::shared::Shared;

/// How often everything is read again though nobody asked.
const PERIOD: Duration = Duration::from_secs(30);
/// How long one server may take for it.
const LIMIT: Duration = Duration::from_secs(10);
/// How soon after it failed.
const AGAIN: Duration = Duration::from_millis(500);
/// Requests that come this soon after each other are answered by one reading.
const GATHER: Duration = Duration::from_millis(20);

/// What the task is given.
pub struct Facts {
    pub shared: Arc<Shared>,
    pub account: Arc<ServiceAccount>,
    pub catalogue: watch::Sender<Arc<Catalogue>>,
    /// Somebody knows that the catalogue has changed.
    pub stale: mpsc::Receiver<()>,
}

impl Facts {
    /// Reads at the start, on request, when servers come and go, and from time to time.
    pub async fn run(mut self) {
        let mut topology = self.shared.topology.clone();
        let mut timer = interval(PERIOD);
        timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut last = Vec::new();
        let mut failed = false;
        loop {
            tokio::select! {
                _ = timer.tick() => {}
                () = sleep(AGAIN), if failed => {}
                stale = self.stale.recv() => {
                    if stale.is_none() {
                        return;
                    }
                    sleep(GATHER).await;
                    while self.stale.try_recv().is_ok() {}
                }
                changed = topology.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let usable = usable(&topology.borrow_and_update());
                    if usable == last {
                        continue;
                    }
                    last = usable;
                }
            }
            let current = topology.borrow().clone();
            let read = self.read(&current).await;
            failed = read.is_err();
            if let Err(error) = read {
                debug!(%error, "could not read catalogue and session defaults");
            }
        }
    }

    async fn read(&self, topology: &Topology) -> Result<(), ConnectionError> {
        // While there is no primary, a replica knows the same catalogue.
        let Some(source) = topology.primary().or_else(|| topology.readable_replicas().next()) else {
            return Ok(());
        };
        let words = flavour::named(topology.flavour);
        let mut connection = self.account.connect(&source.address, LIMIT).await?;
        self.publish(catalogue::read(&mut connection, LIMIT).await?);
        let of_source = defaults::read(&mut connection, words, LIMIT).await?;
        let mut others = Vec::new();
        for replica in topology.readable_replicas().filter(|replica| replica.id != source.id) {
            match self.values_of(replica, words).await {
                Ok(values) => others.push(values),
                // It leaves the pool by the monitor's judgement, not by this one.
                Err(error) => debug!(server = replica.name, %error, "could not read session defaults"),
            }
        }
        let compared = defaults::compare(&of_source, &others);
        if compared.variables != self.shared.defaults.get().variables {
            let names: Vec<_> = compared.variables.iter().map(|(name, _)| name.as_str()).collect();
            warn!(variables = names.join(", "), "replicas differ from the primary in session defaults");
        }
        self.shared.set_defaults(compared);
        Ok(())
    }

    async fn values_of(
        &self,
        server: &ServerView,
        words: &dyn flavour::Flavour,
    ) -> Result<defaults::Values, ConnectionError> {
        let mut connection = self.account.connect(&server.address, LIMIT).await?;
        defaults::read(&mut connection, words, LIMIT).await
    }

    /// Equal content keeps its version, by which statements are cached.
    fn publish(&self, new: Catalogue) {
        self.catalogue.send_if_modified(|current| {
            if current.functions == new.functions && current.views == new.views {
                return false;
            }
            *current = Arc::new(Catalogue { version: current.version + 1, ..new });
            true
        });
    }
}

/// The servers whose coming and going changes what is to be read.
fn usable(topology: &Topology) -> Vec<(ServerId, bool)> {
    topology
        .servers
        .iter()
        .filter(|server| server.state == State::Online)
        .map(|server| (server.id, topology.primary == Some(server.id)))
        .collect()
}
