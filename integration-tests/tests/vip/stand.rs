//! Real servers behind the address: a MariaDB primary with two replicas on the guest's own host, etcd beside them, and
//! `pointsman serve` on the directors' hosts.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::net::UnixStream;
use std::process::{Command, Output};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, OptsBuilder};
use nix::sys::signal::Signal;
use pointsman_integration_tests::program;
use pointsman_integration_tests::sandbox::{APP, Options, SERVICE, Sandbox, Server};
use serde_json::Value;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;

use crate::bed::{PORT, SERVERS, Serving, VIP, eventually, inside, state_dir, table};

pub(crate) struct Servers {
    pub(crate) sandbox: Sandbox,
    pub(crate) runtime: Runtime,
    pub(crate) etcd: Serving,
}

/// `pointsman serve` on a director's host.
pub(crate) struct Proxy {
    pub(crate) host: &'static str,
    process: Serving,
}

/// How it is configured.
pub(crate) struct Setup {
    pub(crate) address: &'static str,
    /// Where the servers are.
    pub(crate) servers: &'static str,
    pub(crate) with_etcd: bool,
    /// `failover.mode`
    pub(crate) failover: &'static str,
}

pub(crate) const ALONE: Setup = Setup { address: VIP, servers: SERVERS, with_etcd: false, failover: "off" };

/// One client's connection.
pub(crate) struct Session {
    pub(crate) runtime: Runtime,
    pub(crate) conn: Conn,
}

/// Writes that go on until this is dropped.
pub(crate) struct Writes(JoinHandle<()>);

impl Servers {
    /// All of them running and in step. They are started once: that takes long here.
    pub(crate) fn get() -> &'static Self {
        static SERVERS: OnceLock<Servers> = OnceLock::new();
        let servers = SERVERS.get_or_init(Self::start);
        servers.etcd.signal(Signal::SIGCONT);
        let sandbox = &servers.sandbox;
        servers.runtime.block_on(async {
            for server in sandbox.servers() {
                server.start().await.expect("a server");
            }
            for replica in sandbox.replicas() {
                replica.run(&["START SLAVE"]).await.expect("replication");
            }
            sandbox.caught_up(START_LIMIT).await.expect("replicas in step");
        });
        servers
    }

    fn start() -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
        let options = Options {
            replicas: 2,
            options: vec!["--bind-address=*".to_owned(), "--max-connections=100".to_owned()],
            ..Options::default()
        };
        let sandbox = runtime.block_on(Sandbox::start(&options)).expect("servers");
        runtime.block_on(sandbox.primary().run(&[WRITTEN])).expect("a table");
        Self { sandbox, runtime, etcd: etcd() }
    }

    pub(crate) fn primary(&self) -> &Server {
        self.sandbox.primary()
    }

    pub(crate) fn replicas(&self) -> [&Server; 2] {
        [&self.sandbox.replicas()[0], &self.sandbox.replicas()[1]]
    }

    /// Writes to the primary every 50 ms.
    pub(crate) fn write(&'static self) -> Writes {
        Writes(self.runtime.spawn(async move {
            let mut conn = self.primary().connect().await.expect("the primary");
            loop {
                conn.query_drop("INSERT INTO app.written () VALUES ()").await.expect("an insert");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }))
    }
}

impl Drop for Writes {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn etcd() -> Serving {
    let url = format!("http://{SERVERS}:{ETCD_PORT}");
    let child = Command::new("etcd")
        .args(["--data-dir", "/run/etcd", "--listen-client-urls", &url, "--advertise-client-urls", &url])
        .args(["--listen-peer-urls", "http://127.0.0.1:2380"])
        .stdout(fs::File::create("/run/etcd.out").expect("a file"))
        .stderr(fs::File::create("/run/etcd.log").expect("a file"))
        .spawn();
    Serving(child.expect("etcd (package etcd-server)"))
}

impl Proxy {
    pub(crate) fn new(host: &'static str, process: Serving) -> Self {
        Self { host, process }
    }

    pub(crate) fn start(host: &'static str, servers: &Servers, setup: &Setup) -> Self {
        let file = format!("/run/{host}.toml");
        fs::write(&file, configuration(host, servers, setup)).expect("a file");
        let child = Command::new("ip")
            .args(["netns", "exec", host])
            .arg(program().expect("the program"))
            .args(["serve", "--config", &file])
            .stderr(fs::File::create(log_file(host)).expect("a file"))
            .spawn();
        Self::new(host, Serving(child.expect("a process")))
    }

    /// Waits until the address is in this state.
    pub(crate) fn until(&self, state: &str) {
        eventually(&format!("{state}, see {}", log_file(self.host)), START_LIMIT, || {
            self.get("/api/v1/vip").is_some_and(|vip| json(&vip)["state"] == state)
        });
    }

    /// What its admin socket answers; none while nobody does.
    pub(crate) fn get(&self, path: &str) -> Option<String> {
        let mut stream = UnixStream::connect(socket(self.host)).ok()?;
        stream.set_read_timeout(Some(START_LIMIT)).ok()?;
        // This version of the protocol has answers in one piece.
        write!(stream, "GET {path} HTTP/1.0\r\nHost: pointsman\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned())
    }

    /// The sum of the samples of a metric, of those with this label.
    pub(crate) fn metric(&self, name: &str, label: &str) -> Option<f64> {
        let text = self.get("/metrics")?;
        let samples = text.lines().filter(|line| line.starts_with(name) && line.contains(label));
        let values: Vec<f64> = samples.filter_map(|line| line.rsplit(' ').next()?.parse().ok()).collect();
        (!values.is_empty()).then(|| values.iter().sum())
    }

    /// Runs a command of the program on this host.
    pub(crate) fn command(&self, arguments: &[&str]) -> Output {
        Command::new("ip")
            .args(["netns", "exec", self.host])
            .arg(program().expect("the program"))
            .args(arguments)
            .env("POINTSMAN_ENDPOINT", format!("unix:{}", socket(self.host)))
            .output()
            .expect("a process")
    }

    /// The same, of one that has to succeed; what it prints.
    pub(crate) fn done(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
        text(&output.stdout)
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(log_file(self.host)).unwrap_or_default()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Lets it take away what it has made.
    pub(crate) fn leave(mut self) {
        self.signal(Signal::SIGTERM);
        assert!(self.process.0.wait().expect("an end").success());
    }
}

/// The emulated machine is slow: a server is not down because it takes its time.
pub(crate) fn configuration(host: &str, servers: &Servers, setup: &Setup) -> String {
    let at: IpAddr = setup.servers.parse().expect("an address");
    let item = |server: &Arc<Server>| {
        let (name, port) = (server.name(), server.port());
        format!("{{ name = \"{name}\", address = \"{}\" }}", SocketAddr::new(at, port))
    };
    let list: Vec<_> = servers.sandbox.servers().iter().map(item).collect();
    let backend = match setup.with_etcd {
        true => format!("backend = \"etcd\"\nendpoints = [\"http://{SERVERS}:{ETCD_PORT}\"]\n"),
        false => String::new(),
    };
    format!(
        "servers = [{}]\nuser = \"{}\"\npassword = \"{}\"\n\
         [vip]\naddress = \"{}\"\nport = {PORT}\n\
         [listen.rw]\naddress = \"127.0.0.1:6033\"\n[listen.ro]\naddress = \"0.0.0.0:{RO}\"\n\
         [coordination]\n{backend}lease = \"{}s\"\nstate_dir = \"{}\"\n\
         [failover]\nmode = \"{}\"\n[monitor]\ntimeout = \"3s\"\n[drain]\ndelay = \"0s\"\n\
         [routing]\nslow_start = \"0s\"\n[admin]\nsocket = \"{}\"\n",
        list.join(", "),
        SERVICE.0,
        SERVICE.1,
        setup.address,
        LEASE.as_secs(),
        state_dir(host),
        setup.failover,
        socket(host)
    )
}

impl Session {
    pub(crate) fn open(to: SocketAddr) -> Result<Self, mysql_async::Error> {
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
        let options = OptsBuilder::default()
            .ip_or_hostname(to.ip().to_string())
            .tcp_port(to.port())
            .user(Some(APP.0))
            .pass(Some(APP.1))
            .db_name(Some("app"))
            .prefer_socket(false);
        let conn = runtime.block_on(async { tokio::time::timeout(LOGIN_LIMIT, Conn::new(options)).await });
        let conn = conn.unwrap_or_else(|_| Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into()))?;
        Ok(Self { runtime, conn })
    }

    /// One from the client's host to a certain replica.
    pub(crate) fn on(to: SocketAddr, server: &Server) -> Self {
        inside("c", || {
            loop {
                let mut session = Self::open(to).expect("a connection");
                if session.server().expect("an answer") == server.id() {
                    return session;
                }
            }
        })
    }

    /// The `server_id` of who answers.
    pub(crate) fn server(&mut self) -> Result<u32, mysql_async::Error> {
        let answer = self.runtime.block_on(self.conn.query_first("SELECT @@server_id"))?;
        Ok(answer.unwrap_or_default())
    }
}

/// A login from where this thread is; which server answered.
pub(crate) fn log_in(to: SocketAddr) -> Result<u32, mysql_async::Error> {
    Session::open(to).and_then(|mut session| session.server())
}

/// Logins from the client's host, one after the other; how many came to each server.
pub(crate) fn logins(to: SocketAddr, count: usize) -> BTreeMap<u32, usize> {
    inside("c", || {
        let mut servers = BTreeMap::new();
        for _ in 0..count {
            *servers.entry(log_in(to).expect("a login")).or_default() += 1;
        }
        servers
    })
}

/// The weight of a server in the kernel's table of the first director; none when it is not there.
pub(crate) fn weight(server: &Server) -> Option<u32> {
    let end = format!(":{}", server.port());
    table("d1").iter().find_map(|row| {
        let mut words = row.split(' ');
        if words.next()?.ends_with(&end) { words.last()?.parse().ok() } else { None }
    })
}

pub(crate) fn until_weight(server: &Server, expected: Option<u32>) {
    let what = format!("the weight {expected:?} of {}, got {:?}", server.name(), table("d1"));
    eventually(&what, START_LIMIT, || weight(server) == expected);
}

pub(crate) fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_default()
}

pub(crate) fn socket(host: &str) -> String {
    format!("/run/{host}.sock")
}

pub(crate) fn log_file(host: &str) -> String {
    format!("/run/{host}.log")
}

const WRITTEN: &str = "CREATE TABLE app.written (id INT AUTO_INCREMENT PRIMARY KEY)";
const ETCD_PORT: u16 = 2379;
/// The proxies' listener for reads.
pub(crate) const RO: u16 = 6034;
pub(crate) const LEASE: Duration = Duration::from_secs(5);
const LOGIN_LIMIT: Duration = Duration::from_secs(5);
/// Programs start slowly here.
pub(crate) const START_LIMIT: Duration = Duration::from_secs(90);
