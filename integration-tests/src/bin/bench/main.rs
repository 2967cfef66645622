//! Compares ways to the same servers side by side: `scripts/bench` builds and runs it.
//!
//! Cells are interleaved (all targets within each cell, in an order that rotates each round), so that a machine that
//! drifts hits every target alike. Absolute figures are noise on a shared machine; the ratios are what counts.

mod connections;
mod crowded;
mod failover;
mod process;
mod report;
mod sysbench;
mod target;

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use pointsman_integration_tests::sandbox::{Options, Sandbox};
use pointsman_integration_tests::{Failure, Flavour};

use self::connections::Crowd;
use self::report::Report;
use self::sysbench::Cell;
use self::target::{Kind, Target};

#[derive(Debug, Parser)]
#[command(
    about = "Compare Pointsman with direct connections, HAProxy and others",
    args_conflicts_with_subcommands = true
)]
struct Settings {
    #[command(subcommand)]
    command: Option<Command>,
    /// Seconds of load in each cell
    #[arg(long, default_value_t = 10)]
    seconds: u32,
    /// How often each cell is measured; the table shows medians
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Concurrent clients
    #[arg(long, value_delimiter = ',', default_values_t = [16, 64])]
    clients: Vec<usize>,
    /// Idle connections to hold
    #[arg(long, value_delimiter = ',', default_values_t = [1000, 5000])]
    idle: Vec<usize>,
    /// Clients that work on 100 server connections, compared with 64 clients
    #[arg(long, default_value_t = 5000)]
    crowd: usize,
    /// Rows in each of the four tables
    #[arg(long, default_value_t = 50_000)]
    rows: u32,
    /// Run the servers as MySQL instead of MariaDB
    #[arg(long)]
    mysql: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Measure how long writes pause when the primary dies, freezes, or is replaced by plan
    Failover(failover::Settings),
}

fn main() -> ExitCode {
    let settings = Settings::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let outcome = runtime.map_err(Failure::from).and_then(|runtime| {
        runtime.block_on(async {
            match &settings.command {
                Some(Command::Failover(settings)) => failover::bench(settings).await,
                None => bench(&settings).await,
            }
        })
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            say(&format!("The benchmark could not go on: {failure}"));
            ExitCode::FAILURE
        }
    }
}

async fn bench(settings: &Settings) -> Result<(), Failure> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    let flavour = if settings.mysql { Flavour::Mysql } else { Flavour::Mariadb };
    let options = Options {
        flavour,
        replicas: 2,
        options: SERVER_OPTIONS.map(str::to_owned).to_vec(),
        ..Options::default()
    };
    let sandbox = Sandbox::start(&options).await?;
    sysbench::prepare(sandbox.primary().port(), settings.rows).await?;
    sandbox.caught_up(Duration::from_secs(120)).await?;
    let mut report = Report::default();
    under_load(settings, &sandbox, &mut report).await?;
    login_flood(settings, &sandbox, &mut report).await?;
    crowded(settings, &sandbox, &mut report).await?;
    idle(settings, &sandbox, &mut report).await?;
    say(&report.markdown());
    Ok(())
}

async fn under_load(settings: &Settings, sandbox: &Sandbox, report: &mut Report) -> Result<(), Failure> {
    let targets = Target::start_all(sandbox).await?;
    for round in 0..settings.rounds {
        for cell in Cell::all(&settings.clients) {
            for at in 0..targets.len() {
                let target = &targets[(at + round) % targets.len()];
                let measured = sysbench::run(&cell, target, settings.seconds, settings.rows).await?;
                say(&format!("{:36} {:10} {measured}", cell.to_string(), target.kind.to_string()));
                report.add(&cell, target.kind, measured);
            }
        }
    }
    Ok(())
}

/// The same load while other clients log in and out as fast as they can.
async fn login_flood(settings: &Settings, sandbox: &Sandbox, report: &mut Report) -> Result<(), Failure> {
    let targets = Target::start_all(sandbox).await?;
    let cell = Cell::flooded();
    for _ in 0..settings.rounds {
        for target in &targets {
            let flood = connections::flood(target.port, LOGIN_FLOOD_CLIENTS);
            let measured = sysbench::run(&cell, target, settings.seconds, settings.rows).await?;
            let logins = f64::from(flood.end()) / f64::from(settings.seconds);
            say(&format!(
                "{:36} {:10} {measured}, {logins:.0} logins/s",
                cell.to_string(),
                target.kind.to_string()
            ));
            report.add(&cell, target.kind, measured);
        }
    }
    Ok(())
}

/// Few and many clients on as few server connections, one after the other.
async fn crowded(settings: &Settings, sandbox: &Sandbox, report: &mut Report) -> Result<(), Failure> {
    for _ in 0..settings.rounds {
        for clients in [FEW_CLIENTS, settings.crowd] {
            let measured = crowded::measure(sandbox, clients, settings.seconds, settings.rows).await?;
            say(&format!("{clients} clients on {} connections: {measured}", crowded::SERVER_CONNECTIONS));
            report.add_crowd(measured);
        }
    }
    Ok(())
}

/// Memory of clients that do nothing; fresh processes, which have nothing cached yet.
async fn idle(settings: &Settings, sandbox: &Sandbox, report: &mut Report) -> Result<(), Failure> {
    let crowds = settings.idle.iter().flat_map(|&clients| [false, true].map(|tls| Crowd { clients, tls }));
    for crowd in crowds {
        for target in Target::start_all(sandbox).await? {
            let measured = match target.kind {
                Kind::Direct => false,
                Kind::Pointsman => true,
                // They pass TLS on to servers that have none here.
                Kind::Haproxy | Kind::Proxysql | Kind::Router => !crowd.tls,
            };
            if !measured {
                continue;
            }
            let held = connections::hold(&target, crowd).await?;
            say(&format!("{crowd} idle clients, {}: {held}", target.kind));
            report.add_idle(crowd, target.kind, held);
        }
    }
    Ok(())
}

fn say(line: &str) {
    // Nobody to show it to is no reason to stop.
    let _ = writeln!(io::stdout().lock(), "{line}");
}

const SERVER_OPTIONS: [&str; 4] = [
    "--max-connections=7000",
    "--back-log=4000",
    "--innodb-buffer-pool-size=256M",
    "--max-prepared-stmt-count=400000",
];
const FEW_CLIENTS: usize = 64;
const LOGIN_FLOOD_CLIENTS: usize = 8;
