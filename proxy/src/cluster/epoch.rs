//! The table in schema `pointsman` that marks where in the binary log each primary's time began.
//!
//! Its newest row is the first transaction of each primary, written before the server accepts any other.

use std::time::Duration;

use pointsman_router::discover::EpochRow;

use super::connection::{ConnectionError, ServiceConnection};

/// How a heartbeat begins, by which it is known among the statements of a server.
pub(crate) const BEAT: &str = "UPDATE pointsman.epoch SET beat";
/// Asks for the newest row.
const NEWEST_SQL: &str = "SELECT epoch, primary_name FROM pointsman.epoch ORDER BY epoch DESC LIMIT 1";
const MAKE_SQL: [&str; 2] = [
    "CREATE DATABASE IF NOT EXISTS pointsman",
    "CREATE TABLE IF NOT EXISTS pointsman.epoch (epoch BIGINT UNSIGNED NOT NULL PRIMARY KEY, \
     primary_name VARCHAR(255) CHARACTER SET utf8mb4 NOT NULL, \
     beat BIGINT UNSIGNED NOT NULL DEFAULT 0, \
     began TIMESTAMP(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6)) ENGINE=InnoDB",
];

/// The newest row; none where the table is missing or may not be read.
///
/// # Errors
///
/// When the server does not answer.
pub(crate) async fn newest(
    connection: &mut ServiceConnection,
    limit: Duration,
) -> Result<Option<EpochRow>, ConnectionError> {
    let rows = match connection.rows(NEWEST_SQL, limit).await {
        Ok(rows) => rows,
        Err(ConnectionError::Server { .. }) => return Ok(None),
        Err(error) => return Err(error),
    };
    Ok(rows.first().and_then(|row| {
        Some(EpochRow { epoch: row.number(&["epoch"])?, primary: row.text_or_empty(&["primary_name"]) })
    }))
}

/// Writes the row of an epoch, and makes the table where it is missing. Done twice, it changes nothing.
///
/// # Errors
///
/// When the server refuses or does not answer.
pub(crate) async fn write(
    connection: &mut ServiceConnection,
    row: &EpochRow,
    limit: Duration,
) -> Result<(), ConnectionError> {
    let name = quote(&row.primary);
    let sql = format!(
        "INSERT INTO pointsman.epoch (epoch, primary_name) VALUES ({}, {name}) \
         ON DUPLICATE KEY UPDATE primary_name = {name}",
        row.epoch
    );
    match connection.run(&sql, limit).await {
        Err(ConnectionError::Server { code: UNKNOWN_DATABASE | NO_SUCH_TABLE, .. }) => {}
        outcome => return outcome,
    }
    for statement in MAKE_SQL {
        connection.run(statement, limit).await?;
    }
    connection.run(&sql, limit).await
}

/// Adds to a table that was made before there were heartbeats what they change.
///
/// # Errors
///
/// When the server refuses or does not answer.
pub(crate) async fn add_beat(
    connection: &mut ServiceConnection,
    limit: Duration,
) -> Result<(), ConnectionError> {
    let sql = "ALTER TABLE pointsman.epoch ADD COLUMN beat BIGINT UNSIGNED NOT NULL DEFAULT 0";
    connection.run(sql, limit).await
}

/// The heartbeat of an epoch, and a question how many rows it has changed: none where the server is read-only, which
/// does not stop the service account, or has the row of a later epoch.
pub(crate) fn beat(epoch: u64) -> String {
    format!(
        "{BEAT} = beat + 1 WHERE epoch = {epoch} AND @@global.read_only = 0 \
         AND epoch = (SELECT newest FROM (SELECT MAX(epoch) AS newest FROM pointsman.epoch) AS all_rows); \
         SELECT ROW_COUNT()"
    )
}

/// A string literal; the service account's sessions have backslash escapes on.
pub(crate) fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

/// ER_BAD_DB_ERROR.
const UNKNOWN_DATABASE: u16 = 1049;
/// ER_NO_SUCH_TABLE.
const NO_SUCH_TABLE: u16 = 1146;
