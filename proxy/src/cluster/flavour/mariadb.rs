//! MariaDB 10.6 and later.

use std::time::Duration;

use pointsman_router::discover::{Channel, Pulse, Receiver, Replication, Report, ThreadError};
use pointsman_router::gtid::{GtidError, GtidSet};
use pointsman_router::intent;

use super::Flavour;
use crate::cluster::connection::Record;

/// MariaDB's words.
#[derive(Clone, Copy, Debug)]
pub struct Mariadb;

impl Flavour for Mariadb {
    fn flavour(&self) -> intent::Flavour {
        intent::Flavour::Mariadb
    }

    /// `gtid_current_pos` leaves out what other servers wrote unless it came by replication, and the binary log
    /// what a replica did not log: together they are what the server holds.
    fn identity_sql(&self) -> &'static str {
        "SELECT @@version AS version, @@server_id AS server_id, @@global.read_only AS read_only, \
         @@global.gtid_slave_pos AS applied, @@global.gtid_current_pos AS current, \
         @@global.gtid_binlog_pos AS logged"
    }

    fn replication_sql(&self) -> &'static str {
        "SHOW ALL SLAVES STATUS"
    }

    fn report(&self, identity: &Record, channels: Option<&[Record]>) -> Result<Report, GtidError> {
        let position = |name| GtidSet::parse(intent::Flavour::Mariadb, &identity.text_or_empty(&[name]));
        let applied = position("applied")?;
        let mut executed = applied.clone();
        executed.merge(&position("current")?);
        executed.merge(&position("logged")?);
        let replication = match channels {
            Some(rows) => Replication::Channels(rows.iter().map(channel).collect::<Result<_, _>>()?),
            None => Replication::default(),
        };
        Ok(Report {
            flavour: self.flavour(),
            version: identity.text_or_empty(&["version"]),
            server_id: identity.number(&["server_id"]).unwrap_or_default(),
            read_only: identity.is_on(&["read_only"]),
            applied,
            executed,
            gtids: true,
            replication,
            ..Report::default()
        })
    }

    /// The sources' heartbeats are in the replication status already.
    fn life_sql(&self) -> &'static str {
        "SELECT '' AS channel, UNIX_TIMESTAMP() AS now, (SELECT VARIABLE_VALUE FROM information_schema.GLOBAL_STATUS \
         WHERE VARIABLE_NAME = 'UPTIME') AS uptime, (SELECT MAX(ID) FROM information_schema.PROCESSLIST \
         WHERE COMMAND = 'Slave_SQL') AS applier"
    }

    fn monitor_grant(&self) -> &'static str {
        "REPLICA MONITOR"
    }

    fn isolation_variable(&self) -> &'static str {
        "tx_isolation"
    }

    fn statement_limit_variable(&self) -> &'static str {
        "max_statement_time"
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
        "Replicate_Do_Domain_Ids",
        "Replicate_Ignore_Domain_Ids",
    ];
    Ok(Channel {
        name: row.text_or_empty(&["Connection_name"]),
        source_host: row.text_or_empty(&["Master_Host"]),
        source_port: row.number(&["Master_Port"]).unwrap_or_default(),
        source_server_id: row.number(&["Master_Server_Id"]).unwrap_or_default(),
        source_uuid: String::new(),
        receiver: match row.text_or_empty(&["Slave_IO_Running"]).as_str() {
            "Yes" => Receiver::Running,
            // "Preparing" is a thread that has started and not yet tried.
            "Connecting" | "Preparing" => Receiver::Connecting,
            _ => Receiver::Stopped,
        },
        receiver_error: error("IO"),
        applies: row.is_on(&["Slave_SQL_Running"]),
        applier_error: error("SQL"),
        received: GtidSet::parse(intent::Flavour::Mariadb, &row.text_or_empty(&["Gtid_IO_Pos"]))?,
        delay: Duration::from_secs(row.number(&["SQL_Delay"]).unwrap_or_default()),
        filtered: filters.iter().any(|name| row.text(&[name]).is_some_and(|text| !text.is_empty())),
        pulse: pulse(row),
    })
}

fn pulse(row: &Record) -> Option<Pulse> {
    let period: f64 = row.number(&["Slave_heartbeat_period"])?;
    let beat = row.number(&["Slave_received_heartbeats"])?;
    (period > 0.0).then(|| Pulse { beat, period: Duration::try_from_secs_f64(period).unwrap_or_default() })
}
