//! From files, environment and flags to one checked configuration.
//!
//! Each source is parsed with its places kept and held against the schema by itself, so that every fault is found
//! where it stands. What is sound is laid over each other by figment; what concerns several keys is checked last.

mod check;
mod json;
mod names;
mod origin;
mod source;
mod toml;
mod tree;

use std::collections::BTreeSet;
use std::path::Path;

use figment::providers::Serialized;
use figment::value::{Dict, Map, Value as Figment};
use figment::{Figment as Layers, Metadata, Profile, Provider};

use self::check::{Checker, Item, Layer};
use self::names::Named;
pub use self::origin::Origins;
use self::source::Document;
pub use self::source::{Flag, Sources};
use self::tree::{Spot, SyntaxError};
use crate::fault::{Fault, Faults, Place, Problem, Warning};
use crate::model::Config;
use crate::shape::Shape;
use crate::validate;

/// A configuration without faults, and what was noticed on the way.
#[derive(Clone, Debug)]
pub struct Loaded {
    pub config: Config,
    pub warnings: Vec<Warning>,
    /// Files that options name and that cannot be read: warnings for `config check`, refused by `serve`.
    pub absent: Vec<Fault>,
    pub origins: Origins,
}

/// Reads, merges and checks a configuration.
///
/// # Errors
///
/// All faults of all sources, in the order of the sources and of their lines.
pub fn load(sources: &Sources) -> Result<Loaded, Faults> {
    let mut faults = Vec::new();
    let documents = sources.documents(&mut faults);
    load_documents(&documents, sources, faults)
}

fn load_documents(
    documents: &[Document],
    sources: &Sources,
    mut faults: Vec<Fault>,
) -> Result<Loaded, Faults> {
    let shape = Shape::of_config();
    let mut incomplete = !faults.is_empty();
    let mut layers = Vec::new();
    for document in documents {
        let layer = file_layer(document, &shape, &mut incomplete);
        faults.extend(layer.faults.iter().cloned());
        layers.push((Kind::File, layer));
    }
    let environment = names::from_environment(&sources.environment, &shape, &mut faults);
    let flags = names::from_flags(&sources.flags, &shape, &mut faults);
    for named in [environment, flags] {
        let layer = named_layer(named, &shape);
        faults.extend(layer.faults.iter().cloned());
        layers.push((Kind::Named, layer));
    }
    let merged = merge(layers);
    match merged.values.extract::<Config>() {
        Ok(mut config) => {
            let broken: BTreeSet<String> = faults.iter().map(|fault| fault.key.clone()).collect();
            validate::complete(&mut config, &merged.origins, &sources.environment);
            let found = validate::validate(&config, &merged.origins);
            faults.extend(found.faults.into_iter().filter(|fault| !incomplete && !touches(&broken, fault)));
            if faults.is_empty() {
                let mut warnings = merged.warnings;
                warnings.extend(found.warnings);
                return Ok(Loaded { config, warnings, absent: merged.absent, origins: merged.origins });
            }
        }
        Err(error) => faults.extend(error.into_iter().map(|error| Fault {
            place: Place::Nowhere,
            key: error.path.join("."),
            problem: Problem::Extraction(error.kind.to_string()),
        })),
    }
    Err(Faults(faults))
}

/// Whether a fault only follows from one that is already reported.
fn touches(broken: &BTreeSet<String>, fault: &Fault) -> bool {
    let about_servers = fault.problem == Problem::NoServer;
    broken.iter().any(|key| {
        let base = key.strip_suffix("_file").unwrap_or(key);
        fault.key == *key || fault.key == base || (about_servers && key.starts_with("server"))
    })
}

fn file_layer(document: &Document, shape: &Shape, incomplete: &mut bool) -> Layer {
    let Some(parsed) = document.parse() else {
        *incomplete = true;
        let place = Place::File(document.path.clone());
        let fault = Fault { place, key: String::new(), problem: Problem::UnknownFormat };
        return Layer { faults: vec![fault], ..Layer::default() };
    };
    let line = |spot| document.line_and_column(spot).0;
    let errors = telling(parsed.errors, line);
    *incomplete |= !errors.is_empty();
    let checker = Checker {
        shape,
        place: &|spot| document.place(spot),
        directory: document.path.parent().unwrap_or(Path::new("")),
        layer: Layer::default(),
    };
    let mut layer = checker.document(parsed.entries);
    // What the parser made of a line that it did not understand says nothing.
    let is_echo =
        |at| errors.iter().any(|error| line(error.spot) == at || (error.unclosed && line(error.spot) < at));
    layer.faults.retain(|fault| !matches!(fault.place, Place::Line { line, .. } if is_echo(line)));
    layer.faults.extend(errors.into_iter().map(|error| document.syntax_fault(error)));
    layer.faults.sort_by_key(|fault| match fault.place {
        Place::Line { line, column, .. } => (line, column),
        Place::Nowhere | Place::File(_) | Place::Environment(_) | Place::Flag(_) => (0, 0),
    });
    layer
}

/// The syntax errors that are not mere echoes: one a line, and the first alone where a bracket is never closed.
fn telling(mut errors: Vec<SyntaxError>, line: impl Fn(Spot) -> usize) -> Vec<SyntaxError> {
    errors.sort_by_key(|error| error.spot.0);
    if errors.iter().any(|error| error.unclosed) {
        errors.truncate(1);
        errors.iter_mut().for_each(|error| error.unclosed = true);
    }
    errors.dedup_by_key(|error| line(error.spot));
    errors
}

fn named_layer(named: Named, shape: &Shape) -> Layer {
    let places = named.places;
    let checker = Checker {
        shape,
        place: &|spot| places.get(spot.0).cloned().unwrap_or_default(),
        directory: Path::new(""),
        layer: Layer::default(),
    };
    checker.document(named.entries)
}

/// How a source's lists go together with those below it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// `[[server]]`, `[[user]]` and `[[routing.rule]]` of the file and of conf.d add up.
    File,
    /// Servers given by name take the place of all others.
    Named,
}

struct Merged {
    values: Layers,
    origins: Origins,
    warnings: Vec<Warning>,
    absent: Vec<Fault>,
}

fn merge(layers: Vec<(Kind, Layer)>) -> Merged {
    let mut values = Layers::from(Serialized::defaults(Config::default()));
    let mut origins = Origins::default();
    let (mut warnings, mut absent) = (Vec::new(), Vec::new());
    let (mut short, mut tables) = (Vec::new(), Vec::new());
    for (kind, layer) in layers {
        // What a stronger source says anew is no longer missing.
        absent.retain(|fault: &Fault| !layer.places.contains_key(base_of(&fault.key)));
        absent.extend(layer.absent);
        warnings.extend(layer.warnings);
        if let Some(servers) = layer.servers {
            short = servers;
            if kind == Kind::Named {
                tables.clear();
            }
        }
        tables.extend(layer.server_tables);
        origins.users.extend(layer.users);
        origins.rules.extend(layer.rules);
        origins.places.extend(layer.places);
        values = values.merge(Values(layer.values));
    }
    origins.servers = short.into_iter().chain(tables).collect();
    let list = |items: &[Item]| Figment::from(items.iter().map(|i| i.value.clone()).collect::<Vec<_>>());
    let mut lists = Dict::new();
    lists.insert("servers".to_owned(), list(&origins.servers));
    lists.insert("user_list".to_owned(), list(&origins.users));
    lists.insert("routing".to_owned(), Dict::from([("rule".to_owned(), list(&origins.rules))]).into());
    Merged { values: values.merge(Values(lists)), origins, warnings, absent }
}

fn base_of(key: &str) -> &str {
    key.strip_suffix("_file").unwrap_or(key)
}

/// Checked values as figment takes them.
struct Values(Dict);

impl Provider for Values {
    fn metadata(&self) -> Metadata {
        Metadata::named("configuration")
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(Map::from([(Profile::Default, self.0.clone())]))
    }
}

#[cfg(test)]
mod tests;
