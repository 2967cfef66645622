//! Whether the servers allow that the primary's place is moved at all.

use std::sync::Arc;
use std::time::Duration;

use pointsman_router::intent::Flavour;
use pointsman_router::roster::Roster;
use tokio::sync::watch;
use tokio::time::sleep;

use crate::cli::lacking_for_failover;
use crate::cluster::ServiceAccount;
use crate::cluster::subject::Subject;

/// Why not; none when nothing is in the way. Waits until at least one server has answered.
pub(super) async fn obstacle(
    roster: &watch::Sender<Arc<Roster>>,
    account: &Arc<ServiceAccount>,
) -> Option<String> {
    loop {
        let servers = roster.borrow().clone();
        let mut answered = false;
        for (_, server) in servers.servers() {
            match look_at(account, &server.address).await {
                Ok(None) => answered = true,
                Ok(Some(obstacle)) => return Some(format!("{}: {obstacle}", server.name)),
                Err(error) => tracing::debug!(server = server.name, error, "not looked at"),
            }
        }
        if answered {
            return None;
        }
        sleep(AGAIN).await;
    }
}

async fn look_at(account: &ServiceAccount, address: &str) -> Result<Option<String>, String> {
    let failed = |error: &dyn ToString| error.to_string();
    let mut subject = Subject::meet(account, address, LIMIT).await.map_err(|error| failed(&error))?;
    let flavour = subject.flavour.flavour();
    let rows = subject.connection.rows("SHOW GRANTS", LIMIT).await.map_err(|error| failed(&error))?;
    let grants: Vec<_> = rows.iter().filter_map(|row| row.at(0)).collect();
    let lacking = lacking_for_failover(flavour, &grants);
    if !lacking.is_empty() {
        return Ok(Some(format!("the service account lacks {}", lacking.join(", "))));
    }
    let report = subject.report(LIMIT).await.map_err(|error| failed(&error))?;
    if !report.gtids {
        return Ok(Some("gtid_mode is not ON".into()));
    }
    let (sql, clustered) = match flavour {
        Flavour::Mariadb => {
            ("SELECT @@global.wsrep_on", "is part of a Galera cluster, which chooses by itself")
        }
        Flavour::Mysql => (
            "SELECT COUNT(*) FROM performance_schema.replication_group_members WHERE MEMBER_STATE <> 'OFFLINE'",
            "is part of a Group Replication cluster, which chooses by itself",
        ),
    };
    // A server that does not know the question is no such cluster.
    let rows = subject.connection.rows(sql, LIMIT).await.unwrap_or_default();
    let yes = rows.first().and_then(|row| row.at(0)).is_some_and(|value| value != "0" && value != "OFF");
    Ok(yes.then(|| clustered.into()))
}

const LIMIT: Duration = Duration::from_secs(2);
const AGAIN: Duration = Duration::from_millis(200);
