//! docs/configuration.md names every option, with its default and with when a change takes effect.

use pointsman_config::{Config, Reload, json_schema};
use serde_json::Value;

#[test]
fn the_document_has_a_row_for_every_option() {
    let document = include_str!("../../docs/configuration.md");
    let defaults = serde_json::to_value(Config::default()).expect("a plain model");
    let mut missing = Vec::new();
    for key in keys(&json_schema(), "") {
        let takes_effect = Reload::of(&key.replace("[[", "").replace("]]", "")).name();
        let written = key.replace("[[user_list]]", "[[user]]");
        let row = format!("| `{written}` | {} | {takes_effect} |", default(&defaults, &key));
        if !document.contains(&row) {
            missing.push(row);
        }
    }
    assert!(missing.is_empty(), "expected these rows in docs/configuration.md:\n{}", missing.join("\n"));
}

/// The options of a schema, without those that only name a file with another's value; list items are `[[name]]`.
fn keys(schema: &Value, path: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (key, property) in schema["properties"].as_object().into_iter().flatten() {
        let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        let names_a_file =
            key.strip_suffix("_file").is_some_and(|plain| schema["properties"][plain].is_object());
        if property["items"]["properties"].is_object() {
            found.extend(keys(&property["items"], &format!("[[{path}]]")));
        } else if property["properties"].is_object() {
            found.extend(keys(property, &path));
        } else if !names_a_file {
            found.push(path);
        }
    }
    found
}

fn default(defaults: &Value, key: &str) -> String {
    let value = key.split('.').try_fold(defaults, |value, key| value.get(key));
    match value {
        None | Some(Value::Null) => "–".to_owned(),
        Some(Value::String(text)) if text.is_empty() => "`\"\"`".to_owned(),
        Some(value) => format!("`{value}`"),
    }
}
