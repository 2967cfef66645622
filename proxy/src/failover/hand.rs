//! One task per server that does there, step by step, what the controller orders.
//!
//! Its connection is held open and tried from time to time: in a failover there is no time for a login.

use std::sync::Arc;
use std::time::Duration;

use pointsman_config::{BackendTlsMode, Config, Secret};
use pointsman_router::failover::{Event, Outcome, Step, StepError, StepOrder};
use pointsman_router::roster::Roster;
use pointsman_router::topology::ServerId;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout};
use tracing::{debug, warn};

use super::fence;
use super::steps::{StepFailure, Work};
use crate::cluster::subject::Subject;
use crate::cluster::{Clock, ServiceAccount};
use crate::vip;

/// Orders that may wait for one server.
const MAX_WAITING_ORDERS: usize = 64;
/// How often an idle connection is tried.
const TRY_EVERY: Duration = Duration::from_secs(1);
const TRY_LIMIT: Duration = Duration::from_secs(1);
/// How long a login may take; the step's own time runs meanwhile.
const CONNECT_LIMIT: Duration = Duration::from_secs(1);
/// One change of the kernel's table takes under a millisecond; its thread may be busy with another.
const EVICT_LIMIT: Duration = Duration::from_millis(200);

/// What all hands know.
#[derive(Debug)]
pub struct Realm {
    pub(super) account: Arc<ServiceAccount>,
    roster: watch::Receiver<Arc<Roster>>,
    pub(super) replication_user: String,
    pub(super) replication_password: Secret,
    /// Whether a server that has not replicated yet uses TLS to its source.
    pub(super) replication_tls: bool,
    pub(super) fence_command: Vec<String>,
    pub(super) clock: Clock,
    /// The read pool behind a virtual address, if this process keeps one.
    pub(super) vip: Option<vip::Handle>,
}

impl Realm {
    pub fn new(
        config: &Config,
        roster: watch::Receiver<Arc<Roster>>,
        account: Arc<ServiceAccount>,
        clock: Clock,
    ) -> Self {
        let replication = &config.replication;
        Self {
            account,
            roster,
            replication_user: replication.user.clone().unwrap_or_else(|| config.user.clone()),
            replication_password: replication.password.clone().unwrap_or_else(|| config.password.clone()),
            replication_tls: match config.backend_tls.mode {
                BackendTlsMode::Disabled | BackendTlsMode::Preferred => false,
                BackendTlsMode::Required | BackendTlsMode::VerifyCa | BackendTlsMode::VerifyIdentity => true,
            },
            fence_command: config.failover.fence_command.clone(),
            clock,
            vip: None,
        }
    }

    /// Candidates leave the read pool behind the virtual address before they become writable.
    pub fn with_vip(mut self, vip: Option<vip::Handle>) -> Self {
        self.vip = vip;
        self
    }

    pub(super) fn name(&self, server: ServerId) -> String {
        self.roster.borrow().name(server).to_owned()
    }

    /// `host:port`
    pub(super) fn address(&self, server: ServerId) -> String {
        self.roster.borrow().address(server).to_owned()
    }
}

/// The way to all hands.
#[derive(Debug)]
pub struct Hands {
    realm: Arc<Realm>,
    /// By server; none for one that is gone.
    orders: Vec<Option<mpsc::Sender<StepOrder>>>,
    events: mpsc::Sender<Event>,
}

impl Hands {
    /// Starts one task for each server; each order ends in one [`Event::StepDone`] on `events`.
    pub fn start(realm: &Arc<Realm>, events: &mpsc::Sender<Event>) -> Self {
        let mut hands = Self { realm: realm.clone(), orders: Vec::new(), events: events.clone() };
        hands.follow();
        hands
    }

    /// One for each server of the configuration, and no others.
    pub fn follow(&mut self) {
        let roster = self.realm.roster.borrow().clone();
        self.orders.resize(roster.len(), None);
        for (orders, (server, member)) in self.orders.iter_mut().zip(roster.members()) {
            if member.gone {
                *orders = None;
            } else if orders.is_none() {
                let (sender, receiver) = mpsc::channel(MAX_WAITING_ORDERS);
                let (realm, events) = (self.realm.clone(), self.events.clone());
                tokio::spawn(Hand { server, realm, events, subject: None }.run(receiver));
                *orders = Some(sender);
            }
        }
    }

    /// Passes an order on; one that cannot be is answered at once.
    pub fn order(&self, order: StepOrder) {
        let id = order.id;
        let sent = match self.orders.get(usize::from(order.server.0)).and_then(Option::as_ref) {
            Some(hand) => hand.try_send(order).map_err(|_| "too many steps wait for the server"),
            None => Err("there is no such server"),
        };
        if let Err(reason) = sent {
            let result = Err(StepError::NotDone(reason.into()));
            let events = self.events.clone();
            tokio::spawn(async move { drop(events.send(Event::StepDone { id, result }).await) });
        }
    }
}

struct Hand {
    server: ServerId,
    realm: Arc<Realm>,
    events: mpsc::Sender<Event>,
    subject: Option<Subject>,
}

impl Hand {
    async fn run(mut self, mut orders: mpsc::Receiver<StepOrder>) {
        loop {
            match timeout(TRY_EVERY, orders.recv()).await {
                Ok(None) => return,
                Ok(Some(order)) => {
                    let id = order.id;
                    let result = self.carry_out(order).await;
                    drop(self.events.send(Event::StepDone { id, result }).await);
                }
                Err(_) => self.keep_connection().await,
            }
        }
    }

    async fn keep_connection(&mut self) {
        let tried = match &mut self.subject {
            Some(subject) => subject.connection.run("DO 1", TRY_LIMIT).await.is_ok(),
            None => self.connect().await.is_ok(),
        };
        if !tried {
            self.subject = None;
        }
    }

    async fn connect(&mut self) -> Result<&mut Subject, StepFailure> {
        let address = self.realm.address(self.server);
        let subject = Subject::meet(&self.realm.account, &address, CONNECT_LIMIT).await;
        let subject = subject.map_err(|error| StepFailure::refused(format!("not connected: {error}")))?;
        Ok(self.subject.insert(subject))
    }

    async fn carry_out(&mut self, order: StepOrder) -> Result<Outcome, StepError> {
        let name = self.realm.name(self.server);
        let started = Instant::now();
        let result = self.try_twice(&order).await;
        let (step, epoch, took_ms) = (order.step.name(), order.epoch, started.elapsed().as_millis());
        match &result {
            Ok(_) => debug!(server = name, step, epoch, took_ms, "step done"),
            Err(error) => warn!(server = name, step, epoch, took_ms, %error, "step failed"),
        }
        result
    }

    /// A held connection may have died unnoticed. Steps are idempotent, so one that was lost with it is done again.
    async fn try_twice(&mut self, order: &StepOrder) -> Result<Outcome, StepError> {
        let deadline = Instant::now() + order.timeout;
        let held = self.subject.is_some();
        match self.attempt(order, deadline).await {
            Err(failure) if failure.lost && held => self.attempt(order, deadline).await,
            outcome => outcome,
        }
        .map_err(StepError::from)
    }

    async fn attempt(&mut self, order: &StepOrder, deadline: Instant) -> Result<Outcome, StepFailure> {
        if order.step == Step::Fence && !self.realm.fence_command.is_empty() {
            let (name, address) = (self.realm.name(self.server), self.realm.address(self.server));
            let ran = fence::run_command(&self.realm.fence_command, &name, &address, order.epoch).await;
            return ran.map(|()| Outcome::Done).map_err(StepFailure::refused);
        }
        if self.subject.is_none() {
            self.connect().await?;
        }
        if matches!(order.step, Step::SetWritable { .. }) {
            self.leave_read_pool().await;
        }
        // A process that was frozen must not go on where it was: looked at right before the first statement.
        if self.realm.clock.now() > order.expires {
            return Err(StepFailure::refused("expired before it was sent"));
        }
        let Some(subject) = &mut self.subject else { return Err(StepFailure::refused("not connected")) };
        let mut work = Work { realm: &self.realm, server: self.server, subject, deadline, changed: false };
        let result = work.run(&order.step, order.epoch).await;
        if result.as_ref().is_err_and(|failure| failure.lost) {
            self.subject = None;
        }
        if let (Step::SetWritable { .. }, Some(vip), Err(_)) = (&order.step, &self.realm.vip, &result) {
            vip.readmit(self.server);
        }
        result
    }

    /// Ends what clients have open to the server through the virtual address, which is for replicas.
    async fn leave_read_pool(&self) {
        let Some(vip) = &self.realm.vip else { return };
        if !timeout(EVICT_LIMIT, vip.evict(self.server)).await.unwrap_or(false) {
            let name = self.realm.name(self.server);
            // Without a writable primary all writes wait: worse than readers that read from it.
            warn!(server = name, "it may have clients of the virtual address when it becomes writable");
        }
    }
}
