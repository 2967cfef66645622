//! `pointsman sandbox`: real servers and a proxy in front of them, gone when it ends.

use std::fs;
use std::path::Path;
use std::time::Duration;

use clap::{Args, ValueEnum};
use pointsman_router::intent;
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};

use super::client::Client;
use super::exit::{Exit, Failure, Outcome};
use super::output::{Table, note, print};
use crate::sandbox::{APP, DBA, Error, Options, Port, Sandbox};

/// A family of servers, as a word of the command line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum FlavourName {
    #[default]
    Mariadb,
    Mysql,
}

impl FlavourName {
    pub(super) fn flavour(self) -> intent::Flavour {
        match self {
            Self::Mariadb => intent::Flavour::Mariadb,
            Self::Mysql => intent::Flavour::Mysql,
        }
    }
}

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[arg(long, value_enum, default_value_t)]
    flavour: FlavourName,
    /// Replicas beside the primary.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(0..=16), value_name = "COUNT")]
    replicas: u8,
    /// Every write waits for the acknowledgement of a replica, as a failover without loss needs it.
    #[arg(long)]
    lossless: bool,
    /// The port of the proxy; by default a free one.
    #[arg(long, value_name = "PORT")]
    port: Option<u16>,
    /// Lines of configuration for the proxy, beside those for servers and listeners.
    #[arg(long, value_name = "TOML", default_value = "")]
    settings: String,
}

/// Starts everything, says how to reach it, and waits for the end.
pub(super) async fn run(arguments: &Arguments) -> Outcome {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    note("starting servers ...");
    let options = Options {
        flavour: arguments.flavour.flavour(),
        replicas: usize::from(arguments.replicas),
        lossless: arguments.lossless,
        ..Options::default()
    };
    let ended = async {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    };
    let mut ended = std::pin::pin!(ended);
    let stage = tokio::select! {
        stage = Stage::start(arguments, &options) => stage?,
        () = &mut ended => return Ok(Exit::Ok),
    };
    print(&stage.describe().await)?;
    let Stage { sandbox, mut proxy, .. } = stage;
    tokio::select! {
        () = &mut ended => note("ending ..."),
        status = proxy.wait() => {
            return Err(Failure::new(Exit::Error, format!("the proxy has ended: {}", status?)));
        }
    }
    // The clients of a sandbox need no farewell.
    proxy.kill().await?;
    drop(sandbox);
    Ok(Exit::Ok)
}

/// The servers and the proxy.
struct Stage {
    sandbox: Sandbox,
    proxy: Child,
    port: u16,
    read_only_port: u16,
    admin_port: u16,
    /// Kept from others until the proxy listens on them.
    _ports: [Port; 3],
}

impl Stage {
    async fn start(arguments: &Arguments, options: &Options) -> Result<Self, Failure> {
        let sandbox = Sandbox::start(options).await.map_err(failed)?;
        let ports = [Port::reserve(), Port::reserve(), Port::reserve()];
        let [rw, ro, admin] = ports;
        let ports = [rw.map_err(failed)?, ro.map_err(failed)?, admin.map_err(failed)?];
        let port = arguments.port.unwrap_or_else(|| ports[0].number());
        let (read_only_port, admin_port) = (ports[1].number(), ports[2].number());
        let file = sandbox.directory().join("pointsman.toml");
        let state = sandbox.directory().join("state");
        let text = format!(
            "{}\n[listen.rw]\naddress = \"127.0.0.1:{port}\"\n[listen.ro]\naddress = \"127.0.0.1:{read_only_port}\"\n\
             [admin]\naddress = \"127.0.0.1:{admin_port}\"\nsocket = \"{}\"\n[coordination]\nstate_dir = \"{}\"\n{}\n",
            sandbox.configuration(),
            sandbox.directory().join(ADMIN_SOCKET).display(),
            state.display(),
            arguments.settings
        );
        fs::write(&file, text)?;
        let proxy = serve(&file)?;
        if let Some(pid) = proxy.id() {
            sandbox.watch("pointsman", pid).map_err(failed)?;
        }
        wait_until_ready(admin_port).await?;
        Ok(Self { sandbox, proxy, port, read_only_port, admin_port, _ports: ports })
    }

    async fn describe(&self) -> String {
        let mut table = Table::new(&["WHAT", "WHERE"]);
        let mut row = |what: &str, place: String| table.row(vec![what.to_owned(), place]);
        row("proxy", format!("127.0.0.1:{}", self.port));
        row("read-only", format!("127.0.0.1:{}", self.read_only_port));
        row("status page", format!("http://127.0.0.1:{}/", self.admin_port));
        for server in self.sandbox.servers() {
            let pid = server.pid().await.unwrap_or_default();
            row(server.name(), format!("{}, process {pid}", server.address()));
        }
        row("directory", self.sandbox.directory().display().to_string());
        let socket = self.sandbox.directory().join(ADMIN_SOCKET);
        format!(
            "{}\nmariadb -h 127.0.0.1 -P {} -u {} -p{} app\npointsman status --endpoint unix:{}\n\
             accounts: {}/{} (schema app), {}/{} (everything). Ctrl-C ends and removes all of it.",
            table.render(),
            self.port,
            APP.0,
            APP.1,
            socket.display(),
            APP.0,
            APP.1,
            DBA.0,
            DBA.1
        )
    }
}

/// Starts this program again, as the proxy.
fn serve(file: &Path) -> Result<Child, Failure> {
    let child = Command::new(std::env::current_exe()?)
        .args(["serve", "--config"])
        .arg(file)
        // The terminal's Ctrl-C is for the parent, which ends the proxy itself.
        .process_group(0)
        .kill_on_drop(true)
        .spawn()?;
    Ok(child)
}

async fn wait_until_ready(admin_port: u16) -> Result<(), Failure> {
    let client = Client::new(&format!("http://127.0.0.1:{admin_port}"), None)?;
    let ready = async {
        while client.get("/api/v1/status").await.is_err() || client.get_text("/readyz").await.is_err() {
            tokio::time::sleep(POLL).await;
        }
    };
    let waited = tokio::time::timeout(START_LIMIT, ready).await;
    waited.map_err(|_| Failure::new(Exit::Error, "the proxy did not become ready"))
}

fn failed(error: Error) -> Failure {
    Failure::new(Exit::Error, error.to_string())
}

const ADMIN_SOCKET: &str = "admin.sock";
const POLL: Duration = Duration::from_millis(50);
const START_LIMIT: Duration = Duration::from_secs(30);
