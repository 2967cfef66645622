//! What all workers and the control plane have in common.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Instant;

use pointsman_config::Config;
use pointsman_router::classify::Catalogue;
use pointsman_router::gtid::GtidSet;
use pointsman_router::intent::Flavour;
use pointsman_router::roster::Roster;
use pointsman_router::topology::{ServerId, Topology};
use tokio::sync::{mpsc, watch};

use crate::backend::budget::Budget;
use crate::backend::pool::KeyId;
use crate::counters::Counters;
use crate::fences::Fences;
use crate::session::login::LoginMemory;
use crate::tls::{ClientTls, ServerTls};
use crate::users::Users;
use crate::worker::Message;

/// Process-wide state; every field is either immutable or synchronises itself.
#[derive(Debug)]
pub struct Shared {
    /// What the process was started with: what needs a restart to change.
    pub config: Arc<Config>,
    /// The same with what has been taken up since.
    pub settings: watch::Sender<Arc<Config>>,
    /// Of every server that the configuration has named; at most [`Shared::room`].
    pub roster: watch::Sender<Arc<Roster>>,
    pub topology: watch::Receiver<Arc<Topology>>,
    pub catalogue: watch::Receiver<Arc<Catalogue>>,
    pub users: Arc<Users>,
    /// For clients; none when `tls.mode` is disabled.
    pub server_tls: Option<ServerTls>,
    /// For servers; none when `backend_tls.mode` is disabled.
    pub client_tls: Option<ClientTls>,
    /// One per server, and some for servers to come.
    pub budgets: Vec<Arc<Budget>>,
    pub keys: KeyTable,
    pub logins: LoginMemory,
    pub acknowledged: Acknowledged,
    pub fences: Arc<Fences>,
    /// One set per worker.
    pub counters: Vec<Arc<Counters>>,
    pub defaults: Defaults,
    pub digest_seed: [u8; 32],
    /// Set once the process is asked to end: no transaction starts any more.
    pub draining: AtomicBool,
    /// Asks for accounts or catalogue to be read again.
    pub refresh: mpsc::Sender<Refresh>,
    pub kills: mpsc::Sender<KillRequest>,
    pub positions: mpsc::Sender<PositionQuestion>,
    pub workers: OnceLock<Vec<mpsc::UnboundedSender<Message>>>,
    pub clients: AtomicU32,
    pub started: Instant,
    max_allowed_packet: AtomicUsize,
    next_id: AtomicU32,
    next_serial: AtomicU64,
}

/// What a statement has made stale.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refresh {
    Accounts,
    Catalogue,
}

/// Somebody who waits for the primary's position as of now; none where it cannot be asked.
pub type PositionQuestion = tokio::sync::oneshot::Sender<Option<GtidSet>>;

/// A statement to be interrupted on a server by the service account.
#[derive(Debug)]
pub struct KillRequest {
    pub address: String,
    pub thread_id: u32,
    pub done: tokio::sync::oneshot::Sender<()>,
}

/// The highest GTID that this process has acknowledged to any client: where a session's floor starts.
#[derive(Debug, Default)]
pub struct Acknowledged {
    set: Mutex<GtidSet>,
    /// A change was acknowledged of which the server told no GTID.
    unnamed: AtomicBool,
}

impl Acknowledged {
    /// To be called before the OK reaches the client, which may tell another session of it at once.
    pub fn merge(&self, gtid: &GtidSet) {
        self.set.lock().unwrap_or_else(PoisonError::into_inner).merge(gtid);
    }

    pub fn current(&self) -> GtidSet {
        self.set.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Rows were changed outside of a transaction, and no GTID came with that.
    pub fn saw_unnamed(&self) {
        self.unnamed.store(true, Ordering::Relaxed);
    }

    /// Everything that was acknowledged up to now; none where servers do not tell.
    pub fn mark(&self) -> Option<GtidSet> {
        let current = self.current();
        (!current.is_empty() || !self.unnamed.load(Ordering::Relaxed)).then_some(current)
    }
}

/// Numbers for the sets of properties that make server connections interchangeable.
#[derive(Debug, Default)]
pub struct KeyTable(Mutex<Keys>);

#[derive(Debug, Default)]
struct Keys {
    ids: HashMap<KeyParts, KeyId>,
    /// No number is given twice, so that what is forgotten is not taken for something else.
    next: u32,
}

/// See [`KeyTable`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct KeyParts {
    pub account: u64,
    /// Rises when the account's row changes: older connections were proven by an older password.
    pub version: u64,
    pub capabilities: u32,
    pub mariadb_capabilities: u32,
    pub collation: u16,
}

impl KeyTable {
    pub fn id(&self, parts: KeyParts) -> KeyId {
        let mut keys = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = keys.ids.get(&parts) {
            return *known;
        }
        if keys.ids.len() >= MAX_KEYS {
            // Clients choose a part of it. Connections with forgotten numbers are used by their sessions, and reaped.
            keys.ids.clear();
        }
        let id = KeyId(keys.next);
        keys.next = keys.next.wrapping_add(1);
        keys.ids.insert(parts, id);
        id
    }
}

/// Sets of properties that are remembered.
const MAX_KEYS: usize = 64 * 1024;

/// The primary's session defaults, to which connections of replicas are brought.
#[derive(Debug)]
pub struct Defaults {
    /// None until they have been read.
    current: watch::Sender<Option<Arc<SessionDefaults>>>,
}

/// Values of a fresh session on the primary.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SessionDefaults {
    /// Name and value of each variable that replicas must share, as SQL text.
    pub variables: Vec<(String, String)>,
    pub sql_mode: String,
    pub autocommit: bool,
    pub wait_timeout_seconds: u64,
    pub interactive_timeout_seconds: u64,
    pub max_allowed_packet: u64,
    /// The global character set as an element of a SET list, `NAMES 'utf8mb4' COLLATE '...'`; empty where it is none.
    pub names: String,
}

impl SessionDefaults {
    /// What [`Self::names`] means for a session that is reset: MariaDB goes back to what the login asked for.
    pub fn names_after_reset(&self, flavour: Flavour) -> String {
        match flavour {
            Flavour::Mysql => self.names.clone(),
            Flavour::Mariadb => String::new(),
        }
    }
}

impl Defaults {
    /// Those read last. Sessions begin only once they are [known](Self::known).
    pub fn get(&self) -> Arc<SessionDefaults> {
        self.current.borrow().clone().unwrap_or_default()
    }

    /// Returns once they have been read.
    pub async fn known(&self) {
        // The sender lives as long as this value.
        drop(self.current.subscribe().wait_for(Option::is_some).await);
    }

    pub fn is_known(&self) -> bool {
        self.current.borrow().is_some()
    }

    pub fn set(&self, defaults: SessionDefaults) {
        self.current.send_if_modified(|current| {
            let differs = current.as_deref() != Some(&defaults);
            if differs {
                *current = Some(Arc::new(defaults));
            }
            differs
        });
    }
}

impl Default for Defaults {
    fn default() -> Self {
        Self { current: watch::Sender::new(None) }
    }
}

/// What [`Shared::new`] is given; the rest starts empty.
#[derive(Debug)]
pub struct Parts {
    pub config: Arc<Config>,
    pub topology: watch::Receiver<Arc<Topology>>,
    pub catalogue: watch::Receiver<Arc<Catalogue>>,
    pub users: Arc<Users>,
    pub server_tls: Option<ServerTls>,
    pub client_tls: Option<ClientTls>,
    pub refresh: mpsc::Sender<Refresh>,
    pub kills: mpsc::Sender<KillRequest>,
    pub positions: mpsc::Sender<PositionQuestion>,
}

impl Shared {
    pub fn new(parts: Parts, workers: usize) -> Arc<Self> {
        let Parts { config, topology, catalogue, users, server_tls, client_tls, refresh, kills, positions } =
            parts;
        let started = Instant::now();
        let room = config.servers.len() + SERVERS_TO_COME;
        let budgets: Vec<_> = (0..room).map(|_| Budget::new(0)).collect();
        let counters = (0..workers).map(|_| Arc::new(Counters::new(room))).collect();
        let roster = Arc::new(Roster::new(&config.servers));
        limit(&budgets, &roster, &config);
        Arc::new(Self {
            settings: watch::Sender::new(config.clone()),
            roster: watch::Sender::new(roster),
            config,
            topology,
            catalogue,
            users,
            server_tls,
            client_tls,
            logins: LoginMemory::new(room),
            budgets,
            keys: KeyTable::default(),
            acknowledged: Acknowledged::default(),
            fences: Arc::new(Fences::new(room, started)),
            counters,
            defaults: Defaults::default(),
            digest_seed: rand::random(),
            draining: AtomicBool::new(false),
            refresh,
            kills,
            positions,
            workers: OnceLock::new(),
            clients: AtomicU32::new(0),
            started,
            max_allowed_packet: AtomicUsize::new(DEFAULT_MAX_ALLOWED_PACKET),
            next_id: AtomicU32::new(1),
            next_serial: AtomicU64::new(1),
        })
    }

    /// The configuration as it is now; workers have [`crate::worker::Worker::settings`], which costs no lock.
    pub fn settings(&self) -> Arc<Config> {
        self.settings.borrow().clone()
    }

    /// Lets sessions meet the servers of a changed configuration.
    pub fn follow(&self, config: &Config, roster: Arc<Roster>) {
        limit(&self.budgets, &roster, config);
        self.roster.send_replace(roster);
    }

    /// How many servers there can be, those included that are gone.
    pub fn room(&self) -> usize {
        self.budgets.len()
    }

    /// A connection id for a client: bit 31 is set, so that it is never one of a server's.
    pub fn next_connection_id(&self) -> u32 {
        OWN_ID_BIT | (self.next_id.fetch_add(1, Ordering::Relaxed) & OWN_ID_MASK)
    }

    pub fn next_serial(&self) -> u64 {
        self.next_serial.fetch_add(1, Ordering::Relaxed)
    }

    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// The largest packet that servers take, in bytes.
    pub fn max_allowed_packet(&self) -> usize {
        self.max_allowed_packet.load(Ordering::Relaxed)
    }

    /// Publishes what a fresh session on the primary looks like.
    pub fn set_defaults(&self, defaults: SessionDefaults) {
        if let Ok(limit) = usize::try_from(defaults.max_allowed_packet)
            && limit > 0
        {
            self.max_allowed_packet.store(limit, Ordering::Relaxed);
        }
        self.defaults.set(defaults);
    }

    /// What the primary has committed by now.
    pub async fn ask_position(&self) -> Option<GtidSet> {
        let (question, answer) = tokio::sync::oneshot::channel();
        self.positions.send(question).await.ok()?;
        answer.await.ok().flatten()
    }

    /// Asks all workers for an idle connection to this server.
    pub fn ask_for_surrender(&self, server: ServerId) {
        self.broadcast(|| Message::Surrender(server));
    }

    /// Tells every worker.
    pub fn broadcast(&self, message: impl Fn() -> Message) {
        for worker in self.workers.get().into_iter().flatten() {
            // A worker that has ended needs no message.
            drop(worker.send(message()));
        }
    }
}

/// Sets how many connections each server may have.
fn limit(budgets: &[Arc<Budget>], roster: &Roster, config: &Config) {
    for (budget, (_, member)) in budgets.iter().zip(roster.members()) {
        budget.set_limit(member.server.max_connections.unwrap_or(config.pool.max_connections) as usize);
    }
}

/// How many servers the configuration may name anew before the process has to start anew.
const SERVERS_TO_COME: usize = 64;
/// Until the primary has said what it takes.
const DEFAULT_MAX_ALLOWED_PACKET: usize = 16 * 1024 * 1024;
/// Set in every connection id that Pointsman gives out.
pub const OWN_ID_BIT: u32 = 1 << 31;
const OWN_ID_MASK: u32 = (1 << 24) - 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_bounded_and_never_given_twice() {
        let table = KeyTable::default();
        let id = |account: u64, collation: u16| {
            let (version, capabilities, mariadb_capabilities) = (1, 0, 0);
            table.id(KeyParts { account, version, capabilities, mariadb_capabilities, collation })
        };
        let first = id(1, 0);
        assert_eq!(id(1, 0), first);
        assert_ne!(id(2, 0), first);
        for collation in 0..=u16::MAX {
            id(3, collation);
        }
        assert!(table.0.lock().is_ok_and(|keys| keys.ids.len() <= MAX_KEYS));
        assert_ne!(id(1, 0), first, "forgotten, and not the number of anything else");
    }
}
