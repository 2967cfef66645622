//! What orchestrators ask: is it alive, has it started, may it get clients.

use std::time::Duration;

use pointsman_router::topology::Topology;

use super::Admin;
use super::workers;
use crate::lifecycle::Phase;

/// The age of the topology from which on it is nothing to send clients by.
const STALE_AFTER: Duration = Duration::from_secs(5);

/// What a balancer with separate pools wants to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// Clients can be let in, whether there is a primary or not: reads go on and writes are held.
    Clients,
    Primary,
    Replica,
}

impl Wanted {
    /// # Errors
    ///
    /// With words that it does not know.
    pub(super) fn from_role(role: Option<&str>) -> Result<Self, String> {
        match role {
            Some("rw" | "primary") => Ok(Self::Primary),
            Some("ro" | "replica") => Ok(Self::Replica),
            None => Ok(Self::Clients),
            Some(other) => Err(format!("expected role=rw or role=ro, got {other:?}")),
        }
    }
}

/// Whether every thread looks into its inbox; depends on nothing outside of the process.
pub(super) async fn live(admin: &Admin) -> Result<(), String> {
    workers::pins(&admin.shared).await.map(|_| ()).map_err(|stuck| stuck.to_string())
}

/// Whether the first monitor round is over and the listeners are open, whatever the servers' state.
pub(super) fn started(admin: &Admin) -> Result<(), String> {
    match admin.lifecycle.phase() {
        Phase::Starting => {
            Err("the first monitor round is not over or the listeners are not open".to_owned())
        }
        Phase::Serving | Phase::Leaving | Phase::Draining => Ok(()),
    }
}

/// Whether new clients should come.
pub(super) fn ready(admin: &Admin, wanted: Wanted) -> Result<(), String> {
    let view = admin.cluster.view.borrow().clone();
    let age = admin.cluster.clock.now().saturating_sub(admin.cluster.beat.last());
    judge(admin.lifecycle.phase(), age, &view.topology, wanted)
}

fn judge(phase: Phase, age: Duration, topology: &Topology, wanted: Wanted) -> Result<(), String> {
    if phase != Phase::Serving {
        return Err(format!("the process is {}", phase.name()));
    }
    if age > STALE_AFTER {
        return Err(format!("the servers were last looked at {} s ago", age.as_secs()));
    }
    match wanted {
        Wanted::Primary if topology.primary.is_none() => {
            Err(format!("no primary: {}", topology.no_primary_reason))
        }
        Wanted::Replica if topology.readable_replicas().next().is_none() => {
            Err("no replica is online".to_owned())
        }
        Wanted::Clients | Wanted::Primary | Wanted::Replica => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readiness_does_not_depend_on_a_primary() {
        let none = Topology { no_primary_reason: "no server answers".to_owned(), ..Topology::default() };
        let check = |phase, seconds, role, expected: Result<(), &str>| {
            let wanted = Wanted::from_role(role).expect("a role");
            let actual = judge(phase, Duration::from_secs(seconds), &none, wanted);
            assert_eq!(actual.as_ref().map_err(String::as_str).copied(), expected);
        };
        check(Phase::Serving, 0, None, Ok(()));
        check(Phase::Serving, 0, Some("rw"), Err("no primary: no server answers"));
        check(Phase::Serving, 0, Some("ro"), Err("no replica is online"));
        check(Phase::Serving, 6, None, Err("the servers were last looked at 6 s ago"));
        check(Phase::Starting, 0, None, Err("the process is starting"));
        check(Phase::Leaving, 0, None, Err("the process is leaving"));
        // A misspelt role says yes to nobody.
        assert_eq!(
            Wanted::from_role(Some("rww")),
            Err(r#"expected role=rw or role=ro, got "rww""#.to_owned())
        );
    }
}
