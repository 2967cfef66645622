//! Borrows a server connection for a statement and gives it back.

use std::io;
use std::time::Instant;

use pointsman_router::intent::{Flavour, Needs};
use pointsman_router::topology::{ServerId, Topology};

use super::Session;
use crate::backend::budget::{Grant, Permit};
use crate::backend::connect::{self, ConnectError, ConnectRequest};
use crate::backend::connection::ServerConnection;
use crate::backend::inject;
use crate::backend::pool::{Found, Want};
use crate::backend::sync::{self, Brought, SyncError};
use crate::error::ClientError;

/// Why no connection was to be had.
#[derive(Debug)]
pub(super) enum AcquireError {
    /// The server cannot be reached or died meanwhile; nothing of the statement was sent.
    Unreachable(io::Error),
    /// The server refused the login or a part of the session's state.
    Refused(ClientError),
    /// Every connection that the pool may open stayed in use for `pool.acquire_timeout`.
    PoolTimeout,
}

impl AcquireError {
    /// What the client is told where nothing else can be tried.
    pub(super) fn told(self) -> ClientError {
        match self {
            Self::Unreachable(_) => {
                ClientError::new(1158, b"08S01", "The server cannot be reached; nothing was executed")
            }
            Self::Refused(error) => error,
            Self::PoolTimeout => ClientError::pool_exhausted(),
        }
    }
}

/// What the previous statement left for the next to ask about.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct LastStatement {
    /// ROW_COUNT(): rows changed, or -1 after a result set.
    pub(super) row_count: i64,
    /// FOUND_ROWS(): rows of the last result.
    pub(super) found_rows: u64,
}

impl Session {
    /// A connection to `server` in this session's state, for a statement with these needs.
    ///
    /// # Errors
    ///
    /// See [`AcquireError`]. Not cancel safe.
    pub(super) async fn acquire(
        &mut self,
        server: ServerId,
        topology: &Topology,
        needs: Needs,
    ) -> Result<Box<ServerConnection>, AcquireError> {
        loop {
            let mut connection = match self.take_held(server) {
                Some(connection) => connection,
                None => self.check_out(server, topology).await?,
            };
            match self.prepare_connection(&mut connection, needs).await {
                Ok(()) => return Ok(connection),
                // Closed; the next one fits, at the latest a new one.
                Err(SyncError::Unusable) => {}
                Err(SyncError::Io(error)) => return Err(AcquireError::Unreachable(error)),
                Err(SyncError::Refused(error)) => return Err(AcquireError::Refused(error)),
            }
        }
    }

    /// The held connection, if it is to this server; another one goes back, because nothing pins it any more.
    fn take_held(&mut self, server: ServerId) -> Option<Box<ServerConnection>> {
        let mut held = self.held.take()?;
        if held.server == server {
            // It was kept for what the previous statement left; meanwhile the server may have gone.
            return held.is_quiet().then_some(held);
        }
        self.release(held);
        None
    }

    async fn check_out(
        &mut self,
        server: ServerId,
        topology: &Topology,
    ) -> Result<Box<ServerConnection>, AcquireError> {
        if let Some(mut kept) = self.kept.get_mut(usize::from(server.0)).and_then(Option::take)
            && kept.epoch == topology.epoch
            && kept.is_quiet()
        {
            return Ok(kept);
        }
        let serial = self.last_used.get(usize::from(server.0)).copied().unwrap_or_default();
        if let Some(own) = self.worker.pool.take_own(server, serial, self.slot.id)
            && own.epoch == topology.epoch
        {
            return Ok(own);
        }
        if self.in_session_mode() {
            return self.open(server, topology, Permit::unlimited()).await;
        }
        let want = Want {
            server,
            key: self.login.key,
            session: self.slot.id,
            fingerprint: self.state.fingerprint(),
            has_schema: self.state.schema().is_some(),
            epoch: topology.epoch,
        };
        match self.worker.pool.find(&want) {
            Found::Idle(connection) => Ok(connection),
            Found::MayOpen(permit) => self.open(server, topology, permit).await,
            Found::AtLimit => self.wait_for_connection(server, topology).await,
        }
    }

    pub(super) fn in_session_mode(&self) -> bool {
        self.worker.shared.config.pool.mode == pointsman_config::PoolMode::Session
    }

    async fn wait_for_connection(
        &mut self,
        server: ServerId,
        topology: &Topology,
    ) -> Result<Box<ServerConnection>, AcquireError> {
        self.worker.counters.pool_waits.one();
        let key = self.login.key;
        let deadline = Instant::now() + self.worker.settings().pool.acquire_timeout;
        loop {
            let Some(queue) = self.worker.pool.queue(server, key) else {
                return Err(AcquireError::PoolTimeout);
            };
            self.worker.shared.ask_for_surrender(server);
            let left = deadline.saturating_duration_since(Instant::now());
            match tokio::time::timeout(left, queue).await {
                Ok(Ok(Grant::Permit(permit))) => return self.open(server, topology, permit).await,
                Ok(Ok(Grant::Connection(connection))) => {
                    if let Some(usable) = self.adopt_granted(connection, topology) {
                        return Ok(usable);
                    }
                }
                Ok(Err(_)) | Err(_) => {
                    self.worker.counters.pool_timeouts.one();
                    return Err(AcquireError::PoolTimeout);
                }
            }
        }
    }

    /// A connection handed over by another session, unless it is of no use here: then the queue goes on.
    fn adopt_granted(
        &self,
        mut connection: Box<ServerConnection>,
        topology: &Topology,
    ) -> Option<Box<ServerConnection>> {
        if connection.worker != self.worker.index {
            connection = connection.move_to_worker(self.worker.index)?;
        }
        let schema_fits = self.state.schema().is_some() || !connection.state.has_schema();
        (connection.epoch == topology.epoch && schema_fits && connection.is_quiet()).then_some(connection)
    }

    async fn open(
        &mut self,
        server: ServerId,
        topology: &Topology,
        permit: Permit,
    ) -> Result<Box<ServerConnection>, AcquireError> {
        let Some(view) = topology.server(server) else {
            return Err(AcquireError::Unreachable(io::ErrorKind::NotFound.into()));
        };
        let request = ConnectRequest {
            server,
            address: &view.address,
            login: &self.login,
            schema: self.state.schema(),
            epoch: topology.epoch,
            permit,
        };
        let counters = self.worker.counters.clone();
        let opened = connect::connect(&self.worker, request).await;
        if let Some(counters) = counters.server(server) {
            match &opened {
                Ok(_) => counters.connects.one(),
                Err(_) => counters.failed_connects.one(),
            }
        }
        opened.map_err(|error| {
            tracing::info!(server = %view.name, %error, "server connection refused");
            if let ConnectError::Refused(error) = error {
                AcquireError::Refused(error)
            } else {
                AcquireError::Unreachable(io::Error::other(error.to_string()))
            }
        })
    }

    /// Brings a connection into this session's state and saves what its last owner may still ask for.
    async fn prepare_connection(
        &mut self,
        connection: &mut ServerConnection,
        needs: Needs,
    ) -> Result<(), SyncError> {
        let is_own = connection.owner == self.slot.id;
        if !is_own {
            sync::save_insert_id(connection, self.known_insert_id()).await?;
        }
        let follows = self.last_server == Some(connection.server)
            && self.last_used.get(usize::from(connection.server.0)) == Some(&connection.serial);
        let brought = sync::bring_to(connection, &self.state).await?;
        match brought {
            Brought::AsItWas => {}
            Brought::BySettings => self.worker.counters.state_applications.one(),
            Brought::ByReset => {
                self.worker.counters.resets.one();
                self.worker.counters.state_applications.one();
            }
        }
        if !is_own || !follows || brought != Brought::AsItWas {
            forget_warnings(connection, needs).await?;
        }
        connection.owner = self.slot.id;
        self.carry_insert_id(connection, needs).await
    }

    /// Makes room for what is remembered of a server that has come since the session began.
    pub(super) fn meet(&mut self, at: usize) {
        if self.kept.len() <= at {
            self.kept.resize_with(at + 1, || None);
            self.last_used.resize(at + 1, 0);
        }
    }

    /// Gives a connection back that holds nothing of this session but replayable state.
    pub(super) fn release(&mut self, connection: Box<ServerConnection>) {
        let at = usize::from(connection.server.0);
        self.meet(at);
        self.last_used[at] = connection.serial;
        if self.in_session_mode() {
            self.kept[at] = Some(connection);
        } else if self.slot.killing.get() == 0 {
            self.worker.pool.give_back(connection);
        }
        // With a kill under way the connection is closed: the kill could hit its next user.
    }
}

/// MariaDB keeps the warnings of a statement until the next one that uses a table, so a session that asks after
/// `SELECT 1` would be told another's, or its own of long ago.
/// MySQL keeps them until the next statement that does not ask for them; what we have just set may have left some.
async fn forget_warnings(connection: &mut ServerConnection, needs: Needs) -> Result<(), SyncError> {
    let kept = connection.has_warnings && connection.flavour == Flavour::Mariadb;
    if kept || needs.contains(Needs::DIAGNOSTICS) {
        inject::scalar(connection, b"SELECT 0 FROM (SELECT 0) AS t", WARNINGS_TIMEOUT).await?;
        connection.has_warnings = false;
    }
    Ok(())
}

const WARNINGS_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(10);
