//! TLS over a socket of ours.
//!
//! Like tokio-rustls, but the socket can move to another runtime, handshakes are computed off the worker, and a
//! read takes as much from the socket as a record may hold.

use std::cell::RefCell;
use std::io::{self, Read, Write};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use rustls::{Connection, Error};
use rustls_pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::sync::Semaphore;

use super::stream::Socket;

/// What one read takes from the socket: a record of the largest size.
const SCRATCH_BYTES: usize = 16 * 1024 + 5 + 2048;
/// What a peer may send in a handshake.
const MAX_HANDSHAKE_BYTES: usize = 128 * 1024;

thread_local! {
    /// Bytes between the socket and rustls; empty again after each read.
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// A socket with TLS on it.
#[derive(Debug)]
pub struct TlsStream {
    socket: Socket,
    connection: Connection,
    /// Encrypted bytes that were read when rustls wanted no more.
    unread: Vec<u8>,
    /// SHA256 of the certificate that we showed; zero where we are the client.
    fingerprint: [u8; 32],
}

impl TlsStream {
    /// Shakes hands; `unread` is what the peer sent before this was called.
    ///
    /// The heavy part runs on the runtime's blocking pool, as many at a time as `handshakes` allows.
    ///
    /// # Errors
    ///
    /// What the socket reports, or [`io::ErrorKind::InvalidData`] with the [`rustls::Error`] inside. Not cancel safe.
    pub(crate) async fn handshake(
        mut socket: Socket,
        connection: Connection,
        unread: &[u8],
        handshakes: &Arc<Semaphore>,
    ) -> io::Result<Self> {
        let mut connection = Box::new(connection);
        let mut received = unread.to_vec();
        let mut total = 0;
        loop {
            flush(&mut socket, &mut connection).await?;
            if !connection.is_handshaking() {
                let unread = received;
                return Ok(Self { socket, connection: *connection, unread, fingerprint: [0; 32] });
            }
            if received.is_empty() {
                received.reserve(SCRATCH_BYTES);
                if socket.read_buf(&mut received).await? == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
            }
            total += received.len();
            if total > MAX_HANDSHAKE_BYTES {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "TLS handshake is too long"));
            }
            let before = received.len();
            let permit = handshakes.clone().acquire_owned().await.map_err(io::Error::other)?;
            let step = tokio::task::spawn_blocking(move || {
                let _permit = permit;
                let outcome = advance(&mut connection, &mut received);
                (connection, received, outcome)
            });
            let outcome;
            (connection, received, outcome) = step.await.map_err(io::Error::other)?;
            if let Err(error) = outcome {
                // The alert that tells the peer why; it may be gone already.
                drop(flush(&mut socket, &mut connection).await);
                return Err(invalid(error));
            }
            if received.len() == before {
                // The peer has said goodbye in the middle.
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    pub(crate) fn with_fingerprint(mut self, fingerprint: [u8; 32]) -> Self {
        self.fingerprint = fingerprint;
        self
    }

    pub(super) fn socket(&self) -> &Socket {
        &self.socket
    }

    /// SHA256 of the certificate that we showed to the client.
    pub fn fingerprint(&self) -> &[u8; 32] {
        &self.fingerprint
    }

    /// The peer's own certificate, which an authority of ours has signed.
    pub fn peer_certificate(&self) -> Option<&CertificateDer<'static>> {
        self.connection.peer_certificates()?.first()
    }

    /// The cipher suite in OpenSSL's manner of naming, as `SHOW STATUS LIKE 'Ssl_cipher'` does.
    pub fn cipher(&self) -> String {
        let suite = self.connection.negotiated_cipher_suite();
        suite.map(|suite| openssl_name(&format!("{:?}", suite.suite()))).unwrap_or_default()
    }

    pub(super) fn rebind(self) -> io::Result<Self> {
        Ok(Self { socket: self.socket.rebind()?, ..self })
    }

    /// Feeds rustls with what is left from before, then from the socket once.
    fn poll_feed(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.unread.is_empty() {
            let mut unread = std::mem::take(&mut self.unread);
            let outcome = advance(&mut self.connection, &mut unread);
            self.unread = unread;
            return Poll::Ready(self.checked(outcome, cx));
        }
        SCRATCH.with_borrow_mut(|scratch| {
            scratch.resize(SCRATCH_BYTES, 0);
            let mut target = ReadBuf::new(scratch);
            ready!(Pin::new(&mut self.socket).poll_read(cx, &mut target))?;
            let mut bytes = target.filled();
            if bytes.is_empty() {
                // Tells rustls of the end of the stream.
                self.connection.read_tls(&mut io::empty())?;
                return Poll::Ready(Ok(()));
            }
            let outcome = advance_slice(&mut self.connection, &mut bytes);
            self.unread = bytes.to_vec();
            Poll::Ready(self.checked(outcome, cx))
        })
    }

    /// Sends what rustls wants sent, also the alert after an error.
    fn checked(&mut self, outcome: Result<(), Error>, cx: &mut Context<'_>) -> io::Result<()> {
        if self.connection.wants_write() {
            // What does not go out now goes out with the next write.
            drop(self.poll_send(cx));
        }
        outcome.map_err(invalid)
    }

    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.connection.wants_write() {
            let mut writer = SocketWriter { socket: &mut self.socket, cx };
            match self.connection.write_tls(&mut writer) {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Poll::Pending,
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// `TLS13_AES_256_GCM_SHA384` is `TLS_AES_256_GCM_SHA384`; `TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256` is
/// `ECDHE-RSA-AES128-GCM-SHA256`.
fn openssl_name(suite: &str) -> String {
    if let Some(rest) = suite.strip_prefix("TLS13_") {
        return format!("TLS_{rest}");
    }
    let name = suite.strip_prefix("TLS_").unwrap_or(suite).replace("_WITH_", "_");
    name.replace("AES_128", "AES128")
        .replace("AES_256", "AES256")
        .replace("_SHA256", "-SHA256")
        .replace('_', "-")
        .replace("CHACHA20-POLY1305-SHA256", "CHACHA20-POLY1305")
}

fn invalid(error: Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// Gives rustls all of `bytes` that it takes; the rest stays.
fn advance(connection: &mut Connection, bytes: &mut Vec<u8>) -> Result<(), Error> {
    let mut rest = bytes.as_slice();
    let outcome = advance_slice(connection, &mut rest);
    let taken = bytes.len() - rest.len();
    bytes.drain(..taken);
    if bytes.is_empty() {
        *bytes = Vec::new();
    }
    outcome
}

fn advance_slice(connection: &mut Connection, bytes: &mut &[u8]) -> Result<(), Error> {
    while !bytes.is_empty() {
        match connection.read_tls(bytes) {
            // Full, or closed by the peer: the reader has to take something out first.
            Ok(0) | Err(_) => return Ok(()),
            Ok(_) => {}
        }
        let state = connection.process_new_packets()?;
        if state.plaintext_bytes_to_read() >= SCRATCH_BYTES {
            return Ok(());
        }
    }
    Ok(())
}

async fn flush(socket: &mut Socket, connection: &mut Connection) -> io::Result<()> {
    std::future::poll_fn(|cx| {
        while connection.wants_write() {
            match connection.write_tls(&mut SocketWriter { socket, cx }) {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Poll::Pending,
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        Poll::Ready(Ok(()))
    })
    .await
}

/// A socket as a blocking writer that would rather fail than block.
struct SocketWriter<'a, 'b> {
    socket: &'a mut Socket,
    cx: &'a mut Context<'b>,
}

impl Write for SocketWriter<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        or_would_block(Pin::new(&mut *self.socket).poll_write(self.cx, bytes))
    }

    fn write_vectored(&mut self, slices: &[io::IoSlice<'_>]) -> io::Result<usize> {
        or_would_block(Pin::new(&mut *self.socket).poll_write_vectored(self.cx, slices))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn or_would_block<T>(polled: Poll<io::Result<T>>) -> io::Result<T> {
    match polled {
        Poll::Ready(outcome) => outcome,
        Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
    }
}

impl AsyncRead for TlsStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            match this.connection.reader().read(buf.initialize_unfilled()) {
                Ok(count) => {
                    buf.advance(count);
                    return Poll::Ready(Ok(()));
                }
                // Packets have lengths, so an end without a farewell cuts nothing off unnoticed.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Poll::Ready(Ok(())),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
            ready!(this.poll_feed(cx))?;
        }
    }
}

impl AsyncWrite for TlsStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        loop {
            let count = this.connection.writer().write(bytes)?;
            match this.poll_send(cx) {
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                // What is encrypted and has not gone out yet goes out with the flush.
                _ if count > 0 || bytes.is_empty() => return Poll::Ready(Ok(count)),
                Poll::Ready(Ok(())) => {}
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_send(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.connection.send_close_notify();
        ready!(this.poll_send(cx))?;
        Pin::new(&mut this.socket).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suites_have_the_names_that_servers_use() {
        let check = |suite: &str, expected: &str| assert_eq!(openssl_name(suite), expected);
        check("TLS13_AES_256_GCM_SHA384", "TLS_AES_256_GCM_SHA384");
        check("TLS13_CHACHA20_POLY1305_SHA256", "TLS_CHACHA20_POLY1305_SHA256");
        check("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", "ECDHE-RSA-AES128-GCM-SHA256");
        check("TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384", "ECDHE-ECDSA-AES256-GCM-SHA384");
        check("TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256", "ECDHE-RSA-CHACHA20-POLY1305");
    }
}
