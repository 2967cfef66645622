//! One client's session: reads a command, decides, runs it, and lends server connections meanwhile.
//!
//! The loop here calls every step; no step calls the next one.

mod alive;
mod answer;
mod checkout;
mod command;
mod control;
mod execute;
mod explain;
mod insert_id;
mod journal;
mod kill;
pub mod login;
mod parameter_types;
mod prepared;
pub mod relay;
mod replay;
mod statement;
mod substitute;
mod translate;
mod tunnel;

use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use pointsman_config::UnknownOutcome;
use pointsman_protocol::capability::Capabilities;
use pointsman_protocol::packet::{HEADER_LEN, Header};
use pointsman_router::session::SessionState;
use pointsman_router::topology::ServerId;

use crate::backend::connection::{InsertId, ServerConnection};
use crate::buffer::Lane;
use crate::error::{Origin, SessionError};
use crate::net::{ClientAddress, ListenerKind, Stream};
use crate::session::journal::Journal;
pub use crate::session::login::Identity;
use crate::session::login::{LoggedIn, LoginError};
use crate::session::prepared::Statements;
use crate::worker::{Order, Slot, Worker};

/// A client that has logged in.
#[derive(Debug)]
pub struct Session {
    worker: Rc<Worker>,
    slot: Rc<Slot>,
    client: Lane,
    /// Who the client is and what it can read.
    login: Identity,
    listener: ListenerKind,
    address: ClientAddress,
    state: SessionState,
    statements: Statements,
    /// The server connection of a pinned session.
    held: Option<Box<ServerConnection>>,
    /// `pool.mode = "session"`: connections kept for the life of the client, by server.
    kept: Vec<Option<Box<ServerConnection>>>,
    /// By server, the serial of the connection used last: its diagnostics may still be ours.
    last_used: Vec<u64>,
    /// The server of the previous statement.
    last_server: Option<ServerId>,
    /// Servers that refuse this user although the primary accepts it.
    left_out: Vec<ServerId>,
    last: checkout::LastStatement,
    /// The connection on which LAST_INSERT_ID() is ours, and where it is saved when that one is taken.
    insert_id: Option<(u64, Arc<InsertId>)>,
    /// What the open transaction has done.
    journal: Journal,
}

/// Whether a session goes on after a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flow {
    Continue,
    Quit,
}

/// Serves one client from its first byte to its last.
pub async fn run(
    worker: Rc<Worker>,
    slot: Rc<Slot>,
    stream: Stream,
    listener: ListenerKind,
    address: ClientAddress,
) {
    let lane = Lane::new(stream);
    let logged_in = Box::pin(login::login(&worker, &slot, lane, listener, &address)).await;
    match logged_in {
        Ok(logged_in) => {
            worker.counters.logins.one();
            Session::new(worker, slot, logged_in, listener, address).serve().await;
        }
        Err(error) => report_failed_login(&worker, &address, &error),
    }
}

fn report_failed_login(worker: &Worker, address: &ClientAddress, error: &LoginError) {
    worker.counters.failed_logins.one();
    tracing::info!(client = %address, %error, "login failed");
}

impl Session {
    fn new(
        worker: Rc<Worker>,
        slot: Rc<Slot>,
        logged_in: LoggedIn,
        listener: ListenerKind,
        address: ClientAddress,
    ) -> Self {
        let servers = worker.shared.roster.borrow().len();
        let LoggedIn { lane, identity } = logged_in;
        let mut session = Self {
            client: lane,
            listener,
            address,
            state: SessionState::default(),
            statements: Statements::default(),
            held: None,
            kept: (0..servers).map(|_| None).collect(),
            last_used: vec![0; servers],
            last_server: None,
            left_out: Vec::new(),
            last: checkout::LastStatement::default(),
            insert_id: None,
            journal: Journal::default(),
            login: identity,
            worker,
            slot,
        };
        session.start_over();
        session
    }

    /// The state of a session that has just logged in.
    fn start_over(&mut self) {
        let defaults = self.worker.shared.defaults.get();
        self.state = login::fresh_state(&self.worker, &self.login);
        self.state.raise_floor(&self.worker.shared.acknowledged.current());
        self.statements.forget();
        self.left_out.clear();
        // Another user's connections may lie in the pool under this session's name.
        self.last_used.fill(0);
        self.insert_id = None;
        self.journal.clear();
        let seconds = if self.login.capabilities.contains(Capabilities::INTERACTIVE) {
            defaults.interactive_timeout_seconds
        } else {
            defaults.wait_timeout_seconds
        };
        self.slot.wait_timeout.set(Duration::from_secs(seconds.max(1)));
        self.slot.account.set(self.login.account.id);
        let mut view = self.slot.view.borrow_mut();
        view.user = String::from_utf8_lossy(&self.login.user).into_owned();
        view.client = self.address.to_string();
        view.state = "idle";
        drop(view);
        self.show_schema();
        self.show_pins();
    }

    fn show_schema(&self) {
        let schema = self.state.schema().map(|name| String::from_utf8_lossy(name).into_owned());
        self.slot.view.borrow_mut().schema = schema;
    }

    async fn serve(mut self) {
        self.worker.read_clock();
        let ended = loop {
            let len = match self.next_command().await {
                Ok(len) => len,
                Err(error) => break error,
            };
            self.slot.idle_since.set(None);
            // Boxed, so that an idle session does not keep room for the largest statement's state.
            match Box::pin(self.command(len)).await {
                Ok(Flow::Continue) => {}
                Ok(Flow::Quit) => break SessionError::ClientClosed,
                Err(error) => break error,
            }
        };
        Box::pin(self.end(ended)).await;
    }

    /// Waits for a whole command packet and gives its length with the header.
    ///
    /// Only the first 16 MiB are waited for; what continues a larger one is streamed later. Cancel safe.
    async fn next_command(&mut self) -> Result<usize, SessionError> {
        self.slot.idle_since.set(Some(self.worker.moment()));
        while self.client.bytes().len() < HEADER_LEN {
            self.await_client().await?;
        }
        self.client.renumber(0);
        let header = Header::parse(self.client.bytes()).ok_or(SessionError::Malformed("no header"))?;
        if header.sequence != 0 {
            return Err(SessionError::OutOfOrder(header.sequence));
        }
        if header.len == 0 {
            return Err(SessionError::Malformed("empty packet"));
        }
        let limit = self.worker.shared.max_allowed_packet();
        if header.len > limit {
            return Err(SessionError::TooLarge { size: header.len, limit });
        }
        let total = HEADER_LEN + header.len;
        if self.client.bytes().len() < total {
            relay::fill_in_time(&mut self.client, total).await.map_err(SessionError::ClientIo)?;
        }
        Ok(total)
    }

    /// Waits for bytes of the client or an order that ends the session.
    async fn await_client(&mut self) -> Result<(), SessionError> {
        poll_fn(|cx| {
            self.answer_questions();
            let order = self.slot.order.get();
            if order != Order::None && (order != Order::Drain || self.state.pins().is_empty()) {
                return Poll::Ready(Err(SessionError::Ordered(order)));
            }
            match self.client.poll_fill(cx) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(SessionError::ClientClosed)),
                Poll::Ready(Ok(_)) => return Poll::Ready(Ok(())),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(SessionError::ClientIo(error))),
                Poll::Pending => {}
            }
            self.slot.register(cx.waker());
            Poll::Pending
        })
        .await
    }

    /// Tells the client why, gives server connections back or closes them.
    async fn end(mut self, error: SessionError) {
        self.log_end(&error);
        if let Some(last_word) = error.client_error().filter(|_| !self.ends_silently(&error)) {
            let sequence = if self.slot.idle_since.get().is_some() { 0 } else { 1 };
            let packet = last_word.packet(sequence);
            // The client may be gone; there is nothing more to do for it.
            drop(tokio::time::timeout(LAST_WORD_TIMEOUT, self.client.write_all(&packet)).await);
        }
        // What the session left on a held connection ends with the connection.
        self.held = None;
        self.kept.clear();
        self.worker.pool.close_session(self.slot.id);
    }

    /// `failover.unknown_outcome = "close"`: for clients that take a lost connection better than error 1158. And a client
    /// that waits for no answer sees its connection closed, as by a server: many take a packet out of turn for a fault.
    fn ends_silently(&self, error: &SessionError) -> bool {
        let waits_for_none = self.slot.idle_since.get().is_some();
        match error {
            SessionError::OutcomeUnknown { .. } => {
                self.worker.shared.config.failover.unknown_outcome == UnknownOutcome::Close
            }
            SessionError::Ordered(order) => waits_for_none && *order != Order::IdleTimeout,
            SessionError::ClientClosed
            | SessionError::ClientIo(_)
            | SessionError::OutOfOrder(_)
            | SessionError::Malformed(_)
            | SessionError::TooLarge { .. }
            | SessionError::StateLost { .. }
            | SessionError::MalformedAnswer { .. }
            | SessionError::UnexpectedInfile(_)
            | SessionError::Refused(_) => false,
        }
    }

    fn log_end(&self, error: &SessionError) {
        match error.origin() {
            Origin::Client => {
                if !matches!(error, SessionError::ClientClosed) {
                    self.worker.counters.client_errors.one();
                    tracing::info!(session = self.slot.id, client = %self.address, %error, "session ended");
                }
            }
            Origin::Server(server) => {
                if let Some(counters) = self.worker.counters.server(server) {
                    counters.errors.one();
                }
                let topology = self.worker.topology();
                let name = topology.server(server).map_or("", |view| view.name.as_str());
                tracing::warn!(session = self.slot.id, client = %self.address, server = name, %error, "session ended");
            }
            Origin::Proxy => {
                tracing::debug!(session = self.slot.id, client = %self.address, %error, "session ended");
            }
        }
    }
}

const LAST_WORD_TIMEOUT: Duration = Duration::from_secs(1);
