//! `pointsman serve`: one foreground process until SIGTERM, SIGINT or a fatal fault.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use metrics_exporter_prometheus::{BuildError, PrometheusBuilder, PrometheusHandle};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use pointsman_config::{Config, CoordinationBackend};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing::{info, warn};

use super::exit::{Exit, Failure, Outcome};
use super::logging;
use super::settings::SettingsArgs;
use crate::admin::{self, Admin};
use crate::lifecycle::{Lifecycle, Phase};
use crate::net::{Acceptor, Inherited, ListenerKind};
use crate::reload;
use crate::serve::{self, Running};
use crate::worker::Message;

pub(super) fn run(settings: &SettingsArgs) -> Outcome {
    let config = Arc::new(settings.load_complete()?.config);
    let inherited = Inherited::take().map_err(|error| Failure::usage(error.to_string()))?;
    let set_level = logging::start(&config.log);
    let again = settings.clone();
    let load: reload::Load = Arc::new(move || again.load_again());
    raise_open_files();
    // Two threads: a probe that computes must not keep another from seeing a dead server.
    let control_plane = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(CONTROL_THREADS)
        .thread_name("control")
        .enable_all()
        .build()?;
    let outcome = control_plane.block_on(serve(config, inherited, load, set_level));
    control_plane.shutdown_timeout(SHUTDOWN_WITHIN);
    outcome
}

async fn serve(
    config: Arc<Config>,
    inherited: Inherited,
    load: reload::Load,
    set_level: reload::SetLevel,
) -> Outcome {
    let sockets = Sockets::bind(&config, inherited)?;
    let counted = record_metrics().map_err(|error| Failure::new(Exit::Error, error.to_string()))?;
    let mut signals = Signals::listen()?;
    let running = serve::start(config.clone())
        .await
        .map_err(|error| Failure::new(Exit::Usage, format!("cannot start: {error}")))?;
    let lifecycle = Arc::new(Lifecycle::default());
    let reload = reload::start(&running.shared, running.cluster.clone(), load, set_level)?;
    let admin = Admin {
        shared: running.shared.clone(),
        cluster: running.cluster.clone(),
        failover: running.failover.clone(),
        lifecycle: lifecycle.clone(),
        reload,
        vip: running.vip.clone(),
        counted,
    };
    admin.serve(sockets.admin);
    tokio::select! {
        () = serve::ready(&running) => {}
        _ = signals.end() => {
            leave_vip(&running).await;
            return Ok(Exit::Ok);
        }
    }
    let (stop, stopped) = watch::channel(false);
    let accepting: Vec<_> = sockets
        .clients
        .into_iter()
        .map(|listener| tokio::spawn(listener.run(running.workers.clone(), stopped.clone())))
        .collect();
    lifecycle.advance(Phase::Serving);
    let (delay, by_signal) = tokio::select! {
        ending = signals.end() => match ending {
            Ending::Planned => (running.shared.settings().drain.delay, true),
            // Somebody waits at a terminal.
            Ending::Interrupted => (Duration::ZERO, true),
        },
        () = lifecycle.asked_to_end() => (running.shared.settings().drain.delay, false),
    };
    info!(delay_seconds = delay.as_secs_f64(), "draining");
    tokio::select! {
        () = drain(&running, &lifecycle, delay, Doors { stop, accepting }) => {}
        () = signals.end_again(by_signal) => warn!("second signal: ending at once"),
    }
    leave_vip(&running).await;
    running.workers.stop();
    Ok(Exit::Ok)
}

/// Takes the virtual address away; nothing of it outlives the process.
async fn leave_vip(running: &Running) {
    if let Some(vip) = &running.vip
        && tokio::time::timeout(LEAVE_VIP_WITHIN, vip.leave()).await.is_err()
    {
        warn!("the kernel takes too long: something of the virtual address is left behind");
    }
}

/// Everything that is listened on.
struct Sockets {
    clients: Vec<Acceptor>,
    admin: admin::Listeners,
}

impl Sockets {
    /// Opens all of them, and what must be there beside them, or says everything that is in the way.
    fn bind(config: &Config, mut inherited: Inherited) -> Result<Self, Failure> {
        let mut faults = Vec::new();
        let mut clients = Vec::new();
        let wanted =
            [(ListenerKind::ReadWrite, &config.listen.rw), (ListenerKind::ReadOnly, &config.listen.ro)];
        for (kind, settings) in wanted {
            match Acceptor::bind(kind, settings, &mut inherited) {
                Ok(listener) => clients.extend(listener),
                Err(error) => faults.push(format!("listen.{}: {error}", kind.name())),
            }
        }
        let admin = admin::Listeners::bind(&config.admin, &mut inherited).unwrap_or_else(|error| {
            faults.push(format!("admin: {error}"));
            admin::Listeners::default()
        });
        if let Err(error) = inherited.all_taken() {
            faults.push(error.to_string());
        }
        if config.coordination.backend == CoordinationBackend::Local
            && let Err(error) = make_private(&config.coordination.state_dir)
        {
            let directory = config.coordination.state_dir.display();
            faults.push(format!("coordination.state_dir: cannot create {directory}: {error}"));
        }
        if !faults.is_empty() {
            return Err(Failure::usage(faults.join("\n")));
        }
        for listener in &clients {
            let addresses: Vec<_> = listener.addresses().iter().map(ToString::to_string).collect();
            info!(listener = listener.kind().name(), addresses = addresses.join(", "), "listening");
        }
        Ok(Self { clients, admin })
    }
}

/// Makes a directory with its parents, for nobody else.
fn make_private(directory: &Path) -> std::io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(directory)
}

/// Where the control plane's counters and histograms go.
fn record_metrics() -> Result<PrometheusHandle, BuildError> {
    let recorder = PrometheusBuilder::new().set_buckets(&PROBE_BUCKETS_SECONDS)?.build_recorder();
    let handle = recorder.handle();
    // Already set: a test has done it, and what it counts is shown by nobody.
    drop(metrics::set_global_recorder(recorder));
    metrics::describe_histogram!(
        "pointsman_server_probe_duration_seconds",
        "How long a server took to answer."
    );
    metrics::describe_counter!(
        "pointsman_server_state_changes_total",
        "How often a server came into a state."
    );
    let upkeep = handle.clone();
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(UPKEEP_INTERVAL).await;
            upkeep.run_upkeep();
        }
    });
    Ok(handle)
}

/// How the process is asked to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    Planned,
    Interrupted,
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn listen() -> std::io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn end(&mut self) -> Ending {
        tokio::select! {
            _ = self.terminate.recv() => Ending::Planned,
            _ = self.interrupt.recv() => Ending::Interrupted,
        }
    }

    /// Waits until the end is asked for once more than by what began it.
    ///
    /// Kubernetes sends SIGTERM after `pointsman drain --local` of its preStop hook: that one repeats nothing.
    async fn end_again(&mut self, by_signal: bool) {
        if !by_signal && self.end().await == Ending::Interrupted {
            return;
        }
        self.end().await;
    }
}

/// The tasks that accept clients, and what ends them.
struct Doors {
    stop: watch::Sender<bool>,
    accepting: Vec<JoinHandle<()>>,
}

/// Not ready any more, accept until load balancers have heard of it, then end each session at the end of its
/// transaction.
async fn drain(running: &Running, lifecycle: &Lifecycle, delay: Duration, doors: Doors) {
    lifecycle.advance(Phase::Leaving);
    tokio::time::sleep(delay).await;
    lifecycle.advance(Phase::Draining);
    running.shared.draining.store(true, Ordering::Relaxed);
    doors.stop.send_replace(true);
    for listener in doors.accepting {
        // Ends with its socket closed; a panic in it has been logged.
        drop(listener.await);
    }
    running.shared.broadcast(|| Message::Drain);
    let deadline = Instant::now() + running.shared.settings().drain.timeout;
    while running.workers.sessions() > 0 && Instant::now() < deadline {
        tokio::time::sleep(DRAIN_LOOK).await;
    }
    let left = running.workers.sessions();
    if left > 0 {
        warn!(sessions = left, "drain.timeout is over: ending sessions within their transactions");
    }
}

/// Each client and each server connection needs a descriptor: as many as the system lets this process have.
fn raise_open_files() {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return };
    if soft < hard
        && let Err(error) = setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
    {
        warn!(%error, soft, hard, "cannot raise the limit of open files");
    }
}

const CONTROL_THREADS: usize = 2;
const LEAVE_VIP_WITHIN: Duration = Duration::from_secs(5);
const SHUTDOWN_WITHIN: Duration = Duration::from_secs(1);
const DRAIN_LOOK: Duration = Duration::from_millis(20);
/// How often the recorder condenses what it holds.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);
const PROBE_BUCKETS_SECONDS: [f64; 10] = [0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5];
