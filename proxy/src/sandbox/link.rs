//! A way to one server that can be made slow, silent or cut, to the millisecond.
//!
//! The servers' own delays count in whole seconds. This relay stands between a replica and its source, or between a
//! proxy and whatever it talks to, and holds back what the far side sends.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::Error;
use super::ports::Port;

/// A relay to one port of this machine; ends when dropped.
#[derive(Debug)]
pub struct Link {
    port: Port,
    delay: Arc<AtomicU64>,
    passage: watch::Sender<Passage>,
    acceptor: JoinHandle<()>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Passage {
    Open,
    /// Connections stay and nothing comes through, as when packets are dropped on the way.
    Silent,
    /// Only what the far side sends comes through.
    OneWay,
    Closed,
}

impl Link {
    /// A relay to `port`.
    ///
    /// # Errors
    ///
    /// When there is no port for it.
    pub async fn to(port: u16) -> Result<Self, Error> {
        let own = Port::reserve()?;
        let listener =
            TcpListener::bind((Ipv4Addr::LOCALHOST, own.number())).await.map_err(|_| Error::NoPort)?;
        let delay = Arc::new(AtomicU64::new(0));
        let (passage, looked_at) = watch::channel(Passage::Open);
        let acceptor = tokio::spawn(accept(listener, port, delay.clone(), looked_at));
        Ok(Self { port: own, delay, passage, acceptor })
    }

    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// What the far side sends from now on is passed on this much later.
    pub fn delay(&self, delay: Duration) {
        let micros = u64::try_from(delay.as_micros()).unwrap_or(u64::MAX);
        self.delay.store(micros, Ordering::Relaxed);
    }

    /// Ends all connections and refuses new ones, or lets them through again.
    pub fn open(&self, open: bool) {
        self.passage.send_replace(if open { Passage::Open } else { Passage::Closed });
    }

    /// Lets nothing through in either direction, or goes on with what has come meanwhile.
    pub fn silence(&self, silent: bool) {
        self.passage.send_replace(if silent { Passage::Silent } else { Passage::Open });
    }

    /// Lets nothing of the near side through, only what the far side sends; or goes on with what has come meanwhile.
    pub fn mute(&self, mute: bool) {
        self.passage.send_replace(if mute { Passage::OneWay } else { Passage::Open });
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.acceptor.abort();
        self.passage.send_replace(Passage::Closed);
    }
}

async fn accept(listener: TcpListener, port: u16, delay: Arc<AtomicU64>, passage: watch::Receiver<Passage>) {
    while let Ok((near, _)) = listener.accept().await {
        if *passage.borrow() != Passage::Closed {
            tokio::spawn(relay(near, port, delay.clone(), passage.clone()));
        }
    }
}

/// Ends when either side does, or when the link is cut.
async fn relay(near: TcpStream, port: u16, delay: Arc<AtomicU64>, mut passage: watch::Receiver<Passage>) {
    let Ok(far) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await else { return };
    drop((near.set_nodelay(true), far.set_nodelay(true)));
    let (from_near, to_near) = near.into_split();
    let (from_far, to_far) = far.into_split();
    let at_once = AtomicU64::new(0);
    let (there, back) = (passage.clone(), passage.clone());
    tokio::select! {
        () = pipe(from_near, to_far, &at_once, there, &[Passage::Silent, Passage::OneWay]) => {}
        () = pipe(from_far, to_near, &delay, back, &[Passage::Silent]) => {}
        _ = passage.wait_for(|passage| *passage == Passage::Closed) => {}
    }
}

/// One direction; what comes is read at once, so that a delay adds to no other.
async fn pipe(
    from: OwnedReadHalf,
    to: OwnedWriteHalf,
    delay: &AtomicU64,
    passage: watch::Receiver<Passage>,
    held_by: &[Passage],
) {
    let (queue, queued) = mpsc::channel(MAX_QUEUED_CHUNKS);
    tokio::join!(receive(from, queue, delay), pass_on(queued, to, passage, held_by));
}

async fn receive(mut from: OwnedReadHalf, queue: mpsc::Sender<(Instant, Vec<u8>)>, delay: &AtomicU64) {
    let mut chunk = vec![0; CHUNK_BYTES];
    while let Ok(length @ 1..) = from.read(&mut chunk).await {
        let due = Instant::now() + Duration::from_micros(delay.load(Ordering::Relaxed));
        if queue.send((due, chunk[..length].to_vec())).await.is_err() {
            return;
        }
    }
}

async fn pass_on(
    mut queued: mpsc::Receiver<(Instant, Vec<u8>)>,
    mut to: OwnedWriteHalf,
    mut passage: watch::Receiver<Passage>,
    held_by: &[Passage],
) {
    while let Some((due, chunk)) = queued.recv().await {
        tokio::time::sleep_until(due).await;
        let open = passage.wait_for(|passage| !held_by.contains(passage)).await.is_ok();
        if !open || to.write_all(&chunk).await.is_err() {
            return;
        }
    }
}

const CHUNK_BYTES: usize = 16 * 1024;
const MAX_QUEUED_CHUNKS: usize = 16 * 1024;
