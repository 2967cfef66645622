//! One thread, one runtime, its own sessions and idle server connections.
//!
//! Nothing on the path of a statement crosses threads. A worker hears of the world through its inbox (new
//! clients, kills, surrender of idle connections, drain) and through the topology that the cluster task publishes.

mod slot;

use std::cell::{Cell, Ref, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use pointsman_config::Config;
use pointsman_router::balance::Balancer;
use pointsman_router::classify::{Catalogue, Classifier, Mode};
use pointsman_router::route::Rules;
use pointsman_router::topology::{ServerId, State, Topology};
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{mpsc, oneshot, watch};

use crate::backend::pool::{IdlePool, Keeping};
use crate::counters::Counters;
use crate::net::{ClientAddress, ListenerKind, Seat, Stream};
use crate::session;
use crate::shared::Shared;
use crate::slow_log::SlowLog;

pub use self::slot::{Explained, Order, Question, Reply, SessionView, Slot};

/// Statements whose intent a worker remembers.
const CLASSIFIER_SLOTS: usize = 8192;
/// How often idle connections and sessions are looked over.
const TICK: Duration = Duration::from_secs(1);

/// What a worker can be told.
#[derive(Debug)]
pub enum Message {
    Client(Accepted),
    /// Sessions of other workers wait for a connection to this server.
    Surrender(ServerId),
    /// Interrupt or end the session with this id; answers whether it is here and what came of it.
    Kill {
        id: u32,
        query_only: bool,
        by: Killer,
        answer: mpsc::UnboundedSender<KillAnswer>,
    },
    /// Tell which sessions hold which server connections.
    Holders(mpsc::UnboundedSender<Vec<((ServerId, u32), u32)>>),
    /// List the sessions.
    Sessions(oneshot::Sender<Vec<SessionView>>),
    /// Tell where this session would send a statement, as soon as it waits for its client.
    Explain {
        session: u32,
        sql: Arc<[u8]>,
        answer: mpsc::UnboundedSender<Reply>,
    },
    /// Count the pinned sessions by reason.
    Pins(oneshot::Sender<BTreeMap<&'static str, u64>>),
    /// End what runs on a server whose fence has been raised; answered when nothing more can be passed on from it.
    Fence(ServerId, mpsc::UnboundedSender<()>),
    /// Count the sessions that hold a connection to a server in their hands, running or pinned.
    Holding(ServerId, mpsc::UnboundedSender<usize>),
    /// End sessions at their next transaction boundary.
    Drain,
    /// End every session now.
    Stop,
}

/// A client's socket on its way from the acceptor to a worker.
#[derive(Debug)]
pub struct Accepted {
    pub socket: AcceptedSocket,
    pub listener: ListenerKind,
    pub address: ClientAddress,
    /// Kept for as long as the session lives.
    pub seat: Seat,
}

/// See [`Accepted`].
#[derive(Debug)]
pub enum AcceptedSocket {
    Tcp(std::net::TcpStream),
    Unix(std::os::unix::net::UnixStream),
}

impl AcceptedSocket {
    /// Registers the socket with the runtime that this is called on.
    fn into_stream(self) -> io::Result<Stream> {
        Ok(match self {
            Self::Tcp(socket) => Stream::tcp(tokio::net::TcpStream::from_std(socket)?),
            Self::Unix(socket) => Stream::unix(tokio::net::UnixStream::from_std(socket)?),
        })
    }
}

/// Who asks for a kill.
#[derive(Clone, Debug)]
pub struct Killer {
    pub account: u64,
    /// May end other users' sessions.
    pub privileged: bool,
}

/// What a worker answers to [`Message::Kill`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KillAnswer {
    NotHere,
    NotAllowed,
    Done,
}

/// What the sessions of one worker share.
#[derive(Debug)]
pub struct Worker {
    pub index: usize,
    pub shared: Arc<Shared>,
    pub pool: IdlePool,
    pub classifier: RefCell<Classifier>,
    pub balancer: RefCell<Balancer>,
    pub rules: Rules,
    pub slow_log: SlowLog,
    pub counters: Arc<Counters>,
    pub slots: RefCell<BTreeMap<u32, Rc<Slot>>>,
    pub started: Instant,
    moment: Cell<Instant>,
    topology: RefCell<Cached<Topology>>,
    catalogue: RefCell<Cached<Catalogue>>,
    settings: RefCell<Cached<Config>>,
    random: Cell<u64>,
}

impl Worker {
    fn new(index: usize, shared: Arc<Shared>) -> Self {
        let mut classifier = Classifier::new(shared.digest_seed, CLASSIFIER_SLOTS);
        let rules = Rules::new(&shared.config.routing.rules, |sql| {
            classifier.classify(sql.as_bytes(), &Mode::default(), &Catalogue::default()).digest.0
        });
        Self {
            index,
            rules,
            slow_log: SlowLog::default(),
            pool: IdlePool::new(index, shared.budgets.clone(), shared.fences.clone()),
            classifier: RefCell::new(classifier),
            balancer: RefCell::new(Balancer::new(&shared.config.routing, shared.room())),
            counters: shared.counters[index].clone(),
            slots: RefCell::default(),
            started: shared.started,
            moment: Cell::new(Instant::now()),
            topology: RefCell::new(Cached::new(&shared.topology)),
            catalogue: RefCell::new(Cached::new(&shared.catalogue)),
            settings: RefCell::new(Cached::new(&shared.settings.subscribe())),
            random: Cell::new(rand::random::<u64>() | 1),
            shared,
        }
    }

    /// The newest topology; one snapshot serves a whole statement.
    pub fn topology(&self) -> OnThread<Topology> {
        self.topology.borrow_mut().current()
    }

    /// The newest catalogue of stored functions and views.
    pub fn catalogue(&self) -> OnThread<Catalogue> {
        self.catalogue.borrow_mut().current()
    }

    /// The configuration as it is now. Not to be held over an `.await`.
    pub fn settings(&self) -> Ref<'_, Config> {
        // A caller further up may hold it: then what it sees is new enough.
        if let Ok(mut cached) = self.settings.try_borrow_mut() {
            cached.refresh();
        }
        Ref::map(self.settings.borrow(), |cached| cached.current.as_ref().as_ref())
    }

    /// When this thread last read the clock: at most one [`TICK`] ago while it runs.
    pub fn moment(&self) -> Instant {
        self.moment.get()
    }

    pub fn read_clock(&self) -> Instant {
        let now = Instant::now();
        self.moment.set(now);
        now
    }

    /// Time since the start of the process, the clock of all pure code.
    pub fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// Cheap numbers for spreading load; nothing secret depends on them.
    pub fn random(&self) -> u64 {
        let mut x = self.random.get();
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        self.random.set(x);
        x
    }
}

/// A published value, counted for one thread alone: its own count would go to and fro between processors with every
/// statement.
#[allow(clippy::redundant_allocation, reason = "the two counts are the point")]
pub type OnThread<T> = Rc<Arc<T>>;

/// A published value, with a copy that costs no lock while nothing new has been published.
#[derive(Debug)]
struct Cached<T> {
    changes: watch::Receiver<Arc<T>>,
    current: OnThread<T>,
}

impl<T> Cached<T> {
    fn new(receiver: &watch::Receiver<Arc<T>>) -> Self {
        let mut changes = receiver.clone();
        let current = Rc::new(changes.borrow_and_update().clone());
        Self { changes, current }
    }

    fn refresh(&mut self) {
        if self.changes.has_changed().unwrap_or(false) {
            self.current = Rc::new(self.changes.borrow_and_update().clone());
        }
    }

    fn current(&mut self) -> OnThread<T> {
        self.refresh();
        Rc::clone(&self.current)
    }
}

/// The running worker threads.
#[derive(Debug)]
pub struct Workers {
    shared: Arc<Shared>,
    loads: Vec<Arc<AtomicUsize>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Workers {
    /// Starts `count` threads.
    ///
    /// # Errors
    ///
    /// When the operating system refuses a thread or a runtime.
    pub fn start(shared: &Arc<Shared>, count: usize) -> io::Result<Self> {
        let mut senders = Vec::new();
        let mut loads = Vec::new();
        let mut threads = Vec::new();
        for index in 0..count {
            let (sender, inbox) = mpsc::unbounded_channel();
            let load = Arc::new(AtomicUsize::new(0));
            let (built, outcome) = std::sync::mpsc::sync_channel(1);
            let (shared, counted) = (shared.clone(), load.clone());
            let thread = std::thread::Builder::new().name(format!("worker-{index}")).spawn(move || {
                // Built here, because it stays on its thread.
                match Builder::new_current_thread().enable_all().build_local(LocalOptions::default()) {
                    Ok(runtime) => {
                        drop(built.send(Ok(())));
                        runtime.block_on(run(Rc::new(Worker::new(index, shared)), inbox, counted));
                    }
                    Err(error) => drop(built.send(Err(error))),
                }
            })?;
            outcome.recv().map_err(io::Error::other).flatten()?;
            senders.push(sender);
            loads.push(load);
            threads.push(thread);
        }
        // Set once per process start; a second set would mean two sets of workers on one `Shared`.
        drop(shared.workers.set(senders));
        Ok(Self { shared: shared.clone(), loads, threads: Mutex::new(threads) })
    }

    /// Hands a new client to the least loaded worker.
    pub fn assign(&self, client: Accepted) {
        let least =
            (0..self.loads.len()).min_by_key(|&at| self.loads[at].load(Ordering::Relaxed)).unwrap_or(0);
        if let Some(sender) = self.shared.workers.get().and_then(|senders| senders.get(least)) {
            self.loads[least].fetch_add(1, Ordering::Relaxed);
            drop(sender.send(Message::Client(client)));
        }
    }

    /// Sessions open now, over all workers.
    pub fn sessions(&self) -> usize {
        self.loads.iter().map(|load| load.load(Ordering::Relaxed)).sum()
    }

    /// Ends every session and waits for the threads.
    pub fn stop(&self) {
        self.shared.broadcast(|| Message::Stop);
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            // A worker that panicked has been logged by the panic hook.
            drop(thread.join());
        }
    }
}

async fn run(worker: Rc<Worker>, mut inbox: mpsc::UnboundedReceiver<Message>, load: Arc<AtomicUsize>) {
    let mut topology = worker.shared.topology.clone();
    let mut tick = tokio::time::interval(TICK);
    loop {
        tokio::select! {
            message = inbox.recv() => match message {
                None | Some(Message::Stop) => break,
                Some(message) => on_message(&worker, message, &load),
            },
            changed = topology.changed() => {
                if changed.is_err() {
                    break;
                }
                let current = topology.borrow_and_update().clone();
                wake_sessions_of_dead_servers(&worker, &current);
            }
            _ = tick.tick() => on_tick(&worker),
        }
    }
    stop_sessions(&worker).await;
}

/// Lets every session send its last word before the runtime ends.
async fn stop_sessions(worker: &Rc<Worker>) {
    for slot in worker.slots.borrow().values() {
        slot.give(Order::Stop);
    }
    let deadline = Instant::now() + STOP_GRACE;
    while !worker.slots.borrow().is_empty() && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

const STOP_GRACE: Duration = Duration::from_secs(1);

fn on_message(worker: &Rc<Worker>, message: Message, load: &Arc<AtomicUsize>) {
    match message {
        Message::Client(client) => start_session(worker, client, load.clone()),
        Message::Surrender(server) => worker.pool.surrender(server),
        Message::Kill { id, query_only, by, answer } => kill(worker, id, query_only, &by, answer),
        Message::Holders(answer) => {
            let slots = worker.slots.borrow();
            let holders = slots.values().filter_map(|slot| Some((slot.holds.get()?, slot.id)));
            drop(answer.send(holders.collect()));
        }
        Message::Sessions(answer) => {
            // The asker may have given up.
            drop(answer.send(worker.slots.borrow().values().map(|slot| slot.show()).collect()));
        }
        Message::Explain { session, sql, answer } => {
            if let Some(slot) = worker.slots.borrow().get(&session) {
                slot.ask(Question { sql, answer });
            }
        }
        Message::Pins(answer) => {
            let mut pins = BTreeMap::new();
            for slot in worker.slots.borrow().values() {
                for &reason in &slot.view.borrow().pins {
                    *pins.entry(reason).or_default() += 1;
                }
            }
            drop(answer.send(pins));
        }
        Message::Fence(server, answer) => {
            end_on(worker, server);
            let _gone = answer.send(());
        }
        Message::Holding(server, answer) => {
            let slots = worker.slots.borrow();
            let holding = slots.values().filter(|slot| slot.holds.get().is_some_and(|(at, _)| at == server));
            let _gone = answer.send(holding.count());
        }
        Message::Drain => {
            for slot in worker.slots.borrow().values() {
                slot.give(Order::Drain);
            }
        }
        Message::Stop => {}
    }
}

fn start_session(worker: &Rc<Worker>, client: Accepted, load: Arc<AtomicUsize>) {
    let id = worker.shared.next_connection_id();
    let slot = Rc::new(Slot::new(id));
    worker.slots.borrow_mut().insert(id, slot.clone());
    let worker = worker.clone();
    worker.shared.clients.fetch_add(1, Ordering::Relaxed);
    let guard = SessionGuard { worker: worker.clone(), id, load };
    tokio::task::spawn_local(async move {
        let _guard = guard;
        let Accepted { socket, listener, address, seat: _seat } = client;
        match socket.into_stream() {
            Ok(stream) => session::run(worker, slot, stream, listener, address).await,
            Err(error) => tracing::warn!(client = %address, %error, "socket cannot be used"),
        }
    });
}

/// Takes a session off the books however its task ends.
struct SessionGuard {
    worker: Rc<Worker>,
    id: u32,
    load: Arc<AtomicUsize>,
}

impl Drop for SessionGuard {
    fn drop(&mut self) {
        self.worker.slots.borrow_mut().remove(&self.id);
        self.worker.shared.clients.fetch_sub(1, Ordering::Relaxed);
        self.load.fetch_sub(1, Ordering::Relaxed);
    }
}

fn wake_sessions_of_dead_servers(worker: &Worker, topology: &Topology) {
    let dead = |id: ServerId| topology.server(id).is_some_and(|server| server.state == State::Down);
    if !topology.servers.iter().any(|server| server.state == State::Down) {
        return;
    }
    for slot in worker.slots.borrow().values() {
        if slot.running.get().is_some_and(|(server, _)| dead(server)) {
            slot.server_down.set(true);
            slot.wake();
        }
    }
}

/// Lets sessions stop waiting for a server that has been fenced. An answer that has arrived already is stopped by
/// the fence itself, which every session looks at on this thread before it passes one on.
fn end_on(worker: &Worker, server: ServerId) {
    for slot in worker.slots.borrow().values() {
        if slot.running.get().is_some_and(|(running, _)| running == server) {
            slot.server_down.set(true);
            slot.wake();
        }
    }
}

fn on_tick(worker: &Rc<Worker>) {
    let now = worker.read_clock();
    let keeping = Keeping::new(&worker.settings().pool, worker.topology().epoch);
    worker.pool.reap(now, &keeping);
    for server in worker.topology().servers.iter().filter(|server| server.state == State::Gone) {
        worker.pool.close_idle(server.id);
    }
    flush_pending_closes(worker);
    for slot in worker.slots.borrow().values() {
        let idle_for = slot.idle_since.get().map_or(Duration::ZERO, |since| now.duration_since(since));
        if idle_for > slot.wait_timeout.get() {
            slot.give(Order::IdleTimeout);
        }
    }
}

/// Lets servers forget statements whose clients have closed them, also where nothing else is written.
fn flush_pending_closes(worker: &Rc<Worker>) {
    for mut connection in worker.pool.take_with_pending_closes() {
        let worker = worker.clone();
        tokio::task::spawn_local(async move {
            let closes = connection.prepared.take_pending_closes();
            if connection.lane.write_all(&closes).await.is_ok() {
                worker.pool.put_back(connection);
            }
        });
    }
}

fn kill(
    worker: &Rc<Worker>,
    id: u32,
    query_only: bool,
    by: &Killer,
    answer: mpsc::UnboundedSender<KillAnswer>,
) {
    let Some(slot) = worker.slots.borrow().get(&id).cloned() else {
        let _gone = answer.send(KillAnswer::NotHere);
        return;
    };
    if !by.privileged && slot.account.get() != by.account {
        let _gone = answer.send(KillAnswer::NotAllowed);
        return;
    }
    if !query_only {
        slot.give(Order::Kill);
    }
    let running = slot.running.get();
    let address =
        running.and_then(|(server, _)| worker.topology().server(server).map(|server| server.address.clone()));
    let (Some((_, thread_id)), Some(address)) = (running, address) else {
        let _gone = answer.send(KillAnswer::Done);
        return;
    };
    slot.killing.set(slot.killing.get() + 1);
    let kills = worker.shared.kills.clone();
    tokio::task::spawn_local(async move {
        let (done, finished) = oneshot::channel();
        if kills.send(crate::shared::KillRequest { address, thread_id, done }).await.is_ok() {
            // An error means that the killer has ended: nothing more will happen.
            drop(finished.await);
        }
        slot.killing.set(slot.killing.get() - 1);
        slot.wake();
        let _gone = answer.send(KillAnswer::Done);
    });
}
