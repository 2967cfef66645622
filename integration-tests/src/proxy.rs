//! The real program, started in front of a sandbox.

use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use std::{env, fs};

use mysql_async::{Conn, OptsBuilder};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep, timeout};

use crate::sandbox::{Port, Sandbox};
use crate::{Failure, eventually};

/// A running `pointsman serve`; killed when dropped.
#[derive(Debug)]
pub struct Proxy {
    rw: Port,
    ro: Port,
    admin: Port,
    admin_socket: PathBuf,
    log: PathBuf,
    configuration: PathBuf,
    child: Mutex<Child>,
}

impl Proxy {
    /// Starts the program with a configuration for these servers and waits until it is ready.
    ///
    /// # Errors
    ///
    /// When the program is missing, ends, or is not ready in time; with the end of its log.
    pub async fn start(sandbox: &Sandbox, tables: &str) -> Result<Self, Failure> {
        let proxy = Self::spawn(sandbox, tables)?;
        proxy.ready(READY_LIMIT).await?;
        Ok(proxy)
    }

    /// Starts the program and waits for nothing.
    ///
    /// # Errors
    ///
    /// When the program is missing.
    pub fn spawn(sandbox: &Sandbox, tables: &str) -> Result<Self, Failure> {
        Self::spawn_on(sandbox, &sandbox.configuration(), tables)
    }

    /// As [`Self::spawn`], with other first lines than [`Sandbox::configuration`].
    ///
    /// # Errors
    ///
    /// When the program is missing.
    pub fn spawn_on(sandbox: &Sandbox, servers: &str, tables: &str) -> Result<Self, Failure> {
        Self::spawn_by(Command::new(program()?), sandbox, servers, tables)
    }

    /// As [`Self::spawn_on`], by a command that becomes the program.
    ///
    /// # Errors
    ///
    /// When it cannot be run.
    pub fn spawn_by(
        mut command: Command,
        sandbox: &Sandbox,
        servers: &str,
        tables: &str,
    ) -> Result<Self, Failure> {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let directory = sandbox.directory().join(format!("pointsman-{number}"));
        fs::create_dir(&directory)?;
        let (rw, ro, admin) = (Port::reserve()?, Port::reserve()?, Port::reserve()?);
        let configuration = directory.join("pointsman.toml");
        let admin_socket = directory.join("admin.sock");
        let coordination = match tables.contains("[coordination]") {
            true => String::new(),
            false => format!("[coordination]\nstate_dir = \"{}\"", directory.join("state").display()),
        };
        let rw_address = format!("[listen.rw]\naddress = \"127.0.0.1:{}\"\n", rw.number());
        // Further keys of the listener follow its address.
        let (rw_address, tables) = match tables.contains(RW_TABLE) {
            true => (String::new(), tables.replace(RW_TABLE, &rw_address)),
            false => (rw_address, tables.to_owned()),
        };
        let text = [
            servers.to_owned(),
            rw_address,
            format!("[listen.ro]\naddress = \"127.0.0.1:{}\"", ro.number()),
            coordination,
            // Last, so that `tables` may begin with more keys of it.
            format!(
                "[admin]\naddress = \"127.0.0.1:{}\"\nsocket = \"{}\"",
                admin.number(),
                admin_socket.display()
            ),
            tables,
        ]
        .join("\n");
        fs::write(&configuration, text)?;
        let log = directory.join("log");
        let child = command
            .args(["serve", "--config"])
            .arg(&configuration)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(&log)?)
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        if let Some(pid) = child.id() {
            sandbox.watch(&format!("pointsman-{number}"), pid)?;
        }
        Ok(Self { rw, ro, admin, admin_socket, log, configuration, child: Mutex::new(child) })
    }

    /// Waits until the program says that it is ready for clients.
    ///
    /// # Errors
    ///
    /// When it ends or is not ready in time; with the end of its log.
    pub async fn ready(&self, limit: Duration) -> Result<(), Failure> {
        let deadline = Instant::now() + limit;
        loop {
            if self.get("/readyz").await.is_ok_and(|(status, _)| status == 200) {
                return Ok(());
            }
            let ended = self.child.lock().await.try_wait()?;
            if ended.is_some() || Instant::now() > deadline {
                return Err(format!("expected a ready proxy, got {ended:?}\n{}", self.story()).into());
            }
            sleep(POLL).await;
        }
    }

    /// The sum of a metric's samples; those whose names begin with this.
    ///
    /// # Errors
    ///
    /// When the program does not answer.
    pub async fn metric(&self, name: &str) -> Result<f64, Failure> {
        let (_, text) = self.get("/metrics").await?;
        let values = text.lines().filter(|line| line.starts_with(name));
        Ok(values.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum())
    }

    /// The port for all statements.
    pub fn port(&self) -> u16 {
        self.rw.number()
    }

    /// The port for reads only.
    pub fn read_only_port(&self) -> u16 {
        self.ro.number()
    }

    pub fn admin_port(&self) -> u16 {
        self.admin.number()
    }

    /// What `--endpoint` names to be allowed changes.
    pub fn endpoint(&self) -> String {
        format!("unix:{}", self.admin_socket.display())
    }

    pub fn configuration(&self) -> &std::path::Path {
        &self.configuration
    }

    /// Options for a connection of an account; an empty schema is none.
    pub fn options(&self, (user, password): (&str, &str), schema: &str) -> OptsBuilder {
        OptsBuilder::default()
            .ip_or_hostname("127.0.0.1")
            .tcp_port(self.port())
            .user(Some(user))
            .pass(Some(password))
            .db_name(Some(schema).filter(|schema| !schema.is_empty()))
            .prefer_socket(false)
    }

    /// A connection of an account.
    ///
    /// # Errors
    ///
    /// When it is refused or not answered in time.
    pub async fn connect(&self, account: (&str, &str), schema: &str) -> Result<Conn, Failure> {
        Ok(timeout(CONNECT_LIMIT, Conn::new(self.options(account, schema))).await??)
    }

    /// Asks the admin listener: status code and body.
    ///
    /// # Errors
    ///
    /// When it cannot be reached or does not speak HTTP.
    pub async fn get(&self, path: &str) -> Result<(u16, String), Failure> {
        let answer = timeout(CONNECT_LIMIT, async {
            let mut socket = TcpStream::connect(("127.0.0.1", self.admin_port())).await?;
            let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
            socket.write_all(request.as_bytes()).await?;
            let mut answer = Vec::new();
            socket.read_to_end(&mut answer).await?;
            std::io::Result::Ok(answer)
        })
        .await??;
        let answer = String::from_utf8_lossy(&answer);
        let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or("no status code")?;
        let body = answer.split_once("\r\n\r\n").map(|(_, body)| body).unwrap_or_default();
        Ok((status, body.to_owned()))
    }

    /// What `pointsman status -o json` shows.
    ///
    /// # Errors
    ///
    /// When the admin listener does not answer with JSON.
    pub async fn status(&self) -> Result<serde_json::Value, Failure> {
        let (_, body) = self.get("/api/v1/status").await?;
        let (start, end) = (body.find('{').ok_or("no JSON")?, body.rfind('}').ok_or("no JSON")?);
        Ok(serde_json::from_str(&body[start..=end])?)
    }

    /// Waits until it would act: the record is stable with that durability, and all servers are in use.
    ///
    /// # Panics
    ///
    /// When it takes too long.
    pub async fn armed(&self, durability: &str) {
        eventually("the proxy is armed", READY_LIMIT, async || {
            self.status().await.is_ok_and(|status| {
                let servers = status["servers"].as_array();
                let online = servers.is_some_and(|all| all.iter().all(|one| one["state"] == "online"));
                let failover = &status["failover"];
                let stable = failover["phase"] == "STABLE" && failover["unready"].is_null();
                online && stable && failover["durability"] == durability
            })
        })
        .await;
    }

    /// Sends a signal to the program.
    ///
    /// # Errors
    ///
    /// When it has ended.
    pub async fn signal(&self, signal: Signal) -> Result<(), Failure> {
        let pid = self.child.lock().await.id().ok_or("the proxy has ended")?;
        Ok(kill(Pid::from_raw(i32::try_from(pid)?), signal)?)
    }

    /// Waits for the end of the program.
    ///
    /// # Errors
    ///
    /// When it still runs after `limit`.
    pub async fn ended(&self, limit: Duration) -> Result<ExitStatus, Failure> {
        Ok(timeout(limit, async { self.child.lock().await.wait().await }).await??)
    }

    /// The process id; none when it has ended.
    pub async fn pid(&self) -> Option<u32> {
        self.child.lock().await.id()
    }

    /// All that the program has logged.
    pub fn log(&self) -> String {
        fs::read(&self.log).map(|log| String::from_utf8_lossy(&log).into_owned()).unwrap_or_default()
    }

    /// The end of the log, for the report of a failure.
    pub fn story(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        let shown = &lines[lines.len().saturating_sub(STORY_LINES)..];
        format!("--- the proxy's log ends with\n{}\n", shown.join("\n"))
    }
}

/// The program under test: `POINTSMAN_BIN`, or what cargo has built beside this test.
///
/// # Errors
///
/// When there is none.
pub fn program() -> Result<PathBuf, Failure> {
    let program = match env::var_os("POINTSMAN_BIN") {
        Some(program) => PathBuf::from(program),
        // target/debug/deps/test-hash
        None => env::current_exe()?
            .parent()
            .and_then(|deps| deps.parent())
            .ok_or("no target directory")?
            .join("pointsman"),
    };
    if program.is_file() {
        return Ok(program);
    }
    Err(format!("expected the program at {}: run cargo build -p pointsman", program.display()).into())
}

/// Begins further keys of the listener for all statements.
const RW_TABLE: &str = "[listen.rw]\n";
const READY_LIMIT: Duration = Duration::from_secs(20);
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(10);
const STORY_LINES: usize = 40;
