//! How many connections may be open to one server, over all workers.
//!
//! A [`Permit`] is the right to have one open. When all are taken, whoever wants one queues here, and the next
//! connection or permit that any worker gives up goes to the head of the queue.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::oneshot;

use super::connection::ServerConnection;
use super::pool::KeyId;

/// The budget of one server, shared by all workers.
#[derive(Debug)]
pub struct Budget {
    limit: AtomicUsize,
    used: AtomicUsize,
    /// Length of `queue`, readable without its lock.
    waiting: AtomicUsize,
    queue: Mutex<VecDeque<Waiter>>,
    /// How many connections lay idle with each worker when it last looked them over.
    idle: Mutex<Vec<usize>>,
}

#[derive(Debug)]
struct Waiter {
    key: KeyId,
    answer: oneshot::Sender<Grant>,
}

/// What a queued session gets.
#[derive(Debug)]
pub enum Grant {
    /// An open connection of the wanted key.
    Connection(Box<ServerConnection>),
    /// The right to open one.
    Permit(Permit),
}

/// The right to have one connection open; dropped, it goes to the next in the queue.
#[derive(Debug)]
pub struct Permit(Option<Arc<Budget>>);

impl Budget {
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self {
            limit: AtomicUsize::new(limit),
            used: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            queue: Mutex::default(),
            idle: Mutex::default(),
        })
    }

    /// Connections beyond it stay until they end by themselves.
    pub fn set_limit(&self, limit: usize) {
        self.limit.store(limit, Ordering::Relaxed);
    }

    pub fn try_acquire(self: &Arc<Self>) -> Option<Permit> {
        let limit = self.limit.load(Ordering::Relaxed);
        self.used
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |used| (used < limit).then_some(used + 1))
            .ok()
            .map(|_| Permit(Some(self.clone())))
    }

    /// Open connections, lent and idle, over all workers.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    pub fn has_waiters(&self) -> bool {
        self.waiting.load(Ordering::Acquire) > 0
    }

    pub fn waiters(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// How many of the `old` ones among a worker's `idle` connections it may close, so that over all workers `keep`
    /// stay. The other workers' are counted as they last said, at most a tick ago.
    pub fn spare_idle(&self, worker: usize, idle: usize, old: usize, keep: usize) -> usize {
        let mut counts = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.len() <= worker {
            counts.resize(worker + 1, 0);
        }
        counts[worker] = idle;
        let spare = counts.iter().sum::<usize>().saturating_sub(keep).min(old);
        counts[worker] = idle - spare;
        spare
    }

    /// Queues for a connection of `key` or a permit. Dropping the receiver leaves the queue.
    pub fn wait(&self, key: KeyId) -> oneshot::Receiver<Grant> {
        let (answer, receiver) = oneshot::channel();
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        queue.retain(|waiter| !waiter.answer.is_closed());
        queue.push_back(Waiter { key, answer });
        self.waiting.store(queue.len(), Ordering::Release);
        receiver
    }

    fn next_waiter(&self) -> Option<Waiter> {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let next = std::iter::from_fn(|| queue.pop_front()).find(|waiter| !waiter.answer.is_closed());
        self.waiting.store(queue.len(), Ordering::Release);
        next
    }

    /// Offers an idle connection to the queue; it comes back where nobody waits.
    ///
    /// A waiter of another key gets the permit: the connection is closed for it.
    pub fn offer(&self, connection: Box<ServerConnection>) -> Option<Box<ServerConnection>> {
        let Some(waiter) = self.next_waiter() else { return Some(connection) };
        if waiter.key == connection.key {
            match waiter.answer.send(Grant::Connection(connection)) {
                Err(Grant::Connection(connection)) => self.offer(connection),
                Ok(()) | Err(Grant::Permit(_)) => None,
            }
        } else {
            let permit = connection.close_keeping_permit();
            // A refused permit drops here and finds the next waiter by itself.
            drop(waiter.answer.send(Grant::Permit(permit)));
            None
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let Some(budget) = self.0.take() else { return };
        while budget.has_waiters() {
            let Some(waiter) = budget.next_waiter() else { break };
            let Err(refused) = waiter.answer.send(Grant::Permit(Self(Some(budget.clone())))) else { return };
            // The waiter left in between: the permit is still ours, to be offered again without recursion.
            if let Grant::Permit(mut permit) = refused {
                permit.0 = None;
            }
        }
        budget.used.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Permit {
    /// A permit outside every budget: session mode is limited by the server alone.
    pub fn unlimited() -> Self {
        Self(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_permits_than_the_limit() {
        let budget = Budget::new(2);
        let first = budget.try_acquire();
        let second = budget.try_acquire();
        assert!(first.is_some() && second.is_some() && budget.try_acquire().is_none());
        drop(first);
        assert_eq!(budget.used(), 1);
        assert!(budget.try_acquire().is_some());
    }

    #[tokio::test]
    async fn a_dropped_permit_goes_to_the_head_of_the_queue() {
        let budget = Budget::new(1);
        let held = budget.try_acquire();
        let mut first = budget.wait(KeyId(0));
        let mut second = budget.wait(KeyId(0));
        drop(held);
        let granted = first.try_recv().unwrap();
        assert!(matches!(granted, Grant::Permit(_)) && second.try_recv().is_err());
        assert_eq!(budget.used(), 1);
        drop(granted);
        assert!(second.try_recv().is_ok());
    }

    #[tokio::test]
    async fn who_has_left_the_queue_is_passed_over() {
        let budget = Budget::new(1);
        let held = budget.try_acquire();
        let gone = budget.wait(KeyId(0));
        drop(gone);
        drop(held);
        assert_eq!((budget.used(), budget.has_waiters()), (0, false));
    }

    #[tokio::test]
    async fn a_connection_goes_to_its_own_key_and_its_permit_to_any() {
        let budget = Budget::new(1);
        let permit = budget.try_acquire().unwrap();
        let (connection, _far) = ServerConnection::for_tests(KeyId(1), permit);
        let mut same = budget.wait(KeyId(1));
        assert!(budget.offer(connection).is_none());
        let Grant::Connection(connection) = same.try_recv().unwrap() else { panic!("a permit") };
        let mut other = budget.wait(KeyId(2));
        assert!(budget.offer(connection).is_none());
        assert!(matches!(other.try_recv().unwrap(), Grant::Permit(_)));
        drop(other);
        assert_eq!(budget.used(), 0);
    }
}
