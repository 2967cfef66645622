//! What holds a session on its connection, and what makes it leave.

use super::*;

#[test]
fn pinned_sessions_stay() {
    let open = Observed { in_transaction: true, ..ok() };
    let pinned = |kind, target| {
        Case::new(kind, target).observed(Kind::Begin, open).with(|case| case.pinned = Some(PRIMARY))
    };
    pinned(Kind::Read, Target::Replica).check("pinned");
    pinned(Kind::Write, Target::Primary).check("pinned");
    pinned(Kind::Commit, Target::SameAsTransaction).check("pinned");
    pinned(Kind::Read, Target::Any).check("pinned");
    pinned(Kind::Write, Target::Primary).no_primary().check("pinned");
    // A held connection without a pin means nothing.
    Case::read().with(|case| case.pinned = Some(PRIMARY)).check("server 1");
}

#[test]
fn warnings_bind_only_who_asks_for_them() {
    let warned = |case: Case, server| {
        case.observed(Kind::Read, Observed { server, warnings: 1, ..ok() })
            .with(|case| case.pinned = Some(server))
    };
    warned(Case::new(Kind::Diagnostics, Target::Session), FIRST).check("pinned");
    warned(Case::read().with(|case| case.intent.needs = Needs::DIAGNOSTICS), FIRST).check("pinned");
    warned(Case::write(), FIRST).check("primary");
    // UPDATE ...; SELECT ROW_COUNT()
    warned(Case::write().with(|case| case.intent.needs = Needs::DIAGNOSTICS), FIRST).check("primary");
    warned(Case::read(), FIRST).check("server 1");
}

#[test]
fn read_only_transactions_run_on_one_replica() {
    Case::new(Kind::BeginReadOnly, Target::Primary).check("server 1");
    Case::new(Kind::BeginReadOnly, Target::Replica).check("server 1");
    Case::new(Kind::BeginReadOnly, Target::Primary).effects(Effects::CONSISTENT_SNAPSHOT).check("server 1");
    let off = Observed { autocommit: false, ..ok() };
    Case::new(Kind::BeginReadOnly, Target::Primary).observed(Kind::Set, off).check("server 1");
    let isolation = Action::SetVariable { name: "tx_isolation".into(), value: "'SERIALIZABLE'".into() };
    Case::new(Kind::BeginReadOnly, Target::Primary).set(isolation).check("primary: serializable");

    let check = |kind, effects, expected: &str| {
        Case::new(kind, Target::Primary).effects(effects).in_read_only_transaction(FIRST).check(expected);
    };
    let nothing = Effects::empty();
    // The server answers these as it would anyway, 1792 for what writes.
    check(Kind::Read, nothing, "pinned");
    check(Kind::UnprovenRead, nothing, "pinned");
    check(Kind::Write, nothing, "pinned");
    check(Kind::LoadLocal, nothing, "pinned");
    check(Kind::TemporaryTable, Effects::TEMPORARY_TABLE, "pinned");
    check(Kind::Commit, nothing, "pinned");
    check(Kind::Rollback, nothing, "pinned");
    check(Kind::Savepoint, nothing, "pinned");
    check(Kind::Xa, nothing, "pinned");
    Case::new(Kind::SetTransaction, Target::Session)
        .effects(Effects::ONE_SHOT)
        .in_read_only_transaction(FIRST)
        .check("pinned");
    check(Kind::ServerQuestion, nothing, "pinned");
    // These end the transaction by themselves.
    check(Kind::Begin, nothing, "leave: ends a READ ONLY transaction on a replica");
    check(Kind::BeginReadOnly, nothing, "leave");
    check(Kind::Ddl, Effects::IMPLICIT_COMMIT, "leave");
    check(Kind::Administration, nothing, "leave");
    check(Kind::Lock, Effects::LOCK_TABLES, "leave");
    check(Kind::Set, Effects::IMPLICIT_COMMIT | Effects::AUTOCOMMIT_CHANGED, "leave");
    check(Kind::Multi, Effects::MAY_COMMIT, "leave");
    // These do not, and would act on the replica or bind the session to it.
    check(Kind::Call, Effects::UNKNOWN_STATE, "refuse 1235");
    check(Kind::UnprovenRead, Effects::USER_LOCK, "refuse 1235");
    check(Kind::UnprovenRead, Effects::UNTRACKED_USER_VARIABLE, "refuse 1235");
    check(Kind::TextPrepare, Effects::TEXT_PREPARE, "refuse 1235");
    check(Kind::Handler, Effects::HANDLER_OPEN, "refuse 1235");
    check(Kind::Unknown, nothing, "refuse 1235");
    check(Kind::Set, nothing, "refuse 1235");
    check(Kind::Kill, nothing, "refuse 1235");
    check(Kind::Multi, nothing, "refuse 1235");
    // What changes only the session, or reads several times.
    let check = |kind, target, expected: &str| {
        Case::new(kind, target).in_read_only_transaction(FIRST).check(expected);
    };
    check(Kind::Set, Target::Session, "pinned");
    check(Kind::Use, Target::Session, "pinned");
    check(Kind::Multi, Target::Replica, "pinned");
    Case::new(Kind::Multi, Target::Replica)
        .effects(Effects::MAY_COMMIT)
        .in_read_only_transaction(FIRST)
        .check("pinned");
    // On the primary there is no such trouble.
    Case::new(Kind::Call, Target::Primary).in_read_only_transaction(PRIMARY).check("pinned");
}

#[test]
fn what_was_left_on_a_former_primary_is_not_given_up_in_silence() {
    for effects in [Effects::TEMPORARY_TABLE, Effects::USER_LOCK, Effects::UNKNOWN_STATE] {
        let left = |case: Case| {
            let ran =
                case.effects(effects).observed(Kind::TemporaryTable, Observed { server: FIRST, ..ok() });
            ran.effects(Effects::empty()).with(|case| case.pinned = Some(FIRST))
        };
        let lost = |case: Case| left(case).with(|case| case.lost = true);
        lost(Case::read()).check("pinned");
        lost(Case::write()).check("pinned");
        // On a replica that was never the primary no write stays, whatever the session has left there.
        left(Case::write()).check("leave: the session's connection is to a replica");
    }
}

#[test]
fn a_cursor_on_a_replica_gives_way() {
    let open = |case: Case| {
        let cursor = Observed { server: FIRST, cursor_open: true, ..ok() };
        case.observed(Kind::Read, cursor).with(|case| case.pinned = Some(FIRST))
    };
    open(Case::read()).check("pinned");
    open(Case::new(Kind::UnprovenRead, Target::SameAsTransaction)).check("pinned");
    open(Case::write()).check("leave: the session's connection is to a replica");
    open(Case::new(Kind::Set, Target::Session)).check("leave");
}
