//! MySQL's sets: intervals of transaction numbers for each source, which is a server's uuid and maybe a tag.
//!
//! Syntax: "GTID Sets" in MySQL's manual; tags since 8.3 (`uuid:1-5:tag:1-3:7`), lower-cased, at most 32 bytes.

use std::cmp::Ordering;
use std::fmt;

use super::{Fragment, GtidError, decimal};

/// Intervals by source, ordered by uuid and tag.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MysqlSet {
    sources: Vec<Source>,
}

/// What is known of one source.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Source {
    uuid: [u8; UUID_BYTES],
    tag: Tag,
    /// Ordered, apart from each other, never empty.
    intervals: Vec<Interval>,
}

/// Transaction numbers from `first` to `last`, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Interval {
    first: u64,
    last: u64,
}

/// A tag, filled up with zeros; the empty tag is the untagged source. Kept in place so that the GTID of an OK
/// packet is read without allocating.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Tag([u8; MAX_TAG_BYTES]);

impl MysqlSet {
    /// Adds the elements of text such as `3e11fa47-71ca-11e1-9e33-c80aa9429562:1-5:7:tag:1, ...`.
    ///
    /// # Errors
    ///
    /// [`GtidError::Set`] with the first element that is none.
    pub fn merge_text(&mut self, text: &[u8]) -> Result<(), GtidError> {
        for element in text.split(|&byte| byte == b',') {
            let element = element.trim_ascii();
            if !element.is_empty() {
                self.merge_element(element).ok_or(GtidError::Set(Fragment::new(element)))?;
            }
        }
        Ok(())
    }

    /// Makes this the union of both.
    pub fn merge(&mut self, other: &Self) {
        for source in &other.sources {
            match self.find(&source.uuid, source.tag) {
                Ok(at) => source.intervals.iter().for_each(|&interval| self.sources[at].add(interval)),
                Err(at) => self.sources.insert(at, source.clone()),
            }
        }
    }

    /// Whether everything in `other` is in here.
    pub fn contains(&self, other: &Self) -> bool {
        other.sources.iter().all(|theirs| {
            self.find(&theirs.uuid, theirs.tag).is_ok_and(|at| self.sources[at].contains(&theirs.intervals))
        })
    }

    /// What is in here and not in `other`.
    #[must_use]
    pub fn subtract(&self, other: &Self) -> Self {
        let left = |mine: &Source| {
            let intervals = match other.find(&mine.uuid, mine.tag) {
                Ok(at) => subtract(&mine.intervals, &other.sources[at].intervals),
                Err(_) => mine.intervals.clone(),
            };
            (!intervals.is_empty()).then_some(Source { uuid: mine.uuid, tag: mine.tag, intervals })
        };
        Self { sources: self.sources.iter().filter_map(left).collect() }
    }

    /// Whether the server `uuid` wrote any of it.
    pub fn names_author(&self, uuid: &str) -> bool {
        parse_uuid(uuid.as_bytes()).is_some_and(|uuid| self.sources.iter().any(|source| source.uuid == uuid))
    }

    /// Whether the server `uuid` wrote all of it.
    pub fn is_only_of(&self, uuid: &str) -> bool {
        parse_uuid(uuid.as_bytes()).is_some_and(|uuid| self.sources.iter().all(|source| source.uuid == uuid))
    }

    pub fn is_empty(&self) -> bool {
        self.sources.is_empty()
    }

    /// Adds one `uuid[:tag]:interval...` with any number of intervals and tags.
    fn merge_element(&mut self, element: &[u8]) -> Option<()> {
        let mut parts = element.split(|&byte| byte == b':').map(<[u8]>::trim_ascii);
        let uuid = parse_uuid(parts.next()?)?;
        let mut tag = Tag::NONE;
        // An uuid or a tag without an interval after it means nothing.
        let mut complete = false;
        for part in parts {
            if part.first()?.is_ascii_digit() {
                if let Some(interval) = Interval::parse(part)? {
                    self.add(&uuid, tag, interval);
                }
                complete = true;
            } else {
                tag = Tag::parse(part)?;
                complete = false;
            }
        }
        complete.then_some(())
    }

    fn add(&mut self, uuid: &[u8; UUID_BYTES], tag: Tag, interval: Interval) {
        match self.find(uuid, tag) {
            Ok(at) => self.sources[at].add(interval),
            Err(at) => self.sources.insert(at, Source { uuid: *uuid, tag, intervals: vec![interval] }),
        }
    }

    /// Where a source is, or where it belongs.
    fn find(&self, uuid: &[u8; UUID_BYTES], tag: Tag) -> Result<usize, usize> {
        self.sources.binary_search_by(|source| source.uuid.cmp(uuid).then(source.tag.cmp(&tag)))
    }
}

impl Source {
    fn add(&mut self, new: Interval) {
        // The usual case: the next transaction, or one that is known already.
        if let Some(end) = self.intervals.last_mut()
            && new.first >= end.first
            && new.first <= end.last.saturating_add(1)
        {
            end.last = end.last.max(new.last);
            return;
        }
        // Those that overlap or touch the new one become one with it.
        let from = self.intervals.partition_point(|known| known.last.saturating_add(1) < new.first);
        let to = self.intervals.partition_point(|known| known.first <= new.last.saturating_add(1));
        if from >= to {
            self.intervals.insert(from, new);
            return;
        }
        let first = new.first.min(self.intervals[from].first);
        let last = new.last.max(self.intervals[to - 1].last);
        self.intervals[from] = Interval { first, last };
        self.intervals.drain(from + 1..to);
    }

    fn contains(&self, others: &[Interval]) -> bool {
        others.iter().all(|other| {
            let at = self.intervals.partition_point(|mine| mine.last < other.first);
            self.intervals.get(at).is_some_and(|mine| mine.first <= other.first && other.last <= mine.last)
        })
    }
}

/// The parts of `mine` that no interval of `theirs` covers.
fn subtract(mine: &[Interval], theirs: &[Interval]) -> Vec<Interval> {
    let mut left = Vec::new();
    for interval in mine {
        let mut first = interval.first;
        let from = theirs.partition_point(|their| their.last < first);
        for hole in &theirs[from..] {
            if hole.first > interval.last || first > interval.last {
                break;
            }
            if hole.first > first {
                left.push(Interval { first, last: hole.first - 1 });
            }
            first = hole.last + 1;
        }
        if first <= interval.last {
            left.push(Interval { first, last: interval.last });
        }
    }
    left
}

impl Interval {
    /// Reads `n` or `n-m`. None for what is no interval; an inner none for one that is empty, as `5-3` is to
    /// servers.
    fn parse(text: &[u8]) -> Option<Option<Self>> {
        let (first, last) = match text.iter().position(|&byte| byte == b'-') {
            None => (decimal(text)?, decimal(text)?),
            Some(dash) => (decimal(text[..dash].trim_ascii())?, decimal(text[dash + 1..].trim_ascii())?),
        };
        if first == 0 || first > MAX_NUMBER || last > MAX_NUMBER {
            return None;
        }
        Some((first <= last).then_some(Self { first, last }))
    }
}

impl Tag {
    const NONE: Self = Self([0; MAX_TAG_BYTES]);

    /// A letter or underscore, then letters, digits and underscores.
    fn parse(text: &[u8]) -> Option<Self> {
        let starts = text.first().is_some_and(|&byte| byte.is_ascii_alphabetic() || byte == b'_');
        let continues = text.iter().all(|&byte| byte.is_ascii_alphanumeric() || byte == b'_');
        if !starts || !continues || text.len() > MAX_TAG_BYTES {
            return None;
        }
        let mut tag = Self::NONE;
        for (to, from) in tag.0.iter_mut().zip(text) {
            *to = from.to_ascii_lowercase();
        }
        Some(tag)
    }

    fn text(&self) -> &str {
        let len = self.0.iter().position(|&byte| byte == 0).unwrap_or(MAX_TAG_BYTES);
        // Only ASCII is let in.
        str::from_utf8(&self.0[..len]).unwrap_or_default()
    }
}

impl fmt::Debug for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.text(), f)
    }
}

impl fmt::Display for MysqlSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut written: Option<&[u8; UUID_BYTES]> = None;
        for source in &self.sources {
            if written != Some(&source.uuid) {
                if written.is_some() {
                    f.write_str(",")?;
                }
                write_uuid(f, &source.uuid)?;
                written = Some(&source.uuid);
            }
            if source.tag != Tag::NONE {
                write!(f, ":{}", source.tag.text())?;
            }
            for interval in &source.intervals {
                match interval.first.cmp(&interval.last) {
                    Ordering::Less => write!(f, ":{}-{}", interval.first, interval.last)?,
                    Ordering::Equal | Ordering::Greater => write!(f, ":{}", interval.first)?,
                }
            }
        }
        Ok(())
    }
}

fn write_uuid(f: &mut fmt::Formatter<'_>, uuid: &[u8; UUID_BYTES]) -> fmt::Result {
    for (at, byte) in uuid.iter().enumerate() {
        let dash = if matches!(at, 4 | 6 | 8 | 10) { "-" } else { "" };
        write!(f, "{dash}{byte:02x}")?;
    }
    Ok(())
}

/// Reads 32 hexadecimal digits with dashes between groups or none at all, as servers do.
fn parse_uuid(text: &[u8]) -> Option<[u8; UUID_BYTES]> {
    let dashed = text.len() == UUID_BYTES * 2 + 4;
    if !dashed && text.len() != UUID_BYTES * 2 {
        return None;
    }
    let mut uuid = [0; UUID_BYTES];
    let mut at = 0;
    for (index, byte) in uuid.iter_mut().enumerate() {
        if dashed && matches!(index, 4 | 6 | 8 | 10) {
            if text.get(at) != Some(&b'-') {
                return None;
            }
            at += 1;
        }
        *byte = hex(*text.get(at)?)? << 4 | hex(*text.get(at + 1)?)?;
        at += 2;
    }
    Some(uuid)
}

fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

const UUID_BYTES: usize = 16;
const MAX_TAG_BYTES: usize = 32;
/// GTIDs are numbered up to 2^63 - 2; one more is accepted as the open end of an interval.
const MAX_NUMBER: u64 = i64::MAX as u64;
