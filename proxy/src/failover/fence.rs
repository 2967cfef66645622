//! Keeps clients from writing to a server: in an orderly way with a deadline, or as far as it can be reached.

use std::process::Stdio;
use std::time::Duration;

use pointsman_router::discover::join_host_port;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::time::{Instant, sleep, timeout};
use tracing::{info, warn};

use super::clients::{self, GONE_LIMIT, LOOK};
use super::steps::{StepFailure, Work};
use super::words;
use crate::cluster::connection::{ConnectionError, Record};

/// `read_only = 1` within `deadline`, or undone: the statement waits for commits, and for ever where they wait for an
/// acknowledgement, while all new writes wait behind it. So it runs on a connection of its own.
pub(super) async fn set_read_only(work: &mut Work<'_>, deadline: Duration) -> Result<(), StepFailure> {
    let flavour = work.flavour();
    let address = work.realm.address(work.server);
    let own = work.realm.account.connect(&address, work.left()).await;
    let mut own = own.map_err(|error| work.stopped(format!("no second connection: {error}")))?;
    let thread = own.thread_id();
    let error = match own.run(words::read_only(flavour), deadline).await {
        Ok(()) => {
            work.changed = true;
            return Ok(());
        }
        Err(ConnectionError::TimedOut(_)) => {
            format!(
                "read_only did not come into effect within {} ms: commits wait on the server",
                deadline.as_millis()
            )
        }
        Err(error) => error.to_string(),
    };
    undo(work, thread).await?;
    Err(StepFailure::refused(error))
}

/// Ends the waiting statement; where it came through at the last moment, the server is made writable again.
async fn undo(work: &mut Work<'_>, thread: u32) -> Result<(), StepFailure> {
    work.kill(vec![thread.to_string()]).await?;
    let gone_by = Instant::now() + GONE_LIMIT;
    while work.threads().await?.iter().any(|row| row.number(&["Id"]) == Some(thread))
        && Instant::now() < gone_by
    {
        sleep(LOOK).await;
    }
    work.change(words::writable(work.flavour())).await
}

/// Best effort against a primary that was judged dead.
pub(super) async fn fence(work: &mut Work<'_>, epoch: u64) -> Result<(), StepFailure> {
    let sql = words::read_only(work.flavour());
    let user = work.realm.account.user().to_owned();
    let is_ours = |row: &Record| {
        row.text_or_empty(&["User"]) == user && row.text_or_empty(&["Info"]).eq_ignore_ascii_case(sql)
    };
    if work.threads().await?.iter().any(is_ours) {
        // On a full disk it waits until there is room. One is enough: more would take up all connections in the end.
        clients::end(work, is_ours).await?;
        return Err(work.stopped("read_only waits for commits since it was fenced before"));
    }
    // New clients are kept out; those that are in lose their connections, and then what they wait for.
    let address = work.realm.address(work.server);
    let own = work.realm.account.connect(&address, work.left()).await;
    let mut own = own.map_err(|error| work.failed(error, false))?;
    let limit = work.left();
    let (read_only, ended) = tokio::join!(own.run(sql, limit), clients::end(work, is_ours));
    info!(server = work.realm.name(work.server), epoch, "fenced: read-only, clients ended");
    ended?;
    read_only.map_err(|error| work.failed(error, true))
}

/// Runs `failover.fence_command` for a server: it kills or isolates it.
///
/// # Errors
///
/// When it cannot be run, fails, or takes too long; with what it wrote.
pub(super) async fn run_command(
    command: &[String],
    name: &str,
    address: &str,
    epoch: u64,
) -> Result<(), String> {
    let Some((program, arguments)) = command.split_first() else { return Err("none is configured".into()) };
    let running = Command::new(program)
        .args(arguments)
        .env("POINTSMAN_SERVER", name)
        .env("POINTSMAN_ADDRESS", address)
        .env("POINTSMAN_EPOCH", epoch.to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| format!("{program}: {error}"))?;
    let output = timeout(COMMAND_LIMIT, running.wait_with_output()).await;
    let output =
        output.map_err(|_| format!("{program}: still running after {} s", COMMAND_LIMIT.as_secs()))?;
    let output = output.map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        info!(server = name, epoch, program, "fence_command has ended well");
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    let text = text.trim().chars().take(MAX_OUTPUT_CHARS).collect::<String>();
    warn!(server = name, epoch, program, status = %output.status, text, "fence_command failed");
    Err(format!("{program}: {}: {text}", output.status))
}

/// Whether a server neither refuses connections nor greets: it is frozen or cut off.
pub(super) async fn is_silent(host: &str, port: u16) -> bool {
    let greeted = timeout(GREETING_LIMIT, async {
        // Refused, or no way to it: nothing is waited for there.
        let Ok(mut socket) = TcpStream::connect(join_host_port(host, port)).await else { return true };
        socket.read_u8().await.is_ok()
    })
    .await;
    greeted.is_err()
}

const COMMAND_LIMIT: Duration = Duration::from_secs(10);
const MAX_OUTPUT_CHARS: usize = 500;
/// A living server greets within a millisecond; a busy machine gets more.
const GREETING_LIMIT: Duration = Duration::from_millis(20);
