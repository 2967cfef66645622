//! A way to one server on which every process that comes can be told from the others and cut off by itself.
//!
//! What packets that are dropped between two machines would do: connections stay, and nothing comes through.

use std::collections::BTreeMap;
use std::fs;
use std::net::Ipv4Addr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::Failure;
use crate::sandbox::{Port, Server};

/// What does not come through between a process and the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    Both,
    /// What the process sends; what the server sends comes.
    ToServer,
}

/// By the id of the process.
type Cuts = BTreeMap<u32, Cut>;

/// See the module; ends when dropped.
#[derive(Debug)]
pub struct Gate {
    port: Port,
    cuts: watch::Sender<Cuts>,
    acceptor: JoinHandle<()>,
}

impl Gate {
    /// A way to `server`.
    ///
    /// # Errors
    ///
    /// When there is no port for it.
    pub async fn to(server: &Server) -> Result<Self, Failure> {
        let port = Port::reserve()?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port.number())).await?;
        let (cuts, seen) = watch::channel(Cuts::new());
        let acceptor = tokio::spawn(accept(listener, server.port(), seen));
        Ok(Self { port, cuts, acceptor })
    }

    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// Cuts off these processes, also what they have open already.
    pub fn cut(&self, processes: &[u32], cut: Cut) {
        self.cuts.send_modify(|cuts| cuts.extend(processes.iter().map(|process| (*process, cut))));
    }

    /// Lets everybody through again, and what was held back first.
    pub fn mend(&self) {
        self.cuts.send_replace(Cuts::new());
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.acceptor.abort();
    }
}

async fn accept(listener: TcpListener, to: u16, cuts: watch::Receiver<Cuts>) {
    while let Ok((near, peer)) = listener.accept().await {
        tokio::spawn(relay(near, peer.port(), to, cuts.clone()));
    }
}

/// Ends when either side does.
async fn relay(near: TcpStream, peer: u16, to: u16, cuts: watch::Receiver<Cuts>) {
    let process = owner(peer);
    let Ok(far) = TcpStream::connect((Ipv4Addr::LOCALHOST, to)).await else { return };
    drop((near.set_nodelay(true), far.set_nodelay(true)));
    let (from_near, to_near) = near.into_split();
    let (from_far, to_far) = far.into_split();
    let cut = |cuts: &Cuts| process.and_then(|process| cuts.get(&process).copied());
    tokio::select! {
        () = pipe(from_near, to_far, cuts.clone(), |cuts| cut(cuts).is_some()) => {}
        () = pipe(from_far, to_near, cuts.clone(), |cuts| cut(cuts) == Some(Cut::Both)) => {}
    }
}

async fn pipe(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut cuts: watch::Receiver<Cuts>,
    is_cut: impl Fn(&Cuts) -> bool,
) {
    let mut chunk = vec![0; CHUNK_BYTES];
    while let Ok(length @ 1..) = from.read(&mut chunk).await {
        let open = cuts.wait_for(|cuts| !is_cut(cuts)).await.is_ok();
        if !open || to.write_all(&chunk[..length]).await.is_err() {
            return;
        }
    }
    // Of an end nothing is heard either.
    drop(cuts.wait_for(|cuts| !is_cut(cuts)).await);
}

/// Which process has connected from a port of this machine.
fn owner(port: u16) -> Option<u32> {
    let table = fs::read_to_string("/proc/net/tcp").ok()?;
    let local = format!("0100007F:{port:04X}");
    let inode = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>()).find_map(|fields| {
        (fields.get(1) == Some(&local.as_str())).then(|| fields.get(9).map(|inode| (*inode).to_owned()))?
    })?;
    let socket = format!("socket:[{inode}]");
    let processes = fs::read_dir("/proc").ok()?.flatten();
    let numbers = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    numbers.into_iter().find(|process| {
        let files = fs::read_dir(format!("/proc/{process}/fd")).into_iter().flatten().flatten();
        files
            .into_iter()
            .any(|file| fs::read_link(file.path()).is_ok_and(|link| link.as_os_str() == socket.as_str()))
    })
}

const CHUNK_BYTES: usize = 16 * 1024;
