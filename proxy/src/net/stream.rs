//! One type for every connection that bytes are read from and written to.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use pointsman_protocol::compress::Algorithm;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use super::compressed::Compressed;
use super::tls_stream::TlsStream;

/// A socket as the kernel knows it.
#[derive(Debug)]
pub enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// A connection to a client or a server, whatever it is wrapped in.
///
/// Layers are boxed, so that a plain connection costs no more than its socket.
#[derive(Debug)]
pub enum Stream {
    Plain(Socket),
    Tls(Box<TlsStream>),
    Compressed(Box<Compressed>),
}

impl Stream {
    pub fn tcp(socket: TcpStream) -> Self {
        Self::Plain(Socket::Tcp(socket))
    }

    pub fn unix(socket: UnixStream) -> Self {
        Self::Plain(Socket::Unix(socket))
    }

    /// The same connection with everything compressed from here on.
    #[must_use]
    pub fn compressed(self, algorithm: Algorithm) -> Self {
        Self::Compressed(Box::new(Compressed::new(self, algorithm)))
    }

    pub fn socket(&self) -> &Socket {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(tls) => tls.socket(),
            Self::Compressed(compressed) => compressed.below().socket(),
        }
    }

    /// The TLS layer, if there is one.
    pub fn tls(&self) -> Option<&TlsStream> {
        match self {
            Self::Plain(_) => None,
            Self::Tls(tls) => Some(tls),
            Self::Compressed(compressed) => compressed.below().tls(),
        }
    }

    pub fn is_tls(&self) -> bool {
        self.tls().is_some()
    }

    /// Whether packets come in the compressed protocol, where only the outer headers are counted in order: clients
    /// number the packets inside as they like.
    pub fn is_compressed(&self) -> bool {
        matches!(self, Self::Compressed(_))
    }

    /// Whether nobody can listen in: a password may cross as it is.
    pub fn is_confidential(&self) -> bool {
        self.is_tls() || matches!(self.socket(), Socket::Unix(_))
    }

    /// The other end's address; none for a Unix socket.
    pub fn peer(&self) -> Option<SocketAddr> {
        match self.socket() {
            Socket::Tcp(socket) => socket.peer_addr().ok(),
            Socket::Unix(_) => None,
        }
    }

    /// Moves the connection to the runtime that this is called on.
    ///
    /// # Errors
    ///
    /// What the operating system reports; the connection is closed then.
    pub fn rebind(self) -> io::Result<Self> {
        Ok(match self {
            Self::Plain(socket) => Self::Plain(socket.rebind()?),
            Self::Tls(tls) => Self::Tls(Box::new(tls.rebind()?)),
            Self::Compressed(compressed) => Self::Compressed(Box::new(compressed.rebind()?)),
        })
    }
}

impl Socket {
    pub(super) fn rebind(self) -> io::Result<Self> {
        Ok(match self {
            Self::Tcp(socket) => Self::Tcp(TcpStream::from_std(socket.into_std()?)?),
            Self::Unix(socket) => Self::Unix(UnixStream::from_std(socket.into_std()?)?),
        })
    }
}

/// Calls one method of whatever a value holds.
macro_rules! each {
    ($value:expr, [$($variant:ident),+], $inner:ident => $call:expr) => {
        match $value {
            $(Self::$variant($inner) => {
                let $inner = Pin::new($inner);
                $call
            })+
        }
    };
    ($value:expr, boxed, $inner:ident => $call:expr) => {
        match $value {
            Self::Plain(socket) => {
                let $inner = Pin::new(socket);
                $call
            }
            Self::Tls(tls) => {
                let $inner = Pin::new(tls.as_mut());
                $call
            }
            Self::Compressed(compressed) => {
                let $inner = Pin::new(compressed.as_mut());
                $call
            }
        }
    };
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        each!(self.get_mut(), [Tcp, Unix], socket => socket.poll_read(cx, buf))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        each!(self.get_mut(), [Tcp, Unix], socket => socket.poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        each!(self.get_mut(), [Tcp, Unix], socket => socket.poll_write_vectored(cx, slices))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The kernel holds nothing back.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self.get_mut(), [Tcp, Unix], socket => socket.poll_shutdown(cx))
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        each!(self.get_mut(), boxed, stream => stream.poll_read(cx, buf))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        each!(self.get_mut(), boxed, stream => stream.poll_write(cx, bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self.get_mut(), boxed, stream => stream.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self.get_mut(), boxed, stream => stream.poll_shutdown(cx))
    }
}
