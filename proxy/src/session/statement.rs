//! One statement from its decision to its answer: route, borrow, run, and again elsewhere where that is safe.

use std::time::{Duration, Instant};

use pointsman_router::intent::{Action, Consistency, Effects, Hint, Kind};
use pointsman_router::route::{self, Asked, Decision, Refusal, Wait};
use pointsman_router::topology::{ServerId, Topology};

use super::checkout::AcquireError;
use super::command::{Job, PreparedUse};
use super::execute::Failure;
use super::prepared::Readiness;
use super::replay::Lost;
use super::{Session, kill};
use crate::backend::connection::ServerConnection;
use crate::backend::inject;
use crate::error::{ClientError, SessionError};
use crate::net::ListenerKind;

/// What a statement has tried so far.
#[derive(Debug)]
pub(super) struct Attempts {
    excluded: Vec<ServerId>,
    /// When the time for holding it is over; none while it has not been held.
    hold_until: Option<Instant>,
    wait_failed: bool,
    /// It was held at least once.
    held: bool,
    /// What came of asking the primary for its position.
    asked: Asked,
    /// The last word of a server or of the pool, told when nothing better comes.
    last_error: Option<ClientError>,
}

impl Attempts {
    pub(super) fn new(session: &Session) -> Self {
        Self {
            excluded: session.left_out.clone(),
            hold_until: None,
            wait_failed: false,
            held: false,
            asked: Asked::No,
            last_error: None,
        }
    }

    /// How long the statement may still be held, of `timeout` in all from its first hold.
    pub(super) fn hold_left(&mut self, timeout: Duration) -> Duration {
        let now = Instant::now();
        self.hold_until.get_or_insert_with(|| now + timeout).saturating_duration_since(now)
    }
}

impl Session {
    /// A text query: what Pointsman answers itself, or a job for a server.
    pub(super) async fn query(&mut self, mut job: Job) -> Result<(), SessionError> {
        if let Some(answered) = self.answer_here(&job).await? {
            return Ok(answered);
        }
        self.substitute(&mut job);
        self.run_job(job).await
    }

    /// Statements that are for Pointsman and not for a server.
    async fn answer_here(&mut self, job: &Job) -> Result<Option<()>, SessionError> {
        match own_answer(job) {
            Some(Own::Kill { id, query_only }) => self.kill(id, query_only, job.len).await.map(Some),
            Some(Own::RefuseConsistency(value)) => {
                let text = format!(
                    "Variable 'pointsman_consistency' can't be set to the value of '{value}'; \
                     expected session, eventual, global or DEFAULT"
                );
                let error = ClientError::new(ER_WRONG_VALUE_FOR_VAR, b"42000", text);
                self.finish_unsent(&error, job).await.map(Some)
            }
            Some(Own::SetConsistency(wanted)) => {
                self.state.set_consistency(wanted);
                self.consume(job.len);
                self.answer_ok().await.map(Some)
            }
            None => Ok(None),
        }
    }

    /// Runs a job on the server that it belongs on and relays the answer.
    pub(super) async fn run_job(&mut self, mut job: Job) -> Result<(), SessionError> {
        let mut attempts = Attempts::new(self);
        loop {
            let topology = self.worker.topology();
            match self.decide(&job, &topology, &attempts) {
                Decision::Pinned => return self.run_pinned(&mut job).await,
                Decision::Primary { .. } => {
                    let primary = topology.primary.unwrap_or(ServerId(u16::MAX));
                    if self.try_on(primary, None, &topology, &mut job, &mut attempts).await? {
                        return Ok(());
                    }
                }
                Decision::Replica { id, wait, .. } => {
                    if self.try_on(id, wait, &topology, &mut job, &mut attempts).await? {
                        return Ok(());
                    }
                }
                Decision::Hold { reason } => {
                    if !self.hold(&reason, &mut attempts, &job).await? {
                        return self.refuse_unheld(&reason, &attempts, &job).await;
                    }
                }
                Decision::LeaveReplica { .. } => self.leave_replica(),
                Decision::AskPosition { .. } => attempts.asked = self.ask_position().await,
                Decision::Refuse(refusal) => return self.refuse(&refusal, &attempts, &job).await,
            }
        }
    }

    pub(super) fn decide(&self, job: &Job, topology: &Topology, attempts: &Attempts) -> Decision {
        if let Some(server) = self.where_previous_ran(job, attempts) {
            return Decision::Replica {
                id: server,
                wait: None,
                reason: "follows the previous statement".into(),
            };
        }
        let settings = self.worker.settings();
        let request = route::Request {
            intent: &job.intent,
            session: &self.state,
            consistency: self.consistency(job),
            asked: attempts.asked,
            pinned: self.held.as_ref().map(|held| held.server),
            pinned_is_lost: self
                .held
                .as_ref()
                .is_some_and(|held| self.worker.shared.fences.stops(held.server, held.epoch)),
            will_pin: job.will_pin,
            may_wait: !attempts.wait_failed,
            excluded: &attempts.excluded,
            listener_read_only: self.listener == ListenerKind::ReadOnly,
            stopped_by_read_only: self.login.account.stopped_by_read_only,
            user: &self.login.user,
            digest: job.digest.0,
            rules: &self.worker.rules,
            routing: &settings.routing,
            lag: &settings.lag,
        };
        let mut balancer = self.worker.balancer.borrow_mut();
        route::route(&request, topology, &mut balancer, self.worker.now(), self.worker.random())
    }

    /// Gives up a READ ONLY transaction, or whatever else lies on a connection to a replica.
    fn leave_replica(&mut self) {
        // Closing rolls back, and takes everything else along.
        self.held = None;
        self.slot.holds.set(None);
        self.state.connection_is_gone();
    }

    /// Asks what the primary has committed by now.
    async fn ask_position(&mut self) -> Asked {
        match self.worker.shared.ask_position().await {
            Some(position) => {
                self.state.floor_is_asked(&position);
                Asked::Answered
            }
            None => Asked::Failed,
        }
    }

    /// The server whose idle connection still holds what the job asks about.
    fn where_previous_ran(&self, job: &Job, attempts: &Attempts) -> Option<ServerId> {
        let server = self.last_server.filter(|server| !attempts.excluded.contains(server))?;
        let asks = job.intent.asks_back() && self.held.is_none();
        (asks && self.diagnostics_are_at_hand()).then_some(server)
    }

    pub(super) fn consistency(&self, job: &Job) -> Consistency {
        let hinted = match job.intent.hint {
            Some(Hint::Consistency(wanted)) => Some(wanted),
            Some(Hint::Primary | Hint::Replica) | None => None,
        };
        hinted
            .or(self.state.consistency())
            .or(self.login.account.consistency)
            .or(self.listener_settings().consistency)
            .unwrap_or_else(|| self.worker.settings().routing.consistency)
    }

    fn listener_settings(&self) -> &pointsman_config::Listener {
        let listen = &self.worker.shared.config.listen;
        match self.listener {
            ListenerKind::ReadWrite => &listen.rw,
            ListenerKind::ReadOnly => &listen.ro,
        }
    }

    /// Runs a job on the connection that the session holds, or on the one to which its transaction had to move.
    pub(super) async fn run_pinned(&mut self, job: &mut Job) -> Result<(), SessionError> {
        while let Some(lost) = self.try_pinned(job).await? {
            if !Box::pin(self.move_transaction(job, lost)).await? {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Answers what was lost instead, if that is only the open transaction.
    async fn try_pinned(&mut self, job: &mut Job) -> Result<Option<Lost>, SessionError> {
        let Some(mut connection) = self.held.take() else {
            let source = std::io::Error::from(std::io::ErrorKind::NotConnected);
            return Err(SessionError::StateLost { server: ServerId(0), source });
        };
        let server = connection.server;
        let lost = |source| SessionError::StateLost { server, source };
        if self.carry_insert_id(&mut connection, job.needs()).await.is_err() {
            return Err(lost(std::io::ErrorKind::ConnectionAborted.into()));
        }
        match self.is_prepared_for(&mut connection, job).await.map_err(lost)? {
            Readiness::Ready => {}
            Readiness::NoStatement => {
                self.held = Some(connection);
                return self.answer_unknown_statement(job).await.map(|()| None);
            }
            Readiness::Refused(error) => {
                self.held = Some(connection);
                return self.finish_unsent(&error, job).await.map(|()| None);
            }
        }
        match self.attempt(job, connection, false).await {
            Ok(()) => Ok(None),
            Err(Failure::Session(error)) => Err(error),
            Err(Failure::Elsewhere { error, .. }) => Err(lost(error)),
            Err(Failure::TransactionLost(lost)) => Ok(Some(lost)),
        }
    }

    /// The connection on which a statement will be executed whose data comes first.
    pub(super) async fn long_data_connection(
        &mut self,
        job: &mut Job,
    ) -> Result<Box<ServerConnection>, ClientError> {
        let topology = self.worker.topology();
        let attempts = Attempts::new(self);
        let lost = || ClientError::new(ER_NET_READ_ERROR, b"08S01", "Server connection lost");
        let mut connection = match self.decide(job, &topology, &attempts) {
            Decision::Pinned => self.held.take().ok_or_else(lost)?,
            Decision::Primary { .. }
            | Decision::Hold { .. }
            | Decision::LeaveReplica { .. }
            | Decision::AskPosition { .. } => {
                let primary = topology.primary.ok_or_else(|| no_primary(&topology, "no primary"))?;
                self.acquire(primary, &topology, job.needs()).await.map_err(|error| error.told())?
            }
            Decision::Replica { id, .. } => {
                self.acquire(id, &topology, job.needs()).await.map_err(|error| error.told())?
            }
            Decision::Refuse(refusal) => return Err(told(&refusal)),
        };
        match self.is_prepared_for(&mut connection, job).await {
            Ok(Readiness::Ready) => Ok(connection),
            Ok(Readiness::NoStatement) | Err(_) => Err(lost()),
            Ok(Readiness::Refused(error)) => Err(error),
        }
    }

    /// Runs the job on one server; false when it should be routed again.
    async fn try_on(
        &mut self,
        server: ServerId,
        wait: Option<Wait>,
        topology: &Topology,
        job: &mut Job,
        attempts: &mut Attempts,
    ) -> Result<bool, SessionError> {
        let is_primary = topology.primary == Some(server);
        let mut connection = match self.acquire(server, topology, job.needs()).await {
            Ok(connection) => connection,
            Err(error) => return self.not_acquired(error, server, is_primary, job, attempts).await,
        };
        if let Some(wait) = wait
            && !self.wait_for_position(&mut connection, &wait).await
        {
            self.worker.counters.failed_position_waits.one();
            attempts.wait_failed = true;
            attempts.excluded.push(server);
            return Ok(false);
        }
        match self.is_prepared_for(&mut connection, job).await {
            Ok(Readiness::Ready) => {}
            Ok(Readiness::NoStatement) => {
                self.release(connection);
                return self.answer_unknown_statement(job).await.map(|()| true);
            }
            Ok(Readiness::Refused(error)) => {
                self.release(connection);
                return self
                    .not_acquired(AcquireError::Refused(error), server, is_primary, job, attempts)
                    .await;
            }
            Err(error) => {
                tracing::debug!(%error, "preparing again failed");
                return self.unreachable(server, is_primary, job, attempts).await;
            }
        }
        match self.attempt(job, connection, !is_primary).await {
            Ok(()) => Ok(true),
            Err(Failure::Session(error)) => Err(error),
            Err(Failure::TransactionLost(lost)) => Err(lost.error),
            Err(Failure::Elsewhere { refused, .. }) => {
                if job.is_repeatable() {
                    self.worker.counters.rerun_reads.one();
                }
                attempts.last_error = refused.or(attempts.last_error.take());
                self.unreachable(server, is_primary, job, attempts).await
            }
        }
    }

    async fn not_acquired(
        &mut self,
        error: AcquireError,
        server: ServerId,
        is_primary: bool,
        job: &Job,
        attempts: &mut Attempts,
    ) -> Result<bool, SessionError> {
        match error {
            AcquireError::Unreachable(error) => {
                tracing::debug!(%error, "no connection");
                self.unreachable(server, is_primary, job, attempts).await
            }
            AcquireError::Refused(error) if is_primary => {
                if error.code == ER_BAD_DB && self.state.schema().is_some() {
                    // The schema was dropped: one server would leave the session without any.
                    self.state.schema_is_gone();
                    return Ok(false);
                }
                self.finish_unsent(&error, job).await.map(|()| true)
            }
            AcquireError::Refused(error) => {
                attempts.last_error = Some(error);
                attempts.excluded.push(server);
                Ok(false)
            }
            AcquireError::PoolTimeout => self.finish_unsent(&error.told(), job).await.map(|()| true),
        }
    }

    /// After a server could not be used: a read looks elsewhere, a write waits for news of the primary.
    async fn unreachable(
        &mut self,
        server: ServerId,
        is_primary: bool,
        job: &Job,
        attempts: &mut Attempts,
    ) -> Result<bool, SessionError> {
        if !is_primary {
            attempts.excluded.push(server);
        } else if !self.hold("the primary cannot be reached", attempts, job).await? {
            self.refuse_unheld("the primary cannot be reached", attempts, job).await?;
            return Ok(true);
        }
        Ok(false)
    }

    /// Waits for a change of the topology; false when the time for holding is over.
    pub(super) async fn hold(
        &mut self,
        reason: &str,
        attempts: &mut Attempts,
        job: &Job,
    ) -> Result<bool, SessionError> {
        let left = attempts.hold_left(self.worker.settings().routing.hold_timeout);
        if left.is_zero() {
            return Ok(false);
        }
        if !std::mem::replace(&mut attempts.held, true) {
            self.worker.counters.held_statements.one();
            tracing::debug!(session = self.slot.id, reason, kind = job.intent.kind.name(), "statement held");
        }
        let mut topology = self.worker.shared.topology.clone();
        topology.borrow_and_update();
        let pause = left.min(HOLD_POLL);
        // Either way the statement is routed again; nothing is lost by a missed change.
        drop(tokio::time::timeout(pause, topology.changed()).await);
        self.end_if_ordered()?;
        Ok(true)
    }

    fn end_if_ordered(&self) -> Result<(), SessionError> {
        use crate::worker::Order;
        match self.slot.order.get() {
            order @ (Order::Kill | Order::Stop) => Err(SessionError::Ordered(order)),
            Order::None | Order::Drain | Order::IdleTimeout => Ok(()),
        }
    }

    async fn refuse_unheld(
        &mut self,
        reason: &str,
        attempts: &Attempts,
        job: &Job,
    ) -> Result<(), SessionError> {
        if let Some(error) = attempts.last_error.clone() {
            return self.finish_unsent(&error, job).await;
        }
        let topology = self.worker.topology();
        self.finish_unsent(&no_primary(&topology, reason), job).await
    }

    async fn refuse(
        &mut self,
        refusal: &Refusal,
        attempts: &Attempts,
        job: &Job,
    ) -> Result<(), SessionError> {
        let error = attempts.last_error.clone().unwrap_or_else(|| told(refusal));
        self.finish_unsent(&error, job).await
    }

    /// Answers a statement of which nothing reached a server.
    pub(super) async fn finish_unsent(&mut self, error: &ClientError, job: &Job) -> Result<(), SessionError> {
        self.consume(job.len);
        if job.continues {
            self.skip_continuation().await?;
        }
        self.worker.counters.proxy_errors.one();
        self.answer_error(error).await
    }

    /// Whether the replica has reached the position; any other answer counts as not reached.
    async fn wait_for_position(&mut self, connection: &mut ServerConnection, wait: &Wait) -> bool {
        self.worker.counters.position_waits.one();
        let sql = wait.sql(connection.flavour);
        let limit = wait.timeout + WAIT_GRACE;
        matches!(inject::scalar(connection, sql.as_bytes(), limit).await, Ok(Some(value)) if value == b"0")
    }

    async fn answer_unknown_statement(&mut self, job: &Job) -> Result<(), SessionError> {
        let (PreparedUse::Execute(id) | PreparedUse::Continue(id) | PreparedUse::Prepare(id)) = job.prepared
        else {
            return Err(SessionError::Malformed("prepared statement"));
        };
        let error = super::prepared::unknown_statement(id);
        self.finish_unsent(&error, job).await
    }

    /// Whether a statement of this kind ends the transaction that it runs in, so that its loss is a commit's.
    pub(super) fn may_commit(&self, job: &Job) -> bool {
        let kind = job.intent.kind;
        if matches!(kind, Kind::Commit | Kind::Ddl | Kind::Call | Kind::Multi | Kind::Xa) {
            return true;
        }
        if matches!(kind, Kind::Begin | Kind::BeginReadOnly) {
            // Commits what was open before.
            return self.state.in_transaction();
        }
        if job.intent.effects.intersects(Effects::IMPLICIT_COMMIT | Effects::MAY_COMMIT) {
            return true;
        }
        !matches!(kind, Kind::Read | Kind::Savepoint | Kind::Rollback) && !self.state.in_transaction()
    }
}

fn no_primary(topology: &Topology, reason: &str) -> ClientError {
    let why =
        if topology.no_primary_reason.is_empty() { reason } else { topology.no_primary_reason.as_str() };
    let text = format!("The statement needs the primary and there is none: {why}");
    ClientError::new(ER_OPTION_PREVENTS, b"HY000", text)
}

/// What Pointsman does itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Own {
    Kill { id: u32, query_only: bool },
    SetConsistency(Option<Consistency>),
    RefuseConsistency(Box<str>),
}

/// Whether a statement is for Pointsman and not for a server.
pub(super) fn own_answer(job: &Job) -> Option<Own> {
    job.intent.actions.iter().flat_map(|actions| actions.iter()).find_map(|action| match action {
        Action::Kill { query_only, id } => {
            kill::own_id(*id).map(|id| Own::Kill { id, query_only: *query_only })
        }
        Action::SetConsistency(wanted) => Some(Own::SetConsistency(*wanted)),
        Action::RefuseConsistency(value) => Some(Own::RefuseConsistency(value.clone())),
        Action::SetVariable { .. }
        | Action::SetNames { .. }
        | Action::SetUserVariable { .. }
        | Action::SetTransaction { .. }
        | Action::SetFromExpression { .. }
        | Action::SetRole { .. }
        | Action::SetAutocommit(_)
        | Action::Use(_) => None,
    })
}

fn told(refusal: &Refusal) -> ClientError {
    ClientError::new(refusal.code, &refusal.sqlstate, refusal.message.clone())
}

const ER_WRONG_VALUE_FOR_VAR: u16 = 1231;
/// A held statement is routed again after this time even without news, for a primary that was only slow to accept.
const HOLD_POLL: Duration = Duration::from_millis(100);
/// What a wait for a position may take beyond the time that the server itself was given.
const WAIT_GRACE: Duration = Duration::from_millis(300);
const ER_BAD_DB: u16 = 1049;
const ER_NET_READ_ERROR: u16 = 1158;
const ER_OPTION_PREVENTS: u16 = 1290;
