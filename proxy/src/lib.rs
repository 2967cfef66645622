//! The parts of the `pointsman` program: the only crate that does IO, reads the clock and spawns tasks.

pub mod admin;
pub mod backend;
pub mod buffer;
pub mod cli;
pub mod cluster;
pub mod counters;
pub mod error;
pub mod exchange;
pub mod explanation;
pub mod failover;
pub mod fences;
pub mod lifecycle;
pub mod net;
pub mod reload;
pub mod sandbox;
pub mod serve;
pub mod session;
pub mod shared;
pub mod slow_log;
pub mod tls;
pub mod users;
pub mod vip;
pub mod worker;
