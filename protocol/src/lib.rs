//! The MySQL wire format as values: frames, packets, authentication, response tracking.
//!
//! Nothing here does IO, reads a clock or holds a global. Bytes go in, borrowed views and bytes come out;
//! malformed input is an error, never a panic.

pub mod auth;
pub mod capability;
pub mod codec;
pub mod command;
pub mod compress;
pub mod err;
pub mod handshake;
pub mod ok;
pub mod packet;
pub mod proxy_protocol;
pub mod response;
