//! Replicas that hold what the primary does not.

use std::time::Duration;

use super::observation::Report;
use crate::gtid::GtidSet;

/// How long a transaction must be missing on the primary before its holder counts as diverged.
///
/// MySQL shows a transaction as executed only after the engine's commit, which may be later than on a replica.
const CONFIRMED_AFTER: Duration = Duration::from_secs(1);

/// What is known of a replica's transactions beyond the primary's.
#[derive(Clone, Debug, Default)]
pub(crate) struct Divergence {
    /// What the replica held in its oldest report that has not been compared yet, and when that came.
    held: Option<(GtidSet, Duration)>,
    /// Transactions of the replica that the primary has not shown, and since when.
    ahead: Option<(GtidSet, Duration)>,
    /// Where the replica stood when the primary's own position went back.
    stranded_at: Option<GtidSet>,
}

impl Divergence {
    /// Takes what a report of the replica says that it holds.
    pub(crate) fn note(&mut self, replica: &GtidSet, noticed: Duration) {
        self.held.get_or_insert_with(|| (replica.clone(), noticed));
    }

    /// Compares with a report of the primary, which says something only if it was asked for after the replica's had come: so
    /// one of the replica is kept for it, as long as the primary may take to answer.
    pub(crate) fn compare(&mut self, primary: &GtidSet, asked: Duration, now: Duration) {
        if let Some((replica, _)) = self.held.take_if(|(_, noticed)| *noticed <= asked) {
            self.hold_against(&replica, primary, now);
        }
    }

    fn hold_against(&mut self, replica: &GtidSet, primary: &GtidSet, now: Duration) {
        if self.stranded_at.as_ref().is_some_and(|at| !replica.contains(at)) {
            self.stranded_at = None;
        }
        if let Some((missing, _)) = &mut self.ahead {
            let still = missing.subtract(primary);
            if !still.is_empty() && replica.contains(&still) {
                *missing = still;
                return;
            }
        }
        let missing = replica.subtract(primary);
        self.ahead = (!missing.is_empty()).then_some((missing, now));
    }

    /// The primary's position went back to before what this replica holds: equal numbers mean different
    /// transactions from now on, until the replica is set up anew.
    pub(crate) fn strand(&mut self, replica: &GtidSet) {
        // An older report would look like a replica that has been set up anew.
        self.held = None;
        if !replica.is_empty() {
            self.stranded_at = Some(replica.clone());
        }
    }

    /// Why the replica must not be read from, if so.
    ///
    /// `lossless` is a primary that shows transactions only after its replicas have acknowledged them: what it wrote they
    /// may have before, and if it dies then it never shows it.
    pub(crate) fn verdict(&self, now: Duration, lossless: Option<&Report>) -> Option<String> {
        if let Some(at) = &self.stranded_at {
            return Some(format!("the primary's position was reset; this replica still stands at {at}"));
        }
        let (missing, since) = self.ahead.as_ref()?;
        if now.saturating_sub(*since) < CONFIRMED_AFTER {
            return None;
        }
        if lossless.is_some_and(|primary| missing.is_only_of(primary.server_id, &primary.uuid)) {
            return None;
        }
        Some(format!("holds transactions that the primary does not have: {missing}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::intent::Flavour;

    const UUID: &str = "3e11fa47-71ca-11e1-9e33-c80aa9429562";

    /// What is thought of a replica that is ahead of server 1 for longer than it takes to be sure.
    fn check(flavour: Flavour, replica: &str, primary: &str, lossless: bool, diverged: bool) {
        let parse = |text| GtidSet::parse(flavour, text).expect("a position");
        let mut divergence = Divergence::default();
        divergence.note(&parse(replica), Duration::ZERO);
        divergence.compare(&parse(primary), Duration::ZERO, Duration::ZERO);
        let report = Report { server_id: 1, uuid: UUID.into(), ..Report::default() };
        let verdict = divergence.verdict(CONFIRMED_AFTER, lossless.then_some(&report));
        assert_eq!(verdict.is_some(), diverged, "{replica} against {primary}: {verdict:?}");
        assert_eq!(divergence.verdict(Duration::ZERO, None), None, "it is too early to be sure");
    }

    #[test]
    fn what_a_dead_primary_wrote_and_never_showed() {
        check(Flavour::Mariadb, "0-1-105", "0-1-104", true, false);
        check(Flavour::Mariadb, "0-1-105", "0-1-104", false, true);
        check(Flavour::Mariadb, "0-2-105", "0-1-104", true, true);
        check(Flavour::Mariadb, "0-1-105,1-2-7", "0-1-104", true, true);
        check(Flavour::Mysql, &format!("{UUID}:1-5"), &format!("{UUID}:1-4"), true, false);
        check(Flavour::Mysql, &format!("{UUID}:1-5"), &format!("{UUID}:1-4"), false, true);
        let other = UUID.replace('3', "4");
        check(Flavour::Mysql, &format!("{UUID}:1-5,{other}:1"), &format!("{UUID}:1-4"), true, true);
    }

    #[test]
    fn a_stranded_replica_stays_so_until_it_is_set_up_anew() {
        let parse = |text| GtidSet::parse(Flavour::Mariadb, text).expect("a position");
        let ms = Duration::from_millis;
        let mut divergence = Divergence::default();
        divergence.note(&parse("0-1-5"), ms(0));
        divergence.strand(&parse("0-1-9"));
        for (replica, at, stranded) in [("0-1-9", 100, true), ("0-1-2", 300, false)] {
            divergence.compare(&parse("0-1-2"), ms(at - 50), ms(at));
            divergence.note(&parse(replica), ms(at));
            divergence.compare(&parse("0-1-2"), ms(at + 50), ms(at + 50));
            assert_eq!(divergence.verdict(ms(at + 50), None).is_some(), stranded, "{replica}");
        }
    }

    #[test]
    fn a_slow_primary_is_compared_with_too() {
        let parse = |text| GtidSet::parse(Flavour::Mariadb, text).expect("a position");
        let ms = Duration::from_millis;
        let mut divergence = Divergence::default();
        // The replica answers every 100 ms, and the primary takes 250 ms.
        for at in (0..=2_000).step_by(50) {
            if at % 100 == 0 {
                divergence.note(&parse("0-1-9,1-2-1"), ms(at));
            }
            if at % 350 == 250 {
                divergence.compare(&parse("0-1-9"), ms(at - 250), ms(at));
            }
        }
        assert!(divergence.verdict(ms(2_000), None).is_some());
    }
}
