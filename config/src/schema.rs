//! The JSON schema of the configuration: what editors complete by and what the chart is checked against.

use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use crate::model::Config;
use crate::reload::Reload;

/// The schema of the files, in JSON Schema draft 7.
pub fn json_schema() -> Value {
    let mut schema = model_schema();
    add_reload(&mut schema, "");
    add_file_options(&mut schema);
    add_short_forms(&mut schema);
    if let Some(root) = schema.as_object_mut() {
        root.insert("title".to_owned(), json!("Pointsman"));
    }
    schema
}

/// The schema of [`Config`] itself, without the other ways of writing it that files may use.
pub(crate) fn model_schema() -> Value {
    let settings = SchemaSettings::draft07().with(|settings| settings.inline_subschemas = true);
    settings.into_generator().into_root_schema_for::<Config>().to_value()
}

/// The name of the option that holds the name of a file with the value of `key`.
pub(crate) fn file_option(key: &str) -> String {
    format!("{key}_file")
}

/// Marks each option with when a change of it takes effect.
fn add_reload(schema: &mut Value, path: &str) {
    let Some(schema) = schema.as_object_mut() else { return };
    if let Some(items) = schema.get_mut("items") {
        add_reload(items, path);
    }
    let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) else {
        if !path.is_empty() && !schema.contains_key("items") {
            schema.insert("x-reload".to_owned(), json!(Reload::of(path).name()));
        }
        return;
    };
    for (key, property) in properties {
        let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        if property.get("items").is_some_and(|items| items.get("properties").is_none()) {
            property["x-reload"] = json!(Reload::of(&path).name());
        } else {
            add_reload(property, &path);
        }
    }
}

/// Adds `x_file` beside every text option `x`.
fn add_file_options(schema: &mut Value) {
    if let Some(items) = schema.get_mut("items") {
        add_file_options(items);
    }
    let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) else { return };
    let mut added = Map::new();
    for (key, property) in properties.iter_mut() {
        add_file_options(property);
        let name = file_option(key);
        if takes_file(key, property) {
            let reload = property.get("x-reload").cloned().unwrap_or_default();
            let description = format!("The name of a file that holds `{key}`.");
            added.insert(
                name,
                json!({ "type": "string", "format": "file", "description": description, "x-reload": reload }),
            );
        }
    }
    for (key, property) in added {
        properties.entry(key).or_insert(property);
    }
}

fn takes_file(key: &str, property: &Value) -> bool {
    let is_text = |schema: &Value| {
        let kind = &schema["type"];
        kind == "string" || kind.as_array().is_some_and(|kinds| kinds.contains(&json!("string")))
    };
    let alternatives = ["anyOf", "oneOf"].into_iter().filter_map(|name| property[name].as_array()).flatten();
    !key.ends_with("_file") && (is_text(property) || alternatives.into_iter().any(is_text))
}

/// Allows `servers = ["host:port"]`, `[[server]]` and `[[user]]`.
fn add_short_forms(schema: &mut Value) {
    let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) else { return };
    let (Some(servers), Some(users)) =
        (properties.get("servers").cloned(), properties.get("user_list").cloned())
    else {
        return;
    };
    if let Some(user) = properties.get_mut("user") {
        let service = user.clone();
        *user = json!({ "anyOf": [service, users] });
    }
    let item = servers["items"].clone();
    if let Some(list) = properties.get_mut("servers") {
        list["items"] = json!({ "anyOf": [{ "type": "string" }, item] });
    }
    properties.insert("server".to_owned(), servers);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_option_is_documented_in_the_schema() {
        let schema = json_schema();
        let check = |pointer: &str, expected: Value| {
            assert_eq!(schema.pointer(pointer), Some(&expected), "{pointer}");
        };
        check("/additionalProperties", json!(false));
        check("/properties/password_file/format", json!("file"));
        check("/properties/pool/properties/acquire_timeout/format", json!("duration-with-unit"));
        check("/properties/pool/properties/acquire_timeout_file/type", json!("string"));
        check("/properties/pool/properties/acquire_timeout/default", json!("5s"));
        check("/properties/pool/properties/max_connections/x-reload", json!("restart"));
        check("/properties/pool/properties/idle_timeout/x-reload", json!("live"));
        check("/properties/listen/properties/rw/properties/proxy_protocol/x-reload", json!("restart"));
        check("/properties/servers/items/anyOf/0/type", json!("string"));
        check("/properties/server/items/properties/weight/maximum", json!(65535));
        check("/properties/user/anyOf/1/type", json!("array"));
        check("/properties/tls/properties/cert_file/format", json!("file"));
        assert_eq!(schema.pointer("/properties/tls/properties/cert_file_file"), None);
    }
}
