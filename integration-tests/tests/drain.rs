//! SIGTERM ends the program without an error for anybody who works in transactions.

use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use pointsman_integration_tests::sandbox::{APP, DBA};
use pointsman_integration_tests::{
    Failure, Flavour, Outcome, Plan, Proxy, Stage, Suite, eventually, program, run,
};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::{Instant, timeout};

fn main() {
    let mut suite = Suite::new();
    let stage = suite.stage(Plan::new(Flavour::Mariadb));
    suite.test(&stage, "a transaction ends before its session does", transactions_end);
    suite.test(&stage, "SIGTERM after drain --local cuts nothing", asked_then_terminated);
    suite.test(&stage, "not ready at once, and clients are accepted for a while", not_ready_first);
    suite.test(&stage, "who reads the binary log does not hold up the end", binary_log_readers_end);
    suite.test(&stage, "a session that never ends is cut at the time limit", hard_stop);
    suite.test(&stage, "a restart on sockets of the service manager refuses nobody", inherited_sockets);
    suite.run()
}

async fn transactions_end(stage: Arc<Stage>) -> Outcome {
    let sandbox = stage.sandbox().await?;
    let proxy = Proxy::start(&sandbox, "[drain]\ndelay = \"100ms\"\ntimeout = \"30s\"\n").await?;
    let mut idle = proxy.connect(APP, "app").await?;
    let mut busy = proxy.connect(APP, "app").await?;
    busy.query_drop("CREATE TABLE drained (id INT PRIMARY KEY)").await?;
    busy.query_drop("BEGIN").await?;
    busy.query_drop("INSERT INTO drained VALUES (1)").await?;
    proxy.signal(Signal::SIGTERM).await?;
    ends(&mut idle).await;
    busy.query_drop("INSERT INTO drained VALUES (2)").await?;
    busy.query_drop("COMMIT").await?;
    ends(&mut busy).await;
    assert!(proxy.ended(LIMIT).await?.success());
    assert_eq!(sandbox.primary().rows::<u32>("SELECT COUNT(*) FROM app.drained").await?, [2]);
    Ok(())
}

/// The order in which Kubernetes ends a pod: the preStop hook, then the signal.
async fn asked_then_terminated(stage: Arc<Stage>) -> Outcome {
    let sandbox = stage.sandbox().await?;
    let proxy = Proxy::start(&sandbox, "[drain]\ndelay = \"100ms\"\ntimeout = \"30s\"\n").await?;
    let mut busy = proxy.connect(APP, "app").await?;
    busy.query_drop("CREATE TABLE asked (id INT PRIMARY KEY)").await?;
    busy.query_drop("BEGIN").await?;
    busy.query_drop("INSERT INTO asked VALUES (1)").await?;
    let asked = run(&["drain", "--local", "--endpoint", &proxy.endpoint()], "").await?;
    assert_eq!(asked.code, 0, "{}", asked.err);
    proxy.signal(Signal::SIGTERM).await?;
    eventually("draining", LIMIT, async || proxy.connect(APP, "app").await.is_err()).await;
    busy.query_drop("COMMIT").await?;
    ends(&mut busy).await;
    assert!(proxy.ended(LIMIT).await?.success());
    assert_eq!(sandbox.primary().rows::<u32>("SELECT COUNT(*) FROM app.asked").await?, [1]);
    Ok(())
}

async fn not_ready_first(stage: Arc<Stage>) -> Outcome {
    let sandbox = stage.sandbox().await?;
    let proxy = Proxy::start(&sandbox, "[drain]\ndelay = \"8s\"\ntimeout = \"10s\"\n").await?;
    proxy.signal(Signal::SIGTERM).await?;
    eventually("not ready", LIMIT, async || {
        proxy.get("/readyz").await.is_ok_and(|(status, _)| status == 503)
    })
    .await;
    // Load balancers take a while to notice.
    let mut late = proxy.connect(APP, "app").await?;
    let answer: Option<u32> = late.query_first("SELECT 1").await?;
    assert_eq!(answer, Some(1));
    assert!(proxy.ended(LIMIT).await?.success());
    Ok(())
}

/// The listening socket is the service manager's, and outlives the program.
async fn inherited_sockets(stage: Arc<Stage>) -> Outcome {
    let sandbox = stage.sandbox().await?;
    let proxy = Proxy::start(&sandbox, "[drain]\ndelay = \"0s\"\n").await?;
    proxy.signal(Signal::SIGTERM).await?;
    assert!(proxy.ended(LIMIT).await?.success());
    let socket = TcpListener::bind(("127.0.0.1", proxy.port()))?;
    for _ in 0..2 {
        let (account, options) = (APP, proxy.options(APP, "app"));
        let waits = tokio::spawn(Conn::new(options));
        eventually("it waits in the socket", LIMIT, async || has_waiting(proxy.port())).await;
        let mut serving = serve_on(&proxy, &socket)?;
        let mut client = timeout(LIMIT, waits).await???;
        let answer: Option<String> = client.query_first("SELECT USER()").await?;
        assert!(answer.is_some_and(|user| user.starts_with(account.0)));
        let pid = serving.id().ok_or("it has ended")?;
        kill(Pid::from_raw(i32::try_from(pid)?), Signal::SIGTERM)?;
        assert!(timeout(LIMIT, serving.wait()).await??.success());
    }
    // One that the configuration does not know is never silently left alone.
    let stranger = TcpListener::bind("127.0.0.1:0")?;
    let refused = timeout(LIMIT, serve_on(&proxy, &stranger)?.wait_with_output()).await??;
    let words = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(2), "{words}");
    assert!(words.contains(&stranger.local_addr()?.to_string()), "{words}");
    Ok(())
}

/// Runs the program with the proxy's configuration and one socket, as systemd does.
fn serve_on(proxy: &Proxy, socket: &TcpListener) -> Result<Child, Failure> {
    let script = "LISTEN_PID=$$ LISTEN_FDS=1 exec \"$@\" 3<&0 </dev/null";
    let child = Command::new("sh")
        .args(["-c", script, "sh"])
        .arg(program()?)
        .args(["serve", "--config"])
        .arg(proxy.configuration())
        .stdin(OwnedFd::from(socket.try_clone()?))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    Ok(child)
}

/// Whether somebody has connected to the port of this machine and was not accepted yet.
fn has_waiting(port: u16) -> bool {
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap_or_default();
    let address = format!("0100007F:{port:04X}");
    // The columns are number, local and remote address, state (0A listens), queues: of a listener, who waits in it.
    table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>()).any(|columns| {
        matches!(columns[..], [_, local, _, "0A", queues, ..] if local == address && !queues.ends_with(":00000000"))
    })
}

async fn binary_log_readers_end(stage: Arc<Stage>) -> Outcome {
    let sandbox = stage.sandbox().await?;
    let proxy = Proxy::start(&sandbox, "[drain]\ndelay = \"0s\"\ntimeout = \"60s\"\n").await?;
    let mut reader = Command::new("mariadb-binlog")
        .args(["--read-from-remote-server", "--stop-never", "--protocol=tcp", "--host=127.0.0.1"])
        .args([
            &format!("--port={}", proxy.port()),
            &format!("--user={}", DBA.0),
            &format!("--password={}", DBA.1),
        ])
        .arg("binlog.000001")
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let mut lines = BufReader::new(reader.stdout.take().ok_or("no output")?).lines();
    let table = "CREATE TABLE read_from_afar (id INT)";
    proxy.connect(DBA, "app").await?.query_drop(table).await?;
    let read = async {
        while let Some(line) = lines.next_line().await? {
            if line.contains(table) {
                return Ok(());
            }
        }
        Err(Failure::from("the reader has ended"))
    };
    timeout(LIMIT, read).await??;
    proxy.signal(Signal::SIGTERM).await?;
    assert!(proxy.ended(LIMIT).await?.success());
    Ok(())
}

async fn hard_stop(stage: Arc<Stage>) -> Outcome {
    let sandbox = stage.sandbox().await?;
    let proxy = Proxy::start(&sandbox, "[drain]\ndelay = \"0s\"\ntimeout = \"1s\"\n").await?;
    let mut busy = proxy.connect(APP, "app").await?;
    busy.query_drop("BEGIN").await?;
    proxy.signal(Signal::SIGTERM).await?;
    proxy.ended(Duration::from_secs(5)).await?;
    assert!(busy.query_drop("SELECT 1").await.is_err());
    Ok(())
}

/// Waits until the session is closed.
async fn ends(conn: &mut Conn) {
    let deadline = Instant::now() + LIMIT;
    while conn.ping().await.is_ok() {
        assert!(Instant::now() < deadline, "the session goes on");
    }
}

const LIMIT: Duration = Duration::from_secs(20);
