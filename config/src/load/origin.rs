//! Where each value of a configuration was written.

use std::collections::BTreeMap;

use super::check::Item;
use crate::fault::Place;

/// The places of all values that were written anywhere.
#[derive(Clone, Debug, Default)]
pub struct Origins {
    pub(super) places: BTreeMap<String, Place>,
    pub(super) servers: Vec<Item>,
    pub(super) users: Vec<Item>,
    pub(super) rules: Vec<Item>,
}

impl Origins {
    /// The place of a key, as in `listen.rw.address` or `servers[2].weight`; [`Place::Nowhere`] for a default.
    pub fn place(&self, key: &str) -> Place {
        self.locate(key).0
    }

    /// The place of a key, or of the nearest thing around it, and how the source calls it.
    pub(crate) fn locate(&self, key: &str) -> (Place, String) {
        let Some((item, rest)) = self.item(key) else {
            return (self.places.get(key).cloned().unwrap_or_default(), key.to_owned());
        };
        let place = item.places.get(rest).or_else(|| item.places.get("")).cloned().unwrap_or_default();
        let label = if rest.is_empty() { item.label.clone() } else { format!("{}.{rest}", item.label) };
        (place, label)
    }

    /// Whether anybody has written a value for this key.
    pub fn is_set(&self, key: &str) -> bool {
        match self.item(key) {
            Some((item, rest)) => item.places.contains_key(rest),
            None => self.places.contains_key(key),
        }
    }

    /// The first key, by name, that was written of those that begin so.
    pub(crate) fn first_of(&self, prefix: &str) -> Option<String> {
        let (key, _) = self.places.range(prefix.to_owned()..).next()?;
        key.starts_with(prefix).then(|| key.clone())
    }

    /// The item of a list that a key names, and the rest of the key.
    fn item<'a>(&self, key: &'a str) -> Option<(&Item, &'a str)> {
        let (list, after) = key.split_once('[')?;
        let (index, rest) = after.split_once(']')?;
        let items = match list {
            "servers" => &self.servers,
            "user_list" => &self.users,
            "routing.rule" => &self.rules,
            _ => return None,
        };
        Some((items.get(index.parse::<usize>().ok()?)?, rest.strip_prefix('.').unwrap_or(rest)))
    }
}
