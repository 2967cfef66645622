//! Settings of one server that replication, failover and durability depend on.

use pointsman_config::Durability;
use pointsman_router::intent::Flavour;

use super::finding::{Finding, Fix, Level};
use super::inspect::Inspected;
use crate::cluster::connection::is_on;

/// One setting, its value, and why.
struct Rule {
    variable: &'static str,
    /// The value that is wanted, as the server shows it.
    wanted: Wanted,
    level: Level,
    why: &'static str,
    /// Whether it can be changed while the server runs.
    dynamic: bool,
}

enum Wanted {
    On,
    /// Any of these, in upper case; the first is proposed.
    OneOf(&'static [&'static str]),
    AtLeast(u64),
    AtMost(u64),
}

const fn rule(
    variable: &'static str,
    wanted: Wanted,
    level: Level,
    dynamic: bool,
    why: &'static str,
) -> Rule {
    Rule { variable, wanted, level, why, dynamic }
}

use Level::{Error, Note, Warning};
use Wanted::{AtLeast, AtMost, On, OneOf};

const MARIADB: &[Rule] = &[
    rule("log_bin", On, Error, false, "without a binary log nothing can be replicated"),
    rule(
        "gtid_strict_mode",
        On,
        Warning,
        true,
        "a replica with transactions of its own is refused only in strict mode",
    ),
    rule("log_slave_updates", On, Warning, false, "a replica without it cannot be promoted"),
    rule("binlog_format", OneOf(&["ROW"]), Warning, true, "statements may have other effects on a replica"),
    rule(
        "binlog_row_image",
        OneOf(&["FULL"]),
        Note,
        true,
        "transactions can be undone only with full images",
    ),
    rule("sync_binlog", AtLeast(1), Warning, true, "a power cut loses acknowledged transactions"),
    rule(
        "innodb_flush_log_at_trx_commit",
        OneOf(&["1", "3"]),
        Warning,
        true,
        "a power cut loses acknowledged transactions",
    ),
    rule(
        "relay_log_recovery",
        On,
        Warning,
        false,
        "a relay log cut off by a crash is read on from its broken end",
    ),
    rule(
        "slave_net_timeout",
        AtMost(10),
        Note,
        true,
        "a replica notices a silent primary only after this many seconds",
    ),
    rule("slave_parallel_threads", AtLeast(4), Note, false, "one thread applies slower than clients write"),
    rule(
        "skip_slave_start",
        On,
        Warning,
        false,
        "a server that restarts would follow whom it followed before",
    ),
];

const MYSQL: &[Rule] = &[
    rule("log_bin", On, Error, false, "without a binary log nothing can be replicated"),
    rule("gtid_mode", On, Error, false, "positions cannot be compared, so nothing is read from replicas"),
    rule(
        "enforce_gtid_consistency",
        On,
        Error,
        false,
        "statements that GTIDs cannot express would be allowed",
    ),
    rule("log_replica_updates", On, Warning, false, "a replica without it cannot be promoted"),
    rule("sync_binlog", AtLeast(1), Warning, true, "a power cut loses acknowledged transactions"),
    rule(
        "innodb_flush_log_at_trx_commit",
        OneOf(&["1"]),
        Warning,
        true,
        "a power cut loses acknowledged transactions",
    ),
    rule(
        "relay_log_recovery",
        On,
        Warning,
        false,
        "a relay log cut off by a crash is read on from its broken end",
    ),
    rule(
        "replica_net_timeout",
        AtMost(10),
        Note,
        true,
        "a replica notices a silent primary only after this many seconds",
    ),
    rule("replica_parallel_workers", AtLeast(4), Note, true, "one thread applies slower than clients write"),
    rule(
        "replica_preserve_commit_order",
        On,
        Warning,
        true,
        "a replica would show later transactions before earlier ones",
    ),
    rule(
        "skip_replica_start",
        On,
        Warning,
        false,
        "a server that restarts would follow whom it followed before",
    ),
];

/// What a server's settings lack.
pub(super) fn judge(server: &Inspected) -> Vec<Finding> {
    let rules = match server.report.flavour {
        Flavour::Mariadb => MARIADB,
        Flavour::Mysql => MYSQL,
    };
    rules.iter().filter_map(|rule| rule.judge(server)).collect()
}

impl Rule {
    fn judge(&self, server: &Inspected) -> Option<Finding> {
        // What a version does not know is not wrong there.
        let value = server.variables.get(self.variable)?;
        let number = value.parse::<u64>().ok();
        let (good, proposal) = match self.wanted {
            On => (is_on(value), "ON".to_owned()),
            OneOf(values) => {
                let good = values.iter().any(|wanted| value.eq_ignore_ascii_case(wanted));
                (good, values.first().map(|&value| value.to_owned()).unwrap_or_default())
            }
            AtLeast(least) => (number.is_some_and(|number| number >= least), least.to_string()),
            AtMost(most) => (number.is_some_and(|number| number <= most), most.to_string()),
        };
        if good {
            return None;
        }
        let message = format!("{} is {value}: {}", self.variable, self.why);
        let finding = Finding::new(&server.name, self.level, "settings", message);
        Some(finding.with(self.fix(server.report.flavour, &proposal)))
    }

    fn fix(&self, flavour: Flavour, value: &str) -> Fix {
        let line = format!("option file: {}={value}", self.variable);
        match (self.dynamic, flavour) {
            (false, _) => Fix::advice(format!("{line}, then restart the server")),
            (true, Flavour::Mysql) => Fix::sql(format!("SET PERSIST {} = {value}", self.variable)).safe(),
            (true, Flavour::Mariadb) => {
                let value = if value.bytes().all(|byte| byte.is_ascii_digit()) {
                    value.to_owned()
                } else {
                    format!("'{value}'")
                };
                Fix::sql(format!("SET GLOBAL {} = {value}", self.variable))
                    .safe()
                    .and(format!("{line}, to keep it over a restart"))
            }
        }
    }
}

/// What lossless mode lacks; `primary` says which role the server has now.
pub(super) fn judge_semi_sync(server: &Inspected, is_primary: bool, wanted: Durability) -> Vec<Finding> {
    let level = match wanted {
        Durability::Async => return Vec::new(),
        Durability::Auto => Note,
        Durability::Lossless => Error,
    };
    let (source, replica) = names(server);
    let Some((source, replica)) = source.zip(replica) else {
        let advice = "INSTALL PLUGIN rpl_semi_sync_source SONAME 'semisync_source.so'; \
                      INSTALL PLUGIN rpl_semi_sync_replica SONAME 'semisync_replica.so'";
        let message = "semi-synchronous replication is not installed: durability is async";
        let finding = Finding::new(&server.name, level, "semi-sync", message);
        return vec![finding.with(Fix::advice(format!("run: {advice}")))];
    };
    let mut wrong = Vec::new();
    let mut want = |variable: String, wanted: &str, sql: &str| {
        let value = server.variables.get(&variable).map(String::as_str).unwrap_or_default();
        if !value.eq_ignore_ascii_case(wanted) {
            wrong.push((format!("{variable} is {value}"), format!("SET GLOBAL {variable} = {sql}")));
        }
    };
    let longest = "4294967295";
    want(format!("rpl_semi_sync_{source}_wait_point"), "AFTER_SYNC", "'AFTER_SYNC'");
    want(format!("rpl_semi_sync_{source}_timeout"), longest, longest);
    let no_replica = if source == "source" { "replica" } else { "slave" };
    want(format!("rpl_semi_sync_{source}_wait_no_{no_replica}"), "ON", "1");
    // The order matters: a replica that waits for acknowledgements itself would stop applying.
    want(
        format!("rpl_semi_sync_{source}_enabled"),
        if is_primary { "ON" } else { "OFF" },
        if is_primary { "1" } else { "0" },
    );
    want(
        format!("rpl_semi_sync_{replica}_enabled"),
        if is_primary { "OFF" } else { "ON" },
        if is_primary { "0" } else { "1" },
    );
    if wrong.is_empty() {
        return Vec::new();
    }
    let (messages, sql): (Vec<_>, Vec<_>) = wrong.into_iter().unzip();
    let message = format!("not set up for lossless durability: {}", messages.join(", "));
    let finding = Finding::new(&server.name, level, "semi-sync", message);
    // Not for --fix: a primary that waits for ever for replicas that do not acknowledge yet stops all writes.
    let advice = "replicas first, each with STOP and START of its IO thread behind it; the primary last";
    vec![finding.with(Fix { sql, safe: false, advice: advice.into() })]
}

/// The words that this version uses for the two roles; none where the plugin is missing.
fn names(server: &Inspected) -> (Option<&'static str>, Option<&'static str>) {
    let find = |words: [&'static str; 2]| {
        words.into_iter().find(|word| server.variables.contains_key(&format!("rpl_semi_sync_{word}_enabled")))
    };
    (find(["source", "master"]), find(["replica", "slave"]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(flavour: Flavour, variables: &str) -> Inspected {
        let mut server = Inspected { name: "db-1".into(), ..Inspected::default() };
        server.report.flavour = flavour;
        server.variables = variables
            .split_whitespace()
            .filter_map(|pair| pair.split_once('='))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        server
    }

    fn check(flavour: Flavour, variables: &str, expected: &[&str]) {
        let found: Vec<_> = judge(&server(flavour, variables))
            .into_iter()
            .map(|finding| {
                format!("{}: {} {}", finding.level.name(), finding.fix.sql.join(";"), finding.fix.advice)
            })
            .collect();
        assert_eq!(found, expected, "{variables}");
    }

    #[test]
    fn settings() {
        check(Flavour::Mariadb, "log_bin=ON gtid_strict_mode=ON sync_binlog=1 slave_net_timeout=4", &[]);
        check(
            Flavour::Mariadb,
            "log_bin=OFF sync_binlog=0 binlog_format=MIXED",
            &[
                "error:  option file: log_bin=ON, then restart the server",
                "warning: SET GLOBAL binlog_format = 'ROW' option file: binlog_format=ROW, to keep it over a restart",
                "warning: SET GLOBAL sync_binlog = 1 option file: sync_binlog=1, to keep it over a restart",
            ],
        );
        check(
            Flavour::Mysql,
            "gtid_mode=ON replica_net_timeout=60",
            &["note: SET PERSIST replica_net_timeout = 10 "],
        );
        check(
            Flavour::Mysql,
            "innodb_flush_log_at_trx_commit=2",
            &["warning: SET PERSIST innodb_flush_log_at_trx_commit = 1 "],
        );
    }

    #[test]
    fn semi_sync() {
        let check = |variables: &str, is_primary, expected: &[&str]| {
            let found =
                judge_semi_sync(&server(Flavour::Mariadb, variables), is_primary, Durability::Lossless);
            let sql: Vec<_> = found.into_iter().flat_map(|finding| finding.fix.sql).collect();
            assert_eq!(sql, expected);
        };
        let good = "rpl_semi_sync_master_wait_point=AFTER_SYNC rpl_semi_sync_master_timeout=4294967295 \
                    rpl_semi_sync_master_wait_no_slave=ON";
        check(&format!("{good} rpl_semi_sync_master_enabled=ON rpl_semi_sync_slave_enabled=OFF"), true, &[]);
        check(
            &format!("{good} rpl_semi_sync_master_enabled=ON rpl_semi_sync_slave_enabled=OFF"),
            false,
            &["SET GLOBAL rpl_semi_sync_master_enabled = 0", "SET GLOBAL rpl_semi_sync_slave_enabled = 1"],
        );
        let bare = judge_semi_sync(&server(Flavour::Mysql, ""), true, Durability::Auto);
        assert!(bare[0].fix.advice.contains("INSTALL PLUGIN"));
        assert!(judge_semi_sync(&server(Flavour::Mysql, ""), true, Durability::Async).is_empty());
    }
}
