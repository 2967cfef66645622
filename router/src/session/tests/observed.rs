//! What one answer after the other does to pins, mode and floor.

use super::*;

/// Plays statements with their answers; gives the pins after each.
fn check(steps: &[(Intent, Observed<'_>, &[&str])]) -> SessionState {
    let mut session = session(Flavour::Mariadb);
    for (at, (intent, observed, expected)) in steps.iter().enumerate() {
        session.observe(intent, observed, NOW);
        assert_eq!(pin_names(&session), *expected, "after step {at}, {:?}", intent.kind);
        assert_eq!(session.pinned_since().is_some(), !expected.is_empty());
    }
    session
}

#[test]
fn transactions_are_what_the_status_says() {
    let open = Observed { in_transaction: true, ..ok() };
    let read_only = Observed { read_only_transaction: true, ..open };
    let autocommit_off = Observed { autocommit: false, ..ok() };
    let begun = Observed { in_transaction: true, ..autocommit_off };
    let session = check(&[
        (intent(Kind::Begin), open, &["transaction"]),
        (intent(Kind::Write), open, &["transaction"]),
        // An error has no status: the transaction is taken to be as it was.
        (intent(Kind::Write), failed(1062), &["transaction", "warnings"]),
        // A commit that chains: only the flag tells.
        (intent(Kind::Commit), open, &["transaction"]),
        (intent(Kind::Commit), ok(), &[]),
        (intent(Kind::BeginReadOnly), read_only, &["transaction"]),
        (intent(Kind::Rollback), ok(), &[]),
        // Nothing is open after the SET, and the first statement opens it, maybe even when it fails.
        (set(vec![Action::SetAutocommit(false)]), autocommit_off, &[]),
        (intent(Kind::Read), begun, &["transaction"]),
        (intent(Kind::Rollback), autocommit_off, &[]),
        (intent(Kind::Read), failed(1146), &["transaction", "warnings"]),
        (intent(Kind::Rollback), autocommit_off, &[]),
        (set(vec![Action::SetAutocommit(true)]), ok(), &[]),
        (intent(Kind::Write), failed(1146), &["warnings"]),
    ]);
    assert!(session.autocommit() && !session.in_transaction());
}

#[test]
fn what_cannot_be_made_again_pins() {
    let table = with(Kind::TemporaryTable, Effects::TEMPORARY_TABLE);
    let temporary = ["temporary-table"];
    let session = check(&[(table, ok(), &temporary), (intent(Kind::Read), ok(), &temporary)]);
    assert!(session.mode().temporary_tables);
    let lock = with(Kind::Lock, Effects::LOCK_TABLES);
    let unlock = with(Kind::Lock, Effects::UNLOCK_TABLES);
    let global = with(Kind::Lock, Effects::GLOBAL_READ_LOCK);
    check(&[
        (lock.clone(), ok(), &["lock-tables"]),
        (unlock.clone(), ok(), &[]),
        (lock, ok(), &["lock-tables"]),
        (intent(Kind::Begin), ok(), &[]),
        (global.clone(), ok(), &["global-read-lock"]),
        (intent(Kind::Begin), ok(), &["global-read-lock"]),
        (unlock, ok(), &[]),
        (global, ok(), &["global-read-lock"]),
        (with(Kind::Lock, Effects::GLOBAL_READ_UNLOCK), ok(), &[]),
    ]);
    check(&[
        (with(Kind::UnprovenRead, Effects::USER_LOCK), ok(), &["user-lock"]),
        (with(Kind::UnprovenRead, Effects::USER_LOCKS_RELEASED), ok(), &[]),
    ]);
    // Of several statements in one packet, nobody knows which came last.
    let both = Effects::UNLOCK_TABLES | Effects::LOCK_TABLES;
    check(&[(with(Kind::Multi, both), ok(), &["lock-tables"])]);
    let prepare = with(Kind::TextPrepare, Effects::TEXT_PREPARE);
    let deallocate = with(Kind::TextPrepare, Effects::TEXT_DEALLOCATE);
    check(&[
        (prepare.clone(), ok(), &["text-prepare"]),
        (prepare, ok(), &["text-prepare"]),
        (deallocate.clone(), ok(), &["text-prepare"]),
        (deallocate.clone(), failed(1243), &["text-prepare", "warnings"]),
        (deallocate, ok(), &[]),
    ]);
    check(&[
        (with(Kind::Handler, Effects::HANDLER_OPEN), ok(), &["handler"]),
        (with(Kind::Handler, Effects::HANDLER_CLOSE), ok(), &[]),
    ]);
    check(&[
        (with(Kind::UnprovenRead, Effects::UNTRACKED_USER_VARIABLE), ok(), &["user-variable"]),
        (with(Kind::Call, Effects::UNKNOWN_STATE), ok(), &["user-variable", "unknown-state"]),
        (
            set(vec![expression("foreign_key_checks")]),
            ok(),
            &["untracked-set", "user-variable", "unknown-state"],
        ),
    ]);
    check(&[(intent(Kind::Read), Observed { cursor_open: true, ..ok() }, &["cursor"])]);
}

#[test]
fn diagnostics_pin_until_the_next_statement() {
    let warned = Observed { warnings: 2, ..ok() };
    let calculated = with(Kind::Read, Effects::CALC_FOUND_ROWS);
    check(&[
        (intent(Kind::Write), warned, &["warnings"]),
        (intent(Kind::Diagnostics), ok(), &["warnings"]),
        (intent(Kind::Read), ok(), &[]),
        (calculated.clone(), ok(), &["found-rows"]),
        (intent(Kind::Diagnostics), ok(), &["found-rows"]),
        (calculated, warned, &["found-rows", "warnings"]),
        (intent(Kind::Write), failed(1062), &["warnings"]),
        (intent(Kind::Diagnostics), ok(), &["warnings"]),
        (intent(Kind::Write), ok(), &[]),
    ]);
}

#[test]
fn a_failed_statement_sets_nothing_but_may_leave_something() {
    let session = check(&[
        (set(vec![variable("time_zone", "'bad'"), expression("sql_mode")]), failed(1298), &["warnings"]),
        (with(Kind::TextPrepare, Effects::TEXT_PREPARE), failed(1064), &["warnings"]),
        (with(Kind::SetTransaction, Effects::ONE_SHOT), failed(1568), &["warnings"]),
        (with(Kind::Lock, Effects::GLOBAL_READ_LOCK), failed(1227), &["warnings"]),
    ]);
    assert_eq!(session.fingerprint(), super::session(Flavour::Mariadb).fingerprint());
    check(&[(with(Kind::UnprovenRead, Effects::USER_LOCK), failed(1242), &["user-lock", "warnings"])]);
    check(&[(
        with(Kind::Call, Effects::UNKNOWN_STATE),
        failed(1644),
        &["transaction", "warnings", "unknown-state"],
    )]);
    let several =
        Intent { actions: set(vec![variable("time_zone", "'+01:00'")]).actions, ..intent(Kind::Multi) };
    check(&[(several, failed(1064), &["transaction", "warnings", "unknown-state"])]);
}

#[test]
fn a_one_shot_pins_until_it_is_used() {
    let one_shot = || Intent {
        actions: Some(Arc::new([Action::SetTransaction {
            session: false,
            sql: "SET TRANSACTION READ ONLY".into(),
        }])),
        ..with(Kind::SetTransaction, Effects::ONE_SHOT)
    };
    let open = Observed { in_transaction: true, ..ok() };
    let nowhere = Intent { target: Target::Any, ..intent(Kind::Read) };
    check(&[
        (one_shot(), ok(), &["one-shot"]),
        (set(vec![variable("time_zone", "'+01:00'")]), ok(), &["one-shot"]),
        (nowhere, ok(), &["one-shot"]),
        (intent(Kind::Begin), open, &["transaction", "one-shot"]),
        (intent(Kind::Read), open, &["transaction", "one-shot"]),
        (intent(Kind::Commit), ok(), &[]),
        (one_shot(), ok(), &["one-shot"]),
        (intent(Kind::Read), ok(), &[]),
    ]);
    // SET insert_id and its like: nothing tells when they are used.
    let insert_id = with(Kind::Set, Effects::ONE_SHOT);
    check(&[(insert_id, ok(), &["one-shot"]), (intent(Kind::Write), ok(), &["one-shot"])]);
}

#[test]
fn trackers_tell_what_expressions_set() {
    let tracked = told(&[("sql_mode", "ANSI_QUOTES,STRICT_ALL_TABLES"), ("time_zone", "+02:00")]);
    let answer = Observed { variables: &tracked, ansi_quotes: true, ..ok() };
    let both = || set(vec![expression("SQL_MODE"), expression("time_zone")]);
    let session = check(&[(both(), answer, &[])]);
    assert!(session.mode().ansi_quotes && session.mode().sql_mode_known);

    let one = Observed { variables: &tracked[1..], ..ok() };
    let session = check(&[(both(), one, &["untracked-set"])]);
    assert!(!session.mode().sql_mode_known);

    check(&[(set(vec![expression("autocommit")]), Observed { autocommit: false, ..ok() }, &[])]);
    // What a procedure set.
    let called = Intent { effects: Effects::UNKNOWN_STATE, ..intent(Kind::Call) };
    let session = check(&[(called, answer, &["unknown-state"])]);
    assert!(session.mode().ansi_quotes);
    // A value that cannot be written down.
    let strange = told(&[("time_zone", "it's")]);
    check(&[(intent(Kind::Call), Observed { variables: &strange, ..ok() }, &["untracked-set"])]);
    // Our own trackers are not for clients to set.
    check(&[(set(vec![variable("session_track_gtids", "OFF")]), ok(), &["untracked-set"])]);
}

#[test]
fn what_triggers_and_functions_set_pins() {
    let changed = Observed { state_changed: true, ..ok() };
    check(&[(intent(Kind::Write), changed, &["user-variable"])]);
    check(&[(intent(Kind::Read), changed, &["user-variable"])]);
    check(&[
        (set(vec![user_variable("a", "1")]), changed, &[]),
        (intent(Kind::Use), changed, &[]),
        (with(Kind::TemporaryTable, Effects::TEMPORARY_TABLE), changed, &["temporary-table"]),
    ]);
}

#[test]
fn assignments_of_single_flags_do_not_add_up_elsewhere() {
    let flag = |value: &str| set(vec![variable("optimizer_switch", value)]);
    check(&[
        (flag("'index_merge=off'"), ok(), &[]),
        (flag("'index_merge=off'"), ok(), &[]),
        (flag("DEFAULT"), ok(), &[]),
        (flag("'mrr=on'"), ok(), &[]),
        (flag("'index_merge=off'"), ok(), &["untracked-set"]),
    ]);
}

#[test]
fn the_mode_follows_settings() {
    let check = |flavour, action: Action, answer: Observed<'_>, expected: fn(&mut Mode)| {
        let mut session = session(flavour);
        let mut mode = session.mode();
        expected(&mut mode);
        session.observe(&set(vec![action]), &answer, NOW);
        assert_eq!(session.mode(), mode);
    };
    use Flavour::{Mariadb, Mysql};
    check(Mysql, variable("sql_mode", "'ANSI'"), ok(), |m| {
        (m.ansi_quotes, m.ignore_space) = (true, true);
    });
    check(Mysql, variable("sql_mode", "\"strict_all_tables, Ansi_Quotes\""), ok(), |m| m.ansi_quotes = true);
    check(
        Mysql,
        variable("sql_mode", "'NO_BACKSLASH_ESCAPES'"),
        Observed { no_backslash_escapes: true, ..ok() },
        |m| m.no_backslash_escapes = true,
    );
    check(Mysql, variable("sql_mode", "'IGNORE_SPACE'"), ok(), |m| m.ignore_space = true);
    check(Mysql, variable("sql_mode", "ORACLE"), ok(), |_| {});
    check(Mysql, variable("sql_mode", "4"), ok(), |m| m.sql_mode_known = false);
    check(Mysql, variable("sql_mode", "DEFAULT"), ok(), |m| m.sql_mode_known = false);
    check(Mariadb, variable("sql_mode", "'ORACLE'"), Observed { ansi_quotes: true, ..ok() }, |m| {
        (m.ansi_quotes, m.ignore_space, m.oracle) = (true, true, true);
    });
    // The flag is right where text and trackers are silent.
    check(Mariadb, variable("sql_mode", "4"), Observed { ansi_quotes: true, ..ok() }, |m| {
        (m.ansi_quotes, m.sql_mode_known) = (true, false);
    });
    check(Mysql, names("SET NAMES GBK", "gbk"), ok(), |m| m.unsafe_charset = true);
    check(Mysql, variable("character_set_client", "'sjis'"), ok(), |m| m.unsafe_charset = true);
    check(Mysql, Action::Use(b"Information_Schema".as_slice().into()), ok(), |m| m.system_schema = true);
    check(Mysql, Action::Use(b"app2".as_slice().into()), ok(), |_| {});

    let fresh =
        Fresh { sql_mode: "ANSI_QUOTES".into(), collation: 28, multi_statements: true, ..Fresh::default() };
    let mode = SessionState::new(fresh).mode();
    assert!(mode.ansi_quotes && mode.unsafe_charset && mode.multi_statements && mode.sql_mode_known);
}

#[test]
fn the_schema_is_what_the_tracker_says() {
    let mut session = session(Flavour::Mysql);
    session.observe(&intent(Kind::Ddl), &Observed { schema: Some(b""), ..ok() }, NOW);
    assert_eq!(session.schema(), None);
    let used =
        Intent { actions: Some(Arc::new([Action::Use(b"wrong".as_slice().into())])), ..intent(Kind::Use) };
    session.observe(&used, &Observed { schema: Some(b"right"), ..ok() }, NOW);
    assert_eq!(session.schema(), Some(b"right".as_slice()));
    session.observe(&used, &failed(1049), NOW);
    assert_eq!(session.schema(), Some(b"right".as_slice()));
    session.schema_is_gone();
    assert_eq!(session.schema(), None);
}

#[test]
fn characteristics_of_transactions_are_known() {
    let check = |flavour, action: Action, serializable: bool, read_only: bool| {
        let mut session = session(flavour);
        session.observe(&set(vec![action]), &ok(), NOW);
        assert_eq!((session.is_serializable(), session.begins_read_only()), (serializable, read_only));
        assert_eq!(pin_names(&session), [""; 0]);
    };
    let transaction = |sql: &str| Action::SetTransaction { session: true, sql: sql.into() };
    for flavour in [Flavour::Mariadb, Flavour::Mysql] {
        check(flavour, transaction("SET SESSION TRANSACTION ISOLATION LEVEL SERIALIZABLE"), true, false);
        check(flavour, transaction("set session transaction read  only"), false, true);
        check(
            flavour,
            transaction("SET SESSION TRANSACTION READ ONLY, ISOLATION LEVEL SERIALIZABLE"),
            true,
            true,
        );
        check(flavour, transaction("SET SESSION TRANSACTION READ WRITE"), false, false);
        check(flavour, transaction("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED"), false, false);
        check(flavour, variable("tx_isolation", "'SERIALIZABLE'"), true, false);
        check(flavour, variable("transaction_isolation", "\"serializable\""), true, false);
        check(flavour, variable("transaction_read_only", "ON"), false, true);
        check(flavour, variable("tx_read_only", "'1'"), false, true);
        check(
            flavour,
            Action::SetTransaction { session: false, sql: "SET TRANSACTION READ ONLY".into() },
            false,
            false,
        );
    }
}

#[test]
fn what_is_remembered_is_bounded() {
    let mut session = session(Flavour::Mysql);
    for at in 0..100 {
        session.observe(&set(vec![variable(&format!("variable_{at}"), "1")]), &ok(), NOW);
    }
    assert_eq!(pin_names(&session), ["untracked-set"]);
    let mut session = super::session(Flavour::Mysql);
    for at in 0..100 {
        let value = format!("'{}'", "x".repeat(1000));
        session.observe(&set(vec![user_variable(&format!("v{at}"), &value)]), &ok(), NOW);
    }
    assert_eq!(pin_names(&session), ["user-variable"]);
    // The same again and again needs no more room.
    let mut session = super::session(Flavour::Mysql);
    for at in 0..10_000 {
        session.observe(
            &set(vec![user_variable("v", &at.to_string()), names("SET NAMES utf8", "utf8")]),
            &ok(),
            NOW,
        );
    }
    assert_eq!(pin_names(&session), [""; 0]);
}

#[test]
fn text_in_user_variables_pins_when_it_would_be_read_differently() {
    let start = || (set(vec![user_variable("a", "'x'"), user_variable("n", "5")]), ok(), [""; 0]);
    let (intent, observed, _) = start();
    check(&[
        (intent.clone(), observed, &[]),
        (set(vec![names("SET NAMES latin1", "latin1")]), ok(), &["user-variable"]),
    ]);
    check(&[
        (intent, observed, &[]),
        (
            set(vec![variable("sql_mode", "'ANSI'")]),
            Observed { ansi_quotes: true, ..ok() },
            &["user-variable"],
        ),
    ]);
    check(&[
        (set(vec![user_variable("n", "-5")]), ok(), &[]),
        (set(vec![names("SET NAMES latin1", "latin1")]), ok(), &[]),
    ]);
}

#[test]
fn a_reset_forgets_all_but_schema_role_and_what_was_seen() {
    let mut session = session(Flavour::Mariadb);
    let fresh = session.fingerprint();
    session.observe(
        &set(vec![variable("time_zone", "'+01:00'"), user_variable("a", "1"), names("SET NAMES gbk", "gbk")]),
        &Observed { autocommit: false, in_transaction: true, ..ok() },
        NOW,
    );
    session.observe(&with(Kind::Call, Effects::UNKNOWN_STATE), &ok(), NOW);
    session.set_consistency(Some(Consistency::Eventual));
    session.set_multi_statements(true, NOW);
    session.raise_floor(&GtidSet::parse(Flavour::Mariadb, "0-1-5").unwrap());
    assert_ne!(session.fingerprint(), fresh);
    session.reset();
    assert_eq!(session.fingerprint(), fresh);
    assert_eq!(session.pins(), Pins::empty());
    assert_eq!(session.consistency(), None);
    assert_eq!(session.mode(), super::session(Flavour::Mariadb).mode());
    assert_eq!(session.floor().to_string(), "0-1-5");
    assert_eq!(session.schema(), Some(b"app".as_slice()));
}

#[test]
fn a_reset_leaves_the_global_character_set_on_mysql() {
    let after = |names: &str| {
        let fresh = Fresh { collation: 45, names_after_reset: names.into(), ..Fresh::default() };
        let mut session = SessionState::new(fresh);
        session.reset();
        let SyncPlan::Apply(steps) = ConnectionState::fresh(None).plan(&session) else { panic!("no steps") };
        (steps, session.mode().unsafe_charset)
    };
    let set = |sql: &str| vec![Step::Query(sql.as_bytes().to_vec())];
    let utf8 = "NAMES 'utf8mb4' COLLATE 'utf8mb4_0900_ai_ci'";
    assert_eq!(after(utf8), (set(&format!("SET {utf8}")), false));
    let gbk = "NAMES 'gbk' COLLATE 'gbk_bin'";
    assert_eq!(after(gbk), (set(&format!("SET {gbk}")), true));
}

#[test]
fn the_option_of_multi_statements_pins_while_it_differs() {
    let mut session = session(Flavour::Mysql);
    session.set_multi_statements(true, NOW);
    assert!(session.mode().multi_statements);
    assert_eq!(pin_names(&session), ["multi-statements-option"]);
    session.set_multi_statements(false, NOW);
    assert_eq!(pin_names(&session), [""; 0]);
}

#[test]
fn every_pin_has_a_name() {
    for pin in Pins::all().iter() {
        assert!(!pin.name().is_empty(), "{pin:?}");
    }
    assert_eq!(Pins::all().names().count(), Pins::all().iter().count());
}

#[test]
fn a_savepoint_before_the_transaction_keeps_the_connection() {
    let mut session = session(Flavour::Mariadb);
    let off = Observed { autocommit: false, ..ok() };
    session.observe(&with(Kind::Set, Effects::empty()), &off, NOW);
    assert_eq!(pin_names(&session), [""; 0]);
    session.observe(&with(Kind::Savepoint, Effects::empty()), &off, NOW);
    session.observe(&with(Kind::Set, Effects::empty()), &off, NOW);
    assert_eq!(pin_names(&session), ["transaction"]);
    session.observe(&with(Kind::Rollback, Effects::empty()), &off, NOW);
    assert_eq!(pin_names(&session), [""; 0]);
    // With autocommit on it is gone at once.
    session.observe(&with(Kind::Savepoint, Effects::empty()), &ok(), NOW);
    assert_eq!(pin_names(&session), [""; 0]);
}
