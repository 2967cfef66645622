//! What the controller takes from the configuration.

use std::time::Duration;

use pointsman_config::{Config, DataLoss, Durability, FailoverMode, Promotion};

use super::record::ProxyId;
use crate::roster::{Member, Roster};

/// See the module.
#[derive(Clone, Debug)]
pub struct Settings {
    /// This proxy.
    pub proxy: ProxyId,
    /// Indexed by [`crate::topology::ServerId`].
    pub servers: Vec<ServerSettings>,
    pub mode: FailoverMode,
    pub durability: Durability,
    pub data_loss: DataLoss,
    pub min_interval: Duration,
    /// Zero is no limit.
    pub max_per_hour: u32,
    pub async_silence: Duration,
    /// How long writes must hang for the server's own reasons before it is replaced.
    pub stalled_for: Duration,
    /// How long open transactions may take to end in a switchover.
    pub transaction_timeout: Duration,
    pub switchover_timeout: Duration,
    pub lease: Duration,
    /// Misses in a row that make silence.
    pub failures: u32,
    /// A mistake to make on purpose.
    #[cfg(any(test, feature = "defects"))]
    pub defect: Option<super::Defect>,
}

/// One server.
#[derive(Clone, Debug)]
pub struct ServerSettings {
    pub name: String,
    /// `host:port`.
    pub address: String,
    pub region: String,
    pub zone: String,
    pub promotion: Promotion,
    /// The configuration names it no more.
    pub gone: bool,
}

impl Settings {
    pub fn new(config: &Config, roster: &Roster, proxy: ProxyId) -> Self {
        let server = |Member { server, gone }: &Member| ServerSettings {
            name: server.name.clone(),
            address: server.address.clone(),
            region: server.region.clone(),
            zone: server.zone.clone(),
            promotion: server.promotion,
            gone: *gone,
        };
        Self {
            proxy,
            servers: roster.members().map(|(_, member)| server(member)).collect(),
            mode: config.failover.mode,
            durability: config.failover.durability,
            data_loss: config.failover.data_loss,
            min_interval: config.failover.min_interval,
            max_per_hour: config.failover.max_per_hour,
            async_silence: config.failover.async_silence,
            stalled_for: super::STALLED_FOR,
            transaction_timeout: config.switchover.transaction_timeout,
            switchover_timeout: config.switchover.timeout,
            lease: config.coordination.lease,
            failures: config.monitor.failures,
            #[cfg(any(test, feature = "defects"))]
            defect: None,
        }
    }

    /// What clocks and pauses may take from a lease: a proxy stops that much earlier, an actor waits that much longer.
    pub(super) fn lease_margin(&self) -> Duration {
        self.lease / 5
    }
}
