//! Whether a primary that died at this moment would be replaced.

use super::controller::Controller;
use super::record::{Durability, Phase};
use super::watch::Watch;

impl Controller {
    /// Why too few replicas could prove that nothing acknowledged is lost. None where they could, in async mode, where
    /// only the moment can tell, and while the primary is being changed.
    pub fn unready(&self) -> Option<String> {
        let record = self.coordination.record.as_ref()?;
        if record.phase != Phase::Stable || record.durability != Durability::Lossless {
            return None;
        }
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
