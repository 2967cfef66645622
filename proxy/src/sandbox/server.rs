//! One server process of a sandbox.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use mysql_async::prelude::{FromRow, Queryable};
use mysql_async::{Conn, OptsBuilder};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use pointsman_router::intent::Flavour;
use tokio::process::Child;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep, timeout};

use super::link::Link;
use super::ports::Port;
use super::programs::{Programs, joined, tail};
use super::{Error, dialect, disk, janitor, template};

/// A server that can be started, stopped, frozen and killed. Dropping it kills it.
#[derive(Debug)]
pub struct Server {
    name: String,
    id: u32,
    port: Port,
    programs: Programs,
    directory: PathBuf,
    /// None where its data is on the disk of all.
    disk_mebibytes: Option<u64>,
    template: PathBuf,
    /// Options of every start, the caller's own last.
    options: Vec<String>,
    child: Mutex<Option<Child>>,
    link: Mutex<Option<Link>>,
}

/// What tells one server of a topology from another.
#[derive(Clone, Debug)]
pub(super) struct Identity {
    pub(super) name: String,
    pub(super) id: u32,
    pub(super) directory: PathBuf,
    pub(super) disk_mebibytes: Option<u64>,
}

impl Server {
    /// Lays out the data directory; the server is not started.
    pub(super) async fn prepare(
        identity: Identity,
        programs: Programs,
        template: &Path,
        options: Vec<String>,
    ) -> Result<Self, Error> {
        let Identity { name, id, directory, disk_mebibytes } = identity;
        fs::create_dir_all(&directory).map_err(|source| Error::File { path: directory.clone(), source })?;
        let server = Self {
            name,
            id,
            port: Port::reserve()?,
            programs,
            directory,
            disk_mebibytes,
            template: template.to_owned(),
            options,
            child: Mutex::default(),
            link: Mutex::default(),
        };
        server.lay_out().await?;
        Ok(server)
    }

    async fn lay_out(&self) -> Result<(), Error> {
        if let Some(mebibytes) = self.disk_mebibytes {
            disk::mount(&self.data(), mebibytes).await?;
        }
        template::copy(&self.template, &self.data()).await
    }

    fn data(&self) -> PathBuf {
        self.directory.join("data")
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// `server_id`
    pub fn id(&self) -> u32 {
        self.id
    }

    pub fn flavour(&self) -> Flavour {
        self.programs.flavour
    }

    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// `127.0.0.1:port`
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port())
    }

    pub fn socket(&self) -> PathBuf {
        self.directory.join("s.sock")
    }

    /// What the server has written to its error log.
    pub fn log(&self) -> String {
        fs::read(self.log_file()).map(|log| String::from_utf8_lossy(&log).into_owned()).unwrap_or_default()
    }

    /// The process id; none while it is down.
    pub async fn pid(&self) -> Option<u32> {
        self.child.lock().await.as_ref().and_then(Child::id)
    }

    /// Starts the server and waits until it accepts connections.
    ///
    /// # Errors
    ///
    /// When it cannot be run or does not answer in time; with the end of its log.
    pub async fn start(&self) -> Result<(), Error> {
        let mut child = self.child.lock().await;
        if child.is_some() {
            return Ok(());
        }
        let running = self.spawn()?;
        let running = child.insert(running);
        let deadline = Instant::now() + START_LIMIT;
        while self.connect().await.is_err() {
            let ended = !matches!(running.try_wait(), Ok(None));
            if ended || Instant::now() > deadline {
                *child = None;
                let log = tail(&self.log()).to_owned();
                return Err(Error::NotStarted { name: self.name.clone(), limit: START_LIMIT, log });
            }
            sleep(POLL).await;
        }
        Ok(())
    }

    /// Ends the server in an orderly way; it is killed when that takes too long.
    ///
    /// # Errors
    ///
    /// None that matter for a throw-away server: only when the signal cannot be sent.
    pub async fn stop(&self) -> Result<(), Error> {
        let mut child = self.child.lock().await;
        let Some(mut running) = child.take() else { return Ok(()) };
        self.send(&running, Signal::SIGTERM)?;
        if timeout(STOP_LIMIT, running.wait()).await.is_err() {
            drop(running.kill().await);
        }
        Ok(())
    }

    /// Kills the server as a crash would (SIGKILL) and waits until it is gone.
    ///
    /// # Errors
    ///
    /// When it is not running.
    pub async fn kill(&self) -> Result<(), Error> {
        let running = self.child.lock().await.take();
        let mut running = running.ok_or_else(|| Error::NotRunning { name: self.name.clone() })?;
        drop(running.kill().await);
        Ok(())
    }

    /// Starts the server on a new data directory that holds nothing but the accounts.
    ///
    /// # Errors
    ///
    /// When the files cannot be replaced, and as [`Server::start`].
    pub async fn renew(&self) -> Result<(), Error> {
        if self.child.lock().await.is_some() {
            self.kill().await?;
        }
        let data = self.data();
        if self.disk_mebibytes.is_some() {
            disk::unmount(&data).await?;
        }
        fs::remove_dir_all(&data).map_err(|source| Error::File { path: data, source })?;
        self.lay_out().await?;
        self.start().await
    }

    /// Leaves no room on the disk of a server that has one of its own.
    ///
    /// # Errors
    ///
    /// When it has none, or it cannot be written.
    pub fn fill_disk(&self) -> Result<(), Error> {
        match self.disk_mebibytes {
            Some(_) => disk::fill(&self.data()),
            None => Err(Error::NoDisk { name: self.name.clone() }),
        }
    }

    /// Makes room on it again.
    ///
    /// # Errors
    ///
    /// When it was not filled.
    pub fn free_disk(&self) -> Result<(), Error> {
        disk::make_room(&self.data())
    }

    /// Freezes the server (SIGSTOP): its sockets stay open and nothing answers.
    ///
    /// # Errors
    ///
    /// When it is not running.
    pub async fn freeze(&self) -> Result<(), Error> {
        self.signal(Signal::SIGSTOP).await?;
        // The threads stop one after the other, after the signal was sent.
        while !self.pid().await.is_none_or(is_stopped) {
            sleep(POLL).await;
        }
        Ok(())
    }

    /// Lets a frozen server go on.
    ///
    /// # Errors
    ///
    /// When it is not running.
    pub async fn thaw(&self) -> Result<(), Error> {
        self.signal(Signal::SIGCONT).await
    }

    /// A connection as `root` through the socket.
    ///
    /// # Errors
    ///
    /// When the server does not accept it in time.
    pub async fn connect(&self) -> Result<Conn, Error> {
        let options =
            OptsBuilder::default().user(Some("root")).socket(Some(self.socket().display().to_string()));
        self.open(options).await
    }

    /// A connection of an account over TCP.
    ///
    /// # Errors
    ///
    /// When the server does not accept it in time.
    pub async fn connect_as(&self, (user, password): (&str, &str), schema: &str) -> Result<Conn, Error> {
        let options = OptsBuilder::default()
            .ip_or_hostname("127.0.0.1")
            .tcp_port(self.port())
            .user(Some(user))
            .pass(Some(password))
            .db_name(Some(schema).filter(|schema| !schema.is_empty()))
            .prefer_socket(false);
        self.open(options).await
    }

    /// Runs statements as `root`, one after the other, on one connection.
    ///
    /// # Errors
    ///
    /// What the server answered to the first that failed.
    pub async fn run(&self, statements: &[&str]) -> Result<(), Error> {
        let mut conn = self.connect().await?;
        for statement in statements {
            self.answered(conn.query_drop(*statement).await)?;
        }
        self.answered(conn.disconnect().await)
    }

    /// The rows of a statement run as `root`.
    ///
    /// # Errors
    ///
    /// What the server answered.
    pub async fn rows<T: FromRow + Send + 'static>(&self, statement: &str) -> Result<Vec<T>, Error> {
        let mut conn = self.connect().await?;
        let rows = self.answered(conn.query(statement).await)?;
        self.answered(conn.disconnect().await)?;
        Ok(rows)
    }

    /// A counter of SHOW GLOBAL STATUS, such as `Com_select`.
    ///
    /// # Errors
    ///
    /// What the server answered; an unknown counter is zero.
    pub async fn counter(&self, name: &str) -> Result<u64, Error> {
        let rows: Vec<(String, String)> =
            self.rows(&format!("SHOW GLOBAL STATUS WHERE Variable_name = '{name}'")).await?;
        Ok(rows.first().and_then(|(_, value)| value.parse().ok()).unwrap_or(0))
    }

    /// What the server has executed, as its own text.
    ///
    /// # Errors
    ///
    /// What the server answered.
    pub async fn position(&self) -> Result<String, Error> {
        let rows: Vec<String> = self.rows(dialect::position(self.flavour())).await?;
        Ok(rows.into_iter().next().unwrap_or_default())
    }

    /// Waits until this replica has applied `position`.
    ///
    /// # Errors
    ///
    /// [`Error::NotReached`] after `limit`.
    pub async fn reach(&self, position: &str, limit: Duration) -> Result<(), Error> {
        let reached: Vec<Option<i64>> =
            self.rows(&dialect::wait_for(self.flavour(), position, limit)).await?;
        match reached.first() {
            Some(Some(0)) => Ok(()),
            _ => Err(Error::NotReached { name: self.name.clone(), position: position.to_owned(), limit }),
        }
    }

    /// Makes the server refuse writes, or accept them.
    ///
    /// # Errors
    ///
    /// What the server answered.
    pub async fn set_read_only(&self, on: bool) -> Result<(), Error> {
        self.run(&[dialect::set_read_only(self.flavour(), on)]).await
    }

    /// Makes this server a replica of `source` and starts replication; `linked` puts a link between them that
    /// [`Server::delay_replication`] and the like work on.
    ///
    /// # Errors
    ///
    /// What the server answered.
    pub async fn replicate_from(&self, source: &Self, linked: bool) -> Result<(), Error> {
        let mut link = self.link.lock().await;
        *link = if linked { Some(Link::to(source.port()).await?) } else { None };
        let port = link.as_ref().map_or_else(|| source.port(), Link::port);
        let change = dialect::replicate_from(self.flavour(), port);
        self.run(&["STOP REPLICA", &change, "START REPLICA"]).await
    }

    /// Holds back replication. Exact over a link; else by the server's own delay, in whole seconds rounded up.
    ///
    /// # Errors
    ///
    /// What the server answered.
    pub async fn delay_replication(&self, delay: Duration) -> Result<(), Error> {
        if let Some(link) = &*self.link.lock().await {
            link.delay(delay);
            return Ok(());
        }
        let seconds = delay.as_secs() + u64::from(delay.subsec_nanos() > 0);
        self.run(&["STOP REPLICA", &dialect::delay(self.flavour(), seconds), "START REPLICA"]).await
    }

    /// Cuts the link to the source, or mends it; nothing without a link.
    pub async fn cut_replication(&self, cut: bool) {
        if let Some(link) = &*self.link.lock().await {
            link.open(!cut);
        }
    }

    /// Lets nothing through on the link to the source, whose connections stay; or goes on. Nothing without a link.
    pub async fn silence_replication(&self, silent: bool) {
        if let Some(link) = &*self.link.lock().await {
            link.silence(silent);
        }
    }

    /// Lets nothing through that this server says to its source on the link, acknowledgements among it; or goes on.
    pub async fn mute_replication(&self, mute: bool) {
        if let Some(link) = &*self.link.lock().await {
            link.mute(mute);
        }
    }

    /// Stops applying what arrives from the source.
    ///
    /// # Errors
    ///
    /// What the server answered.
    pub async fn stop_applier(&self) -> Result<(), Error> {
        self.run(&["STOP REPLICA SQL_THREAD"]).await
    }

    /// Goes on applying.
    ///
    /// # Errors
    ///
    /// What the server answered.
    pub async fn start_applier(&self) -> Result<(), Error> {
        self.run(&["START REPLICA SQL_THREAD"]).await
    }

    /// Turns the general log on, emptied, or off.
    ///
    /// # Errors
    ///
    /// What the server answered.
    pub async fn general_log(&self, on: bool) -> Result<(), Error> {
        if !on {
            return self.run(&["SET GLOBAL general_log=0"]).await;
        }
        self.run(&[
            "SET SESSION sql_log_bin=0",
            "SET GLOBAL general_log=0",
            "SET GLOBAL log_output='TABLE'",
            "SET GLOBAL general_log=1",
        ])
        .await
    }

    /// What the general log has noted since the server's start.
    ///
    /// # Errors
    ///
    /// What the server answered.
    pub async fn logged(&self) -> Result<Vec<Logged>, Error> {
        let rows: Vec<(String, u64, String, Vec<u8>)> =
            self.rows("SELECT user_host, thread_id, command_type, argument FROM mysql.general_log").await?;
        Ok(rows
            .into_iter()
            .map(|(user_host, thread, command, argument)| Logged {
                user: user_host.split('[').next().unwrap_or_default().to_owned(),
                thread,
                command,
                argument: String::from_utf8_lossy(&argument).into_owned(),
            })
            .collect())
    }

    fn spawn(&self) -> Result<Child, Error> {
        let mut command = self.programs.server();
        command
            .arg(joined("--datadir=", &self.data()))
            .arg(joined("--socket=", &self.socket()))
            .arg(joined("--pid-file=", &self.directory.join("server.pid")))
            .arg(joined("--log-error=", &self.log_file()))
            .arg(format!("--port={}", self.port()))
            .arg(format!("--report-port={}", self.port()))
            .arg(format!("--server-id={}", self.id))
            .args(&self.options)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // A key pressed at the terminal ends the program in front, which then ends its servers.
            .process_group(0);
        let child =
            command.spawn().map_err(|source| Error::Spawn { program: self.name.clone().into(), source })?;
        if let (Some(pid), Some(sandbox)) = (child.id(), self.directory.parent()) {
            janitor::note(sandbox, &self.name, pid)?;
        }
        Ok(child)
    }

    async fn open(&self, options: OptsBuilder) -> Result<Conn, Error> {
        match timeout(CONNECT_LIMIT, Conn::new(options)).await {
            Ok(conn) => self.answered(conn),
            Err(_) => Err(Error::NotRunning { name: self.name.clone() }),
        }
    }

    fn answered<T>(&self, answer: mysql_async::Result<T>) -> Result<T, Error> {
        answer.map_err(|source| Error::Query { name: self.name.clone(), source })
    }

    async fn signal(&self, signal: Signal) -> Result<(), Error> {
        match &*self.child.lock().await {
            Some(child) => self.send(child, signal),
            None => Err(Error::NotRunning { name: self.name.clone() }),
        }
    }

    fn send(&self, child: &Child, signal: Signal) -> Result<(), Error> {
        child
            .id()
            .and_then(|pid| i32::try_from(pid).ok())
            .and_then(|pid| kill(Pid::from_raw(pid), signal).ok())
            .ok_or_else(|| Error::NotRunning { name: self.name.clone() })
    }

    fn log_file(&self) -> PathBuf {
        self.directory.join("error.log")
    }
}

/// Whether all threads of a process have stopped.
fn is_stopped(pid: u32) -> bool {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return true };
    threads.flatten().all(|thread| {
        let status = fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        // The name in parentheses may hold anything; the state follows it.
        status.rsplit(") ").next().is_none_or(|rest| rest.starts_with(['T', 't', 'Z']) || rest.is_empty())
    })
}

/// One line of the general log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Logged {
    pub user: String,
    pub thread: u64,
    /// `Query`, `Prepare`, `Execute`, `Connect`, ...
    pub command: String,
    pub argument: String,
}

const START_LIMIT: Duration = Duration::from_secs(90);
const STOP_LIMIT: Duration = Duration::from_secs(30);
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(20);
