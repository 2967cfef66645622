//! What one decision costs: a plain read with two replicas, as a session in the middle of its work sees it.
//!
//! The goal is 100 ns for route and balance together.

use std::hint::black_box;
use std::time::Duration;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use pointsman_config::{Balance, Consistency, Lag, Routing};
use pointsman_router::balance::Balancer;
use pointsman_router::gtid::GtidSet;
use pointsman_router::intent::{Effects, Flavour, Intent, Kind, Needs, Reason, Target};
use pointsman_router::route::{Asked, Request, Rules, route};
use pointsman_router::session::{ConnectionState, Fresh, Observed, SessionState};
use pointsman_router::topology::{Role, ServerId, ServerView, State, Topology};

const NOW: Duration = Duration::from_secs(1000);
const SET: &str =
    "3e11fa47-71ca-11e1-9e33-c80aa9429562:1-900000,4e11fa47-71ca-11e1-9e33-c80aa9429562:1-77:80-90";

fn decisions(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("route");
    for (name, flavour, floor) in [
        ("mariadb, own write", Flavour::Mariadb, "0-1-8"),
        ("mysql, own write", Flavour::Mysql, "3e11fa47-71ca-11e1-9e33-c80aa9429562:1-899990"),
    ] {
        let floor = gtids(flavour, floor);
        let mut session = SessionState::new(Fresh { flavour, ..Fresh::default() });
        session.raise_floor(&floor);
        group.bench_function(name, |b| {
            let mut decide = decider(flavour, Balance::Adaptive);
            b.iter(|| decide(black_box(&session)));
        });
    }
    let mut settled = SessionState::new(Fresh::default());
    settled.observe(&intent(), &Observed { server: ServerId(1), ..Observed::default() }, NOW);
    group.bench_function("settled on a replica", |b| {
        let mut decide = decider(Flavour::Mariadb, Balance::Adaptive);
        b.iter(|| decide(black_box(&settled)));
    });
    for (name, algorithm) in [
        ("round robin", Balance::RoundRobin),
        ("weighted round robin", Balance::WeightedRoundRobin),
        ("least connections", Balance::LeastConnections),
        ("random", Balance::Random),
    ] {
        let fresh = SessionState::new(Fresh::default());
        group.bench_function(name, |b| {
            let mut decide = decider(Flavour::Mariadb, algorithm);
            b.iter(|| decide(black_box(&fresh)));
        });
    }
    group.finish();
}

fn sessions(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("session");
    let intent = intent();
    let answer = Observed { server: ServerId(1), has_status: true, autocommit: true, ..Observed::default() };
    let mut session = SessionState::new(Fresh::default());
    group.bench_function("observe a read", |b| {
        b.iter(|| session.observe(black_box(&intent), black_box(&answer), NOW));
    });
    let gtid = gtids(Flavour::Mariadb, "0-1-9");
    let write = Intent { kind: Kind::Write, target: Target::Primary, ..intent.clone() };
    let committed = Observed { gtid: &gtid, ..answer };
    group.bench_function("observe a write", |b| {
        b.iter(|| session.observe(black_box(&write), black_box(&committed), NOW));
    });
    let mut connection = ConnectionState::fresh(None);
    connection.adopt(&session);
    group.bench_function("plan nothing", |b| b.iter(|| connection.plan(black_box(&session))));
    let other = SessionState::new(Fresh::default());
    group.bench_function("plan nothing for another session", |b| {
        b.iter(|| connection.plan(black_box(&other)))
    });
    group.finish();
}

fn sets(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("gtid");
    for (name, flavour, known, next) in [
        ("mariadb", Flavour::Mariadb, "0-1-8,1-1-4", "0-1-9"),
        ("mysql", Flavour::Mysql, SET, "3e11fa47-71ca-11e1-9e33-c80aa9429562:900001"),
    ] {
        let known = gtids(flavour, known);
        group.bench_function(format!("merge one, {name}"), |b| {
            b.iter_batched_ref(
                || known.clone(),
                |set| set.merge_text(flavour, black_box(next.as_bytes())),
                BatchSize::SmallInput,
            );
        });
        let one = gtids(flavour, next);
        group.bench_function(format!("contains one, {name}"), |b| {
            b.iter(|| black_box(&known).contains(black_box(&one)));
        });
    }
    group.finish();
}

/// A function that decides about a read in the session it is given.
fn decider(flavour: Flavour, balance: Balance) -> impl FnMut(&SessionState) {
    let (topology, intent, rules) = (topology(flavour), intent(), Rules::default());
    let routing = Routing { balance, ..Routing::default() };
    let lag = Lag { preferred: Duration::from_secs(1), maximum: Duration::from_secs(10) };
    let mut balancer = Balancer::new(&routing, topology.servers.len());
    for id in [ServerId(1), ServerId(2)] {
        balancer.started(id);
        balancer.finished(id, Duration::from_micros(200));
    }
    let mut random = 1_u64;
    move |session| {
        random = random.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(1);
        let request = Request {
            intent: &intent,
            session,
            consistency: Consistency::Session,
            asked: Asked::No,
            pinned: None,
            pinned_is_lost: false,
            will_pin: false,
            may_wait: true,
            excluded: &[],
            listener_read_only: false,
            stopped_by_read_only: true,
            user: b"app",
            digest: 1,
            rules: &rules,
            routing: &routing,
            lag: &lag,
        };
        black_box(route(black_box(&request), &topology, &mut balancer, NOW, random));
    }
}

fn intent() -> Intent {
    Intent {
        kind: Kind::Read,
        target: Target::Replica,
        effects: Effects::empty(),
        needs: Needs::empty(),
        reason: Reason("pure read".into()),
        actions: None,
        hint: None,
    }
}

fn topology(flavour: Flavour) -> Topology {
    let position = match flavour {
        Flavour::Mariadb => gtids(flavour, "0-1-9"),
        Flavour::Mysql => gtids(flavour, SET),
    };
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
        position: position.clone(),
        position_at: NOW,
        online_since: Duration::ZERO,
        read_only: id != 0,
        version: String::new(),
    };
    let servers = (0..3).map(view).collect();
    Topology { primary: Some(ServerId(0)), ready: true, flavour, servers, ..Topology::default() }
}

fn gtids(flavour: Flavour, text: &str) -> GtidSet {
    GtidSet::parse(flavour, text).unwrap_or_default()
}

criterion_group!(benches, decisions, sessions, sets);
criterion_main!(benches);
