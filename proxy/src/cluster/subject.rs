//! A server as one held connection knows it: who it is, and how to ask what it does.

use std::time::Duration;

use pointsman_router::discover::{EpochRow, Replication, Report, SemiSync};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::connection::{ConnectionError, Record, ServiceAccount, ServiceConnection};
use super::epoch;
use super::flavour::{self, Flavour, SEMI_SYNC_SQL, START_SQL, VERSION_SQL};

/// ER_UNKNOWN_SYSTEM_VARIABLE.
pub(crate) const UNKNOWN_VARIABLE: u16 = 1193;
/// How often slowly changing facts are asked for.
const SLOW_FACTS_EVERY: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Debug)]
pub(crate) struct Subject {
    pub(crate) connection: ServiceConnection,
    pub(crate) flavour: &'static dyn Flavour,
    /// How much of the question the service account may ask.
    depth: Depth,
    /// When the server was started, once it has been told: a restart ends the connection.
    started: Option<u64>,
    semi_sync: SemiSync,
    /// The server knows the flavour's names of semi-synchronous replication.
    knows_names: bool,
    epoch: Option<EpochRow>,
    slow_facts_due: Instant,
    /// Differs between any two connections of any process.
    serial: u64,
}

/// See [`Subject::depth`].
#[derive(Clone, Debug, PartialEq, Eq)]
enum Depth {
    All,
    /// Not the threads and heartbeats.
    NoLife,
    /// Not the replication status either, and why.
    Identity {
        code: u16,
        message: String,
    },
}

impl Subject {
    /// Logs in and asks for the flavour; `limit` bounds each of the two.
    pub(crate) async fn meet(
        account: &ServiceAccount,
        address: &str,
        limit: Duration,
    ) -> Result<Self, ProbeError> {
        Self::meet_by_steps(account, address, limit, &Notify::new()).await
    }

    /// As [`Subject::meet`], and says each time that a step has been answered.
    pub(super) async fn meet_by_steps(
        account: &ServiceAccount,
        address: &str,
        limit: Duration,
        answered: &Notify,
    ) -> Result<Self, ProbeError> {
        let mut connection = account.connect(address, limit).await?;
        answered.notify_one();
        let version = connection.rows(VERSION_SQL, limit).await?;
        answered.notify_one();
        let flavour = flavour::of(version.first().ok_or(ProbeError::NoAnswer)?);
        Ok(Self {
            connection,
            flavour,
            depth: Depth::All,
            started: None,
            semi_sync: SemiSync::default(),
            knows_names: true,
            epoch: None,
            slow_facts_due: Instant::now(),
            serial: rand::random::<u64>() | 1,
        })
    }

    /// Asks for everything; semi-synchronous replication and the epoch are up to a second old.
    pub(crate) async fn report(&mut self, limit: Duration) -> Result<Report, ProbeError> {
        self.report_by_steps(limit, &Notify::new()).await
    }

    /// As [`Subject::report`], and says each time that one of several questions has been answered.
    pub(super) async fn report_by_steps(
        &mut self,
        limit: Duration,
        answered: &Notify,
    ) -> Result<Report, ProbeError> {
        if self.slow_facts_due <= Instant::now() {
            self.read_slow_facts(limit, answered).await?;
        }
        let answers = self.ask(limit, answered).await?;
        let identity = answers.first().and_then(|rows| rows.first()).ok_or(ProbeError::NoAnswer)?;
        let channels = answers.get(1).map(Vec::as_slice);
        let mut report = self.flavour.report(identity, channels)?;
        report.semi_sync = self.semi_sync;
        report.epoch = self.epoch.clone();
        if let Depth::Identity { code, message } = &self.depth {
            report.replication = Replication::Hidden {
                code: *code,
                message: format!("{message} (GRANT {} ON *.*)", self.flavour.monitor_grant()),
            };
        }
        match self.depth {
            Depth::All => {
                let applier = self.flavour.add_life(answers.get(2).ok_or(ProbeError::NoAnswer)?, &mut report);
                self.started =
                    self.started.or_else(|| flavour::started(answers.get(3..).unwrap_or_default()));
                // 0, "as before", where it cannot be told yet.
                report.incarnation = self.started.map_or(0, |started| flavour::incarnation(started, applier));
            }
            // Nobody can tell lives apart: each connection is taken for one of its own, which is safe.
            Depth::NoLife | Depth::Identity { .. } => report.incarnation = self.serial,
        }
        Ok(report)
    }

    /// Whether the reports' incarnations are the same as on any other connection.
    pub(crate) fn tells_lives(&self) -> bool {
        self.depth == Depth::All
    }

    /// Makes the next report ask for everything anew.
    pub(crate) fn forget(&mut self) {
        self.slow_facts_due = Instant::now();
    }

    async fn read_slow_facts(&mut self, limit: Duration, answered: &Notify) -> Result<(), ProbeError> {
        self.semi_sync = flavour::semi_sync(&self.ask_semi_sync(limit).await?);
        answered.notify_one();
        self.epoch = epoch::newest(&mut self.connection, limit).await?;
        answered.notify_one();
        self.depth = Depth::All;
        self.slow_facts_due = Instant::now() + SLOW_FACTS_EVERY;
        Ok(())
    }

    async fn ask_semi_sync(&mut self, limit: Duration) -> Result<Vec<Vec<Record>>, ConnectionError> {
        if self.knows_names {
            match self.connection.results(self.flavour.semi_sync_sql(), limit).await {
                Err(ConnectionError::Server { code: UNKNOWN_VARIABLE, .. }) => self.knows_names = false,
                answers => return answers,
            }
        }
        self.connection.results(SEMI_SYNC_SQL, limit).await
    }

    /// Asks as much as the server answers. Of several statements one may have been refused: if the rest is answered,
    /// it was that one.
    async fn ask(&mut self, limit: Duration, answered: &Notify) -> Result<Vec<Vec<Record>>, ConnectionError> {
        loop {
            let (identity, replication) = (self.flavour.identity_sql(), self.flavour.replication_sql());
            let (sql, next) = match &self.depth {
                Depth::All => {
                    let life = self.flavour.life_sql();
                    let mut sql = format!("{identity}; {replication}; {life}");
                    if self.started.is_none() {
                        sql = format!("{sql}; {}", START_SQL);
                    }
                    (sql, Some(Depth::NoLife))
                }
                Depth::NoLife => (format!("{identity}; {replication}"), None),
                Depth::Identity { .. } => {
                    return self.connection.results(identity, limit).await;
                }
            };
            let asked = self.connection.results(&sql, limit).await;
            answered.notify_one();
            match (asked, next) {
                (Err(ConnectionError::Server { .. }), Some(next)) => self.depth = next,
                (Err(ConnectionError::Server { code, message }), None) => {
                    self.depth = Depth::Identity { code, message };
                }
                (answers, _) => return answers,
            }
        }
    }
}

/// Why a probe brought no report.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProbeError {
    #[error(transparent)]
    Connection(#[from] ConnectionError),
    #[error("expected one row about the server, got none")]
    NoAnswer,
    #[error(transparent)]
    Position(#[from] pointsman_router::gtid::GtidError),
}
