//! Sockets: streams of every kind behind one type, options, listeners and the PROXY protocol.
//!
//! Nothing here knows the MySQL protocol, except for the one error that a full listener answers with.

mod acceptor;
mod announced;
mod compressed;
mod inherited;
mod listen;
mod options;
mod stream;
mod tls_stream;

use std::fmt;
use std::net::{IpAddr, SocketAddr};

pub use acceptor::{Acceptor, Seat};
pub use compressed::Compressed;
pub use inherited::Inherited;
pub use listen::{BindError, UnixSocket, bind_tcp};
pub use options::{Side, tune};
pub use stream::{Socket, Stream};
pub use tls_stream::TlsStream;

/// What a listener is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ListenerKind {
    /// Writes to the primary, reads to replicas.
    ReadWrite,
    /// Replicas only.
    ReadOnly,
}

impl ListenerKind {
    /// The name in configuration and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::ReadWrite => "rw",
            Self::ReadOnly => "ro",
        }
    }
}

/// Where a client comes from: the peer of its socket, or what a trusted PROXY header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ClientAddress {
    Ip(SocketAddr),
    /// Through the Unix socket of this machine.
    Local,
}

impl ClientAddress {
    /// The address without its port; an IPv4 client of a dual-stack listener has its IPv4 address.
    pub fn ip(&self) -> Option<IpAddr> {
        match self {
            Self::Ip(address) => Some(address.ip().to_canonical()),
            Self::Local => None,
        }
    }

    /// Whether servers would call this client `localhost`.
    pub fn is_localhost(&self) -> bool {
        self.ip().is_none_or(|ip| ip.is_loopback())
    }
}

impl fmt::Display for ClientAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => SocketAddr::new(address.ip().to_canonical(), address.port()).fmt(f),
            Self::Local => f.write_str("localhost"),
        }
    }
}
