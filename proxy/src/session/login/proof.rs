//! The proof of a login: a server has let the same account in with the same credential.
//!
//! Expired passwords, locked accounts, roles and the right to the schema are the server's word. The connection that
//! proves it goes to the pool.

use std::time::Instant;

use pointsman_protocol::capability::Capabilities;
use pointsman_router::session::{Fresh, SessionState};
use pointsman_router::topology::{Role, ServerId, ServerView, State, Topology};

use super::{Door, Identity, LoginError};
use crate::backend::budget::{Grant, Permit};
use crate::backend::connect::{self, ConnectError, ConnectRequest};
use crate::backend::connection::ServerConnection;
use crate::backend::pool::{Found, Want};
use crate::backend::sync::{self, SyncError};
use crate::error::ClientError;
use crate::net::ListenerKind;
use crate::worker::Worker;

/// Why one server did not prove a login.
enum Unproven {
    /// Its answer, which holds for the client.
    Refused(ClientError),
    /// It cannot be asked now.
    Unreachable(String),
}

/// Returns when a server has proven the login.
///
/// # Errors
///
/// [`LoginError::Refused`] with the server's own error, or with ours when no server can be asked within
/// `routing.hold_timeout`.
pub(super) async fn prove(door: Door<'_>, identity: &Identity) -> Result<(), LoginError> {
    let worker = door.worker;
    let deadline = Instant::now() + worker.settings().routing.hold_timeout;
    // Without them nobody knows how to read the session's statements, or when it has been idle for too long.
    if !worker.shared.defaults.is_known()
        && tokio::time::timeout_at(deadline.into(), worker.shared.defaults.known()).await.is_err()
    {
        return Err(LoginError::Refused(no_server()));
    }
    let mut changes = worker.shared.topology.clone();
    loop {
        let topology = changes.borrow_and_update().clone();
        let mut reason = topology.no_primary_reason.clone();
        for server in candidates(&topology, door.listener) {
            match prove_on(door, identity, &topology, server).await {
                Ok(()) => return Ok(()),
                Err(Unproven::Refused(error)) => return Err(LoginError::Refused(error)),
                Err(Unproven::Unreachable(why)) => reason = why,
            }
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            tracing::warn!(%reason, "no server could prove a login");
            return Err(LoginError::Refused(no_server()));
        }
        // A server that has just died is still in the topology: look again even if nothing is said of it.
        drop(tokio::time::timeout(left.min(RETRY_AFTER), changes.changed()).await);
    }
}

/// Whom to ask: the primary, or any replica that serves reads while there is none. Through the read-only listener the
/// replicas come first.
fn candidates(topology: &Topology, listener: ListenerKind) -> Vec<&ServerView> {
    let primary = topology.primary();
    let replicas = || {
        let serves = |server: &&ServerView| {
            server.role == Role::Replica && matches!(server.state, State::Online | State::Lagging)
        };
        topology.servers.iter().filter(serves)
    };
    match listener {
        ListenerKind::ReadWrite if primary.is_some() => primary.into_iter().collect(),
        ListenerKind::ReadWrite => replicas().collect(),
        ListenerKind::ReadOnly => replicas().chain(primary).collect(),
    }
}

async fn prove_on(
    door: Door<'_>,
    identity: &Identity,
    topology: &Topology,
    server: &ServerView,
) -> Result<(), Unproven> {
    let worker = door.worker;
    if worker.shared.config.pool.mode == pointsman_config::PoolMode::Session {
        return open(worker, identity, topology, server, Permit::unlimited()).await.map(drop);
    }
    let state = fresh_state(worker, identity);
    let want = Want {
        server: server.id,
        key: identity.key,
        session: door.slot.id,
        fingerprint: state.fingerprint(),
        has_schema: identity.schema.is_some(),
        epoch: topology.epoch,
    };
    let connection = match worker.pool.find(&want) {
        Found::Idle(connection) => enter_schema(connection, &state, identity).await?,
        Found::MayOpen(permit) => open(worker, identity, topology, server, permit).await?,
        Found::AtLimit => match wait(worker, identity, server.id).await? {
            Grant::Permit(permit) => open(worker, identity, topology, server, permit).await?,
            Grant::Connection(connection) => {
                let here = connection.move_to_worker(worker.index).ok_or_else(moved_away)?;
                enter_schema(here, &state, identity).await?
            }
        },
    };
    worker.pool.give_back(connection);
    Ok(())
}

fn moved_away() -> Unproven {
    Unproven::Unreachable(String::from("an idle connection could not be moved between threads"))
}

async fn open(
    worker: &Worker,
    identity: &Identity,
    topology: &Topology,
    server: &ServerView,
    permit: Permit,
) -> Result<Box<ServerConnection>, Unproven> {
    let request = ConnectRequest {
        server: server.id,
        address: &server.address,
        login: identity,
        schema: identity.schema.as_deref(),
        epoch: topology.epoch,
        permit,
    };
    let opened = connect::connect(worker, request).await;
    if let Some(counters) = worker.counters.server(server.id) {
        match &opened {
            Ok(_) => counters.connects.one(),
            Err(_) => counters.failed_connects.one(),
        }
    }
    opened.map_err(|error| match error {
        ConnectError::Refused(error) => Unproven::Refused(error),
        ConnectError::Io(_) | ConnectError::TimedOut | ConnectError::Authenticate(_) => {
            Unproven::Unreachable(format!("{}: {error}", server.name))
        }
    })
}

/// An idle connection of the same key has proven the password; the schema is still to be proven.
async fn enter_schema(
    mut connection: Box<ServerConnection>,
    state: &SessionState,
    identity: &Identity,
) -> Result<Box<ServerConnection>, Unproven> {
    if identity.schema.is_none() {
        return Ok(connection);
    }
    let saved = sync::save_insert_id(&mut connection, None).await;
    let entered = match saved {
        Ok(()) => sync::bring_to(&mut connection, state).await,
        Err(error) => Err(error),
    };
    // What the last statement left is gone, so it is nobody's any more.
    connection.owner = 0;
    match entered {
        Ok(_) => Ok(connection),
        Err(SyncError::Refused(error)) => Err(Unproven::Refused(error)),
        Err(SyncError::Io(error)) => Err(Unproven::Unreachable(error.to_string())),
        Err(SyncError::Unusable) => Err(Unproven::Unreachable(String::from("its state is unusable"))),
    }
}

async fn wait(worker: &Worker, identity: &Identity, server: ServerId) -> Result<Grant, Unproven> {
    worker.counters.pool_waits.one();
    let queue = worker.pool.queue(server, identity.key);
    let Some(queue) = queue else { return Err(Unproven::Refused(ClientError::pool_exhausted())) };
    worker.shared.ask_for_surrender(server);
    let limit = worker.settings().pool.acquire_timeout;
    let granted = tokio::time::timeout(limit, queue).await;
    granted.ok().and_then(Result::ok).ok_or_else(|| {
        worker.counters.pool_timeouts.one();
        Unproven::Refused(ClientError::pool_exhausted())
    })
}

/// What a session of this identity starts with.
pub(in crate::session) fn fresh_state(worker: &Worker, identity: &Identity) -> SessionState {
    let defaults = worker.shared.defaults.get();
    let has = |flag| identity.capabilities.contains(flag);
    let flavour = worker.topology().flavour;
    SessionState::new(Fresh {
        flavour,
        schema: identity.schema.clone(),
        autocommit: defaults.autocommit,
        sql_mode: defaults.sql_mode.clone(),
        multi_statements: has(Capabilities::MULTI_STATEMENTS),
        ignore_space: has(Capabilities::IGNORE_SPACE),
        collation: identity.collation,
        variables: defaults.variables.clone(),
        names_after_reset: defaults.names_after_reset(flavour),
    })
}

fn no_server() -> ClientError {
    ClientError::new(1290, b"HY000", "No server can be reached to log in to")
}

/// How long a topology without a usable server is believed.
const RETRY_AFTER: std::time::Duration = std::time::Duration::from_millis(200);
