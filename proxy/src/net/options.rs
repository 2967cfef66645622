//! Socket options: small packets go out at once, and a peer that is gone is noticed.

use std::io;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;

/// Quiet connections are probed after this time, this often, this many times.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_PROBES: u32 = 3;
/// A client may leave data unread or unacknowledged for as long as `net_write_timeout` of servers allows.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(60);
/// A server may be busy: whether it lives is the monitor's business.
const SERVER_TIMEOUT: Duration = Duration::from_secs(120);

/// Which side of us a socket is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Client,
    Server,
}

/// Sets the options of a connected socket.
///
/// # Errors
///
/// What the operating system reports; a peer that is gone already is an error too.
pub fn tune(socket: &TcpStream, side: Side) -> io::Result<()> {
    let socket = SockRef::from(socket);
    socket.set_tcp_nodelay(true)?;
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_IDLE)
        .with_interval(KEEPALIVE_INTERVAL)
        .with_retries(KEEPALIVE_PROBES);
    socket.set_tcp_keepalive(&keepalive)?;
    let timeout = match side {
        Side::Client => CLIENT_TIMEOUT,
        Side::Server => SERVER_TIMEOUT,
    };
    socket.set_tcp_user_timeout(Some(timeout))
}
