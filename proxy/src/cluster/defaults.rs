//! What a fresh session on the primary looks like, and where replicas differ from it.

use std::collections::BTreeMap;
use std::time::Duration;

use super::connection::{ConnectionError, ServiceConnection, is_on};
use super::flavour::Flavour;
use crate::backend::base_session::is_of;
use crate::shared::SessionDefaults;

/// Global values by variable.
pub(super) type Values = BTreeMap<String, String>;

/// Variables that change what a read answers, and that any account may set for its session.
const SHARED: [&str; 16] = [
    "sql_mode",
    "time_zone",
    "old_mode",
    "lc_time_names",
    "group_concat_max_len",
    "div_precision_increment",
    "default_week_format",
    "max_sort_length",
    "sql_auto_is_null",
    "sql_select_limit",
    "sql_safe_updates",
    "sql_notes",
    "max_error_count",
    "block_encryption_mode",
    "windowing_use_high_precision",
    "autocommit",
];

/// Variables of the primary that are needed for themselves.
const OWN: [&str; 6] = [
    "wait_timeout",
    "interactive_timeout",
    "max_allowed_packet",
    "character_set_client",
    "character_set_results",
    "collation_connection",
];

/// Reads the global values of one server.
///
/// # Errors
///
/// As [`ServiceConnection::rows`].
pub(super) async fn read(
    connection: &mut ServiceConnection,
    flavour: &dyn Flavour,
    limit: Duration,
) -> Result<Values, ConnectionError> {
    let names = SHARED.iter().chain(&OWN).copied();
    let names = names.chain([flavour.isolation_variable(), flavour.statement_limit_variable()]);
    let names: Vec<_> = names.map(|name| format!("'{name}'")).collect();
    let sql = format!("SHOW GLOBAL VARIABLES WHERE Variable_name IN ({})", names.join(", "));
    let rows = connection.rows(&sql, limit).await?;
    Ok(rows.iter().filter_map(|row| Some((row.at(0)?, row.at(1)?))).collect())
}

/// The defaults of the primary, with the variables in which at least one replica differs.
pub(super) fn compare(primary: &Values, replicas: &[Values]) -> SessionDefaults {
    let number = |name: &str| primary.get(name).and_then(|value| value.parse().ok()).unwrap_or_default();
    let differs = |name: &String, value: &String| {
        replicas.iter().any(|replica| replica.get(name).is_some_and(|v| v != value))
    };
    let variables = primary
        .iter()
        .filter(|(name, value)| !OWN.contains(&name.as_str()) && differs(name, value))
        .map(|(name, value)| (name.clone(), literal(value)))
        .collect();
    SessionDefaults {
        variables,
        sql_mode: primary.get("sql_mode").cloned().unwrap_or_default(),
        autocommit: primary.get("autocommit").is_none_or(|value| is_on(value)),
        wait_timeout_seconds: number("wait_timeout"),
        interactive_timeout_seconds: number("interactive_timeout"),
        max_allowed_packet: number("max_allowed_packet"),
        names: names(primary).unwrap_or_default(),
    }
}

/// The global character set, where one element says all of it.
fn names(values: &Values) -> Option<String> {
    let client = values.get("character_set_client")?;
    let collation = values.get("collation_connection")?;
    let whole = values.get("character_set_results") == Some(client) && is_of(collation, client);
    whole.then(|| format!("NAMES {} COLLATE {}", literal(client), literal(collation)))
}

/// The value as SQL text.
fn literal(value: &str) -> String {
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        value.to_owned()
    } else {
        format!("'{}'", value.replace('\\', "\\\\").replace('\'', "''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(text: &str) -> Values {
        text.split_whitespace()
            .filter_map(|pair| pair.split_once('='))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect()
    }

    #[test]
    fn names_what_differs() {
        let primary =
            values("sql_mode=ANSI time_zone=SYSTEM group_concat_max_len=1024 wait_timeout=60 autocommit=ON");
        let same = compare(&primary, std::slice::from_ref(&primary));
        assert_eq!(same.variables, []);
        assert_eq!((same.sql_mode.as_str(), same.autocommit, same.wait_timeout_seconds), ("ANSI", true, 60));
        let other =
            values("sql_mode=STRICT time_zone=SYSTEM group_concat_max_len=4 wait_timeout=5 autocommit=OFF");
        let differing = compare(&primary, &[primary.clone(), other]);
        let expected = [("autocommit", "'ON'"), ("group_concat_max_len", "1024"), ("sql_mode", "'ANSI'")]
            .map(|(n, v)| (n.into(), v.into()));
        assert_eq!(differing.variables, expected);
        // What one server does not know cannot be set there.
        assert_eq!(compare(&values("old_mode=x"), &[values("a=b")]).variables, []);
        assert!(!compare(&values("autocommit=OFF"), &[]).autocommit);
    }

    #[test]
    fn names_the_global_character_set() {
        let check = |text: &str, expected: &str| assert_eq!(compare(&values(text), &[]).names, expected);
        check(
            "character_set_client=utf8mb4 character_set_results=utf8mb4 collation_connection=utf8mb4_bin",
            "NAMES 'utf8mb4' COLLATE 'utf8mb4_bin'",
        );
        check(
            "character_set_client=utf8mb4 character_set_results=latin1 collation_connection=utf8mb4_bin",
            "",
        );
        check(
            "character_set_client=latin1 character_set_results=latin1 collation_connection=utf8mb4_bin",
            "",
        );
        check("autocommit=OFF", "");
    }
}
