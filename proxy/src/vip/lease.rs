//! Keeps the lease of the virtual address through the coordinator, and tells the director whose the address is.
//!
//! What decides is `pointsman_router::vip::Lease`; this reads and writes the register, and gives the address away before
//! it says so.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pointsman_router::vip::{Lease, Swap, Terms};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{sleep, sleep_until, timeout};
use tracing::{info, warn};

use super::Ownership;
use crate::failover::coordinator::{Cas, Coordinator, CoordinatorError, Heard};

/// Who has or has not the address on its host.
pub trait Host: Send {
    /// Whether it could serve the address.
    fn is_able(&self) -> bool;

    /// Tells whose the address is.
    fn own(&self, ownership: Ownership);

    /// Takes the address away, after the connections that are being made; whether it is gone.
    fn give_up(&mut self) -> impl Future<Output = bool> + Send;
}

/// What a keeper is asked for.
#[derive(Debug)]
pub enum Ask {
    /// To give the address to another proxy, and say to which.
    Move(Moved),
    /// To give it up, if it is ours, and end.
    Leave(oneshot::Sender<()>),
}

type Moved = oneshot::Sender<Result<String, Refused>>;

/// Why the address has not moved.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("this proxy does not have the virtual address, {0} has it: ask there; nothing was changed")]
    Elsewhere(String),
    #[error("nobody has the virtual address; nothing was changed")]
    Nowhere,
    #[error("the coordinator does not answer: {0}; the address is given away when its lease ends")]
    Unreachable(String),
    #[error("no other proxy took the virtual address within {} s; it is free for any that can serve it", .0.as_secs())]
    NobodyElse(Duration),
}

/// One proxy's part in the lease.
pub struct Keeper<H> {
    coordinator: Arc<dyn Coordinator>,
    name: String,
    lease: Lease,
    length: Duration,
    host: H,
    started: Instant,
    /// Whoever waits for another owner, and until when.
    waiting: Option<(Moved, Duration)>,
    told: Option<Duration>,
}

impl<H: Host> Keeper<H> {
    pub fn new(coordinator: Arc<dyn Coordinator>, name: String, length: Duration, host: H) -> Self {
        let lease = Lease::new(name.clone(), length);
        Self { coordinator, name, lease, length, host, started: Instant::now(), waiting: None, told: None }
    }

    /// Runs until nobody can ask any more.
    pub async fn run(mut self, mut asks: mpsc::Receiver<Ask>) {
        let mut heard = self.coordinator.watch();
        let mut next_read = Duration::ZERO;
        loop {
            if self.now() >= next_read {
                self.read().await;
                next_read = self.now() + self.length / READS;
            }
            self.hear(&mut heard);
            self.advance().await;
            let wake = self.wake(next_read);
            tokio::select! {
                changed = heard.changed() => {
                    // A back end that has ended answers no read either.
                    if changed.is_err() {
                        sleep_until(wake.into()).await;
                    }
                }
                ask = asks.recv() => match ask {
                    Some(Ask::Move(moved)) => self.asked(moved).await,
                    Some(Ask::Leave(done)) => {
                        self.leave().await;
                        // Whoever asked may have gone away.
                        let _gone = done.send(());
                        return;
                    }
                    None => return self.leave().await,
                },
                () = sleep_until(wake.into()) => {}
            }
        }
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    fn wake(&self, next_read: Duration) -> Instant {
        let due = self.lease.due(self.host.is_able()).filter(|due| *due > self.now());
        self.started + due.map_or(next_read, |due| due.min(next_read)).min(self.now() + LOOK)
    }

    async fn read(&mut self) {
        match self.coordinator.get().await {
            Ok(found) => self.lease.hear(found.revision, decode(found.value.as_deref()), self.now()),
            Err(error) => warn!(%error, "the lease of the virtual address cannot be read"),
        }
    }

    fn hear(&mut self, heard: &mut watch::Receiver<Heard>) {
        let newest = heard.borrow_and_update().clone();
        if let Some((revision, value)) = newest {
            self.lease.hear(revision, decode(Some(&value)), self.now());
        }
    }

    /// Takes, keeps or gives up the address, and tells the host.
    async fn advance(&mut self) {
        let able = self.host.is_able();
        if !able && self.lease.until().is_some() && self.give_up().await.is_ok() {
            warn!("the virtual address is given up: it cannot be served here");
        }
        if let Some(swap) = self.lease.swap(able, self.now()) {
            let was_ours = self.lease.until().is_some();
            // An unknown outcome shows with the next read.
            match self.write(swap).await {
                Ok(()) if !was_ours && self.lease.until().is_some() => {
                    info!("the lease of the virtual address is ours")
                }
                Ok(()) => {}
                Err(error) => warn!(%error, "the lease of the virtual address is not prolonged"),
            }
        }
        self.tell();
        self.answer_waiting();
    }

    /// Writes within what is left of a lease that is ours.
    async fn write(&mut self, swap: Swap) -> Result<(), CoordinatorError> {
        let asked = self.now();
        let value = serde_json::to_string(&swap.terms).unwrap_or_default();
        let swapped = timeout(self.length, self.coordinator.cas(swap.expected, value)).await;
        match swapped.unwrap_or(Err(CoordinatorError::TimedOut(self.length)))? {
            Cas::Won { revision } => self.lease.won(swap, revision, asked, self.now()),
            Cas::Lost { revision, value } => {
                self.lease.hear(revision, decode(value.as_deref()), self.now());
            }
        }
        Ok(())
    }

    fn tell(&mut self) {
        let until = self.lease.until();
        if until != self.told {
            self.told = until;
            self.host.own(until.map_or(Ownership::None, |until| Ownership::Until(self.started + until)));
        }
    }

    /// First the address goes, then it is said that it may be taken: never have two hosts it.
    async fn give_up(&mut self) -> Result<(), CoordinatorError> {
        let until = self.lease.until();
        let Some(mut swap) = self.lease.give_up() else { return Ok(()) };
        self.told = None;
        if !timeout(GONE_WITHIN, self.host.give_up()).await.unwrap_or(false) {
            warn!("the virtual address cannot be taken away: its lease is left to end");
            return Ok(());
        }
        // With no answer nobody knows that it is free, and the address is nowhere until the lease ends.
        for _ in 1..TRIES {
            match self.write(swap.clone()).await {
                Ok(()) => match self.lease.still_ours() {
                    Some(again) => swap = again,
                    None => return Ok(()),
                },
                Err(error) if until.is_some_and(|until| self.now() >= until) => return Err(error),
                Err(error) => warn!(%error, "not heard that the virtual address is free: said again"),
            }
            sleep(TRY_AGAIN).await;
        }
        self.write(swap).await
    }

    async fn leave(&mut self) {
        match self.give_up().await {
            Ok(()) => {}
            Err(error) => warn!(%error, "the lease of the virtual address is left to end"),
        }
        self.host.own(Ownership::None);
    }

    async fn asked(&mut self, ask: Moved) {
        let refused = if self.lease.until().is_some() {
            match self.give_up().await {
                Ok(()) => {
                    info!("the virtual address is given up, as asked");
                    let until = self.now() + self.length;
                    self.waiting = Some((ask, until));
                    return;
                }
                Err(error) => Refused::Unreachable(error.to_string()),
            }
        } else {
            self.lease.owner().map_or(Refused::Nowhere, |owner| Refused::Elsewhere(owner.to_owned()))
        };
        // Whoever asked may have gone away.
        let _gone = ask.send(Err(refused));
    }

    fn answer_waiting(&mut self) {
        let Some((_, until)) = &self.waiting else { return };
        let answer = match self.lease.owner() {
            Some(owner) if owner != self.name => Ok(owner.to_owned()),
            _ if self.now() >= *until => Err(Refused::NobodyElse(self.length)),
            _ => return,
        };
        if let Some((ask, _)) = self.waiting.take() {
            let _gone = ask.send(answer);
        }
    }
}

fn decode(value: Option<&str>) -> Terms {
    value.map_or_else(Terms::default, |text| serde_json::from_str(text).unwrap_or_else(|_| Terms::unknown()))
}

/// How often the register is read within a lease, beside what is heard of it.
const READS: u32 = 3;
/// How often it is looked at whether the address could be served here.
const LOOK: Duration = Duration::from_millis(200);
/// How often it is said that the address is free.
const TRIES: u32 = 3;
const TRY_AGAIN: Duration = Duration::from_millis(50);
const GONE_WITHIN: Duration = Duration::from_secs(2);
