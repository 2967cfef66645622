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

/// See [`Monitor::limit`].
const LIMIT: Duration = Duration::from_secs(2);
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
        let (mut subject, mut took) = (None, Took::default());
        let mut hurry = self.ways.hurry.clone();
        while !self.ways.observations.is_closed() {
            let started = Instant::now();
            let pause = self.probe(&mut subject, &mut took).await;
            tokio::select! {
                () = sleep_until(started + pause) => {}
                () = died.notified() => {}
                Ok(()) = hurry.changed() => {}
            }
        }
    }

    /// Asks once and reports; answers how long after the start of this probe the next one is due.
    async fn probe(&self, subject: &mut Option<Subject>, recent: &mut Took) -> Duration {
        let asked = self.ways.clock.now();
        let answered = Notify::new();
        let mut asking = pin!(self.ask(subject, &answered));
        let (mut since, mut silences, mut told) = (Instant::now(), 0, 0);
        let outcome = loop {
            tokio::select! {
                biased;
                outcome = &mut asking => break outcome,
                () = answered.notified() => {
                    recent.note(since.elapsed());
                    (since, silences) = (Instant::now(), 0);
                }
                () = sleep_until(since + self.silent_after(silences, recent)) => {
                    silences += 1;
                    // What was told of an earlier question of this probe is not told again.
                    if silences > told {
                        told = silences;
                        self.tell(asked, News::Silence).await;
                    }
                }
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
            recent.note(since.elapsed());
        }
        let rejected = matches!(news, News::Rejected { .. });
        self.tell(asked, news).await;
        if rejected { REJECTED_PAUSE } else { self.ways.settings.interval }
    }

    /// When one more silence is counted, after `silences` of them.
    fn silent_after(&self, silences: u32, recent: &Took) -> Duration {
        let settings = &self.ways.settings;
        silent_after(silences, settings.timeout / settings.failures.max(1), recent.always())
    }

    /// How long a step of logging in, and one answer, are waited for. Silence counts from much earlier on; this only bounds
    /// how long a half-open connection is held to be of use.
    fn limit(&self) -> Duration {
        LIMIT.max(self.ways.settings.timeout)
    }

    async fn tell(&self, asked: Duration, news: News) {
        let noticed = self.ways.clock.now();
        // A closed channel means that the process ends.
        drop(self.ways.observations.send(Observation { server: self.server, asked, noticed, news }).await);
    }

    /// Asks over the connection at hand; when that has just ended, over a new one.
    async fn ask(&self, subject: &mut Option<Subject>, answered: &Notify) -> Result<Report, ProbeError> {
        if let Some(known) = subject {
            match known.report_by_steps(self.limit(), answered).await {
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
        let fresh = subject
            .insert(Subject::meet_by_steps(&self.ways.account, &self.address, self.limit(), answered).await?);
        fresh.report_by_steps(self.limit(), answered).await
    }

    /// Holds a connection that does nothing, and says when it ends before its time.
    ///
    /// A statement must run on it: the driver notices the end of a connection only while it waits for an answer.
    async fn hold(self, died: Arc<Notify>) {
        let sleep_sql =
            format!("DO /* pointsman holds this connection to see its end */ SLEEP({HELD_SLEEP_SECONDS})");
        let limit = Duration::from_secs(HELD_SLEEP_SECONDS) + LIMIT;
        loop {
            if let Ok(mut held) = self.ways.account.connect(&self.address, LIMIT).await {
                while held.run(&sleep_sql, limit).await.is_ok() {}
                died.notify_one();
            }
            sleep(REJECTED_PAUSE).await;
        }
    }
}

/// The first silence waits for what answers always take, and half as much again; the others follow each `share`.
fn silent_after(silences: u32, share: Duration, always: Duration) -> Duration {
    share.max(always * 3 / 2) + share * silences
}

/// How long the last answers took, each to one question.
#[derive(Clone, Copy, Debug, Default)]
struct Took([Duration; 4]);

impl Took {
    fn note(&mut self, took: Duration) {
        self.0.rotate_left(1);
        self.0[3] = took;
    }

    /// What every one of them took at least: the way is long or the server busy, which one slow answer does not tell.
    fn always(&self) -> Duration {
        self.0.into_iter().min().unwrap_or_default().min(ALWAYS_LIMIT)
    }
}

/// However slow a server is, it is missed soon after half as much again.
const ALWAYS_LIMIT: Duration = Duration::from_millis(600);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_begins_later_far_away() {
        let ms = Duration::from_millis;
        let check = |always, expected: [u64; 3]| {
            let counted = [0, 1, 2].map(|silences| silent_after(silences, ms(100), ms(always)));
            assert_eq!(counted, expected.map(ms), "{always}");
        };
        check(1, [100, 200, 300]);
        check(60, [100, 200, 300]);
        check(200, [300, 400, 500]);
        check(600, [900, 1000, 1100]);
    }

    #[test]
    fn only_what_all_answers_take_counts() {
        let ms = Duration::from_millis;
        let check = |answers: &[u64], expected| {
            let mut took = Took::default();
            answers.iter().for_each(|answer| took.note(ms(*answer)));
            assert_eq!(took.always(), ms(expected), "{answers:?}");
        };
        check(&[], 0);
        check(&[300, 300, 300], 0);
        check(&[2, 2, 2, 1900], 2);
        check(&[2, 210, 600, 205, 220], 205);
        check(&[1900, 1900, 1900, 1900], 600);
    }
}
