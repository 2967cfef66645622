//! What statements leave behind, need and record: kinds, effects, needs and actions.

use pointsman_router::classify::{Catalogue, Classifier, Mode};
use pointsman_router::intent::{Action, Consistency, Flavour, Hint, Intent, Kind, Needs, Target};

fn classify(sql: &str, mode: &Mode, catalogue: &Catalogue) -> Intent {
    let mut classifier = Classifier::new([7; 32], 64);
    let first = classifier.classify(sql.as_bytes(), mode, catalogue);
    let again = classifier.classify(sql.as_bytes(), mode, catalogue);
    assert_eq!(first.intent, again.intent, "the cache changes the answer: {sql}");
    assert_eq!(first.digest, again.digest, "{sql}");
    Intent::clone(&first.intent)
}

fn plain(sql: &str, flavour: Flavour) -> Intent {
    let mode = Mode { flavour, multi_statements: true, ..Mode::default() };
    classify(sql, &mode, &Catalogue::default())
}

/// Kind, effects and needs as words.
fn words(intent: &Intent) -> String {
    let names = std::iter::once(intent.kind.name())
        .chain(intent.effects.iter_names().map(|(name, _)| name))
        .chain(intent.needs.iter_names().map(|(name, _)| name));
    names.collect::<Vec<_>>().join(" ")
}

#[track_caller]
fn check(sql: &str, expected: &str) {
    assert_eq!(words(&plain(sql, Flavour::Mariadb)), expected, "{sql}");
}

#[track_caller]
fn check_mysql(sql: &str, expected: &str) {
    assert_eq!(words(&plain(sql, Flavour::Mysql)), expected, "{sql}");
}

#[track_caller]
fn check_actions(sql: &str, expected: &[Action]) {
    let intent = plain(sql, Flavour::Mariadb);
    assert_eq!(intent.actions.as_deref().unwrap_or_default(), expected, "{sql}");
}

#[test]
fn reads() {
    check("SELECT * FROM t", "read");
    check("SELECT SQL_CALC_FOUND_ROWS a FROM t", "read CALC_FOUND_ROWS");
    check("SELECT FOUND_ROWS()", "diagnostics DIAGNOSTICS");
    check("SELECT ROW_COUNT(), LAST_INSERT_ID()", "diagnostics DIAGNOSTICS INSERT_ID");
    check("SELECT @@identity", "diagnostics INSERT_ID");
    check("SELECT LAST_INSERT_ID(5)", "unproven-read SETS_INSERT_ID MAY_KEEP_INSERT_ID");
    check("SELECT CONNECTION_ID()", "server-question CONNECTION_ID");
    check("SELECT @@pseudo_thread_id", "server-question CONNECTION_ID");
    check("SELECT @@socket, @@port", "server-question SOCKET");
    check("SELECT IS_USED_LOCK('a')", "server-question PROCESS_IDS");
    check("SELECT @a", "unproven-read USER_VARIABLES");
    check("SELECT @a := 5", "unproven-read UNTRACKED_USER_VARIABLE");
    check("SELECT a INTO @a FROM t", "unproven-read UNTRACKED_USER_VARIABLE USER_VARIABLES");
    check("SELECT a INTO OUTFILE '/tmp/x' FROM t", "unproven-read");
    check("SELECT a FROM t FOR UPDATE", "unproven-read");
    check("SELECT f(a) FROM t", "unproven-read UNKNOWN_STATE MAY_KEEP_INSERT_ID");
    check("SELECT GET_LOCK('a', 1)", "lock USER_LOCK");
    check("SELECT RELEASE_LOCK('a')", "lock");
    check("SELECT RELEASE_ALL_LOCKS()", "lock USER_LOCKS_RELEASED");
    check("DO GET_LOCK('a', 1), RELEASE_ALL_LOCKS()", "lock USER_LOCK USER_LOCKS_RELEASED");
    check("DO 1", "read");
    check("SHOW TABLES", "read");
    check("SHOW WARNINGS", "diagnostics DIAGNOSTICS");
    check("SHOW COUNT(*) ERRORS", "diagnostics DIAGNOSTICS");
    check("SHOW PROCESSLIST", "server-question PROCESS_IDS");
    check("SHOW FULL PROCESSLIST", "server-question PROCESS_IDS");
    check("SHOW ENGINE INNODB STATUS", "server-question PROCESS_IDS");
    check("SHOW STATUS", "server-question");
    check("SHOW VARIABLES LIKE 'a'", "server-question");
    check("SELECT @@max_allowed_packet", "server-question");
    check("SHOW MASTER STATUS", "server-question PRIMARY_ITSELF");
    check("SHOW BINARY LOG STATUS", "server-question PRIMARY_ITSELF");
    check("SHOW ALL SLAVES STATUS", "server-question PRIMARY_ITSELF");
    check("SELECT @@global.gtid_executed, @@port", "server-question PRIMARY_ITSELF");
    check("SELECT MASTER_GTID_WAIT('0-1-1', 5)", "server-question PRIMARY_ITSELF");
    check("SHOW EXPLAIN FOR 5", "server-question PROCESS_IDS");
    check_mysql("EXPLAIN FOR CONNECTION 5", "server-question PROCESS_IDS");
    check("SELECT * FROM information_schema.processlist", "server-question PROCESS_IDS");
    check("SELECT * FROM performance_schema.threads", "server-question PROCESS_IDS");
    check("GET DIAGNOSTICS @a = NUMBER", "diagnostics UNTRACKED_USER_VARIABLE DIAGNOSTICS");
    check("", "empty");
    check(" ; ;", "empty");
    check("-- nothing", "empty");
}

#[test]
fn writes_and_definitions() {
    check("INSERT INTO t VALUES (1)", "write MAY_KEEP_INSERT_ID");
    check("INSERT INTO t VALUES (LAST_INSERT_ID())", "write INSERT_ID MAY_KEEP_INSERT_ID");
    check("INSERT INTO t VALUES (LAST_INSERT_ID(5))", "write SETS_INSERT_ID MAY_KEEP_INSERT_ID");
    check("UPDATE t SET a = LAST_INSERT_ID(a + 1)", "write SETS_INSERT_ID MAY_KEEP_INSERT_ID");
    check("UPDATE t SET a = @a := a + 1", "write UNTRACKED_USER_VARIABLE");
    check("UPDATE t SET a = @a", "write USER_VARIABLES");
    check("INSERT INTO t (a) SELECT GET_LOCK('x', 1)", "write USER_LOCK MAY_KEEP_INSERT_ID");
    check("INSERT INTO t VALUES (CONNECTION_ID())", "write CONNECTION_ID MAY_KEEP_INSERT_ID");
    check("INSERT INTO mysql.user VALUES (1)", "write ACCOUNTS_CHANGED PROCESS_IDS MAY_KEEP_INSERT_ID");
    check("LOAD DATA INFILE 'x' INTO TABLE t", "write MAY_KEEP_INSERT_ID");
    check("LOAD DATA LOCAL INFILE 'x' INTO TABLE t", "load-local MAY_KEEP_INSERT_ID");
    check(
        "LOAD DATA CONCURRENT LOCAL INFILE 'x' INTO TABLE t (a, @b)",
        "load-local UNTRACKED_USER_VARIABLE USER_VARIABLES MAY_KEEP_INSERT_ID",
    );
    check("CREATE TABLE t (a INT)", "ddl IMPLICIT_COMMIT MAY_COMMIT");
    check("CREATE TABLE t (a INT DEFAULT (connection_id()))", "ddl IMPLICIT_COMMIT MAY_COMMIT");
    check("CREATE TABLE t SELECT GET_LOCK('a', 1)", "ddl USER_LOCK IMPLICIT_COMMIT MAY_COMMIT");
    check("CREATE TEMPORARY TABLE t (a INT)", "temporary-table TEMPORARY_TABLE MAY_COMMIT");
    check("CREATE OR REPLACE TEMPORARY TABLE t (a INT)", "temporary-table TEMPORARY_TABLE MAY_COMMIT");
    check("DROP TEMPORARY TABLE t", "temporary-table MAY_COMMIT");
    let program = "ddl IMPLICIT_COMMIT CATALOGUE_CHANGED MAY_COMMIT";
    check("CREATE VIEW v AS SELECT 1", program);
    check("CREATE FUNCTION f() RETURNS INT RETURN 1", program);
    check("DROP FUNCTION f", program);
    check("DROP DATABASE d", program);
    let body = "ddl UNKNOWN_STATE IMPLICIT_COMMIT CATALOGUE_CHANGED MAY_COMMIT MAY_KEEP_INSERT_ID";
    check("CREATE PROCEDURE p() BEGIN SET @a = 1; CREATE TEMPORARY TABLE t (a INT); END", body);
    check("CREATE DEFINER = user@host PROCEDURE p() BEGIN SET @a = 1; END", body);
    let accounts = "ddl IMPLICIT_COMMIT ACCOUNTS_CHANGED MAY_COMMIT";
    check("CREATE USER u", accounts);
    check("GRANT SELECT ON *.* TO u", accounts);
    check("SET PASSWORD = 'x'", accounts);
    check("SET DEFAULT ROLE r", accounts);
    check("FLUSH PRIVILEGES", "administration IMPLICIT_COMMIT ACCOUNTS_CHANGED MAY_COMMIT");
    check("CALL p()", "call UNKNOWN_STATE MAY_COMMIT MAY_KEEP_INSERT_ID");
    check("BEGIN NOT ATOMIC SELECT 1; END", "call UNKNOWN_STATE MAY_COMMIT MAY_KEEP_INSERT_ID");
}

#[test]
fn transactions_and_locks() {
    check("BEGIN", "begin IMPLICIT_COMMIT MAY_COMMIT");
    check("START TRANSACTION", "begin IMPLICIT_COMMIT MAY_COMMIT");
    check("START TRANSACTION READ ONLY", "begin-read-only IMPLICIT_COMMIT MAY_COMMIT");
    check(
        "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY",
        "begin-read-only IMPLICIT_COMMIT CONSISTENT_SNAPSHOT MAY_COMMIT",
    );
    check("COMMIT", "commit");
    check("COMMIT AND CHAIN", "commit");
    check("COMMIT AND NO CHAIN RELEASE", "commit CLOSES_CONNECTION");
    check("ROLLBACK NO RELEASE", "rollback");
    check("ROLLBACK TO a", "savepoint");
    check("SAVEPOINT a", "savepoint");
    check("XA START 'x'", "xa UNKNOWN_STATE MAY_COMMIT MAY_KEEP_INSERT_ID");
    check("XA COMMIT 'x'", "xa MAY_COMMIT");
    check("LOCK TABLES t READ", "lock LOCK_TABLES IMPLICIT_COMMIT MAY_COMMIT");
    check("UNLOCK TABLES", "lock UNLOCK_TABLES GLOBAL_READ_UNLOCK IMPLICIT_COMMIT MAY_COMMIT");
    check("FLUSH TABLES WITH READ LOCK", "lock GLOBAL_READ_LOCK IMPLICIT_COMMIT MAY_COMMIT");
    check("FLUSH TABLES t WITH READ LOCK", "lock LOCK_TABLES IMPLICIT_COMMIT MAY_COMMIT");
    check("FLUSH LOCAL TABLES t FOR EXPORT", "lock LOCK_TABLES IMPLICIT_COMMIT MAY_COMMIT");
    check("FLUSH TABLES", "administration IMPLICIT_COMMIT MAY_COMMIT");
    check("BACKUP STAGE START", "lock GLOBAL_READ_LOCK IMPLICIT_COMMIT MAY_COMMIT");
    check("BACKUP STAGE END", "lock GLOBAL_READ_UNLOCK IMPLICIT_COMMIT MAY_COMMIT");
    check_mysql("LOCK INSTANCE FOR BACKUP", "lock GLOBAL_READ_LOCK IMPLICIT_COMMIT MAY_COMMIT");
    check("HANDLER t OPEN AS h", "handler HANDLER_OPEN");
    check("HANDLER h CLOSE", "handler HANDLER_CLOSE");
    check("HANDLER h READ FIRST", "handler");
    check("PREPARE s FROM 'SELECT 1'", "text-prepare TEXT_PREPARE");
    check("EXECUTE s USING @a", "text-prepare UNKNOWN_STATE MAY_COMMIT USER_VARIABLES MAY_KEEP_INSERT_ID");
    check("DEALLOCATE PREPARE s", "text-prepare TEXT_DEALLOCATE");
}

#[test]
fn several_statements() {
    check("SELECT 1; SELECT 2", "multi MAY_COMMIT MULTI_STATEMENTS");
    check("SELECT 1; SELECT a FROM t", "multi MAY_COMMIT MULTI_STATEMENTS");
    check(
        "SELECT 1; CREATE TEMPORARY TABLE t (a INT); SELECT @a := 1",
        "multi TEMPORARY_TABLE UNTRACKED_USER_VARIABLE MAY_COMMIT MULTI_STATEMENTS",
    );
    assert_eq!(plain("SELECT 1; SELECT a FROM t", Flavour::Mysql).target, Target::Replica);
    assert_eq!(plain("SELECT 1; SELECT 2", Flavour::Mysql).target, Target::Any);
    check_actions(
        "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED; START TRANSACTION",
        &[Action::SetTransaction {
            session: true,
            sql: "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED".into(),
        }],
    );
    check_actions("SELECT 1; KILL 5", &[]);
}

#[test]
fn settings_that_are_tracked() {
    let set = |name: &str, value: &str| Action::SetVariable { name: name.into(), value: value.into() };
    check_actions("SET sql_mode = 'ANSI'", &[set("sql_mode", "'ANSI'")]);
    check_actions("SET SQL_Mode := ''", &[set("sql_mode", "''")]);
    check_actions("SET SESSION wait_timeout = 5", &[set("wait_timeout", "5")]);
    check_actions("SET @@wait_timeout = 5", &[set("wait_timeout", "5")]);
    check_actions("SET @@session.wait_timeout = -5", &[set("wait_timeout", "-5")]);
    check_actions("SET @@session . wait_timeout = 5", &[set("wait_timeout", "5")]);
    check_actions("SET @@LOCAL.`wait_timeout`=DEFAULT", &[set("wait_timeout", "DEFAULT")]);
    check_actions("SET `wait_timeout` = 5", &[set("wait_timeout", "5")]);
    check_actions("SET character_set_results = NULL", &[set("character_set_results", "NULL")]);
    check_actions("SET time_zone = _utf8mb4'+01:00'", &[set("time_zone", "_utf8mb4'+01:00'")]);
    check_actions("SET audit.x = 5", &[set("audit.x", "5")]);
    check_actions(
        "SET timestamp = 1.5, unique_checks=OFF",
        &[set("timestamp", "1.5"), set("unique_checks", "OFF")],
    );
    check_actions("SET tx_isolation = 'READ-COMMITTED'", &[set("tx_isolation", "'READ-COMMITTED'")]);
    check_actions("SET autocommit = 0", &[Action::SetAutocommit(false)]);
    check_actions("SET @@autocommit = ON", &[Action::SetAutocommit(true)]);
    check_actions("SET SESSION autocommit = 'off'", &[Action::SetAutocommit(false)]);
    check("SET autocommit = 0", "set AUTOCOMMIT_CHANGED MAY_COMMIT");
    check("SET autocommit = 1", "set IMPLICIT_COMMIT AUTOCOMMIT_CHANGED MAY_COMMIT");
    check_actions("SET @@GLOBAL.wait_timeout = 5", &[]);
    check_actions("SET PERSIST wait_timeout = 5", &[]);
}

#[test]
fn settings_of_other_kinds() {
    let names = |sql: &str, charset: &str| Action::SetNames { sql: sql.into(), charset: charset.into() };
    check_actions("SET NAMES utf8mb4", &[names("SET NAMES utf8mb4", "utf8mb4")]);
    check_actions("set names 'GBK'", &[names("SET names 'GBK'", "gbk")]);
    check_actions(
        "SET NAMES latin1 COLLATE latin1_bin",
        &[names("SET NAMES latin1 COLLATE latin1_bin", "latin1")],
    );
    check_actions("SET CHARACTER SET latin1", &[names("SET CHARACTER SET latin1", "latin1")]);
    check_actions("SET CHARSET DEFAULT", &[names("SET CHARSET DEFAULT", "default")]);
    check_actions(
        "SET NAMES utf8 COLLATE utf8_bin, @@SESSION.sql_mode = CONCAT(@@sql_mode, ',X'), @a = 5",
        &[
            names("SET NAMES utf8 COLLATE utf8_bin", "utf8"),
            Action::SetFromExpression { name: "sql_mode".into() },
            Action::SetUserVariable { name: "a".into(), value: b"5".as_slice().into() },
        ],
    );
    check("SET sql_mode = CONCAT(@@sql_mode, ',X')", "set UNTRACKED_SET");
    check("SET sql_mode = @old", "set UNTRACKED_SET USER_VARIABLES");
    let variable = |name: &str, value: &str| Action::SetUserVariable {
        name: name.into(),
        value: value.as_bytes().into(),
    };
    check_actions("SET @A = 'x;y', @`b c` := -1.5", &[variable("a", "'x;y'"), variable("b c", "-1.5")]);
    check_actions("SET @'d' = NULL", &[variable("d", "NULL")]);
    check_actions("SET @a = b", &[]);
    check("SET @a := 5", "set");
    check("SET @a = @b + 1", "set UNTRACKED_USER_VARIABLE USER_VARIABLES");
    check("SET @a = ?", "set UNTRACKED_USER_VARIABLE");
    check("SET @a = LAST_INSERT_ID()", "set UNTRACKED_USER_VARIABLE INSERT_ID");
    check("SET @a = f()", "set UNTRACKED_USER_VARIABLE UNKNOWN_STATE MAY_KEEP_INSERT_ID");
    check("SET insert_id = 5", "set ONE_SHOT");
    check("SET last_insert_id = 5", "set SETS_INSERT_ID MAY_KEEP_INSERT_ID");
    check("SET sql_log_bin = 0", "set UNTRACKED_SET");
    check("SET gibberish", "set UNTRACKED_SET UNKNOWN_STATE MAY_KEEP_INSERT_ID");
    check_actions("SET ROLE r", &[Action::SetRole { sql: "SET ROLE r".into() }]);
    check_actions(
        "SET TRANSACTION READ ONLY, ISOLATION LEVEL SERIALIZABLE",
        &[Action::SetTransaction {
            session: false,
            sql: "SET TRANSACTION READ ONLY, ISOLATION LEVEL SERIALIZABLE".into(),
        }],
    );
    check("SET TRANSACTION READ ONLY", "set-transaction ONE_SHOT");
    check("SET SESSION TRANSACTION READ ONLY", "set-transaction");
    check_actions(
        "SET @@transaction_isolation = 'SERIALIZABLE'",
        &[Action::SetTransaction {
            session: false,
            sql: "SET @@transaction_isolation = 'SERIALIZABLE'".into(),
        }],
    );
    let level = |level| [Action::SetConsistency(level)];
    let refused = |value: &str| [Action::RefuseConsistency(value.into())];
    check_actions("SET pointsman_consistency = 'eventual'", &level(Some(Consistency::Eventual)));
    check_actions("SET SESSION pointsman_consistency = Global", &level(Some(Consistency::Global)));
    check_actions("SET @@pointsman_consistency = DEFAULT", &level(None));
    check_actions("SET pointsman_consistency = 'sometimes'", &refused("sometimes"));
    check_actions("SET pointsman_consistency = @x", &refused("@x"));
    check_actions("SET pointsman_consistency = 'global', pointsman_consistency = 1", &refused("1"));
    let both = [Action::SetUserVariable { name: "a".into(), value: b"1".as_slice().into() }];
    check_actions("SET @a = 1, pointsman_consistency = 'global'", &both);
    check_actions("USE `a``b`", &[Action::Use(b"a`b".as_slice().into())]);
    check_actions("KILL 5", &[Action::Kill { query_only: false, id: 5 }]);
    check_actions("KILL SOFT QUERY 18446744073709551615", &[Action::Kill { query_only: true, id: u64::MAX }]);
    check_actions("KILL QUERY 0x5", &[]);
    check_actions("KILL QUERY ID 5", &[]);
}

#[test]
fn hints() {
    let hint = |sql: &str| plain(sql, Flavour::Mysql).hint;
    assert_eq!(hint("SELECT 1"), None);
    assert_eq!(hint("/* pointsman: primary */ SELECT 1"), Some(Hint::Primary));
    assert_eq!(hint("SELECT /*Pointsman:REPLICA*/ 1"), Some(Hint::Replica));
    assert_eq!(
        hint("SELECT 1 /* pointsman: consistency = global */"),
        Some(Hint::Consistency(Consistency::Global))
    );
    assert_eq!(hint("/* pointsman: replica, primary */ SELECT 1"), Some(Hint::Primary));
    assert_eq!(hint("/* pointsman: replica */ SELECT /* pointsman: primary */ 1"), Some(Hint::Primary));
    assert_eq!(hint("/* pointsman: whatever */ SELECT 1"), None);
    assert_eq!(hint("SELECT '/* pointsman: primary */'"), None);
    assert_eq!(hint("-- pointsman: primary\nSELECT 1"), None);
}

#[test]
fn query_attributes() {
    let mut classifier = Classifier::new([7; 32], 64);
    let mut read = |sql: &str, name: &str, value: &str| {
        let classified = classifier.classify(sql.as_bytes(), &Mode::default(), &Catalogue::default());
        let hinted = classified.clone().with_attribute(name.as_bytes(), value.as_bytes());
        assert_eq!(hinted.digest, classified.digest, "{sql}");
        (hinted.intent.hint, hinted.intent.target)
    };
    let table = "SELECT a FROM t";
    assert_eq!(read(table, "pointsman", "primary"), (Some(Hint::Primary), Target::Primary));
    assert_eq!(
        read(table, "traceparent", "primary"),
        (None, Target::Replica),
        "what one asked for stays its own"
    );
    assert_eq!(read(table, "POINTSMAN", "replica"), (Some(Hint::Replica), Target::Replica));
    let eventual = Some(Hint::Consistency(Consistency::Eventual));
    assert_eq!(read(table, "pointsman_consistency", "eventual"), (eventual, Target::Replica));
    let commented = "/* pointsman: primary */ SELECT a FROM t";
    assert_eq!(read(commented, "pointsman", "replica"), (Some(Hint::Primary), Target::Primary));
    assert_eq!(read("DELETE FROM t", "pointsman", "replica"), (Some(Hint::Replica), Target::Primary));
    assert_eq!(read("SET NAMES utf8", "pointsman", "primary"), (Some(Hint::Primary), Target::Session));
}

#[test]
fn modes() {
    let target = |sql: &str, mode: Mode| classify(sql, &mode, &Catalogue::default()).target;
    let mode = Mode::default();
    let escapes = Mode { no_backslash_escapes: true, ..mode };
    let sql = r"SELECT a,'\' FROM t FOR UPDATE -- '";
    assert_eq!(target(sql, escapes), Target::Primary);
    assert_eq!(target(r"SELECT a,'\' FROM t -- '", escapes), Target::Replica);
    assert_eq!(target(r"SELECT '\'; DELETE FROM t -- '", escapes), Target::Primary);
    let ansi = Mode { ansi_quotes: true, ..mode };
    assert_eq!(target(r#"SELECT "a" FROM "t""#, ansi), Target::Replica);
    assert_eq!(target(r#"SELECT "f"(1)"#, ansi), Target::Primary);
    assert_eq!(target(r#"SELECT "a\" FROM t FOR UPDATE -- ""#, ansi), Target::Primary);
    let unknown = Mode { sql_mode_known: false, ..mode };
    assert_eq!(target("SELECT a FROM t", unknown), Target::Primary);
    assert_eq!(target("SELECT a FROM t", Mode { temporary_tables: true, ..mode }), Target::Primary);
    assert_eq!(target("SELECT a FROM t", Mode { system_schema: true, ..mode }), Target::Primary);
    let oracle = Mode { oracle: true, ansi_quotes: true, ignore_space: true, ..mode };
    assert_eq!(target("SELECT a FROM t", oracle), Target::Replica);
    assert_eq!(target("SELECT s.nextval", oracle), Target::Primary);
    assert_eq!(target("BEGIN DELETE FROM t; END", oracle), Target::Primary);
    let spaces = Mode { ignore_space: true, ..mode };
    assert_eq!(target("SELECT count (a) FROM t", spaces), Target::Replica);
    let gbk = Mode { unsafe_charset: true, ..mode };
    assert_eq!(target("SELECT 'a' FROM t", gbk), Target::Replica);
    assert_eq!(target("SELECT 'ä' FROM t", gbk), Target::Primary);
    let mut applied = Mode::default();
    applied.apply_sql_mode("STRICT_TRANS_TABLES, ansi,NO_BACKSLASH_ESCAPES");
    let wanted = Mode { ansi_quotes: true, ignore_space: true, no_backslash_escapes: true, ..mode };
    assert_eq!(applied, wanted);
}

#[test]
fn catalogues() {
    let names = |names: &[&str]| names.iter().map(|name| name.as_bytes().into()).collect();
    let catalogue = Catalogue { version: 1, functions: names(&["f", "count"]), views: names(&["v"]) };
    let mode = Mode { flavour: Flavour::Mysql, ..Mode::default() };
    let intent = |sql: &str| classify(sql, &mode, &catalogue);
    for sql in
        ["SELECT f(1)", "SELECT d.F(1) FROM t", "SELECT `f`(1)", "SELECT * FROM V", "SELECT * FROM d.`v`"]
    {
        let intent = intent(sql);
        assert_eq!(intent.target, Target::Replica, "{sql}");
        assert_eq!(intent.needs, Needs::STOPPED_BY_READ_ONLY, "{sql}");
    }
    assert_eq!(intent("SELECT g(1)").target, Target::Primary);
    assert_eq!(intent("SELECT f(1) FROM t FOR UPDATE").target, Target::Primary);
    assert_eq!(intent("SELECT md5('a')").target, Target::Replica);
    assert_eq!(intent("SELECT a FROM t").needs, Needs::empty());
}

#[test]
fn refused_reads_are_remembered() {
    let mut classifier = Classifier::new([1; 32], 8);
    let (mode, catalogue) = (Mode::default(), Catalogue::default());
    let read = classifier.classify(b"SELECT a FROM v WHERE id = 1", &mode, &catalogue);
    assert_eq!(read.intent.target, Target::Replica);
    classifier.mark_primary(&read);
    let again = classifier.classify(b"select A from V where ID = 2", &mode, &catalogue);
    assert_eq!((again.intent.target, again.intent.kind), (Target::Primary, Kind::UnprovenRead));
    let elsewhere = Mode { multi_statements: true, ..mode };
    let again = classifier.classify(b"SELECT a FROM v WHERE id = 3", &elsewhere, &catalogue);
    assert_eq!(again.intent.target, Target::Primary, "in another mode");
    let other = classifier.classify(b"SELECT a FROM w WHERE id = 3", &elsewhere, &catalogue);
    assert_eq!(other.intent.target, Target::Replica);
}
