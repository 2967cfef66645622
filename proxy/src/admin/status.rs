//! The cluster as JSON: the contract of `pointsman status -o json`.

use pointsman_router::topology::{ServerView, State, Topology};
use serde_json::{Value, json};

use super::Admin;

/// The version of every document of this API.
pub const API_VERSION: &str = "pointsman/v1";

/// The whole status document.
pub(super) fn document(admin: &Admin) -> Value {
    let (shared, view) = (&admin.shared, admin.cluster.view.borrow().clone());
    let topology = &view.topology;
    let connections =
        |server: &ServerView| shared.budgets.get(usize::from(server.id.0)).map_or(0, |budget| budget.used());
    let failover = admin.failover.view.borrow().clone();
    // What a change of the primary goes by; without it, what the primary has switched on.
    let durability = failover.durability.unwrap_or(view.durability.name());
    let mut document = cluster(&shared.config.cluster, topology, durability, connections);
    document["failover"] = json!(*failover);
    document
}

fn cluster(
    name: &str,
    topology: &Topology,
    durability: &str,
    connections: impl Fn(&ServerView) -> usize,
) -> Value {
    let servers: Vec<_> = topology.members().map(|view| server(view, connections(view))).collect();
    let mut document = json!({
        "apiVersion": API_VERSION,
        "cluster": name,
        "epoch": topology.epoch,
        "primary": topology.primary().map(|primary| primary.name.as_str()),
        "durability": durability,
        "servers": servers,
    });
    if topology.primary.is_none() {
        document["no_primary_reason"] = json!(topology.no_primary_reason);
    }
    document
}

fn server(view: &ServerView, connections: usize) -> Value {
    json!({
        "name": view.name,
        "address": view.address,
        "role": view.role.name(),
        "state": view.state.name(),
        // Of one that does not answer nothing is known any more.
        "lag_ms": view.lag.filter(|_| view.state != State::Down).map(|lag| u64::try_from(lag.as_millis()).unwrap_or(u64::MAX)),
        "weight": view.weight,
        "connections": connections,
        "reason": view.reason,
        "version": view.version,
        "read_only": view.read_only,
        "position": view.position.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use pointsman_router::gtid::GtidSet;
    use pointsman_router::topology::{Role, ServerId};

    use super::*;

    #[test]
    fn keeps_the_contract() {
        let view = |id: u16, role, state, lag: Option<u64>, reason: &str| ServerView {
            id: ServerId(id),
            name: format!("db-{id}"),
            address: format!("10.0.0.{id}:3306"),
            weight: 100,
            zone: String::new(),
            role,
            state,
            reason: reason.to_owned(),
            lag: lag.map(Duration::from_millis),
            position: GtidSet::default(),
            position_at: Duration::ZERO,
            online_since: Duration::ZERO,
            read_only: role == Role::Replica,
            version: "10.11.19-MariaDB".to_owned(),
        };
        let mut topology = Topology {
            epoch: 3,
            primary: Some(ServerId(0)),
            servers: vec![
                view(0, Role::Primary, State::Online, Some(0), ""),
                view(1, Role::Replica, State::Down, Some(85_000), "connection refused"),
            ],
            ..Topology::default()
        };
        let document = cluster("shop", &topology, "async", |_| 7);
        let expected = json!({
            "apiVersion": "pointsman/v1", "cluster": "shop", "epoch": 3, "primary": "db-0", "durability": "async",
            "servers": [
                {"name": "db-0", "address": "10.0.0.0:3306", "role": "primary", "state": "online", "lag_ms": 0,
                 "weight": 100, "connections": 7, "reason": "", "version": "10.11.19-MariaDB", "read_only": false,
                 "position": ""},
                {"name": "db-1", "address": "10.0.0.1:3306", "role": "replica", "state": "down", "lag_ms": null,
                 "weight": 100, "connections": 7, "reason": "connection refused", "version": "10.11.19-MariaDB",
                 "read_only": true, "position": ""},
            ],
        });
        assert_eq!(document, expected);
        topology.primary = None;
        topology.no_primary_reason = "the primary db-0 is down".to_owned();
        let document = cluster("shop", &topology, "async", |_| 0);
        assert_eq!(document["primary"], Value::Null);
        assert_eq!(document["no_primary_reason"], "the primary db-0 is down");
    }
}
