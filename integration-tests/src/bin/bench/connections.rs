//! Clients that only hold connections, and clients that only log in.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use mysql_async::{Conn, OptsBuilder, SslOpts};
use pointsman_integration_tests::Failure;
use pointsman_integration_tests::sandbox::APP;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::process::resident_kib;
use crate::target::Target;

/// So many clients that do nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Crowd {
    pub(crate) clients: usize,
    pub(crate) tls: bool,
}

impl fmt::Display for Crowd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.clients, if self.tls { ", TLS" } else { "" })
    }
}

/// What idle connections cost a proxy.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    pub(crate) kib_per_client: f64,
    pub(crate) total_kib: u64,
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1} KiB each, {} MiB in all", self.kib_per_client, self.total_kib / 1024)
    }
}

/// Opens the crowd's connections and measures the proxy while they do nothing.
pub(crate) async fn hold(target: &Target, crowd: Crowd) -> Result<Held, Failure> {
    let pid = target.pid.ok_or("no process to measure")?;
    let accept_any = || SslOpts::default().with_danger_accept_invalid_certs(true);
    let options = |port| options(port).ssl_opts(crowd.tls.then(accept_any));
    // One login first: what the first client of all costs is not what each client costs.
    let first = Conn::new(options(target.port)).await?;
    let before = resident_kib(pid)?;
    let mut open = Vec::with_capacity(crowd.clients);
    let mut opening = JoinSet::new();
    for _ in 0..crowd.clients {
        if opening.len() == CONCURRENT_LOGINS {
            open.extend(opening.join_next().await.transpose()?.transpose()?);
        }
        opening.spawn(Conn::new(options(target.port)));
    }
    while let Some(conn) = opening.join_next().await {
        open.push(conn??);
    }
    // What logins left to be freed is not a matter of idle clients.
    sleep(SETTLE).await;
    let total_kib = resident_kib(pid)?;
    drop((first, open));
    Ok(Held { kib_per_client: (total_kib.saturating_sub(before)) as f64 / crowd.clients as f64, total_kib })
}

/// Clients that log in and out until [`Flood::end`].
pub(crate) struct Flood {
    logins: Arc<AtomicU32>,
    _clients: JoinSet<()>,
}

impl Flood {
    /// Ends it and says how many logins there were.
    pub(crate) fn end(self) -> u32 {
        self.logins.load(Ordering::Relaxed)
    }
}

pub(crate) fn flood(port: u16, clients: usize) -> Flood {
    let logins = Arc::new(AtomicU32::new(0));
    let mut tasks = JoinSet::new();
    for _ in 0..clients {
        let logins = logins.clone();
        tasks.spawn(async move {
            loop {
                if Conn::new(options(port)).await.is_ok() {
                    logins.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
    }
    Flood { logins, _clients: tasks }
}

/// With nothing to ask the server for after the login.
fn options(port: u16) -> OptsBuilder {
    OptsBuilder::default()
        .ip_or_hostname("127.0.0.1")
        .tcp_port(port)
        .user(Some(APP.0))
        .pass(Some(APP.1))
        .db_name(Some("sbtest"))
        .prefer_socket(false)
        .max_allowed_packet(Some(16 << 20))
        .wait_timeout(Some(28_800))
}

const CONCURRENT_LOGINS: usize = 50;
const SETTLE: Duration = Duration::from_secs(3);
