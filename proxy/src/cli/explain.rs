//! `pointsman explain`: what a statement does and where it may run, without any server, or where a session of a
//! running proxy would send it.

use std::ffi::OsString;
use std::io::{self, BufRead};

use clap::Args;
use pointsman_router::classify::{Catalogue, Explanation, Mode, explain};
use pointsman_router::session::mode_of;
use serde_json::{Value, json};

use super::Remote;
use super::client::Client;
use super::exit::{Exit, Failure, Outcome};
use super::output::{Format, print, print_bytes};
use super::sandbox::FlavourName;
use crate::explanation;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[arg(long, value_enum, default_value_t)]
    flavour: FlavourName,
    /// The session's sql_mode.
    #[arg(long, value_name = "MODE", default_value = "")]
    sql_mode: String,
    /// Ask a running proxy (--endpoint) where this session of it, an id of `pointsman sessions`, would send the statements
    /// now. Without it nobody is asked.
    #[arg(long, value_name = "ID", conflicts_with_all = ["flavour", "sql_mode"])]
    session: Option<u32>,
    #[command(flatten)]
    remote: Remote,
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
pub(super) async fn run(arguments: &Arguments, format: Format) -> Outcome {
    let judge = Judge::new(arguments)?;
    for sql in &arguments.sql {
        if sql == "-" {
            answer_lines(io::stdin().lock(), &judge, format).await?;
        } else {
            judge.answer(sql.as_bytes(), format).await?;
        }
    }
    Ok(Exit::Ok)
}

/// Who says what a statement does.
#[derive(Debug)]
struct Judge {
    tokens: bool,
    by: By,
}

#[derive(Debug)]
enum By {
    /// A fresh session, in which several statements in one packet are allowed.
    Fresh(Mode),
    /// A session of a running proxy.
    Session(u32, Client),
}

impl Judge {
    fn new(arguments: &Arguments) -> Result<Self, Failure> {
        let by = match arguments.session {
            Some(id) => By::Session(id, arguments.remote.client()?),
            None => By::Fresh(fresh(arguments.flavour, &arguments.sql_mode)),
        };
        Ok(Self { tokens: arguments.tokens, by })
    }

    async fn answer(&self, sql: &[u8], format: Format) -> Result<(), Failure> {
        let value = self.judge(sql).await?;
        match format {
            Format::Json => print(&value.to_string()),
            Format::Yaml => {
                let text = serde_norway::to_string(&value).map_err(io::Error::other)?;
                print_bytes(format!("---\n{text}").as_bytes())
            }
            Format::Table => print(&text(&value)),
        }
    }

    async fn judge(&self, sql: &[u8]) -> Result<Value, Failure> {
        let (id, client) = match &self.by {
            By::Fresh(mode) => {
                let Explanation { intent, tokens } = explain(sql, mode, &Catalogue::default());
                return Ok(explanation::document(sql, &intent, self.tokens.then_some(&tokens)));
            }
            By::Session(id, client) => (id, client),
        };
        let sql = std::str::from_utf8(sql)
            .map_err(|_| Failure::usage("--session: expected a statement in UTF-8".to_owned()))?;
        client
            .post(&format!("/api/v1/sessions/{id}/explain"), &json!({ "sql": sql, "tokens": self.tokens }))
            .await
    }
}

fn fresh(flavour: FlavourName, sql_mode: &str) -> Mode {
    Mode { multi_statements: true, ..mode_of(flavour.flavour(), &sql_mode.to_uppercase()) }
}

async fn answer_lines(mut input: impl BufRead, judge: &Judge, format: Format) -> Result<(), Failure> {
    let mut line = Vec::new();
    while input.read_until(b'\n', &mut line)? > 0 {
        if line.last() == Some(&b'\n') {
            line.pop();
        }
        judge.answer(&unescape(&line), format).await?;
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

fn text(value: &Value) -> String {
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut text =
        format!("{} -> {}: {}", word(&value["intent"]), word(&value["target"]), word(&value["reason"]));
    if let Some(route) = value["route"].as_str() {
        let server = value["server"].as_str().unwrap_or("no server");
        text.push_str(&format!("\n  now {server}: {route}"));
    }
    for token in value["tokens"].as_array().into_iter().flatten() {
        let shown = word(&token["text"]).escape_debug().to_string();
        let line = format!("\n  {:10} {shown}  {}", word(&token["class"]), word(&token["note"]));
        text.push_str(line.trim_end());
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
        let mode = fresh(FlavourName::Mariadb, "");
        let told = |sql: &str, tokens| {
            let told = explain(sql.as_bytes(), &mode, &Catalogue::default());
            explanation::document(sql.as_bytes(), &told.intent, Some(&*told.tokens).filter(|_| tokens))
        };
        let check = |sql: &str, intent: &str, target: &str| {
            let value = told(sql, false);
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
        let line = told("SELECT\n1", true).to_string();
        assert!(!line.contains('\n') && line.contains("\"tokens\""), "{line}");
        assert_eq!(told("", false)["intent"], "empty");
    }

    #[test]
    fn tells_where_a_session_would_go() {
        let check = |server: Value, expected: &str| {
            let value = json!({
                "intent": "read", "target": "replica", "reason": "pure read", "server": server, "route": "held: no primary",
            });
            assert_eq!(
                text(&value),
                format!("read -> replica: pure read\n  now {expected}: held: no primary")
            );
        };
        check(json!("db-2"), "db-2");
        check(Value::Null, "no server");
    }
}
