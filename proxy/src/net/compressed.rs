//! The compressed protocol over any stream.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pointsman_protocol::compress::{Algorithm, Compressor, Decompressor};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::stream::Stream;

/// What one read takes from the stream below.
const SCRATCH_BYTES: usize = 16 * 1024;
/// Compressed bytes that may wait for the stream below before a write has to.
const MAX_WAITING_BYTES: usize = 64 * 1024;

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// A stream whose bytes are compressed on the way.
#[derive(Debug)]
pub struct Compressed {
    below: Stream,
    compressor: Compressor,
    decompressor: Decompressor,
    /// Compressed bytes that were read and not yet inflated.
    unread: Vec<u8>,
    /// Compressed bytes on their way out, from `sent` on.
    waiting: Vec<u8>,
    sent: usize,
    /// The last thing done was a write: its packets go on counting.
    writing: bool,
}

impl Compressed {
    pub(super) fn new(below: Stream, algorithm: Algorithm) -> Self {
        Self {
            below,
            compressor: Compressor::new(algorithm),
            decompressor: Decompressor::new(algorithm),
            unread: Vec::new(),
            waiting: Vec::new(),
            sent: 0,
            writing: false,
        }
    }

    pub(super) fn below(&self) -> &Stream {
        &self.below
    }

    pub(super) fn rebind(self) -> io::Result<Self> {
        Ok(Self { below: self.below.rebind()?, ..self })
    }

    /// Inflates from `bytes`; gives how many of them were used up.
    fn inflate(&mut self, bytes: &[u8], buf: &mut ReadBuf<'_>) -> io::Result<usize> {
        let moved = self.decompressor.read(bytes, buf.initialize_unfilled());
        let moved = moved.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        buf.advance(moved.written);
        if moved.written > 0 {
            self.writing = false;
        }
        Ok(moved.consumed)
    }

    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.sent < self.waiting.len() {
            let count = ready!(Pin::new(&mut self.below).poll_write(cx, &self.waiting[self.sent..]))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.sent += count;
        }
        self.waiting = Vec::new();
        self.sent = 0;
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Compressed {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        loop {
            // Also with nothing unread: the inflater may hold something back.
            let unread = std::mem::take(&mut this.unread);
            let used = this.inflate(&unread, buf)?;
            this.unread = if used == unread.len() { Vec::new() } else { unread[used..].to_vec() };
            if buf.filled().len() > before || buf.remaining() == 0 {
                return Poll::Ready(Ok(()));
            }
            let filled = SCRATCH.with_borrow_mut(|scratch| {
                scratch.resize(SCRATCH_BYTES, 0);
                let mut target = ReadBuf::new(scratch);
                ready!(Pin::new(&mut this.below).poll_read(cx, &mut target))?;
                let used = this.inflate(target.filled(), buf)?;
                this.unread = target.filled()[used..].to_vec();
                Poll::Ready(Ok::<_, io::Error>(target.filled().len()))
            });
            let at_end = ready!(filled)? == 0;
            if at_end || buf.filled().len() > before {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl AsyncWrite for Compressed {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.waiting.len() - this.sent > MAX_WAITING_BYTES {
            ready!(this.poll_send(cx))?;
        }
        if !this.writing {
            this.compressor.restart(this.decompressor.sequence().wrapping_add(1));
            this.writing = true;
        }
        this.compressor.write(bytes, &mut this.waiting);
        match this.poll_send(cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Ready(Ok(())) | Poll::Pending => Poll::Ready(Ok(bytes.len())),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_send(cx))?;
        Pin::new(&mut this.below).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_send(cx))?;
        Pin::new(&mut this.below).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    const ALGORITHMS: [Algorithm; 2] = [Algorithm::Zlib, Algorithm::Zstd { level: 3 }];

    async fn pair() -> (Stream, Stream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (server, _) = listener.accept().await.unwrap();
        (Stream::tcp(client), Stream::tcp(server))
    }

    async fn check_crossing(near: &mut Stream, far: &mut Stream, len: usize) {
        let sent: Vec<u8> = (0..len).map(|at| (at / 7 % 251) as u8).collect();
        let write = async {
            near.write_all(&sent).await.unwrap();
            near.flush().await.unwrap();
        };
        let mut received = vec![0; len];
        let ((), read) = tokio::join!(write, far.read_exact(&mut received));
        read.unwrap();
        assert!(received == sent, "{len} bytes came out differently");
    }

    #[tokio::test]
    async fn bytes_of_any_number_cross() {
        for algorithm in ALGORITHMS {
            let (near, far) = pair().await;
            let (mut near, mut far) = (near.compressed(algorithm), far.compressed(algorithm));
            for len in [1, 49, 50, 51, 100, 128 * 1024, 128 * 1024 + 1, 3_000_000] {
                check_crossing(&mut near, &mut far, len).await;
                check_crossing(&mut far, &mut near, len).await;
            }
            near.shutdown().await.unwrap();
            assert_eq!(far.read(&mut [0; 10]).await.unwrap(), 0);
        }
    }

    /// What goes over the wire has the numbers that clients check.
    #[tokio::test]
    async fn answers_count_on_from_the_command() {
        let (mut client, far) = pair().await;
        let mut far = far.compressed(Algorithm::Zlib);
        let mut header = [0; 7];
        for number in [0, 5] {
            client.write_all(&[3, 0, 0, number, 0, 0, 0, b'a', b'b', b'c']).await.unwrap();
            let mut command = [0; 3];
            far.read_exact(&mut command).await.unwrap();
            assert_eq!(&command, b"abc");
            for more in 1..=2 {
                far.write_all(b"xy").await.unwrap();
                client.read_exact(&mut header).await.unwrap();
                assert_eq!(header, [2, 0, 0, number + more, 0, 0, 0]);
                client.read_exact(&mut [0; 2]).await.unwrap();
            }
        }
    }

    #[tokio::test]
    async fn junk_is_an_error() {
        for algorithm in ALGORITHMS {
            let (mut client, far) = pair().await;
            let mut far = far.compressed(algorithm);
            client.write_all(&[4, 0, 0, 0, 9, 0, 0, b'j', b'u', b'n', b'k']).await.unwrap();
            let error = far.read(&mut [0; 10]).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        }
    }
}
