//! The environment and the command line as documents.

use super::json;
use super::tree::{Entry, Node, Spot, Value};
use crate::fault::{Fault, Place, Problem};
use crate::load::source::Flag;
use crate::nearest::nearest;
use crate::shape::Shape;

/// What every variable begins with.
const PREFIX: &str = "POINTSMAN_";

/// Settings that came by name, each with its place.
#[derive(Debug, Default)]
pub(crate) struct Named {
    pub(crate) entries: Vec<Entry>,
    pub(crate) places: Vec<Place>,
}

/// Reads the variables that are ours; those without `__` that are no option of the top level belong to others.
pub(crate) fn from_environment(
    environment: &[(String, String)],
    shape: &Shape,
    faults: &mut Vec<Fault>,
) -> Named {
    let mut named = Named::default();
    let mut ours: Vec<&(String, String)> =
        environment.iter().filter(|(name, _)| name.starts_with(PREFIX)).collect();
    ours.sort();
    for (name, value) in ours {
        let path = name[PREFIX.len()..].to_ascii_lowercase().replace("__", ".");
        let place = Place::Environment(name.clone());
        let nested = path.contains('.');
        match option(shape, &path) {
            Some(option) if nested || is_plain(option) => named.add(&path, option, &[value.as_str()], place),
            Some(_) => {}
            None if nested => faults.push(Fault {
                place,
                problem: Problem::UnknownKey { nearest: nearest(shape, &path).map(|path| variable(&path)) },
                key: path,
            }),
            None => {}
        }
    }
    named
}

/// Reads what the command line sets.
pub(crate) fn from_flags(flags: &[Flag], shape: &Shape, faults: &mut Vec<Fault>) -> Named {
    let mut named = Named::default();
    for flag in flags {
        let place = Place::Flag(flag.name.clone());
        let values: Vec<&str> = flag.values.iter().map(String::as_str).collect();
        match option(shape, &flag.key) {
            Some(option) => named.add(&flag.key, option, &values, place),
            None => faults.push(Fault {
                place,
                problem: Problem::UnknownKey { nearest: nearest(shape, &flag.key) },
                key: flag.key.clone(),
            }),
        }
    }
    named
}

/// The name of the variable that sets a key.
fn variable(path: &str) -> String {
    format!("{PREFIX}{}", path.replace('.', "__").to_ascii_uppercase())
}

/// What a key takes: its own shape, or plain text where it names a file with the value.
fn option<'a>(shape: &'a Shape, path: &str) -> Option<&'a Shape> {
    if let Some(found) = shape.find(path) {
        return Some(found);
    }
    let base = path.strip_suffix("_file")?;
    let key = base.rsplit('.').next().unwrap_or(base);
    shape.find(base).filter(|found| found.takes_file(key)).map(|_| &FILE_NAME)
}

const FILE_NAME: Shape = Shape::Text(crate::shape::Format::File);

/// Whether a variable without a section may set this option: sections are named by everybody's services.
fn is_plain(shape: &Shape) -> bool {
    match shape {
        Shape::Text(_) | Shape::Choice(_) | Shape::Integer { .. } | Shape::Boolean => true,
        Shape::List(item) => is_servers(item),
        Shape::Table(_) => false,
    }
}

/// Servers may be given as plain texts.
fn is_servers(item: &Shape) -> bool {
    item.child("address").is_some()
}

impl Named {
    fn add(&mut self, path: &str, shape: &Shape, values: &[&str], place: Place) {
        let spot = Spot(self.places.len());
        self.places.push(place);
        let mut keys: Vec<&str> = path.split('.').collect();
        let Some(last) = keys.pop() else { return };
        let mut entries = &mut self.entries;
        for key in keys {
            entries = section(entries, key, spot);
        }
        let node = Node { spot, value: convert(shape, values, spot) };
        entries.retain(|entry| entry.key != last);
        entries.push(Entry { key: last.to_owned(), spot, node });
    }
}

/// The entries of a table, which is made where it is missing.
fn section<'a>(entries: &'a mut Vec<Entry>, key: &str, spot: Spot) -> &'a mut Vec<Entry> {
    let at = entries.iter().position(|entry| entry.key == key).unwrap_or_else(|| {
        let node = Node { spot, value: Value::Table(Vec::new()) };
        entries.push(Entry { key: key.to_owned(), spot, node });
        entries.len() - 1
    });
    let value = &mut entries[at].node.value;
    if !matches!(value, Value::Table(_)) {
        *value = Value::Table(Vec::new());
    }
    match value {
        Value::Table(entries) => entries,
        Value::Null
        | Value::Text(_)
        | Value::Integer(_)
        | Value::Number(_)
        | Value::Boolean(_)
        | Value::Date(_)
        | Value::List(_) => unreachable!("just made a table"),
    }
}

/// The value that a text stands for; what does not fit stays text and is refused with the rest.
fn convert(shape: &Shape, values: &[&str], spot: Spot) -> Value {
    let text = values.last().copied().unwrap_or_default();
    let plain = || Value::Text(text.to_owned());
    match shape {
        Shape::Text(_) | Shape::Choice(_) => plain(),
        Shape::Integer { .. } => text.trim().parse().map_or_else(|_| plain(), Value::Integer),
        Shape::Boolean => text.trim().parse().map_or_else(|_| plain(), Value::Boolean),
        Shape::Table(_) => from_json(text, spot).unwrap_or_else(plain),
        Shape::List(_) if text.trim_start().starts_with('[') => from_json(text, spot).unwrap_or_else(plain),
        Shape::List(_) => Value::List(
            values
                .iter()
                .flat_map(|value| value.split(','))
                .map(str::trim)
                .filter(|item| !item.is_empty())
                .map(|item| Node { spot, value: Value::Text(item.to_owned()) })
                .collect(),
        ),
    }
}

fn from_json(text: &str, spot: Spot) -> Option<Value> {
    let parsed = json::parse(&format!("{{\"value\": {text}}}"));
    let node = parsed.entries.into_iter().next().filter(|_| parsed.errors.is_empty())?.node;
    Some(moved(node, spot).value)
}

/// The same value with everything in it at one place.
fn moved(node: Node, spot: Spot) -> Node {
    let value = match node.value {
        Value::List(items) => Value::List(items.into_iter().map(|item| moved(item, spot)).collect()),
        Value::Table(entries) => Value::Table(
            entries
                .into_iter()
                .map(|entry| Entry { key: entry.key, spot, node: moved(entry.node, spot) })
                .collect(),
        ),
        plain @ (Value::Null
        | Value::Text(_)
        | Value::Integer(_)
        | Value::Number(_)
        | Value::Boolean(_)
        | Value::Date(_)) => plain,
    };
    Node { spot, value }
}
