//! One task per server that asks it, again and again, how it is.
//!
//! A task judges nothing: it turns answers, and the lack of them, into [`Observation`]s. Beside the connection that
//! is asked, a second one is held whose end says at once that the server has died.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use pointsman_router::discover::{News, Observation, Replication, Report, SemiSync};
use pointsman_router::topology::ServerId;
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, sleep, sleep_until};

use super::clock::Clock;
use super::connection::{ConnectionError, ServiceAccount, ServiceConnection};
use super::flavour::{self, Flavour, SEMI_SYNC_SQL, VERSION_SQL};

/// What a monitor task is given.
#[derive(Clone, Debug)]
pub(super) struct Monitor {
    pub(super) server: ServerId,
    pub(super) name: String,
    pub(super) address: String,
    pub(super) account: Arc<ServiceAccount>,
    pub(super) settings: pointsman_config::Monitor,
    pub(super) observations: mpsc::Sender<Observation>,
    pub(super) clock: Clock,
}

/// How long logging in may take. Silence counts from the first share of `monitor.timeout` on; this only bounds how
/// long a half-open connection is waited for.
const CONNECT_LIMIT: Duration = Duration::from_secs(2);
/// The pause after a login was refused: a server counts these against the address.
const REJECTED_PAUSE: Duration = Duration::from_secs(1);
/// How often slowly changing facts are asked for.
const SLOW_FACTS_EVERY: Duration = Duration::from_secs(1);
/// How long the held connection sleeps before it is heard from again.
const HELD_SLEEP_SECONDS: u64 = 8;

impl Monitor {
    /// Probes until the cluster task has ended.
    pub(super) async fn run(self) {
        let died = Arc::new(Notify::new());
        let sentinel = tokio::spawn(self.clone().hold(died.clone()));
        let mut subject = None;
        while !self.observations.is_closed() {
            let started = Instant::now();
            let pause = self.probe(&mut subject).await;
            tokio::select! {
                () = sleep_until(started + pause) => {}
                () = died.notified() => {}
            }
        }
        sentinel.abort();
    }

    /// Asks once and reports; answers how long after the start of this probe the next one is due.
    async fn probe(&self, subject: &mut Option<Subject>) -> Duration {
        let asked = self.clock.now();
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
            let took = self.clock.now().saturating_sub(asked);
            metrics::histogram!("pointsman_server_probe_duration_seconds", "server" => self.name.clone())
                .record(took.as_secs_f64());
        }
        let rejected = matches!(news, News::Rejected { .. });
        self.tell(asked, news).await;
        if rejected { REJECTED_PAUSE } else { self.settings.interval }
    }

    /// The part of `monitor.timeout` after which one failure is counted.
    fn share(&self) -> Duration {
        self.settings.timeout / self.settings.failures.max(1)
    }

    async fn tell(&self, asked: Duration, news: News) {
        let noticed = self.clock.now();
        // A closed channel means that the process ends.
        drop(self.observations.send(Observation { server: self.server, asked, noticed, news }).await);
    }

    /// Asks over the connection at hand; when that has just ended, over a new one.
    async fn ask(&self, subject: &mut Option<Subject>) -> Result<Report, ProbeError> {
        if let Some(known) = subject {
            match known.report(self.settings.timeout).await {
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
        let fresh = subject.insert(Subject::meet(self).await?);
        fresh.report(self.settings.timeout).await
    }

    /// Holds a connection that does nothing, and says when it ends before its time.
    ///
    /// A statement must run on it: the driver notices the end of a connection only while it waits for an answer.
    async fn hold(self, died: Arc<Notify>) {
        let sleep_sql =
            format!("DO /* pointsman holds this connection to see its end */ SLEEP({HELD_SLEEP_SECONDS})");
        let limit = Duration::from_secs(HELD_SLEEP_SECONDS) + CONNECT_LIMIT;
        loop {
            if let Ok(mut held) = self.account.connect(&self.address, CONNECT_LIMIT).await {
                while held.run(&sleep_sql, limit).await.is_ok() {}
                died.notify_one();
            }
            sleep(REJECTED_PAUSE).await;
        }
    }
}

/// A server as one connection knows it.
#[derive(Debug)]
struct Subject {
    connection: ServiceConnection,
    flavour: &'static dyn Flavour,
    probe_sql: String,
    /// Why the replication status cannot be seen.
    hidden: Option<(u16, String)>,
    semi_sync: SemiSync,
    slow_facts_due: Instant,
}

impl Subject {
    async fn meet(monitor: &Monitor) -> Result<Self, ProbeError> {
        let mut connection = monitor.account.connect(&monitor.address, CONNECT_LIMIT).await?;
        let version = connection.rows(VERSION_SQL, monitor.settings.timeout).await?;
        let flavour = flavour::of(version.first().ok_or(ProbeError::NoAnswer)?);
        Ok(Self {
            connection,
            flavour,
            probe_sql: format!("{}; {}", flavour.identity_sql(), flavour.replication_sql()),
            hidden: None,
            semi_sync: SemiSync::default(),
            slow_facts_due: Instant::now(),
        })
    }

    async fn report(&mut self, limit: Duration) -> Result<Report, ProbeError> {
        if self.slow_facts_due <= Instant::now() {
            let answers = self.connection.results(SEMI_SYNC_SQL, limit).await?;
            self.semi_sync = self.flavour.semi_sync(&answers);
            self.hidden = None;
            self.slow_facts_due = Instant::now() + SLOW_FACTS_EVERY;
        }
        let answers = match &self.hidden {
            None => self.connection.results(&self.probe_sql, limit).await,
            Some(_) => self.connection.results(self.flavour.identity_sql(), limit).await,
        };
        let answers = match answers {
            // One of the two statements was refused: if the first is answered alone, it was the second.
            Err(ConnectionError::Server { code, message }) if self.hidden.is_none() => {
                self.hidden = Some((code, message));
                self.connection.results(self.flavour.identity_sql(), limit).await
            }
            answers => answers,
        }?;
        let identity = answers.first().and_then(|rows| rows.first()).ok_or(ProbeError::NoAnswer)?;
        let channels = answers.get(1).map(Vec::as_slice);
        let mut report = self.flavour.report(identity, channels)?;
        report.semi_sync = self.semi_sync;
        if let Some((code, message)) = &self.hidden {
            report.replication = Replication::Hidden {
                code: *code,
                message: format!("{message} (GRANT {} ON *.*)", self.flavour.monitor_grant()),
            };
        }
        Ok(report)
    }
}

/// Why a probe brought no report.
#[derive(Debug, thiserror::Error)]
enum ProbeError {
    #[error(transparent)]
    Connection(#[from] ConnectionError),
    #[error("expected one row about the server, got none")]
    NoAnswer,
    #[error(transparent)]
    Position(#[from] pointsman_router::gtid::GtidError),
}
