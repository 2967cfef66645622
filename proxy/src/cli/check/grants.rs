//! What the service account may do, and what it needs.

use std::collections::BTreeSet;

use pointsman_router::intent::Flavour;

use super::finding::{Finding, Fix, Level};
use super::inspect::Inspected;

/// A privilege and what it is for.
struct Need {
    privilege: &'static str,
    level: Level,
    purpose: &'static str,
    /// Without it no server can be promoted, stopped or pointed elsewhere.
    for_failover: bool,
}

const fn must(privilege: &'static str, purpose: &'static str) -> Need {
    Need { privilege, level: Level::Error, purpose, for_failover: false }
}

const fn should(privilege: &'static str, purpose: &'static str) -> Need {
    Need { privilege, level: Level::Warning, purpose, for_failover: false }
}

const fn and_failover(need: Need) -> Need {
    Need { for_failover: true, ..need }
}

const MARIADB: [Need; 10] = [
    and_failover(must("REPLICA MONITOR", "to see the replication status")),
    and_failover(must("CONNECTION ADMIN", "to interrupt statements, and to get in when the server is full")),
    should("SHOW VIEW", "to see which views call stored functions"),
    should("BINLOG MONITOR", "to see what the binary logs of a former primary hold before it rejoins"),
    and_failover(should("READ_ONLY ADMIN", "to make servers read_only and writable in a failover")),
    and_failover(should("REPLICATION SLAVE ADMIN", "to stop, point and start replicas in a failover")),
    and_failover(should("REPLICATION MASTER ADMIN", "to set semi-synchronous replication")),
    should("REPLICATION SLAVE", "to replicate from a new primary with this account"),
    and_failover(should("RELOAD", "to begin a new binary log in a promotion")),
    and_failover(should("PROCESS", "to see whose transactions hold up a switchover")),
];

const MYSQL: [Need; 10] = [
    and_failover(must("REPLICATION CLIENT", "to see the replication status")),
    and_failover(must("CONNECTION_ADMIN", "to interrupt statements, and to get in when the server is full")),
    should("SHOW_ROUTINE", "to see which names are stored functions"),
    should("SHOW VIEW", "to see which views call stored functions"),
    and_failover(should("SYSTEM_VARIABLES_ADMIN", "to make servers read_only and writable in a failover")),
    and_failover(should("REPLICATION_SLAVE_ADMIN", "to stop, point and start replicas in a failover")),
    should(
        "SYSTEM_USER",
        "to stop in no time, not in a minute, an applier whose source died amid a transaction",
    ),
    should("REPLICATION SLAVE", "to replicate from a new primary with this account"),
    and_failover(should("RELOAD", "to begin a new binary log in a promotion")),
    and_failover(should("PROCESS", "to see whose transactions hold up a switchover")),
];

fn needs(flavour: Flavour) -> &'static [Need] {
    match flavour {
        Flavour::Mariadb => &MARIADB,
        Flavour::Mysql => &MYSQL,
    }
}

/// What `SHOW GRANTS` says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Grants {
    /// Privileges on `*.*`, by their [`plain_name`].
    global: BTreeSet<String>,
    /// Schemas with SELECT, and with ALL.
    readable: BTreeSet<String>,
    owned: BTreeSet<String>,
}

impl Grants {
    pub(super) fn parse(lines: &[String]) -> Self {
        let mut grants = Self::default();
        for line in lines {
            let Some((privileges, place)) =
                line.strip_prefix("GRANT ").and_then(|rest| rest.split_once(" ON "))
            else {
                // A role: what it brings is listed on lines of its own.
                continue;
            };
            let place = place.split_once(" TO ").map_or(place, |(place, _)| place);
            let privileges: Vec<_> = privileges.split(',').map(plain_name).collect();
            let all = privileges.iter().any(|name| name.starts_with("ALL"));
            match place.replace('`', "").strip_suffix(".*") {
                Some("*") => grants.global.extend(privileges),
                Some(schema) => {
                    // Escaped wildcards in names of schemas.
                    let schema = schema.replace('\\', "");
                    if all {
                        grants.owned.insert(schema.clone());
                    }
                    if all || privileges.iter().any(|name| name == "SELECT") {
                        grants.readable.insert(schema);
                    }
                }
                None => {}
            }
        }
        grants
    }

    fn has(&self, privilege: &str) -> bool {
        let all = ["ALL", "ALL PRIVILEGES"].iter().any(|all| self.global.contains(*all));
        all || self.global.contains(&plain_name(privilege))
    }

    fn may_read(&self, schema: &str) -> bool {
        self.has("SELECT") || self.readable.contains(schema)
    }
}

/// The privileges without which a server cannot be promoted, stopped or pointed elsewhere, as far as they are missing.
pub(crate) fn lacking_for_failover(flavour: Flavour, lines: &[String]) -> Vec<&'static str> {
    let grants = Grants::parse(lines);
    // SUPER stands for the administrative ones on servers that still know it.
    let has = |privilege: &str| grants.has(privilege) || (flavour == Flavour::Mysql && grants.has("SUPER"));
    let needed = needs(flavour).iter().filter(|need| need.for_failover);
    needed.map(|need| need.privilege).filter(|privilege| !has(privilege)).collect()
}

/// The one name of a privilege that servers write in several ways.
fn plain_name(privilege: &str) -> String {
    privilege.trim().to_uppercase().replace('_', " ").replace("REPLICA MONITOR", "SLAVE MONITOR")
}

/// What the account lacks on one server, each with the statement that grants it.
pub(super) fn judge(server: &Inspected) -> Vec<Finding> {
    let account = quote_account(&server.current_user);
    let finding = |level, privilege: &str, place: &str, purpose: &str| {
        Finding::new(
            &server.name,
            level,
            "grants",
            format!("the service account lacks {privilege}, {purpose}"),
        )
        .with(Fix::sql(format!("GRANT {privilege} ON {place} TO {account}")))
    };
    let mut findings: Vec<_> = needs(server.report.flavour)
        .iter()
        .filter(|need| !server.grants.has(need.privilege))
        .map(|need| finding(need.level, need.privilege, "*.*", need.purpose))
        .collect();
    if !server.grants.may_read("mysql") {
        findings.push(finding(Level::Error, "SELECT", "mysql.*", "to know the accounts of the clients"));
    }
    let owns = server.grants.owned.contains("pointsman")
        || ["CREATE", "INSERT", "UPDATE", "DELETE"].iter().all(|privilege| server.grants.has(privilege));
    if !owns {
        findings.push(finding(Level::Warning, "ALL", "pointsman.*", "to keep its own records for failovers"));
    }
    findings
}

/// `user@host` with the quotes that SQL wants.
fn quote_account(current_user: &str) -> String {
    let (user, host) = current_user.rsplit_once('@').unwrap_or((current_user, "%"));
    format!("'{}'@'{}'", user.replace('\'', "''"), host.replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn missing(flavour: Flavour, lines: &[&str]) -> Vec<String> {
        let lines: Vec<_> = lines.iter().map(|&line| line.to_owned()).collect();
        let mut server =
            Inspected { name: "db-1".into(), current_user: "p@%".into(), ..Inspected::default() };
        server.report.flavour = flavour;
        server.grants = Grants::parse(&lines);
        judge(&server).into_iter().flat_map(|finding| finding.fix.sql).collect()
    }

    #[test]
    fn names_what_is_missing() {
        let none = missing(Flavour::Mariadb, &["GRANT ALL PRIVILEGES ON *.* TO `p`@`%` WITH GRANT OPTION"]);
        assert_eq!(none, Vec::<String>::new());
        let most = "GRANT RELOAD, PROCESS, REPLICATION SLAVE, BINLOG MONITOR, SHOW VIEW, CONNECTION ADMIN, \
                    READ_ONLY ADMIN, REPLICATION SLAVE ADMIN, REPLICATION MASTER ADMIN ON *.* TO \
                    `p`@`%` IDENTIFIED BY PASSWORD '*x'";
        let two = missing(Flavour::Mariadb, &[most, "GRANT SELECT ON `mysql`.* TO `p`@`%`"]);
        assert_eq!(two, ["GRANT REPLICA MONITOR ON *.* TO 'p'@'%'", "GRANT ALL ON pointsman.* TO 'p'@'%'"]);
        let mysql = missing(Flavour::Mysql, &["GRANT USAGE ON *.* TO `p`@`%`"]);
        assert_eq!(mysql.len(), MYSQL.len() + 2);
        assert_eq!(mysql[0], "GRANT REPLICATION CLIENT ON *.* TO 'p'@'%'");
    }

    #[test]
    fn reads_grants() {
        let lines = ["GRANT `r`@`%` TO `p`@`%`", "GRANT ALL PRIVILEGES ON `point\\_s`.* TO `p`@`%`"];
        let grants = Grants::parse(&lines.map(str::to_owned));
        assert!(grants.owned.contains("point_s") && grants.may_read("point_s") && !grants.may_read("mysql"));
    }
}
