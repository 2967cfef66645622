//! Interrupts statements on servers for sessions that may not do so themselves.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc};
use tracing::warn;

use super::connection::{ConnectionError, ServiceAccount, ServiceConnection};
use crate::shared::KillRequest;

/// How long one kill may take, logging in included.
const LIMIT: Duration = Duration::from_secs(2);
/// Kills that run at a time, over all servers.
const MAX_RUNNING: usize = 16;
/// Idle connections that are kept to each server.
const MAX_IDLE: usize = 2;

/// Carries out kills, several at a time, over connections that it keeps.
#[derive(Debug)]
pub struct Killer {
    account: Arc<ServiceAccount>,
    idle: Mutex<BTreeMap<String, Vec<ServiceConnection>>>,
}

impl Killer {
    pub fn new(account: Arc<ServiceAccount>) -> Self {
        Self { account, idle: Mutex::default() }
    }

    /// Serves requests until nobody can send any.
    pub async fn run(self: Arc<Self>, mut requests: mpsc::Receiver<KillRequest>) {
        let running = Arc::new(Semaphore::new(MAX_RUNNING));
        while let Some(request) = requests.recv().await {
            // The semaphore is never closed.
            let Ok(permit) = running.clone().acquire_owned().await else { return };
            let killer = self.clone();
            tokio::spawn(async move {
                let KillRequest { address, thread_id, done } = request;
                if let Err(error) = killer.kill_query(&address, thread_id).await {
                    warn!(server = address, thread_id, %error, "could not interrupt a statement");
                }
                // The session may have ended meanwhile.
                let _gone = done.send(());
                drop(permit);
            });
        }
    }

    /// Interrupts the statement that runs on a server's connection, if one does; not the wait for a replica's
    /// acknowledgement, which MariaDB would end with OK if it were not killed softly.
    ///
    /// # Errors
    ///
    /// When the server cannot be reached or refuses; a connection that is gone is none.
    pub async fn kill_query(&self, address: &str, thread_id: u32) -> Result<(), ConnectionError> {
        let sql = format!("KILL /*M! SOFT */ QUERY {thread_id}");
        if let Some(mut idle) = self.take(address) {
            match ignore_unknown(idle.run(&sql, LIMIT).await) {
                Err(ConnectionError::Lost(_) | ConnectionError::Closed) => {}
                outcome => {
                    self.put_back(address, idle, &outcome);
                    return outcome;
                }
            }
        }
        let mut connection = self.account.connect(address, LIMIT).await?;
        let outcome = ignore_unknown(connection.run(&sql, LIMIT).await);
        self.put_back(address, connection, &outcome);
        outcome
    }

    fn take(&self, address: &str) -> Option<ServiceConnection> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).get_mut(address)?.pop()
    }

    fn put_back(&self, address: &str, connection: ServiceConnection, outcome: &Result<(), ConnectionError>) {
        if outcome.is_err() {
            return;
        }
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let idle = idle.entry(address.to_owned()).or_default();
        if idle.len() < MAX_IDLE {
            idle.push(connection);
        }
    }
}

fn ignore_unknown(outcome: Result<(), ConnectionError>) -> Result<(), ConnectionError> {
    match outcome {
        Err(ConnectionError::Server { code: UNKNOWN_THREAD, .. }) => Ok(()),
        outcome => outcome,
    }
}

/// ER_NO_SUCH_THREAD.
const UNKNOWN_THREAD: u16 = 1094;
