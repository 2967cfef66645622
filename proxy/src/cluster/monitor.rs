//! One task per server that asks it, again and again, how it is.
//!
//! A task judges nothing: it turns answers, and the lack of them, into [`Observation`]s. Beside the connection that
//! is asked, a second one is held whose end says at once that the server has died.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use pointsman_router::discover::{News, Observation, Report};
use pointsman_router::roster::{Member, Roster};
use pointsman_router::topology::ServerId;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep, sleep_until};

use super::clock::Clock;
use super::connection::{ConnectionError, ServiceAccount};
use super::subject::{ProbeError, Subject};

/// One monitor task for each server of the configuration.
#[derive(Debug)]
pub(super) struct Monitors {
    ways: Ways,
    /// By server; none for one that is gone.
    running: Vec<Option<AbortHandle>>,
}

/// What all monitors have in common.
#[derive(Clone, Debug)]
pub(super) struct Ways {
    pub(super) account: Arc<ServiceAccount>,
    pub(super) settings: pointsman_config::Monitor,
    pub(super) observations: mpsc::Sender<Observation>,
    pub(super) clock: Clock,
    /// Somebody needs to know now.
    pub(super) hurry: watch::Receiver<()>,
}

impl Monitors {
    pub(super) fn start(ways: Ways, roster: &Roster) -> Self {
        let mut monitors = Self { ways, running: Vec::new() };
        monitors.follow(roster);
        monitors
    }

    /// Watches the servers of the configuration, and no others.
    pub(super) fn follow(&mut self, roster: &Roster) {
        self.running.resize(roster.len(), None);
        for (running, (id, member)) in self.running.iter_mut().zip(roster.members()) {
            match (&running, member.gone) {
                (Some(monitor), true) => {
                    monitor.abort();
                    *running = None;
                }
                (None, false) => *running = Some(self.ways.watch(id, member)),
                (Some(_), false) | (None, true) => {}
            }
        }
    }
}

impl Ways {
    fn watch(&self, server: ServerId, Member { server: settings, .. }: &Member) -> AbortHandle {
        let (name, address) = (settings.name.clone(), settings.address.clone());
        tokio::spawn(Monitor { server, name, address, ways: self.clone() }.run()).abort_handle()
    }
}

#[derive(Clone, Debug)]
struct Monitor {
    server: ServerId,
    name: String,
    address: String,
    ways: Ways,
}

/// How long logging in may take. Silence counts from the first share of `monitor.timeout` on; this only bounds how
/// long a half-open connection is waited for.
const CONNECT_LIMIT: Duration = Duration::from_secs(2);
/// The pause after a login was refused: a server counts these against the address.
const REJECTED_PAUSE: Duration = Duration::from_secs(1);
/// How long the held connection sleeps before it is heard from again.
const HELD_SLEEP_SECONDS: u64 = 8;

impl Monitor {
    /// Probes until the cluster task has ended.
    async fn run(self) {
        let died = Arc::new(Notify::new());
        // Ends with this task, which may be aborted.
        let mut sentinel = JoinSet::new();
        sentinel.spawn(self.clone().hold(died.clone()));
        let mut subject = None;
        let mut hurry = self.ways.hurry.clone();
        while !self.ways.observations.is_closed() {
            let started = Instant::now();
            let pause = self.probe(&mut subject).await;
            tokio::select! {
                () = sleep_until(started + pause) => {}
                () = died.notified() => {}
                Ok(()) = hurry.changed() => {}
            }
        }
    }

    /// Asks once and reports; answers how long after the start of this probe the next one is due.
    async fn probe(&self, subject: &mut Option<Subject>) -> Duration {
        let asked = self.ways.clock.now();
        let mut asking = pin!(self.ask(subject));
        let outcome = loop {
            tokio::select! {
                biased;
                outcome = &mut asking => break outcome,
                () = sleep(self.share()) => self.tell(asked, News::Silence).await,
            }
        };
        let news = match outcome {
            Ok(report) => News::Report(Box::new(report)),
            Err(ProbeError::Connection(ConnectionError::TimedOut(_))) => News::Silence,
            Err(ProbeError::Connection(error @ ConnectionError::Refused(_))) => {
                News::Refused(error.to_string())
            }
            Err(ProbeError::Connection(ConnectionError::Server { code, message })) => {
                News::Rejected { code, message }
            }
            Err(error) => News::Failed(error.to_string()),
        };
        if matches!(news, News::Report(_)) {
            let took = self.ways.clock.now().saturating_sub(asked);
            metrics::histogram!("pointsman_server_probe_duration_seconds", "server" => self.name.clone())
                .record(took.as_secs_f64());
        }
        let rejected = matches!(news, News::Rejected { .. });
        self.tell(asked, news).await;
        if rejected { REJECTED_PAUSE } else { self.ways.settings.interval }
    }

    /// The part of `monitor.timeout` after which one failure is counted.
    fn share(&self) -> Duration {
        self.ways.settings.timeout / self.ways.settings.failures.max(1)
    }

    async fn tell(&self, asked: Duration, news: News) {
        let noticed = self.ways.clock.now();
        // A closed channel means that the process ends.
        drop(self.ways.observations.send(Observation { server: self.server, asked, noticed, news }).await);
    }

    /// Asks over the connection at hand; when that has just ended, over a new one.
    async fn ask(&self, subject: &mut Option<Subject>) -> Result<Report, ProbeError> {
        if let Some(known) = subject {
            match known.report(self.ways.settings.timeout).await {
                Err(ProbeError::Connection(ConnectionError::Lost(_) | ConnectionError::Closed)) => {
                    *subject = None
                }
                Err(error) => {
                    *subject = None;
                    return Err(error);
                }
                Ok(report) => return Ok(report),
            }
        }
        let fresh = subject.insert(Subject::meet(&self.ways.account, &self.address, CONNECT_LIMIT).await?);
        fresh.report(self.ways.settings.timeout).await
    }

    /// Holds a connection that does nothing, and says when it ends before its time.
    ///
    /// A statement must run on it: the driver notices the end of a connection only while it waits for an answer.
    async fn hold(self, died: Arc<Notify>) {
        let sleep_sql =
            format!("DO /* pointsman holds this connection to see its end */ SLEEP({HELD_SLEEP_SECONDS})");
        let limit = Duration::from_secs(HELD_SLEEP_SECONDS) + CONNECT_LIMIT;
        loop {
            if let Ok(mut held) = self.ways.account.connect(&self.address, CONNECT_LIMIT).await {
                while held.run(&sleep_sql, limit).await.is_ok() {}
                died.notify_one();
            }
            sleep(REJECTED_PAUSE).await;
        }
    }
}
