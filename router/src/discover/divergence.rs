//! Replicas that hold what the primary does not.

use std::time::Duration;

use crate::gtid::GtidSet;

/// How long a transaction must be missing on the primary before its holder counts as diverged.
///
/// MySQL shows a transaction as executed only after the engine's commit, which may be later than on a replica.
const CONFIRMED_AFTER: Duration = Duration::from_secs(1);

/// What is known of a replica's transactions beyond the primary's.
#[derive(Clone, Debug, Default)]
pub(crate) struct Divergence {
    /// Transactions of the replica that the primary has not shown, and since when.
    ahead: Option<(GtidSet, Duration)>,
    /// Where the replica stood when the primary's own position went back.
    stranded_at: Option<GtidSet>,
}

impl Divergence {
    /// Compares with a report of the primary that was asked for after the replica's report had come.
    pub(crate) fn compare(&mut self, replica: &GtidSet, primary: &GtidSet, now: Duration) {
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
        if !replica.is_empty() {
            self.stranded_at = Some(replica.clone());
        }
    }

    /// Why the replica must not be read from, if so.
    ///
    /// `lossless` names a primary that shows transactions only after its replicas have acknowledged them.
    pub(crate) fn verdict(&self, now: Duration, lossless: Option<&str>) -> Option<String> {
        if let Some(at) = &self.stranded_at {
            return Some(format!("the primary's position was reset; this replica still stands at {at}"));
        }
        let (missing, since) = self.ahead.as_ref()?;
        if now.saturating_sub(*since) < CONFIRMED_AFTER {
            return None;
        }
        if lossless.is_some_and(|uuid| all_from(missing, uuid)) {
            return None;
        }
        Some(format!("holds transactions that the primary does not have: {missing}"))
    }
}

/// Whether every transaction of a MySQL set was made by the server `uuid`.
fn all_from(set: &GtidSet, uuid: &str) -> bool {
    let uuid = uuid.to_lowercase();
    !uuid.is_empty() && set.to_string().to_lowercase().split(',').all(|part| part.trim().starts_with(&uuid))
}
