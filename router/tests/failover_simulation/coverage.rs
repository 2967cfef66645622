//! Which faults met which phases.

use std::sync::atomic::{AtomicU64, Ordering};

use pointsman_router::failover::Phase;

use crate::scenario::{FAULTS, Fault};

const PHASES: [&str; 5] = ["no record", "STABLE", "FENCING", "CHOSEN", "ACTIVE"];

static COUNTS: [[AtomicU64; FAULTS.len()]; PHASES.len()] =
    [const { [const { AtomicU64::new(0) }; FAULTS.len()] }; PHASES.len()];

pub(crate) fn count(phase: Option<Phase>, fault: Fault) {
    let row = match phase {
        None => 0,
        Some(Phase::Stable) => 1,
        Some(Phase::Fencing) => 2,
        Some(Phase::Chosen) => 3,
        Some(Phase::Active) => 4,
    };
    let column = FAULTS.iter().position(|one| *one == fault).unwrap_or(0);
    COUNTS[row][column].fetch_add(1, Ordering::Relaxed);
}

/// One line for each fault, and the places that nothing has met.
pub(crate) fn table() -> (String, usize) {
    let mut text = format!("{:20}", "");
    let mut never = 0;
    for phase in PHASES {
        text += &format!("{phase:>10}");
    }
    for (column, fault) in FAULTS.iter().enumerate() {
        text += &format!("\n{:20}", format!("{fault:?}"));
        for (row, counts) in COUNTS.iter().enumerate() {
            let count = counts[column].load(Ordering::Relaxed);
            never += usize::from(count == 0 && row > 0);
            text += &format!("{count:>10}");
        }
    }
    (text, never)
}
