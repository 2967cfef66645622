//! Takes clients in from the listening sockets and hands them on.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use pointsman_config::Listener as Settings;
use pointsman_protocol::capability::Capabilities;
use pointsman_protocol::err::ErrPacket;
use pointsman_protocol::packet::write_packet;
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::watch;
use tracing::{debug, info, warn};

use super::announced::{AnnounceError, client_of, is_trusted};
use super::inherited::Inherited;
use super::listen::{BindError, UnixSocket, bind_tcp};
use super::options::{Side, tune};
use super::{ClientAddress, ListenerKind};
use crate::worker::{Accepted, AcceptedSocket, Workers};

/// As servers have it: who may connect is decided by accounts.
const SOCKET_MODE: u32 = 0o777;
/// The pause after the system had nothing left for one more client.
const SHORTAGE_PAUSE: Duration = Duration::from_millis(100);

/// A place at a listener, of which it has `max_connections`; free again when dropped.
#[derive(Debug)]
pub struct Seat(Arc<AtomicUsize>);

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// One listener of the configuration: its addresses, its Unix socket, and its clients.
#[derive(Debug)]
pub struct Acceptor {
    kind: ListenerKind,
    settings: Settings,
    tcp: Vec<TcpListener>,
    unix: Option<UnixSocket>,
    taken: Arc<AtomicUsize>,
}

impl Acceptor {
    /// Opens the sockets of a listener, or takes those that are inherited; none where it is off.
    ///
    /// # Errors
    ///
    /// [`BindError`]. Must be called on a runtime.
    pub fn bind(
        kind: ListenerKind,
        settings: &Settings,
        inherited: &mut Inherited,
    ) -> Result<Option<Self>, BindError> {
        let tcp = match settings.address.as_str() {
            "" => Vec::new(),
            address => bind_tcp(address, inherited)?,
        };
        let socket = settings.socket.as_deref().map(|path| UnixSocket::bind(path, SOCKET_MODE, inherited));
        let unix = socket.transpose()?;
        if tcp.is_empty() && unix.is_none() {
            return Ok(None);
        }
        Ok(Some(Self { kind, settings: settings.clone(), tcp, unix, taken: Arc::default() }))
    }

    pub fn kind(&self) -> ListenerKind {
        self.kind
    }

    /// The addresses that clients can connect to.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.tcp.iter().filter_map(|socket| socket.local_addr().ok()).collect()
    }

    /// Accepts until `stop` says so; the sockets are closed then.
    pub async fn run(self, workers: Arc<Workers>, mut stop: watch::Receiver<bool>) {
        let gate = Arc::new(Gate {
            kind: self.kind,
            settings: self.settings,
            taken: self.taken,
            hand_on: Box::new(move |client| workers.assign(client)),
        });
        accept_all(self.tcp, self.unix, &gate, &mut stop).await;
    }
}

/// What each new client passes.
struct Gate {
    kind: ListenerKind,
    settings: Settings,
    taken: Arc<AtomicUsize>,
    hand_on: Box<dyn Fn(Accepted) + Send + Sync>,
}

/// A client whose place is not settled yet.
enum Fresh {
    Tcp(TcpStream, SocketAddr),
    Unix(UnixStream),
}

async fn accept_all(
    tcp: Vec<TcpListener>,
    unix: Option<UnixSocket>,
    gate: &Arc<Gate>,
    stop: &mut watch::Receiver<bool>,
) {
    let mut loops = Vec::new();
    for listener in tcp {
        let gate = gate.clone();
        loops.push(tokio::spawn(async move {
            loop {
                let accepted = listener.accept().await;
                gate.take(accepted.map(|(socket, peer)| Fresh::Tcp(socket, peer))).await;
            }
        }));
    }
    if let Some(socket) = unix {
        let gate = gate.clone();
        loops.push(tokio::spawn(async move {
            loop {
                let accepted = socket.listener.accept().await;
                gate.take(accepted.map(|(socket, _)| Fresh::Unix(socket))).await;
            }
        }));
    }
    // An error means that nobody is left to say stop.
    drop(stop.wait_for(|stop| *stop).await);
    for task in loops {
        task.abort();
        // Ends with the socket closed.
        drop(task.await);
    }
}

impl Gate {
    async fn take(self: &Arc<Self>, accepted: io::Result<Fresh>) {
        let fresh = match accepted {
            Ok(fresh) => fresh,
            Err(error) => return self.pause_after(&error).await,
        };
        let Some(seat) = self.seat() else { return self.refuse(fresh) };
        match fresh {
            Fresh::Unix(socket) => {
                self.pass(socket.into_std().map(AcceptedSocket::Unix), ClientAddress::Local, seat)
            }
            Fresh::Tcp(socket, peer) if is_trusted(&self.settings.proxy_protocol, peer) => {
                // Its own task, so that a balancer that says nothing holds nobody up.
                tokio::spawn(self.clone().pass_announced(socket, peer, seat));
            }
            Fresh::Tcp(socket, peer) => self.pass_tcp(socket, peer, seat),
        }
    }

    /// A client that left while it was in the queue is nothing; a shortage passes.
    async fn pause_after(&self, error: &io::Error) {
        use nix::errno::Errno::{EMFILE, ENFILE, ENOBUFS, ENOMEM};
        let shortages = [EMFILE, ENFILE, ENOBUFS, ENOMEM].map(|errno| errno as i32);
        if error.raw_os_error().is_some_and(|errno| shortages.contains(&errno)) {
            warn!(listener = self.kind.name(), %error, "no client can be accepted for the moment");
            tokio::time::sleep(SHORTAGE_PAUSE).await;
        } else {
            debug!(listener = self.kind.name(), %error, "a client left before it was accepted");
        }
    }

    fn seat(&self) -> Option<Seat> {
        let limit = self.settings.max_connections as usize;
        let taken = self.taken.fetch_add(1, Ordering::AcqRel);
        let seat = Seat(self.taken.clone());
        (taken < limit).then_some(seat)
    }

    /// Says why in the form that is understood before any greeting.
    fn refuse(&self, fresh: Fresh) {
        let mut packet = Vec::new();
        let mut payload = Vec::new();
        ErrPacket::new(1040, *b"08004", b"Too many connections").write(&mut payload, Capabilities::empty());
        write_packet(&mut packet, 0, &payload);
        let written = match &fresh {
            Fresh::Tcp(socket, _) => socket.try_write(&packet),
            Fresh::Unix(socket) => socket.try_write(&packet),
        };
        let limit = self.settings.max_connections;
        info!(listener = self.kind.name(), limit, told = written.is_ok(), "too many connections");
    }

    async fn pass_announced(self: Arc<Self>, mut socket: TcpStream, peer: SocketAddr, seat: Seat) {
        match client_of(&mut socket, peer).await {
            Ok(client) => self.pass_tcp(socket, client, seat),
            // Balancers connect and leave to see whether anybody listens.
            Err(AnnounceError::Io(error)) => {
                debug!(%peer, %error, "a connection ended before its PROXY header")
            }
            Err(error) => warn!(listener = self.kind.name(), %peer, %error, "client refused"),
        }
    }

    fn pass_tcp(&self, socket: TcpStream, client: SocketAddr, seat: Seat) {
        // Fails where the peer is gone; the session will notice.
        drop(tune(&socket, Side::Client));
        self.pass(socket.into_std().map(AcceptedSocket::Tcp), ClientAddress::Ip(client), seat);
    }

    fn pass(&self, socket: io::Result<AcceptedSocket>, address: ClientAddress, seat: Seat) {
        match socket {
            Ok(socket) => (self.hand_on)(Accepted { socket, listener: self.kind, address, seat }),
            Err(error) => warn!(client = %address, %error, "socket cannot be used"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tempfile::TempDir;
    use tokio::io::AsyncReadExt;
    use tokio::io::AsyncWriteExt;

    use super::*;

    /// A gate whose clients stay in a list.
    struct Hall {
        address: SocketAddr,
        clients: Arc<Mutex<Vec<Accepted>>>,
        stop: watch::Sender<bool>,
        task: tokio::task::JoinHandle<()>,
    }

    impl Hall {
        fn open(settings: &Settings) -> Self {
            let settings = Settings { address: "127.0.0.1:0".to_owned(), ..settings.clone() };
            let acceptor = Acceptor::bind(ListenerKind::ReadOnly, &settings, &mut Inherited::default())
                .unwrap()
                .unwrap();
            let address = acceptor.addresses()[0];
            let clients: Arc<Mutex<Vec<Accepted>>> = Arc::default();
            let list = clients.clone();
            let hand_on = Box::new(move |client| list.lock().unwrap().push(client));
            let gate = Gate { kind: acceptor.kind, settings, taken: acceptor.taken, hand_on };
            let (stop, mut stopped) = watch::channel(false);
            let task = tokio::spawn(async move {
                accept_all(acceptor.tcp, acceptor.unix, &Arc::new(gate), &mut stopped).await;
            });
            Self { address, clients, stop, task }
        }

        async fn clients(&self, count: usize) -> Vec<ClientAddress> {
            let list =
                || self.clients.lock().unwrap().iter().map(|client| client.address).collect::<Vec<_>>();
            tokio::time::timeout(Duration::from_secs(5), async {
                while list().len() != count {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            })
            .await
            .unwrap();
            list()
        }
    }

    #[tokio::test]
    async fn one_client_too_many_is_told_so() {
        let hall = Hall::open(&Settings { max_connections: 2, ..Settings::default() });
        let _first = TcpStream::connect(hall.address).await.unwrap();
        let _second = TcpStream::connect(hall.address).await.unwrap();
        hall.clients(2).await;
        let mut third = TcpStream::connect(hall.address).await.unwrap();
        let mut said = Vec::new();
        third.read_to_end(&mut said).await.unwrap();
        assert_eq!(said, b"\x17\0\0\0\xff\x10\x04Too many connections");
        hall.clients.lock().unwrap().pop();
        let _fourth = TcpStream::connect(hall.address).await.unwrap();
        hall.clients(2).await;
    }

    #[tokio::test]
    async fn announced_clients_have_their_own_address() {
        let trusted =
            Settings { proxy_protocol: vec!["127.0.0.0/8".parse().unwrap()], ..Settings::default() };
        let hall = Hall::open(&trusted);
        // One that says nothing holds nobody up.
        let _silent = TcpStream::connect(hall.address).await.unwrap();
        let mut balancer = TcpStream::connect(hall.address).await.unwrap();
        balancer.write_all(b"PROXY TCP4 10.0.0.7 10.0.0.1 5000 3306\r\n").await.unwrap();
        assert_eq!(hall.clients(1).await[0].to_string(), "10.0.0.7:5000");
        let mut junk = TcpStream::connect(hall.address).await.unwrap();
        junk.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        assert_eq!(junk.read(&mut [0; 10]).await.unwrap_or(0), 0);

        let hall = Hall::open(&Settings::default());
        let mut liar = TcpStream::connect(hall.address).await.unwrap();
        liar.write_all(b"PROXY TCP4 10.0.0.7 10.0.0.1 5000 3306\r\n").await.unwrap();
        assert_eq!(hall.clients(1).await[0].ip(), Some("127.0.0.1".parse().unwrap()));
    }

    #[tokio::test]
    async fn stopping_closes_the_sockets() {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("s");
        let hall = Hall::open(&Settings { socket: Some(path.clone()), ..Settings::default() });
        let _local = UnixStream::connect(&path).await.unwrap();
        assert_eq!(hall.clients(1).await, [ClientAddress::Local]);
        hall.stop.send(true).unwrap();
        hall.task.await.unwrap();
        assert!(TcpStream::connect(hall.address).await.is_err());
        assert!(!path.exists());
    }
}
