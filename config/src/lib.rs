//! The schema of `pointsman.toml`: what can be configured, its defaults, and how it is read and checked.
//!
//! Everything here is plain data. The crate reads the files that it is pointed to, but opens no socket, starts
//! nothing and never asks for the time.

mod choices;
mod defaults;
mod diff;
mod fault;
mod load;
mod model;
mod nearest;
mod reload;
mod schema;
mod secret;
mod shape;
mod show;
pub mod units;
mod validate;

pub use choices::*;
pub use defaults::STATE_DIR;
pub use diff::{Change, diff};
pub use fault::{Fault, Faults, Notice, Place, Problem, ReadError, Warning};
pub use load::{Flag, Loaded, Origins, Sources, load};
pub use model::*;
pub use reload::{Reload, take_up};
pub use schema::json_schema;
pub use secret::{MASK, Secret};
pub use show::{to_json, to_toml};
pub use validate::HostPort;
