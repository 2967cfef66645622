//! MariaDB 10.6 and later.

use pointsman_router::discover::{Replication, Report};
use pointsman_router::gtid::{GtidError, GtidSet};
use pointsman_router::intent;

use super::channel::channel;
use super::{Flavour, clock, incarnation};
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
            Some(rows) => Replication::Channels(
                rows.iter().map(|row| channel(self.flavour(), row)).collect::<Result<_, _>>()?,
            ),
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
        "SELECT UNIX_TIMESTAMP() AS now; SHOW GLOBAL STATUS LIKE 'Uptime'; SHOW PROCESSLIST; \
         SELECT UNIX_TIMESTAMP() AS now"
    }

    fn add_life(&self, answers: &[Vec<Record>], report: &mut Report) {
        let [before, status, threads, after] = answers else { return };
        let uptime = status.first().and_then(|row| row.number(&["Value"]));
        let appliers = threads.iter().filter(|row| row.text_or_empty(&["Command"]) == "Slave_SQL");
        let applier = appliers.filter_map(|row| row.number(&["Id"])).max();
        report.incarnation = incarnation(clock(before), clock(after), uptime, applier);
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
