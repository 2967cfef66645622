//! What a worker knows of a session, and how it tells the session something.

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

use pointsman_router::classify::{Catalogue, Digest, Mode};
use pointsman_router::intent::Intent;
use pointsman_router::session::Pins;
use pointsman_router::topology::ServerId;
use tokio::sync::mpsc;

/// One session as `pointsman sessions` shows it.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct SessionView {
    pub id: u32,
    pub user: String,
    pub client: String,
    pub schema: Option<String>,
    /// `idle`, `running`, `login`.
    pub state: &'static str,
    pub server: Option<u16>,
    /// Why the session keeps its server connection.
    pub pins: Vec<&'static str>,
    /// Off, all that it reads is part of a transaction, on the primary.
    pub autocommit: bool,
    pub pinned_seconds: f64,
    pub idle_seconds: f64,
    /// The digest of the statement that pinned it, in hex.
    pub digest: String,
    pub statements: u64,
}

/// Asked of a session by an operator; what is never answered is dropped with the session.
#[derive(Debug)]
pub struct Question {
    pub sql: Arc<[u8]>,
    pub answer: mpsc::UnboundedSender<Reply>,
}

/// See [`Question`].
#[derive(Clone, Debug)]
pub enum Reply {
    Explained(Box<Explained>),
    /// As many others as may wait do so already.
    Crowded,
}

/// What a statement would do in a session.
#[derive(Clone, Debug)]
pub struct Explained {
    pub intent: Arc<Intent>,
    /// How the session's statements are read.
    pub mode: Mode,
    pub catalogue: Arc<Catalogue>,
    /// None where it would reach no server now.
    pub server: Option<ServerId>,
    /// Why there.
    pub route: String,
}

/// What a session's slot has been told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Order {
    #[default]
    None,
    /// End at the next transaction boundary.
    Drain,
    /// Idle for longer than wait_timeout.
    IdleTimeout,
    /// KILL CONNECTION.
    Kill,
    /// The process ends now.
    Stop,
}

/// A session as its worker sees it. Shared by the session's task and the worker's inbox on one thread.
#[derive(Debug)]
pub struct Slot {
    pub id: u32,
    pub order: Cell<Order>,
    pub waker: RefCell<Option<Waker>>,
    /// The statement that runs now, for KILL.
    pub running: Cell<Option<(ServerId, u32)>>,
    /// The server connection that this session has in its hands, running or pinned.
    pub holds: Cell<Option<(ServerId, u32)>>,
    /// Kills under way: the server connection must not be lent to anybody until they have ended.
    pub killing: Cell<u32>,
    /// See [`Slot::ask`].
    pub questions: RefCell<Vec<Question>>,
    /// A server that this session waits for was found dead.
    pub server_down: Cell<bool>,
    pub account: Cell<u64>,
    /// None while a statement runs.
    pub idle_since: Cell<Option<Instant>>,
    pub wait_timeout: Cell<Duration>,
    pub view: RefCell<SessionView>,
    pub pins: Cell<Pins>,
    pub autocommit: Cell<bool>,
    pub pinned_since: Cell<Option<Instant>>,
    /// The statement that pinned it; none for a command without text.
    pub pinned_by: Cell<Option<Digest>>,
    /// Statements that servers have answered.
    pub statements: Cell<u64>,
}

impl Slot {
    pub(crate) fn new(id: u32) -> Self {
        Self {
            id,
            order: Cell::default(),
            waker: RefCell::default(),
            running: Cell::default(),
            holds: Cell::default(),
            killing: Cell::default(),
            questions: RefCell::default(),
            server_down: Cell::default(),
            account: Cell::default(),
            idle_since: Cell::new(Some(Instant::now())),
            wait_timeout: Cell::new(Duration::from_secs(28_800)),
            view: RefCell::new(SessionView { id, state: "login", ..SessionView::default() }),
            pins: Cell::default(),
            autocommit: Cell::new(true),
            pinned_since: Cell::default(),
            pinned_by: Cell::default(),
            statements: Cell::default(),
        }
    }

    /// Asks the session something, which it answers when it next waits for its client.
    pub fn ask(&self, question: Question) {
        let mut questions = self.questions.borrow_mut();
        questions.retain(|waiting| !waiting.answer.is_closed());
        if questions.len() < MOST_QUESTIONS {
            questions.push(question);
            self.wake();
        } else {
            let _gone = question.answer.send(Reply::Crowded);
        }
    }

    /// Gives an order unless a stronger one stands, and wakes the session.
    pub fn give(&self, order: Order) {
        if order > self.order.get() {
            self.order.set(order);
        }
        self.wake();
    }

    pub fn wake(&self) {
        if let Some(waker) = self.waker.borrow().as_ref() {
            waker.wake_by_ref();
        }
    }

    /// Remembers who to wake; free when it is the same task as before.
    pub fn register(&self, waker: &Waker) {
        let mut registered = self.waker.borrow_mut();
        if !registered.as_ref().is_some_and(|known| known.will_wake(waker)) {
            *registered = Some(waker.clone());
        }
    }

    /// The session as it is now.
    pub fn show(&self) -> SessionView {
        let mut view = self.view.borrow().clone();
        view.state = match (self.idle_since.get(), view.state) {
            (_, "login") => "login",
            (Some(_), _) => "idle",
            (None, _) => "running",
        };
        view.idle_seconds = self.idle_since.get().map_or(0.0, |since| since.elapsed().as_secs_f64());
        if let Some(since) = self.pinned_since.get() {
            view.pinned_seconds = since.elapsed().as_secs_f64();
            view.digest = self.pinned_by.get().map(|digest| digest.to_string()).unwrap_or_default();
        }
        view.statements = self.statements.get();
        view.autocommit = self.autocommit.get();
        view
    }
}

/// Of one session.
const MOST_QUESTIONS: usize = 16;
