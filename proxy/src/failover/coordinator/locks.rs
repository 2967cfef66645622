//! Proof that no other proxy with a `local` coordinator acts: locks on a majority of the servers.
//!
//! Two stray proxies know nothing of each other's files, but both know the servers.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use crate::cluster::{ServiceAccount, ServiceConnection};

/// How often a lock is looked at, or tried for.
const LOOK_EVERY: Duration = Duration::from_secs(1);
const LIMIT: Duration = Duration::from_secs(1);
/// MySQL's limit for names of locks, less what stands in front.
const MAX_NAME_CHARS: usize = 48;

/// Which servers' locks this process owns.
#[derive(Debug)]
pub struct Locks {
    held: watch::Receiver<Vec<Hold>>,
}

/// The state of one server's lock.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum Hold {
    #[default]
    Unknown,
    Ours,
    /// Another connection owns it.
    Others,
    Unreachable,
}

impl Locks {
    /// Tries for the lock of `cluster` on every server, for as long as the runtime lives.
    pub fn start(account: &Arc<ServiceAccount>, addresses: &[String], cluster: &str) -> Self {
        let (sender, held) = watch::channel(vec![Hold::default(); addresses.len()]);
        let sender = Arc::new(sender);
        for (at, address) in addresses.iter().enumerate() {
            let keeper = Keeper {
                at,
                account: account.clone(),
                address: address.clone(),
                name: lock_name(cluster),
                holds: sender.clone(),
            };
            tokio::spawn(keeper.run());
        }
        Self { held }
    }

    /// Follows whether this process may act.
    pub fn entitlement(&self) -> Entitlement {
        Entitlement { held: self.held.clone(), had_majority: false }
    }
}

/// Whether this process may act, now and in the past.
#[derive(Debug)]
pub struct Entitlement {
    held: watch::Receiver<Vec<Hold>>,
    had_majority: bool,
}

impl Entitlement {
    /// Why this process may not act; none when it may.
    ///
    /// A majority is needed once. Who has had it goes on with half: nobody else can come to a majority while that
    /// half is held, so the loss of one of two servers takes no right away.
    pub fn barred(&mut self) -> Option<String> {
        let holds = self.held.borrow_and_update().clone();
        let ours = holds.iter().filter(|hold| **hold == Hold::Ours).count();
        self.had_majority = is_entitled(self.had_majority, ours, holds.len());
        if self.had_majority {
            return None;
        }
        let others = holds.iter().filter(|hold| **hold == Hold::Others).count();
        let owner = if others > 0 { format!("; another proxy holds {others}") } else { String::new() };
        Some(format!("holds the lock on {ours} of {} servers, a majority is needed{owner}", holds.len()))
    }

    /// Whether every server's lock has been tried for.
    pub fn is_settled(&self) -> bool {
        !self.held.borrow().contains(&Hold::Unknown)
    }

    /// Waits for a change of any lock.
    pub async fn changed(&mut self) {
        if self.held.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

fn is_entitled(before: bool, ours: usize, all: usize) -> bool {
    2 * ours > all || (before && ours > 0 && 2 * ours >= all)
}

fn lock_name(cluster: &str) -> String {
    let safe = |c: char| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '_' };
    let name: String = cluster.chars().map(safe).take(MAX_NAME_CHARS).collect();
    format!("pointsman/{name}")
}

struct Keeper {
    at: usize,
    account: Arc<ServiceAccount>,
    address: String,
    name: String,
    holds: Arc<watch::Sender<Vec<Hold>>>,
}

impl Keeper {
    async fn run(self) {
        loop {
            let started = Instant::now();
            if let Ok(connection) = self.account.connect(&self.address, LIMIT).await {
                self.keep(connection).await;
            }
            self.tell(Hold::Unreachable);
            sleep_until(started + LOOK_EVERY).await;
        }
    }

    /// Until the connection breaks, with which the lock ends.
    async fn keep(&self, mut connection: ServiceConnection) {
        let sql = format!(
            "SELECT COALESCE(IS_USED_LOCK('{name}') = CONNECTION_ID(), GET_LOCK('{name}', 0) = 1)",
            name = self.name
        );
        while let Ok(rows) = connection.rows(&sql, LIMIT).await {
            let ours = rows.first().and_then(|row| row.at(0)).is_some_and(|value| value == "1");
            self.tell(if ours { Hold::Ours } else { Hold::Others });
            sleep(LOOK_EVERY).await;
        }
    }

    fn tell(&self, hold: Hold) {
        self.holds.send_if_modified(|holds| {
            let known = &mut holds[self.at];
            let changed = *known != hold;
            *known = hold;
            changed
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_proxy_at_a_time_is_entitled() {
        assert!(is_entitled(false, 2, 3));
        assert!(!is_entitled(false, 1, 2), "two strays could have one each");
        assert!(is_entitled(true, 1, 2));
        assert!(!is_entitled(true, 1, 3));
        assert!(!is_entitled(true, 0, 0));
        assert!(is_entitled(false, 1, 1));
        // Nobody reaches a majority while another holds half.
        for all in 1..9_usize {
            let half = all.div_ceil(2);
            assert!(!is_entitled(false, all - half, all), "{all}");
        }
    }

    #[test]
    fn names() {
        assert_eq!(lock_name("shop"), "pointsman/shop");
        assert_eq!(lock_name("it's"), "pointsman/it_s");
        assert_eq!(lock_name(&"x".repeat(100)).len(), 58);
    }
}
