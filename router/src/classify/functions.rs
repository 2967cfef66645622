//! Which built-in functions are pure: without effects, and with the same answer on every server.

use std::collections::HashMap;
use std::sync::LazyLock;

use crate::intent::Flavour;

static BOTH: &str = include_str!("functions/both.txt");
static MARIADB: &str = include_str!("functions/mariadb.txt");
static MYSQL: &str = include_str!("functions/mysql.txt");

/// The longest name in the lists, in bytes.
pub(super) const MAX_NAME_BYTES: usize = 32;

/// What makes a call of a listed name the built-in function, and not a stored one of that name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Condition {
    Always,
    /// The parenthesis stands directly behind the name, or IGNORE_SPACE is on.
    Adjacent,
    /// At least one argument.
    Arguments,
    TwoArguments,
    /// A COLUMNS clause.
    Table,
    /// Built in, or loadable, in some versions only: the catalogue is known and has no function of the name.
    Catalogue,
}

type Names = HashMap<&'static [u8], Condition>;

static MARIADB_NAMES: LazyLock<Names> = LazyLock::new(|| names(&[BOTH, MARIADB]));
static MYSQL_NAMES: LazyLock<Names> = LazyLock::new(|| names(&[BOTH, MYSQL]));

/// Under which condition a lower-case name calls a pure built-in function of the flavour.
pub(super) fn pure(flavour: Flavour, name: &[u8]) -> Option<Condition> {
    match flavour {
        Flavour::Mariadb => MARIADB_NAMES.get(name).copied(),
        Flavour::Mysql => MYSQL_NAMES.get(name).copied(),
    }
}

/// Whether a gap between this name, in any case, and a parenthesis changes what is called.
pub(super) fn needs_adjacency(name: &[u8]) -> bool {
    let mut lower = [0; MAX_NAME_BYTES];
    let Some(lower) = lower.get_mut(..name.len()) else { return false };
    lower.copy_from_slice(name);
    lower.make_ascii_lowercase();
    [&*MARIADB_NAMES, &*MYSQL_NAMES].iter().any(|names| names.get(&*lower) == Some(&Condition::Adjacent))
}

fn names(files: &[&'static str]) -> Names {
    files.iter().flat_map(|file| file.lines()).filter_map(entry).collect()
}

fn entry(line: &'static str) -> Option<(&'static [u8], Condition)> {
    if line.starts_with('#') {
        return None;
    }
    let mut words = line.split_ascii_whitespace();
    let name = words.next()?;
    let condition = match words.next() {
        None => Condition::Always,
        Some("adjacent") => Condition::Adjacent,
        Some("arguments") => Condition::Arguments,
        Some("two-arguments") => Condition::TwoArguments,
        Some("table") => Condition::Table,
        // Anything else is a slip in the file, which a test finds; the narrowest condition is safe.
        Some(_) => Condition::Catalogue,
    };
    Some((name.as_bytes(), condition))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_in_order() {
        for file in [BOTH, MARIADB, MYSQL] {
            for line in file.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
                let words: Vec<&str> = line.split(' ').collect();
                assert!(words[0].len() <= MAX_NAME_BYTES, "{line}");
                assert_eq!(words[0], words[0].to_ascii_lowercase(), "{line}");
                let known = ["adjacent", "arguments", "two-arguments", "table", "catalogue"];
                assert!(words.len() == 1 || (words.len() == 2 && known.contains(&words[1])), "{line}");
            }
        }
    }

    #[test]
    fn functions_with_effects_or_ties_are_not_listed() {
        for name in include_str!("functions/unlisted.txt").lines().filter(|line| !line.starts_with('#')) {
            let name = name.split(':').next().unwrap_or_default().trim();
            for flavour in [Flavour::Mariadb, Flavour::Mysql] {
                assert_eq!(pure(flavour, name.as_bytes()), None, "{name}");
            }
        }
    }
}
