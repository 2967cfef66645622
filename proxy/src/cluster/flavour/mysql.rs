//! MySQL 8.0.22 and later, whose statements say "replica" and "source".

use std::time::Duration;

use pointsman_router::discover::{Channel, Receiver, Replication, Report, ThreadError};
use pointsman_router::gtid::{GtidError, GtidSet};
use pointsman_router::intent;

use super::Flavour;
use crate::cluster::connection::Record;

/// MySQL's words.
#[derive(Clone, Copy, Debug)]
pub struct Mysql;

impl Flavour for Mysql {
    fn flavour(&self) -> intent::Flavour {
        intent::Flavour::Mysql
    }

    fn identity_sql(&self) -> &'static str {
        "SELECT @@version AS version, @@server_id AS server_id, @@server_uuid AS uuid, \
         @@global.read_only AS read_only, @@global.super_read_only AS super_read_only, \
         @@global.gtid_mode AS gtid_mode, @@global.gtid_executed AS executed"
    }

    fn replication_sql(&self) -> &'static str {
        "SHOW REPLICA STATUS"
    }

    fn report(&self, identity: &Record, channels: Option<&[Record]>) -> Result<Report, GtidError> {
        let executed = GtidSet::parse(intent::Flavour::Mysql, &identity.text_or_empty(&["executed"]))?;
        let replication = match channels {
            // Group Replication's own channels have no source that could be named.
            Some(rows) => Replication::Channels(
                rows.iter()
                    .filter(|row| !row.text_or_empty(&["Source_Host"]).is_empty())
                    .map(channel)
                    .collect::<Result<_, _>>()?,
            ),
            None => Replication::default(),
        };
        Ok(Report {
            flavour: self.flavour(),
            version: identity.text_or_empty(&["version"]),
            server_id: identity.number(&["server_id"]).unwrap_or_default(),
            uuid: identity.text_or_empty(&["uuid"]),
            read_only: identity.is_on(&["read_only"]),
            super_read_only: identity.is_on(&["super_read_only"]),
            applied: executed.clone(),
            executed,
            gtids: identity.is_on(&["gtid_mode"]),
            replication,
            ..Report::default()
        })
    }

    fn life_sql(&self) -> &'static str {
        "SELECT s.CHANNEL_NAME AS channel, UNIX_TIMESTAMP(s.LAST_HEARTBEAT_TIMESTAMP) AS beat, \
         c.HEARTBEAT_INTERVAL AS period, UNIX_TIMESTAMP() AS now, (SELECT VARIABLE_VALUE \
         FROM performance_schema.global_status WHERE VARIABLE_NAME = 'Uptime') AS uptime, \
         (SELECT MAX(t.PROCESSLIST_ID) FROM performance_schema.threads t \
         WHERE t.NAME = 'thread/sql/replica_sql') AS applier FROM (SELECT 1) one \
         LEFT JOIN performance_schema.replication_connection_status s ON TRUE \
         LEFT JOIN performance_schema.replication_connection_configuration c ON c.CHANNEL_NAME = s.CHANNEL_NAME"
    }

    fn monitor_grant(&self) -> &'static str {
        "REPLICATION CLIENT"
    }

    fn isolation_variable(&self) -> &'static str {
        "transaction_isolation"
    }

    fn statement_limit_variable(&self) -> &'static str {
        "max_execution_time"
    }
}

fn channel(row: &Record) -> Result<Channel, GtidError> {
    let error = |thread: &str| ThreadError {
        code: row.number(&[&format!("Last_{thread}_Errno")]).unwrap_or_default(),
        message: row.text_or_empty(&[&format!("Last_{thread}_Error")]),
    };
    let filters = [
        "Replicate_Do_DB",
        "Replicate_Ignore_DB",
        "Replicate_Do_Table",
        "Replicate_Ignore_Table",
        "Replicate_Wild_Do_Table",
        "Replicate_Wild_Ignore_Table",
    ];
    Ok(Channel {
        name: row.text_or_empty(&["Channel_Name"]),
        source_host: row.text_or_empty(&["Source_Host"]),
        source_port: row.number(&["Source_Port"]).unwrap_or_default(),
        source_server_id: row.number(&["Source_Server_Id"]).unwrap_or_default(),
        source_uuid: row.text_or_empty(&["Source_UUID"]),
        receiver: match row.text_or_empty(&["Replica_IO_Running"]).as_str() {
            "Yes" => Receiver::Running,
            "Connecting" => Receiver::Connecting,
            _ => Receiver::Stopped,
        },
        receiver_error: error("IO"),
        applies: row.is_on(&["Replica_SQL_Running"]),
        applier_error: error("SQL"),
        received: GtidSet::parse(intent::Flavour::Mysql, &row.text_or_empty(&["Retrieved_Gtid_Set"]))?,
        delay: Duration::from_secs(row.number(&["SQL_Delay"]).unwrap_or_default()),
        filtered: filters.iter().any(|name| row.text(&[name]).is_some_and(|text| !text.is_empty())),
        ..Channel::default()
    })
}
