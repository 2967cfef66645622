//! `pointsman explain`: what a statement does and where it may run, without any server.

use std::ffi::OsString;
use std::io::{self, BufRead};

use clap::Args;
use pointsman_router::classify::{Explanation, Mode, explain};
use pointsman_router::session::mode_of;
use serde_json::{Value, json};

use super::exit::{Exit, Failure, Outcome};
use super::output::{Format, print, print_bytes};
use super::sandbox::FlavourName;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[arg(long, value_enum, default_value_t)]
    flavour: FlavourName,
    /// The session's sql_mode.
    #[arg(long, value_name = "MODE", default_value = "")]
    sql_mode: String,
    /// Show how each token was read.
    #[arg(long)]
    tokens: bool,
    /// The statements; `-` reads them from standard input, one a line, with \\, \n, \t and \r as escapes.
    #[arg(required = true, value_name = "SQL")]
    sql: Vec<String>,
}

/// A statement that begins with a comment (`-- x`) is no option: a blank in front of it says so and changes nothing.
pub(super) fn shield(arguments: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut is_ours = false;
    let one = |argument: OsString| {
        is_ours |= argument == "explain";
        let bytes = argument.as_encoded_bytes();
        if is_ours && bytes.starts_with(b"-") && bytes.iter().any(u8::is_ascii_whitespace) {
            let mut shielded = OsString::from(" ");
            shielded.push(argument);
            return shielded;
        }
        argument
    };
    arguments.map(one).collect()
}

/// Answers every statement exactly once, in order.
pub(super) fn run(arguments: &Arguments, format: Format) -> Outcome {
    let mode = mode(arguments);
    for sql in &arguments.sql {
        if sql == "-" {
            answer_lines(io::stdin().lock(), &mode, arguments, format)?;
        } else {
            answer(sql.as_bytes(), &mode, arguments, format)?;
        }
    }
    Ok(Exit::Ok)
}

/// A fresh session, in which several statements in one packet are allowed.
fn mode(arguments: &Arguments) -> Mode {
    let sql_mode = arguments.sql_mode.to_uppercase();
    Mode { multi_statements: true, ..mode_of(arguments.flavour.flavour(), &sql_mode) }
}

fn answer_lines(
    mut input: impl BufRead,
    mode: &Mode,
    arguments: &Arguments,
    format: Format,
) -> Result<(), Failure> {
    let mut line = Vec::new();
    while input.read_until(b'\n', &mut line)? > 0 {
        if line.last() == Some(&b'\n') {
            line.pop();
        }
        answer(&unescape(&line), mode, arguments, format)?;
        line.clear();
    }
    Ok(())
}

/// Line ends and tabulators are written with a backslash there, and so is the backslash; other escapes are the
/// statement's own.
fn unescape(line: &[u8]) -> Vec<u8> {
    let mut text = Vec::with_capacity(line.len());
    let mut rest = line;
    while let [first, after @ ..] = rest {
        let (byte, used) = match (first, after.first()) {
            (b'\\', Some(b'n')) => (b'\n', 2),
            (b'\\', Some(b't')) => (b'\t', 2),
            (b'\\', Some(b'r')) => (b'\r', 2),
            (b'\\', Some(b'\\')) => (b'\\', 2),
            (byte, _) => (*byte, 1),
        };
        text.push(byte);
        rest = &rest[used..];
    }
    text
}

fn answer(sql: &[u8], mode: &Mode, arguments: &Arguments, format: Format) -> Result<(), Failure> {
    let explanation = explain(sql, mode);
    let value = || document(sql, &explanation, arguments.tokens);
    match format {
        Format::Json => print(&value().to_string()),
        Format::Yaml => {
            let text = serde_norway::to_string(&value()).map_err(io::Error::other)?;
            print_bytes(format!("---\n{text}").as_bytes())
        }
        Format::Table => print(&text(sql, &explanation, arguments.tokens)),
    }
}

fn document(sql: &[u8], explanation: &Explanation, tokens: bool) -> Value {
    let intent = &explanation.intent;
    let mut value = json!({
        "intent": intent.kind.name(),
        "target": intent.target.name(),
        "reason": intent.reason.to_string(),
    });
    if tokens {
        let one = |token: &pointsman_router::classify::ExplainedToken| {
            let text = String::from_utf8_lossy(sql.get(token.range.clone()).unwrap_or_default());
            json!({ "text": text, "class": token.class, "note": token.note })
        };
        value["tokens"] = explanation.tokens.iter().map(one).collect();
    }
    value
}

fn text(sql: &[u8], explanation: &Explanation, tokens: bool) -> String {
    let intent = &explanation.intent;
    let mut text = format!("{} -> {}: {}", intent.kind.name(), intent.target.name(), intent.reason);
    if tokens {
        for token in &explanation.tokens {
            let bytes = sql.get(token.range.clone()).unwrap_or_default();
            let shown = String::from_utf8_lossy(bytes).escape_debug().to_string();
            text.push_str(format!("\n  {:10} {shown}  {}", token.class, token.note).trim_end());
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes() {
        let check = |line: &str, expected: &str| assert_eq!(unescape(line.as_bytes()), expected.as_bytes());
        check("SELECT 1", "SELECT 1");
        check(r"a\nb\tc\rd\\n", "a\nb\tc\rd\\n");
        // Other escapes belong to the statement, and a backslash at the end stays.
        check(r"'\'' \x \", r"'\'' \x \");
        check("", "");
    }

    #[test]
    fn comments_are_no_options() {
        let check = |given: &[&str], expected: &[&str]| {
            assert_eq!(shield(given.iter().map(OsString::from)), expected);
        };
        check(
            &["pointsman", "explain", "-o", "json", "-- a\nSELECT 1"],
            &["pointsman", "explain", "-o", "json", " -- a\nSELECT 1"],
        );
        check(&["pointsman", "status", "-- a"], &["pointsman", "status", "-- a"]);
        check(&["pointsman", "explain", "-"], &["pointsman", "explain", "-"]);
    }

    #[test]
    fn keeps_the_contract() {
        let mode = mode(&Arguments {
            flavour: FlavourName::Mariadb,
            sql_mode: String::new(),
            tokens: false,
            sql: Vec::new(),
        });
        let check = |sql: &str, intent: &str, target: &str| {
            let value = document(sql.as_bytes(), &explain(sql.as_bytes(), &mode), false);
            assert_eq!(
                (value["intent"].as_str(), value["target"].as_str()),
                (Some(intent), Some(target)),
                "{sql}"
            );
            assert!(value["reason"].as_str().is_some_and(|reason| !reason.is_empty()), "{sql}");
        };
        check("SELECT a FROM t", "read", "replica");
        check("DELETE FROM t", "write", "primary");
        check("COMMIT", "commit", "same-as-transaction");
        check("SET @a = 1", "set", "session");
        check("SELECT 1; DELETE FROM t", "multi", "primary");
        let line = document(b"SELECT\n1", &explain(b"SELECT\n1", &mode), true).to_string();
        assert!(!line.contains('\n') && line.contains("\"tokens\""), "{line}");
        let empty = document(b"", &explain(b"", &mode), false);
        assert_eq!(empty["intent"], "empty");
    }
}
