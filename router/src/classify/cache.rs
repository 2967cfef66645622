//! Remembers what statements do: a fixed number of slots, no lock, no growth.

use std::sync::Arc;

use crate::intent::Intent;

/// How many slots a key may be in.
const WAYS: usize = 4;

/// Digest of the statement, and all else that its intent depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key {
    pub(super) digest: u128,
    /// The mode's bits and the catalogue's version; none where the intent holds for all of them.
    pub(super) ground: Option<(u16, u64)>,
}

impl Key {
    /// Whether what is known under this key answers for the other.
    fn answers(&self, other: &Self) -> bool {
        self.digest == other.digest && (self.ground == other.ground || self.ground.is_none())
    }
}

/// A cache with `WAYS` slots for each key; the one that was not used since the hand last passed makes room.
#[derive(Debug)]
pub(super) struct Cache {
    sets: Vec<Set>,
}

#[derive(Clone, Debug, Default)]
struct Set {
    slots: [Option<Slot>; WAYS],
    hand: u8,
}

#[derive(Clone, Debug)]
struct Slot {
    key: Key,
    intent: Arc<Intent>,
    used: bool,
}

impl Cache {
    /// A cache of at least `slots` statements.
    pub(super) fn new(slots: usize) -> Self {
        let sets = slots.div_ceil(WAYS).max(1).next_power_of_two();
        Self { sets: vec![Set::default(); sets] }
    }

    #[inline]
    pub(super) fn find(&mut self, key: &Key) -> Option<&Arc<Intent>> {
        let slots = self.set(key).slots.iter_mut();
        let slot = slots.flatten().find(|slot| slot.key.answers(key))?;
        slot.used = true;
        Some(&slot.intent)
    }

    pub(super) fn insert(&mut self, key: Key, intent: Arc<Intent>) {
        let set = self.set(&key);
        let replaces =
            |slot: &Slot| slot.key == key || (key.ground.is_none() && slot.key.digest == key.digest);
        for slot in set.slots.iter_mut().filter(|slot| slot.as_ref().is_some_and(replaces)) {
            *slot = None;
        }
        let at = set.make_room();
        set.slots[at] = Some(Slot { key, intent, used: false });
    }

    fn set(&mut self, key: &Key) -> &mut Set {
        // The digest is uniform, and the number of sets a power of two.
        let at = (key.digest as usize) & (self.sets.len() - 1);
        &mut self.sets[at]
    }
}

impl Set {
    /// The slot to use next: an empty one, else the first unused one from the hand on.
    fn make_room(&mut self) -> usize {
        if let Some(empty) = self.slots.iter().position(Option::is_none) {
            return empty;
        }
        loop {
            let at = usize::from(self.hand);
            self.hand = (self.hand + 1) % WAYS as u8;
            match &mut self.slots[at] {
                Some(slot) if slot.used => slot.used = false,
                Some(_) | None => return at,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::classify::draft::Draft;
    use crate::intent::Kind;

    fn key(digest: u128) -> Key {
        Key { digest, ground: Some((0, 0)) }
    }

    fn intent(reason: &str) -> Arc<Intent> {
        Arc::new(Draft::primary(Kind::Write, reason).finish(None))
    }

    #[track_caller]
    fn check(cache: &mut Cache, key: Key, expected: Option<&str>) {
        assert_eq!(cache.find(&key).map(|intent| intent.reason.0.to_string()).as_deref(), expected);
    }

    #[test]
    fn unused_slots_make_room() {
        let mut cache = Cache::new(4);
        for digest in 0..4 {
            cache.insert(key(digest), intent("old"));
        }
        for used in [0, 1, 3] {
            check(&mut cache, key(used), Some("old"));
        }
        cache.insert(key(9), intent("new"));
        check(&mut cache, key(2), None);
        for kept in [0, 1, 3] {
            check(&mut cache, key(kept), Some("old"));
        }
        check(&mut cache, key(9), Some("new"));
    }

    #[test]
    fn keys_are_compared_whole() {
        let mut cache = Cache::new(64);
        cache.insert(key(5), intent("a"));
        check(&mut cache, Key { digest: 5, ground: Some((1, 0)) }, None);
        check(&mut cache, Key { digest: 5, ground: Some((0, 1)) }, None);
        check(&mut cache, key(5 + (1 << 100)), None);
        cache.insert(Key { digest: 5, ground: None }, intent("b"));
        check(&mut cache, key(5), Some("b"));
        check(&mut cache, Key { digest: 5, ground: Some((1, 0)) }, Some("b"));
    }

    #[test]
    fn size_is_fixed() {
        let mut cache = Cache::new(10);
        for digest in 0..1_000 {
            cache.insert(key(digest), intent("x"));
        }
        let held = cache.sets.iter().flat_map(|set| &set.slots).flatten().count();
        assert_eq!(held, 16);
    }
}
