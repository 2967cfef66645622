//! Listening sockets.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};

use socket2::{Domain, Protocol, Socket as RawSocket, Type};
use thiserror::Error;
use tokio::net::{TcpListener, UnixListener};

use super::inherited::Inherited;

/// Clients that the kernel may have accepted for us; it allows no more than `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// Why a listener cannot be set up.
#[derive(Debug, Error)]
pub enum BindError {
    #[error("cannot listen on {address}: {error}")]
    Tcp { address: String, error: io::Error },
    #[error("cannot listen on {path}: {error}", path = path.display())]
    Unix { path: PathBuf, error: io::Error },
    #[error("cannot listen on {path}: it exists and is no socket", path = path.display())]
    NoSocket { path: PathBuf },
    #[error("cannot listen on {path}: another process does", path = path.display())]
    InUse { path: PathBuf },
    #[error("the service manager passed something as socket {at} that cannot be listened on: {error}")]
    Passed { at: usize, error: io::Error },
    #[error(
        "the service manager listens on {addresses}, which no listener of the configuration has: \
         set an address or a socket of listen.rw, listen.ro or admin to it, or take it out of the .socket unit"
    )]
    Unclaimed { addresses: String },
}

/// Listens on every address that `address` (`host:port`) stands for, with the sockets of those that are inherited.
/// `[::]` takes IPv4 clients, too.
///
/// # Errors
///
/// [`BindError::Tcp`]. Must be called on a runtime.
pub fn bind_tcp(address: &str, inherited: &mut Inherited) -> Result<Vec<TcpListener>, BindError> {
    let failed = |error| BindError::Tcp { address: address.to_owned(), error };
    let mut sockets = Vec::new();
    let mut failure = None;
    for resolved in address.to_socket_addrs().map_err(failed)? {
        let socket = match inherited.tcp(resolved) {
            Some(socket) => TcpListener::from_std(socket),
            None => listen(resolved).or_else(|error| listen_without_ipv6(resolved, error)),
        };
        match socket {
            Ok(socket) => sockets.push(socket),
            Err(error) => failure = Some(error),
        }
    }
    match failure {
        // A name may stand for addresses that this machine lacks.
        Some(error) if sockets.is_empty() || error.kind() != io::ErrorKind::AddrNotAvailable => {
            Err(failed(error))
        }
        Some(_) | None if !sockets.is_empty() => Ok(sockets),
        Some(_) | None => Err(failed(io::ErrorKind::AddrNotAvailable.into())),
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = RawSocket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// On a machine without IPv6, `[::]` means all addresses there are.
fn listen_without_ipv6(address: SocketAddr, error: io::Error) -> io::Result<TcpListener> {
    let no_ipv6 = error.raw_os_error() == Some(nix::errno::Errno::EAFNOSUPPORT as i32)
        || error.kind() == io::ErrorKind::AddrNotAvailable;
    if no_ipv6 && address.is_ipv6() && address.ip().is_unspecified() {
        return listen(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), address.port()));
    }
    Err(error)
}

/// A Unix socket that is removed when it is no longer listened on.
#[derive(Debug)]
pub struct UnixSocket {
    pub(crate) listener: UnixListener,
    path: PathBuf,
    /// Of the file that we made; nothing is removed that the service manager made.
    inode: Option<u64>,
}

impl UnixSocket {
    /// Listens on `path`, which gets the permissions `mode`; what a process that has ended left there is removed. A
    /// socket that is inherited is taken as it is.
    ///
    /// # Errors
    ///
    /// [`BindError`]. Must be called on a runtime.
    pub fn bind(path: &Path, mode: u32, inherited: &mut Inherited) -> Result<Self, BindError> {
        let failed = |error| BindError::Unix { path: path.to_owned(), error };
        if let Some(socket) = inherited.unix(path) {
            let listener = UnixListener::from_std(socket).map_err(failed)?;
            return Ok(Self { listener, path: path.to_owned(), inode: None });
        }
        match fs::symlink_metadata(path) {
            Ok(metadata) if !metadata.file_type().is_socket() => {
                return Err(BindError::NoSocket { path: path.to_owned() });
            }
            Ok(_) if StdUnixStream::connect(path).is_ok() => {
                return Err(BindError::InUse { path: path.to_owned() });
            }
            Ok(_) => fs::remove_file(path).map_err(failed)?,
            Err(_) => {}
        }
        let listener = UnixListener::bind(path).map_err(failed)?;
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(failed)?;
        let inode = fs::symlink_metadata(path).map_err(failed)?.ino();
        Ok(Self { listener, path: path.to_owned(), inode: Some(inode) })
    }
}

impl Drop for UnixSocket {
    fn drop(&mut self) {
        // A process that took over may listen under the same name by now.
        if fs::symlink_metadata(&self.path).is_ok_and(|metadata| Some(metadata.ino()) == self.inode) {
            drop(fs::remove_file(&self.path));
        }
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;
    use tokio::net::TcpStream;

    use super::*;

    fn bind(address: &str) -> Result<Vec<TcpListener>, BindError> {
        bind_tcp(address, &mut Inherited::default())
    }

    fn bind_unix(path: &Path) -> Result<UnixSocket, BindError> {
        UnixSocket::bind(path, 0o777, &mut Inherited::default())
    }

    #[tokio::test]
    async fn one_ipv6_socket_takes_both_families() {
        let sockets = bind("[::]:0").unwrap();
        assert_eq!(sockets.len(), 1);
        let port = sockets[0].local_addr().unwrap().port();
        for host in ["127.0.0.1", "[::1]"] {
            TcpStream::connect(format!("{host}:{port}")).await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_port_in_use_is_an_error_that_names_it() {
        let first = bind("127.0.0.1:0").unwrap();
        let address = first[0].local_addr().unwrap().to_string();
        let error = bind(&address).unwrap_err().to_string();
        assert!(error.starts_with(&format!("cannot listen on {address}: Address already in use")), "{error}");
        assert!(bind("192.0.2.1:0").is_err());
        assert!(bind("localhost:0").is_ok());
    }

    #[tokio::test]
    async fn what_a_dead_process_left_is_removed() {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("s");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let socket = bind_unix(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o777);
        assert!(matches!(bind_unix(&path), Err(BindError::InUse { .. })));
        drop(socket);
        assert!(!path.exists());
        fs::write(&path, "a file").unwrap();
        assert!(matches!(bind_unix(&path), Err(BindError::NoSocket { .. })));
        assert!(matches!(bind_unix(&path.join("x")), Err(BindError::Unix { .. })));
    }

    #[tokio::test]
    async fn the_socket_of_a_successor_stays() {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("s");
        let old = bind_unix(&path).unwrap();
        fs::rename(&path, directory.path().join("old")).unwrap();
        let new = bind_unix(&path).unwrap();
        drop(old);
        assert!(path.exists());
        drop(new);
        assert!(!path.exists());
    }
}
