//! Operators change what runs while sysbench does: no client gets an error that could have been avoided.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, SslOpts};
use nix::sys::signal::Signal;
use pointsman_integration_tests::sandbox::{APP, Port, Sandbox};
use pointsman_integration_tests::{
    Etcd, FLAVOURS, Failure, Load, NO_OUTAGE, Outcome, Plan, Proxy, Stage, Suite, Traffic, Write, eventually,
    run,
};
use tokio::process::{Child, Command};
use tokio::time::Instant;

fn main() {
    let mut suite = Suite::new();
    for flavour in FLAVOURS {
        let stage = suite.stage(Plan::new(flavour));
        suite.test(&stage, "the configuration changes under sysbench", configuration);
        suite.test(&stage, "certificates change under new connections", certificate);
        suite.test(&stage, "one of two proxies behind a balancer ends under load", one_of_two);
    }
    suite.run()
}

async fn configuration(stage: Arc<Stage>) -> Outcome {
    let sandbox = prepared(&stage).await?;
    let proxy = started(&sandbox, &[0, 1], "").await?;
    let mut loads = [
        Sysbench::start(proxy.port(), "oltp_read_only", ALL_CHANGES, &["--skip-trx=on"])?,
        Sysbench::start(proxy.port(), "oltp_insert", ALL_CHANGES, &[SLOWLY])?,
    ];
    let all = [0, 1, 2];
    rewrite(&proxy, |text| replaced(text, "servers =", &servers(&sandbox, &all, 100)))?;
    shows(&proxy, "db-3", "online").await;
    rewrite(&proxy, |text| replaced(text, "servers =", &servers(&sandbox, &all, 7)))?;
    eventually("another weight", LIMIT, async || {
        proxy.status().await.is_ok_and(|status| status["servers"][2]["weight"] == 7)
    })
    .await;
    let drained = run(&["drain", "db-2", "--endpoint", &proxy.endpoint()], "").await?;
    assert_eq!(drained.code, 0, "{}", drained.err);
    shows(&proxy, "db-2", "draining").await;
    let other = "user_list = [{ name = \"reader\", consistency = \"eventual\" }]\n";
    let before = hash(&proxy).await;
    rewrite(&proxy, |text| format!("{other}{text}"))?;
    eventually("another configuration", LIMIT, async || hash(&proxy).await != before).await;
    sandbox.primary().run(&["ALTER USER reader@'%' IDENTIFIED BY 'another'"]).await?;
    eventually("the new password", LIMIT, async || proxy.connect(("reader", "another"), "app").await.is_ok())
        .await;
    let back = run(&["undrain", "db-2", "--endpoint", &proxy.endpoint()], "").await?;
    assert_eq!(back.code, 0, "{}", back.err);
    shows(&proxy, "db-2", "online").await;
    for load in &mut loads {
        load.still_runs()?;
    }
    for load in loads {
        let report = load.ended().await?;
        assert_eq!(report.errors, (0, 0), "{}", report.text);
        assert!(report.queries > 1000, "{}", report.text);
    }
    Ok(())
}

async fn certificate(stage: Arc<Stage>) -> Outcome {
    let sandbox = prepared(&stage).await?;
    let files = sandbox.directory().join("certificates");
    fs::create_dir(&files)?;
    let (certificate, key) = issue(&files)?;
    let tls = format!("[tls]\ncert_file = \"{certificate}\"\nkey_file = \"{key}\"\n");
    let proxy = started(&sandbox, &[0, 1, 2], &tls).await?;
    let mut load = Sysbench::start(proxy.port(), "oltp_read_only", ONE_CHANGE, &["--skip-trx=on"])?;
    let options = SslOpts::default().with_danger_accept_invalid_certs(true);
    let options: mysql_async::Opts = proxy.options(APP, "app").ssl_opts(Some(options)).into();
    issue(&files)?;
    let mut logins = 0;
    while !proxy.log().contains("a new certificate is in use") {
        let mut conn = Conn::new(options.clone()).await?;
        let answer: Option<u32> = conn.query_first("SELECT 1").await?;
        assert_eq!(answer, Some(1));
        conn.disconnect().await?;
        logins += 1;
        assert!(logins < MOST_LOGINS, "{}", proxy.story());
    }
    Conn::new(options).await?.disconnect().await?;
    load.still_runs()?;
    let report = load.ended().await?;
    assert_eq!(report.errors, (0, 0), "{}", report.text);
    Ok(())
}

/// A client is told once at most, between two transactions, that its connection has ended, and goes on with another one:
/// MySQL's protocol has no gentler word.
async fn one_of_two(stage: Arc<Stage>) -> Outcome {
    let sandbox = prepared(&stage).await?;
    let etcd = Etcd::start(1).await?;
    let tables = format!(
        "[coordination]\nbackend = \"etcd\"\nendpoints = {:?}\n[drain]\ndelay = \"3s\"\ntimeout = \"30s\"\n",
        etcd.endpoints()
    );
    let all = [0, 1, 2];
    let (one, other) = (started(&sandbox, &all, &tables).await?, started(&sandbox, &all, &tables).await?);
    let balancer = Balancer::start(&sandbox, [&one, &other]).await?;
    let each = CLIENTS / 3;
    let load = Load { readers: each, writers: each, transactions: each, pace: Duration::from_millis(1) };
    let options = one.options(APP, "app").tcp_port(balancer.port.number());
    let traffic = Traffic::start(options, load).await?;
    // Text statements: closing a prepared one of a connection that has ended is the client's own matter.
    let more = ["--db-ps-mode=disable", SLOWLY];
    let mut sysbench = Sysbench::start(balancer.port.number(), RECONNECTING, ONE_END, &more)?;
    for proxy in [&one, &other] {
        eventually("work on both", LIMIT, async || {
            proxy.metric("pointsman_queries_total").await.is_ok_and(|count| count > 500.0)
        })
        .await;
    }
    let all_clients = CLIENTS as f64 + THREADS as f64;
    let connected = async |proxy: &Proxy| proxy.metric("pointsman_client_connections").await.unwrap_or(0.0);
    eventually("all clients are there", LIMIT, async || {
        connected(&one).await + connected(&other).await >= all_clients
    })
    .await;
    let began = Instant::now();
    let clients = connected(&one).await;
    assert!(clients > 0.0 && clients < all_clients, "{clients} clients on the proxy that ends");
    one.signal(Signal::SIGTERM).await?;
    assert!(one.ended(LIMIT).await?.success());
    let before = traffic.tally();
    eventually("all goes on", LIMIT, async || {
        let since = traffic.tally().since(&before);
        since.reads > 500 && since.writes > 500
    })
    .await;
    let tally = traffic.tally();
    let errors: Vec<_> = [traffic.read_errors(), traffic.write_errors()].into_iter().flatten().collect();
    let told =
        |text: &String| ["closed", "reset by peer", "Broken pipe"].iter().any(|end| text.contains(end));
    assert!(errors.iter().all(|(text, _)| told(text)), "{errors:?}");
    sysbench.still_runs()?;
    let report = sysbench.ended().await?;
    let told = |begin: &str| report.text.lines().filter(|line| line.starts_with(begin)).count() as u64;
    // Deadlocks among its own transactions are what it ignores.
    assert_eq!((told("cut: "), report.errors.1), (0, 0), "{}", report.text);
    assert!(told("ended: ") > 0, "expected sysbench on both proxies: {}", report.text);
    let ended = tally.failed_reads + tally.failed_writes + told("ended: ");
    assert!(ended as f64 <= clients, "{ended} connections of {clients} clients ended: {errors:?}");
    nothing_was_under_way(&sandbox, traffic.writes_since(began)).await
}

/// Writes that were not answered were neither in the middle of a transaction nor done.
async fn nothing_was_under_way(sandbox: &Sandbox, writes: Vec<Write>) -> Outcome {
    let failed: Vec<_> = writes.into_iter().filter(|write| write.error.is_some()).collect();
    let cut: Vec<_> = failed.iter().filter(|write| write.answers > 0).collect();
    assert!(cut.is_empty(), "expected no end within a transaction, got {cut:?}");
    let done: HashSet<u64> =
        sandbox.primary().rows("SELECT id FROM app.traffic_log").await?.into_iter().collect();
    let done: Vec<_> = failed.iter().filter(|write| done.contains(&write.id)).collect();
    assert!(done.is_empty(), "expected an answer to what was done, got {done:?}");
    Ok(())
}

/// HAProxy in TCP mode, which asks the proxies whether they are ready.
struct Balancer {
    port: Port,
    _child: Child,
}

impl Balancer {
    async fn start(sandbox: &Sandbox, proxies: [&Proxy; 2]) -> Result<Self, Failure> {
        let port = Port::reserve()?;
        let server = |(at, proxy): (usize, &&Proxy)| {
            let (port, admin) = (proxy.port(), proxy.admin_port());
            format!("  server p{at} 127.0.0.1:{port} check port {admin} inter 100ms fall 3 rise 1\n")
        };
        let servers: String = proxies.iter().enumerate().map(server).collect();
        let text = format!(
            "defaults\n  mode tcp\n  timeout connect 5s\n  timeout check 3s\n  option redispatch\n  timeout client 1h\n  timeout server 1h\nlisten all\n  \
             bind 127.0.0.1:{}\n  balance leastconn\n  option httpchk GET /readyz\n{servers}",
            port.number()
        );
        let file = sandbox.directory().join("balancer.cfg");
        fs::write(&file, text)?;
        let mut command = Command::new("haproxy");
        command.arg("-f").arg(&file).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.kill_on_drop(true).spawn()?;
        let options = proxies[0].options(APP, "app").tcp_port(port.number());
        eventually("the balancer", LIMIT, async || Conn::new(options.clone()).await.is_ok()).await;
        Ok(Self { port, _child: child })
    }
}

/// A load that runs for some seconds.
struct Sysbench(Child);

/// What it says at its end.
struct Report {
    text: String,
    queries: u64,
    /// Ignored ones, and connections made anew.
    errors: (u64, u64),
}

impl Sysbench {
    fn start(port: u16, script: &str, length: Duration, more: &[&str]) -> Result<Self, Failure> {
        let seconds = format!("--time={}", length.as_secs());
        let threads = format!("--threads={THREADS}");
        let arguments = [&[script, &threads, &seconds], more, &["run"]].concat();
        Ok(Self(command(port, &arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?))
    }

    /// What has changed after its end has changed under no load.
    fn still_runs(&mut self) -> Outcome {
        match self.0.try_wait()? {
            None => Ok(()),
            Some(status) => {
                Err(format!("expected sysbench to run until all has changed, got {status}").into())
            }
        }
    }

    async fn ended(self) -> Result<Report, Failure> {
        let output = self.0.wait_with_output().await?;
        let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        if !output.status.success() {
            return Err(text.into());
        }
        let count = |what: &str| {
            let line = text.lines().find_map(|line| line.trim().strip_prefix(what));
            line.and_then(|rest| rest.split_whitespace().next()?.parse().ok())
                .ok_or_else(|| Failure::from(format!("no {what} in {text}")))
        };
        let (queries, errors) = (count("queries:")?, (count("ignored errors:")?, count("reconnects:")?));
        Ok(Report { text, queries, errors })
    }
}

fn command(port: u16, arguments: &[&str]) -> Command {
    let mut command = Command::new("sysbench");
    command
        .args(["--db-driver=mysql", "--mysql-host=127.0.0.1", "--mysql-db=sbtest", "--tables=1"])
        .args([format!("--table-size={ROWS}"), format!("--mysql-port={port}")])
        .args([format!("--mysql-user={}", APP.0), format!("--mysql-password={}", APP.1)])
        .args(arguments)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command
}

async fn prepared(stage: &Stage) -> Result<Arc<Sandbox>, Failure> {
    let sandbox = stage.sandbox().await?;
    let table = "SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = 'sbtest'";
    if sandbox.primary().rows::<u64>(table).await? == [0] {
        let output = command(sandbox.primary().port(), &["oltp_read_write", "prepare"]).output().await?;
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }
    sandbox.caught_up(LIMIT).await?;
    Ok(sandbox)
}

/// A proxy that knows some of the servers, all of them online.
async fn started(sandbox: &Sandbox, known: &[usize], tables: &str) -> Result<Proxy, Failure> {
    let first = replaced(&sandbox.configuration(), "servers =", &servers(sandbox, known, 100));
    let tables = format!("{tables}{NO_OUTAGE}");
    let proxy = Proxy::spawn_on(sandbox, &first, &tables)?;
    proxy.ready(LIMIT).await?;
    for at in known {
        shows(&proxy, sandbox.servers()[*at].name(), "online").await;
    }
    Ok(proxy)
}

fn servers(sandbox: &Sandbox, known: &[usize], weight: u32) -> String {
    let item = |at: &usize| {
        let (name, address) = (sandbox.servers()[*at].name(), sandbox.servers()[*at].address());
        format!("{{ name = \"{name}\", address = \"{address}\", weight = {weight} }}")
    };
    format!("servers = [{}]", known.iter().map(item).collect::<Vec<_>>().join(", "))
}

/// The text with another line in place of the one that begins like this.
fn replaced(text: &str, begin: &str, line: &str) -> String {
    let lines = text.lines().map(|old| if old.starts_with(begin) { line } else { old });
    lines.collect::<Vec<_>>().join("\n") + "\n"
}

fn rewrite(proxy: &Proxy, change: impl Fn(&str) -> String) -> Outcome {
    let file = proxy.configuration();
    let new = file.with_extension("new");
    fs::write(&new, change(&fs::read_to_string(file)?))?;
    Ok(fs::rename(new, file)?)
}

async fn shows(proxy: &Proxy, name: &str, state: &str) {
    eventually(&format!("{name} {state}"), LIMIT, async || {
        let status = proxy.status().await.unwrap_or_default();
        let servers = status["servers"].as_array().map(Vec::as_slice).unwrap_or_default();
        servers.iter().any(|server| server["name"] == name && server["state"] == state)
    })
    .await;
}

async fn hash(proxy: &Proxy) -> String {
    proxy.status().await.unwrap_or_default()["config"]["hash"].to_string()
}

/// Writes a self-signed certificate in place of the one before; the paths of certificate and key.
fn issue(directory: &Path) -> Result<(String, String), Failure> {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
    let write = |name: &str, text: String| -> Result<PathBuf, Failure> {
        let (file, new) = (directory.join(name), directory.join("new"));
        fs::write(&new, text)?;
        fs::rename(new, &file)?;
        Ok(file)
    };
    let certificate = write("server.pem", made.cert.pem())?;
    let key = write("server.key", made.signing_key.serialize_pem())?;
    Ok((certificate.display().to_string(), key.display().to_string()))
}

/// Connects again when its connection has ended.
const RECONNECTING: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/sysbench/reconnecting.lua");
/// More than the changes take on a machine that does other things, too.
const ALL_CHANGES: Duration = Duration::from_secs(60);
/// Transactions a second, with which replicas keep up on any machine: one that lags takes part in nothing.
const SLOWLY: &str = "--rate=200";
/// More than the end of a proxy takes.
const ONE_END: Duration = Duration::from_secs(40);
const ONE_CHANGE: Duration = Duration::from_secs(20);
const LIMIT: Duration = Duration::from_secs(30);
const THREADS: u64 = 16;
/// Behind the balancer: a third reads, a third writes, a third works in transactions.
const CLIENTS: usize = 24;
const ROWS: u64 = 10_000;
const MOST_LOGINS: u32 = 100_000;
