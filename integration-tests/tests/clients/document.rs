//! docs/clients.md says of every client what was seen of it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::{env, fs};

use pointsman_integration_tests::{Flavour, Outcome};

use super::report::Report;

/// What the clients that have run did, by their names.
static SEEN: Mutex<BTreeMap<String, Seen>> = Mutex::new(BTreeMap::new());

#[derive(Clone, Debug, Default)]
struct Seen {
    /// Name and version, as the client tells them.
    title: String,
    /// By flavour, how many promises were kept and which the client has nothing for; TLS makes no difference.
    flavours: BTreeMap<&'static str, (usize, Vec<String>)>,
}

/// Takes note of a run through the proxy in which no promise was broken.
///
/// # Errors
///
/// When the client has kept other promises with TLS than without.
pub(crate) fn note(client: &str, flavour: Flavour, report: &Report) -> Outcome {
    let mut all = SEEN.lock().unwrap_or_else(PoisonError::into_inner);
    let seen = all.entry(client.to_owned()).or_default();
    seen.title.clone_from(&report.title);
    let did = (report.kept().len(), report.skipped());
    match seen.flavours.insert(name_of(flavour), did.clone()) {
        Some(before) if before != did => {
            Err(format!("expected {before:?} with and without TLS, got {did:?}").into())
        }
        Some(_) | None => Ok(()),
    }
}

/// Compares the table with what was seen, or writes it when `POINTSMAN_WRITE_DOCS` is set.
///
/// # Errors
///
/// When a row is missing or says something else.
pub(crate) fn is_true() -> Outcome {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/clients.md");
    let text = fs::read_to_string(&path)?;
    let (before, rest) = text.split_once(BEGIN).ok_or("no begin of the table in docs/clients.md")?;
    let (table, after) = rest.split_once(END).ok_or("no end of the table in docs/clients.md")?;
    let all = SEEN.lock().unwrap_or_else(PoisonError::into_inner).clone();
    if all.is_empty() {
        return Err("expected clients that have run before this, got none".into());
    }
    if env::var_os("POINTSMAN_WRITE_DOCS").is_some() {
        let rows: String = all.iter().map(|(name, seen)| seen.row(name)).collect();
        return Ok(fs::write(path, format!("{before}{BEGIN}\n{HEAD}{rows}{END}{after}"))?);
    }
    let wrong: Vec<String> = all
        .iter()
        .filter(|(name, seen)| {
            let found = table.lines().find(|line| line.starts_with(&format!("| `{name}` |")));
            !found.is_some_and(|row| seen.agrees(name, row))
        })
        .map(|(name, seen)| seen.row(name))
        .collect();
    if wrong.is_empty() {
        return Ok(());
    }
    let how = "run all clients with POINTSMAN_WRITE_DOCS=1 to write the table anew";
    Err(format!("expected these rows in docs/clients.md ({how}):\n{}", wrong.concat()).into())
}

impl Seen {
    fn row(&self, name: &str) -> String {
        let cells: Vec<String> = [Flavour::Mariadb, Flavour::Mysql]
            .map(|flavour| self.flavours.get(name_of(flavour)).map_or_else(|| "?".to_owned(), cell))
            .into();
        format!("| `{name}` | {} | {} |\n", self.title, cells.join(" | "))
    }

    /// Whether a row says the same of the flavours that were seen; a newer build of a version is the same.
    fn agrees(&self, name: &str, row: &str) -> bool {
        let (stated, own) = (cells(row), self.row(name));
        let seen = cells(&own);
        stated.len() == seen.len()
            && stated.iter().zip(&seen).enumerate().all(|(at, (stated, seen))| match at {
                1 => release(stated) == release(seen),
                _ => stated == seen || *seen == "?",
            })
    }
}

fn cell((kept, skipped): &(usize, Vec<String>)) -> String {
    if skipped.is_empty() { kept.to_string() } else { format!("{kept}; not {}", skipped.join(", ")) }
}

fn cells(row: &str) -> Vec<&str> {
    row.trim().trim_matches('|').split('|').map(str::trim).collect()
}

/// The title up to the second number of its version.
fn release(title: &str) -> String {
    title.splitn(3, '.').take(2).collect::<Vec<_>>().join(".")
}

fn name_of(flavour: Flavour) -> &'static str {
    match flavour {
        Flavour::Mariadb => "MariaDB",
        Flavour::Mysql => "MySQL",
    }
}

const BEGIN: &str = "<!-- written by the test of the clients -->";
const END: &str = "<!-- end -->";
const HEAD: &str = "\n| name | client | promises kept on MariaDB | on MySQL |\n|---|---|---|---|\n";
