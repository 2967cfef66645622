//! Whose the virtual address is, decided through a real etcd; the hosts only note what they are told.

#![allow(clippy::print_stdout, reason = "what was measured is part of the report")]

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use pointsman::failover::coordinator::Etcd as Client;
use pointsman::vip::Ownership;
use pointsman::vip::lease::{Ask, Host, Keeper, Refused};
use pointsman_integration_tests::{Etcd, Failure, Flavour, Outcome, Plan, Suite, eventually};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{interval, timeout};

fn main() {
    let mut suite = Suite::new();
    let stage = suite.stage(Plan::new(Flavour::Mariadb));
    suite.test(&stage, "an owner that stands still: another one within lease and a second", |_| {
        stands_still()
    });
    suite.test(&stage, "moved as asked, and at the end of the process", |_| moved());
    suite.test(&stage, "only who can serve it has it", |_| able());
    suite.test(&stage, "without etcd the owner lets go", |_| without_etcd());
    suite.run()
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

/// A proxy's part: what it was told, its task, and the way to ask it.
struct Part {
    name: String,
    note: Note,
    task: JoinHandle<()>,
    asks: mpsc::Sender<Ask>,
}

/// All proxies, and whether two of them ever owned the address.
struct Parts {
    etcd: Etcd,
    parts: Vec<Part>,
    two: Arc<AtomicBool>,
    sampler: JoinHandle<()>,
}

impl Parts {
    async fn start(count: usize) -> Result<Self, Failure> {
        let etcd = Etcd::start(1).await?;
        let mut parts = Vec::new();
        for number in 0..count {
            let name = format!("proxy-{number}");
            let client = Client::new(&etcd.endpoints(), "/pointsman", "shop/vip/10.0.0.1", &name, LEASE)?;
            let note = Note::default();
            let (asks, inbox) = mpsc::channel(4);
            let keeper = Keeper::new(Arc::new(client), name.clone(), LEASE, note.clone());
            parts.push(Part { name, note, task: tokio::spawn(keeper.run(inbox)), asks });
        }
        let two = Arc::new(AtomicBool::new(false));
        let notes: Vec<Note> = parts.iter().map(|part| part.note.clone()).collect();
        let sampler = tokio::spawn(sample(notes, two.clone()));
        Ok(Self { etcd, parts, two, sampler })
    }

    async fn owner(&self) -> &Part {
        eventually("somebody owns the address", LIMIT, async || {
            self.parts.iter().any(|part| part.note.owns())
        })
        .await;
        self.parts.iter().find(|part| part.note.owns()).unwrap_or(&self.parts[0])
    }

    /// Waits until somebody else than `old` owns it; says who, and how long that took.
    async fn next<'a>(&'a self, old: &'a Part) -> (&'a Part, Duration) {
        let began = Instant::now();
        let others = || self.parts.iter().find(|part| part.name != old.name && part.note.owns());
        eventually("another one owns the address", LIMIT, async || others().is_some()).await;
        (others().unwrap_or(old), began.elapsed())
    }

    fn end(self) -> Outcome {
        self.sampler.abort();
        for part in &self.parts {
            part.task.abort();
        }
        assert!(!self.two.load(Ordering::Relaxed), "two owned the address at a time");
        Ok(())
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

async fn stands_still() -> Outcome {
    let parts = Parts::start(3).await?;
    let owner = parts.owner().await;
    owner.task.abort();
    let (_next, took) = parts.next(owner).await;
    println!("another owner after {} ms, the lease is {} ms", took.as_millis(), LEASE.as_millis());
    assert!(took < LEASE + Duration::from_secs(1), "{took:?}");
    parts.end()
}

async fn moved() -> Outcome {
    let parts = Parts::start(3).await?;
    let first = parts.owner().await;
    let standby = parts.parts.iter().find(|part| part.name != first.name).ok_or("no other one")?;
    assert_eq!(ask(standby).await?, Err(Refused::Elsewhere(first.name.clone())));
    let answer = ask(first).await?;
    let (second, _) = parts.next(first).await;
    assert_eq!(answer, Ok(second.name.clone()));
    // Who leaves does not make the others wait for the end of its lease.
    let (done, left) = oneshot::channel();
    second.asks.send(Ask::Leave(done)).await?;
    timeout(LIMIT, left).await??;
    let (_third, took) = parts.next(second).await;
    assert!(took < LEASE / 2, "{took:?}");
    parts.end()
}

async fn ask(part: &Part) -> Result<Result<String, Refused>, Failure> {
    let (moved, answer) = oneshot::channel();
    part.asks.send(Ask::Move(moved)).await?;
    Ok(timeout(LIMIT, answer).await??)
}

async fn able() -> Outcome {
    let parts = Parts::start(2).await?;
    let owner = parts.owner().await;
    owner.note.unable.store(true, Ordering::Relaxed);
    let (second, _) = parts.next(owner).await;
    second.note.unable.store(true, Ordering::Relaxed);
    eventually("nobody owns it", LIMIT, async || parts.parts.iter().all(|part| !part.note.owns())).await;
    owner.note.unable.store(false, Ordering::Relaxed);
    eventually("it comes back to who can", LIMIT, async || owner.note.owns()).await;
    parts.end()
}

async fn without_etcd() -> Outcome {
    let parts = Parts::start(2).await?;
    let owner = parts.owner().await;
    parts.etcd.kill(0).await?;
    let began = Instant::now();
    eventually("nobody owns it", LIMIT, async || !owner.note.owns()).await;
    assert!(began.elapsed() < LEASE + Duration::from_millis(100), "{:?}", began.elapsed());
    assert!(parts.parts.iter().all(|part| !part.note.owns()));
    parts.end()
}

/// More than one renewal of a loaded machine takes.
const LEASE: Duration = Duration::from_secs(3);
const LIMIT: Duration = Duration::from_secs(20);
