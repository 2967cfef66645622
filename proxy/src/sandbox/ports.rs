//! Loopback ports that no other sandbox and no outgoing connection takes.

use std::net::{Ipv4Addr, TcpListener};
use std::ops::Range;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};

use super::Error;

/// A port that stays ours while this value lives, also while nothing listens on it.
#[derive(Debug)]
pub struct Port {
    number: u16,
    /// Abstract sockets vanish with their process, so a crash leaves no reservation behind.
    _reservation: UnixListener,
}

impl Port {
    /// Reserves a free port.
    ///
    /// # Errors
    ///
    /// [`Error::NoPort`] when many tries all hit ports in use.
    pub fn reserve() -> Result<Self, Error> {
        (0..MAX_TRIES).find_map(|_| Self::try_reserve(rand::random_range(RANGE))).ok_or(Error::NoPort)
    }

    pub fn number(&self) -> u16 {
        self.number
    }

    fn try_reserve(number: u16) -> Option<Self> {
        let name = SocketAddr::from_abstract_name(format!("pointsman-sandbox-port-{number}")).ok()?;
        let reservation = UnixListener::bind_addr(&name).ok()?;
        TcpListener::bind((Ipv4Addr::LOCALHOST, number)).ok()?;
        Some(Self { number, _reservation: reservation })
    }
}

const MAX_TRIES: usize = 200;
/// Below Linux's default range of ephemeral ports: a server that is down does not lose its port to a client.
const RANGE: Range<u16> = 15_000..32_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_reserved_once() {
        let port = Port::reserve().unwrap();
        assert!(Port::try_reserve(port.number()).is_none());
        let number = port.number();
        drop(port);
        assert!(Port::try_reserve(number).is_some());
    }
}
