//! The servers, the proxy in front of them, and the clients, for all runs.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use pointsman_integration_tests::sandbox::{APP, Options, Sandbox, Server};
use pointsman_integration_tests::{Failure, Flavour, Load, Proxy, Traffic, eventually};
use tokio::time::{Instant, sleep};

pub(crate) struct Stage {
    pub(crate) traffic: Traffic,
    pub(crate) proxy: Proxy,
    /// After those who use it, so that it ends last.
    pub(crate) sandbox: Sandbox,
}

impl Stage {
    pub(crate) async fn start(flavour: Flavour, replicas: usize, load: Load) -> Result<Self, Failure> {
        let options = Options { flavour, replicas, lossless: true, ..Options::default() };
        let sandbox = Sandbox::start(&options).await?;
        let proxy = Proxy::start(&sandbox, CONFIGURATION).await?;
        proxy.settled(&sandbox, SETTLE_LIMIT).await;
        let traffic = Traffic::start(proxy.options(APP, "app"), load).await?;
        Ok(Self { traffic, proxy, sandbox })
    }

    /// Waits until nothing of the last run is left to do, and clients write again.
    pub(crate) async fn ready(&self) -> Result<Arc<Server>, Failure> {
        // On a machine that is short of processor time replicas would not get in order beside the clients.
        let at_rest = self.traffic.pause().await;
        self.proxy.settled(&self.sandbox, SETTLE_LIMIT).await;
        self.caught_up().await?;
        drop(at_rest);
        self.goes_on(ENOUGH_WRITES).await;
        self.proxy.primary(&self.sandbox).await
    }

    /// What replicas have not applied since the last run would be measured in the next one.
    async fn caught_up(&self) -> Result<(), Failure> {
        let primary = self.proxy.primary(&self.sandbox).await?;
        let position = primary.position().await?;
        for server in self.sandbox.servers().iter().filter(|server| server.name() != primary.name()) {
            server.reach(&position, SETTLE_LIMIT).await?;
        }
        Ok(())
    }

    /// Waits for so many more acknowledged writes.
    pub(crate) async fn goes_on(&self, writes: u64) {
        let enough = self.traffic.tally().writes + writes;
        eventually("writes go on", SETTLE_LIMIT, async || self.traffic.tally().writes >= enough).await;
    }

    /// Waits until another server is the primary.
    pub(crate) async fn replaced(&self, old: &Server) -> Result<Arc<Server>, Failure> {
        let deadline = Instant::now() + SETTLE_LIMIT;
        while self.proxy.primary(&self.sandbox).await.map_or(true, |server| server.name() == old.name()) {
            if Instant::now() > deadline {
                let (status, story) = (self.proxy.status().await?, self.proxy.story());
                return Err(format!("nobody takes the place of {}: {status}\n{story}", old.name()).into());
            }
            sleep(POLL).await;
        }
        self.goes_on(ENOUGH_WRITES).await;
        self.proxy.primary(&self.sandbox).await
    }

    pub(crate) async fn version(&self) -> Result<String, Failure> {
        let rows: Vec<String> = self.sandbox.primary().rows("SELECT @@version").await?;
        Ok(rows.into_iter().next().unwrap_or_default())
    }

    /// All rows that were ever acknowledged, and how many of them are missing on the primary that there is at the end.
    pub(crate) async fn total(&self) -> Result<(usize, usize), Failure> {
        let acknowledged = self.traffic.acknowledged();
        let primary = self.proxy.primary(&self.sandbox).await?;
        let rows: Vec<u64> = primary.rows("SELECT id FROM app.traffic_log").await?;
        let rows: BTreeSet<u64> = rows.into_iter().collect();
        Ok((acknowledged.len(), acknowledged.iter().filter(|id| !rows.contains(id)).count()))
    }
}

/// A failover each few seconds is what is wanted here.
const CONFIGURATION: &str = "[failover]\nmin_interval = \"0s\"\nmax_per_hour = 0\n";
/// A MySQL server that was made anew replicates everything once more.
const SETTLE_LIMIT: Duration = Duration::from_secs(180);
const POLL: Duration = Duration::from_millis(10);
const ENOUGH_WRITES: u64 = 100;
