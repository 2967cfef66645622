//! `pointsman serve`: one foreground process until SIGTERM, SIGINT or a fatal fault.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use pointsman_config::Config;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::exit::{Exit, Failure, Outcome};
use super::logging;
use super::settings::SettingsArgs;
use crate::net::{Acceptor, ListenerKind};
use crate::serve::{self, Running};
use crate::worker::Message;

pub(super) fn run(settings: &SettingsArgs) -> Outcome {
    let config = Arc::new(settings.load_complete()?.config);
    logging::start(&config.log);
    raise_open_files();
    // Two threads: a probe that computes must not keep another from seeing a dead server.
    let control_plane = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(CONTROL_THREADS)
        .thread_name("control")
        .enable_all()
        .build()?;
    let outcome = control_plane.block_on(serve(config));
    control_plane.shutdown_timeout(SHUTDOWN_WITHIN);
    outcome
}

async fn serve(config: Arc<Config>) -> Outcome {
    let listeners = bind(&config)?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let running = serve::start(config.clone())
        .map_err(|error| Failure::new(Exit::Usage, format!("cannot start: {error}")))?;
    let early = tokio::select! {
        () = serve::ready(&running) => false,
        _ = terminate.recv() => true,
        _ = interrupt.recv() => true,
    };
    if early {
        return Ok(Exit::Ok);
    }
    let (stop, stopped) = watch::channel(false);
    let accepting: Vec<_> = listeners
        .into_iter()
        .map(|listener| tokio::spawn(listener.run(running.workers.clone(), stopped.clone())))
        .collect();
    tokio::select! {
        _ = terminate.recv() => tracing::info!("SIGTERM: draining"),
        _ = interrupt.recv() => tracing::info!("SIGINT: draining"),
    }
    let hurry = async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    tokio::select! {
        () = drain(&config, &running, &stop, accepting) => {}
        () = hurry => tracing::warn!("second signal: ending at once"),
    }
    running.workers.stop();
    Ok(Exit::Ok)
}

fn bind(config: &Config) -> Result<Vec<Acceptor>, Failure> {
    let mut listeners = Vec::new();
    let wanted = [(ListenerKind::ReadWrite, &config.listen.rw), (ListenerKind::ReadOnly, &config.listen.ro)];
    for (kind, settings) in wanted {
        let bound = Acceptor::bind(kind, settings)
            .map_err(|error| Failure::new(Exit::Usage, format!("listen.{}: {error}", kind.name())))?;
        if let Some(listener) = bound {
            let addresses: Vec<_> = listener.addresses().iter().map(ToString::to_string).collect();
            tracing::info!(listener = kind.name(), addresses = addresses.join(", "), "listening");
            listeners.push(listener);
        }
    }
    Ok(listeners)
}

/// Not ready any more, accept until load balancers have heard of it, then end each session at the end of its
/// transaction.
async fn drain(config: &Config, running: &Running, stop: &watch::Sender<bool>, accepting: Vec<JoinHandle<()>>) {
    running.shared.draining.store(true, Ordering::Relaxed);
    if running.workers.sessions() > 0 {
        tokio::time::sleep(config.drain.delay).await;
    }
    stop.send_replace(true);
    for listener in accepting {
        // Ends with its socket closed; a panic in it has been logged.
        drop(listener.await);
    }
    running.shared.broadcast(|| Message::Drain);
    let deadline = Instant::now() + config.drain.timeout;
    while running.workers.sessions() > 0 && Instant::now() < deadline {
        tokio::time::sleep(DRAIN_LOOK).await;
    }
    let left = running.workers.sessions();
    if left > 0 {
        tracing::warn!(sessions = left, "drain.timeout is over: ending sessions within their transactions");
    }
}

/// Each client and each server connection needs a descriptor: as many as the system lets this process have.
fn raise_open_files() {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return };
    if soft < hard
        && let Err(error) = setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
    {
        tracing::warn!(%error, soft, hard, "cannot raise the limit of open files");
    }
}

const CONTROL_THREADS: usize = 2;
const SHUTDOWN_WITHIN: Duration = Duration::from_secs(1);
const DRAIN_LOOK: Duration = Duration::from_millis(20);
