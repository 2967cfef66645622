//! Throw-away topologies of real servers: for `pointsman sandbox`, for the demo and for the integration tests.
//!
//! All servers listen on free loopback ports and keep their data in one temporary directory. However the process
//! ends, its servers are killed and the directory is removed.

mod dialect;
mod disk;
mod error;
mod janitor;
mod link;
mod ports;
mod programs;
mod server;
mod template;

use std::fmt::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use pointsman_router::intent::Flavour;
use tokio::task::JoinSet;

pub use self::dialect::{APP, DBA, SERVICE};
pub use self::error::Error;
pub use self::janitor::Janitor;
pub use self::link::Link;
pub use self::ports::Port;
pub use self::programs::{Programs, cache_directory};
use self::server::Identity;
pub use self::server::{Logged, Server};

/// What a sandbox consists of.
#[derive(Clone, Debug, Default)]
pub struct Options {
    pub flavour: Flavour,
    pub replicas: usize,
    /// Writes survive a power cut, as on a production server; off, they survive a killed server.
    pub durable: bool,
    /// Replication goes over links that can be delayed by milliseconds and cut.
    pub linked: bool,
    /// Semi-synchronous replication with an infinite timeout, and a start state from which no server writes by
    /// itself: what "lossless" needs.
    pub lossless: bool,
    /// A server, by its place, whose data is on a disk of its own of so many MiB, for [`Server::fill_disk`]. For root,
    /// or with sudo, only.
    pub small_disk: Option<(usize, u64)>,
    /// Server options of all servers, such as `--max-connections=50`.
    pub options: Vec<String>,
}

/// A primary (the first server) and its replicas.
#[derive(Debug)]
pub struct Sandbox {
    options: Options,
    servers: Vec<Arc<Server>>,
    /// After the servers, so that they are dropped first.
    janitor: Janitor,
}

impl Sandbox {
    /// Starts the servers and replication, and waits until the replicas follow.
    ///
    /// # Errors
    ///
    /// When programs are missing or a server does not start.
    pub async fn start(options: &Options) -> Result<Self, Error> {
        let programs = Programs::find(options.flavour)?;
        let janitor = Janitor::new()?;
        let template = template::prepare(&programs, janitor.directory()).await?;
        let mut starting = JoinSet::new();
        for at in 0..=options.replicas {
            let server = start_server(at, programs.clone(), &template, janitor.directory(), options);
            starting.spawn(server);
        }
        let mut servers = Vec::new();
        while let Some(started) = starting.join_next().await {
            servers.push(Arc::new(started.map_err(|_| Error::NotRunning { name: "sandbox".to_owned() })??));
        }
        servers.sort_by_key(|server| server.id());
        let sandbox = Self { options: options.clone(), servers, janitor };
        if options.lossless {
            sandbox.primary().set_read_only(false).await?;
            for replica in sandbox.replicas() {
                replica.run(&[dialect::acknowledge(options.flavour)]).await?;
            }
        }
        for replica in sandbox.replicas() {
            replica.replicate_from(sandbox.primary(), options.linked).await?;
        }
        if options.lossless {
            sandbox.primary().run(&[dialect::wait_for_acknowledgement(options.flavour)]).await?;
        }
        // One transaction, so that no position is empty, which some servers take for "never replicated".
        sandbox.primary().run(&[FIRST_TABLE]).await?;
        sandbox.caught_up(START_LIMIT).await?;
        Ok(sandbox)
    }

    /// What it was started with.
    pub fn options(&self) -> &Options {
        &self.options
    }

    pub fn primary(&self) -> &Arc<Server> {
        &self.servers[0]
    }

    pub fn replicas(&self) -> &[Arc<Server>] {
        &self.servers[1..]
    }

    pub fn servers(&self) -> &[Arc<Server>] {
        &self.servers
    }

    pub fn directory(&self) -> &Path {
        self.janitor.directory()
    }

    /// Kills a process of the caller's when the sandbox ends. Its command line must name
    /// [`Sandbox::directory`].
    ///
    /// # Errors
    ///
    /// When the note cannot be written.
    pub fn watch(&self, name: &str, pid: u32) -> Result<(), Error> {
        self.janitor.watch(name, pid)
    }

    /// Waits until every replica has applied what the primary has executed by now.
    ///
    /// # Errors
    ///
    /// [`Error::NotReached`] after `limit`.
    pub async fn caught_up(&self, limit: Duration) -> Result<(), Error> {
        let position = self.primary().position().await?;
        for replica in self.replicas() {
            replica.reach(&position, limit).await?;
        }
        Ok(())
    }

    /// Gives back the space of the binary logs that are complete, on every server.
    ///
    /// A replica that has not received them yet is broken by it: wait until they have [caught up](Self::caught_up).
    ///
    /// # Errors
    ///
    /// What a server answered.
    pub async fn purge_binary_logs(&self) -> Result<(), Error> {
        for server in self.servers() {
            server.run(&["FLUSH BINARY LOGS", "PURGE BINARY LOGS BEFORE NOW()"]).await?;
        }
        Ok(())
    }

    /// The first lines of a configuration for these servers: `servers`, `user`, `password`. Tables may follow.
    pub fn configuration(&self) -> String {
        let server = |server: &Arc<Server>| {
            format!("{{ name = \"{}\", address = \"{}\" }}", server.name(), server.address())
        };
        let servers: Vec<String> = self.servers.iter().map(server).collect();
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = writeln!(text, "servers = [{}]", servers.join(", "));
        let _ = writeln!(text, "user = \"{}\"\npassword = \"{}\"", SERVICE.0, SERVICE.1);
        text
    }
}

async fn start_server_in(
    identity: Identity,
    programs: Programs,
    template: std::path::PathBuf,
    options: Vec<String>,
) -> Result<Server, Error> {
    let server = Server::prepare(identity, programs, &template, options).await?;
    server.start().await?;
    Ok(server)
}

/// The server at a place of the topology; the first is the primary.
fn start_server(
    at: usize,
    programs: Programs,
    template: &Path,
    directory: &Path,
    options: &Options,
) -> impl Future<Output = Result<Server, Error>> + Send + 'static {
    // Not by its role, which moves.
    let name = format!("db-{}", at + 1);
    let identity = Identity {
        directory: directory.join(&name),
        name,
        id: u32::try_from(at + 1).unwrap_or(u32::MAX),
        disk_mebibytes: options.small_disk.filter(|(of, _)| *of == at).map(|(_, mebibytes)| mebibytes),
    };
    let mut arguments: Vec<String> =
        dialect::server_options(options.flavour, options.durable).into_iter().map(str::to_owned).collect();
    if options.lossless {
        arguments.extend(dialect::lossless_options(options.flavour).iter().map(|&option| option.to_owned()));
    }
    if at > 0 || options.lossless {
        arguments.push(dialect::read_only_option(options.flavour).to_owned());
    }
    arguments.extend(options.options.iter().cloned());
    start_server_in(identity, programs, template.to_owned(), arguments)
}

const FIRST_TABLE: &str = "CREATE TABLE app.sandbox (id INT PRIMARY KEY)";
const START_LIMIT: Duration = Duration::from_secs(30);
