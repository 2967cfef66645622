//! The valid name that somebody meant.

use crate::schema::file_option;
use crate::shape::Shape;

/// Shorter names, as `port` or `mode`, say too little to be looked for in other sections.
const TELLING_NAME_BYTES: usize = 6;

/// The valid key nearest to an unknown one: beside it, else of the same name in another section.
pub(crate) fn nearest(shape: &Shape, path: &str) -> Option<String> {
    let keys: Vec<&str> = path.split('.').collect();
    let mut here = shape;
    let mut valid: Vec<String> = Vec::new();
    for key in &keys {
        let key = key.split('[').next().unwrap_or(key);
        let siblings = keys_of(here);
        let Some(next) = here.child(key).or_else(|| list_item(here)?.child(key)) else {
            let beside = nearest_word(key, siblings.iter().map(String::as_str));
            let elsewhere = (key.len() >= TELLING_NAME_BYTES).then(|| elsewhere(shape, "", key)).flatten();
            return match (beside, elsewhere) {
                (Some(word), None) => {
                    valid.push(word.to_owned());
                    valid.extend(keys[valid.len()..].iter().map(|key| (*key).to_owned()));
                    Some(valid.join("."))
                }
                (_, elsewhere) => elsewhere,
            };
        };
        valid.push(key.to_owned());
        here = next;
    }
    None
}

/// The word nearest to another, if it is near enough to be a slip of the keyboard.
pub(crate) fn nearest_word<'a>(word: &str, words: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let slips = |other: &str| strsim::damerau_levenshtein(&normal(word), &normal(other));
    words
        .map(|other| (slips(other), other))
        .filter(|(slips, other)| *slips <= (word.len().min(other.len()) / 3).max(1))
        .min()
        .map(|(_, other)| other)
}

fn normal(word: &str) -> String {
    word.to_ascii_lowercase().replace('-', "_")
}

/// The keys of a table, with those that name a file with the value.
fn keys_of(shape: &Shape) -> Vec<String> {
    let Shape::Table(fields) = list_item(shape).unwrap_or(shape) else { return Vec::new() };
    let files = fields.iter().filter(|(key, field)| field.takes_file(key)).map(|(key, _)| file_option(key));
    fields.keys().cloned().chain(files).collect()
}

fn list_item(shape: &Shape) -> Option<&Shape> {
    match shape {
        Shape::List(item) => Some(item),
        Shape::Table(_) | Shape::Text(_) | Shape::Choice(_) | Shape::Integer { .. } | Shape::Boolean => None,
    }
}

/// A key of exactly this name in any section.
fn elsewhere(shape: &Shape, path: &str, name: &str) -> Option<String> {
    let Shape::Table(fields) = list_item(shape).unwrap_or(shape) else { return None };
    fields.iter().find_map(|(key, field)| {
        let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        if key == name && !matches!(field, Shape::Table(_)) {
            return Some(path);
        }
        elsewhere(field, &path, name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_corrected() {
        let shape = Shape::of_config();
        let check = |path: &str, expected: Option<&str>| {
            assert_eq!(nearest(&shape, path).as_deref(), expected, "{path}");
        };
        check("routing.balnce", Some("routing.balance"));
        check("routng.balance", Some("routing.balance"));
        check("routing.read-wait", Some("routing.read_wait"));
        check("pasword_file", Some("password_file"));
        check("admin.token_fil", Some("admin.token_file"));
        check("servers[1].adress", Some("servers.address"));
        check("interval", Some("monitor.interval"));
        check("pool.hold_timeout", Some("routing.hold_timeout"));
        check("lsten", Some("listen"));
        check("banana", None);
        check("x", None);
    }
}
