mod consistency;
mod places;
mod transactions;

use std::sync::Arc;

use pointsman_config::{Balance, NoReplica, Rule};

use super::*;
use crate::intent::{Action, Effects, Flavour, Reason};
use crate::session::{Fresh, Observed};
use crate::topology::{Role, ServerView};

const NOW: Duration = Duration::from_secs(1000);
const PRIMARY: ServerId = ServerId(0);
const FIRST: ServerId = ServerId(1);
const SECOND: ServerId = ServerId(2);

/// One decision to be made: a plain read of a plain session with a primary and two replicas that have caught up,
/// unless something is changed. Servers are picked in turn, so that the first choice is server 1.
struct Case {
    intent: Intent,
    session: SessionState,
    topology: Topology,
    routing: Routing,
    consistency: Consistency,
    asked: Asked,
    pinned: Option<ServerId>,
    lost: bool,
    will_pin: bool,
    may_wait: bool,
    excluded: Vec<ServerId>,
    listener_read_only: bool,
    stopped_by_read_only: bool,
    balancer: Option<Balancer>,
}

impl Case {
    fn new(kind: Kind, target: Target) -> Self {
        let intent = Intent {
            kind,
            target,
            effects: Effects::empty(),
            needs: Needs::empty(),
            reason: Reason("test".into()),
            actions: None,
            hint: None,
        };
        Self {
            intent,
            session: SessionState::new(Fresh { schema: Some(b"app".to_vec()), ..Fresh::default() }),
            topology: topology(),
            routing: Routing { balance: Balance::RoundRobin, ..Routing::default() },
            consistency: Consistency::Session,
            asked: Asked::No,
            pinned: None,
            lost: false,
            will_pin: false,
            may_wait: true,
            excluded: Vec::new(),
            listener_read_only: false,
            stopped_by_read_only: true,
            balancer: None,
        }
    }

    fn read() -> Self {
        Self::new(Kind::Read, Target::Replica)
    }

    fn write() -> Self {
        Self::new(Kind::Write, Target::Primary)
    }

    fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    fn effects(self, effects: Effects) -> Self {
        self.with(|case| case.intent.effects = effects)
    }

    /// Changes one server.
    fn server(self, id: ServerId, change: impl FnOnce(&mut ServerView)) -> Self {
        self.with(|case| change(&mut case.topology.servers[usize::from(id.0)]))
    }

    fn no_primary(self) -> Self {
        self.server(PRIMARY, |server| server.state = State::Down).with(|case| {
            case.topology.primary = None;
            case.topology.no_primary_reason = "db-0 does not answer".into();
        })
    }

    fn no_replicas(self) -> Self {
        self.server(FIRST, |server| server.state = State::Down)
            .server(SECOND, |server| server.state = State::Lagging)
    }

    /// The session ran a statement before, `ago` seconds before now.
    fn ran(self, kind: Kind, server: ServerId, ago: f64) -> Self {
        let intent = Intent { kind, ..self.intent.clone() };
        let at = NOW - Duration::from_secs_f64(ago);
        self.with(|case| {
            case.session.observe(&intent, &Observed { server, ..ok() }, at);
        })
    }

    fn wrote(self, gtid: &str, ago: f64) -> Self {
        let intent = Intent { kind: Kind::Write, target: Target::Primary, ..self.intent.clone() };
        let at = NOW - Duration::from_secs_f64(ago);
        self.with(|case| {
            case.session.observe(&intent, &Observed { server: PRIMARY, gtid: &gtids(gtid), ..ok() }, at);
        })
    }

    fn observed(self, kind: Kind, observed: Observed<'_>) -> Self {
        let intent = Intent { kind, ..self.intent.clone() };
        self.with(|case| case.session.observe(&intent, &observed, NOW))
    }

    fn set(self, action: Action) -> Self {
        let intent = Intent { kind: Kind::Set, actions: Some(Arc::new([action])), ..self.intent.clone() };
        let autocommit = self.session.autocommit();
        self.with(|case| case.session.observe(&intent, &Observed { autocommit, ..ok() }, NOW))
    }

    /// A READ ONLY transaction is open on this server.
    fn in_read_only_transaction(self, server: ServerId) -> Self {
        let open = Observed { server, in_transaction: true, read_only_transaction: true, ..ok() };
        self.observed(Kind::BeginReadOnly, open).with(|case| case.pinned = Some(server))
    }

    fn decide(self) -> Decision {
        let rules = Rules::new(&self.routing.rules, |sql| sql.len() as u128);
        let lag = Lag { preferred: Duration::from_secs(1), maximum: Duration::from_secs(10) };
        let request = Request {
            intent: &self.intent,
            session: &self.session,
            consistency: self.consistency,
            asked: self.asked,
            pinned: self.pinned,
            pinned_is_lost: self.lost,
            will_pin: self.will_pin,
            may_wait: self.may_wait,
            excluded: &self.excluded,
            listener_read_only: self.listener_read_only,
            stopped_by_read_only: self.stopped_by_read_only,
            user: b"joe",
            digest: 8,
            rules: &rules,
            routing: &self.routing,
            lag: &lag,
        };
        let mut balancer = self.balancer.unwrap_or_else(|| Balancer::new(&self.routing, 3));
        route(&request, &self.topology, &mut balancer, NOW, 1 << 63)
    }

    /// Compares with a decision in one line: where, and after a colon why, if that is of interest.
    fn check(self, expected: &str) {
        let decision = shown(&self.decide());
        let told =
            if expected.contains(':') { decision.as_str() } else { decision.split(':').next().unwrap() };
        assert_eq!(told, expected, "whole decision: {decision}");
    }
}

fn shown(decision: &Decision) -> String {
    match decision {
        Decision::Primary { reason } => format!("primary: {reason}"),
        Decision::Replica { id, wait: None, reason } => format!("server {}: {reason}", id.0),
        Decision::Replica { id, wait: Some(wait), reason } => {
            format!("server {} after {}: {reason}", id.0, wait.position)
        }
        Decision::Pinned => "pinned".into(),
        Decision::LeaveReplica { reason } => format!("leave: {reason}"),
        Decision::AskPosition { reason } => format!("ask: {reason}"),
        Decision::Hold { reason } => format!("hold: {reason}"),
        Decision::Refuse(refusal) => format!("refuse {}: {}", refusal.code, refusal.message),
    }
}

fn ok() -> Observed<'static> {
    Observed { has_status: true, autocommit: true, ..Observed::default() }
}

fn gtids(text: &str) -> GtidSet {
    GtidSet::parse(Flavour::Mariadb, text).unwrap()
}

/// A primary at 0-1-9 and two replicas that have all of it; looked at 50 ms ago.
fn topology() -> Topology {
    let view = |id: u16| ServerView {
        id: ServerId(id),
        name: format!("db-{id}"),
        address: String::new(),
        weight: 100,
        zone: String::new(),
        role: if id == 0 { Role::Primary } else { Role::Replica },
        state: State::Online,
        reason: String::new(),
        lag: Some(Duration::ZERO),
        position: gtids("0-1-9"),
        position_at: NOW - Duration::from_millis(50),
        online_since: Duration::ZERO,
        read_only: id != 0,
        version: String::new(),
    };
    Topology {
        primary: Some(PRIMARY),
        ready: true,
        servers: (0..3).map(view).collect(),
        ..Topology::default()
    }
}
