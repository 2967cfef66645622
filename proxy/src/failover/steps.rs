//! The steps of a promotion, a switchover and a rejoin on one server. All of them may be done twice.

use std::time::Duration;

use pointsman_router::discover::{Channel, EpochRow, Receiver, Replication, Report};
use pointsman_router::failover::{Outcome, Step, StepError};
use pointsman_router::gtid::GtidSet;
use pointsman_router::intent::Flavour;
use pointsman_router::topology::ServerId;
use tokio::time::{Instant, sleep};

use super::hand::Realm;
use super::words::{self, SemiSyncRole};
use super::{clients, fence, repoint};
use crate::cluster::connection::{ConnectionError, Record};
use crate::cluster::epoch;
use crate::cluster::subject::{ProbeError, Subject, UNKNOWN_VARIABLE};

/// One step at work on a server.
pub(super) struct Work<'a> {
    pub(super) realm: &'a Realm,
    pub(super) server: ServerId,
    pub(super) subject: &'a mut Subject,
    pub(super) deadline: Instant,
    /// A statement that changes something has been sent.
    pub(super) changed: bool,
}

/// Why a step failed.
#[derive(Debug)]
pub(super) struct StepFailure {
    pub(super) reason: String,
    /// Something may have been changed.
    pub(super) changed: bool,
    /// The connection is of no use any more.
    pub(super) lost: bool,
    /// See [`StepError::LacksOwn`].
    pub(super) lacks_own: bool,
}

impl StepFailure {
    /// Nothing was changed.
    pub(super) fn refused(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), changed: false, lost: false, lacks_own: false }
    }
}

impl From<StepFailure> for StepError {
    fn from(failure: StepFailure) -> Self {
        if failure.changed {
            Self::Unknown(failure.reason)
        } else if failure.lacks_own {
            Self::LacksOwn(failure.reason)
        } else {
            Self::NotDone(failure.reason)
        }
    }
}

impl Work<'_> {
    pub(super) async fn run(&mut self, step: &Step, epoch: u64) -> Result<Outcome, StepFailure> {
        let flavour = self.flavour();
        match step {
            Step::StartApplier => self.change(words::start_applier(flavour)).await?,
            Step::RemoveDelay => self.remove_delay().await?,
            Step::StopReceiver => {
                // Where there are many replicas they share what processors there are: no more is asked than is needed.
                let channels = self.channels().await?;
                self.stop_receiver(&channels).await?;
                // Whether it holds the row of the last epoch is part of the proof.
                self.subject.forget();
                return self.reported().await;
            }
            Step::ReadPosition => {
                self.subject.forget();
                return self.reported().await;
            }
            Step::WaitApplied { position } => return self.wait_applied(position).await,
            Step::Promote { lossless, wait_for } => {
                self.promote(*lossless, *wait_for).await?;
                return self.reported().await;
            }
            Step::WriteEpoch { epoch, primary } => self.write_epoch(*epoch, primary).await?,
            Step::SetWritable { lossless, wait_for, life } => {
                self.set_writable(*lossless, *wait_for, *life).await?;
            }
            Step::SetReadOnly { deadline } => {
                fence::set_read_only(self, *deadline).await?;
                if flavour == Flavour::Mariadb {
                    clients::end_and_wait(self).await?;
                }
                return self.reported().await;
            }
            Step::Repoint { source, acker } => {
                repoint::repoint(self, *source, *acker).await?;
                return self.reported().await;
            }
            Step::StartReplication => self.change(words::start_replication(flavour)).await?,
            Step::Fence => fence::fence(self, epoch).await?,
        }
        Ok(Outcome::Done)
    }

    pub(super) fn flavour(&self) -> Flavour {
        self.subject.flavour.flavour()
    }

    pub(super) fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// Runs a statement that changes something.
    pub(super) async fn change(&mut self, sql: &str) -> Result<(), StepFailure> {
        let limit = self.left();
        match self.subject.connection.run(sql, limit).await {
            Ok(()) => {
                self.changed = true;
                Ok(())
            }
            Err(error) => Err(self.failed(error, true)),
        }
    }

    /// Runs statements in one round trip: writes wait meanwhile. After an error the first of them may have been done.
    pub(super) async fn change_all(&mut self, statements: &[String]) -> Result<(), StepFailure> {
        let limit = self.left();
        let done = self.subject.connection.results(&statements.join("; "), limit).await;
        self.changed = true;
        done.map(drop).map_err(|error| self.failed(error, true))
    }

    /// Runs a statement that only asks.
    pub(super) async fn ask(&mut self, sql: &str) -> Result<Vec<Record>, StepFailure> {
        let limit = self.left();
        let rows = self.subject.connection.rows(sql, limit).await;
        rows.map_err(|error| self.failed(error, false))
    }

    /// The server's threads; as [`Flavour::life_sql`] of MariaDB, not by `information_schema`.
    pub(super) async fn threads(&mut self) -> Result<Vec<Record>, StepFailure> {
        self.ask("SHOW PROCESSLIST").await
    }

    /// The server as it is now. Later statements on this connection mean the channel that it names.
    pub(super) async fn report(&mut self) -> Result<Report, StepFailure> {
        let limit = self.left();
        let report = self.subject.report(limit).await;
        let mut report = report.map_err(|error| match error {
            ProbeError::Connection(error) => self.failed(error, false),
            ProbeError::NoAnswer | ProbeError::Position(_) => {
                let reason = error.to_string();
                StepFailure { reason, changed: self.changed, lost: true, lacks_own: false }
            }
        })?;
        if !self.subject.tells_lives() {
            // "As before": the number would be another one than the monitor's.
            report.incarnation = 0;
        }
        if let Replication::Hidden { message, .. } = &report.replication {
            return Err(self.stopped(format!("the replication status cannot be seen: {message}")));
        }
        self.name_channel(report.channels()).await?;
        Ok(report)
    }

    /// The replication status alone; as [`Work::report`] otherwise.
    async fn channels(&mut self) -> Result<Vec<Channel>, StepFailure> {
        let rows = self.ask(self.subject.flavour.replication_sql()).await?;
        let channels = self.subject.flavour.channels(&rows);
        let channels = channels.map_err(|error| self.stopped(error.to_string()))?;
        self.name_channel(&channels).await?;
        Ok(channels)
    }

    /// Later statements on this connection mean the one channel that there is.
    async fn name_channel(&mut self, channels: &[Channel]) -> Result<(), StepFailure> {
        if let [channel] = channels
            && self.flavour() == Flavour::Mariadb
            && !channel.name.is_empty()
        {
            let sql = format!("SET SESSION default_master_connection = {}", epoch::quote(&channel.name));
            self.ask(&sql).await?;
        }
        Ok(())
    }

    async fn reported(&mut self) -> Result<Outcome, StepFailure> {
        Ok(Outcome::Report(Box::new(self.report().await?)))
    }

    /// What an error of the connection means for the step.
    pub(super) fn failed(&self, error: ConnectionError, changes: bool) -> StepFailure {
        let answered = matches!(error, ConnectionError::Server { .. });
        StepFailure {
            reason: error.to_string(),
            changed: self.changed || (changes && !answered),
            lost: !answered,
            lacks_own: false,
        }
    }

    /// The step cannot go on for another reason.
    pub(super) fn stopped(&self, reason: impl Into<String>) -> StepFailure {
        StepFailure { reason: reason.into(), changed: self.changed, lost: false, lacks_own: false }
    }

    /// Stops receiving; a source that keeps silent must not hold that up.
    pub(super) async fn stop_receiver(&mut self, channels: &[Channel]) -> Result<(), StepFailure> {
        if channels.iter().all(|channel| channel.receiver == Receiver::Stopped) {
            return Ok(());
        }
        self.free_receiver(channels).await?;
        self.change(words::stop_receiver(self.flavour())).await
    }

    /// Makes sure that the receiver can be stopped at once.
    async fn free_receiver(&mut self, channels: &[Channel]) -> Result<(), StepFailure> {
        let running = channels.iter().find(|channel| channel.receiver != Receiver::Stopped);
        if let (Some(channel), Some(command)) = (running, words::receiver_to_kill(self.flavour()))
            && fence::is_silent(&channel.source_host, channel.source_port).await
        {
            self.cut_receiver(command).await?;
        }
        Ok(())
    }

    /// Measured: after one KILL the thread still waits two seconds for its source in one of four cases, after two
    /// with this pause in none.
    async fn cut_receiver(&mut self, command: &str) -> Result<(), StepFailure> {
        for pause in [KILL_PAUSE, Duration::ZERO] {
            let threads = self.threads().await?;
            let receivers = threads.iter().filter(|row| row.text_or_empty(&["Command"]) == command);
            self.kill(receivers.map(|row| row.text_or_empty(&["Id"])).collect()).await?;
            sleep(pause).await;
        }
        Ok(())
    }

    /// `KILL` of each of these.
    pub(super) async fn kill(&mut self, targets: Vec<String>) -> Result<(), StepFailure> {
        for target in targets {
            match self.change(&format!("KILL {target}")).await {
                // It has ended meanwhile.
                Err(failure) if !failure.lost => {}
                outcome => outcome?,
            }
        }
        Ok(())
    }

    /// Makes sure that the applier can be stopped at once: the rest of a transaction that it has begun may never come.
    pub(super) async fn free_applier(&mut self, report: &Report) -> Result<(), StepFailure> {
        let receives = report.channels().iter().any(|channel| channel.receiver != Receiver::Stopped);
        let Some(thread_sql) = words::applier_amid_transaction(self.flavour()) else { return Ok(()) };
        if receives || has_unapplied(report) {
            return Ok(());
        }
        let appliers = match self.ask(thread_sql).await {
            // Where it may not look, it has to wait.
            Err(failure) if !failure.lost => return Ok(()),
            rows => rows?,
        };
        self.kill(appliers.iter().filter_map(|row| row.at(0)).collect()).await
    }

    async fn remove_delay(&mut self) -> Result<(), StepFailure> {
        let report = self.report().await?;
        if report.channels().iter().all(|channel| channel.delay.is_zero()) {
            return Ok(());
        }
        let flavour = self.flavour();
        let stop = match flavour {
            // It changes nothing while it receives (error 1198), and a receiver that starts again throws away what
            // is not applied, which nobody may be there to send again.
            Flavour::Mariadb if has_unapplied(&report) => {
                let reason = "MariaDB changes a delay only while it does not receive, and would throw away what it \
                              has received and not applied";
                return Err(StepFailure::refused(reason));
            }
            Flavour::Mariadb => words::stop_replication(flavour),
            Flavour::Mysql => words::stop_applier(flavour),
        };
        self.change(stop).await?;
        let changed = self.change(words::without_delay(flavour)).await;
        // Whatever came of it: a stopped applier would be worse than a slow one.
        self.change(words::start_replication(flavour)).await?;
        changed
    }

    async fn wait_applied(&mut self, position: &GtidSet) -> Result<Outcome, StepFailure> {
        let mut slice = FIRST_WAIT;
        loop {
            let limit = slice.min(self.left());
            let sql = words::wait_applied(self.flavour(), position, limit);
            let answer = self.subject.connection.rows(&sql, limit + WAIT_GRACE).await;
            let rows = answer.map_err(|error| self.failed(error, false))?;
            let reached = rows.first().and_then(|row| row.at(0)).is_some_and(|value| value == "0");
            let report = self.report().await?;
            if reached || report.applied.contains(position) {
                return Ok(Outcome::Report(Box::new(report)));
            }
            if let Some(channel) = report.channels().iter().find(|channel| !channel.applies) {
                return Err(self.stopped(applier_stopped(channel)));
            }
            if self.has_applied_all(&report, slice).await? {
                // The rest of a transaction that will never be complete, so nobody has been told that it is safe.
                let mut report = self.report().await?;
                let applied = report.applied.clone();
                if let Replication::Channels(channels) = &mut report.replication {
                    channels.iter_mut().for_each(|channel| channel.received = applied.clone());
                }
                return Ok(Outcome::Report(Box::new(report)));
            }
            if self.left().is_zero() {
                return Err(self.stopped(format!("has not applied {position} in time")));
            }
            slice = NEXT_WAIT;
        }
    }

    /// Nothing comes any more, and all that has come whole is applied. MySQL speaks only of what is whole.
    async fn has_applied_all(&mut self, report: &Report, waited: Duration) -> Result<bool, StepFailure> {
        let receives = report.channels().iter().any(|channel| channel.receiver != Receiver::Stopped);
        if receives || self.flavour() == Flavour::Mysql {
            return Ok(false);
        }
        let rows = self.ask(self.subject.flavour.replication_sql()).await?;
        for row in &rows {
            let file = row.text_or_empty(&["Relay_Log_File"]);
            let rest = words::relay_log_rest(&file, row.number(&["Relay_Log_Pos"]).unwrap_or_default());
            let events = match self.ask(&rest).await {
                // It may not look, or the file is another one by now.
                Err(failure) if !failure.lost => Vec::new(),
                events => events?,
            };
            let events: Vec<_> = events
                .iter()
                .map(|event| (event.text_or_empty(&["Event_type"]), event.text_or_empty(&["Info"])))
                .collect();
            // An applier that was woken and has not run yet looks idle, too.
            let rests = waited > FIRST_WAIT && words::is_idle(&row.text_or_empty(&[words::APPLIER_STATE]));
            if !words::is_cut_off(&events) && !rests || !self.workers_rest().await? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The applier hands on to its workers, and is idle before they are.
    async fn workers_rest(&mut self) -> Result<bool, StepFailure> {
        let threads = self.threads().await?;
        let mut workers = threads.iter().filter(|row| row.text_or_empty(&["Command"]) == "Slave_worker");
        Ok(workers.all(|row| row.text_or_empty(&["State"]) == words::WORKER_RESTS))
    }

    async fn promote(&mut self, lossless: bool, wait_for: u32) -> Result<(), StepFailure> {
        let flavour = self.flavour();
        let report = self.report().await?;
        if report.channels().len() > 1 {
            return Err(self.stopped("replicates over several channels: only one can be given up by itself"));
        }
        let mut statements = Vec::new();
        if report.replicates() {
            self.free_receiver(report.channels()).await?;
            self.free_applier(&report).await?;
            statements
                .extend([words::stop_replication(flavour), words::forget_source(flavour)].map(str::to_owned));
        }
        if lossless {
            statements.extend(words::take_role(flavour, SemiSyncRole::Source { wait_for }));
            self.subject.forget();
        } else {
            self.take_role(SemiSyncRole::None).await?;
        }
        // A replica finds its place by reading the file from its start: a short file is found in no time.
        statements.push("FLUSH BINARY LOGS".to_owned());
        self.change_all(&statements).await
    }

    async fn set_writable(&mut self, lossless: bool, wait_for: u32, life: u64) -> Result<(), StepFailure> {
        let report = self.report().await?;
        if life != 0 && report.incarnation != 0 && report.incarnation != life {
            return Err(self.stopped("has restarted since it was promoted"));
        }
        if report.replicates() {
            return Err(self.stopped("replicates from another server"));
        }
        // Somebody may have undone it, or a restart that could not be told.
        if lossless && !report.semi_sync.source {
            self.take_role(SemiSyncRole::Source { wait_for }).await?;
        }
        self.change(words::writable(self.flavour())).await
    }

    /// A server without semi-synchronous replication needs no role to be without one.
    pub(super) async fn take_role(&mut self, role: SemiSyncRole) -> Result<(), StepFailure> {
        self.subject.forget();
        for statement in words::take_role(self.flavour(), role) {
            let limit = self.left();
            match self.subject.connection.run(&statement, limit).await {
                Ok(()) => self.changed = true,
                Err(ConnectionError::Server { code: UNKNOWN_VARIABLE, .. }) if role == SemiSyncRole::None => {
                }
                Err(error) => return Err(self.failed(error, true)),
            }
        }
        Ok(())
    }

    async fn write_epoch(&mut self, epoch: u64, primary: &str) -> Result<(), StepFailure> {
        if let Some(sql) = words::writable_for_us(self.flavour()) {
            self.change(sql).await?;
        }
        let row = EpochRow { epoch, primary: primary.to_owned() };
        let limit = self.left();
        let written = epoch::write(&mut self.subject.connection, &row, limit).await;
        written.map_err(|error| self.failed(error, true))
    }
}

fn has_unapplied(report: &Report) -> bool {
    report.channels().iter().any(|channel| !report.executed.contains(&channel.received))
}

fn applier_stopped(channel: &Channel) -> String {
    let error = &channel.applier_error;
    format!("its applying (SQL) thread is stopped: error {}: {}", error.code, error.message)
}

const KILL_PAUSE: Duration = Duration::from_millis(50);
/// After this a transaction that will never be complete is looked for.
const FIRST_WAIT: Duration = Duration::from_millis(10);
const NEXT_WAIT: Duration = Duration::from_millis(500);
/// What an answer may take beyond the time that the server itself was given.
const WAIT_GRACE: Duration = Duration::from_millis(500);
