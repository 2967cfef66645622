//! What the servers are to each other: roles, identities, versions, positions.

use std::collections::BTreeMap;
use std::time::Duration;

use pointsman_config::Config;
use pointsman_router::discover::{Discovery, News, Observation};
use pointsman_router::intent::Flavour;
use pointsman_router::topology::{Role, ServerId, State, Topology};
use tokio::time::{Instant, sleep};

use super::finding::{Finding, Fix, Level};
use super::inspect::Inspected;
use crate::cluster::connection::is_on;

/// Judges the servers as the running proxy would after a few looks: where something is written all the time, one look
/// shows a replica behind the primary, or before it, that is neither a moment later.
pub(super) async fn topology(config: &Config, servers: &mut [Option<Inspected>]) -> Topology {
    let mut discovery = Discovery::new(config);
    let began = Instant::now();
    for look in 0..LOOKS {
        if look > 0 {
            sleep(BETWEEN_LOOKS).await;
        }
        for (at, server) in servers.iter_mut().enumerate() {
            let Some(server) = server else { continue };
            let asked = began.elapsed();
            let news = match server.look().await {
                Ok(()) => News::Report(Box::new(server.report.clone())),
                Err(error) => News::Failed(error.to_string()),
            };
            let (id, noticed) = (ServerId(u16::try_from(at).unwrap_or(u16::MAX)), began.elapsed());
            discovery.observe(Observation { server: id, asked, noticed, news });
        }
    }
    discovery.topology()
}

/// Enough for every verdict that needs more than one report, and longer together than a transaction must be missing.
const LOOKS: u32 = 6;
const BETWEEN_LOOKS: Duration = Duration::from_millis(300);

/// What is wrong between the servers.
pub(super) fn judge(topology: &Topology, servers: &[Option<Inspected>]) -> Vec<Finding> {
    let mut findings = Vec::new();
    if topology.primary.is_none() {
        let message = format!("there is no primary: {}", topology.no_primary_reason);
        findings.push(Finding::new("cluster", Level::Error, "roles", message));
    }
    let primary = topology.primary.and_then(|id| servers.get(usize::from(id.0))?.as_ref());
    for (view, server) in topology.servers.iter().zip(servers) {
        let Some(server) = server else { continue };
        if !view.reason.is_empty() && view.role != Role::Primary {
            findings.push(excluded(server, view.state, &view.reason));
        }
        findings.extend(read_only(server, view.role));
        findings.extend(clustered(server));
        findings.extend(supported(server));
        findings
            .extend(primary.filter(|primary| primary.name != server.name).and_then(|p| versions(server, p)));
        findings.extend(filters(server));
        findings.extend(heartbeat(server));
    }
    findings.extend(identities(servers));
    findings
}

fn excluded(server: &Inspected, state: State, reason: &str) -> Finding {
    let finding =
        Finding::new(&server.name, Level::Error, "replication", format!("{}: {reason}", state.name()));
    if reason.starts_with("holds transactions") {
        return finding.with(Fix::advice(
            "compare the rows, then set the server up anew from the primary (CLONE, mariabackup); \
             FLUSH on a replica needs NO_WRITE_TO_BINLOG",
        ));
    }
    match (reason.contains("thread is stopped"), server.report.flavour) {
        (true, Flavour::Mariadb) => finding.with(Fix::sql("START SLAVE")),
        (true, Flavour::Mysql) => finding.with(Fix::sql("START REPLICA")),
        (false, _) => finding,
    }
}

fn read_only(server: &Inspected, role: Role) -> Option<Finding> {
    if role != Role::Replica || server.report.read_only {
        return None;
    }
    let sql = match server.report.flavour {
        Flavour::Mariadb => "SET GLOBAL read_only = 1",
        Flavour::Mysql => "SET PERSIST super_read_only = 1",
    };
    let message = "is a replica and accepts writes of anybody who connects to it directly";
    let finding = Finding::new(&server.name, Level::Warning, "read_only", message);
    Some(finding.with(Fix::sql(sql).safe().and("option file: read_only=1")))
}

/// Clusters that choose their primary themselves.
fn clustered(server: &Inspected) -> Option<Finding> {
    let galera = server.variables.get("wsrep_on").is_some_and(|value| is_on(value));
    let group = server.variables.get("group_replication_group_name").is_some_and(|name| !name.is_empty());
    let what = match (galera, group) {
        (true, _) => "Galera",
        (_, true) => "Group Replication",
        (false, false) => return None,
    };
    let message = format!("belongs to a {what} cluster: its servers are routed to, but never promoted");
    Some(Finding::new(&server.name, Level::Warning, "cluster", message))
}

fn supported(server: &Inspected) -> Option<Finding> {
    let (least, name) = match server.report.flavour {
        Flavour::Mariadb => ((10, 6, 0), "MariaDB 10.6"),
        Flavour::Mysql => ((8, 0, 22), "MySQL 8.0.22"),
    };
    let version = &server.report.version;
    (parse_version(version)? < least).then(|| {
        let message = format!("runs {version}; the oldest that is supported is {name}");
        Finding::new(&server.name, Level::Error, "version", message)
    })
}

fn versions(server: &Inspected, primary: &Inspected) -> Option<Finding> {
    let series = |of: &Inspected| parse_version(&of.report.version).map(|(major, minor, _)| (major, minor));
    let (own, of_primary) = (series(server)?, series(primary)?);
    if own == of_primary || server.report.flavour != primary.report.flavour {
        return None;
    }
    let message = if own < of_primary {
        format!("is older ({}) than the primary ({})", server.report.version, primary.report.version)
    } else {
        format!(
            "is newer ({}) than the primary ({}): once promoted, the older ones may not follow",
            server.report.version, primary.report.version
        )
    };
    Some(Finding::new(&server.name, Level::Warning, "version", message))
}

/// `10.11.19-MariaDB` is (10, 11, 19).
fn parse_version(version: &str) -> Option<(u32, u32, u32)> {
    let mut parts = version.split(['.', '-']).map(|part| part.parse().ok());
    Some((parts.next()??, parts.next()??, parts.next()??))
}

fn filters(server: &Inspected) -> Option<Finding> {
    let channel = server.report.channels().iter().find(|channel| channel.filtered)?;
    let message = format!("leaves some of what {} writes out: it is never promoted", channel.source());
    Some(Finding::new(&server.name, Level::Warning, "filters", message))
}

/// A frozen primary is told from one that only we cannot reach by what its replicas hear from it.
fn heartbeat(server: &Inspected) -> Option<Finding> {
    let pulse = server.report.channels().iter().find_map(|channel| channel.pulse)?;
    if pulse.period <= SLOW_HEARTBEAT {
        return None;
    }
    let word = match server.report.flavour {
        Flavour::Mariadb => "CHANGE MASTER TO MASTER_HEARTBEAT_PERIOD=0.1",
        Flavour::Mysql => "CHANGE REPLICATION SOURCE TO SOURCE_HEARTBEAT_PERIOD=0.1",
    };
    let message = format!(
        "hears from an idle primary every {} s; a frozen one is replaced after three times that",
        pulse.period.as_secs_f64()
    );
    let advice = format!("stop its receiving (IO) thread, {word}, and start it again");
    Some(Finding::new(&server.name, Level::Note, "heartbeat", message).with(Fix::advice(advice)))
}

/// What still lets a frozen primary be replaced soon.
const SLOW_HEARTBEAT: Duration = Duration::from_secs(1);

/// Servers must differ in their ids, or replication between them skips events.
fn identities(servers: &[Option<Inspected>]) -> Vec<Finding> {
    let mut by_id: BTreeMap<u32, Vec<&str>> = BTreeMap::new();
    for server in servers.iter().flatten() {
        by_id.entry(server.report.server_id).or_default().push(&server.name);
    }
    let same = by_id.into_iter().filter(|(_, names)| names.len() > 1);
    same.map(|(id, names)| {
        let message = format!("{} have the same server_id {id}", names.join(" and "));
        Finding::new("cluster", Level::Error, "server_id", message)
            .with(Fix::advice("option file: a server_id of its own for each server, then restart it"))
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use pointsman_router::discover::{Channel, Pulse, Replication};

    use super::*;

    #[test]
    fn slow_heartbeats_are_noted() {
        let server = |millis| {
            let period = Duration::from_millis(millis);
            let pulse = Some(Pulse { beat: 1, period });
            let channel = Channel { pulse, ..Channel::default() };
            let mut server = Inspected { name: "a".into(), ..Inspected::default() };
            server.report.replication = Replication::Channels(vec![channel]);
            server
        };
        let found = heartbeat(&server(30_000)).map(|finding| finding.message).unwrap_or_default();
        assert!(found.starts_with("hears from an idle primary every 30 s"), "{found}");
        assert!(heartbeat(&server(100)).is_none());
        assert!(heartbeat(&Inspected::default()).is_none());
    }

    #[test]
    fn versions_are_compared() {
        assert_eq!(parse_version("10.11.19-MariaDB-log"), Some((10, 11, 19)));
        assert_eq!(parse_version("9.7.4-2"), Some((9, 7, 4)));
        assert_eq!(parse_version("x"), None);
        let server = |name: &str, version: &str, id| {
            let mut server = Inspected { name: name.into(), ..Inspected::default() };
            server.report.version = version.into();
            server.report.server_id = id;
            server
        };
        let older = versions(&server("a", "10.6.1", 1), &server("b", "10.11.2", 2));
        assert!(older.is_some_and(|finding| finding.message.starts_with("is older")));
        assert!(versions(&server("a", "10.11.1", 1), &server("b", "10.11.2", 2)).is_none());
        assert!(supported(&server("a", "10.5.1", 1)).is_some());
        assert!(supported(&server("a", "10.6.1", 1)).is_none());
        let mysql = |version: &str| {
            let mut server = server("a", version, 1);
            server.report.flavour = Flavour::Mysql;
            server
        };
        assert!(supported(&mysql("8.0.21")).is_some(), "it does not know the word REPLICA");
        assert!(supported(&mysql("8.0.22-13")).is_none());
        let twins = identities(&[Some(server("a", "1.0.0", 7)), None, Some(server("b", "1.0.0", 7))]);
        assert_eq!(twins[0].message, "a and b have the same server_id 7");
    }
}
