//! What a client is offered: what we speak and all servers have.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

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
    by_server: Mutex<Vec<Heard>>,
    /// Held by whoever asks servers that have not been heard of.
    asking: tokio::sync::Mutex<()>,
}

/// What is known of one server.
#[derive(Clone, Debug, Default)]
enum Heard {
    #[default]
    Nothing,
    /// It did not answer when it was asked.
    Silence(Instant),
    Offer(Offer),
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
        Self { by_server: Mutex::new(vec![Heard::Nothing; servers]), asking: tokio::sync::Mutex::default() }
    }

    /// Remembers the newest greeting of a server.
    pub(super) fn heard(&self, server: ServerId, greeting: &Greeting) {
        self.note(server, Heard::Offer(Offer::of_greeting(greeting)));
    }

    fn note(&self, server: ServerId, heard: Heard) {
        let mut by_server = self.by_server.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = by_server.get_mut(usize::from(server.0)) {
            *known = heard;
        }
    }

    fn known(&self, server: ServerId) -> Heard {
        let by_server = self.by_server.lock().unwrap_or_else(PoisonError::into_inner);
        by_server.get(usize::from(server.0)).cloned().unwrap_or_default()
    }

    fn of(&self, server: ServerId) -> Option<Offer> {
        match self.known(server) {
            Heard::Offer(offer) => Some(offer),
            Heard::Nothing | Heard::Silence(_) => None,
        }
    }

    fn is_to_be_asked(&self, server: ServerId) -> bool {
        match self.known(server) {
            Heard::Nothing => true,
            Heard::Silence(since) => since.elapsed() > ASK_AGAIN_AFTER,
            Heard::Offer(_) => false,
        }
    }
}

/// What a client is offered now.
pub(super) async fn current(worker: &Worker) -> Offer {
    let topology = worker.topology();
    let offers = &worker.shared.logins.offers;
    if usable(&topology).any(|server| offers.is_to_be_asked(server.id)) {
        let _asking = offers.asking.lock().await;
        for server in usable(&topology).filter(|server| offers.is_to_be_asked(server.id)) {
            ask(offers, server).await;
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
        State::Excluded | State::Down | State::Unknown | State::Gone => false,
    })
}

/// Reads a server's greeting and hangs up. One that does not answer is left out until it does.
async fn ask(offers: &ServerOffers, server: &ServerView) {
    let asked = tokio::time::timeout(ASK_TIMEOUT, async {
        let mut lane = Lane::new(Stream::tcp(TcpStream::connect(&server.address).await.ok()?));
        read_greeting(&mut lane).await.ok()
    });
    match asked.await {
        Ok(Some(greeting)) => offers.heard(server.id, &greeting),
        Ok(None) | Err(_) => offers.note(server.id, Heard::Silence(Instant::now())),
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
const ASK_AGAIN_AFTER: Duration = Duration::from_secs(10);
const MAX_ZSTD_LEVEL: i32 = 22;
const LATIN1_SWEDISH_CI: u8 = 8;
const UTF8MB4_0900_AI_CI: u8 = 255;

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use pointsman_router::gtid::GtidSet;
    use pointsman_router::topology::Role;

    use super::*;

    const ALL: Capabilities = Capabilities::all();

    fn server(id: u16, state: State) -> ServerView {
        ServerView {
            id: ServerId(id),
            name: format!("db-{id}"),
            address: String::new(),
            weight: 1,
            zone: String::new(),
            role: if id == 0 { Role::Primary } else { Role::Replica },
            state,
            reason: String::new(),
            lag: None,
            position: GtidSet::default(),
            position_at: Duration::ZERO,
            online_since: Duration::ZERO,
            read_only: id != 0,
            version: String::new(),
        }
    }

    fn offer(version: &str, capabilities: Capabilities, plugin: Plugin) -> Offer {
        Offer {
            version: version.into(),
            capabilities,
            mariadb: MariadbCapabilities::all(),
            collation: 8,
            plugin,
        }
    }

    fn topology(flavour: Flavour, primary: Option<u16>, states: &[State]) -> Arc<Topology> {
        let servers = states.iter().zip(0..).map(|(state, id)| server(id, *state)).collect();
        let version = String::from("10.11.6-MariaDB");
        let primary = primary.map(ServerId);
        Arc::new(Topology { primary, flavour, version, servers, ..Topology::default() })
    }

    #[test]
    fn what_all_servers_have() {
        let both = topology(Flavour::Mysql, Some(0), &[State::Online, State::Online]);
        let lacking = |flag| {
            combine(&both, |id| {
                let capabilities = if id.0 == 1 { ALL - flag } else { ALL };
                Some(offer("9.7.4", capabilities, Plugin::CachingSha2))
            })
        };
        let everything = lacking(Capabilities::empty()).capabilities;
        assert!(everything.contains(RELAYED | OURS | Capabilities::LONG_PASSWORD));
        for flag in RELAYED.iter() {
            assert_eq!(lacking(flag).capabilities, everything - flag);
        }
        for flag in OURS.iter() {
            assert_eq!(lacking(flag).capabilities, everything);
        }
        for never in [
            Capabilities::OPTIONAL_RESULTSET_METADATA,
            Capabilities::MULTI_FACTOR_AUTHENTICATION,
            Capabilities::SSL_VERIFY_SERVER_CERT,
            Capabilities::REMEMBER_OPTIONS,
        ] {
            assert!(!everything.intersects(never));
        }
    }

    /// A server that is out takes nothing away from clients; the primary's words are the ones that count.
    #[test]
    fn whose_word_counts() {
        let known = |id: ServerId| {
            let (version, capabilities) = if id.0 == 0 {
                ("5.5.5-10.11.6-MariaDB", ALL)
            } else {
                ("5.5.5-10.5.1-MariaDB", ALL - Capabilities::DEPRECATE_EOF)
            };
            Some(offer(version, capabilities, Plugin::NativePassword))
        };
        let check = |states: &[State], primary, version: &str, has_deprecate_eof| {
            let combined = combine(&topology(Flavour::Mariadb, primary, states), known);
            assert_eq!(combined.version, version.as_bytes());
            assert_eq!(combined.capabilities.contains(Capabilities::DEPRECATE_EOF), has_deprecate_eof);
            assert!(!combined.capabilities.contains(Capabilities::LONG_PASSWORD));
            assert!(!combined.mariadb.contains(MariadbCapabilities::CACHE_METADATA));
        };
        check(&[State::Online, State::Online], Some(0), "5.5.5-10.11.6-MariaDB", false);
        check(&[State::Online, State::Down], Some(0), "5.5.5-10.11.6-MariaDB", true);
        check(&[State::Down, State::Online], None, "5.5.5-10.5.1-MariaDB", false);
        check(&[State::Online, State::Excluded], Some(0), "5.5.5-10.11.6-MariaDB", true);
    }

    #[test]
    fn without_any_word() {
        let nobody = combine(&topology(Flavour::Mariadb, None, &[State::Down]), |_| None);
        assert_eq!(nobody.version, b"5.5.5-10.11.6-MariaDB");
        assert_eq!(nobody.plugin, Plugin::NativePassword);
        assert!(nobody.capabilities.contains(Capabilities::PROTOCOL_41 | Capabilities::DEPRECATE_EOF));
        let nobody = combine(&topology(Flavour::Mysql, None, &[]), |_| None);
        assert_eq!(
            (nobody.version.as_slice(), nobody.plugin),
            (&b"10.11.6-MariaDB"[..], Plugin::CachingSha2)
        );
    }

    #[test]
    fn one_way_to_compress() {
        let zlib = Capabilities::COMPRESS;
        let zstd = Capabilities::ZSTD_COMPRESSION_ALGORITHM;
        assert_eq!(compression(Capabilities::empty(), 3), None);
        assert_eq!(compression(zlib | zstd, 3), Some(Algorithm::Zlib));
        assert_eq!(compression(zstd, 3), Some(Algorithm::Zstd { level: 3 }));
        assert_eq!(compression(zstd, 0), Some(Algorithm::Zstd { level: 1 }));
        assert_eq!(compression(zstd, 255), Some(Algorithm::Zstd { level: 22 }));
    }
}
