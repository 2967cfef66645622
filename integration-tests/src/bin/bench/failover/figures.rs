//! Least, middle and greatest of some figures.

use std::fmt;
use std::time::Duration;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Figures {
    pub(crate) least: f64,
    pub(crate) median: f64,
    pub(crate) greatest: f64,
}

impl Figures {
    /// In milliseconds; none of nothing.
    pub(crate) fn of(durations: impl Iterator<Item = Duration>) -> Option<Self> {
        let mut all: Vec<f64> = durations.map(|duration| duration.as_secs_f64() * 1000.0).collect();
        all.sort_by(f64::total_cmp);
        let (least, greatest) = (*all.first()?, *all.last()?);
        Some(Self { least, median: all[all.len() / 2], greatest })
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.0} | {:.0} | {:.0}", self.least, self.median, self.greatest)
    }
}
