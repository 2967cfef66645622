//! Several proxies in front of the same servers, which agree through one etcd.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use mysql_async::OptsBuilder;
use nix::sys::signal::Signal;
use pointsman::failover::coordinator::{Coordinator, Etcd as Client, Heard};
use pointsman_router::failover::Record;
use tempfile::NamedTempFile;
use tokio::process::Command;
use tokio::sync::watch;

use crate::sandbox::{APP, Link, SERVICE, Sandbox, Server};
use crate::{Etcd, Failure, Proxy, eventually, program};

/// What a fleet consists of.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    pub proxies: usize,
    /// Of etcd.
    pub members: usize,
    /// Each proxy reaches each server over a link of its own.
    pub linked: bool,
    /// Each proxy has a wall clock of its own.
    pub own_clocks: bool,
    /// How long a proxy's registration outlives it.
    pub lease: Duration,
}

/// Proxies, and what they agree through.
#[derive(Debug)]
pub struct Fleet {
    pub sandbox: Arc<Sandbox>,
    pub etcd: Etcd,
    pub members: Vec<Member>,
    /// Sees the record as it is in etcd, without any proxy.
    client: Client,
    heard: watch::Receiver<Heard>,
}

/// One proxy and the links that it uses.
#[derive(Debug)]
pub struct Member {
    pub proxy: Proxy,
    pid: u32,
    /// To each member of etcd.
    pub to_etcd: Vec<Link>,
    /// To each server, in the order of the sandbox; none where the fleet is not linked.
    pub to_servers: Vec<Link>,
    /// What is to be added to the machine's clock; none where the fleet has no clocks of its own.
    clock: Option<NamedTempFile>,
}

impl Fleet {
    /// Starts etcd and the proxies, and waits until each is ready, knows of all the others, and would act.
    ///
    /// # Errors
    ///
    /// When something does not start.
    pub async fn start(sandbox: Arc<Sandbox>, layout: Layout, tables: &str) -> Result<Self, Failure> {
        let etcd = Etcd::start(layout.members).await?;
        let client = etcd.client("watcher", layout.lease)?;
        let heard = client.watch();
        let mut members = Vec::new();
        for _ in 0..layout.proxies {
            members.push(Member::start(&sandbox, &etcd, layout, tables).await?);
        }
        let fleet = Self { sandbox, etcd, members, client, heard };
        for member in &fleet.members {
            member.proxy.ready(LIMIT).await?;
        }
        fleet.armed().await;
        Ok(fleet)
    }

    /// Waits until every proxy that runs would act: the record is stable, and all servers are in use.
    async fn armed(&self) {
        let wanted = if self.sandbox.options().lossless { "lossless" } else { "async" };
        for member in &self.members {
            member.proxy.armed(wanted).await;
        }
        let proxies = self.members.len();
        eventually("all proxies are registered", LIMIT, async || {
            self.client.get().await.is_ok_and(|found| found.sessions.len() == proxies)
        })
        .await;
    }

    /// How an application connects through each proxy.
    pub fn options(&self) -> Vec<OptsBuilder> {
        self.members.iter().map(|member| member.proxy.options(APP, "app")).collect()
    }

    /// The newest state of the record that was heard of.
    pub fn record(&self) -> Option<Record> {
        let heard = self.heard.borrow();
        heard.as_ref().and_then(|(_, text)| serde_json::from_str(text).ok())
    }

    /// Waits until the record is as `wanted`; it is looked at each time that it changes.
    ///
    /// # Panics
    ///
    /// When it takes too long, with the last state.
    pub async fn record_becomes(&self, what: &str, wanted: impl Fn(&Record) -> bool) -> Record {
        let mut heard = self.heard.clone();
        let is_wanted = |heard: &Heard| -> Option<Record> {
            let record = heard.as_ref().and_then(|(_, text)| serde_json::from_str(text).ok())?;
            wanted(&record).then_some(record)
        };
        let waiting = heard.wait_for(|heard| is_wanted(heard).is_some());
        let found = match tokio::time::timeout(LIMIT, waiting).await {
            Ok(Ok(heard)) => is_wanted(&heard),
            Ok(Err(_)) | Err(_) => None,
        };
        found
            .unwrap_or_else(|| panic!("expected within {LIMIT:?}: {what}; the record is {:?}", self.record()))
    }

    /// The proxies that have registered, by their names in the coordinator: the first one acts first.
    ///
    /// # Errors
    ///
    /// When etcd does not answer.
    pub async fn ranks(&self) -> Result<Vec<usize>, Failure> {
        let sessions = self.client.get().await?.sessions;
        let ranks: Option<Vec<_>> = sessions.keys().map(|name| self.by_name(name)).collect();
        Ok(ranks.ok_or("a proxy that was not started here")?)
    }

    /// Which proxy has this name in the coordinator: it begins with the id of its process.
    pub fn by_name(&self, name: &str) -> Option<usize> {
        let pid: u32 = name.split('-').next()?.parse().ok()?;
        self.members.iter().position(|member| member.pid == pid)
    }

    /// The server that the record names as the primary.
    ///
    /// # Errors
    ///
    /// When there is none.
    pub fn primary(&self) -> Result<Arc<Server>, Failure> {
        let name = self.record().and_then(|record| record.primary).ok_or("no primary")?;
        self.server(&name).ok_or_else(|| format!("no server {name}").into())
    }

    /// The server of that name in the record.
    pub fn server(&self, name: &str) -> Option<Arc<Server>> {
        self.sandbox
            .servers()
            .iter()
            .find(|server| server.name() == name || server.address() == name)
            .cloned()
    }
}

impl Drop for Fleet {
    /// The suite tells only of the proxy that it has started itself.
    fn drop(&mut self) {
        if std::thread::panicking() {
            for (at, member) in self.members.iter().enumerate() {
                // Beside the report of the failed test, which ends up on the same stream.
                let mut out = std::io::stderr();
                let text = format!("proxy {at}: {}\n", member.proxy.story());
                drop(std::io::Write::write_all(&mut out, text.as_bytes()));
            }
        }
    }
}

impl Member {
    async fn start(sandbox: &Sandbox, etcd: &Etcd, layout: Layout, tables: &str) -> Result<Self, Failure> {
        let linked = layout.linked;
        let to_etcd = links(&etcd.ports()).await?;
        let ports: Vec<_> = sandbox.servers().iter().map(|server| server.port()).collect();
        let to_servers = if linked { links(&ports).await? } else { Vec::new() };
        let endpoints: Vec<_> =
            to_etcd.iter().map(|link| format!("\"http://127.0.0.1:{}\"", link.port())).collect();
        let coordination = format!(
            "[coordination]\nbackend = \"etcd\"\nlease = \"{}s\"\nendpoints = [{}]\n{tables}",
            layout.lease.as_secs(),
            endpoints.join(", ")
        );
        let servers = if linked { linked_servers(sandbox, &to_servers) } else { sandbox.configuration() };
        let clock = layout.own_clocks.then(NamedTempFile::new).transpose()?;
        let mut command = Command::new(program()?);
        if let Some(clock) = &clock {
            set_clock(clock, 0)?;
            command.env("LD_PRELOAD", clock_library()?).env("FAKETIME_TIMESTAMP_FILE", clock.path());
            command.env("FAKETIME_NO_CACHE", "1").env("DONT_FAKE_MONOTONIC", "1");
        }
        let proxy = Proxy::spawn_by(command, sandbox, &servers, &coordination)?;
        let pid = proxy.pid().await.ok_or("the proxy has ended")?;
        Ok(Self { proxy, pid, to_etcd, to_servers, clock })
    }

    /// Makes this proxy's wall clock jump to so many seconds after the machine's; other clocks go on.
    ///
    /// # Errors
    ///
    /// When the fleet has no clocks of its own.
    pub fn jump_clock(&self, seconds: i64) -> Result<(), Failure> {
        set_clock(self.clock.as_ref().ok_or("this fleet goes by the machine's clock")?, seconds)
    }

    /// kill -9
    ///
    /// # Errors
    ///
    /// When it does not run.
    pub async fn kill(&self) -> Result<(), Failure> {
        self.proxy.signal(Signal::SIGKILL).await?;
        self.proxy.ended(LIMIT).await?;
        Ok(())
    }

    /// What the coordinator says reaches this proxy that much later.
    pub fn delay_etcd(&self, delay: Duration) {
        self.to_etcd.iter().for_each(|link| link.delay(delay));
    }
}

/// The library takes the whole file in at once, so it is replaced by one write.
fn set_clock(clock: &NamedTempFile, seconds: i64) -> Result<(), Failure> {
    Ok(fs::write(clock.path(), format!("{seconds:+}\n"))?)
}

/// Debian's package `faketime` has it, in a directory of the machine's architecture.
fn clock_library() -> Result<PathBuf, Failure> {
    let directories = fs::read_dir("/usr/lib")?.flatten();
    let mut libraries = directories.map(|entry| entry.path().join("faketime/libfaketimeMT.so.1"));
    libraries.find(|library| library.is_file()).ok_or_else(|| "install faketime".into())
}

async fn links(ports: &[u16]) -> Result<Vec<Link>, Failure> {
    let mut links = Vec::new();
    for port in ports {
        links.push(Link::to(*port).await?);
    }
    Ok(links)
}

/// As [`Sandbox::configuration`], but each server behind a link; all proxies call a server by the same name.
fn linked_servers(sandbox: &Sandbox, links: &[Link]) -> String {
    let mut text = format!("user = \"{}\"\npassword = \"{}\"\n", SERVICE.0, SERVICE.1);
    for (server, link) in sandbox.servers().iter().zip(links) {
        let (name, port) = (server.address(), link.port());
        text += &format!("[[server]]\nname = \"{name}\"\naddress = \"127.0.0.1:{port}\"\n");
    }
    text
}

const LIMIT: Duration = Duration::from_secs(30);
