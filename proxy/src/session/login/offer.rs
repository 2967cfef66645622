//! What a client is offered: what we speak and all servers have.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use pointsman_protocol::auth::Plugin;
use pointsman_protocol::capability::{Capabilities, MariadbCapabilities};
use pointsman_protocol::compress::Algorithm;
use pointsman_protocol::handshake::Greeting;
use pointsman_router::intent::Flavour;
use pointsman_router::topology::{ServerId, ServerView, State, Topology};
use tokio::net::TcpStream;

use crate::backend::authenticate::{RELAYED, read_greeting};
use crate::buffer::Lane;
use crate::net::Stream;
use crate::worker::Worker;

/// What the greeting says of us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// The primary's own, as on the wire.
    pub version: Vec<u8>,
    pub capabilities: Capabilities,
    pub mariadb: MariadbCapabilities,
    pub collation: u8,
    pub plugin: Plugin,
}

/// What servers have said in their greetings.
#[derive(Debug)]
pub(super) struct ServerOffers {
    by_server: Mutex<Vec<Option<Offer>>>,
    /// Held by whoever asks servers that have not been heard of.
    asking: tokio::sync::Mutex<()>,
}

/// What is between the client and us; no server has to know of it.
const OURS: Capabilities = Capabilities::LONG_FLAG
    .union(Capabilities::CONNECT_WITH_DB)
    .union(Capabilities::COMPRESS)
    .union(Capabilities::PROTOCOL_41)
    .union(Capabilities::IGNORE_SIGPIPE)
    .union(Capabilities::TRANSACTIONS)
    .union(Capabilities::RESERVED)
    .union(Capabilities::SECURE_CONNECTION)
    .union(Capabilities::PLUGIN_AUTH)
    .union(Capabilities::CONNECT_ATTRS)
    .union(Capabilities::PLUGIN_AUTH_LENENC_CLIENT_DATA)
    .union(Capabilities::SESSION_TRACK);

/// Those of MariaDB that change nothing in how answers are followed. Not CACHE_METADATA: what a client has cached
/// would have to hold for every server that a statement is prepared on.
const OURS_MARIADB: MariadbCapabilities = MariadbCapabilities::PROGRESS
    .union(MariadbCapabilities::STMT_BULK_OPERATIONS)
    .union(MariadbCapabilities::EXTENDED_METADATA)
    .union(MariadbCapabilities::BULK_UNIT_RESULTS);

impl Offer {
    fn of_greeting(greeting: &Greeting) -> Self {
        let plugin = Plugin::from_name(&greeting.plugin)
            .filter(|plugin| matches!(plugin, Plugin::NativePassword | Plugin::CachingSha2));
        Self {
            version: greeting.version.clone(),
            capabilities: greeting.capabilities,
            mariadb: greeting.mariadb,
            collation: greeting.collation,
            plugin: plugin.unwrap_or(Plugin::NativePassword),
        }
    }

    /// For the time when no server has been heard of.
    fn of_topology(topology: &Topology) -> Self {
        let (prefix, plugin, collation) = match topology.flavour {
            Flavour::Mariadb => ("5.5.5-", Plugin::NativePassword, LATIN1_SWEDISH_CI),
            Flavour::Mysql => ("", Plugin::CachingSha2, UTF8MB4_0900_AI_CI),
        };
        Self {
            version: format!("{prefix}{}", topology.version).into_bytes(),
            capabilities: RELAYED - Capabilities::QUERY_ATTRIBUTES,
            mariadb: MariadbCapabilities::empty(),
            collation,
            plugin,
        }
    }
}

impl ServerOffers {
    pub(super) fn new(servers: usize) -> Self {
        Self { by_server: Mutex::new(vec![None; servers]), asking: tokio::sync::Mutex::default() }
    }

    /// Remembers the newest greeting of a server.
    pub(super) fn heard(&self, server: ServerId, greeting: &Greeting) {
        let offer = Offer::of_greeting(greeting);
        let mut by_server = self.by_server.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = by_server.get_mut(usize::from(server.0)) {
            *known = Some(offer);
        }
    }

    fn of(&self, server: ServerId) -> Option<Offer> {
        let by_server = self.by_server.lock().unwrap_or_else(PoisonError::into_inner);
        by_server.get(usize::from(server.0)).cloned().flatten()
    }
}

/// What a client is offered now.
pub(super) async fn current(worker: &Worker) -> Offer {
    let topology = worker.topology();
    let offers = &worker.shared.logins.offers;
    if usable(&topology).any(|server| offers.of(server.id).is_none()) {
        let _asking = offers.asking.lock().await;
        for server in usable(&topology) {
            if offers.of(server.id).is_none() {
                ask(offers, server).await;
            }
        }
    }
    let mut offer = combine(&topology, |server| offers.of(server));
    offer.capabilities.set(Capabilities::SSL, worker.shared.server_tls.is_some());
    offer
}

/// Servers that sessions may have to do with.
fn usable(topology: &Topology) -> impl Iterator<Item = &ServerView> {
    topology.servers.iter().filter(|server| match server.state {
        State::Online | State::Lagging | State::Draining => true,
        State::Excluded | State::Down | State::Unknown => false,
    })
}

/// Reads a server's greeting and hangs up. One that does not answer is left out until it does.
async fn ask(offers: &ServerOffers, server: &ServerView) {
    let asked = tokio::time::timeout(ASK_TIMEOUT, async {
        let mut lane = Lane::new(Stream::tcp(TcpStream::connect(&server.address).await.ok()?));
        read_greeting(&mut lane).await.ok()
    });
    if let Ok(Some(greeting)) = asked.await {
        offers.heard(server.id, &greeting);
    }
}

fn combine(topology: &Topology, known: impl Fn(ServerId) -> Option<Offer>) -> Offer {
    let mut heard = usable(topology).filter_map(|server| known(server.id));
    let primary = topology.primary.and_then(&known);
    let mut offer = primary.or_else(|| heard.next()).unwrap_or_else(|| Offer::of_topology(topology));
    for other in usable(topology).filter_map(|server| known(server.id)) {
        offer.capabilities &= other.capabilities;
        offer.mariadb &= other.mariadb;
    }
    let is_mysql = topology.flavour == Flavour::Mysql;
    offer.capabilities = (offer.capabilities & RELAYED) | OURS;
    offer.mariadb &= OURS_MARIADB;
    // Its absence says that MariaDB's own flags follow.
    offer.capabilities.set(Capabilities::LONG_PASSWORD, is_mysql);
    offer.capabilities.set(Capabilities::ZSTD_COMPRESSION_ALGORITHM, is_mysql);
    offer
}

/// How the client wants everything after the login compressed; zlib where it can do both, as servers choose.
pub(super) fn compression(agreed: Capabilities, zstd_level: u8) -> Option<Algorithm> {
    if agreed.contains(Capabilities::COMPRESS) {
        Some(Algorithm::Zlib)
    } else if agreed.contains(Capabilities::ZSTD_COMPRESSION_ALGORITHM) {
        Some(Algorithm::Zstd { level: i32::from(zstd_level).clamp(1, MAX_ZSTD_LEVEL) })
    } else {
        None
    }
}

const ASK_TIMEOUT: Duration = Duration::from_secs(1);
const MAX_ZSTD_LEVEL: i32 = 22;
const LATIN1_SWEDISH_CI: u8 = 8;
const UTF8MB4_0900_AI_CI: u8 = 255;
