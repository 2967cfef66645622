//! What the director shows: status document and metrics.

use std::net::{IpAddr, SocketAddr};

use pointsman_config::{Forwarding, Scheduler};
use pointsman_router::topology::Topology;
use pointsman_router::vip::{Cause, Wish};
use serde_json::{Value, json};

use super::ipvs::{Destinations, forwarding_name, scheduler_name};
use super::{Addresses, Settings};

/// The virtual service at the last look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    pub address: IpAddr,
    pub port: u16,
    pub scheduler: Scheduler,
    pub forwarding: Forwarding,
    pub state: State,
    /// Why it is not served here, for people; empty when it is.
    pub reason: String,
    pub interface: String,
    /// Rises with every change of the kernel's table.
    pub generation: u64,
    pub servers: Vec<Server>,
}

/// What becomes of connections to the address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Nothing is known of the servers yet; what the kernel has is kept.
    Starting,
    /// The address is here, and the kernel's table is in step.
    Serving,
    /// The table is in step; another director has the address.
    Standby,
    /// The kernel does not let us, or lacks what is needed.
    Unavailable,
    /// Taken away.
    Ended,
}

impl State {
    /// The name in status.
    pub fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Serving => "serving",
            Self::Standby => "standby",
            Self::Unavailable => "unavailable",
            Self::Ended => "ended",
        }
    }
}

/// One server of the virtual service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    pub name: String,
    pub address: SocketAddr,
    pub weight: u32,
    /// None for one of which nothing is known yet.
    pub cause: Option<Cause>,
    pub active: u32,
    pub inactive: u32,
    pub connections: u64,
}

impl View {
    pub(super) fn new(settings: &Settings) -> Self {
        Self {
            address: settings.service.address,
            port: settings.service.port,
            scheduler: settings.policy.scheduler,
            forwarding: settings.policy.forwarding,
            state: State::Starting,
            reason: "the servers are not known yet".to_owned(),
            interface: settings.interface.clone().unwrap_or_default(),
            generation: 0,
            servers: Vec::new(),
        }
    }

    /// The document of `pointsman vip status -o json`.
    pub fn document(&self) -> Value {
        let server = |server: &Server| {
            json!({
                "name": server.name,
                "address": server.address.to_string(),
                "weight": server.weight,
                "cause": server.cause.map(Cause::name),
                "active": server.active,
                "inactive": server.inactive,
                "connections": server.connections,
            })
        };
        json!({
            "address": SocketAddr::new(self.address, self.port).to_string(),
            "state": self.state.name(),
            "reason": self.reason,
            "scheduler": scheduler_name(self.scheduler),
            "forwarding": forwarding_name(self.forwarding),
            "interface": self.interface,
            "generation": self.generation,
            "servers": self.servers.iter().map(server).collect::<Vec<_>>(),
        })
    }
}

/// The servers in the kernel, with their names and why they have their weights.
pub(super) fn servers(
    there: &Destinations,
    wish: Option<&Wish>,
    topology: &Topology,
    addresses: &Addresses,
) -> Vec<Server> {
    let name = |address: &SocketAddr| {
        let id = addresses.iter().find(|(_, at)| *at == address).map(|(id, _)| *id);
        id.and_then(|id| topology.server(id)).map_or_else(|| address.to_string(), |view| view.name.clone())
    };
    let rows = there.iter().map(|(address, (there, counted))| Server {
        name: name(address),
        address: *address,
        weight: there.weight,
        cause: wish.and_then(|wish| wish.destinations.get(address)).map(|wanted| wanted.cause),
        active: there.active,
        inactive: there.inactive,
        connections: counted.connections,
    });
    rows.collect()
}
