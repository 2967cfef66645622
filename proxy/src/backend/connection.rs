//! One open connection to a server and what is known of its state.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use pointsman_protocol::capability::{Capabilities, Status};
use pointsman_router::intent::Flavour;
use pointsman_router::session::ConnectionState;
use pointsman_router::topology::ServerId;

use super::base_session::CharacterSet;
use super::budget::Permit;
use super::pool::KeyId;
use super::prepared::PreparedStatements;
use crate::buffer::Lane;

/// An open, authenticated connection. Lent to one session at a time; dropped, it is closed.
#[derive(Debug)]
pub struct ServerConnection {
    pub lane: Lane,
    pub server: ServerId,
    /// The server's own id of this connection, which KILL takes.
    pub thread_id: u32,
    /// Unique in this process: tells connections apart whatever ids servers give.
    pub serial: u64,
    pub key: KeyId,
    /// The topology's epoch at the time of opening; a later epoch makes the connection unusable.
    pub epoch: u64,
    /// The worker whose runtime the socket is registered with.
    pub worker: usize,
    pub capabilities: Capabilities,
    pub flavour: Flavour,
    /// The character set of the login, to which the session's goes back.
    pub character_set: CharacterSet,
    /// Status flags of the last answer.
    pub status: Status,
    pub state: ConnectionState,
    pub prepared: PreparedStatements,
    /// The session that used it last; its diagnostics and insert id are still here.
    pub owner: u32,
    pub insert_id: LastInsertId,
    /// A statement has left warnings since the last reset.
    pub has_warnings: bool,
    pub opened: Instant,
    /// When it last answered a client, or was opened.
    pub idle_since: Instant,
    pub permit: Permit,
}

impl ServerConnection {
    /// Closes the socket but keeps the right to have one open.
    pub fn close_keeping_permit(self: Box<Self>) -> Permit {
        let Self { permit, .. } = *self;
        permit
    }

    /// Registers the socket with the runtime of the worker that this is called on; none when the system refuses.
    pub fn move_to_worker(mut self: Box<Self>, worker: usize) -> Option<Box<Self>> {
        self.lane = self.lane.rebind().ok()?;
        self.worker = worker;
        Some(self)
    }

    /// Whether an idle connection is still good: nothing has arrived, not even the end of the stream.
    ///
    /// Costs no system call while the runtime has seen nothing on the socket.
    pub fn is_quiet(&mut self) -> bool {
        self.lane.is_empty() && self.lane.is_quiet()
    }
}

/// LAST_INSERT_ID() of a connection.
#[derive(Clone, Debug)]
pub enum LastInsertId {
    Is(u64),
    /// What the owner's last statement has made of it, to be left there when another session takes the connection.
    OfOwner(Arc<InsertId>),
    /// What a session that has ended left behind.
    Unknown,
}

impl LastInsertId {
    pub fn is(&self, value: u64) -> bool {
        matches!(self, Self::Is(known) if *known == value)
    }
}

/// A session's LAST_INSERT_ID(), for the time when the connection that knows it has gone to another session.
#[derive(Debug)]
pub struct InsertId {
    value: AtomicU64,
    /// The connection was asked; before that, `value` is what the answer said.
    asked: AtomicBool,
}

impl InsertId {
    /// What is likely, for as long as nobody has asked.
    pub fn new(likely: u64) -> Self {
        Self { value: AtomicU64::new(likely), asked: AtomicBool::new(false) }
    }

    pub fn get(&self) -> u64 {
        self.value.load(Ordering::Acquire)
    }

    /// The connection itself said so.
    pub fn confirm(&self, value: u64) {
        self.value.store(value, Ordering::Release);
        self.asked.store(true, Ordering::Release);
    }

    pub fn is_confirmed(&self) -> bool {
        self.asked.load(Ordering::Acquire)
    }
}

#[cfg(test)]
impl ServerConnection {
    /// A connection whose other end is the returned socket.
    pub(crate) fn for_tests(key: KeyId, permit: Permit) -> (Box<Self>, tokio::net::UnixStream) {
        let (near, far) = tokio::net::UnixStream::pair().unwrap();
        let now = Instant::now();
        let connection = Self {
            lane: Lane::new(crate::net::Stream::unix(near)),
            server: ServerId(0),
            thread_id: 7,
            serial: 1,
            key,
            epoch: 1,
            worker: 0,
            capabilities: Capabilities::PROTOCOL_41 | Capabilities::SESSION_TRACK,
            flavour: Flavour::Mariadb,
            character_set: CharacterSet::default(),
            status: Status::empty(),
            state: ConnectionState::fresh(None),
            prepared: PreparedStatements::default(),
            owner: 0,
            insert_id: LastInsertId::Is(0),
            has_warnings: false,
            opened: now,
            idle_since: now,
            permit,
        };
        (Box::new(connection), far)
    }
}
