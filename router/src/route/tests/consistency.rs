//! What a session's reads have seen and must see.

use super::*;

/// One replica is at `first`, the other at `second`.
fn at(case: Case, first: &str, second: &str) -> Case {
    case.server(FIRST, |server| server.position = gtids(first))
        .server(SECOND, |server| server.position = gtids(second))
}

#[test]
fn reads_follow_the_sessions_own_writes() {
    let wrote = |first, second| at(Case::read().wrote("0-1-10", 0.01), first, second);
    wrote("0-1-10", "0-1-10").check("server 1: pure read");
    wrote("0-1-9", "0-1-10").check("server 2: pure read");
    wrote("0-1-9", "0-1-9").check("server 1 after 0-1-10: waits for what the session has seen");
    wrote("0-1-9", "0-1-12").with(|case| case.excluded = vec![SECOND]).check("server 1 after 0-1-10");
    // Too far behind to wait for.
    let behind = |millis| {
        wrote("0-1-9", "0-1-9")
            .server(FIRST, |server| server.lag = Some(Duration::from_millis(millis)))
            .server(SECOND, |server| server.lag = Some(Duration::from_millis(900)))
    };
    behind(150).check("server 1 after 0-1-10");
    behind(200).check("server 1 after 0-1-10");
    behind(201).check("primary: no replica has what the session has seen");
    wrote("0-1-9", "0-1-9")
        .with(|case| case.routing.read_wait = Duration::ZERO)
        .check("primary: no replica has what the session has seen");
    behind(201).no_primary().check("hold: db-0 does not answer");
    // One wait in vain is enough.
    let failed = |case: Case| case.with(|case| (case.may_wait, case.excluded) = (false, vec![FIRST]));
    failed(wrote("0-1-9", "0-1-9")).check("primary: no replica has what the session has seen");
    failed(wrote("0-1-9", "0-1-10")).check("server 2");
    // What the session does not have to see needs no wait.
    wrote("0-1-9", "0-1-9")
        .with(|case| case.consistency = Consistency::Eventual)
        .check("server 1: pure read");
    // What others were told is a floor as well.
    at(Case::read().with(|case| case.session.raise_floor(&gtids("0-1-10"))), "0-1-9", "0-1-9")
        .check("server 1 after 0-1-10");
}

#[test]
fn a_transaction_starts_where_its_session_may_read() {
    let begin = Case::new(Kind::BeginReadOnly, Target::Primary).wrote("0-1-10", 0.01);
    at(begin, "0-1-9", "0-1-10").check("server 2");
}

#[test]
fn a_session_stays_with_its_replica() {
    let read = |server, ago| Case::read().ran(Kind::Read, server, ago);
    read(SECOND, 0.001).check("server 2");
    read(FIRST, 0.001).check("server 1");
    // Its replica is at the floor by what it answered, whatever the monitor knows.
    at(read(SECOND, 0.001), "0-1-9", "0-1-3").check("server 2");
    // A higher floor has to be reached by it too.
    let raised = || read(SECOND, 0.001).with(|case| case.session.raise_floor(&gtids("0-1-10")));
    raised().check("server 2 after 0-1-10");
    at(raised(), "0-1-10", "0-1-9").check("server 2 after 0-1-10");
    at(raised(), "0-1-9", "0-1-10").check("server 2");
    raised().server(SECOND, |server| server.lag = Some(Duration::from_secs(3))).check("primary");
    // After its own write the session is as free as at first.
    at(read(SECOND, 0.02).wrote("0-1-10", 0.01), "0-1-10", "0-1-10").check("server 1");
}

#[test]
fn what_runs_anywhere_says_nothing_about_its_server() {
    for kind in [Kind::Read, Kind::Multi] {
        let constants = Case::new(kind, Target::Any).intent;
        let behind = Case::read().with(|case| {
            case.session.raise_floor(&gtids("0-1-10"));
            case.session.observe(&constants, &Observed { server: SECOND, ..ok() }, NOW);
        });
        at(behind, "0-1-10", "0-1-9").check("server 1: pure read");
    }
}

#[test]
fn a_move_takes_along_what_was_seen() {
    let read = |ago| Case::read().ran(Kind::Read, SECOND, ago);
    let gone = |case: Case| case.server(SECOND, |server| server.state = State::Down);
    // The old replica's position is known from after the read.
    gone(read(0.06)).check("server 1");
    at(gone(read(0.06)), "0-1-8", "0-1-9").check("server 1 after 0-1-9");
    at(gone(read(0.06)), "0-1-7", "0-1-7").check("server 1");
    // It was last asked before the read, the primary after.
    let unasked =
        |case: Case| case.server(SECOND, |server| server.position_at = NOW - Duration::from_secs(9));
    at(unasked(gone(read(0.06))), "0-1-8", "0-1-7").check("server 1 after 0-1-9");
    // Nobody was asked since.
    gone(read(0.001)).check("ask: moves to another server");
    gone(read(0.001))
        .with(|case| case.asked = Asked::Failed)
        .check("primary: what the session has seen is not known");
    // The answer is part of the floor.
    let asked = |case: Case| {
        case.with(|case| {
            case.session.floor_is_asked(&gtids("0-1-12"));
            case.asked = Asked::Answered;
        })
    };
    asked(gone(read(0.001))).check("server 1 after 0-1-12");
    at(asked(gone(read(0.001))), "0-1-12", "0-1-9").check("server 1");
    // Without a primary, reads go on with what is known.
    gone(read(0.001)).no_primary().check("server 1");
    // The failed one of a re-run.
    read(0.001).with(|case| case.excluded = vec![SECOND]).check("ask");
}

#[test]
fn reads_on_the_primary_bind_as_well() {
    let read = |ago| Case::read().ran(Kind::UnprovenRead, PRIMARY, ago);
    read(0.06).check("server 1");
    at(read(0.06), "0-1-8", "0-1-8").check("server 1 after 0-1-9");
    read(0.001).check("ask");
    // What shows no data does not.
    Case::read().ran(Kind::Set, PRIMARY, 0.001).check("server 1");
    Case::read().ran(Kind::Write, PRIMARY, 0.001).check("server 1");
    // A commit comes after all that was read before it.
    at(read(0.002).wrote("0-1-10", 0.001), "0-1-10", "0-1-9").check("server 1");
}

#[test]
fn a_session_moves_when_that_is_better() {
    let read = |ago| Case::read().ran(Kind::Read, SECOND, ago);
    let slow = |case: Case| case.server(SECOND, |server| server.lag = Some(Duration::from_secs(3)));
    slow(read(0.06)).check("server 1");
    slow(read(0.001)).check("ask");
    // Not to one that is no better.
    slow(read(0.001)).server(FIRST, |server| server.lag = Some(Duration::from_secs(4))).check("server 2");
    // After a while it chooses anew: the turn is server 1's.
    read(3.0).check("server 1");
    let long_ago = |case: Case| {
        let mut case = case.ran(Kind::Read, SECOND, 3.0);
        let intent = case.intent.clone();
        for step in (1..2900).rev() {
            let at = NOW - Duration::from_millis(step);
            let mut known = case.session.clone();
            known.observe(&intent, &Observed { server: SECOND, ..ok() }, at);
            case.session = known;
        }
        case
    };
    // The choice is renewed every two seconds, the last time 1 s ago.
    long_ago(Case::read()).check("server 2");
}

#[test]
fn global_reads_ask_first() {
    let global =
        |asked| Case::read().with(|case| (case.consistency, case.asked) = (Consistency::Global, asked));
    global(Asked::No).check("ask: global consistency");
    global(Asked::Failed).check("primary: the primary's position is not known");
    global(Asked::Answered).check("server 1");
    let answered =
        |position: &str| global(Asked::Answered).with(|case| case.session.floor_is_asked(&gtids(position)));
    answered("0-1-12").check("server 1 after 0-1-12");
    at(answered("0-1-12"), "0-1-11", "0-1-12").check("server 2");
    global(Asked::No).no_replicas().check("primary: no replica may serve reads");
    Case::write().with(|case| case.consistency = Consistency::Global).check("primary");
}

#[test]
fn a_read_without_data_goes_where_the_session_is() {
    Case::new(Kind::Read, Target::Any)
        .with(|case| case.intent.target = Target::Replica)
        .ran(Kind::Read, SECOND, 0.5)
        .with(|case| case.intent.target = Target::Any)
        .check("server 2");
}

#[test]
fn waits_are_written_for_each_flavour() {
    let wait = Wait { position: "0-1-9".into(), timeout: Duration::from_millis(250) };
    assert_eq!(wait.sql(Flavour::Mariadb), "SELECT MASTER_GTID_WAIT('0-1-9', 0.250)");
    assert_eq!(wait.sql(Flavour::Mysql), "SELECT WAIT_FOR_EXECUTED_GTID_SET('0-1-9', 0.250)");
}
