//! Where the two flavours differ for a sandbox: server options, accounts, replication statements.

use std::time::Duration;

use pointsman_router::intent::Flavour;

/// The service account of Pointsman: name and password.
pub const SERVICE: (&str, &str) = ("pointsman", "pointsman");
/// An application's account with all rights on the schemas `app`, `test` and `sbtest`; `read_only` stops it.
pub const APP: (&str, &str) = ("app", "app");
/// An account with all rights on everything, which `read_only` does not stop.
pub const DBA: (&str, &str) = ("dba", "dba");
const REPLICATION: (&str, &str) = ("replication", "replication");

/// The statements, one a line, that make the schemas and accounts of a fresh data directory.
pub(super) fn accounts(flavour: Flavour) -> String {
    let mut sql = Vec::new();
    for schema in SCHEMAS {
        sql.push(format!("CREATE DATABASE IF NOT EXISTS {schema};"));
    }
    for (user, password) in [SERVICE, APP, DBA, REPLICATION, ("reader", "reader"), ("nopassword", "")] {
        sql.push(format!("CREATE USER {user}@'%' IDENTIFIED BY '{password}';"));
    }
    sql.push("CREATE USER tls@'%' IDENTIFIED BY 'tls' REQUIRE SSL;".to_owned());
    if flavour == Flavour::Mariadb {
        sql.push("CREATE USER ed@'%' IDENTIFIED VIA ed25519 USING PASSWORD('ed');".to_owned());
        sql.push("GRANT ALL ON app.* TO ed@'%';".to_owned());
    }
    for schema in SCHEMAS {
        for user in [APP.0, "tls", "nopassword"] {
            sql.push(format!("GRANT ALL ON {schema}.* TO {user}@'%';"));
        }
        sql.push(format!("GRANT SELECT ON {schema}.* TO reader@'%';"));
    }
    sql.push(format!("GRANT ALL ON *.* TO {}@'%' WITH GRANT OPTION;", DBA.0));
    sql.push(format!("GRANT REPLICATION SLAVE ON *.* TO {}@'%';", REPLICATION.0));
    let rights = match flavour {
        Flavour::Mariadb => MARIADB_SERVICE_RIGHTS,
        Flavour::Mysql => MYSQL_SERVICE_RIGHTS,
    };
    sql.push(format!("GRANT {rights} ON *.* TO {}@'%';", SERVICE.0));
    sql.push(format!("GRANT ALL ON pointsman.* TO {}@'%';", SERVICE.0));
    sql.join("\n") + "\n"
}

/// Options that hold for the making of a data directory and for every start on it.
pub(super) fn storage_options(flavour: Flavour) -> &'static [&'static str] {
    match flavour {
        Flavour::Mariadb => &["--innodb-log-file-size=32M", "--innodb-buffer-pool-size=64M"],
        Flavour::Mysql => {
            &["--innodb-redo-log-capacity=32M", "--innodb-buffer-pool-size=64M", "--mysqlx=OFF"]
        }
    }
}

/// Options of every server of a topology.
pub(super) fn server_options(flavour: Flavour, durable: bool) -> Vec<&'static str> {
    let mut options = vec![
        "--bind-address=127.0.0.1",
        "--skip-name-resolve",
        "--log-bin=binlog",
        "--relay-log=relay",
        "--relay-log-recovery=1",
        "--report-host=127.0.0.1",
        "--max-connections=600",
        // Also of relay logs, which are deleted by the file.
        "--max-binlog-size=64M",
        "--max-connect-errors=1000000",
        "--local-infile=1",
    ];
    options.extend(storage_options(flavour));
    options.extend(match flavour {
        Flavour::Mariadb => &[
            "--gtid-strict-mode=1",
            "--log-slave-updates=1",
            "--skip-slave-start",
            "--slave-net-timeout=4",
            "--plugin-load-add=auth_ed25519",
        ][..],
        Flavour::Mysql => &[
            "--gtid-mode=ON",
            "--enforce-gtid-consistency=ON",
            "--skip-replica-start=1",
            "--replica-net-timeout=4",
            "--secure-file-priv=",
        ],
    });
    options.extend(match (flavour, durable) {
        (_, true) => &["--sync-binlog=1", "--innodb-flush-log-at-trx-commit=1"][..],
        // A killed server keeps what it wrote, only a power cut would lose it.
        (Flavour::Mariadb, false) => &[
            "--sync-binlog=0",
            "--innodb-flush-log-at-trx-commit=2",
            "--innodb-flush-method=nosync",
            "--skip-innodb-doublewrite",
        ],
        (Flavour::Mysql, false) => &[
            "--sync-binlog=0",
            "--innodb-flush-log-at-trx-commit=2",
            "--innodb-flush-method=nosync",
            "--innodb-doublewrite=OFF",
        ],
    });
    options
}

/// Options of every server of a topology whose acknowledged transactions survive their primary.
pub(super) fn lossless_options(flavour: Flavour) -> &'static [&'static str] {
    match flavour {
        Flavour::Mariadb => &[
            "--rpl-semi-sync-master-wait-point=AFTER_SYNC",
            "--rpl-semi-sync-master-timeout=4294967295",
            "--rpl-semi-sync-master-wait-no-slave=1",
            "--init-rpl-role=SLAVE",
        ],
        Flavour::Mysql => &[
            "--plugin-load-add=semisync_source.so;semisync_replica.so",
            "--loose-rpl-semi-sync-source-wait-point=AFTER_SYNC",
            "--loose-rpl-semi-sync-source-timeout=4294967295",
            "--loose-rpl-semi-sync-source-wait-no-replica=1",
        ],
    }
}

/// Makes a replica acknowledge what it receives.
pub(super) fn acknowledge(flavour: Flavour) -> &'static str {
    match flavour {
        Flavour::Mariadb => "SET GLOBAL rpl_semi_sync_slave_enabled=1",
        Flavour::Mysql => "SET GLOBAL rpl_semi_sync_replica_enabled=1",
    }
}

/// Makes a primary wait for that.
pub(super) fn wait_for_acknowledgement(flavour: Flavour) -> &'static str {
    match flavour {
        Flavour::Mariadb => "SET GLOBAL rpl_semi_sync_master_enabled=1",
        Flavour::Mysql => "SET GLOBAL rpl_semi_sync_source_enabled=1",
    }
}

/// The option that makes a replica refuse writes from its start.
pub(super) fn read_only_option(flavour: Flavour) -> &'static str {
    match flavour {
        Flavour::Mariadb => "--read-only=1",
        Flavour::Mysql => "--super-read-only=1",
    }
}

/// What makes a server writable or not.
pub(super) fn set_read_only(flavour: Flavour, on: bool) -> &'static str {
    match (flavour, on) {
        (Flavour::Mysql, true) => "SET GLOBAL super_read_only=1",
        (Flavour::Mariadb, true) => "SET GLOBAL read_only=1",
        (_, false) => "SET GLOBAL read_only=0",
    }
}

/// Points a server at its source, by GTID.
pub(super) fn replicate_from(flavour: Flavour, port: u16) -> String {
    let (user, password) = REPLICATION;
    match flavour {
        Flavour::Mariadb => format!(
            "CHANGE MASTER TO MASTER_HOST='127.0.0.1', MASTER_PORT={port}, MASTER_USER='{user}', \
             MASTER_PASSWORD='{password}', MASTER_USE_GTID=slave_pos, MASTER_CONNECT_RETRY=1, \
             MASTER_HEARTBEAT_PERIOD=0.1"
        ),
        Flavour::Mysql => format!(
            "CHANGE REPLICATION SOURCE TO SOURCE_HOST='127.0.0.1', SOURCE_PORT={port}, SOURCE_USER='{user}', \
             SOURCE_PASSWORD='{password}', SOURCE_AUTO_POSITION=1, GET_SOURCE_PUBLIC_KEY=1, \
             SOURCE_CONNECT_RETRY=1, SOURCE_RETRY_COUNT=86400, SOURCE_HEARTBEAT_PERIOD=0.1"
        ),
    }
}

/// Holds back the applying of each transaction; whole seconds.
pub(super) fn delay(flavour: Flavour, seconds: u64) -> String {
    match flavour {
        Flavour::Mariadb => format!("CHANGE MASTER TO MASTER_DELAY={seconds}"),
        Flavour::Mysql => format!("CHANGE REPLICATION SOURCE TO SOURCE_DELAY={seconds}"),
    }
}

/// Asks for the GTIDs that the server has executed.
pub(super) fn position(flavour: Flavour) -> &'static str {
    match flavour {
        Flavour::Mariadb => "SELECT @@gtid_current_pos",
        Flavour::Mysql => "SELECT REPLACE(@@gtid_executed, '\n', '')",
    }
}

/// Waits on a replica; the answer is zero when the position was reached.
pub(super) fn wait_for(flavour: Flavour, position: &str, limit: Duration) -> String {
    let seconds = limit.as_secs_f64();
    match flavour {
        Flavour::Mariadb => format!("SELECT MASTER_GTID_WAIT('{position}', {seconds})"),
        Flavour::Mysql => format!("SELECT WAIT_FOR_EXECUTED_GTID_SET('{position}', {seconds})"),
    }
}

const SCHEMAS: [&str; 3] = ["app", "test", "sbtest"];
const MARIADB_SERVICE_RIGHTS: &str = "SELECT, SHOW VIEW, SHOW DATABASES, RELOAD, PROCESS, REPLICATION SLAVE, \
    REPLICATION SLAVE ADMIN, REPLICATION MASTER ADMIN, REPLICA MONITOR, BINLOG MONITOR, READ_ONLY ADMIN, \
    CONNECTION ADMIN";
const MYSQL_SERVICE_RIGHTS: &str = "SELECT, SHOW VIEW, SHOW DATABASES, SHOW_ROUTINE, RELOAD, PROCESS, \
    REPLICATION SLAVE, REPLICATION CLIENT, REPLICATION_SLAVE_ADMIN, SYSTEM_VARIABLES_ADMIN, CONNECTION_ADMIN, \
    SYSTEM_USER";
