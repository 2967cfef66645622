//! Promise: a session of default consistency reads what it wrote, and never goes back in time, however replicas
//! lag, servers come and go, and probes come late.
//!
//! A primary and two replicas are counters: the primary's is what has been committed, a replica's what it has
//! applied. Random sequences of events run through the real routing.

#![allow(clippy::unwrap_used, reason = "the positions are the test's own")]

use std::time::Duration;

use pointsman_config::{Balance, Consistency, Lag, Routing};
use pointsman_router::balance::Balancer;
use pointsman_router::gtid::GtidSet;
use pointsman_router::intent::{Effects, Flavour, Intent, Kind, Needs, Reason, Target};
use pointsman_router::route::{Asked, Decision, Request, Rules, Wait, route};
use pointsman_router::session::{Fresh, Observed, SessionState};
use pointsman_router::topology::{Role, ServerId, ServerView, State, Topology};
use proptest::prelude::*;

const PRIMARY: ServerId = ServerId(0);
const SERVERS: u16 = 3;

#[derive(Clone, Debug)]
enum Event {
    /// Time passes.
    Pass(u16),
    /// Another client commits.
    Commit,
    /// A replica applies some of what it lacks.
    Apply(u16, u64),
    Probe(u16),
    /// The monitor's judgement of a replica.
    Judge(u16, bool),
    Lag(u16, u16),
    Weight(u16, u32),
    /// What this session does. Waits and questions succeed or not.
    Read {
        luck: bool,
    },
    ReadForUpdate,
    Write,
    /// The floor rises to what another session was told.
    Checkout,
}

fn event() -> impl Strategy<Value = Event> {
    let replica = 1..SERVERS;
    prop_oneof![
        4 => (1..700_u16).prop_map(Event::Pass),
        4 => Just(Event::Commit),
        4 => (replica.clone(), 1..5_u64).prop_map(|(id, count)| Event::Apply(id, count)),
        4 => (0..SERVERS).prop_map(Event::Probe),
        1 => (replica.clone(), any::<bool>()).prop_map(|(id, up)| Event::Judge(id, up)),
        1 => (replica.clone(), 0..12_000_u16).prop_map(|(id, millis)| Event::Lag(id, millis)),
        1 => (replica, 0..3_u32).prop_map(|(id, weight)| Event::Weight(id, weight)),
        8 => any::<bool>().prop_map(|luck| Event::Read { luck }),
        1 => Just(Event::ReadForUpdate),
        2 => Just(Event::Write),
        1 => Just(Event::Checkout),
    ]
}

/// Servers, what is known of them, and one session.
struct World {
    now: Duration,
    /// What each server has; the primary is the first.
    executed: [u64; SERVERS as usize],
    topology: Topology,
    session: SessionState,
    /// What the session must see.
    owed: u64,
    balancer: Balancer,
    routing: Routing,
    random: u64,
    /// Reads that each server answered.
    reads: [usize; SERVERS as usize],
}

impl World {
    fn new(balance: Balance) -> Self {
        let routing = Routing { balance, ..Routing::default() };
        let view = |id: u16| ServerView {
            id: ServerId(id),
            name: format!("db-{id}"),
            address: String::new(),
            weight: 1,
            zone: String::new(),
            role: if id == 0 { Role::Primary } else { Role::Replica },
            state: State::Online,
            reason: String::new(),
            lag: Some(Duration::ZERO),
            position: position(1),
            position_at: Duration::ZERO,
            online_since: Duration::ZERO,
            read_only: id != 0,
            version: String::new(),
        };
        let servers = (0..SERVERS).map(view).collect();
        Self {
            now: Duration::from_secs(1),
            executed: [1; SERVERS as usize],
            topology: Topology { primary: Some(PRIMARY), ready: true, servers, ..Topology::default() },
            session: SessionState::new(Fresh::default()),
            owed: 0,
            balancer: Balancer::new(&routing, usize::from(SERVERS)),
            routing,
            random: 1,
            reads: [0; SERVERS as usize],
        }
    }

    fn happen(&mut self, event: &Event) {
        match *event {
            Event::Pass(millis) => self.now += Duration::from_millis(millis.into()),
            Event::Commit => self.executed[0] += 1,
            Event::Apply(id, count) => self.apply(id, self.executed[usize::from(id)] + count),
            Event::Probe(id) => {
                let view = &mut self.topology.servers[usize::from(id)];
                view.position = position(self.executed[usize::from(id)]);
                view.position_at = self.now;
            }
            Event::Judge(id, up) => {
                self.topology.servers[usize::from(id)].state = if up { State::Online } else { State::Down };
            }
            Event::Lag(id, millis) => {
                self.topology.servers[usize::from(id)].lag = Some(Duration::from_millis(millis.into()));
            }
            Event::Weight(id, weight) => self.topology.servers[usize::from(id)].weight = weight,
            Event::Read { luck } => self.read(luck),
            Event::ReadForUpdate => self.saw(Kind::UnprovenRead, PRIMARY),
            Event::Write => {
                self.executed[0] += 1;
                self.owed = self.executed[0];
                let gtid = position(self.executed[0]);
                self.observe(Kind::Write, &Observed { server: PRIMARY, gtid: &gtid, ..answer() });
            }
            Event::Checkout => {
                self.owed = self.executed[0];
                self.session.raise_floor(&position(self.executed[0]));
            }
        }
        // Each event takes a little time.
        self.now += Duration::from_micros(200);
    }

    fn apply(&mut self, id: u16, up_to: u64) {
        let committed = self.executed[0];
        let executed = &mut self.executed[usize::from(id)];
        *executed = up_to.min(committed).max(*executed);
    }

    /// A read as the session loop runs it, until it is answered.
    fn read(&mut self, luck: bool) {
        let (mut asked, mut may_wait, mut excluded) = (Asked::No, true, Vec::new());
        for _ in 0..10 {
            match self.decide(asked, may_wait, &excluded) {
                Decision::Primary { .. } => return self.saw(Kind::Read, PRIMARY),
                Decision::Replica { id, wait: None, .. } => return self.saw(Kind::Read, id),
                Decision::Replica { id, wait: Some(wait), .. } => {
                    if luck {
                        self.apply(id.0, sequence(&wait));
                        return self.saw(Kind::Read, id);
                    }
                    may_wait = false;
                    excluded.push(id);
                }
                Decision::AskPosition { .. } => {
                    asked = if luck { Asked::Answered } else { Asked::Failed };
                    if luck {
                        self.session.floor_is_asked(&position(self.executed[0]));
                    }
                }
                Decision::Pinned
                | Decision::LeaveReplica { .. }
                | Decision::Hold { .. }
                | Decision::Refuse(_) => panic!("a read with a primary at hand"),
            }
        }
        panic!("a read that is never answered");
    }

    fn decide(&mut self, asked: Asked, may_wait: bool, excluded: &[ServerId]) -> Decision {
        self.random = self.random.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(1);
        let request = Request {
            intent: &intent(Kind::Read),
            session: &self.session,
            consistency: Consistency::Session,
            asked,
            pinned: None,
            pinned_is_lost: false,
            will_pin: false,
            may_wait,
            excluded,
            listener_read_only: false,
            stopped_by_read_only: true,
            user: b"app",
            digest: 0,
            rules: &Rules::default(),
            routing: &self.routing,
            lag: &Lag { preferred: Duration::from_secs(1), maximum: Duration::from_secs(10) },
        };
        route(&request, &self.topology, &mut self.balancer, self.now, self.random)
    }

    /// The session was answered by this server, and must not have gone back.
    fn saw(&mut self, kind: Kind, server: ServerId) {
        let seen = self.executed[usize::from(server.0)];
        assert!(seen >= self.owed, "read {seen} on server {}, owed {}", server.0, self.owed);
        self.owed = seen;
        self.reads[usize::from(server.0)] += 1;
        self.observe(kind, &Observed { server, ..answer() });
    }

    fn observe(&mut self, kind: Kind, observed: &Observed<'_>) {
        self.session.observe(&intent(kind), observed, self.now);
    }
}

fn answer() -> Observed<'static> {
    Observed { has_status: true, autocommit: true, ..Observed::default() }
}

fn intent(kind: Kind) -> Intent {
    Intent {
        kind,
        target: if kind == Kind::Read { Target::Replica } else { Target::Primary },
        effects: Effects::empty(),
        needs: Needs::empty(),
        reason: Reason("test".into()),
        actions: None,
        hint: None,
    }
}

fn position(sequence: u64) -> GtidSet {
    GtidSet::parse(Flavour::Mariadb, &format!("0-1-{sequence}")).unwrap()
}

fn sequence(wait: &Wait) -> u64 {
    wait.position.rsplit('-').next().unwrap().parse().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn reads_never_go_back(
        balance in prop::sample::select(vec![Balance::Adaptive, Balance::RoundRobin, Balance::LeastConnections]),
        events in proptest::collection::vec(event(), 1..200),
    ) {
        let mut world = World::new(balance);
        events.iter().for_each(|event| world.happen(event));
    }
}

/// Replicas that keep up serve all reads, however busy the session is, and both get their part.
#[test]
fn reads_leave_the_primary_and_spread() {
    for balance in [Balance::Adaptive, Balance::RoundRobin, Balance::Random] {
        let mut world = World::new(balance);
        for step in 0..20_000_u64 {
            world.executed = [step + 1; SERVERS as usize];
            if step % 10 == 0 {
                (0..SERVERS).for_each(|id| world.happen(&Event::Probe(id)));
            }
            world.happen(&Event::Read { luck: true });
            world.happen(&Event::Pass(2));
        }
        let [on_primary, first, second] = world.reads;
        assert!(on_primary <= 10 && first > 6_000 && second > 6_000, "{balance:?}: {:?}", world.reads);
    }
}
