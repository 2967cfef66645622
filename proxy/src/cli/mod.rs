//! The command line: one program, whose first word says what it is.
//!
//! `serve` runs the proxy; `check`, `config`, `explain`, `dsn` and `sandbox` work without one; the rest, and `explain`
//! with a session, asks a running proxy through its admin listener.

mod check;
mod client;
mod config;
mod drain;
mod dsn;
mod exit;
mod explain;
mod generate;
mod logging;
mod operate;
mod output;
mod sandbox;
mod serve;
mod settings;
mod status;
mod vip;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use pointsman_config::units::parse_duration;
use serde_json::json;

pub(crate) use self::check::grants::lacking_for_failover;

use self::client::Client;
use self::exit::{Exit, Failure, Outcome};
use self::output::Format;

/// MySQL and MariaDB proxy: splits reads from writes and survives the loss of the primary.
#[derive(Debug, Parser)]
#[command(name = "pointsman", version, max_term_width = 100, after_help = AFTER_HELP)]
struct Cli {
    /// The form of what is printed.
    #[arg(short, long, value_enum, global = true, default_value_t)]
    output: Format,
    #[command(subcommand)]
    command: Command,
}

const AFTER_HELP: &str = "\
Exit codes: 0 ok, 1 unexpected error, 2 fault in the command line or configuration, 3 refused (nothing changed), \
4 failed and rolled back, 5 failed half-way, 6 timed out and still running, 7 no proxy could be reached, \
10 degraded, 11 no primary.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the proxy in the foreground.
    Serve(settings::SettingsArgs),
    /// Look at every server: grants, settings, replication, accounts; each finding with what to do.
    Check(check::Arguments),
    /// Look at the configuration: check it, show it, compare two, print its schema.
    Config {
        #[command(subcommand)]
        command: config::Command,
    },
    /// Show the cluster as a running proxy sees it.
    Status(Remote),
    /// List client sessions and why they keep a server connection.
    Sessions(Remote),
    /// Take a server out of the read pool, or let this proxy end as SIGTERM does.
    Drain {
        #[command(flatten)]
        what: drain::Arguments,
        #[command(flatten)]
        remote: Remote,
    },
    /// Let a drained server serve reads again.
    Undrain {
        /// The server's name.
        server: String,
        #[command(flatten)]
        remote: Remote,
    },
    /// The virtual address of the read pool: show it, move it, check what the kernel lacks for it.
    Vip {
        #[command(subcommand)]
        command: vip::Command,
    },
    /// Make a server the primary: in an orderly way while the primary lives, else as a failover that loses nothing.
    Promote {
        /// The server's name.
        server: String,
        #[command(flatten)]
        manner: operate::Manner,
        #[command(flatten)]
        remote: Remote,
    },
    /// Move the primary's place in an orderly way. Transactions that stay open are done again there, or end in error 1180.
    Switchover {
        /// The server that becomes the primary; by default the best one.
        #[arg(long, value_name = "SERVER")]
        to: Option<String>,
        #[command(flatten)]
        manner: operate::Manner,
        #[command(flatten)]
        remote: Remote,
    },
    /// Replace a primary that is dead; refused while it answers.
    Failover {
        /// The server that becomes the primary; by default the one that holds most.
        #[arg(long, value_name = "SERVER")]
        to: Option<String>,
        /// You vouch that the primary accepts no writes any more.
        #[arg(long, required = true)]
        primary_is_dead: bool,
        /// Go on where transactions that were acknowledged are missing.
        #[arg(long)]
        allow_data_loss: bool,
        #[command(flatten)]
        manner: operate::Manner,
        #[command(flatten)]
        remote: Remote,
    },
    /// Make a former primary a replica again; refused where it holds what the primary does not.
    Rejoin {
        /// The server's name.
        server: String,
        #[command(flatten)]
        manner: operate::Manner,
        #[command(flatten)]
        remote: Remote,
    },
    /// Keep all clients from a server that is not the primary: read-only, its clients ended, or what `fence_command` does.
    Fence {
        /// The server's name.
        server: String,
        #[command(flatten)]
        manner: operate::Manner,
        #[command(flatten)]
        remote: Remote,
    },
    /// Let clients back to a fenced server, once it is a replica in order.
    Unfence {
        /// The server's name.
        server: String,
        #[command(flatten)]
        manner: operate::Manner,
        #[command(flatten)]
        remote: Remote,
    },
    /// Take a server out of candidacy, reads and verdicts for a while, or end that.
    Maintenance {
        #[command(subcommand)]
        command: Maintenance,
    },
    /// List past changes of the primary.
    History {
        /// How many.
        #[arg(short = 'n', default_value_t = 20, value_name = "COUNT")]
        count: usize,
        /// Tell each moment of those that the proxy has seen.
        #[arg(long)]
        phases: bool,
        #[command(flatten)]
        remote: Remote,
    },
    /// Look at changes that were asked for, wait for them, undo them.
    Ops {
        #[command(subcommand)]
        command: Ops,
    },
    /// Start throw-away servers with a proxy in front; all of it is removed at the end.
    Sandbox(sandbox::Arguments),
    /// Tell what statements do and where they go: without any server, or in a session of a running proxy.
    Explain(explain::Arguments),
    /// Print what applications connect with.
    Dsn(dsn::Arguments),
    /// Print a shell's completion script.
    Completions { shell: clap_complete::Shell },
    /// Print the manual page.
    Man,
}

#[derive(Debug, Subcommand)]
enum Maintenance {
    /// Begin; it ends by itself.
    On {
        /// The server's name.
        server: String,
        /// How long, with a unit.
        #[arg(long = "for", default_value = "1h", value_parser = parse_duration, value_name = "DURATION")]
        length: Duration,
        /// Shown in status.
        #[arg(long, default_value = "")]
        reason: String,
        #[command(flatten)]
        remote: Remote,
    },
    /// End it now.
    Off {
        /// The server's name.
        server: String,
        #[command(flatten)]
        remote: Remote,
    },
}

#[derive(Debug, Subcommand)]
enum Ops {
    /// All that are remembered, the newest first.
    List(Remote),
    /// One, with its plan and phases.
    Show {
        id: u64,
        #[command(flatten)]
        remote: Remote,
    },
    /// Undo one that is under way: a switchover, until its new primary is chosen.
    Cancel {
        id: u64,
        #[command(flatten)]
        remote: Remote,
    },
    /// Follow one to its end.
    Wait {
        id: u64,
        /// How long to wait, with a unit.
        #[arg(long, default_value = "60s", value_parser = parse_duration, value_name = "DURATION")]
        timeout: Duration,
        #[command(flatten)]
        remote: Remote,
    },
}

/// Which running proxy is asked.
#[derive(Debug, Args)]
struct Remote {
    /// The admin listener: http://host:port or unix:/path.
    #[arg(long, env = "POINTSMAN_ENDPOINT", default_value = "http://127.0.0.1:9090", value_name = "URL")]
    endpoint: String,
    /// A file that holds the token of changes.
    #[arg(long, env = "POINTSMAN_TOKEN_FILE", value_name = "FILE")]
    token_file: Option<PathBuf>,
}

impl Remote {
    fn client(&self) -> Result<Client, Failure> {
        Client::new(&self.endpoint, self.token_file.as_deref())
    }
}

/// Reads the command line, does what it says, and answers with the exit code.
pub fn run() -> ExitCode {
    let cli = match Cli::try_parse_from(explain::shield(std::env::args_os())) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are no errors, and print to standard output.
            drop(error.print());
            return if error.use_stderr() { Exit::Usage } else { Exit::Ok }.into();
        }
    };
    let format = cli.output;
    match execute(cli) {
        Ok(exit) => exit.into(),
        Err(failure) => {
            output::note(&format!("error: {}", failure.message));
            if format != Format::Table {
                // There is nowhere to say that it cannot be printed.
                drop(format.print(&failure.document(), String::new));
            }
            failure.exit.into()
        }
    }
}

fn execute(cli: Cli) -> Outcome {
    let format = cli.output;
    match cli.command {
        Command::Serve(settings) => serve::run(&settings),
        Command::Check(arguments) => wait_for(check::run(&arguments, format)),
        Command::Config { command } => config::run(command, format),
        Command::Status(remote) => wait_for(status::status(&remote.client()?, format)),
        Command::Sessions(remote) => wait_for(status::sessions(&remote.client()?, format)),
        Command::Drain { what, remote } => wait_for(drain::drain(&remote.client()?, &what, format)),
        Command::Undrain { server, remote } => wait_for(drain::undrain(&remote.client()?, &server, format)),
        Command::Vip { command } => wait_for(vip::run(&command, format)),
        Command::Promote { server, manner, remote } => {
            wait_for(operate::promote(&remote.client()?, &server, &manner, format))
        }
        Command::Switchover { to, manner, remote } => {
            wait_for(operate::switchover(&remote.client()?, to.as_deref(), &manner, format))
        }
        Command::Failover { to, primary_is_dead: _, allow_data_loss, manner, remote } => {
            wait_for(operate::failover(&remote.client()?, to.as_deref(), allow_data_loss, &manner, format))
        }
        Command::Rejoin { server, manner, remote } => {
            wait_for(operate::rejoin(&remote.client()?, &server, &manner, format))
        }
        Command::Fence { server, manner, remote } => {
            wait_for(operate::fence(&remote.client()?, &server, true, &manner, format))
        }
        Command::Unfence { server, manner, remote } => {
            wait_for(operate::fence(&remote.client()?, &server, false, &manner, format))
        }
        Command::Maintenance { command } => maintenance(command, format),
        Command::History { count, phases, remote } => {
            wait_for(operate::history(&remote.client()?, count, phases, format))
        }
        Command::Ops { command } => ops(command, format),
        Command::Sandbox(arguments) => wait_for(sandbox::run(&arguments)),
        Command::Explain(arguments) => wait_for(explain::run(&arguments, format)),
        Command::Dsn(arguments) => dsn::run(&arguments, format),
        Command::Completions { shell } => generate::completions(shell),
        Command::Man => generate::man(),
    }
}

fn maintenance(command: Maintenance, format: Format) -> Outcome {
    let (remote, wish) = match command {
        Maintenance::On { server, length, reason, remote } => {
            (remote, json!({ "server": server, "seconds": length.as_secs(), "reason": reason }))
        }
        Maintenance::Off { server, remote } => (remote, json!({ "server": server })),
    };
    wait_for(operate::at_once(&remote.client()?, "maintenance", wish, format))
}

fn ops(command: Ops, format: Format) -> Outcome {
    match command {
        Ops::List(remote) => wait_for(operate::list(&remote.client()?, format)),
        Ops::Show { id, remote } => wait_for(operate::show(&remote.client()?, id, None, format)),
        Ops::Cancel { id, remote } => {
            wait_for(operate::at_once(&remote.client()?, "cancel", json!({ "operation": id }), format))
        }
        Ops::Wait { id, timeout, remote } => {
            wait_for(operate::show(&remote.client()?, id, Some(timeout), format))
        }
    }
}

/// Runs a short command to its end on a runtime of its own.
fn wait_for(command: impl Future<Output = Outcome>) -> Outcome {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(command)
}
