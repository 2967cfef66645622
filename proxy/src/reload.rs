//! Changes of the configuration while the process runs.
//!
//! It is read again on SIGHUP, on request, and every [`PERIOD`]: reading it anew sees whatever a watch of files misses,
//! such as directories that are swapped by symbolic links, and the files that options name. A faulty one changes
//! nothing. Of a good one everything is taken up that needs no restart, and the rest is named.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pointsman_config::{Change, Config, LogLevel, diff, take_up, to_json};
use sha2::{Digest, Sha256};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{info, warn};

use crate::cluster::{self, Request};
use crate::shared::Shared;

/// How often the files are read.
const PERIOD: Duration = Duration::from_secs(2);
/// Requests that may wait.
const MAX_WAITING: usize = 8;

/// Reads the whole configuration, or says all that is wrong with it.
pub type Load = Arc<dyn Fn() -> Result<Config, String> + Send + Sync>;
/// Changes what is logged.
pub type SetLevel = Box<dyn Fn(LogLevel) + Send + Sync>;

/// What came of the last reading that mattered.
#[derive(Clone, Debug)]
pub struct Report {
    /// All faults of the configuration that was refused.
    pub fault: Option<String>,
    /// The options that were taken up.
    pub applied: Vec<Change>,
    /// The options whose new values wait for a restart.
    pub pending: Vec<Change>,
    /// Stands for the configuration in use, without its secrets.
    pub hash: String,
    pub seconds_since_epoch: u64,
}

impl Report {
    fn new(running: &Config) -> Self {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            fault: None,
            applied: Vec::new(),
            pending: Vec::new(),
            hash: hash(running),
            seconds_since_epoch: since_epoch.as_secs(),
        }
    }
}

fn hash(config: &Config) -> String {
    let digest = Sha256::digest(to_json(config).to_string());
    digest.iter().take(6).map(|byte| format!("{byte:02x}")).collect()
}

/// The way to the task.
#[derive(Clone, Debug)]
pub struct Handle {
    wishes: mpsc::Sender<oneshot::Sender<Report>>,
    pub report: watch::Receiver<Report>,
}

impl Handle {
    /// Has the configuration read now; none when the process ends.
    pub async fn reload(&self) -> Option<Report> {
        let (answer, report) = oneshot::channel();
        self.wishes.send(answer).await.ok()?;
        report.await.ok()
    }
}

/// Starts the task on the current runtime.
///
/// # Errors
///
/// When the operating system refuses to tell of SIGHUP.
pub fn start(
    shared: &Arc<Shared>,
    cluster: cluster::Handle,
    load: Load,
    set_level: SetLevel,
) -> std::io::Result<Handle> {
    let (wishes, wanted) = mpsc::channel(MAX_WAITING);
    let (reports, report) = watch::channel(Report::new(&shared.config));
    let task = Task { shared: shared.clone(), cluster, load, set_level, reports };
    tokio::spawn(task.run(wanted, signal(SignalKind::hangup())?));
    Ok(Handle { wishes, report })
}

struct Task {
    shared: Arc<Shared>,
    cluster: cluster::Handle,
    load: Load,
    set_level: SetLevel,
    reports: watch::Sender<Report>,
}

impl Task {
    async fn run(self, mut wanted: mpsc::Receiver<oneshot::Sender<Report>>, mut hangup: Signal) {
        let mut timer = tokio::time::interval(PERIOD);
        let mut look = Look { judged: Ok((*self.shared.config).clone()), last: None };
        loop {
            tokio::select! {
                Some(answer) = wanted.recv() => {
                    let report = self.judge(&mut look).await;
                    // The asker may have gone away; the work is done all the same.
                    drop(answer.send(report));
                }
                _ = hangup.recv() => drop(self.judge(&mut look).await),
                _ = timer.tick() => {
                    let read = self.read().await;
                    if look.is_settled(read.clone()) {
                        self.act(&mut look, read).await;
                    }
                }
            }
        }
    }

    async fn judge(&self, look: &mut Look) -> Report {
        let read = self.read().await;
        self.act(look, read).await;
        self.reports.borrow().clone()
    }

    async fn read(&self) -> Result<Config, String> {
        let load = self.load.clone();
        // A slow disk must not hold up the control plane.
        let read = tokio::task::spawn_blocking(move || load()).await;
        read.unwrap_or_else(|error| Err(error.to_string()))
    }

    async fn act(&self, look: &mut Look, read: Result<Config, String>) {
        let running = self.shared.settings();
        let report = match &read {
            Err(fault) => {
                warn!(fault, "the new configuration is refused, the one in use stays");
                let before = self.reports.borrow().clone();
                Report { fault: Some(fault.clone()), pending: before.pending, ..Report::new(&running) }
            }
            Ok(new) => {
                let next = self.take_up(&running, new);
                let (applied, pending) = (diff(&running, &next), diff(&next, new));
                self.apply(&running, &next).await;
                info!(applied = keys(&applied), needs_restart = keys(&pending), "the configuration was read");
                Report { applied, pending, ..Report::new(&next) }
            }
        };
        look.judged = read;
        self.reports.send_replace(report);
    }

    async fn apply(&self, running: &Config, next: &Arc<Config>) {
        if running == &**next {
            return;
        }
        if running.log.level != next.log.level {
            (self.set_level)(next.log.level);
        }
        self.shared.users.reconfigure(&next.user_list);
        let roster = Arc::new(self.shared.roster.borrow().followed_by(&next.servers));
        self.shared.follow(next, roster.clone());
        self.shared.settings.send_replace(next.clone());
        let request = Request::Reconfigure { config: next.clone(), roster };
        // An error means that the cluster task has ended with the process.
        drop(self.cluster.requests.send(request).await);
    }

    /// What of a configuration can be taken up as things are.
    fn take_up(&self, running: &Config, new: &Config) -> Arc<Config> {
        let view = self.cluster.view.borrow().clone();
        let primary = view.topology.primary().map(|primary| primary.name.as_str());
        let mut next = take_up(running, new, primary);
        let named = |name: &str| new.servers.iter().any(|server| server.name == name);
        if let Some(primary) = primary.filter(|primary| !named(primary)) {
            warn!(
                server = primary,
                "the primary stays although the configuration names it no more: move it first"
            );
        }
        if self.shared.roster.borrow().followed_by(&next.servers).len() > self.shared.room() {
            warn!("too many servers have come and gone since the start: the new ones wait for a restart");
            next.servers = take_up(running, running, primary).servers;
        }
        Arc::new(next)
    }
}

fn keys(changes: &[Change]) -> String {
    changes.iter().map(|change| change.key.as_str()).collect::<Vec<_>>().join(", ")
}

/// What the files held when they were read.
struct Look {
    /// What was acted on last.
    judged: Result<Config, String>,
    last: Option<Result<Config, String>>,
}

impl Look {
    /// Whether the same new content was read twice: a file that is just being written is no configuration.
    fn is_settled(&mut self, read: Result<Config, String>) -> bool {
        if read == self.judged {
            self.last = None;
            return false;
        }
        let settled = self.last.as_ref() == Some(&read);
        self.last = (!settled).then_some(read);
        settled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_stays_is_acted_on() {
        let config = |cluster: &str| Config { cluster: cluster.to_owned(), ..Config::default() };
        let mut look = Look { judged: Ok(config("a")), last: None };
        let mut check = |read: Result<Config, String>, expected: bool| {
            let settled = look.is_settled(read.clone());
            assert_eq!(settled, expected, "{read:?}");
            if settled {
                look.judged = read;
            }
        };
        check(Ok(config("a")), false);
        check(Ok(config("b")), false);
        check(Ok(config("b")), true);
        check(Ok(config("b")), false);
        check(Err("half".to_owned()), false);
        check(Ok(config("c")), false);
        check(Ok(config("c")), true);
        check(Err("wrong".to_owned()), false);
        check(Err("wrong".to_owned()), true);
        check(Err("wrong".to_owned()), false);
    }

    #[test]
    fn the_hash_stands_for_what_is_in_use() {
        let other = Config { cluster: "other".to_owned(), ..Config::default() };
        assert_eq!(hash(&Config::default()), hash(&Config::default()));
        assert_ne!(hash(&Config::default()), hash(&other));
        assert_eq!(hash(&other).len(), 12);
    }
}
