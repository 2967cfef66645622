//! What values an option takes, read off the schema, so that the model is written down once.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::schema::model_schema;

/// The values that a key takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    Table(BTreeMap<String, Self>),
    List(Box<Self>),
    Text(Format),
    /// One word of these.
    Choice(Vec<String>),
    Integer {
        minimum: i64,
        maximum: i64,
    },
    Boolean,
}

/// What a text must look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Plain,
    Secret,
    Duration,
    Size,
    Network,
    Ip,
    /// A path that need not exist.
    Path,
    /// The path of a file that is read when the process starts.
    File,
}

impl Shape {
    /// The shape of a whole file, as the model has it.
    pub(crate) fn of_config() -> Self {
        Self::of(&model_schema())
    }

    fn of(schema: &Value) -> Self {
        let schema = without_null(schema);
        if let Some(properties) = schema["properties"].as_object() {
            return Self::Table(
                properties.iter().map(|(key, value)| (key.clone(), Self::of(value))).collect(),
            );
        }
        let words = words(schema);
        if !words.is_empty() {
            return Self::Choice(words);
        }
        match kind(schema) {
            "array" => Self::List(Box::new(Self::of(&schema["items"]))),
            "integer" => integer(schema),
            "boolean" => Self::Boolean,
            _ => Self::Text(format(schema)),
        }
    }

    /// The shape of the key with this path; a list stands for its items.
    pub(crate) fn find(&self, path: &str) -> Option<&Self> {
        path.split('.').try_fold(self, |shape, key| shape.item().child(key))
    }

    pub(crate) fn child(&self, key: &str) -> Option<&Self> {
        match self {
            Self::Table(fields) => fields.get(key),
            Self::List(_) | Self::Text(_) | Self::Choice(_) | Self::Integer { .. } | Self::Boolean => None,
        }
    }

    fn item(&self) -> &Self {
        match self {
            Self::List(item) => item,
            Self::Table(_) | Self::Text(_) | Self::Choice(_) | Self::Integer { .. } | Self::Boolean => self,
        }
    }

    /// Whether the value may also be given as the name of a file that holds it, in an option `key_file`.
    pub(crate) fn takes_file(&self, key: &str) -> bool {
        matches!(self, Self::Text(_) | Self::Choice(_)) && !key.ends_with("_file")
    }

    pub(crate) fn is_secret(&self) -> bool {
        *self == Self::Text(Format::Secret)
    }

    /// What is expected, for people.
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::Table(_) => "a table".to_owned(),
            Self::List(item) => match item.as_ref() {
                Self::Table(_) => "a list of tables".to_owned(),
                Self::List(_) | Self::Text(_) | Self::Choice(_) | Self::Integer { .. } | Self::Boolean => {
                    "a list of texts".to_owned()
                }
            },
            Self::Text(format) => format.describe().to_owned(),
            Self::Choice(words) => format!("one of {}", words.join(", ")),
            Self::Integer { minimum, maximum } => format!("a number from {minimum} to {maximum}"),
            Self::Boolean => "true or false".to_owned(),
        }
    }
}

impl Format {
    fn describe(self) -> &'static str {
        match self {
            Self::Plain | Self::Secret => "text",
            Self::Duration => "a duration with a unit as in \"1s\"",
            Self::Size => "a size with a unit as in \"1MiB\"",
            Self::Network => "a network as in \"10.0.0.0/8\"",
            Self::Ip => "an IP address",
            Self::Path | Self::File => "a path",
        }
    }
}

/// The alternative of an optional value that is not null.
fn without_null(schema: &Value) -> &Value {
    let Some(alternatives) = schema["anyOf"].as_array() else { return schema };
    alternatives.iter().find(|alternative| kind(alternative) != "null").unwrap_or(schema)
}

fn kind(schema: &Value) -> &str {
    let of_list = || schema["type"].as_array()?.iter().filter_map(Value::as_str).find(|kind| *kind != "null");
    schema["type"].as_str().or_else(of_list).unwrap_or_default()
}

fn words(schema: &Value) -> Vec<String> {
    let listed = schema["enum"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let alternatives = schema["oneOf"].as_array().into_iter().flatten();
    let documented = alternatives.flat_map(|alternative| {
        let listed = alternative["enum"].as_array().into_iter().flatten().filter_map(Value::as_str);
        alternative["const"].as_str().into_iter().chain(listed)
    });
    listed.chain(documented).map(ToOwned::to_owned).collect()
}

fn integer(schema: &Value) -> Shape {
    let of_format = match schema["format"].as_str() {
        Some("uint16") => i64::from(u16::MAX),
        Some("uint32") => i64::from(u32::MAX),
        _ => i64::MAX,
    };
    Shape::Integer {
        minimum: schema["minimum"].as_i64().unwrap_or(0),
        maximum: schema["maximum"].as_i64().map_or(of_format, |maximum| maximum.min(of_format)),
    }
}

fn format(schema: &Value) -> Format {
    match schema["format"].as_str() {
        Some("password") => Format::Secret,
        Some("duration-with-unit") => Format::Duration,
        Some("size-with-unit") => Format::Size,
        Some("network") => Format::Network,
        Some("ip") => Format::Ip,
        Some("path") => Format::Path,
        Some("file") => Format::File,
        _ => Format::Plain,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_follow_the_model() {
        let shape = Shape::of_config();
        let check = |path: &str, expected: &Shape| assert_eq!(shape.find(path), Some(expected), "{path}");
        let words = |words: &[&str]| Shape::Choice(words.iter().map(|word| (*word).to_owned()).collect());
        check("cluster", &Shape::Text(Format::Plain));
        check("password", &Shape::Text(Format::Secret));
        check("admin.token", &Shape::Text(Format::Secret));
        check("admin.socket", &Shape::Text(Format::Path));
        check("tls.cert_file", &Shape::Text(Format::File));
        check("vip.address", &Shape::Text(Format::Ip));
        check("vip.port", &Shape::Integer { minimum: 1, maximum: 65535 });
        check("servers.weight", &Shape::Integer { minimum: 0, maximum: 65535 });
        check("servers.max_connections", &Shape::Integer { minimum: 1, maximum: i64::from(u32::MAX) });
        check("servers.promotion", &words(&["prefer", "neutral", "never"]));
        check("listen.rw.proxy_protocol", &Shape::List(Box::new(Shape::Text(Format::Network))));
        check(
            "routing.balance",
            &words(&["adaptive", "round_robin", "weighted_round_robin", "least_connections", "random"]),
        );
        check("listen.rw.consistency", &words(&["session", "eventual", "global"]));
        check("failover.replay_limit", &Shape::Text(Format::Size));
        check("user_list.listener", &words(&["rw", "ro"]));
        assert_eq!(shape.find("servers.nonsense"), None);
    }
}
