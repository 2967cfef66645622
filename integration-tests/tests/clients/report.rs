//! What a client did: one verdict for each promise.

use pointsman_integration_tests::{Failure, Outcome};

/// The lines of a programme.
#[derive(Debug, Default)]
pub(crate) struct Report {
    /// Name and version of the client.
    pub(crate) title: String,
    verdicts: Vec<(String, Verdict)>,
    /// Whether the programme came to its end.
    ended: bool,
    /// What it printed beside its report.
    remarks: String,
}

#[derive(Debug)]
enum Verdict {
    Kept,
    Skipped,
    Broken(String),
}

impl Report {
    pub(crate) fn new(title: String) -> Self {
        Self { title, ..Self::default() }
    }

    /// Reads what a programme of `integration-tests/clients` printed.
    pub(crate) fn parse(output: &str, remarks: String) -> Self {
        let mut report = Self { remarks, ..Self::default() };
        for line in output.lines() {
            if let Some(name) = line.strip_prefix("ok ") {
                report.verdicts.push((name.to_owned(), Verdict::Kept));
            } else if let Some((name, why)) = line.strip_prefix("not ok ").and_then(split) {
                report.verdicts.push((name, Verdict::Broken(why)));
            } else if let Some((name, _why)) = line.strip_prefix("skip ").and_then(split) {
                report.verdicts.push((name, Verdict::Skipped));
            } else if let Some(title) = line.strip_prefix("# ") {
                report.title = title.to_owned();
            } else if line == "done" {
                report.ended = true;
            }
        }
        report
    }

    /// Adds a promise of a client that runs in this process.
    pub(crate) fn add(&mut self, name: &str, outcome: Outcome) {
        let verdict = match outcome {
            Ok(()) => Verdict::Kept,
            Err(failure) => Verdict::Broken(failure.to_string()),
        };
        self.verdicts.push((name.to_owned(), verdict));
    }

    /// The client has come to its end.
    pub(crate) fn end(&mut self) {
        self.ended = true;
    }

    /// Fails when a promise was broken, or the programme did not get to its end.
    pub(crate) fn complete(&self, how: &str) -> Outcome {
        let broken: Vec<String> = self
            .verdicts
            .iter()
            .filter_map(|(name, verdict)| match verdict {
                Verdict::Broken(why) => Some(format!("  {name}: {why}")),
                Verdict::Kept | Verdict::Skipped => None,
            })
            .collect();
        if broken.is_empty() && self.ended && !self.kept().is_empty() {
            return Ok(());
        }
        let end = if self.ended { "" } else { "\n  it did not come to its end" };
        let broken = broken.join("\n");
        Err(Failure::from(format!("{how}, {}:\n{broken}{end}\n{}", self.title, self.remarks)))
    }

    /// The names of the promises kept, in order.
    pub(crate) fn kept(&self) -> Vec<&str> {
        self.verdicts
            .iter()
            .filter(|(_, verdict)| matches!(verdict, Verdict::Kept))
            .map(|(name, _)| name.as_str())
            .collect()
    }

    /// The names of the promises that the client has nothing for, in order.
    pub(crate) fn skipped(&self) -> Vec<String> {
        let mut skipped: Vec<String> = self
            .verdicts
            .iter()
            .filter(|(_, verdict)| matches!(verdict, Verdict::Skipped))
            .map(|(name, _)| name.clone())
            .collect();
        skipped.sort();
        skipped
    }
}

fn split(line: &str) -> Option<(String, String)> {
    line.split_once(": ").map(|(name, why)| (name.to_owned(), why.to_owned()))
}

/// Compares what a client saw with what it should have seen.
pub(crate) fn expect<T: PartialEq + std::fmt::Debug>(actual: T, expected: T) -> Outcome {
    if actual == expected {
        return Ok(());
    }
    Err(format!("expected {expected:?}, got {actual:?}").into())
}

/// What the promises of the clients in this process work on.
pub(crate) const TABLES: [&str; 2] = [
    "CREATE TABLE journeys (id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY, \
     name VARCHAR(100) CHARACTER SET utf8mb4 UNIQUE, amount BIGINT, payload LONGBLOB) ENGINE=InnoDB",
    "CREATE PROCEDURE two_results(IN n INT) BEGIN SELECT n AS first; SELECT n + 1 AS second, 'x' AS third; END",
];
/// 0 to 99,999.
pub(crate) const HUNDRED_THOUSAND: &str = "WITH RECURSIVE digits (d) AS (SELECT 0 UNION ALL SELECT d + 1 FROM digits WHERE d < 9) \
     SELECT CAST(a.d + 10 * b.d + 100 * c.d + 1000 * d.d + 10000 * e.d AS UNSIGNED) AS n \
     FROM digits a, digits b, digits c, digits d, digits e";
pub(crate) const UNICODE: &str = "Weiche 鉄道 🚂 ünï";
/// Longer than one packet.
pub(crate) const LARGE: usize = 17 << 20;
/// What such a value consists of.
pub(crate) const PAYLOAD_BYTE: u8 = 0xa5;
