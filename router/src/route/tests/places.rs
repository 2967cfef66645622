//! Statements that no transaction and no floor binds.

use super::*;

#[test]
fn only_proven_reads_leave_the_primary() {
    let check = |kind, target, expected| Case::new(kind, target).check(expected);
    check(Kind::Read, Target::Replica, "server 1: pure read");
    check(Kind::Read, Target::Primary, "primary: not proven to be a pure read");
    check(Kind::UnprovenRead, Target::Primary, "primary");
    check(Kind::Write, Target::Primary, "primary");
    check(Kind::Ddl, Target::Primary, "primary");
    check(Kind::Call, Target::Primary, "primary");
    check(Kind::Begin, Target::Primary, "primary");
    check(Kind::ServerQuestion, Target::Primary, "primary");
    check(Kind::Unknown, Target::Primary, "primary");
    check(Kind::Read, Target::Any, "server 1: the same on every server");
    check(Kind::Set, Target::Session, "primary: changes the session");
    check(Kind::Commit, Target::SameAsTransaction, "primary: outside of a transaction");
}

#[test]
fn what_a_session_asks_for_keeps_reads_on_the_primary() {
    let needs = Needs::STOPPED_BY_READ_ONLY;
    Case::read().with(|case| case.intent.needs = needs).check("server 1");
    Case::read()
        .with(|case| (case.intent.needs, case.stopped_by_read_only) = (needs, false))
        .check("primary: a stored function, and read_only does not stop this account");
    Case::read().with(|case| case.will_pin = true).check("primary: leaves something on its connection");
    Case::read().effects(Effects::USER_LOCK).check("primary: leaves something on its connection");
    Case::read().effects(Effects::CALC_FOUND_ROWS).check("server 1");
    let isolation = |level: &str| Action::SetVariable { name: "tx_isolation".into(), value: level.into() };
    Case::read().set(isolation("'SERIALIZABLE'")).check("primary: serializable");
    Case::read().set(isolation("'READ-COMMITTED'")).check("server 1");
    let off = Observed { autocommit: false, ..ok() };
    Case::read().observed(Kind::Set, off).check("primary: autocommit is off");
    // All transactions of this session are READ ONLY.
    let read_only = || Action::SetVariable { name: "tx_read_only".into(), value: "1".into() };
    Case::read().observed(Kind::Set, off).set(read_only()).check("server 1");
    Case::write().observed(Kind::Set, off).set(read_only()).check("primary");
}

#[test]
fn hints_and_rules_choose_among_what_is_safe() {
    let hinted = |case: Case, hint| case.with(|case| case.intent.hint = Some(hint));
    hinted(Case::read(), Hint::Primary).check("primary: hint");
    hinted(Case::read(), Hint::Replica).check("server 1: hint");
    hinted(Case::write(), Hint::Replica).check("primary: not proven to be a pure read");
    let off = Observed { autocommit: false, ..ok() };
    hinted(Case::read().observed(Kind::Set, off), Hint::Replica).check("primary: autocommit is off");

    let rule = || Rule { name: "reports".into(), ..Rule::default() };
    let ruled = |case: Case, rules: Vec<Rule>| case.with(|case| case.routing.rules = rules);
    ruled(Case::read(), vec![rule()]).check("primary: rule reports");
    let replica = Rule { target: RuleTarget::Replica, ..rule() };
    ruled(Case::read(), vec![replica.clone()]).check("server 1: rule reports");
    ruled(Case::write(), vec![replica.clone()]).check("primary: not proven to be a pure read");
    hinted(ruled(Case::read(), vec![rule()]), Hint::Replica).check("server 1: hint");
    hinted(ruled(Case::read(), vec![replica]), Hint::Primary).check("primary: hint");

    let some = |text: &str| Some(text.to_owned());
    let matches = |rule: Rule, expected: bool| {
        let expected = if expected { "primary: rule reports" } else { "server 1: pure read" };
        ruled(Case::read(), vec![rule]).check(expected);
    };
    matches(Rule { user: some("joe"), ..rule() }, true);
    matches(Rule { user: some("Joe"), ..rule() }, false);
    matches(Rule { schema: some("app"), ..rule() }, true);
    matches(Rule { schema: some("other"), ..rule() }, false);
    matches(Rule { listener: Some(ListenerName::Rw), ..rule() }, true);
    matches(Rule { listener: Some(ListenerName::Ro), ..rule() }, false);
    matches(Rule { digest: some("SELECT 1"), ..rule() }, true);
    matches(Rule { digest: some("SELECT a"), user: some("jim"), ..rule() }, false);
    matches(Rule { digest: some("SELECT 1 FROM t"), ..rule() }, false);
    // The first that matches wins.
    let other = Rule { user: some("jim"), ..rule() };
    let second = Rule { name: "second".into(), target: RuleTarget::Replica, ..Rule::default() };
    ruled(Case::read(), vec![other, second, rule()]).check("server 1: rule second");
}

#[test]
fn replicas_that_may_not_serve_are_passed_over() {
    let first = |change: fn(&mut ServerView)| Case::read().server(FIRST, change);
    first(|server| server.state = State::Down).check("server 2");
    first(|server| server.state = State::Draining).check("server 2");
    first(|server| server.state = State::Excluded).check("server 2");
    first(|server| server.state = State::Lagging).check("server 2");
    first(|server| server.state = State::Unknown).check("server 2");
    first(|server| server.role = Role::Unknown).check("server 2");
    first(|server| server.role = Role::Primary).check("server 2");
    first(|server| server.weight = 0).check("server 2");
    first(|server| server.lag = None).check("server 2");
    first(|server| server.lag = Some(Duration::from_secs(11))).check("server 2");
    // Tolerated, but the other one is preferred.
    first(|server| server.lag = Some(Duration::from_secs(2))).check("server 2");
    first(|server| server.lag = Some(Duration::from_secs(2)))
        .server(SECOND, |server| server.lag = Some(Duration::from_secs(9)))
        .check("server 1");
    let near = |zone: &'static str| {
        Case::read()
            .server(FIRST, |server| server.zone = "west".into())
            .server(SECOND, |server| server.zone = "east".into())
            .with(|case| case.routing.zone = zone.into())
    };
    near("west").check("server 1");
    near("east").check("server 2");
    near("north").check("server 1");
    near("").check("server 1");
    Case::read().with(|case| case.excluded = vec![FIRST]).check("server 2");
    Case::read()
        .with(|case| case.excluded = vec![FIRST, SECOND])
        .check("primary: no replica may serve reads");
}

#[test]
fn without_replicas_the_setting_decides() {
    let read = |no_replica| Case::read().no_replicas().with(|case| case.routing.no_replica = no_replica);
    read(NoReplica::Primary).check("primary: no replica may serve reads");
    read(NoReplica::Wait).check("hold: no replica may serve reads");
    read(NoReplica::Error)
        .check("refuse 1290: The read needs a replica and there is none: no replica may serve reads");
    read(NoReplica::Primary).no_primary().check("hold: db-0 does not answer");
    Case::new(Kind::Read, Target::Any).no_replicas().check("primary: the same on every server");
}

#[test]
fn without_a_primary_writes_are_held_and_reads_go_on() {
    Case::write().no_primary().check("hold: db-0 does not answer");
    Case::read().no_primary().check("server 1");
    Case::new(Kind::Set, Target::Session).no_primary().check("server 1");
    Case::new(Kind::Set, Target::Session).effects(Effects::UNTRACKED_SET).no_primary().check("hold");
    Case::new(Kind::Rollback, Target::SameAsTransaction).no_primary().check("server 1");
    let question =
        |needs| Case::new(Kind::ServerQuestion, Target::Primary).with(|case| case.intent.needs = needs);
    question(Needs::empty()).check("primary: not proven to be a pure read");
    question(Needs::empty()).no_primary().check("server 1");
    question(Needs::empty()).no_primary().no_replicas().check("hold");
    question(Needs::empty()).no_primary().effects(Effects::USER_LOCK).check("hold");
    question(Needs::PROCESS_IDS).no_primary().check("hold");
    question(Needs::PRIMARY_ITSELF).no_primary().check("hold");
    Case::write().with(|case| case.topology.primary = None).check("hold: no primary");
    Case::write()
        .with(|case| case.excluded = vec![PRIMARY])
        .check("hold: the primary did not serve this statement");
    let state = |state| Case::write().server(PRIMARY, |server| server.state = state);
    state(State::Down).check("hold: the primary does not answer");
    state(State::Draining).check("hold: the primary is being drained");
    state(State::Excluded).check("hold: the primary cannot be used");
    Case::write()
        .with(|case| (case.topology.ready, case.topology.primary) = (false, None))
        .check("hold: the servers have not been looked at yet");
    Case::read()
        .with(|case| case.topology = Topology::default())
        .check("hold: the servers have not been looked at yet");
    // A primary that an operator made read-only stays the primary, and says so itself.
    Case::write().server(PRIMARY, |server| server.read_only = true).check("primary");
    // Two that can be written to: whoever builds the topology names neither.
    let two = "db-0 and db-1 are both writable";
    Case::write()
        .with(|case| (case.topology.primary, case.topology.no_primary_reason) = (None, two.into()))
        .check("hold: db-0 and db-1 are both writable");
}

#[test]
fn the_read_only_listener_never_leaves_the_replicas() {
    let check = |case: Case, expected: &str| case.with(|case| case.listener_read_only = true).check(expected);
    let kind = |kind| Case::new(kind, Target::Primary);
    check(Case::read(), "server 1");
    check(Case::new(Kind::Read, Target::Any), "server 1");
    check(Case::new(Kind::Set, Target::Session), "server 1");
    check(Case::new(Kind::Use, Target::Session), "server 1");
    check(kind(Kind::Begin), "server 1");
    check(kind(Kind::ServerQuestion), "server 1");
    check(kind(Kind::UnprovenRead), "server 1");
    check(Case::read().no_primary(), "server 1");
    check(Case::new(Kind::Multi, Target::Replica), "server 1");
    let text = "refuse 1290: The MariaDB server is running with the --read-only option so it cannot execute this statement";
    check(Case::write(), text);
    for refused in [
        Kind::Ddl,
        Kind::Call,
        Kind::Xa,
        Kind::Lock,
        Kind::TemporaryTable,
        Kind::TextPrepare,
        Kind::Handler,
        Kind::LoadLocal,
        Kind::Administration,
        Kind::Multi,
        Kind::Unknown,
    ] {
        check(kind(refused), "refuse 1290");
    }
    let unstopped = |case: Case| case.with(|case| case.stopped_by_read_only = false);
    check(unstopped(kind(Kind::UnprovenRead)), "refuse 1290");
    check(
        unstopped(Case::read().with(|case| case.intent.needs = Needs::STOPPED_BY_READ_ONLY)),
        "refuse 1290",
    );
    check(kind(Kind::UnprovenRead).effects(Effects::USER_LOCK), "refuse 1290");
    check(kind(Kind::Set), "refuse 1290");
    check(kind(Kind::Kill), "refuse 1290");
    // Also in a transaction, where the session is bound to its replica.
    let open = Observed { server: FIRST, in_transaction: true, ..ok() };
    let begun = |case: Case| case.observed(Kind::Begin, open).with(|case| case.pinned = Some(FIRST));
    check(begun(Case::read()), "pinned");
    check(begun(Case::write()), "refuse 1290");
    check(begun(Case::new(Kind::Commit, Target::SameAsTransaction)), "pinned");
    check(
        Case::read().no_replicas(),
        "refuse 1290: The read needs a replica and there is none: no replica may serve reads",
    );
    check(Case::read().no_replicas().with(|case| case.routing.no_replica = NoReplica::Wait), "hold");
    // What a session set elsewhere does not matter: there is nothing but replicas.
    let off = Observed { autocommit: false, ..ok() };
    check(Case::read().observed(Kind::Set, off), "server 1");
}
