//! Directors that agree whose the virtual address is; the hosts only note what they are told.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use pointsman::failover::coordinator::Coordinator;
use pointsman::vip::Ownership;
use pointsman::vip::lease::{Ask, Host, Keeper, Refused};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{interval, timeout};

use crate::{Failure, Outcome, eventually};

/// All directors, and whether two of them ever owned the address.
#[derive(Debug)]
pub struct Directors {
    pub all: Vec<Director>,
    two: Arc<AtomicBool>,
    sampler: JoinHandle<()>,
}

/// What it was told, its task, and the way to ask it; ends when dropped.
#[derive(Debug)]
pub struct Director {
    pub name: String,
    note: Note,
    task: JoinHandle<()>,
    asks: mpsc::Sender<Ask>,
}

impl Directors {
    /// Starts one for each name, with its own view of the register.
    pub fn start(registers: Vec<(String, Arc<dyn Coordinator>)>) -> Self {
        let all: Vec<_> =
            registers.into_iter().map(|(name, register)| Director::start(name, register)).collect();
        let two = Arc::new(AtomicBool::new(false));
        let notes = all.iter().map(|director| director.note.clone()).collect();
        let sampler = tokio::spawn(sample(notes, two.clone()));
        Self { all, two, sampler }
    }

    /// Waits until one owns the address.
    ///
    /// # Panics
    ///
    /// When it takes too long.
    pub async fn owner(&self) -> &Director {
        eventually("somebody owns the address", LIMIT, async || self.all.iter().any(Director::owns)).await;
        self.all.iter().find(|director| director.owns()).unwrap_or(&self.all[0])
    }

    /// Waits until somebody else than `old` owns it; says who, and how long that took.
    ///
    /// # Panics
    ///
    /// When it takes too long.
    pub async fn next<'a>(&'a self, old: &'a Director) -> (&'a Director, Duration) {
        let began = Instant::now();
        let others = || self.all.iter().find(|director| director.name != old.name && director.owns());
        eventually("another one owns the address", LIMIT, async || others().is_some()).await;
        (others().unwrap_or(old), began.elapsed())
    }

    /// Waits until none owns the address.
    ///
    /// # Panics
    ///
    /// When it takes too long.
    pub async fn nobody(&self) {
        eventually("nobody owns it", LIMIT, async || !self.all.iter().any(Director::owns)).await;
    }

    /// Ends them all.
    ///
    /// # Errors
    ///
    /// Never.
    ///
    /// # Panics
    ///
    /// When two ever owned the address.
    pub fn end(self) -> Outcome {
        self.sampler.abort();
        assert!(!self.two.load(Ordering::Relaxed), "two owned the address at a time");
        Ok(())
    }
}

impl Director {
    fn start(name: String, register: Arc<dyn Coordinator>) -> Self {
        let note = Note::default();
        let (asks, inbox) = mpsc::channel(4);
        let keeper = Keeper::new(register, name.clone(), LEASE, note.clone());
        Self { name, note, task: tokio::spawn(keeper.run(inbox)), asks }
    }

    pub fn owns(&self) -> bool {
        self.note.owns()
    }

    /// Whether it could serve the address from now on.
    pub fn enable(&self, able: bool) {
        self.note.unable.store(!able, Ordering::Relaxed);
    }

    /// As a process that dies: it says nothing any more.
    pub fn kill(&self) {
        self.task.abort();
    }

    /// Asks it to give the address to another one.
    ///
    /// # Errors
    ///
    /// When it does not answer.
    pub async fn give_away(&self) -> Result<Result<String, Refused>, Failure> {
        let (moved, answer) = oneshot::channel();
        self.asks.send(Ask::Move(moved)).await?;
        Ok(timeout(LIMIT, answer).await??)
    }

    /// Ends it as the end of the process does.
    ///
    /// # Errors
    ///
    /// When it does not answer.
    pub async fn leave(&self) -> Outcome {
        let (done, left) = oneshot::channel();
        self.asks.send(Ask::Leave(done)).await?;
        Ok(timeout(LIMIT, left).await??)
    }
}

impl Drop for Director {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What a host was told.
#[derive(Clone, Debug, Default)]
struct Note {
    until: Arc<Mutex<Option<Instant>>>,
    unable: Arc<AtomicBool>,
}

impl Note {
    fn owns(&self) -> bool {
        self.until.lock().unwrap_or_else(PoisonError::into_inner).is_some_and(|until| until > Instant::now())
    }
}

impl Host for Note {
    fn is_able(&self) -> bool {
        !self.unable.load(Ordering::Relaxed)
    }

    fn own(&self, ownership: Ownership) {
        *self.until.lock().unwrap_or_else(PoisonError::into_inner) = match ownership {
            Ownership::Until(until) => Some(until),
            Ownership::None => None,
            Ownership::Alone => panic!("alone, with others"),
        };
    }

    async fn give_up(&mut self) -> bool {
        self.own(Ownership::None);
        true
    }
}

async fn sample(notes: Vec<Note>, two: Arc<AtomicBool>) {
    let mut samples = interval(Duration::from_millis(10));
    loop {
        samples.tick().await;
        if notes.iter().filter(|note| note.owns()).count() > 1 {
            two.store(true, Ordering::Relaxed);
        }
    }
}

/// Of the address: more than one renewal of a loaded machine takes.
pub const LEASE: Duration = Duration::from_secs(3);
const LIMIT: Duration = Duration::from_secs(20);
