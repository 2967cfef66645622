//! Brings a server connection into the state of the session that borrows it.
//!
//! Every step that can fail is awaited before the session's statement is sent: in one segment with it, a failed
//! change of schema would let a write run in the old one.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use pointsman_protocol::command::code;
use pointsman_protocol::response::Grammar;
use pointsman_router::session::{SessionState, Step, SyncPlan};

use super::connect::base_set_sql;
use super::connection::{LastInsertId, ServerConnection};
use super::inject::{self, Answer};
use crate::error::ClientError;

/// Why a connection could not be brought into the session's state.
#[derive(Debug)]
pub enum SyncError {
    Io(io::Error),
    /// The connection has a schema or a role that the session has not.
    Unusable,
    /// The server refused a part of the state; the connection is in none that is known.
    Refused(ClientError),
}

impl From<io::Error> for SyncError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// What it took to bring a connection into a session's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Brought {
    AsItWas,
    BySettings,
    ByReset,
}

/// Applies what differs; costs one comparison where nothing does.
///
/// # Errors
///
/// See [`SyncError`]; the connection must be closed after any. Not cancel safe.
pub async fn bring_to(
    connection: &mut ServerConnection,
    session: &SessionState,
) -> Result<Brought, SyncError> {
    if connection.state.fingerprint() == session.fingerprint() {
        return Ok(Brought::AsItWas);
    }
    let (steps, brought) = match connection.state.plan(session) {
        SyncPlan::Nothing => return Ok(Brought::AsItWas),
        SyncPlan::Apply(steps) => (steps, Brought::BySettings),
        SyncPlan::ResetThenApply(steps) => {
            reset(connection).await?;
            (steps, Brought::ByReset)
        }
        SyncPlan::Unusable => return Err(SyncError::Unusable),
    };
    apply(connection, &steps).await?;
    connection.state.adopt(session);
    Ok(brought)
}

/// COM_RESET_CONNECTION, after which our own trackers must be set again. It takes LAST_INSERT_ID() away.
///
/// # Errors
///
/// As [`bring_to`].
pub async fn reset(connection: &mut ServerConnection) -> Result<(), SyncError> {
    save_insert_id(connection, None).await?;
    let answer = inject::command(connection, &[code::RESET_CONNECTION], Grammar::Ok, STEP_TIMEOUT).await?;
    expect_ok(answer)?;
    connection.prepared.clear();
    connection.insert_id = LastInsertId::Is(0);
    let sql = base_set_sql(connection.flavour, &connection.character_set);
    expect_ok(inject::query(connection, sql.as_bytes(), STEP_TIMEOUT).await?)?;
    connection.state.after_reset();
    Ok(())
}

/// Asks for the LAST_INSERT_ID() of the session that used the connection before, if that session still lives,
/// and in the same breath puts the next one's in its place where that is known.
///
/// # Errors
///
/// As [`bring_to`].
pub async fn save_insert_id(connection: &mut ServerConnection, next: Option<u64>) -> Result<(), SyncError> {
    let LastInsertId::OfOwner(saved) = &connection.insert_id else { return Ok(()) };
    let saved = saved.clone();
    connection.insert_id = LastInsertId::Unknown;
    if Arc::strong_count(&saved) < 2 {
        return Ok(());
    }
    // The limit goes before sql_select_limit, which may be nothing.
    let sql = match next {
        Some(next) => format!("SELECT LAST_INSERT_ID(), LAST_INSERT_ID({next}) LIMIT 1"),
        None => "SELECT LAST_INSERT_ID() LIMIT 1".to_owned(),
    };
    let value = inject::scalar(connection, sql.as_bytes(), STEP_TIMEOUT).await?;
    let parsed = value.and_then(|text| std::str::from_utf8(&text).ok()?.parse().ok());
    if let Some(id) = parsed {
        saved.confirm(id);
        connection.insert_id = LastInsertId::Is(next.unwrap_or(id));
    }
    Ok(())
}

/// Sends the steps of a plan, each awaited.
///
/// # Errors
///
/// As [`bring_to`].
pub async fn apply(connection: &mut ServerConnection, steps: &[Step]) -> Result<(), SyncError> {
    for step in steps {
        let answer = match step {
            Step::InitDb(schema) => {
                let mut payload = vec![code::INIT_DB];
                payload.extend_from_slice(schema);
                inject::command(connection, &payload, Grammar::Ok, STEP_TIMEOUT).await?
            }
            Step::Query(sql) => inject::query(connection, sql, STEP_TIMEOUT).await?,
        };
        expect_ok(answer)?;
    }
    Ok(())
}

fn expect_ok(answer: Answer) -> Result<(), SyncError> {
    match answer {
        Answer::Ok(_) => Ok(()),
        Answer::Err(error) => Err(SyncError::Refused(error)),
    }
}

/// None of these statements waits for a lock; a server that needs longer is not well.
const STEP_TIMEOUT: Duration = Duration::from_secs(10);
