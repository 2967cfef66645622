//! Holds one document against the schema: every fault is found, and what is sound goes on.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use figment::value::{Dict, Value as Figment};

use super::source::{is_readable_by_others, read_text};
use super::toml::USER_TABLES;
use super::tree::{Entry, Node, Spot, Value};
use crate::fault::{Fault, Notice, Place, Problem, ReadError, Warning};
use crate::nearest::{nearest, nearest_word};
use crate::schema::file_option;
use crate::shape::{Format, Shape};
use crate::units;

/// Files with a single value are not larger than this.
const MAX_VALUE_FILE_BYTES: u64 = 64 << 10;

/// What one document says, as far as it is sound.
#[derive(Debug, Default)]
pub(crate) struct Layer {
    pub(crate) values: Dict,
    /// `servers`, `server`, `user_list` and `routing.rule` with what each item is called in messages.
    pub(crate) servers: Option<Vec<Item>>,
    pub(crate) server_tables: Vec<Item>,
    pub(crate) users: Vec<Item>,
    pub(crate) rules: Vec<Item>,
    /// Where each key stands, by its path.
    pub(crate) places: BTreeMap<String, Place>,
    pub(crate) faults: Vec<Fault>,
    pub(crate) warnings: Vec<Warning>,
    /// Files that options name and that cannot be read.
    pub(crate) absent: Vec<Fault>,
}

/// An item of a list of tables.
#[derive(Clone, Debug)]
pub(crate) struct Item {
    pub(crate) value: Figment,
    /// Its path in the document, as in `server[1]`.
    pub(crate) label: String,
    /// The keys under the path that have a place.
    pub(crate) places: BTreeMap<String, Place>,
}

/// What a document is checked by.
pub(crate) struct Checker<'a> {
    pub(crate) shape: &'a Shape,
    pub(crate) place: &'a dyn Fn(Spot) -> Place,
    /// What relative paths are relative to.
    pub(crate) directory: &'a Path,
    pub(crate) layer: Layer,
}

impl Checker<'_> {
    /// Checks a whole document.
    pub(crate) fn document(mut self, entries: Vec<Entry>) -> Layer {
        let mut plain = Vec::new();
        for entry in entries {
            match (entry.key.as_str(), &entry.node.value) {
                ("servers", Value::List(_)) => {
                    let items = self.items("servers", "servers", short_servers(entry.node));
                    self.layer.servers = Some(items);
                }
                ("servers", _) => self.type_fault("servers", &entry.node, "a list as in [\"db-1:3306\"]"),
                ("server", Value::List(_)) => {
                    let items = self.items("servers", "server", entry.node);
                    self.layer.server_tables.extend(items);
                }
                ("server", _) => self.type_fault("server", &entry.node, "a list of tables, [[server]]"),
                ("user" | "user_list", Value::List(_)) | (USER_TABLES, _) => {
                    let label = if entry.key == "user_list" { "user_list" } else { "user" };
                    let items = self.items("user_list", label, entry.node);
                    self.layer.users.extend(items);
                }
                _ => plain.push(entry),
            }
        }
        let shape = self.shape;
        if let Shape::Table(fields) = shape {
            self.layer.values = self.table(fields, plain, "");
        }
        self.layer.rules = self.take_rules();
        self.layer
    }

    /// Takes `[[routing.rule]]` out of the values: those of several files add up.
    fn take_rules(&mut self) -> Vec<Item> {
        let Some(Figment::Dict(_, routing)) = self.layer.values.get_mut("routing") else { return Vec::new() };
        let Some(Figment::Array(_, rules)) = routing.remove("rule") else { return Vec::new() };
        let label = |at: usize| format!("routing.rule[{at}]");
        rules.into_iter().enumerate().map(|(at, value)| self.item(label(at), value)).collect()
    }

    fn item(&self, label: String, value: Figment) -> Item {
        let under = |(path, place): (&String, &Place)| {
            let rest = path.strip_prefix(label.as_str())?;
            Some((rest.strip_prefix('.').unwrap_or(rest).to_owned(), place.clone()))
        };
        let places = self.layer.places.range(label.clone()..).map_while(under).collect();
        Item { value, label, places }
    }

    fn items(&mut self, key: &str, label: &str, node: Node) -> Vec<Item> {
        let shape = self.shape;
        self.note(label, node.spot);
        let (Some(Shape::List(item)), Value::List(nodes)) = (shape.find(key), node.value) else {
            return Vec::new();
        };
        let mut items = Vec::new();
        for (at, node) in nodes.into_iter().enumerate() {
            let label = format!("{label}[{at}]");
            if let Some(value) = self.value(item, node, &label) {
                items.push(self.item(label, value));
            }
        }
        items
    }

    fn table(&mut self, fields: &BTreeMap<String, Shape>, entries: Vec<Entry>, path: &str) -> Dict {
        let mut dict = Dict::new();
        let mut from_file = BTreeSet::new();
        for entry in entries {
            let key = entry.key.as_str();
            let full = if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
            if entry.node.value == Value::Null {
                continue;
            }
            let base = key.strip_suffix("_file").filter(|base| {
                !fields.contains_key(key) && fields.get(*base).is_some_and(|field| field.takes_file(base))
            });
            let (name, value) = match (fields.get(key), base) {
                (Some(field), _) => (key, self.value(field, entry.node, &full)),
                (None, Some(base)) => (base, self.value_of_file(&fields[base], &entry.node, &full)),
                (None, None) => {
                    self.unknown(&full, entry.spot);
                    continue;
                }
            };
            let is_file = base.is_some();
            if dict.contains_key(name) || from_file.contains(name) {
                let other = if is_file { name.to_owned() } else { file_option(name) };
                self.fault(entry.spot, &full, Problem::ValueAndFile { other });
            }
            if is_file {
                from_file.insert(name.to_owned());
            }
            if let Some(value) = value {
                dict.insert(name.to_owned(), value);
            }
        }
        dict
    }

    fn unknown(&mut self, path: &str, spot: Spot) {
        let canonical = canonical(path);
        let found = nearest(self.shape, &canonical);
        let parent = |path: &str| path.rsplit_once('.').map(|(parent, _)| plain_path(parent));
        let nearest = found.map(|found| {
            let beside = parent(&found) == parent(&canonical);
            match found.rsplit_once('.') {
                Some((_, last)) if beside => last.to_owned(),
                _ => found,
            }
        });
        self.fault(spot, path, Problem::UnknownKey { nearest });
    }

    fn value(&mut self, shape: &Shape, node: Node, path: &str) -> Option<Figment> {
        self.note(path, node.spot);
        match (shape, node.value) {
            (Shape::Table(fields), Value::Table(entries)) => Some(self.table(fields, entries, path).into()),
            (Shape::List(item), Value::List(nodes)) => {
                let values = nodes.into_iter().enumerate();
                let values = values.filter_map(|(at, node)| self.value(item, node, &format!("{path}[{at}]")));
                Some(values.collect::<Vec<_>>().into())
            }
            (Shape::Boolean, Value::Boolean(value)) => Some(value.into()),
            (Shape::Integer { minimum, maximum }, Value::Integer(got)) => {
                if (*minimum..=*maximum).contains(&got) {
                    return Some(got.into());
                }
                self.fault(node.spot, path, Problem::Range { minimum: *minimum, maximum: *maximum, got });
                None
            }
            (Shape::Text(format), value) => self.text(*format, &Node { spot: node.spot, value }, path),
            (Shape::Choice(words), Value::Text(got)) => self.choice(words, got, node.spot, path),
            (shape, value) => {
                self.type_fault(path, &Node { spot: node.spot, value }, &shape.describe());
                None
            }
        }
    }

    fn choice(&mut self, words: &[String], got: String, spot: Spot, path: &str) -> Option<Figment> {
        if words.contains(&got) {
            return Some(got.into());
        }
        let nearest = nearest_word(&got, words.iter().map(String::as_str)).map(ToOwned::to_owned);
        self.fault(spot, path, Problem::Choice { expected: words.to_vec(), got, nearest });
        None
    }

    fn text(&mut self, format: Format, node: &Node, path: &str) -> Option<Figment> {
        let text = match (&node.value, format) {
            (Value::Text(text), _) => text,
            (Value::Integer(number), Format::Duration) => {
                let (error, got) = (units::UnitError::Duration, number.to_string());
                self.fault(node.spot, path, Problem::NoUnit { error, got, unit: "s" });
                return None;
            }
            (Value::Integer(number), Format::Size) => {
                let (error, got) = (units::UnitError::Size, number.to_string());
                self.fault(node.spot, path, Problem::NoUnit { error, got, unit: "B" });
                return None;
            }
            _ => {
                let shape = Shape::Text(format);
                self.type_fault(path, node, &shape.describe());
                return None;
            }
        };
        match format {
            Format::Path | Format::File | Format::Ip if text.is_empty() => None,
            Format::Path => Some(self.resolve(text).to_string_lossy().into_owned().into()),
            Format::File => {
                let file = self.resolve(text);
                if let Err(error) = can_be_opened(&file) {
                    self.absent(node.spot, path, file.clone(), error);
                }
                Some(file.to_string_lossy().into_owned().into())
            }
            Format::Plain
            | Format::Secret
            | Format::Duration
            | Format::Size
            | Format::Network
            | Format::Ip => self.formatted(format, text, node.spot, path),
        }
    }

    fn formatted(&mut self, format: Format, text: &str, spot: Spot, path: &str) -> Option<Figment> {
        let checked = match format {
            Format::Duration => units::parse_duration(text).map(drop),
            Format::Size => units::parse_size(text).map(drop),
            Format::Network => units::parse_network(text).map(drop),
            Format::Ip if text.parse::<IpAddr>().is_err() => {
                let (expected, got) = ("an IP address".to_owned(), format!("\"{text}\""));
                self.fault(spot, path, Problem::Type { expected, got });
                return None;
            }
            Format::Plain | Format::Secret | Format::Ip | Format::Path | Format::File => Ok(()),
        };
        let number = text.trim();
        let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
        match checked {
            Ok(()) => return Some(text.into()),
            Err(error) if is_number && format != Format::Network => {
                let unit = if format == Format::Size { "B" } else { "s" };
                self.fault(spot, path, Problem::NoUnit { error, got: number.to_owned(), unit });
            }
            Err(error) => self.fault(spot, path, Problem::Unit { error, got: text.to_owned() }),
        }
        None
    }

    /// Reads the value of an option from the file that its `_file` option names.
    fn value_of_file(&mut self, shape: &Shape, node: &Node, path: &str) -> Option<Figment> {
        self.note(path, node.spot);
        let Value::Text(name) = &node.value else {
            self.type_fault(path, node, "a path");
            return None;
        };
        let base = path.strip_suffix("_file").unwrap_or(path);
        self.note(base, node.spot);
        if name.is_empty() {
            return None;
        }
        let file = self.resolve(name);
        let mut text = match read_text(&file, MAX_VALUE_FILE_BYTES) {
            Ok(text) => text,
            Err(error @ (ReadError::Absent | ReadError::Denied)) => {
                self.absent(node.spot, path, file, error);
                return None;
            }
            Err(error) => {
                self.fault(node.spot, path, Problem::FileOption { file, error });
                return None;
            }
        };
        if text.ends_with('\n') {
            text.pop();
            if text.ends_with('\r') {
                text.pop();
            }
        }
        if shape.is_secret() && is_readable_by_others(&file) {
            let place = (self.place)(node.spot);
            let notice = Notice::ReadableByOthers { file };
            self.layer.warnings.push(Warning { place, key: path.to_owned(), notice });
        }
        self.value(shape, Node { spot: node.spot, value: Value::Text(text) }, base)
    }

    fn resolve(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    fn note(&mut self, path: &str, spot: Spot) {
        let place = (self.place)(spot);
        self.layer.places.insert(path.to_owned(), place);
    }

    fn absent(&mut self, spot: Spot, path: &str, file: PathBuf, error: ReadError) {
        let place = (self.place)(spot);
        let problem = Problem::FileOption { file, error };
        self.layer.absent.push(Fault { place, key: path.to_owned(), problem });
    }

    fn type_fault(&mut self, path: &str, node: &Node, expected: &str) {
        let secret = self.shape.find(&plain_path(&canonical(path))).is_some_and(Shape::is_secret);
        let got = if secret { node.value.kind().to_owned() } else { node.value.describe() };
        self.fault(node.spot, path, Problem::Type { expected: expected.to_owned(), got });
    }

    fn fault(&mut self, spot: Spot, path: &str, problem: Problem) {
        let place = (self.place)(spot);
        self.layer.faults.push(Fault { place, key: path.to_owned(), problem });
    }
}

/// `"host:port"` as a table with this address.
fn short_servers(node: Node) -> Node {
    let Value::List(items) = node.value else { return node };
    let items = items.into_iter().map(|item| match item.value {
        Value::Text(_) => {
            let spot = item.spot;
            let address = Entry { key: "address".to_owned(), spot, node: item };
            Node { spot, value: Value::Table(vec![address]) }
        }
        Value::Null
        | Value::Integer(_)
        | Value::Number(_)
        | Value::Boolean(_)
        | Value::Date(_)
        | Value::List(_)
        | Value::Table(_) => item,
    });
    Node { spot: node.spot, value: Value::List(items.collect()) }
}

/// The path in the model: in documents, and so in messages, the tables of servers are called `server`.
fn canonical(path: &str) -> String {
    match path.split_once(['[', '.']) {
        Some(("server", _)) => path.replacen("server", "servers", 1),
        Some(("user", rest)) if rest.contains(']') => path.replacen("user", "user_list", 1),
        _ => path.to_owned(),
    }
}

/// A path without its list indices.
fn plain_path(path: &str) -> String {
    let mut plain = String::with_capacity(path.len());
    let mut inside = false;
    for c in path.chars() {
        match c {
            '[' => inside = true,
            ']' => inside = false,
            _ if inside => {}
            other => plain.push(other),
        }
    }
    plain
}

fn can_be_opened(path: &Path) -> Result<(), ReadError> {
    match std::fs::File::open(path) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(ReadError::Absent),
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => Err(ReadError::Denied),
        Err(error) => Err(ReadError::Other(error.kind())),
    }
}
