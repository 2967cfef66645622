//! The ways to the servers that are compared.

use std::fmt;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use std::{env, fs};

use nix::sys::resource::{Resource, getrlimit};
use pointsman_integration_tests::sandbox::{APP, Port, SERVICE, Sandbox};
use pointsman_integration_tests::{Failure, Proxy, eventually};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Direct,
    Haproxy,
    Pointsman,
    Proxysql,
    Router,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Direct => "direct",
            Self::Haproxy => "HAProxy",
            Self::Pointsman => "Pointsman",
            Self::Proxysql => "ProxySQL",
            Self::Router => "MySQL Router",
        })
    }
}

/// One of them, running; ends when dropped.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) kind: Kind,
    pub(crate) port: u16,
    /// For loads that only read, of a proxy that cannot split by itself.
    pub(crate) read_port: u16,
    pub(crate) pid: Option<u32>,
    _running: Running,
}

#[derive(Debug)]
#[expect(dead_code, reason = "held for its end")]
enum Running {
    Nothing,
    Pointsman(Proxy),
    Other(Child, Port, Port),
}

impl Target {
    /// Starts all that this machine has: direct, HAProxy and Pointsman always, others by `PROXYSQL` and
    /// `MYSQLROUTER`, which name their programs.
    pub(crate) async fn start_all(sandbox: &Sandbox) -> Result<Vec<Self>, Failure> {
        let mut targets = vec![Self::direct(sandbox)];
        targets.push(Self::other(Kind::Haproxy, "haproxy", sandbox).await?);
        targets.push(Self::pointsman(sandbox).await?);
        if let Ok(program) = env::var("PROXYSQL") {
            targets.push(Self::other(Kind::Proxysql, &program, sandbox).await?);
        }
        if let Ok(program) = env::var("MYSQLROUTER") {
            targets.push(Self::other(Kind::Router, &program, sandbox).await?);
        }
        Ok(targets)
    }

    fn direct(sandbox: &Sandbox) -> Self {
        let read_port = sandbox.replicas()[0].port();
        let port = sandbox.primary().port();
        Self { kind: Kind::Direct, port, read_port, pid: None, _running: Running::Nothing }
    }

    async fn pointsman(sandbox: &Sandbox) -> Result<Self, Failure> {
        let proxy = Proxy::start(sandbox, "").await?;
        let pid = proxy.pid().await;
        let port = proxy.port();
        Ok(Self { kind: Kind::Pointsman, port, read_port: port, pid, _running: Running::Pointsman(proxy) })
    }

    async fn other(kind: Kind, program: &str, sandbox: &Sandbox) -> Result<Self, Failure> {
        let (port, second) = (Port::reserve()?, Port::reserve()?);
        let directory = sandbox.directory().join(format!("{kind:?}-{}", port.number()));
        fs::create_dir_all(&directory)?;
        let file = directory.join("configuration");
        let (write, read) = (port.number(), second.number());
        let (text, read_port) = match kind {
            Kind::Proxysql => (proxysql(sandbox, write, read, &directory), write),
            Kind::Router => (router(sandbox, write, read, &directory), read),
            Kind::Haproxy | Kind::Direct | Kind::Pointsman => (haproxy(sandbox, write, read), read),
        };
        fs::write(&file, text)?;
        let mut command = Command::new(program);
        match kind {
            Kind::Proxysql => command.args(["-f", "--initial", "-D"]).arg(&directory).arg("-c").arg(&file),
            Kind::Router => command.arg("-c").arg(&file),
            Kind::Haproxy | Kind::Direct | Kind::Pointsman => command.args(["-db", "-f"]).arg(&file),
        };
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        let pid = child.id();
        if let Some(pid) = pid {
            sandbox.watch(&format!("{kind:?}-{write}"), pid)?;
        }
        eventually("the proxy listens", LISTEN_LIMIT, async || {
            TcpStream::connect(("127.0.0.1", write)).await.is_ok()
        })
        .await;
        Ok(Self { kind, port: write, read_port, pid, _running: Running::Other(child, port, second) })
    }
}

fn haproxy(sandbox: &Sandbox, write: u16, read: u16) -> String {
    let replicas: String = sandbox
        .replicas()
        .iter()
        .map(|replica| format!("  server {} {}\n", replica.name(), replica.address()))
        .collect();
    format!(
        "global\n  maxconn {}\ndefaults\n  mode tcp\n  timeout connect 5s\n  timeout client 1h\n  \
         timeout server 1h\nlisten write\n  bind 127.0.0.1:{write}\n  server primary {}\nlisten read\n  \
         bind 127.0.0.1:{read}\n  balance roundrobin\n{replicas}",
        max_clients(),
        sandbox.primary().address()
    )
}

/// HAProxy refuses to start when it may not open two files for each client.
fn max_clients() -> u64 {
    getrlimit(Resource::RLIMIT_NOFILE).map_or(1000, |(_, hard)| (hard.saturating_sub(500) / 2).min(20_000))
}

fn proxysql(sandbox: &Sandbox, port: u16, admin: u16, directory: &Path) -> String {
    let server = |group: u8, port: u16| {
        format!("{{ address=\"127.0.0.1\", port={port}, hostgroup={group}, max_connections=1000 }}")
    };
    let mut servers = vec![server(0, sandbox.primary().port())];
    servers.extend(sandbox.replicas().iter().map(|replica| server(1, replica.port())));
    format!(
        "datadir=\"{}\"\nadmin_variables=\n{{ admin_credentials=\"admin:admin\"\n  \
         mysql_ifaces=\"127.0.0.1:{admin}\" }}\nmysql_variables=\n{{ threads={}\n  max_connections=20000\n  \
         interfaces=\"127.0.0.1:{port}\"\n  monitor_username=\"{}\"\n  monitor_password=\"{}\" }}\n\
         mysql_servers=({})\n\
         mysql_users=({{ username=\"{}\", password=\"{}\", default_hostgroup=0, max_connections=20000, \
         transaction_persistent=1, active=1 }})\n\
         mysql_query_rules=({{ rule_id=1, active=1, match_digest=\"^SELECT.*FOR UPDATE\", \
         destination_hostgroup=0, apply=1 }},\n\
         {{ rule_id=2, active=1, match_digest=\"^SELECT\", destination_hostgroup=1, apply=1 }})\n",
        directory.display(),
        std::thread::available_parallelism().map_or(1, usize::from),
        SERVICE.0,
        SERVICE.1,
        servers.join(","),
        APP.0,
        APP.1,
    )
}

fn router(sandbox: &Sandbox, write: u16, read: u16, directory: &Path) -> String {
    let replicas: Vec<String> = sandbox.replicas().iter().map(|replica| replica.address()).collect();
    let section = |name: &str, port: u16, destinations: &str, strategy: &str| {
        format!(
            "[routing:{name}]\nbind_address=127.0.0.1\nbind_port={port}\ndestinations={destinations}\n\
             routing_strategy={strategy}\nprotocol=classic\nmax_connections=20000\n\
             client_ssl_mode=DISABLED\nserver_ssl_mode=DISABLED\n"
        )
    };
    // Where a router that was moved finds its parts.
    let plugins = env::var("MYSQLROUTER_PLUGINS")
        .map_or_else(|_| String::new(), |folder| format!("plugin_folder={folder}\n"));
    format!(
        "[DEFAULT]\n{plugins}logging_folder={0}\nruntime_folder={0}\ndata_folder={0}\nmax_total_connections=20000\n{1}{2}",
        directory.display(),
        section("write", write, &sandbox.primary().address(), "first-available"),
        section("read", read, &replicas.join(","), "round-robin"),
    )
}

const LISTEN_LIMIT: Duration = Duration::from_secs(10);
