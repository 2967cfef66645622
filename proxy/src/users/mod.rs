//! The accounts by which clients are let in: mirrored from the servers, or listed in the configuration.
//!
//! [`Users`] is what the workers look into; [`reader`] is the task that keeps it fresh.

mod account;
mod limit;
mod mariadb;
mod mysql;
mod pattern;
pub mod reader;
mod row;
mod table;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use pointsman_config::{Config, StaticUser, UserSource};
use tokio::sync::{Notify, watch};

pub use self::account::{Account, Require};
use self::limit::{Limiter, WrongPasswords};
pub use self::pattern::HostPattern;
use self::row::Row;
use self::table::{Numbers, ServerRules, Table};
use crate::net::ClientAddress;

/// How long a client waits for a reading of the accounts.
const READING_TIMEOUT: Duration = Duration::from_secs(3);

/// The accounts as last read; shared by all workers.
pub struct Users {
    source: UserSource,
    settings: Mutex<Vec<StaticUser>>,
    table: RwLock<Arc<Table>>,
    numbers: Numbers,
    limiter: Mutex<Limiter>,
    wrong_passwords: Mutex<WrongPasswords>,
    /// Wakes the reader.
    wanted: Notify,
    progress: watch::Sender<Progress>,
}

/// How far the readings are.
#[derive(Clone, Copy, Debug, Default)]
struct Progress {
    /// Readings asked for: the number of the last one that was or will be started.
    asked: u64,
    started: u64,
    done: u64,
    /// Whether any reading has succeeded.
    ready: bool,
    /// Whether the last one did.
    succeeded: bool,
}

impl Users {
    pub fn new(config: &Config) -> Arc<Self> {
        let users = Self {
            source: config.users.source,
            settings: Mutex::new(config.user_list.clone()),
            table: RwLock::default(),
            numbers: Numbers::default(),
            limiter: Mutex::new(Limiter::new(Instant::now())),
            wrong_passwords: Mutex::new(WrongPasswords::new()),
            wanted: Notify::new(),
            progress: watch::Sender::default(),
        };
        if users.source == UserSource::Static {
            users.apply_settings();
        }
        Arc::new(users)
    }

    /// Takes up a changed `[[user]]` list, for logins from now on.
    pub fn reconfigure(&self, settings: &[StaticUser]) {
        {
            let mut current = self.settings.lock().unwrap_or_else(PoisonError::into_inner);
            if *current == settings {
                return;
            }
            settings.clone_into(&mut current);
        }
        self.apply_settings();
    }

    /// Static users are known at once; what is added to mirrored ones counts with the next reading.
    fn apply_settings(&self) {
        match self.source {
            UserSource::Static => {
                let rows = {
                    let settings = self.settings.lock().unwrap_or_else(PoisonError::into_inner);
                    table::static_rows(&settings)
                };
                self.replace(rows, ServerRules::default());
                self.progress.send_modify(|progress| progress.ready = true);
            }
            UserSource::Mirror => self.notice(),
        }
    }

    /// The account that a server would choose for this user and address, or none.
    pub fn find(&self, user: &[u8], address: &ClientAddress) -> Option<Arc<Account>> {
        self.table().find(user, address).cloned()
    }

    /// Every account, in no order.
    pub fn all(&self) -> Vec<Arc<Account>> {
        self.table().accounts().cloned().collect()
    }

    /// Whether there was a successful reading.
    pub fn are_known(&self) -> bool {
        self.progress.borrow().ready
    }

    /// Waits for the first successful reading.
    pub async fn ready(&self) {
        let mut progress = self.progress.subscribe();
        // The sender is part of `self`, so the wait ends with success only.
        drop(progress.wait_for(|progress| progress.ready).await);
    }

    /// Has the accounts read again, because a client from `address` could not be let in by those at hand; true when
    /// that was done, false where it was done too often for this address.
    ///
    /// Clients that ask at the same time share one reading.
    pub async fn refresh_for(&self, address: &ClientAddress) -> bool {
        if self.source == UserSource::Static {
            return false;
        }
        let Some(number) = self.ask(address) else { return false };
        let mut progress = self.progress.subscribe();
        let done = progress.wait_for(|progress| progress.done >= number);
        tokio::time::timeout(READING_TIMEOUT, done)
            .await
            .is_ok_and(|progress| progress.is_ok_and(|p| p.succeeded))
    }

    /// Takes note of a wrong password.
    pub fn wrong_password(&self, address: &ClientAddress) {
        let mut wrong = self.wrong_passwords.lock().unwrap_or_else(PoisonError::into_inner);
        wrong.count(address, Instant::now());
    }

    /// Whether there were so many wrong passwords from this address that it is not listened to for a moment.
    pub fn is_shut_out(&self, address: &ClientAddress) -> bool {
        let wrong = self.wrong_passwords.lock().unwrap_or_else(PoisonError::into_inner);
        wrong.shut_out(address, Instant::now())
    }

    /// Has the accounts read soon: a statement has changed them.
    pub fn notice(&self) {
        self.progress.send_modify(|progress| progress.asked = progress.started + 1);
        self.wanted.notify_one();
    }

    /// The number of the reading to wait for.
    fn ask(&self, address: &ClientAddress) -> Option<u64> {
        let allowed = || {
            let mut limiter = self.limiter.lock().unwrap_or_else(PoisonError::into_inner);
            limiter.allows(address, Instant::now())
        };
        let mut number = None;
        self.progress.send_if_modified(|progress| {
            let waiting = progress.asked > progress.started;
            let running = progress.started > progress.done;
            if waiting {
                number = Some(progress.asked);
            } else if allowed() {
                progress.asked = progress.started + 1;
                number = Some(progress.asked);
            } else if running {
                number = Some(progress.started);
            }
            false
        });
        self.wanted.notify_one();
        number
    }

    /// Takes note that a reading begins; gives its number.
    fn start(&self) -> u64 {
        let mut number = 0;
        self.progress.send_modify(|progress| {
            progress.started += 1;
            progress.asked = progress.asked.max(progress.started);
            number = progress.started;
        });
        number
    }

    /// Takes note of the end of a reading.
    fn finish(&self, number: u64, succeeded: bool) {
        self.progress.send_modify(|progress| {
            progress.done = number;
            progress.succeeded = succeeded;
            progress.ready |= succeeded;
        });
    }

    fn replace(&self, rows: Vec<Row>, server: ServerRules) {
        let mut current = self.table.write().unwrap_or_else(PoisonError::into_inner);
        let settings = self.settings.lock().unwrap_or_else(PoisonError::into_inner);
        *current = Arc::new(Table::new(rows, server, &settings, &current, &self.numbers));
    }

    fn table(&self) -> Arc<Table> {
        self.table.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl fmt::Debug for Users {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let accounts = self.table().accounts().count();
        f.debug_struct("Users")
            .field("source", &self.source)
            .field("accounts", &accounts)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    fn mirror() -> Arc<Users> {
        Users::new(&Config::default())
    }

    fn client(last: u8) -> ClientAddress {
        ClientAddress::Ip(SocketAddr::from(([10, 0, 0, last], 1)))
    }

    #[tokio::test]
    async fn clients_that_ask_together_share_one_reading() {
        let users = mirror();
        let clients: Vec<_> = (0..20)
            .map(|_| {
                let users = users.clone();
                tokio::spawn(async move { users.refresh_for(&client(1)).await })
            })
            .collect();
        users.wanted.notified().await;
        tokio::task::yield_now().await;
        let number = users.start();
        users.replace(Vec::new(), ServerRules::default());
        users.finish(number, true);
        for client in clients {
            assert!(client.await.unwrap());
        }
        assert_eq!(users.progress.borrow().started, 1);
    }

    #[tokio::test]
    async fn readings_are_limited_by_address() {
        let users = mirror();
        let reader = users.clone();
        let task = tokio::spawn(async move {
            loop {
                reader.wanted.notified().await;
                if reader.progress.borrow().asked > reader.progress.borrow().started {
                    let number = reader.start();
                    reader.finish(number, true);
                }
            }
        });
        let mut answers = Vec::new();
        for _ in 0..5 {
            answers.push(users.refresh_for(&client(1)).await);
        }
        assert_eq!(answers, [true, true, true, false, false]);
        assert!(users.refresh_for(&client(2)).await);
        task.abort();
    }

    #[tokio::test]
    async fn a_reading_that_failed_is_no_reading() {
        let users = mirror();
        let asking = users.clone();
        let asked = tokio::spawn(async move { asking.refresh_for(&client(1)).await });
        tokio::task::yield_now().await;
        let number = users.start();
        users.finish(number, false);
        assert!(!asked.await.unwrap());
    }

    #[tokio::test]
    async fn ready_means_read() {
        let users = mirror();
        assert!(tokio::time::timeout(Duration::from_millis(1), users.ready()).await.is_err());
        let number = users.start();
        users.finish(number, true);
        users.ready().await;
        let config = Config {
            users: pointsman_config::Users { source: UserSource::Static, ..Default::default() },
            user_list: vec![StaticUser { name: "app".to_owned(), ..StaticUser::default() }],
            ..Config::default()
        };
        let users = Users::new(&config);
        users.ready().await;
        assert!(users.find(b"app", &client(1)).is_some());
        assert!(!users.refresh_for(&client(1)).await);
    }
}
