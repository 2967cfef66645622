//! Sockets that the service manager opened (systemd's socket activation): clients wait in them while the program restarts.

use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::os::unix::net::{SocketAddr as UnixAddress, UnixListener};
use std::path::Path;

use listenfd::ListenFd;
use socket2::SockRef;

use super::listen::BindError;

/// What was passed and belongs to no listener yet.
#[derive(Debug, Default)]
pub struct Inherited {
    tcp: Vec<TcpListener>,
    unix: Vec<UnixListener>,
}

impl Inherited {
    /// Takes what `LISTEN_FDS` speaks of. Must be called while there is one thread: it changes the environment.
    ///
    /// # Errors
    ///
    /// [`BindError::Passed`] for a descriptor that is no stream socket.
    pub fn take() -> Result<Self, BindError> {
        let mut passed = ListenFd::from_env();
        let mut inherited = Self::default();
        for at in 0..passed.len() {
            let failed = |error| BindError::Passed { at, error };
            if let Ok(Some(socket)) = passed.take_unix_listener(at) {
                socket.set_nonblocking(true).and_then(|()| listens(&socket)).map_err(failed)?;
                inherited.unix.push(socket);
            } else if let Some(socket) = passed.take_tcp_listener(at).map_err(failed)? {
                socket.set_nonblocking(true).and_then(|()| listens(&socket)).map_err(failed)?;
                inherited.tcp.push(socket);
            }
        }
        Ok(inherited)
    }

    pub(super) fn tcp(&mut self, address: SocketAddr) -> Option<TcpListener> {
        let at = self.tcp.iter().position(|socket| socket.local_addr().is_ok_and(|own| own == address))?;
        Some(self.tcp.swap_remove(at))
    }

    pub(super) fn unix(&mut self, path: &Path) -> Option<UnixListener> {
        let own =
            |socket: &UnixListener| socket.local_addr().is_ok_and(|own| own.as_pathname() == Some(path));
        let at = self.unix.iter().position(own)?;
        Some(self.unix.swap_remove(at))
    }

    /// What no listener has taken: clients would wait there for ever.
    ///
    /// # Errors
    ///
    /// [`BindError::Unclaimed`].
    pub fn all_taken(&self) -> Result<(), BindError> {
        let tcp = self.tcp.iter().map(|socket| socket.local_addr().map(|address| address.to_string()));
        let unix = self.unix.iter().map(|socket| {
            let path = |own: UnixAddress| own.as_pathname().map(|path| path.display().to_string());
            socket.local_addr().map(|own| path(own).unwrap_or_else(|| "a Unix socket without a path".into()))
        });
        let told = tcp.chain(unix).map(|address| address.unwrap_or_else(|error| error.to_string()));
        let addresses: Vec<_> = told.collect();
        if addresses.is_empty() {
            Ok(())
        } else {
            Err(BindError::Unclaimed { addresses: addresses.join(", ") })
        }
    }
}

/// Of `Accept=yes`, connections would be passed.
fn listens(socket: &impl AsFd) -> std::io::Result<()> {
    match SockRef::from(socket).is_listener()? {
        true => Ok(()),
        false => Err(std::io::Error::other("nobody can connect to it: is Accept=yes set?")),
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;
    use crate::net::{UnixSocket, bind_tcp};

    fn inherited(directory: &TempDir) -> (Inherited, SocketAddr) {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = tcp.local_addr().unwrap();
        let unix = UnixListener::bind(directory.path().join("s")).unwrap();
        for outcome in [tcp.set_nonblocking(true), unix.set_nonblocking(true)] {
            outcome.unwrap();
        }
        (Inherited { tcp: vec![tcp], unix: vec![unix] }, address)
    }

    #[tokio::test]
    async fn listeners_take_the_sockets_of_their_addresses() {
        let directory = TempDir::new().unwrap();
        let (mut inherited, address) = inherited(&directory);
        // Another process could not listen there.
        assert!(bind_tcp(&address.to_string(), &mut Inherited::default()).is_err());
        let other = bind_tcp("127.0.0.1:0", &mut inherited).unwrap();
        assert_ne!(other[0].local_addr().unwrap(), address);
        let own = bind_tcp(&address.to_string(), &mut inherited).unwrap();
        assert_eq!(own[0].local_addr().unwrap(), address);
        let path = directory.path().join("s");
        let unclaimed = inherited.all_taken().unwrap_err().to_string();
        assert!(
            unclaimed.contains(path.to_str().unwrap()) && !unclaimed.contains("127.0.0.1"),
            "{unclaimed}"
        );
        let socket = UnixSocket::bind(&path, 0o777, &mut inherited).unwrap();
        inherited.all_taken().unwrap();
        drop(socket);
        assert!(path.exists(), "it belongs to the service manager");
    }

    #[tokio::test]
    async fn what_no_listener_has_is_a_fault_that_names_it() {
        let directory = TempDir::new().unwrap();
        let (inherited, address) = inherited(&directory);
        let unclaimed = inherited.all_taken().unwrap_err().to_string();
        assert!(unclaimed.contains(&address.to_string()), "{unclaimed}");
    }
}
