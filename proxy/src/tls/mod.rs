//! TLS towards clients and towards servers.

/// What clients are offered.
#[derive(Debug)]
pub struct ServerTls {}

/// What is asked of servers.
#[derive(Debug)]
pub struct ClientTls {}
