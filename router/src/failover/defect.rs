//! Mistakes that the controller can be told to make, so that its simulation can show that it would find them.

use super::controller::Controller;

/// See the module. Nothing but tests can ask for one: [`super::Settings`] has no place for it otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Defect {
    /// One acker fewer than N - k + 1 is taken for enough.
    QuorumOneShort,
    /// Ackers count although their receiving threads have not been stopped.
    ProveWithoutStopping,
    /// An acker that has restarted counts at once.
    CountRestartedAcker,
    /// A primary that has restarted may stand again in lossless mode.
    RestartedPrimaryStands,
    /// What a primary that has restarted amid a switchover says last is taken for all that was acknowledged.
    BelieveRestartedPrimary,
    /// A candidate is promoted before it has applied what it received.
    PromoteUnapplied,
    /// The receiving thread is stopped before the applying one is started.
    StopReceiverFirst,
    /// Former primaries and lost replicas stand for election before they have rejoined.
    StrayedStand,
    /// An old primary that still takes writes is taken for a proof of what was acknowledged.
    TrustWritablePrimary,
    /// What proxies have acknowledged is not asked for.
    IgnoreMarks,
    /// Leases of other proxies are not waited for.
    IgnoreLeases,
    /// The candidate is opened before the record says ACTIVE.
    OpenBeforeActive,
    /// A candidate that has lost what it wrote, which others have, is kept.
    KeepShortCandidate,
    /// An acker that the configuration names no more counts as stopped.
    CountUnlistedAcker,
    /// A primary whose writes did not end is taken again in the same life.
    StalledStands,
    /// Nobody goes on for an actor that has died.
    NeverTakeOver,
}

impl Controller {
    /// Whether this mistake is to be made.
    #[cfg(any(test, feature = "defects"))]
    pub(super) fn errs(&self, defect: Defect) -> bool {
        self.settings.defect == Some(defect)
    }

    /// Never outside of tests.
    #[cfg(not(any(test, feature = "defects")))]
    pub(super) const fn errs(&self, _: Defect) -> bool {
        false
    }
}
