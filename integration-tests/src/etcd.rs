//! A real etcd for the proxies to agree through, of one member or several.

use std::fs::File;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use pointsman::failover::coordinator::{Coordinator, Etcd as Client};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::sync::Mutex;

use crate::sandbox::Port;
use crate::{Failure, eventually};

/// The members; gone with this value.
#[derive(Debug)]
pub struct Etcd {
    members: Vec<Member>,
    cluster: String,
    directory: TempDir,
}

#[derive(Debug)]
struct Member {
    name: String,
    client: Port,
    peer: Port,
    process: Mutex<Option<Child>>,
}

impl Etcd {
    /// Starts `members` and waits until they have agreed on a leader.
    ///
    /// # Errors
    ///
    /// When etcd is missing (Debian's package `etcd-server`).
    pub async fn start(members: usize) -> Result<Self, Failure> {
        let make = |at: usize| -> Result<Member, Failure> {
            let (client, peer) = (Port::reserve()?, Port::reserve()?);
            Ok(Member { name: format!("etcd-{at}"), client, peer, process: Mutex::default() })
        };
        let members: Vec<_> = (0..members).map(make).collect::<Result<_, _>>()?;
        let cluster: Vec<_> =
            members.iter().map(|member| format!("{}={}", member.name, url(&member.peer))).collect();
        let etcd = Self { members, cluster: cluster.join(","), directory: TempDir::new()? };
        for at in 0..etcd.members.len() {
            etcd.run(at).await?;
        }
        etcd.answers().await?;
        Ok(etcd)
    }

    /// Where each member listens for clients: `http://host:port`.
    pub fn endpoints(&self) -> Vec<String> {
        self.members.iter().map(|member| url(&member.client)).collect()
    }

    /// The ports of [`Self::endpoints`].
    pub fn ports(&self) -> Vec<u16> {
        self.members.iter().map(|member| member.client.number()).collect()
    }

    /// Starts a member, again with what it had.
    ///
    /// # Errors
    ///
    /// When etcd is missing.
    pub async fn run(&self, at: usize) -> Result<(), Failure> {
        let member = &self.members[at];
        let mut process = member.process.lock().await;
        if process.is_some() {
            return Ok(());
        }
        let (client, peer) = (url(&member.client), url(&member.peer));
        let running = Command::new("etcd")
            .args(["--name", &member.name, "--data-dir"])
            .arg(self.directory.path().join(&member.name))
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &self.cluster, "--heartbeat-interval=50", "--election-timeout=500"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(self.log(at))?)
            .kill_on_drop(true)
            .spawn();
        *process =
            Some(running.map_err(|error| format!("etcd cannot be run (package etcd-server): {error}"))?);
        Ok(())
    }

    /// Kills a member as a crash would.
    ///
    /// # Errors
    ///
    /// When it does not run.
    pub async fn kill(&self, at: usize) -> Result<(), Failure> {
        let process = self.members[at].process.lock().await.take();
        Ok(process.ok_or("the member does not run")?.kill().await?)
    }

    /// Sends a signal to a member.
    ///
    /// # Errors
    ///
    /// When it does not run.
    pub async fn signal(&self, at: usize, signal: Signal) -> Result<(), Failure> {
        let pid = self.members[at].process.lock().await.as_ref().and_then(Child::id);
        let pid = i32::try_from(pid.ok_or("the member does not run")?)?;
        Ok(kill(Pid::from_raw(pid), signal)?)
    }

    /// Which member leads the others.
    ///
    /// # Errors
    ///
    /// When none says that it does.
    pub async fn leader(&self) -> Result<usize, Failure> {
        for (at, member) in self.members.iter().enumerate() {
            let status = member.status().await?;
            let own = status["header"]["member_id"].as_str();
            if own.is_some() && own == status["leader"].as_str() {
                return Ok(at);
            }
        }
        Err("no member of etcd leads".into())
    }

    /// Waits until it can be read and written.
    ///
    /// # Errors
    ///
    /// When the endpoints are no endpoints.
    pub async fn answers(&self) -> Result<(), Failure> {
        let client = self.client("probe", Duration::from_secs(1))?;
        eventually("etcd answers", START_LIMIT, async || client.get().await.is_ok()).await;
        Ok(())
    }

    /// The view that a proxy of that name has, of the cluster that [`crate::Proxy`] is started for.
    ///
    /// # Errors
    ///
    /// When the endpoints are no endpoints.
    pub fn client(&self, proxy: &str, lease: Duration) -> Result<Client, Failure> {
        let defaults = pointsman_config::Config::default();
        Ok(Client::new(&self.endpoints(), &defaults.coordination.prefix, &defaults.cluster, proxy, lease)?)
    }

    fn log(&self, at: usize) -> PathBuf {
        self.directory.path().join(format!("{}.log", self.members[at].name))
    }
}

impl Member {
    async fn status(&self) -> Result<serde_json::Value, Failure> {
        let mut socket = TcpStream::connect(("127.0.0.1", self.client.number())).await?;
        let request = "POST /v3/maintenance/status HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
                       Content-Length: 2\r\n\r\n{}";
        socket.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await?;
        let (start, end) = (answer.find('{').ok_or("no JSON")?, answer.rfind('}').ok_or("no JSON")?);
        Ok(serde_json::from_str(&answer[start..=end])?)
    }
}

fn url(port: &Port) -> String {
    format!("http://127.0.0.1:{}", port.number())
}

const START_LIMIT: Duration = Duration::from_secs(30);
