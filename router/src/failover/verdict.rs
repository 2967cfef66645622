//! What is thought of the primary.

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Answers and takes writes, as far as is known.
    Alive,
    /// Does not answer us, and nothing hears from it: a reason for a failover.
    Dead { reason: String },
    /// Does not answer us, but somebody hears from it.
    Unreachable { reason: String },
    /// Answers, but writes do not end.
    Stalled { reason: String },
    /// Was set read-only by somebody else.
    ReadOnly { reason: String },
}

impl Verdict {
    pub fn name(&self) -> &'static str {
        match self {
            Self::Alive => "ALIVE",
            Self::Dead { .. } => "DEAD",
            Self::Unreachable { .. } => "UNREACHABLE",
            Self::Stalled { .. } => "STALLED",
            Self::ReadOnly { .. } => "READONLY",
        }
    }

    /// Why, for people; empty when alive.
    pub fn reason(&self) -> &str {
        match self {
            Self::Alive => "",
            Self::Dead { reason }
            | Self::Unreachable { reason }
            | Self::Stalled { reason }
            | Self::ReadOnly { reason } => reason,
        }
    }
}
