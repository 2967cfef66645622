//! GTID sets of both flavours.

/// Placeholder until parsing is written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum GtidSet {
    #[default]
    Empty,
}
