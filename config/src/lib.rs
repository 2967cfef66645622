//! The schema of `pointsman.toml`: what can be configured, its defaults, and how it is read and checked.
//!
//! Everything here is plain data. The crate reads the files that it is pointed to, but opens no socket, starts
//! nothing and never asks for the time.

mod choices;
mod defaults;
mod model;
mod secret;
pub mod units;

pub use choices::*;
pub use defaults::STATE_DIR;
pub use model::*;
pub use secret::{MASK, Secret};
