//! Proof that no other proxy with a `local` coordinator acts: locks on a majority of the servers.
//!
//! Two stray proxies know nothing of each other's files, but both know the servers.

use std::sync::Arc;
use std::time::Duration;

use pointsman_router::roster::Roster;
use tokio::sync::watch;
use tokio::task::AbortHandle;
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
    account: Arc<ServiceAccount>,
    name: String,
    holds: Arc<watch::Sender<Vec<Hold>>>,
    /// By server; none for one that is gone.
    keepers: Vec<Option<AbortHandle>>,
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
    /// The configuration names the server no more.
    Gone,
}

impl Locks {
    /// Tries for the lock of `cluster` on every server, for as long as the runtime lives.
    pub fn start(account: &Arc<ServiceAccount>, roster: &Roster, cluster: &str) -> Self {
        let holds = Arc::new(watch::Sender::new(Vec::new()));
        let (account, name) = (account.clone(), lock_name(cluster));
        let mut locks = Self { account, name, holds, keepers: Vec::new() };
        locks.follow(roster);
        locks
    }

    /// Tries on the servers of the configuration, and on no others.
    pub fn follow(&mut self, roster: &Roster) {
        self.keepers.resize(roster.len(), None);
        self.holds.send_modify(|holds| holds.resize(roster.len(), Hold::default()));
        for (at, (_, member)) in roster.members().enumerate() {
            match (&self.keepers[at], member.gone) {
                (Some(keeper), true) => {
                    keeper.abort();
                    self.keepers[at] = None;
                    tell(&self.holds, at, Hold::Gone);
                }
                (None, false) => {
                    tell(&self.holds, at, Hold::Unknown);
                    let (account, address) = (self.account.clone(), member.server.address.clone());
                    let (name, holds) = (self.name.clone(), self.holds.clone());
                    let keeper = Keeper { at, account, address, name, holds };
                    self.keepers[at] = Some(tokio::spawn(keeper.run()).abort_handle());
                }
                (Some(_), false) | (None, true) => {}
            }
        }
    }

    /// Follows whether this process may act.
    pub fn entitlement(&self) -> Entitlement {
        Entitlement { held: self.holds.subscribe(), had_majority: false }
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
        let mut holds = self.held.borrow_and_update().clone();
        holds.retain(|hold| *hold != Hold::Gone);
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
            tell(&self.holds, self.at, Hold::Unreachable);
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
            tell(&self.holds, self.at, if ours { Hold::Ours } else { Hold::Others });
            sleep(LOOK_EVERY).await;
        }
    }
}

fn tell(holds: &watch::Sender<Vec<Hold>>, at: usize, hold: Hold) {
    holds.send_if_modified(|holds| {
        let known = &mut holds[at];
        // What is gone stays it, whatever its keeper was about to say.
        let changed = *known != hold && (*known != Hold::Gone || hold == Hold::Unknown);
        if changed {
            *known = hold;
        }
        changed
    });
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
