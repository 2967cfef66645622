//! MySQL 8.0.22 and later, whose statements say "replica" and "source".

use pointsman_router::discover::{Channel, Replication, Report};
use pointsman_router::gtid::{GtidError, GtidSet};
use pointsman_router::intent;

use super::channel::channel;
use super::{Flavour, pulse};
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

    fn channels(&self, rows: &[Record]) -> Result<Vec<Channel>, GtidError> {
        // Group Replication's own channels have no source that could be named.
        let named = rows.iter().filter(|row| !row.text_or_empty(&["Source_Host"]).is_empty());
        named.map(|row| channel(self.flavour(), row)).collect()
    }

    fn report(&self, identity: &Record, channels: Option<&[Record]>) -> Result<Report, GtidError> {
        let executed = GtidSet::parse(intent::Flavour::Mysql, &identity.text_or_empty(&["executed"]))?;
        let replication = match channels {
            Some(rows) => Replication::Channels(self.channels(rows)?),
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
         c.HEARTBEAT_INTERVAL AS period, (SELECT MAX(t.PROCESSLIST_ID) FROM performance_schema.threads t \
         WHERE t.NAME = 'thread/sql/replica_sql') AS applier FROM (SELECT 1) one \
         LEFT JOIN performance_schema.replication_connection_status s ON TRUE \
         LEFT JOIN performance_schema.replication_connection_configuration c ON c.CHANNEL_NAME = s.CHANNEL_NAME"
    }

    /// The answer has one row per channel, or one without any; `period` is in seconds.
    fn add_life(&self, answer: &[Record], report: &mut Report) -> Option<u64> {
        if let Replication::Channels(channels) = &mut report.replication {
            for channel in channels {
                let own = answer.iter().find(|row| row.text_or_empty(&["channel"]) == channel.name);
                channel.pulse = channel.pulse.or_else(|| {
                    // A point in time serves as a number, without its point.
                    let beat = own?.text(&["beat"])?.replace('.', "").parse().ok();
                    pulse(beat, own?.number(&["period"]))
                });
            }
        }
        answer.first().and_then(|row| row.number(&["applier"]))
    }

    fn semi_sync_sql(&self) -> &'static str {
        "SELECT @@global.rpl_semi_sync_source_enabled AS rpl_semi_sync_source_enabled, \
         @@global.rpl_semi_sync_replica_enabled AS rpl_semi_sync_replica_enabled, \
         @@global.rpl_semi_sync_source_timeout AS rpl_semi_sync_source_timeout, \
         @@global.rpl_semi_sync_source_wait_point AS rpl_semi_sync_source_wait_point, \
         @@global.rpl_semi_sync_source_wait_no_replica AS rpl_semi_sync_source_wait_no_replica, \
         @@global.rpl_semi_sync_source_wait_for_replica_count AS rpl_semi_sync_source_wait_for_replica_count; \
         SHOW GLOBAL STATUS LIKE 'Rpl_semi_sync%'"
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
