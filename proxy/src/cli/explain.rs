//! `pointsman explain`: what a statement does and where it goes, without any server.

use std::io::BufRead;

use clap::{Args, ValueEnum};
use pointsman_router::classify::{self, Explanation, Mode};
use pointsman_router::intent;
use pointsman_router::session::mode_of;
use serde_json::json;

use super::exit::{Exit, Failure, Outcome};
use super::output::{Format, print_bytes};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The server's family.
    #[arg(long, value_enum, default_value_t)]
    flavour: Flavour,
    /// The session's sql_mode, as names separated by commas.
    #[arg(long, default_value = "", value_name = "MODE")]
    sql_mode: String,
    /// Print what each token says, too.
    #[arg(long)]
    tokens: bool,
    /// Statements; `-` reads them from standard input, one a line, with the escapes \\ \n \t \r.
    #[arg(required = true, value_name = "SQL", allow_hyphen_values = true)]
    sql: Vec<String>,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum Flavour {
    #[default]
    Mariadb,
    Mysql,
}

pub(super) fn run(arguments: &Arguments, format: Format) -> Outcome {
    let flavour = match arguments.flavour {
        Flavour::Mariadb => intent::Flavour::Mariadb,
        Flavour::Mysql => intent::Flavour::Mysql,
    };
    let mode = Mode { multi_statements: true, ..mode_of(flavour, &arguments.sql_mode) };
    if arguments.sql == ["-"] {
        for line in std::io::stdin().lock().split(b'\n') {
            answer(&unescape(&line?), &mode, arguments.tokens, format)?;
        }
    } else {
        for sql in &arguments.sql {
            answer(sql.as_bytes(), &mode, arguments.tokens, format)?;
        }
    }
    Ok(Exit::Ok)
}

fn answer(sql: &[u8], mode: &Mode, tokens: bool, format: Format) -> Result<(), Failure> {
    let explanation = classify::explain(sql, mode);
    let mut out = match format {
        Format::Json => as_json(sql, &explanation, tokens),
        Format::Table | Format::Yaml => as_text(sql, &explanation, tokens),
    };
    out.push('\n');
    print_bytes(out.as_bytes())
}

/// One line a statement.
fn as_json(sql: &[u8], explanation: &Explanation, tokens: bool) -> String {
    let intent = &explanation.intent;
    let mut value = json!({
        "intent": intent.kind.name(),
        "target": intent.target.name(),
        "reason": intent.reason.to_string(),
    });
    if tokens {
        let list = explanation.tokens.iter().map(|token| {
            let text = String::from_utf8_lossy(&sql[token.range.clone()]);
            json!({ "text": text, "class": token.class, "note": token.note })
        });
        value["tokens"] = list.collect();
    }
    value.to_string()
}

fn as_text(sql: &[u8], explanation: &Explanation, tokens: bool) -> String {
    let intent = &explanation.intent;
    let mut out = format!("{:<10} {:<16} {}", intent.target.name(), intent.kind.name(), intent.reason);
    if tokens {
        for token in &explanation.tokens {
            let text = String::from_utf8_lossy(&sql[token.range.clone()]).escape_debug().to_string();
            out.push_str(&format!("\n    {text:<24} {:<16} {}", token.class, token.note));
        }
    }
    out
}

/// Undoes `\\`, `\n`, `\t` and `\r`; any other backslash stays as it is.
fn unescape(line: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(line.len());
    let mut rest = line;
    while let Some((&byte, after)) = rest.split_first() {
        let escaped = match (byte, after.first()) {
            (b'\\', Some(b'\\')) => Some(b'\\'),
            (b'\\', Some(b'n')) => Some(b'\n'),
            (b'\\', Some(b't')) => Some(b'\t'),
            (b'\\', Some(b'r')) => Some(b'\r'),
            _ => None,
        };
        out.push(escaped.unwrap_or(byte));
        rest = if escaped.is_some() { &after[1..] } else { after };
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_undone_once() {
        let check = |line: &str, expected: &str| assert_eq!(unescape(line.as_bytes()), expected.as_bytes());
        check(r"SELECT 1\n\t-- x\r", "SELECT 1\n\t-- x\r");
        check(r"SELECT '\\n'", r"SELECT '\n'");
        check(r"SELECT '\'' \", r"SELECT '\'' \");
        check("", "");
    }

    #[test]
    fn one_line_of_json_a_statement() {
        let explanation = classify::explain(b"SELECT\n1", &Mode::default());
        let line = as_json(b"SELECT\n1", &explanation, true);
        assert!(!line.contains('\n'), "{line}");
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert!(value["reason"].is_string() && value["tokens"].is_array());
    }
}
