//! Connections to servers: opening, keeping, lending and bringing them into a session's state.

pub mod authenticate;
pub mod base_session;
pub mod budget;
pub mod connect;
pub mod connection;
pub mod digest;
pub mod inject;
pub mod pool;
pub mod prepared;
pub mod sync;
