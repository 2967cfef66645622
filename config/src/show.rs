//! The configuration in effect, for people: every value, where it comes from, and no secret.

use serde_json::{Map, Value};

use crate::fault::Place;
use crate::load::Origins;
use crate::model::Config;

/// The configuration as TOML that can be read back, secrets excepted; values that were written somewhere are
/// followed by their place.
pub fn to_toml(config: &Config, origins: &Origins) -> String {
    let mut text = String::new();
    if let Some(values) = to_json(config).as_object() {
        table(&mut text, values, "", "", origins);
    }
    text
}

/// The configuration as JSON, secrets masked.
pub fn to_json(config: &Config) -> Value {
    // Nothing in the model can fail to become JSON: keys are text and numbers are finite.
    serde_json::to_value(config).unwrap_or_default()
}

/// Writes a table: first its plain values, then the tables in it, as TOML wants it.
fn table(text: &mut String, values: &Map<String, Value>, header: &str, path: &str, origins: &Origins) {
    let join = |parent: &str, key: &str| match parent {
        "" => key.to_owned(),
        parent => format!("{parent}.{key}"),
    };
    for (key, value) in values {
        let Some(written) = plain(value) else { continue };
        let place = origins.place(&join(path, key));
        let comment = if place == Place::Nowhere { String::new() } else { format!("  # {place}") };
        text.push_str(&format!("{key} = {written}{comment}\n"));
    }
    for (key, value) in values {
        let (header, path) = (join(header, key), join(path, key));
        if let Some(values) = value.as_object() {
            if values.values().any(|value| plain(value).is_some()) {
                text.push_str(&format!("\n[{header}]\n"));
            }
            table(text, values, &header, &path, origins);
        }
        for (at, item) in tables(value).enumerate() {
            text.push_str(&format!("\n[[{header}]]\n"));
            table(text, item, &header, &format!("{path}[{at}]"), origins);
        }
    }
}

fn tables(value: &Value) -> impl Iterator<Item = &Map<String, Value>> {
    value.as_array().into_iter().flatten().filter_map(Value::as_object)
}

/// A value that fits in one line; none for tables, lists of tables and what is not set.
fn plain(value: &Value) -> Option<String> {
    match value {
        Value::Null | Value::Object(_) => None,
        Value::Bool(value) => Some(value.to_string()),
        Value::Number(number) => Some(number.to_string()),
        Value::String(text) => Some(toml::Value::String(text.clone()).to_string()),
        Value::Array(items) => {
            let items: Option<Vec<String>> = items.iter().map(plain).collect();
            items.map(|items| format!("[{}]", items.join(", ")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::{Sources, load};

    const TEXT: &str = r#"
servers = ["a", "b:1"]
user = "p"
password = "hunter2"
[listen.rw]
proxy_protocol = ["10.0.0.0/8"]
socket = "/run/\"odd\".sock"
[[server]]
address = "c"
weight = 3
[[user]]
name = "app"
password = "hunter2"
[[routing.rule]]
name = "r"
user = "app"
[admin]
token = "hunter2"
"#;

    fn load_text(text: &str) -> crate::load::Loaded {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("p.toml");
        std::fs::write(&file, text).unwrap();
        load(&Sources { file: Some(file), ..Sources::default() }).unwrap_or_else(|faults| panic!("{faults}"))
    }

    #[test]
    fn what_is_shown_can_be_read_back() {
        let loaded = load_text(TEXT);
        let shown = to_toml(&loaded.config, &loaded.origins);
        assert!(!shown.contains("hunter2"), "{shown}");
        let again = load_text(&shown);
        assert_eq!(to_json(&again.config), to_json(&loaded.config), "{shown}");
    }

    #[test]
    fn values_are_followed_by_their_place() {
        let loaded = load_text(TEXT);
        let shown = to_toml(&loaded.config, &loaded.origins);
        let check = |line: &str, place: &str| {
            let found = shown.lines().find(|found| found.starts_with(line)).unwrap_or_default();
            assert!(found.ends_with(place), "{line} {place}: {found}");
        };
        check("user = \"p\"", "p.toml:3:8");
        check("password = \"<hidden>\"", "p.toml:4:12");
        check("weight = 3", "p.toml:10:10");
        check("cluster = \"default\"", "\"default\"");
        check("proxy_protocol = [\"10.0.0.0/8\"]", "p.toml:6:18");
    }
}
