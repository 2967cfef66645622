//! What a configuration is read from.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::tree::{Parsed, Spot, SyntaxError};
use super::{json, toml};
use crate::fault::{Fault, Place, Problem, ReadError};

/// Where to look for settings, from the weakest to the strongest.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// The file, with a directory `conf.d` beside it whose files are read in the order of their names.
    pub file: Option<PathBuf>,
    /// The environment: names and values.
    pub environment: Vec<(String, String)>,
    /// What the command line says.
    pub flags: Vec<Flag>,
}

/// An option given on the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flag {
    /// The flag with its dashes, for messages.
    pub name: String,
    /// The key that it sets, as in `listen.rw.address`.
    pub key: String,
    /// One value, or several for a list.
    pub values: Vec<String>,
}

/// A file of settings before it is parsed.
#[derive(Clone, Debug)]
pub(crate) struct Document {
    pub(crate) path: PathBuf,
    pub(crate) text: String,
}

/// Files of settings are not larger than this.
const MAX_FILE_BYTES: u64 = 4 << 20;

impl Sources {
    /// Reads the file and what lies in `conf.d` beside it.
    pub(crate) fn documents(&self, faults: &mut Vec<Fault>) -> Vec<Document> {
        let mut documents = Vec::new();
        let Some(file) = &self.file else { return documents };
        let directory = file.parent().unwrap_or(Path::new("")).join("conf.d");
        for path in std::iter::once(file.clone()).chain(fragments(&directory)) {
            match read_text(&path, MAX_FILE_BYTES) {
                Ok(text) => documents.push(Document { path, text }),
                Err(error) => faults.push(Fault {
                    place: Place::File(path),
                    key: String::new(),
                    problem: Problem::Unreadable(error),
                }),
            }
        }
        documents
    }
}

/// The files of a directory in the order of their names; those that begin with a dot belong to whoever mounts it.
fn fragments(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            let hidden = path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
            !hidden && path.is_file() && Language::of(path).is_some()
        })
        .collect();
    paths.sort();
    paths
}

enum Language {
    Toml,
    Json,
}

impl Language {
    fn of(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()? {
            "toml" => Some(Self::Toml),
            "json" => Some(Self::Json),
            _ => None,
        }
    }
}

impl Document {
    /// Parses the text by the file's extension; none for an extension that says nothing.
    pub(crate) fn parse(&self) -> Option<Parsed> {
        let text = self.text.as_str();
        Some(match Language::of(&self.path)? {
            Language::Toml => toml::parse(text),
            Language::Json => json::parse(text),
        })
    }

    /// Line and column of a byte of the text.
    pub(crate) fn place(&self, spot: Spot) -> Place {
        let (line, column) = self.line_and_column(spot);
        Place::Line { file: self.path.clone(), line, column }
    }

    pub(crate) fn line_and_column(&self, spot: Spot) -> (usize, usize) {
        let mut at = spot.0.min(self.text.len());
        while !self.text.is_char_boundary(at) {
            at -= 1;
        }
        let before = &self.text[..at];
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
    }

    pub(crate) fn syntax_fault(&self, error: SyntaxError) -> Fault {
        let place = self.place(error.spot);
        match error.duplicate {
            Some(key) => Fault { place, key, problem: Problem::GivenTwice },
            None => Fault { place, key: String::new(), problem: Problem::Syntax(error.message) },
        }
    }
}

/// Reads a whole file, which must be text of at most `limit` bytes; a byte order mark at its start is dropped.
pub(crate) fn read_text(path: &Path, limit: u64) -> Result<String, ReadError> {
    let file = File::open(path).map_err(|error| read_error(&error))?;
    if file.metadata().is_ok_and(|metadata| metadata.is_dir()) {
        return Err(ReadError::Directory);
    }
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes).map_err(|error| read_error(&error))?;
    if bytes.len() as u64 > limit {
        return Err(ReadError::TooLarge { limit });
    }
    let text = String::from_utf8(bytes).map_err(|_invalid| ReadError::NotText)?;
    Ok(text.strip_prefix('\u{feff}').map(ToOwned::to_owned).unwrap_or(text))
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the kinds of the standard library are without number")]
fn read_error(error: &io::Error) -> ReadError {
    match error.kind() {
        io::ErrorKind::NotFound => ReadError::Absent,
        io::ErrorKind::PermissionDenied => ReadError::Denied,
        io::ErrorKind::IsADirectory => ReadError::Directory,
        kind => ReadError::Other(kind),
    }
}

/// Whether users other than the owner and the group may read a file.
pub(crate) fn is_readable_by_others(path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(path).is_ok_and(|metadata| metadata.mode() & 0o004 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_columns_count_characters() {
        let document = Document { path: "p.toml".into(), text: "a = 1\nüü = x\n".to_owned() };
        let check = |offset: usize, expected: (usize, usize)| {
            assert_eq!(document.line_and_column(Spot(offset)), expected, "{offset}");
        };
        check(0, (1, 1));
        check(4, (1, 5));
        check(6, (2, 1));
        check(7, (2, 1));
        check(10, (2, 3));
        check(999, (3, 1));
    }
}
