//! MariaDB 10.6 and later.

use pointsman_router::discover::{Channel, Replication, Report};
use pointsman_router::gtid::{GtidError, GtidSet};
use pointsman_router::intent;

use super::Flavour;
use super::channel::channel;
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

    fn channels(&self, rows: &[Record]) -> Result<Vec<Channel>, GtidError> {
        rows.iter().map(|row| channel(self.flavour(), row)).collect()
    }

    fn report(&self, identity: &Record, channels: Option<&[Record]>) -> Result<Report, GtidError> {
        let position = |name| GtidSet::parse(intent::Flavour::Mariadb, &identity.text_or_empty(&[name]));
        let applied = position("applied")?;
        let mut executed = applied.clone();
        executed.merge(&position("current")?);
        executed.merge(&position("logged")?);
        let replication = match channels {
            Some(rows) => Replication::Channels(self.channels(rows)?),
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

    /// The sources' heartbeats are in the replication status already. The threads are listed by SHOW, which makes no
    /// temporary table: a server can crash while it drops that of `information_schema.PROCESSLIST` (10.11.19, signal 11
    /// in `ha_maria::drop_table`), and it takes twice the time.
    fn life_sql(&self) -> &'static str {
        "SHOW PROCESSLIST"
    }

    fn add_life(&self, answer: &[Record], _: &mut Report) -> Option<u64> {
        let appliers = answer.iter().filter(|row| row.text_or_empty(&["Command"]) == "Slave_SQL");
        appliers.filter_map(|row| row.number(&["Id"])).max()
    }

    fn semi_sync_sql(&self) -> &'static str {
        "SELECT @@global.rpl_semi_sync_master_enabled AS rpl_semi_sync_master_enabled, \
         @@global.rpl_semi_sync_slave_enabled AS rpl_semi_sync_slave_enabled, \
         @@global.rpl_semi_sync_master_timeout AS rpl_semi_sync_master_timeout, \
         @@global.rpl_semi_sync_master_wait_point AS rpl_semi_sync_master_wait_point, \
         @@global.rpl_semi_sync_master_wait_no_slave AS rpl_semi_sync_master_wait_no_slave; \
         SHOW GLOBAL STATUS LIKE 'Rpl_semi_sync%'"
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
