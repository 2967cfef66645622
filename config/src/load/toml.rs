//! TOML with the places of keys and values kept.

use std::borrow::Cow;

use toml::de::{DeTable, DeValue};

use super::tree::{Entry, Node, Parsed, Spot, SyntaxError, Value};

/// The key by which `[[user]]` is kept apart from `user = "..."`; as long as the word itself, so that places stay.
pub(crate) const USER_TABLES: &str = "USER";

/// Parses a document; what follows a syntax error is still read as far as it makes sense.
pub(crate) fn parse(text: &str) -> Parsed {
    let text = separate_user_tables(text);
    let (table, errors) = DeTable::parse_recoverable(&text);
    let errors = errors.iter().map(|error| SyntaxError {
        spot: Spot(error.span().map_or(0, |span| span.start)),
        duplicate: None,
        message: first_line(error.message()),
        unclosed: error.message().starts_with("unclosed"),
    });
    Parsed { errors: errors.collect(), entries: entries(table.get_ref()) }
}

/// TOML has one `user` at the top, and the configuration has two: the service account `user = "..."` and the
/// tables `[[user]]`. The tables get another name before the text is parsed.
fn separate_user_tables(text: &str) -> Cow<'_, str> {
    if !text.contains("[[") || text.contains("\"\"\"") || text.contains("'''") {
        return Cow::Borrowed(text);
    }
    let rename = |line: &str| match line.split_once("[[") {
        Some((before, after)) if before.trim().is_empty() => match after.split_once("]]") {
            Some((name, rest)) if name.trim() == "user" => {
                Some(format!("{before}[[{}]]{rest}", name.replace("user", USER_TABLES)))
            }
            _ => None,
        },
        _ => None,
    };
    if text.lines().all(|line| rename(line).is_none()) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(
        text.split_inclusive('\n').map(|line| rename(line).unwrap_or_else(|| line.to_owned())).collect(),
    )
}

fn first_line(message: &str) -> String {
    message.lines().next().unwrap_or_default().trim().to_owned()
}

fn entries(table: &DeTable<'_>) -> Vec<Entry> {
    let mut entries: Vec<Entry> = table
        .iter()
        .map(|(key, value)| Entry {
            key: key.get_ref().clone().into_owned(),
            spot: Spot(key.span().start),
            node: Node { spot: Spot(value.span().start), value: convert(value.get_ref()) },
        })
        .collect();
    entries.sort_by_key(|entry| entry.spot.0);
    entries
}

fn convert(value: &DeValue<'_>) -> Value {
    match value {
        DeValue::String(text) => Value::Text(text.clone().into_owned()),
        DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
            Ok(integer) => Value::Integer(integer),
            Err(_) => Value::Number(number.to_string()),
        },
        DeValue::Float(number) => Value::Number(number.to_string()),
        DeValue::Boolean(value) => Value::Boolean(*value),
        DeValue::Datetime(date) => Value::Date(date.to_string()),
        DeValue::Array(items) => Value::List(
            items
                .iter()
                .map(|item| Node { spot: Spot(item.span().start), value: convert(item.get_ref()) })
                .collect(),
        ),
        DeValue::Table(table) => Value::Table(entries(table)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(entries: &[Entry]) -> Vec<(&str, usize)> {
        entries.iter().map(|entry| (entry.key.as_str(), entry.spot.0)).collect()
    }

    #[test]
    fn the_service_account_and_the_tables_of_users_live_together() {
        let text = "user = \"p\"\n[[user]]\nname = \"a\"\n [[ user ]] # b\nname = \"b\"\n";
        let parsed = parse(text);
        assert_eq!(parsed.errors, []);
        assert_eq!(keys(&parsed.entries), [("user", 0), ("USER", 13)]);
        let Value::List(users) = &parsed.entries[1].node.value else { panic!("no list") };
        assert_eq!(users.len(), 2);
    }

    #[test]
    fn all_syntax_errors_are_reported() {
        let parsed = parse("a = \nb = 1\nc = 1x\n");
        assert!(parsed.errors.len() >= 2, "{:?}", parsed.errors);
        assert!(keys(&parsed.entries).contains(&("b", 5)));
    }
}
