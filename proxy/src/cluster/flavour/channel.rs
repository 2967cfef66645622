//! One row of the replication status, whose columns are named by flavour: Source and Replica, Master and Slave.

use std::time::Duration;

use pointsman_router::discover::{Channel, Receiver, ThreadError};
use pointsman_router::gtid::{GtidError, GtidSet};
use pointsman_router::intent::Flavour;

use super::pulse;
use crate::cluster::connection::Record;

/// Columns that name what a replica leaves out; MySQL has all but the last two.
const FILTERS: [&str; 8] = [
    "Replicate_Do_DB",
    "Replicate_Ignore_DB",
    "Replicate_Do_Table",
    "Replicate_Ignore_Table",
    "Replicate_Wild_Do_Table",
    "Replicate_Wild_Ignore_Table",
    "Replicate_Do_Domain_Ids",
    "Replicate_Ignore_Domain_Ids",
];

/// Reads a row; what a flavour does not tell is empty.
///
/// # Errors
///
/// When the received position is no position.
pub(super) fn channel(flavour: Flavour, row: &Record) -> Result<Channel, GtidError> {
    let error = |thread: &str| ThreadError {
        code: row.number(&[&format!("Last_{thread}_Errno")]).unwrap_or_default(),
        message: row.text_or_empty(&[&format!("Last_{thread}_Error")]),
    };
    let received = row.text_or_empty(&["Retrieved_Gtid_Set", "Gtid_IO_Pos"]);
    Ok(Channel {
        name: row.text_or_empty(&["Channel_Name", "Connection_name"]),
        source_host: row.text_or_empty(&["Source_Host", "Master_Host"]),
        source_port: row.number(&["Source_Port", "Master_Port"]).unwrap_or_default(),
        source_server_id: row.number(&["Source_Server_Id", "Master_Server_Id"]).unwrap_or_default(),
        source_uuid: row.text_or_empty(&["Source_UUID"]),
        receiver: match row.text_or_empty(&["Replica_IO_Running", "Slave_IO_Running"]).as_str() {
            "Yes" => Receiver::Running,
            // "Preparing" is a thread that has started and not yet tried.
            "Connecting" | "Preparing" => Receiver::Connecting,
            _ => Receiver::Stopped,
        },
        receiver_error: error("IO"),
        applies: row.is_on(&["Replica_SQL_Running", "Slave_SQL_Running"]),
        applier_error: error("SQL"),
        received: GtidSet::parse(flavour, &received)?,
        delay: Duration::from_secs(row.number(&["SQL_Delay"]).unwrap_or_default()),
        filtered: FILTERS.iter().any(|name| row.text(&[name]).is_some_and(|text| !text.is_empty())),
        pulse: pulse(row.number(&["Slave_received_heartbeats"]), row.number(&["Slave_heartbeat_period"])),
    })
}
