//! What is sent to a connection before another session's statement.

use super::*;

/// Plans from a connection that `left` used to `wanted`, as one line.
fn plan(flavour: Flavour, left: Vec<Action>, wanted: Vec<Action>) -> String {
    plan_on(ConnectionState::fresh(Some(b"app")).with_login_charset("login_charset=1"), flavour, left, wanted)
}

fn plan_on(
    mut connection: ConnectionState,
    flavour: Flavour,
    left: Vec<Action>,
    wanted: Vec<Action>,
) -> String {
    let mut other = session(flavour);
    other.observe(&set(left), &ok(), NOW);
    connection.adopt(&other);
    let mut session = session(flavour);
    session.observe(&set(wanted), &ok(), NOW);
    shown(&connection.plan(&session))
}

fn shown(plan: &SyncPlan) -> String {
    let steps = |steps: &[Step]| {
        let shown = |step: &Step| match step {
            Step::InitDb(schema) => format!("use {}", String::from_utf8_lossy(schema)),
            Step::Query(sql) => String::from_utf8_lossy(sql).into_owned(),
        };
        steps.iter().map(shown).collect::<Vec<_>>().join("; ")
    };
    match plan {
        SyncPlan::Nothing => "nothing".into(),
        SyncPlan::Apply(list) => steps(list),
        SyncPlan::ResetThenApply(list) => format!("reset; {}", steps(list)).trim_end_matches("; ").to_owned(),
        SyncPlan::Unusable => "unusable".into(),
    }
}

#[test]
fn only_what_differs_is_set() {
    let check = |left: Vec<Action>, wanted: Vec<Action>, expected: &str| {
        for flavour in [Flavour::Mariadb, Flavour::Mysql] {
            assert_eq!(plan(flavour, left.clone(), wanted.clone()), expected, "{left:?} {wanted:?}");
        }
    };
    let zone = |value: &str| variable("Time_Zone", value);
    let utf8 = || names("SET NAMES utf8mb4", "utf8mb4");
    check(vec![], vec![], "nothing");
    check(vec![zone("'+01:00'")], vec![zone("'+01:00'")], "nothing");
    check(vec![zone("'+01:00'")], vec![zone("\"+01:00\"")], "nothing");
    check(vec![], vec![zone("'+01:00'")], "SET @@SESSION.time_zone='+01:00'");
    check(vec![zone("'+01:00'")], vec![zone("'+02:00'")], "SET @@SESSION.time_zone='+02:00'");
    check(vec![zone("'+01:00'")], vec![], "SET @@SESSION.time_zone=DEFAULT");
    check(
        vec![variable("foreign_key_checks", "0")],
        vec![],
        "SET @@SESSION.foreign_key_checks=@@GLOBAL.foreign_key_checks",
    );
    check(
        vec![variable("a", "1"), variable("b", "ON")],
        vec![variable("b", "ON"), variable("c", "-1.5e3")],
        "SET @@SESSION.a=DEFAULT,@@SESSION.c=-1.5e3",
    );
    check(vec![], vec![utf8(), variable("a", "1")], "SET NAMES utf8mb4,@@SESSION.a=1");
    check(vec![utf8()], vec![utf8()], "nothing");
    check(
        vec![utf8()],
        vec![names("NAMES utf8mb4 COLLATE utf8mb4_bin", "utf8mb4")],
        "SET NAMES utf8mb4 COLLATE utf8mb4_bin",
    );
    check(vec![utf8()], vec![], "SET login_charset=1");
    // What comes after SET NAMES is set after it again.
    let after = || vec![utf8(), variable("character_set_results", "NULL")];
    check(vec![], after(), "SET NAMES utf8mb4,@@SESSION.character_set_results=NULL");
    check(vec![utf8()], after(), "SET NAMES utf8mb4,@@SESSION.character_set_results=NULL");
    check(after(), vec![utf8()], "SET NAMES utf8mb4");
    check(vec![], vec![variable("character_set_results", "NULL"), utf8()], "SET NAMES utf8mb4");
    check(
        vec![variable("character_set_results", "NULL")],
        vec![variable("collation_connection", "utf8mb4_bin")],
        "SET login_charset=1,@@SESSION.collation_connection=utf8mb4_bin",
    );
}

#[test]
fn a_login_charset_that_is_not_known_needs_a_reset() {
    let check = |wanted: Vec<Action>, expected: &str| {
        let left = vec![names("SET NAMES utf8mb4", "utf8mb4")];
        let connection = ConnectionState::fresh(Some(b"app"));
        assert_eq!(plan_on(connection, Flavour::Mysql, left, wanted), expected);
    };
    check(vec![], "reset");
    check(vec![names("SET NAMES gbk", "gbk")], "SET NAMES gbk");
    check(vec![variable("character_set_results", "NULL")], "reset; SET @@SESSION.character_set_results=NULL");
}

#[test]
fn single_flags_start_from_the_default() {
    let check = |left: &str, wanted: Option<&str>, expected: &str| {
        let flag = |value: &str| variable("optimizer_switch", value);
        let wanted = wanted.map(flag).into_iter().collect();
        assert_eq!(plan(Flavour::Mariadb, vec![flag(left)], wanted), expected);
    };
    check("'a=on'", Some("'a=on'"), "nothing");
    check("'a=on'", None, "SET @@SESSION.optimizer_switch=DEFAULT");
    check("'a=on'", Some("'b=on'"), "reset; SET @@SESSION.optimizer_switch='b=on'");
    check("DEFAULT", Some("'b=on'"), "SET @@SESSION.optimizer_switch='b=on'");
}

#[test]
fn user_variables_follow_in_their_own_statement() {
    let check = |left: Vec<Action>, wanted: Vec<Action>, expected: &str| {
        assert_eq!(plan(Flavour::Mariadb, left, wanted), expected);
    };
    let a = |value: &str| user_variable("a", value);
    check(vec![], vec![a("1")], "SET @`a`=1");
    check(vec![a("1")], vec![a("1")], "nothing");
    check(vec![a("1")], vec![a("2")], "SET @`a`=2");
    check(vec![a("1")], vec![a("1"), user_variable("b`c", "'x'")], "SET @`b``c`='x'");
    check(vec![a("1")], vec![], "reset");
    check(vec![a("1")], vec![user_variable("b", "1")], "reset; SET @`b`=1");
    check(vec![], vec![a("'\u{e9}'"), variable("x", "1")], "SET @@SESSION.x=1; SET @`a`='\u{e9}'");
}

#[test]
fn autocommit_schema_and_role_are_set() {
    let mut connection = ConnectionState::fresh(Some(b"app"));
    let mut session = session(Flavour::Mysql);
    let off = Observed { autocommit: false, ..ok() };
    session.observe(&set(vec![Action::SetAutocommit(false)]), &off, NOW);
    assert_eq!(shown(&connection.plan(&session)), "SET @@SESSION.autocommit=0");
    let role = Action::SetRole { sql: "SET ROLE reader".into() };
    session.observe(&set(vec![Action::Use(b"other".as_slice().into()), role]), &off, NOW);
    let steps = "SET ROLE reader; use other; SET @@SESSION.autocommit=0";
    assert_eq!(shown(&connection.plan(&session)), steps);
    connection.adopt(&session);
    assert_eq!(shown(&connection.plan(&session)), "nothing");
    assert_eq!(connection.fingerprint(), session.fingerprint());
    assert_eq!(
        shown(&connection.plan(&super::session(Flavour::Mysql))),
        "SET ROLE DEFAULT; use app; SET @@SESSION.autocommit=1"
    );
    // MariaDB has no statement for the role of the login.
    assert_eq!(shown(&connection.plan(&super::session(Flavour::Mariadb))), "unusable");
    // A reset keeps schema and role.
    connection.after_reset();
    assert_eq!(shown(&connection.plan(&session)), "SET @@SESSION.autocommit=0");
}

#[test]
fn a_schema_cannot_be_unset() {
    let none = SessionState::new(Fresh::default());
    let mut connection = ConnectionState::fresh(None);
    assert!(!connection.has_schema());
    assert_eq!(shown(&connection.plan(&none)), "nothing");
    assert_eq!(shown(&connection.plan(&session(Flavour::Mariadb))), "use app");
    connection.adopt(&session(Flavour::Mariadb));
    assert!(connection.has_schema());
    assert_eq!(shown(&connection.plan(&none)), "unusable");
}

#[test]
fn what_pinned_a_session_is_reset_for_the_next() {
    let check = |intent: Intent, expected: &str| {
        let mut left = session(Flavour::Mysql);
        left.observe(&intent, &ok(), NOW);
        let mut connection = ConnectionState::fresh(Some(b"app"));
        connection.adopt(&left);
        assert_eq!(shown(&connection.plan(&session(Flavour::Mysql))), expected, "{intent:?}");
        assert_eq!(connection.is_dirty(), expected != "nothing");
        assert_eq!(connection.fingerprint() == session(Flavour::Mysql).fingerprint(), expected == "nothing");
        connection.after_reset();
        assert_eq!(shown(&connection.plan(&session(Flavour::Mysql))), "nothing", "{intent:?}");
    };
    check(intent(Kind::Write), "nothing");
    check(with(Kind::Read, Effects::CALC_FOUND_ROWS), "nothing");
    for effect in [
        Effects::TEMPORARY_TABLE,
        Effects::LOCK_TABLES,
        Effects::GLOBAL_READ_LOCK,
        Effects::USER_LOCK,
        Effects::HANDLER_OPEN,
        Effects::TEXT_PREPARE,
        Effects::UNTRACKED_SET,
        Effects::UNTRACKED_USER_VARIABLE,
        Effects::UNKNOWN_STATE,
        Effects::ONE_SHOT,
    ] {
        check(with(Kind::Unknown, effect), "reset");
    }
}

#[test]
fn defaults_of_the_primary_come_first() {
    let variables =
        vec![("sql_mode".to_owned(), "'ANSI'".to_owned()), ("Time_Zone".to_owned(), "'SYSTEM'".to_owned())];
    let fresh = || SessionState::new(Fresh { variables: variables.clone(), ..Fresh::default() });
    let mut connection = ConnectionState::fresh(None);
    let base = "SET @@SESSION.sql_mode='ANSI',@@SESSION.time_zone='SYSTEM'";
    assert_eq!(shown(&connection.plan(&fresh())), base);
    let mut session = fresh();
    session.observe(&set(vec![variable("sql_mode", "''")]), &ok(), NOW);
    connection.adopt(&session);
    assert_eq!(shown(&connection.plan(&fresh())), "SET @@SESSION.sql_mode='ANSI'");
}

#[test]
fn a_statement_is_prepared_again_as_its_text_was_read_then() {
    let check = |then: Vec<Action>, now: Vec<Action>, expected: Option<(&str, &str)>| {
        let mut session = session(Flavour::Mysql);
        session.observe(&set(then.clone()), &ok(), NOW);
        let reading = session.reading();
        session.observe(&set(now.clone()), &ok(), NOW);
        let mut connection = ConnectionState::fresh(Some(b"app")).with_login_charset("login_charset=1");
        connection.adopt(&session);
        let detour = connection.detour(&session, &reading);
        let shown = detour.map(|(there, back)| (SyncPlan::Apply(there), SyncPlan::Apply(back)));
        let shown = shown.map(|(there, back)| (self::shown(&there), self::shown(&back)));
        let expected = expected.map(|(there, back)| (there.to_owned(), back.to_owned()));
        assert_eq!(shown, expected, "{then:?} {now:?}");
    };
    let schema = |name: &str| Action::Use(name.as_bytes().into());
    check(vec![], vec![], None);
    check(vec![], vec![variable("time_zone", "'+01:00'"), user_variable("a", "1")], None);
    check(vec![], vec![schema("test")], Some(("use app", "use test")));
    check(
        vec![variable("sql_mode", "'ANSI_QUOTES'")],
        vec![schema("test"), variable("sql_mode", "''")],
        Some(("use app; SET @@SESSION.sql_mode='ANSI_QUOTES'", "use test; SET @@SESSION.sql_mode=''")),
    );
    check(
        vec![],
        vec![names("SET NAMES latin1", "latin1")],
        Some(("SET login_charset=1", "SET NAMES latin1")),
    );
}
