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
}

/// Listens on every address that `address` (`host:port`) stands for. `[::]` takes IPv4 clients, too.
///
/// # Errors
///
/// [`BindError::Tcp`]. Must be called on a runtime.
pub fn bind_tcp(address: &str) -> Result<Vec<TcpListener>, BindError> {
    let failed = |error| BindError::Tcp { address: address.to_owned(), error };
    let mut sockets = Vec::new();
    let mut failure = None;
    for resolved in address.to_socket_addrs().map_err(failed)? {
        match listen(resolved).or_else(|error| listen_without_ipv6(resolved, error)) {
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
    inode: u64,
}

impl UnixSocket {
    /// Listens on `path`, which gets the permissions `mode`; what a process that has ended left there is removed.
    ///
    /// # Errors
    ///
    /// [`BindError`]. Must be called on a runtime.
    pub fn bind(path: &Path, mode: u32) -> Result<Self, BindError> {
        let failed = |error| BindError::Unix { path: path.to_owned(), error };
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
        Ok(Self { listener, path: path.to_owned(), inode })
    }
}

impl Drop for UnixSocket {
    fn drop(&mut self) {
        // A process that took over may listen under the same name by now.
        if fs::symlink_metadata(&self.path).is_ok_and(|metadata| metadata.ino() == self.inode) {
            drop(fs::remove_file(&self.path));
        }
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;
    use tokio::net::TcpStream;

    use super::*;

    #[tokio::test]
    async fn one_ipv6_socket_takes_both_families() {
        let sockets = bind_tcp("[::]:0").unwrap();
        assert_eq!(sockets.len(), 1);
        let port = sockets[0].local_addr().unwrap().port();
        for host in ["127.0.0.1", "[::1]"] {
            TcpStream::connect(format!("{host}:{port}")).await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_port_in_use_is_an_error_that_names_it() {
        let first = bind_tcp("127.0.0.1:0").unwrap();
        let address = first[0].local_addr().unwrap().to_string();
        let error = bind_tcp(&address).unwrap_err().to_string();
        assert!(error.starts_with(&format!("cannot listen on {address}: Address already in use")), "{error}");
        assert!(bind_tcp("192.0.2.1:0").is_err());
        assert!(bind_tcp("localhost:0").is_ok());
    }

    #[tokio::test]
    async fn what_a_dead_process_left_is_removed() {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("s");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let socket = UnixSocket::bind(&path, 0o777).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o777);
        assert!(matches!(UnixSocket::bind(&path, 0o777), Err(BindError::InUse { .. })));
        drop(socket);
        assert!(!path.exists());
        fs::write(&path, "a file").unwrap();
        assert!(matches!(UnixSocket::bind(&path, 0o777), Err(BindError::NoSocket { .. })));
        assert!(matches!(UnixSocket::bind(&path.join("x"), 0o777), Err(BindError::Unix { .. })));
    }

    #[tokio::test]
    async fn the_socket_of_a_successor_stays() {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("s");
        let old = UnixSocket::bind(&path, 0o777).unwrap();
        fs::rename(&path, directory.path().join("old")).unwrap();
        let new = UnixSocket::bind(&path, 0o777).unwrap();
        drop(old);
        assert!(path.exists());
        drop(new);
        assert!(!path.exists());
    }
}
