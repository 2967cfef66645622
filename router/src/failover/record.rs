//! The one record of a cluster in the coordinator, changed only by compare-and-swap.
//!
//! `Stable -> Fencing -> Chosen -> Active -> Stable`; every arrow is one swap, and the epoch rises with every
//! `Fencing`. Servers are named as in the configuration: their order may differ between proxies.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::action::Step;
use crate::gtid::{GtidError, GtidSet};
use crate::intent::Flavour;

/// The version of the record's layout that this program writes; newer ones are left alone.
pub const RECORD_FORMAT: u32 = 1;

/// Past changes of the primary that are kept.
pub const HISTORY_LENGTH: usize = 50;

/// What all proxies of a cluster agree on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// See [`RECORD_FORMAT`].
    pub format: u32,
    /// Rises with every claim. A server connection belongs to one epoch.
    pub epoch: u64,
    pub phase: Phase,
    /// Who takes writes; while `Fencing` and `Chosen`, who took them before.
    pub primary: Option<String>,
    /// Who will take writes; set by the claim of a switchover, else from `Chosen` on.
    pub candidate: Option<String>,
    pub durability: Durability,
    /// The replicas whose acknowledgement `primary` may have counted: at least all that are attached to it.
    pub ackers: BTreeSet<String>,
    /// Acknowledgements that a transaction waits for.
    pub wait_for: u32,
    /// From `Chosen` on: what a candidate must hold. Everything acknowledged in earlier epochs is in it.
    #[serde(with = "position", default, skip_serializing_if = "GtidSet::is_empty")]
    pub floor: GtidSet,
    /// The lives (`Report::incarnation`) of the servers at the time of the claim: of the primary, and of the ackers that
    /// were known to hold everything from before. What has restarted since may have thrown away its relay log.
    #[serde(default)]
    pub lives: BTreeMap<String, u64>,
    /// The proxies that were registered at the time of the claim: what each has acknowledged must be known.
    #[serde(default)]
    pub witnesses: BTreeSet<ProxyId>,
    /// Servers that Pointsman brings under the primary: former primaries, and replicas that were away.
    #[serde(default)]
    pub strayed: BTreeSet<String>,
    pub kind: Kind,
    /// Transactions that may be lost, as an operator has accepted.
    #[serde(default)]
    pub accept_loss: bool,
    /// Writes on `primary` did not end although it answered: in the same life it is not taken again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stalled: bool,
    /// The proxy that acts; another one takes over by a swap that puts its own name here.
    pub actor: ProxyId,
    /// Why the phase is what it is, for people.
    pub reason: String,
    /// Automatic failover is switched off until an operator resumes it.
    #[serde(default)]
    pub paused: bool,
    /// Servers in maintenance: neither candidates, nor read from, nor a reason for a failover.
    #[serde(default)]
    pub maintenance: BTreeMap<String, Maintenance>,
    /// Servers that an operator has fenced: no client gets to them, and nobody makes replicas of them.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub fenced: BTreeSet<String>,
    /// The newest last.
    #[serde(default)]
    pub history: Vec<Past>,
}

/// See [`Record`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// `primary` takes writes.
    Stable,
    /// Nobody takes writes: acknowledgements are being taken away from `primary`.
    Fencing,
    /// Only `candidate` may be promoted in this epoch.
    Chosen,
    /// `primary` is the new one, and anybody may make it writable.
    Active,
}

/// What an acknowledged transaction survives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Durability {
    /// Every acknowledged transaction is in the relay logs of `wait_for` of the `ackers`.
    Lossless,
    /// Replicas may miss what was acknowledged last.
    Async,
}

/// Why the primary changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Planned: the primary takes part.
    Switchover,
    /// The primary was judged dead.
    Automatic,
    /// An operator said that the primary is dead.
    Forced,
}

/// Until when a server is in maintenance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Maintenance {
    /// How long, from when the record said so. Each proxy counts on its own clock from when it saw that.
    pub seconds: u64,
    /// Wall clock, milliseconds since 1970, for people and for a proxy that has just started.
    pub since_ms: u64,
    pub reason: String,
}

/// A change of the primary that has ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Past {
    pub epoch: u64,
    pub kind: Kind,
    pub from: Option<String>,
    pub to: String,
    /// Wall clock, milliseconds since 1970, for people and for a proxy that has just started.
    pub at_ms: u64,
    pub reason: String,
}

/// A proxy's name in the coordinator; unique for each start of the process.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ProxyId(pub String);

/// What the coordinator numbers the record's states with; zero is "there is no record".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub u64);

impl Record {
    /// How many ackers must be kept from acknowledging to be sure of every acknowledged transaction: N - k + 1.
    ///
    /// Every set of `wait_for` ackers then meets the stopped ones, and fewer than `wait_for` are left.
    pub fn quorum(&self) -> usize {
        let wait_for = usize::try_from(self.wait_for).unwrap_or(usize::MAX).max(1);
        (self.ackers.len() + 1).saturating_sub(wait_for).max(1)
    }

    /// What makes `primary` writable in the life in which it was promoted.
    pub(super) fn make_writable(&self) -> Step {
        let life = self.primary.as_ref().and_then(|name| self.lives.get(name)).copied().unwrap_or_default();
        Step::SetWritable { lossless: self.durability == Durability::Lossless, wait_for: self.wait_for, life }
    }

    /// Adds to the history, which is bounded.
    pub fn remember(&mut self, past: Past) {
        self.history.push(past);
        let excess = self.history.len().saturating_sub(HISTORY_LENGTH);
        self.history.drain(..excess);
    }
}

impl Durability {
    pub fn name(self) -> &'static str {
        match self {
            Self::Lossless => "lossless",
            Self::Async => "async",
        }
    }
}

impl Phase {
    pub fn name(self) -> &'static str {
        match self {
            Self::Stable => "STABLE",
            Self::Fencing => "FENCING",
            Self::Chosen => "CHOSEN",
            Self::Active => "ACTIVE",
        }
    }
}

impl std::fmt::Display for ProxyId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// Reads a position of either flavour: only MySQL's have colons.
fn parse_position(text: &str) -> Result<GtidSet, GtidError> {
    let flavour = if text.contains(':') { Flavour::Mysql } else { Flavour::Mariadb };
    GtidSet::parse(flavour, text)
}

/// Positions as the servers write them.
mod position {
    use super::{Deserialize, Deserializer, GtidSet, Serializer, parse_position};

    pub(super) fn serialize<S: Serializer>(position: &GtidSet, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(position)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<GtidSet, D::Error> {
        parse_position(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_record_is_stable_json() {
        let text = r#"{"format":1,"epoch":7,"phase":"chosen","primary":"db-1","candidate":"db-2","durability":"lossless","ackers":["db-2","db-3"],"wait_for":1,"floor":"0-1-42","lives":{"db-2":5},"witnesses":["x-1"],"strayed":["db-1"],"kind":"automatic","accept_loss":false,"actor":"x-1","reason":"connection refused","paused":false,"maintenance":{},"history":[]}"#;
        let record: Record = serde_json::from_str(text).unwrap();
        assert_eq!(record.floor, GtidSet::parse(Flavour::Mariadb, "0-1-42").unwrap());
        assert_eq!(serde_json::to_string(&record).unwrap(), text);
        // Fields of a later program are skipped, those that are younger than the record have their defaults.
        let text = text.replace(r#","history":[]"#, r#","later":3"#);
        assert_eq!(serde_json::from_str::<Record>(&text).unwrap(), record);
    }

    #[test]
    fn quorum() {
        let check = |ackers: usize, wait_for: u32, expected: usize| {
            let mut record: Record = serde_json::from_str(
                r#"{"format":1,"epoch":1,"phase":"stable","primary":null,"candidate":null,"durability":"lossless","ackers":[],"wait_for":1,"kind":"automatic","actor":"x","reason":""}"#,
            )
            .unwrap();
            record.ackers = (0..ackers).map(|at| at.to_string()).collect();
            record.wait_for = wait_for;
            assert_eq!(record.quorum(), expected, "{ackers} ackers, {wait_for} awaited");
        };
        check(2, 1, 2);
        check(3, 1, 3);
        check(3, 2, 2);
        check(4, 2, 3);
        check(5, 3, 3);
        // Nobody has acknowledged anything to nobody, but one replica must be left to be chosen.
        check(0, 1, 1);
    }
}
