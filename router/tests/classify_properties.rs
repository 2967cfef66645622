//! What must hold for any text: no panic, and no rewriting that means the same moves a statement towards a replica.

use std::sync::mpsc;
use std::time::{Duration, Instant};

use pointsman_router::classify::{Catalogue, Classifier, Mode, calls, explain, normal_form, variables};
use pointsman_router::intent::{Flavour, Target};
use proptest::prelude::*;

/// The parts of statements that decide something, and some that do not.
const PIECES: [&str; 72] = [
    "SELECT",
    "select",
    "a",
    "t",
    "FROM",
    "WHERE",
    "FOR",
    "UPDATE",
    "SHARE",
    "LOCK",
    "IN",
    "INTO",
    "@a",
    "@@b",
    ":=",
    "(",
    ")",
    ",",
    ";",
    ".",
    "*",
    "=",
    "-",
    "--",
    "-- ",
    "#",
    "\n",
    "/*",
    "*/",
    "/*!",
    "/*!50000",
    "/*!80000",
    "/*!999999",
    "/*M!",
    "/*+",
    "'",
    "\"",
    "`",
    "\\",
    "'x'",
    "\"x\"",
    "`x`",
    "''",
    "1",
    "1.",
    ".5",
    "0x1",
    "1e",
    "?",
    "f",
    "count",
    "get_lock",
    "abs",
    "last_insert_id",
    "SET",
    "NAMES",
    "autocommit",
    "GLOBAL",
    "BEGIN",
    "END",
    "CREATE",
    "TEMPORARY",
    "TABLE",
    "DELETE",
    "WITH",
    "AS",
    "UNION",
    "VALUES",
    "pointsman:",
    "\u{a0}",
    "\0",
    "SUBSTRING",
];

fn pieces() -> impl Strategy<Value = String> {
    let piece =
        (prop::sample::select(PIECES.as_slice()), prop::sample::select(["", " ", " ", "\t"].as_slice()));
    prop::collection::vec(piece, 0..40)
        .prop_map(|pieces| pieces.into_iter().flat_map(|(piece, gap)| [piece, gap]).collect())
}

fn modes() -> impl Strategy<Value = Mode> {
    any::<[bool; 10]>().prop_map(|on| Mode {
        flavour: if on[0] { Flavour::Mysql } else { Flavour::Mariadb },
        no_backslash_escapes: on[1],
        ansi_quotes: on[2],
        oracle: on[3],
        ignore_space: on[4],
        unsafe_charset: on[5],
        multi_statements: on[6],
        sql_mode_known: on[7],
        temporary_tables: on[8],
        system_schema: on[9],
    })
}

fn goes_to_replica(sql: &[u8], mode: &Mode) -> bool {
    let target = explain(sql, mode, &Catalogue::default()).intent.target;
    matches!(target, Target::Replica | Target::Any)
}

/// Everything that reads text, on one text.
fn exercise(sql: &[u8], mode: &Mode) -> Result<(), TestCaseError> {
    let mut classifier = Classifier::new([3; 32], 16);
    let catalogue = Catalogue::default();
    let first = classifier.classify(sql, mode, &catalogue);
    let again = classifier.classify(sql, mode, &catalogue);
    prop_assert_eq!(&first.intent, &again.intent);
    let explanation = explain(sql, mode, &Catalogue::default());
    prop_assert_eq!(&*first.intent, &explanation.intent);
    let mut end = 0;
    for token in &explanation.tokens {
        prop_assert!(token.range.start >= end && token.range.end <= sql.len());
        end = token.range.end;
    }
    for call in calls(sql, mode, "f").into_iter().chain(variables(sql, mode, "b")) {
        prop_assert!(call.range.start < call.range.end && call.range.end <= sql.len());
    }
    normal_form(sql, mode);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_read(sql in prop::collection::vec(any::<u8>(), 0..200), mode in modes()) {
        exercise(&sql, &mode)?;
    }

    #[test]
    fn any_pieces_are_read(sql in pieces(), mode in modes()) {
        exercise(sql.as_bytes(), &mode)?;
    }

    /// The cache answers what reading afresh would answer, whatever was read before.
    #[test]
    fn cache_changes_no_answer(texts in prop::collection::vec(pieces(), 1..12), mode in modes()) {
        let mut classifier = Classifier::new([5; 32], 4);
        let other_case: Vec<_> = texts.iter().map(|sql| sql.to_ascii_lowercase()).collect();
        for sql in texts.iter().chain(&texts).chain(&other_case) {
            let cached = classifier.classify(sql.as_bytes(), &mode, &Catalogue::default());
            let fresh = explain(sql.as_bytes(), &mode, &Catalogue::default()).intent;
            prop_assert_eq!(&*cached.intent, &fresh, "{}", sql);
        }
    }
}

/// A rewriting of one token's surroundings that servers do not see.
#[derive(Clone, Copy, Debug)]
enum Rewriting {
    Comment,
    LineComment,
    Space,
    UpperCase,
    LowerCase,
    Directive,
}

fn rewritings() -> impl Strategy<Value = Vec<(prop::sample::Index, Rewriting)>> {
    let rewriting = prop::sample::select(vec![
        Rewriting::Comment,
        Rewriting::LineComment,
        Rewriting::Space,
        Rewriting::UpperCase,
        Rewriting::LowerCase,
        Rewriting::Directive,
    ]);
    prop::collection::vec((any::<prop::sample::Index>(), rewriting), 1..6)
}

/// Rewrites a statement between its tokens, or the case of its words.
fn rewrite(sql: &[u8], mode: &Mode, rewritings: &[(prop::sample::Index, Rewriting)]) -> Vec<u8> {
    let tokens = explain(sql, mode, &Catalogue::default()).tokens;
    if tokens.is_empty() {
        return sql.to_vec();
    }
    let mut changed: Vec<(usize, Vec<u8>)> = Vec::new();
    let mut text = sql.to_vec();
    for (index, rewriting) in rewritings {
        let token = &tokens[index.index(tokens.len())];
        let word = token.class == "word";
        let between = |filling: &str| (token.range.start, filling.as_bytes().to_vec());
        match rewriting {
            Rewriting::Comment => changed.push(between("/* x */")),
            Rewriting::LineComment => changed.push(between("-- x\n")),
            Rewriting::Space => changed.push(between("\n ")),
            Rewriting::Directive => changed.push(between("/* pointsman: replica */")),
            Rewriting::UpperCase if word => text[token.range.clone()].make_ascii_uppercase(),
            Rewriting::LowerCase if word => text[token.range.clone()].make_ascii_lowercase(),
            Rewriting::UpperCase | Rewriting::LowerCase => {}
        }
    }
    changed.sort_by_key(|(at, _)| std::cmp::Reverse(*at));
    for (at, filling) in changed {
        text.splice(at..at, filling);
    }
    text
}

fn lines(file: &str) -> Vec<(&str, Vec<u8>)> {
    let line = |line: &'static str| line.rsplit_once('\t');
    file.lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|text| line(Box::leak(text.to_owned().into_boxed_str())))
        .filter(|(_, sql)| !sql.contains('\\') && !sql.contains("/*!") && !sql.contains("/*M!"))
        .map(|(expected, sql)| (expected, sql.as_bytes().to_vec()))
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3_000, failure_persistence: None, ..ProptestConfig::default() })]

    /// No comment, white space or change of case moves a statement towards a replica.
    #[test]
    fn rewriting_never_leads_to_a_replica(index in any::<prop::sample::Index>(), rewritings in rewritings()) {
        let cases = lines(include_str!("cases/writes.txt"));
        let (expected, sql) = &cases[index.index(cases.len())];
        for flavour in [Flavour::Mariadb, Flavour::Mysql] {
            let name = if flavour == Flavour::Mysql { "mysql" } else { "mariadb" };
            if !expected.starts_with("both") && !expected.starts_with(name) {
                continue;
            }
            let mode = Mode { flavour, multi_statements: true, ..Mode::default() };
            let rewritten = rewrite(sql, &mode, &rewritings);
            prop_assert!(!goes_to_replica(&rewritten, &mode), "{}", String::from_utf8_lossy(&rewritten));
        }
    }

    /// A read with a locking clause, a write or a call of an unknown function put in anywhere is no read.
    #[test]
    fn additions_are_noticed(index in any::<prop::sample::Index>(), at in any::<prop::sample::Index>(), which in 0_usize..6) {
        let cases = lines(include_str!("cases/reads.txt"));
        let (_, sql) = &cases[index.index(cases.len())];
        let addition = [" FOR UPDATE ", " , f(1) ", " INTO @x ", " @x := 1 ", " ; DELETE FROM t ", " , GET_LOCK('a', 1) "][which];
        let mode = Mode { multi_statements: true, ..Mode::default() };
        let tokens = explain(sql, &mode, &Catalogue::default()).tokens;
        let place = &tokens[at.index(tokens.len())];
        let mut text = sql.clone();
        text.splice(place.range.end..place.range.end, addition.bytes());
        let after = explain(&text, &mode, &Catalogue::default());
        // What was put behind a point or into a comment for the rest of the line is a part of that.
        let inside = place.note.is_empty() && sql.get(place.range.clone()) == Some(b".");
        if !inside {
            prop_assert!(!matches!(after.intent.target, Target::Replica | Target::Any), "{}", String::from_utf8_lossy(&text));
        }
    }
}

/// Runs on a thread with the stack of a worker.
fn on_small_stack(work: impl FnOnce() + Send + 'static) {
    let (done, finished) = mpsc::channel();
    let thread = std::thread::Builder::new()
        .stack_size(2 * 1024 * 1024)
        .spawn(move || {
            work();
            done.send(()).expect("the test waits");
        })
        .expect("a thread");
    finished.recv_timeout(Duration::from_secs(60)).expect("it ends in time");
    thread.join().expect("no panic");
}

#[test]
fn deep_and_long_statements_are_survived() {
    on_small_stack(|| {
        let texts = [
            format!("SELECT * FROM t{}", " JOIN t".repeat(300)),
            format!("SELECT * FROM t{}", " JOIN t".repeat(63)),
            format!("SELECT * FROM t{}", " JOIN t ON 1".repeat(64)),
            format!("SELECT * FROM t{}", " JOIN t".repeat(5_000)),
            format!("SELECT * FROM {}t{}", "(".repeat(400), ")".repeat(400)),
            format!("SELECT {}1{}", "(".repeat(100_000), ")".repeat(100_000)),
            format!("SELECT {}1{}", "(".repeat(900), ")".repeat(900)),
            format!("SELECT {}1", "(".repeat(1_900)),
            format!("SELECT 1{}", "+1".repeat(40_000)),
            format!("SELECT 1{}", "+1".repeat(990)),
            format!("SELECT 1 FROM t WHERE a=1{}", " OR a=1".repeat(480)),
            format!("SELECT {}1", "-".repeat(1_900)),
            format!("SELECT {}1", "NOT ".repeat(1_900)),
            format!("SELECT {}1", "~".repeat(1_900)),
            format!("SELECT 1{}", " UNION SELECT 1".repeat(600)),
            format!("SELECT 1{}", " UNION SELECT 1".repeat(100_000)),
            format!("SELECT {}1{}", "(SELECT ".repeat(600), ")".repeat(600)),
            format!("SELECT * FROM {}t{}", "(SELECT * FROM ".repeat(300), ") t".repeat(300)),
            format!("SELECT {}1{}", "abs(".repeat(900), ")".repeat(900)),
            format!("SELECT {}1{}", "CASE WHEN ".repeat(400), " THEN 1 END".repeat(400)),
            format!("SELECT a{}", "[1]".repeat(600)),
            format!("SELECT a{}", "->'$.a'".repeat(600)),
            format!("SELECT a{}", " IS NULL".repeat(900)),
            format!("SELECT a{}", " IN (1)".repeat(450)),
            format!("SELECT a{}", " COLLATE x".repeat(900)),
            format!("SELECT {}a", "INTERVAL ".repeat(1_900)),
            format!("SELECT {}a", "BINARY ".repeat(1_900)),
            format!("WITH {}SELECT 1", "a AS (WITH ".repeat(300)),
            format!("SELECT {}a", "EXISTS (SELECT ".repeat(600)),
            format!("SELECT a FROM t WHERE a IN ({}0)", "1, ".repeat(5_000)),
            "(".repeat(100_000),
            "/*".repeat(100_000),
            "'".repeat(100_001),
            "@".repeat(100_000),
            ";".repeat(100_000),
            "SELECT 1;".repeat(10_000),
            "/* pointsman: replica */".repeat(10_000),
        ];
        for text in texts {
            for flavour in [Flavour::Mariadb, Flavour::Mysql] {
                let mode = Mode { flavour, multi_statements: true, ..Mode::default() };
                let mut classifier = Classifier::new([1; 32], 16);
                classifier.classify(text.as_bytes(), &mode, &Catalogue::default());
            }
        }
    });
}

#[test]
fn settings_for_one_statement_do_not_nest() {
    let mode = Mode::default();
    let once = "SET STATEMENT max_statement_time = 1 FOR ";
    assert!(goes_to_replica(format!("{once}SELECT a FROM t").as_bytes(), &mode));
    assert!(!goes_to_replica(format!("{once}{once}SELECT a FROM t").as_bytes(), &mode));
}

#[test]
fn long_reads_are_still_reads() {
    let mode = Mode::default();
    let list = format!("SELECT a FROM t WHERE id IN ({}0) AND b = 'x'", "1, ".repeat(50_000));
    assert!(goes_to_replica(list.as_bytes(), &mode));
    let joins = format!("SELECT * FROM t{}", " JOIN t ON t.a = t.b".repeat(60));
    assert!(goes_to_replica(joins.as_bytes(), &mode));
    let locking = format!("SELECT a FROM t WHERE id IN ({}0) FOR UPDATE", "1, ".repeat(50_000));
    assert!(!goes_to_replica(locking.as_bytes(), &mode));
}

#[test]
#[allow(clippy::disallowed_methods, reason = "what is tested is how long it takes")]
fn bulk_inserts_are_read_in_time() {
    let rows = "(1, 'some text of a row', NULL, -5.5), ".repeat(400_000);
    let sql = format!("INSERT INTO t VALUES {rows}(1, 'x', NULL, 2)");
    for multi_statements in [false, true] {
        let mode = Mode { multi_statements, ..Mode::default() };
        let mut classifier = Classifier::new([1; 32], 16);
        let started = Instant::now();
        let classified = classifier.classify(sql.as_bytes(), &mode, &Catalogue::default());
        assert_eq!(classified.intent.target, Target::Primary);
        assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    }
    let hidden = format!("INSERT INTO t VALUES {rows}(1, 'x', NULL, 2); CREATE TEMPORARY TABLE x (a INT)");
    let mode = Mode { multi_statements: true, ..Mode::default() };
    let intent = explain(hidden.as_bytes(), &mode, &Catalogue::default()).intent;
    assert_eq!(intent.kind.name(), "multi");
}
