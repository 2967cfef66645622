//! The statements of `cases/*.txt`, classified for both flavours.

use std::fmt::Write as _;

use pointsman_router::classify::{Catalogue, Mode, explain};
use pointsman_router::intent::{Flavour, Target};

/// One line of a file: what is expected, and the statement.
struct Case {
    expected: String,
    sql: Vec<u8>,
}

fn cases(file: &str) -> Vec<Case> {
    file.lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| {
            let (expected, sql) = line.rsplit_once('\t').expect(line);
            Case { expected: expected.to_owned(), sql: unescape(sql) }
        })
        .collect()
}

/// Undoes the escapes of `pointsman explain`, and `\xNN` for a byte.
fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        match rest.next() {
            Some(b'n') => bytes.push(b'\n'),
            Some(b't') => bytes.push(b'\t'),
            Some(b'r') => bytes.push(b'\r'),
            Some(b'\\') => bytes.push(b'\\'),
            Some(b'x') => {
                let digits: String = rest.by_ref().take(2).map(char::from).collect();
                bytes.push(u8::from_str_radix(&digits, 16).expect(text));
            }
            other => panic!("unknown escape {other:?} in {text}"),
        }
    }
    bytes
}

fn mode(flavour: Flavour) -> Mode {
    Mode { flavour, multi_statements: true, ..Mode::default() }
}

fn flavours() -> [(&'static str, Flavour); 2] {
    [("mariadb", Flavour::Mariadb), ("mysql", Flavour::Mysql)]
}

#[test]
fn pure_reads_go_to_replicas() {
    let cases = cases(include_str!("cases/reads.txt"));
    for (name, flavour) in flavours() {
        let mut missed = String::new();
        let (mut all, mut recognised) = (0_u32, 0_u32);
        for case in cases.iter().filter(|case| case.expected == "both" || case.expected == name) {
            let intent = explain(&case.sql, &mode(flavour), &Catalogue::default()).intent;
            all += 1;
            if matches!(intent.target, Target::Replica | Target::Any) {
                recognised += 1;
            } else {
                let sql = String::from_utf8_lossy(&case.sql);
                writeln!(missed, "{} ({}): {sql}", intent.reason, intent.kind.name()).expect("a string");
            }
        }
        assert!(all >= 300, "{name}: only {all} reads are tried");
        assert!(
            recognised * 100 >= all * 95,
            "{name}: {recognised} of {all} reads recognised, not these:\n{missed}"
        );
    }
}

#[test]
fn nothing_else_goes_to_replicas() {
    let mut faults = String::new();
    for case in cases(include_str!("cases/writes.txt")) {
        let (flavour_wanted, target) = case.expected.split_once('\t').expect("a target");
        for (name, flavour) in flavours() {
            if flavour_wanted != "both" && flavour_wanted != name {
                continue;
            }
            let intent = explain(&case.sql, &mode(flavour), &Catalogue::default()).intent;
            if intent.target.name() != target {
                let (got, kind, sql) =
                    (intent.target.name(), intent.kind.name(), String::from_utf8_lossy(&case.sql));
                writeln!(faults, "{name}: {got} in place of {target}, {} ({kind}): {sql}", intent.reason)
                    .expect("a string");
            }
        }
    }
    assert!(faults.is_empty(), "\n{faults}");
}
