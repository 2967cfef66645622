//! Whether a primary that died at this moment would be replaced.

use pointsman_config::FailoverMode;

use super::controller::Controller;
use super::record::{Durability, Phase, Record};
use super::watch::Watch;

impl Controller {
    /// Why it would not, as far as it can be told: too few replicas could prove that nothing acknowledged is lost, or too
    /// many servers are down already. None while the primary is being changed.
    pub fn unready(&self) -> Option<String> {
        let record = self.coordination.record.as_ref()?;
        if record.phase != Phase::Stable {
            return None;
        }
        // In async mode only the moment can tell what is proven.
        let unproven = (record.durability == Durability::Lossless).then(|| self.unproven(record)).flatten();
        unproven.or_else(|| self.outnumbered())
    }

    /// Most servers must be seen for the dead primary not to look like a fault of the proxy's own network.
    fn outnumbered(&self) -> Option<String> {
        if self.settings.mode != FailoverMode::Automatic {
            return None;
        }
        let down = |watch: &&Watch| watch.down(self.settings.failures);
        let (away, all) = (self.members().filter(down).count(), self.members().count());
        let primary_is_up = self.primary().and_then(|id| self.watch(id)).is_some_and(|watch| !down(&watch));
        (away > 0 && primary_is_up && (away + 1) * 2 > all).then(|| {
            format!(
                "{away} of {all} servers do not answer: with the primary too it would be most of them, \
                 and nobody would be promoted"
            )
        })
    }

    fn unproven(&self, record: &Record) -> Option<String> {
        let proves = |name: &&String| {
            self.find(name).and_then(|id| self.watch(id)).is_some_and(|watch| Watch::up(watch) && watch.whole)
        };
        let (whole, lacking): (Vec<_>, Vec<_>) = record.ackers.iter().partition(proves);
        if whole.len() >= record.quorum() {
            return None;
        }
        let lacking: Vec<_> = lacking.into_iter().map(String::as_str).collect();
        Some(format!(
            "{} of {} replicas that acknowledge are known to hold everything, {} are needed; missing: {}",
            whole.len(),
            record.ackers.len(),
            record.quorum(),
            lacking.join(", ")
        ))
    }
}
