//! Every client keeps the same promises through Pointsman as on one server, with and without TLS, on both flavours.
//!
//! A programme runs on the primary directly, which proves the programme, and through the proxy.
//! `integration-tests/clients` has the programmes of other languages and their contract.

mod document;
mod driver_mysql_async;
mod driver_sqlx;
mod programme;
mod report;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use mysql_async::Conn;
use pointsman_integration_tests::{FLAVOURS, Failure, Flavour, Outcome, Plan, Stage, Suite};

use self::report::Report;

/// Where a client connects and what it may do there.
#[derive(Clone, Debug)]
struct Contract {
    port: u16,
    schema: String,
    tls: bool,
    flavour: Flavour,
    infile: PathBuf,
}

/// A client of the list.
#[derive(Clone, Debug)]
enum Client {
    /// One of `integration-tests/clients/run`.
    Programme(String),
    MysqlAsync,
    Sqlx,
}

const HOST: &str = "127.0.0.1";
const USER: &str = "clients";
const PASSWORD: &str = "clients-secret";

fn main() {
    let mut suite = Suite::new();
    let clients = all_clients();
    for flavour in FLAVOURS {
        let stage = suite.stage(plan(flavour));
        for client in &clients {
            for tls in [false, true] {
                let name = format!("{}, {}", client.name(), if tls { "with TLS" } else { "without TLS" });
                let client = client.clone();
                suite.test(&stage, &name, move |stage| same_as_one_server(stage, client, tls));
            }
        }
        suite.test(&stage, "the replicas have answered reads of clients", replicas_have_answered);
        suite.test(&stage, "docs/clients.md says what was seen", async |_| document::is_true());
    }
    suite.run()
}

/// Servers that accept long packets, LOCAL INFILE and TLS.
fn plan(flavour: Flavour) -> Plan {
    let mut plan = Plan::new(flavour);
    // Not about outages: a busy machine must not look like one.
    plan.configuration = "[monitor]\ntimeout = \"3s\"\n".to_owned();
    plan.sandbox.options.push("--max-allowed-packet=64M".to_owned());
    if flavour == Flavour::Mariadb {
        let (certificate, key) = certificate();
        plan.sandbox.options.push(format!("--ssl-cert={}", certificate.display()));
        plan.sandbox.options.push(format!("--ssl-key={}", key.display()));
    }
    plan
}

async fn same_as_one_server(stage: Arc<Stage>, client: Client, tls: bool) -> Outcome {
    // One after the other, because both make the account and wait until the replicas have it.
    let (direct, _one) = prepared(&stage, tls, Through::Nothing).await?;
    let (through, _other) = prepared(&stage, tls, Through::Proxy).await?;
    // At the same time, in schemas of their own: most of what a client does is to wait.
    let (directly, proxied) = tokio::try_join!(client.run(&direct), client.run(&through))?;
    tidied(&stage, [&direct, &through]).await?;
    directly.complete("directly")?;
    proxied.complete("through Pointsman")?;
    if directly.kept() != proxied.kept() {
        let (one, other) = (directly.kept(), proxied.kept());
        return Err(format!("expected the promises kept directly, {one:?}, got {other:?}").into());
    }
    document::note(client.name(), stage.flavour(), &proxied)
}

/// What the clients did before makes this one: it is the last of its stage.
async fn replicas_have_answered(stage: Arc<Stage>) -> Outcome {
    let sandbox = stage.sandbox().await?;
    stage.proxy().await?;
    let mut reads = Vec::new();
    for replica in sandbox.replicas() {
        reads.push(replica.counter("Com_select").await?);
    }
    assert!(reads.iter().all(|&count| count > 0), "expected reads on each replica, got {reads:?}");
    let sum: u64 = reads.iter().sum();
    assert!(sum > LEAST_READS, "expected over {LEAST_READS} reads on replicas, got {reads:?}");
    Ok(())
}

#[derive(Clone, Copy, Debug)]
enum Through {
    Nothing,
    Proxy,
}

/// A schema of its own, known to every server, and a connection of the account that stays while the client works.
///
/// The first login of a caching_sha2_password account needs the server's key, which not every driver can ask for.
async fn prepared(stage: &Stage, tls: bool, through: Through) -> Result<(Contract, Conn), Failure> {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let schema = format!("clients_{}", NEXT.fetch_add(1, Ordering::Relaxed));
    let sandbox = stage.sandbox().await?;
    sandbox
        .primary()
        .run(&[
            &format!("CREATE USER IF NOT EXISTS {USER}@'%' IDENTIFIED BY '{PASSWORD}'"),
            &format!("GRANT ALL ON `clients%`.* TO {USER}@'%'"),
            &format!("CREATE DATABASE {schema} CHARACTER SET utf8mb4"),
        ])
        .await?;
    sandbox.caught_up(LIMIT).await?;
    let (port, standing) = match through {
        Through::Nothing => {
            let primary = sandbox.primary();
            (primary.port(), primary.connect_as((USER, PASSWORD), &schema).await?)
        }
        Through::Proxy => {
            let proxy = stage.proxy().await?;
            (proxy.port(), proxy.connect((USER, PASSWORD), &schema).await?)
        }
    };
    Ok((Contract { port, schema, tls, flavour: stage.flavour(), infile: infile()? }, standing))
}

/// Gives back the space of both runs: with that of all others it would be over 10 GB.
async fn tidied(stage: &Stage, runs: [&Contract; 2]) -> Outcome {
    let sandbox = stage.sandbox().await?;
    let drop = runs.map(|run| format!("DROP DATABASE {}", run.schema));
    sandbox.primary().run(&drop.each_ref().map(String::as_str)).await?;
    sandbox.caught_up(LIMIT).await?;
    Ok(sandbox.purge_binary_logs().await?)
}

impl Client {
    fn name(&self) -> &str {
        match self {
            Self::Programme(name) => name,
            Self::MysqlAsync => "mysql_async",
            Self::Sqlx => "sqlx",
        }
    }

    async fn run(&self, contract: &Contract) -> Result<Report, Failure> {
        match self {
            Self::Programme(name) => programme::run(name, contract).await,
            Self::MysqlAsync => Ok(driver_mysql_async::run(contract).await),
            Self::Sqlx => Ok(driver_sqlx::run(contract).await),
        }
    }
}

fn all_clients() -> Vec<Client> {
    let others = programme::names().into_iter().map(Client::Programme);
    others.chain([Client::MysqlAsync, Client::Sqlx]).collect()
}

/// A self-signed certificate for the servers that make none themselves.
fn certificate() -> (PathBuf, PathBuf) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let (certificate, key) = (directory().join("server.pem"), directory().join("server.key"));
    fs::write(&certificate, made.cert.pem()).expect("a writable target directory");
    fs::write(&key, made.signing_key.serialize_pem()).expect("a writable target directory");
    (certificate, key)
}

/// The file that LOAD DATA LOCAL INFILE sends.
fn infile() -> Result<PathBuf, Failure> {
    let lines: String = (1..=1000).map(|number| format!("{number},Gleis {number} 🚂\n")).collect();
    let path = directory().join("infile.csv");
    fs::write(&path, lines)?;
    Ok(path)
}

fn directory() -> &'static Path {
    Path::new(env!("CARGO_TARGET_TMPDIR"))
}

const LIMIT: Duration = Duration::from_secs(30);
const LEAST_READS: u64 = 500;
