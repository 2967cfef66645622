//! A replication link that can be made slow or cut, to the millisecond.
//!
//! The servers' own delays count in whole seconds. This relay stands between a replica and its source and holds
//! back what the source sends.

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

/// A relay to one source; ends when dropped.
#[derive(Debug)]
pub(super) struct Link {
    port: Port,
    delay: Arc<AtomicU64>,
    open: watch::Sender<bool>,
    acceptor: JoinHandle<()>,
}

impl Link {
    pub(super) async fn to(source: u16) -> Result<Self, Error> {
        let port = Port::reserve()?;
        let listener =
            TcpListener::bind((Ipv4Addr::LOCALHOST, port.number())).await.map_err(|_| Error::NoPort)?;
        let delay = Arc::new(AtomicU64::new(0));
        let (open, opened) = watch::channel(true);
        let acceptor = tokio::spawn(accept(listener, source, delay.clone(), opened));
        Ok(Self { port, delay, open, acceptor })
    }

    pub(super) fn port(&self) -> u16 {
        self.port.number()
    }

    /// What arrives from now on is passed on this much later.
    pub(super) fn delay(&self, delay: Duration) {
        let micros = u64::try_from(delay.as_micros()).unwrap_or(u64::MAX);
        self.delay.store(micros, Ordering::Relaxed);
    }

    /// Ends all connections and refuses new ones, or lets them through again.
    pub(super) fn open(&self, open: bool) {
        self.open.send_replace(open);
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.acceptor.abort();
        self.open.send_replace(false);
    }
}

async fn accept(listener: TcpListener, source: u16, delay: Arc<AtomicU64>, open: watch::Receiver<bool>) {
    while let Ok((replica, _)) = listener.accept().await {
        if *open.borrow() {
            tokio::spawn(relay(replica, source, delay.clone(), open.clone()));
        }
    }
}

/// Ends when either side does, or when the link is cut.
async fn relay(replica: TcpStream, source: u16, delay: Arc<AtomicU64>, mut open: watch::Receiver<bool>) {
    let Ok(source) = TcpStream::connect((Ipv4Addr::LOCALHOST, source)).await else { return };
    let (mut from_replica, to_replica) = replica.into_split();
    let (from_source, mut to_source) = source.into_split();
    let (queue, queued) = mpsc::channel(MAX_QUEUED_CHUNKS);
    tokio::select! {
        _ = tokio::io::copy(&mut from_replica, &mut to_source) => {}
        () = receive(from_source, queue, &delay) => {}
        () = pass_on(queued, to_replica) => {}
        _ = open.wait_for(|open| !open) => {}
    }
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

async fn pass_on(mut queued: mpsc::Receiver<(Instant, Vec<u8>)>, mut to: OwnedWriteHalf) {
    while let Some((due, chunk)) = queued.recv().await {
        tokio::time::sleep_until(due).await;
        if to.write_all(&chunk).await.is_err() {
            return;
        }
    }
}

const CHUNK_BYTES: usize = 16 * 1024;
const MAX_QUEUED_CHUNKS: usize = 16 * 1024;
