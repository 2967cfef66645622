//! What a statement does and where it goes.
//!
//! Everything here is pure: no sockets, no clock, no tasks, no globals. Time is an argument, randomness is a
//! number that the caller passes in, and collections that are iterated are ordered, so that runs repeat.

pub mod balance;
pub mod classify;
pub mod discover;
pub mod failover;
pub mod gtid;
pub mod intent;
pub mod lag;
pub mod roster;
pub mod route;
pub mod session;
pub mod topology;
pub mod vip;
