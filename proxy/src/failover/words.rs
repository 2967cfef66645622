//! What is said to servers to stop, point, start and promote them, in the words of either flavour.

use std::time::Duration;

use pointsman_config::Secret;
use pointsman_router::gtid::GtidSet;
use pointsman_router::intent::Flavour;

use crate::cluster::epoch::quote;

/// How a replica reaches its source.
#[derive(Debug)]
pub(super) struct Source<'a> {
    pub(super) host: &'a str,
    pub(super) port: u16,
    /// None keeps what the replica has used up to now.
    pub(super) login: Option<Login<'a>>,
    pub(super) heartbeat: Duration,
    pub(super) channel: &'a str,
}

/// The account of a replica that did not replicate before.
#[derive(Debug)]
pub(super) struct Login<'a> {
    pub(super) user: &'a str,
    pub(super) password: &'a Secret,
    pub(super) tls: bool,
}

/// What a server does in semi-synchronous replication.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SemiSyncRole {
    /// Waits for so many acknowledgements, for ever.
    Source {
        wait_for: u32,
    },
    Acker,
    None,
}

pub(super) fn start_applier(flavour: Flavour) -> &'static str {
    match flavour {
        Flavour::Mariadb => "START SLAVE SQL_THREAD",
        Flavour::Mysql => "START REPLICA SQL_THREAD",
    }
}

pub(super) fn stop_applier(flavour: Flavour) -> &'static str {
    match flavour {
        Flavour::Mariadb => "STOP SLAVE SQL_THREAD",
        Flavour::Mysql => "STOP REPLICA SQL_THREAD",
    }
}

pub(super) fn start_receiver(flavour: Flavour) -> &'static str {
    match flavour {
        Flavour::Mariadb => "START SLAVE IO_THREAD",
        Flavour::Mysql => "START REPLICA IO_THREAD",
    }
}

pub(super) fn stop_receiver(flavour: Flavour) -> &'static str {
    match flavour {
        Flavour::Mariadb => "STOP SLAVE IO_THREAD",
        Flavour::Mysql => "STOP REPLICA IO_THREAD",
    }
}

pub(super) fn stop_replication(flavour: Flavour) -> &'static str {
    match flavour {
        Flavour::Mariadb => "STOP SLAVE",
        Flavour::Mysql => "STOP REPLICA",
    }
}

pub(super) fn start_replication(flavour: Flavour) -> &'static str {
    match flavour {
        Flavour::Mariadb => "START SLAVE",
        Flavour::Mysql => "START REPLICA",
    }
}

pub(super) fn forget_source(flavour: Flavour) -> &'static str {
    match flavour {
        Flavour::Mariadb => "RESET SLAVE ALL",
        Flavour::Mysql => "RESET REPLICA ALL",
    }
}

pub(super) fn without_delay(flavour: Flavour) -> &'static str {
    match flavour {
        Flavour::Mariadb => "CHANGE MASTER TO MASTER_DELAY=0",
        Flavour::Mysql => "CHANGE REPLICATION SOURCE TO SOURCE_DELAY=0",
    }
}

/// What the receiving thread is called in the list of threads, where stopping it may hang and a KILL helps: MariaDB's
/// tells a source that does not answer that it is leaving (`kill_connection` in `sql/semisync_slave.cc`).
pub(super) fn receiver_to_kill(flavour: Flavour) -> Option<&'static str> {
    match flavour {
        Flavour::Mariadb => Some("Slave_IO"),
        Flavour::Mysql => None,
    }
}

/// Asks for the id of the applying thread, where it is in the middle of a transaction: MySQL's waits up to a minute for the
/// rest before it stops (`sql_slave_killed` in `sql/rpl_replica.cc`), and a KILL ends that, with `SYSTEM_USER`.
pub(super) fn applier_amid_transaction(flavour: Flavour) -> Option<&'static str> {
    match flavour {
        Flavour::Mariadb => None,
        Flavour::Mysql => Some(
            "SELECT t.PROCESSLIST_ID FROM performance_schema.replication_applier_status_by_coordinator c \
             JOIN performance_schema.threads t ON t.THREAD_ID = c.THREAD_ID WHERE c.PROCESSING_TRANSACTION <> ''",
        ),
    }
}

/// Makes the server refuse writes, for all but privileged accounts on MariaDB, which has nothing stronger.
pub(super) fn read_only(flavour: Flavour) -> &'static str {
    match flavour {
        Flavour::Mariadb => "SET GLOBAL read_only = 1",
        Flavour::Mysql => "SET GLOBAL super_read_only = 1",
    }
}

pub(super) fn writable(flavour: Flavour) -> &'static str {
    match flavour {
        Flavour::Mariadb => "SET GLOBAL read_only = 0",
        Flavour::Mysql => "SET GLOBAL super_read_only = 0, GLOBAL read_only = 0",
    }
}

/// Lets the service account write while everybody else is refused.
pub(super) fn writable_for_us(flavour: Flavour) -> Option<&'static str> {
    match flavour {
        Flavour::Mariadb => None,
        // It leaves read_only as it is, which is on wherever this one was.
        Flavour::Mysql => Some("SET GLOBAL super_read_only = 0"),
    }
}

/// Answers 0 when the position is applied, anything else when it is not within `limit`.
pub(super) fn wait_applied(flavour: Flavour, position: &GtidSet, limit: Duration) -> String {
    let (position, seconds) = (position.to_string(), limit.as_secs_f64());
    match flavour {
        Flavour::Mariadb => format!("SELECT MASTER_GTID_WAIT('{position}', {seconds:.3})"),
        Flavour::Mysql => format!("SELECT WAIT_FOR_EXECUTED_GTID_SET('{position}', {seconds:.3})"),
    }
}

/// How the applying thread says that nothing is left in its relay log.
pub(super) fn is_idle(state: &str) -> bool {
    state.contains("has read all relay log")
}

/// Where MariaDB says that.
pub(super) const APPLIER_STATE: &str = "Slave_SQL_Running_State";
/// How a thread that applies in parallel with others says that it has nothing to do.
pub(super) const WORKER_RESTS: &str = "Waiting for work from SQL thread";

/// Asks MariaDB for what follows in the relay log behind the last transaction that was applied whole.
pub(super) fn relay_log_rest(file: &str, position: u64) -> String {
    format!("SHOW RELAYLOG EVENTS IN {} FROM {position} LIMIT {MAX_RELAY_EVENTS}", quote(file))
}

/// Whether what follows, as types and texts of events, is the beginning of one transaction and nothing else.
pub(super) fn is_cut_off(events: &[(String, String)]) -> bool {
    let Some(((first, begins), rest)) = events.split_first() else { return false };
    let goes_on = |(kind, text): &(String, String)| match kind.as_str() {
        "Xid" | "XA_prepare" | "Gtid" | "Rotate" | "Stop" => false,
        "Query" => !text.contains("COMMIT") && !text.contains("ROLLBACK"),
        _ => true,
    };
    events.len() < MAX_RELAY_EVENTS
        && first == "Gtid"
        && begins.starts_with("BEGIN ")
        && rest.iter().all(goes_on)
}

/// The statements that give a server its role; the source's first, so that it never acknowledges without it.
pub(super) fn take_role(flavour: Flavour, role: SemiSyncRole) -> Vec<String> {
    let (source, replica, timeout_ms) = match flavour {
        Flavour::Mariadb => ("master", "slave", MARIADB_FOREVER_MS),
        Flavour::Mysql => ("source", "replica", MYSQL_FOREVER_MS),
    };
    let set = |name: String, value: u64| format!("SET GLOBAL rpl_semi_sync_{name} = {value}");
    match role {
        SemiSyncRole::Source { wait_for } => {
            let mut statements = vec![
                set(format!("{replica}_enabled"), 0),
                set(format!("{source}_timeout"), timeout_ms),
                format!("SET GLOBAL rpl_semi_sync_{source}_wait_point = AFTER_SYNC"),
                match flavour {
                    Flavour::Mariadb => set("master_wait_no_slave".into(), 1),
                    Flavour::Mysql => set("source_wait_no_replica".into(), 1),
                },
            ];
            if flavour == Flavour::Mysql {
                statements.push(set("source_wait_for_replica_count".into(), u64::from(wait_for.max(1))));
            }
            statements.push(set(format!("{source}_enabled"), 1));
            statements
        }
        SemiSyncRole::Acker => {
            vec![set(format!("{source}_enabled"), 0), set(format!("{replica}_enabled"), 1)]
        }
        SemiSyncRole::None => {
            vec![set(format!("{source}_enabled"), 0), set(format!("{replica}_enabled"), 0)]
        }
    }
}

/// Points a stopped server at its source, by GTID.
pub(super) fn change_source(flavour: Flavour, source: &Source<'_>) -> String {
    let host = quote(source.host);
    let (port, heartbeat) = (source.port, source.heartbeat.as_secs_f64());
    let word = match flavour {
        Flavour::Mariadb => "MASTER",
        Flavour::Mysql => "SOURCE",
    };
    let mut options = vec![
        format!("{word}_HOST={host}"),
        format!("{word}_PORT={port}"),
        format!("{word}_CONNECT_RETRY=1"),
        format!("{word}_HEARTBEAT_PERIOD={heartbeat:.3}"),
    ];
    options.push(match flavour {
        Flavour::Mariadb => "MASTER_USE_GTID=slave_pos".to_owned(),
        Flavour::Mysql => "SOURCE_AUTO_POSITION=1".to_owned(),
    });
    if let Some(login) = &source.login {
        options.push(format!("{word}_USER={}", quote(login.user)));
        options.push(format!("{word}_PASSWORD={}", quote(login.password.expose())));
        options.push(format!("{word}_SSL={}", u8::from(login.tls)));
        if flavour == Flavour::Mysql {
            // Without TLS the password can only be sent with the source's key.
            options.push("GET_SOURCE_PUBLIC_KEY=1".to_owned());
        }
    }
    let options = options.join(", ");
    match flavour {
        Flavour::Mariadb if source.channel.is_empty() => format!("CHANGE MASTER TO {options}"),
        Flavour::Mariadb => format!("CHANGE MASTER {} TO {options}", quote(source.channel)),
        Flavour::Mysql => {
            format!("CHANGE REPLICATION SOURCE TO {options} FOR CHANNEL {}", quote(source.channel))
        }
    }
}

/// What a former primary has to be told before it replicates: where its own writes ended.
pub(super) fn continue_from(flavour: Flavour, executed: &GtidSet) -> Option<String> {
    match flavour {
        Flavour::Mariadb => Some(format!("SET GLOBAL gtid_slave_pos = '{executed}'")),
        Flavour::Mysql => None,
    }
}

/// Everything that the server's binary log has ever held: for each domain and server the last number, or a set.
pub(super) fn logged(flavour: Flavour) -> &'static str {
    match flavour {
        Flavour::Mariadb => "SELECT @@global.gtid_binlog_state",
        Flavour::Mysql => "SELECT @@global.gtid_executed",
    }
}

/// Of the beginning of a longer transaction it is not known whether it is all that follows.
const MAX_RELAY_EVENTS: usize = 2000;
/// The longest that MariaDB takes: 49 days.
const MARIADB_FOREVER_MS: u64 = 4_294_967_295;
const MYSQL_FOREVER_MS: u64 = 4_294_967_295;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources() {
        let secret = Secret::new("it's \\ secret");
        let login = Login { user: "replication", password: &secret, tls: false };
        let source = Source {
            host: "db-2",
            port: 3306,
            login: Some(login),
            heartbeat: Duration::from_millis(100),
            channel: "",
        };
        assert_eq!(
            change_source(Flavour::Mariadb, &source),
            "CHANGE MASTER TO MASTER_HOST='db-2', MASTER_PORT=3306, MASTER_CONNECT_RETRY=1, \
             MASTER_HEARTBEAT_PERIOD=0.100, MASTER_USE_GTID=slave_pos, MASTER_USER='replication', \
             MASTER_PASSWORD='it''s \\\\ secret', MASTER_SSL=0"
        );
        let source = Source { login: None, channel: "main", ..source };
        assert_eq!(
            change_source(Flavour::Mysql, &source),
            "CHANGE REPLICATION SOURCE TO SOURCE_HOST='db-2', SOURCE_PORT=3306, SOURCE_CONNECT_RETRY=1, \
             SOURCE_HEARTBEAT_PERIOD=0.100, SOURCE_AUTO_POSITION=1 FOR CHANNEL 'main'"
        );
    }

    #[test]
    fn transactions_that_were_cut_off() {
        let check = |events: &[(&str, &str)], expected: bool| {
            let events: Vec<_> =
                events.iter().map(|(kind, text)| ((*kind).to_owned(), (*text).to_owned())).collect();
            assert_eq!(is_cut_off(&events), expected, "{events:?}");
        };
        let gtid = ("Gtid", "BEGIN GTID 0-1-105 cid=7");
        let rows = ("Write_rows_v1", "table_id: 34 flags: STMT_END_F");
        check(&[gtid], true);
        check(
            &[gtid, ("Annotate_rows", "INSERT INTO t VALUES (1)"), ("Table_map", "table_id: 34"), rows],
            true,
        );
        check(&[gtid, ("Query", "use `app`; INSERT INTO t VALUES (1)")], true);
        // Everything has been applied: the last transaction is not in it.
        check(&[], false);
        check(&[gtid, rows, ("Xid", "COMMIT /* xid=3 */")], false);
        check(&[gtid, ("Query", "COMMIT")], false);
        check(&[("Gtid", "GTID 0-1-105"), ("Query", "CREATE TABLE t (id INT)")], false);
        check(&[gtid, rows, ("Rotate", "relay.000003;pos=4")], false);
        check(&[gtid, rows, ("Xid", ""), gtid], false);
        check(&[rows], false);
        let many: Vec<_> = std::iter::once(gtid).chain([rows; MAX_RELAY_EVENTS]).collect();
        check(&many, false);
    }

    #[test]
    fn a_source_is_ready_to_wait_before_it_waits() {
        let statements = take_role(Flavour::Mariadb, SemiSyncRole::Source { wait_for: 1 });
        assert_eq!(
            statements.last().map(String::as_str),
            Some("SET GLOBAL rpl_semi_sync_master_enabled = 1")
        );
        assert!(statements[0].contains("slave_enabled = 0"));
        let statements = take_role(Flavour::Mysql, SemiSyncRole::Source { wait_for: 2 });
        assert!(
            statements.iter().any(|sql| sql == "SET GLOBAL rpl_semi_sync_source_wait_for_replica_count = 2")
        );
    }
}
