//! Which proxies live, by what is seen of them here: clocks of different machines are never compared.

use std::collections::BTreeMap;
use std::time::Duration;

use pointsman_router::failover::Revision;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::super::Sessions;

/// What a proxy writes each time that it renews its session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Pulse {
    /// Rises, so that no two are the same.
    pub(super) beat: u64,
    #[serde(rename = "lease_ms", with = "millis")]
    pub(super) lease: Duration,
    pub(super) says: String,
}

impl Pulse {
    pub(super) fn write(&self) -> String {
        // Plain fields can always be written.
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// All proxies' pulses, and when each was seen to change.
#[derive(Debug, Default)]
pub(super) struct Pulses {
    version: Revision,
    known: BTreeMap<String, Seen>,
}

#[derive(Debug)]
struct Seen {
    pulse: Pulse,
    since: Instant,
}

impl Seen {
    fn end(&self) -> Instant {
        self.since + self.pulse.lease
    }
}

impl Pulses {
    /// The state of a version; one that was overtaken by a newer one says nothing.
    pub(super) fn take<'a>(
        &mut self,
        version: Revision,
        state: impl Iterator<Item = (&'a str, &'a String)>,
        now: Instant,
    ) {
        if version < self.version {
            return;
        }
        self.version = version;
        let mut before = std::mem::take(&mut self.known);
        for (proxy, text) in state {
            let Ok(pulse) = serde_json::from_str::<Pulse>(text) else { continue };
            let seen = before.remove(proxy).filter(|seen| seen.pulse == pulse);
            self.known.insert(proxy.to_owned(), seen.unwrap_or(Seen { pulse, since: now }));
        }
        // A word that somebody took away is no sign of death: its proxy lives until its lease has run out.
        before.retain(|_, seen| now < seen.end());
        self.known.append(&mut before);
    }

    /// Whose session has not run out, with what each says.
    pub(super) fn alive(&self, now: Instant) -> Sessions {
        let alive = self.known.iter().filter(|(_, seen)| now < seen.end());
        alive.map(|(proxy, seen)| (proxy.clone(), seen.pulse.says.clone())).collect()
    }

    /// When the next session runs out, unless it is renewed.
    pub(super) fn next_end(&self, now: Instant) -> Option<Instant> {
        self.known.values().map(Seen::end).filter(|end| now < *end).min()
    }

    /// Who has been silent for so long that it will not come back, and the version that says so.
    pub(super) fn forgotten(&self, now: Instant) -> (Vec<String>, Revision) {
        let gone =
            self.known.iter().filter(|(_, seen)| now >= seen.since + FORGOTTEN_AFTER * seen.pulse.lease);
        (gone.map(|(proxy, _)| proxy.clone()).collect(), self.version)
    }
}

mod millis {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(lease: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(u64::try_from(lease.as_millis()).unwrap_or(u64::MAX))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        u32::deserialize(deserializer).map(|millis| Duration::from_millis(millis.into()))
    }
}

/// In leases. Until then the word of a proxy that is gone stays where it was written.
const FORGOTTEN_AFTER: u32 = 10;

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_secs(3);

    fn take(pulses: &mut Pulses, version: u64, state: &[(&str, u64)], now: Instant) {
        let written = |beat| Pulse { beat, lease: LEASE, says: format!("says {beat}") }.write();
        let state: Vec<_> = state.iter().map(|(proxy, beat)| (*proxy, written(*beat))).collect();
        pulses.take(Revision(version), state.iter().map(|(proxy, text)| (*proxy, text)), now);
    }

    fn alive(pulses: &Pulses, now: Instant) -> Vec<String> {
        pulses.alive(now).into_keys().collect()
    }

    #[test]
    fn a_session_ends_a_lease_after_its_last_change_was_seen() {
        let (mut pulses, start) = (Pulses::default(), Instant::now());
        let at = |millis| start + Duration::from_millis(millis);
        take(&mut pulses, 1, &[("a", 1), ("b", 1)], start);
        take(&mut pulses, 2, &[("a", 2), ("b", 1)], at(2000));
        assert_eq!(pulses.alive(at(2999)).get("a").map(String::as_str), Some("says 2"));
        assert_eq!(alive(&pulses, at(2999)), ["a", "b"]);
        assert_eq!(pulses.next_end(at(2999)), Some(at(3000)));
        assert_eq!(alive(&pulses, at(3000)), ["a"]);
        assert_eq!(pulses.next_end(at(3000)), Some(at(5000)));
        assert_eq!(pulses.next_end(at(5000)), None);
        // It comes back by saying something new, not by being read again.
        take(&mut pulses, 3, &[("a", 2), ("b", 1)], at(6000));
        assert_eq!(alive(&pulses, at(6000)), [""; 0]);
        take(&mut pulses, 4, &[("a", 2), ("b", 2)], at(6000));
        assert_eq!(alive(&pulses, at(6000)), ["b"]);
    }

    #[test]
    fn what_was_overtaken_changes_nothing() {
        let (mut pulses, start) = (Pulses::default(), Instant::now());
        take(&mut pulses, 8, &[("a", 2)], start);
        take(&mut pulses, 7, &[("a", 1), ("b", 1)], start + LEASE / 2);
        assert_eq!(alive(&pulses, start + LEASE / 2), ["a"]);
        assert_eq!(alive(&pulses, start + LEASE), [""; 0]);
    }

    #[test]
    fn who_is_long_gone_is_forgotten_at_the_version_that_says_so() {
        let (mut pulses, start) = (Pulses::default(), Instant::now());
        take(&mut pulses, 8, &[("a", 2), ("b", 7)], start);
        take(&mut pulses, 9, &[("a", 3), ("b", 7)], start + LEASE);
        assert_eq!(pulses.forgotten(start + 9 * LEASE).0, [""; 0]);
        assert_eq!(pulses.forgotten(start + 10 * LEASE), (vec!["b".to_owned()], Revision(9)));
        // What was taken away by hand lives as long as if it had stayed.
        take(&mut pulses, 10, &[], start + LEASE);
        assert_eq!(alive(&pulses, start + LEASE * 3 / 2), ["a"]);
        assert_eq!(alive(&pulses, start + LEASE * 2), [""; 0]);
        take(&mut pulses, 11, &[], start + LEASE * 2);
        assert_eq!(pulses.forgotten(start + 99 * LEASE).0, [""; 0]);
    }

    #[test]
    fn what_is_no_pulse_is_no_session() {
        let (mut pulses, now) = (Pulses::default(), Instant::now());
        let texts = ["", "{}", "{\"beat\":1,\"lease_ms\":-1,\"says\":\"\"}", "by hand"].map(str::to_owned);
        pulses.take(Revision(1), texts.iter().map(|text| ("a", text)), now);
        assert_eq!(alive(&pulses, now), [""; 0]);
        let pulse = Pulse { beat: 7, lease: LEASE, says: "\u{e9}\n\"".into() };
        assert_eq!(serde_json::from_str::<Pulse>(&pulse.write()).ok(), Some(pulse));
    }
}
