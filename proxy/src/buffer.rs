//! Read buffers that exist only while bytes are in them.
//!
//! An idle connection owns no buffer: one is taken from the thread's stock when its socket has something to say
//! and goes back as soon as the bytes are used up, so memory follows the active connections, not all of them.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::net::Stream;

/// What one read may bring in.
pub const BUFFER_BYTES: usize = 32 * 1024;
/// Buffers that a thread keeps for later; more are given back to the allocator.
const STOCK_BUFFERS: usize = 64;
/// Where a packet's header has its number.
const SEQUENCE_AT: usize = 3;

thread_local! {
    static STOCK: RefCell<Vec<Box<[u8]>>> = const { RefCell::new(Vec::new()) };
}

fn take_from_stock() -> Box<[u8]> {
    STOCK.with_borrow_mut(Vec::pop).unwrap_or_else(|| vec![0; BUFFER_BYTES].into_boxed_slice())
}

fn give_to_stock(buffer: Box<[u8]>) {
    if buffer.len() == BUFFER_BYTES {
        STOCK.with_borrow_mut(|stock| {
            if stock.len() < STOCK_BUFFERS {
                stock.push(buffer);
            }
        });
    }
}

/// A stream and the bytes read from it that nobody has used yet.
#[derive(Debug)]
pub struct Lane {
    stream: Stream,
    buffer: Option<Box<[u8]>>,
    start: usize,
    end: usize,
}

impl Lane {
    pub fn new(stream: Stream) -> Self {
        Self { stream, buffer: None, start: 0, end: 0 }
    }

    /// The bytes read and not yet consumed.
    pub fn bytes(&self) -> &[u8] {
        self.buffer.as_deref().map_or(&[], |buffer| &buffer[self.start..self.end])
    }

    pub fn bytes_mut(&mut self) -> &mut [u8] {
        let (start, end) = (self.start, self.end);
        self.buffer.as_deref_mut().map_or(&mut [], |buffer| &mut buffer[start..end])
    }

    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Drops the first `count` unread bytes; the buffer goes back to the stock with the last of them.
    pub fn consume(&mut self, count: usize) {
        self.start = (self.start + count).min(self.end);
        if self.start == self.end {
            self.release();
        }
    }

    fn release(&mut self) {
        self.start = 0;
        self.end = 0;
        if let Some(buffer) = self.buffer.take() {
            give_to_stock(buffer);
        }
    }

    /// Makes room for `total` unread bytes in one piece.
    pub fn make_room(&mut self, total: usize) {
        // Not smaller than the stock's: a reader that waits for a header takes what comes behind it, too.
        let have = self.buffer.get_or_insert_with(take_from_stock).len();
        if have >= total {
            self.compact();
            return;
        }
        let mut larger = vec![0; total.next_power_of_two()].into_boxed_slice();
        let unread = self.end - self.start;
        larger[..unread].copy_from_slice(self.bytes());
        if let Some(old) = self.buffer.replace(larger) {
            give_to_stock(old);
        }
        self.start = 0;
        self.end = unread;
    }

    fn compact(&mut self) {
        if self.start > 0
            && let Some(buffer) = self.buffer.as_deref_mut()
        {
            buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
    }

    /// Reads once; 0 is the end of the stream. A full buffer is compacted first and doubled where that is not
    /// enough: callers bound how much they let pile up.
    pub fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.buffer.is_none() {
            self.buffer = Some(take_from_stock());
        }
        if self.buffer.as_deref().is_some_and(|buffer| self.end == buffer.len()) {
            if self.start > 0 {
                self.compact();
            } else {
                self.make_room(self.end * 2);
            }
        }
        let Some(buffer) = self.buffer.as_deref_mut() else { return Poll::Ready(Ok(0)) };
        let mut target = ReadBuf::new(&mut buffer[self.end..]);
        let polled = Pin::new(&mut self.stream).poll_read(cx, &mut target);
        let count = target.filled().len();
        if polled.is_pending() && self.start == self.end {
            self.release();
        }
        ready!(polled)?;
        self.end += count;
        if count == 0 && self.start == self.end {
            self.release();
        }
        Poll::Ready(Ok(count))
    }

    /// Reads once. Cancel safe.
    pub async fn fill(&mut self) -> io::Result<usize> {
        std::future::poll_fn(|cx| self.poll_fill(cx)).await
    }

    /// Reads until at least `count` bytes are unread. Cancel safe.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::UnexpectedEof`] when the stream ends before.
    pub async fn fill_to(&mut self, count: usize) -> io::Result<()> {
        if self.bytes().len() < count {
            self.make_room(count);
        }
        while self.bytes().len() < count {
            if self.fill().await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(())
    }

    /// Gives the packet at the start of the unread bytes the number that its place calls for, where the peer need
    /// not number its packets itself.
    pub fn renumber(&mut self, sequence: u8) {
        if self.stream.is_compressed()
            && let Some(number) = self.bytes_mut().get_mut(SEQUENCE_AT)
        {
            *number = sequence;
        }
    }

    pub fn stream(&self) -> &Stream {
        &self.stream
    }

    pub fn stream_mut(&mut self) -> &mut Stream {
        &mut self.stream
    }

    /// Moves an idle connection to the runtime that this is called on.
    ///
    /// # Errors
    ///
    /// What the operating system reports; the connection is closed then.
    pub fn rebind(self) -> io::Result<Self> {
        Ok(Self { stream: self.stream.rebind()?, ..self })
    }

    /// Wraps the stream in another layer; bytes that were read ahead stay where they are.
    pub fn map_stream(self, wrap: impl FnOnce(Stream) -> Stream) -> Self {
        Self { stream: wrap(self.stream), ..self }
    }

    /// Gives the stream up, with the bytes read from it that nobody has used yet.
    pub fn into_parts(mut self) -> (Stream, Vec<u8>) {
        let unread = self.bytes().to_vec();
        self.release();
        (self.stream, unread)
    }

    /// Writes everything. Not cancel safe: a dropped call may have written a part.
    pub async fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        write_all(&mut self.stream, bytes).await
    }
}

/// Writes everything and flushes what a TLS stream holds back.
///
/// # Errors
///
/// What the stream reports; [`io::ErrorKind::WriteZero`] when it takes nothing more.
pub async fn write_all(stream: &mut Stream, mut bytes: &[u8]) -> io::Result<()> {
    std::future::poll_fn(|cx| {
        while !bytes.is_empty() {
            let count = ready!(Pin::new(&mut *stream).poll_write(cx, bytes))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            bytes = &bytes[count..];
        }
        Pin::new(&mut *stream).poll_flush(cx)
    })
    .await
}

impl Lane {
    /// Whether nothing has arrived on the socket since the last read, by the runtime's cached readiness.
    ///
    /// For idle connections: bytes that a poll does bring in make the answer false.
    pub fn is_quiet(&mut self) -> bool {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        self.poll_fill(&mut cx).is_pending()
    }
}
