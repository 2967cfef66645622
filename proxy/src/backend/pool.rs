//! The idle connections of one worker.
//!
//! A connection without work has no task: it lies in a list, and whether it is still alive is asked when it is
//! lent. Lists are per worker, so lending takes no lock; only the budget of a server is shared.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pointsman_router::topology::ServerId;

use super::budget::{Budget, Grant, Permit};
use super::connection::ServerConnection;
use super::prepared::StatementKey;
use crate::fences::Fences;

/// Stands for everything that two sessions must have in common to use the same server connection: account,
/// credential, capabilities, character set of the login.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId(pub u32);

/// What a session asks the pool for.
#[derive(Clone, Copy, Debug)]
pub struct Want {
    pub server: ServerId,
    pub key: KeyId,
    pub session: u32,
    /// The fingerprint of the session's replayable state.
    pub fingerprint: u64,
    pub has_schema: bool,
    pub epoch: u64,
}

/// How long connections are kept.
#[derive(Clone, Copy, Debug)]
pub struct Keeping {
    pub idle_timeout: Duration,
    pub max_lifetime: Duration,
    /// Idle connections to each server, over all workers, that `idle_timeout` leaves alone.
    pub min_idle: usize,
    /// Connections of an older one are of no use.
    pub epoch: u64,
}

impl Keeping {
    pub fn new(settings: &pointsman_config::Pool, epoch: u64) -> Self {
        let &pointsman_config::Pool { idle_timeout, max_lifetime, min_idle, .. } = settings;
        Self { idle_timeout, max_lifetime, min_idle: min_idle as usize, epoch }
    }
}

/// What came of looking for a connection without waiting.
#[derive(Debug)]
pub enum Found {
    Idle(Box<ServerConnection>),
    /// None idle, but one more may be opened.
    MayOpen(Permit),
    /// The server's limit is reached.
    AtLimit,
}

/// Idle connections by server, most recently used last.
#[allow(
    clippy::vec_box,
    reason = "a connection moves between lists and sessions: one pointer, not half a kilobyte"
)]
#[derive(Debug)]
pub struct IdlePool {
    lists: RefCell<Vec<Vec<Box<ServerConnection>>>>,
    worker: usize,
    budgets: Vec<Arc<Budget>>,
    /// Told of connections that have ended by themselves.
    fences: Arc<Fences>,
}

impl IdlePool {
    /// The idle connections of the worker with this index.
    pub fn new(worker: usize, budgets: Vec<Arc<Budget>>, fences: Arc<Fences>) -> Self {
        let lists = RefCell::new(budgets.iter().map(|_| Vec::new()).collect());
        Self { lists, worker, budgets, fences }
    }

    pub fn budget(&self, server: ServerId) -> Option<&Arc<Budget>> {
        self.budgets.get(usize::from(server.0))
    }

    /// The best idle connection, or the right to open one.
    pub fn find(&self, want: &Want) -> Found {
        while let Some(mut connection) = self.take_best(want) {
            if connection.is_quiet() {
                return Found::Idle(connection);
            }
            self.fences.suspect(want.server);
        }
        match self.budget(want.server).and_then(Budget::try_acquire) {
            Some(permit) => Found::MayOpen(permit),
            None => self.evict_other_key(want).map_or(Found::AtLimit, Found::MayOpen),
        }
    }

    /// The connection that this session used last, if nobody has used it since.
    pub fn take_own(&self, server: ServerId, serial: u64, session: u32) -> Option<Box<ServerConnection>> {
        let mut lists = self.lists.borrow_mut();
        let list = lists.get_mut(usize::from(server.0))?;
        let at = list.iter().rposition(|c| c.serial == serial && c.owner == session)?;
        let mut connection = list.remove(at);
        if connection.is_quiet() {
            return Some(connection);
        }
        self.fences.suspect(server);
        None
    }

    fn take_best(&self, want: &Want) -> Option<Box<ServerConnection>> {
        let mut lists = self.lists.borrow_mut();
        let list = lists.get_mut(usize::from(want.server.0))?;
        let rank = |c: &ServerConnection| {
            if c.key != want.key || c.epoch != want.epoch {
                return 0;
            }
            let schema_fits = want.has_schema || !c.state.has_schema();
            match (c.owner == want.session, c.state.fingerprint() == want.fingerprint, schema_fits) {
                (_, _, false) => 0,
                (true, true, true) => 4,
                (false, true, true) => 3,
                (true, false, true) => 2,
                (false, false, true) => 1,
            }
        };
        let mut best = None;
        for (at, connection) in list.iter().enumerate().rev() {
            let value = rank(connection);
            if value > best.map_or(0, |(top, _)| top) {
                best = Some((value, at));
                if value == 4 {
                    break;
                }
            }
        }
        best.map(|(_, at)| list.remove(at))
    }

    /// Closes the least recently used idle connection that this want cannot use, for its permit.
    fn evict_other_key(&self, want: &Want) -> Option<Permit> {
        let mut lists = self.lists.borrow_mut();
        let list = lists.get_mut(usize::from(want.server.0))?;
        (!list.is_empty()).then(|| list.remove(0).close_keeping_permit())
    }

    /// Takes a clean connection back from a session, or hands it to whoever waits for one.
    pub fn give_back(&self, mut connection: Box<ServerConnection>) {
        connection.idle_since = Instant::now();
        self.put_back(connection);
    }

    /// As [`IdlePool::give_back`], of a connection that has been idle all the time.
    pub fn put_back(&self, mut connection: Box<ServerConnection>) {
        let server = connection.server;
        let Some(budget) = self.budget(server) else { return };
        if budget.has_waiters() {
            match budget.offer(connection) {
                Some(back) => connection = back,
                None => return,
            }
        }
        if let Some(list) = self.lists.borrow_mut().get_mut(usize::from(server.0)) {
            list.push(connection);
        }
    }

    /// Gives idle connections to sessions of other workers that wait for them.
    pub fn surrender(&self, server: ServerId) {
        let Some(budget) = self.budget(server) else { return };
        while budget.has_waiters() {
            let taken = self.lists.borrow_mut().get_mut(usize::from(server.0)).and_then(Vec::pop);
            let Some(connection) = taken else { return };
            if let Some(back) = budget.offer(connection) {
                self.put_back(back);
                return;
            }
        }
    }

    /// Closes every idle connection to a server.
    pub fn close_idle(&self, server: ServerId) {
        let doomed = self.lists.borrow_mut().get_mut(usize::from(server.0)).map(std::mem::take);
        // Dropped outside the borrow: a permit that goes back may wake a waiter.
        drop(doomed);
    }

    /// Closes what has been idle or open for too long, belongs to an older epoch, or is dead.
    pub fn reap(&self, now: Instant, keeping: &Keeping) {
        let mut doomed = Vec::new();
        for (list, budget) in self.lists.borrow_mut().iter_mut().zip(&self.budgets) {
            doomed.extend(list.extract_if(.., |c| {
                now.duration_since(c.opened) > keeping.max_lifetime
                    || c.epoch != keeping.epoch
                    || !c.is_quiet()
            }));
            let is_old = |c: &ServerConnection| now.duration_since(c.idle_since) > keeping.idle_timeout;
            let old = list.iter().filter(|c| is_old(c)).count();
            let mut spare = budget.spare_idle(self.worker, list.len(), old, keeping.min_idle);
            doomed.extend(list.extract_if(.., |c| {
                let closes = spare > 0 && is_old(c);
                spare -= usize::from(closes);
                closes
            }));
        }
        // Dropped outside the borrow: a permit that goes back may wake a waiter.
        drop(doomed);
    }

    /// Whether the connection that this session used last is idle here, in the session's state, and nobody has used it
    /// since.
    pub fn has_own(&self, server: ServerId, serial: u64, session: u32, fingerprint: u64) -> bool {
        let lists = self.lists.borrow();
        let list = lists.get(usize::from(server.0)).map_or(&[][..], Vec::as_slice);
        let is_own = |c: &&ServerConnection| c.serial == serial && c.owner == session;
        list.iter().map(AsRef::as_ref).find(is_own).is_some_and(|c| c.state.fingerprint() == fingerprint)
    }

    /// Lets servers forget a statement with the next write to each idle connection that knows it.
    pub fn close_statement(&self, key: StatementKey) {
        for connection in self.lists.borrow_mut().iter_mut().flatten() {
            connection.prepared.close(key);
        }
    }

    /// As [`IdlePool::close_statement`], for all of a session's.
    pub fn close_session(&self, session: u32) {
        for connection in self.lists.borrow_mut().iter_mut().flatten() {
            connection.prepared.close_session(session);
        }
    }

    /// The idle connections whose servers have statements to forget.
    #[allow(clippy::vec_box, reason = "they go back to the lists as they are")]
    pub fn take_with_pending_closes(&self) -> Vec<Box<ServerConnection>> {
        let mut taken = Vec::new();
        for list in self.lists.borrow_mut().iter_mut() {
            taken.extend(list.extract_if(.., |connection| connection.prepared.has_pending_closes()));
        }
        taken
    }

    pub fn idle_count(&self, server: ServerId) -> usize {
        self.lists.borrow().get(usize::from(server.0)).map_or(0, Vec::len)
    }

    /// Waits in the server's queue for a connection or a permit.
    pub fn queue(&self, server: ServerId, key: KeyId) -> Option<tokio::sync::oneshot::Receiver<Grant>> {
        Some(self.budget(server)?.wait(key))
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::UnixStream;

    use super::*;

    /// A worker's pool with so many idle connections to one server, and their other ends.
    fn pool(worker: usize, budget: &Arc<Budget>, idle: usize) -> (IdlePool, Vec<UnixStream>) {
        let pool = IdlePool::new(worker, vec![budget.clone()], Arc::new(Fences::new(1, Instant::now())));
        let open = |_| {
            let permit = budget.try_acquire().expect("a budget for all");
            let (connection, far) = ServerConnection::for_tests(KeyId(0), permit);
            pool.give_back(connection);
            far
        };
        let far_ends = (0..idle).map(open).collect();
        (pool, far_ends)
    }

    #[tokio::test]
    async fn idle_connections_are_closed_but_for_those_that_are_to_stay() {
        let budget = Budget::new(10);
        let (one, _ends) = pool(0, &budget, 5);
        let (other, _more_ends) = pool(1, &budget, 3);
        let keeping = Keeping {
            idle_timeout: Duration::from_secs(60),
            max_lifetime: Duration::from_secs(3600),
            min_idle: 4,
            epoch: 1,
        };
        let reap_at = |seconds, keeping: &Keeping| {
            let now = Instant::now() + Duration::from_secs(seconds);
            one.reap(now, keeping);
            other.reap(now, keeping);
            (one.idle_count(ServerId(0)), other.idle_count(ServerId(0)))
        };
        assert_eq!(reap_at(30, &keeping), (5, 3));
        // Over both workers.
        assert_eq!(reap_at(90, &keeping), (1, 3));
        assert_eq!(budget.used(), 4);
        assert_eq!(reap_at(91, &Keeping { min_idle: 2, ..keeping }), (0, 2));
        assert_eq!(reap_at(4000, &keeping), (0, 0));
    }
}
