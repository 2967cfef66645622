//! One attempt at running a statement on one server connection.

use std::io;
use std::time::{Duration, Instant};

use pointsman_protocol::capability::{Capabilities, Status};
use pointsman_protocol::command::Command;
use pointsman_protocol::packet::{HEADER_LEN, Header, MAX_PAYLOAD};
use pointsman_protocol::response::Grammar;
use pointsman_router::intent::{Consistency, Effects, Kind, Needs};
use pointsman_router::session::{Observed, Pins};

use super::Session;
use super::command::{Job, PreparedUse};
use super::journal::may_be_repeated;
use super::relay::{
    ER_OPTION_PREVENTS, ER_READ_ONLY_MODE, ER_READ_ONLY_TRANSACTION, HoldBack, Relay, RelayError,
    RelayOptions, Reply, fenced, fill_in_time, write_bounded,
};
use super::replay::{Lost, PinnedBy};
use super::translate;
use crate::backend::connection::ServerConnection;
use crate::backend::digest::AnswerDigest;
use crate::backend::inject;
use crate::backend::prepared::StatementKey;
use crate::error::{ClientError, SessionError};
use crate::shared::Refresh;
use crate::worker::Message;

/// Why an attempt did not answer the client.
#[derive(Debug)]
pub(super) enum Failure {
    /// The session is over.
    Session(SessionError),
    /// Nothing has reached the client and nothing was changed: the statement may run elsewhere.
    Elsewhere { error: io::Error, refused: Option<ClientError> },
    /// The open transaction is gone with its server, uncommitted, and of the statement nothing has reached the client.
    TransactionLost(Lost),
}

impl Session {
    /// Sends the statement and relays its answer. Not cancel safe.
    pub(super) async fn attempt(
        &mut self,
        job: &mut Job,
        mut connection: Box<ServerConnection>,
        on_replica: bool,
    ) -> Result<(), Failure> {
        if !self.may_send(job, &mut connection).await {
            return Err(self.not_sent(job, &connection));
        }
        let started = Instant::now();
        let thread = (connection.server, connection.thread_id);
        self.slot.running.set(Some(thread));
        self.slot.holds.set(Some(thread));
        self.slot.server_down.set(false);
        self.worker.balancer.borrow_mut().started(connection.server);
        let outcome = match self.send_command(job, &mut connection).await {
            Ok(()) if self.wants_translation(job) => self.relay_translated(&mut connection).await,
            Ok(()) => self.relay(job, &mut connection, on_replica).await,
            Err(error) => Err(error),
        };
        let ended = self.worker.read_clock();
        let took = ended.duration_since(started);
        // What failed is no measure of how fast the server is.
        match &outcome {
            Ok(_) => self.worker.balancer.borrow_mut().finished(connection.server, took),
            Err(_) => self.worker.balancer.borrow_mut().abandoned(connection.server),
        }
        self.slot.running.set(None);
        self.wait_for_kills().await;
        match outcome {
            Ok(reply) => {
                connection.idle_since = ended;
                self.count(job, &connection, &reply, on_replica, took);
                self.finish(job, connection, &reply);
                Ok(())
            }
            Err(error) => {
                self.slot.holds.set(None);
                Err(self.judge(error, job, &connection))
            }
        }
    }

    /// The connection is to a server that has lost its place; what was pinned to it is gone.
    fn not_sent(&mut self, job: &Job, connection: &ServerConnection) -> Failure {
        self.slot.holds.set(None);
        let error = SessionError::StateLost { server: connection.server, source: fenced() };
        match self.pinned_by(job) {
            PinnedBy::Nothing => Failure::Elsewhere { error: fenced(), refused: None },
            PinnedBy::Transaction => Failure::TransactionLost(Lost::new(connection, error)),
            PinnedBy::More => Failure::Session(error),
        }
    }

    /// A kill under way must not hit the connection's next user.
    async fn wait_for_kills(&self) {
        while self.slot.killing.get() > 0 {
            std::future::poll_fn(|cx| {
                self.slot.register(cx.waker());
                if self.slot.killing.get() == 0 {
                    std::task::Poll::Ready(())
                } else {
                    std::task::Poll::Pending
                }
            })
            .await;
        }
    }

    async fn send_command(&mut self, job: &Job, connection: &mut ServerConnection) -> Result<(), RelayError> {
        let lost = |error| RelayError::Server { error, answered: false };
        if connection.prepared.has_pending_closes() {
            let closes = connection.prepared.take_pending_closes();
            connection.lane.write_all(&closes).await.map_err(lost)?;
        }
        let bytes = job.replacement.as_deref().unwrap_or(&self.client.bytes()[..job.len]);
        connection.lane.write_all(bytes).await.map_err(lost)?;
        if job.continues {
            self.client.consume(job.len);
            self.stream_continuation(Some(connection)).await?;
        }
        Ok(())
    }

    /// Passes on the packets of a command of more than 16 MiB, or drops them.
    async fn stream_continuation(
        &mut self,
        mut connection: Option<&mut ServerConnection>,
    ) -> Result<(), RelayError> {
        let limit = self.worker.shared.max_allowed_packet();
        let mut size = MAX_PAYLOAD;
        let mut sequence: u8 = 0;
        loop {
            fill_in_time(&mut self.client, HEADER_LEN).await.map_err(RelayError::Client)?;
            sequence = sequence.wrapping_add(1);
            self.client.renumber(sequence);
            let Some(header) = Header::parse(self.client.bytes()) else { continue };
            size += header.len;
            if size > limit {
                return Err(RelayError::TooLarge { size, limit });
            }
            let mut left = HEADER_LEN + header.len;
            while left > 0 {
                fill_in_time(&mut self.client, 1).await.map_err(RelayError::Client)?;
                let piece = left.min(self.client.bytes().len());
                if let Some(server) = connection.as_mut() {
                    let written = server.lane.write_all(&self.client.bytes()[..piece]).await;
                    written.map_err(|error| RelayError::Server { error, answered: false })?;
                }
                self.client.consume(piece);
                left -= piece;
            }
            if header.len < MAX_PAYLOAD {
                return Ok(());
            }
        }
    }

    pub(super) async fn skip_continuation(&mut self) -> Result<(), SessionError> {
        match self.stream_continuation(None).await {
            Ok(()) => Ok(()),
            Err(RelayError::Client(error)) => Err(SessionError::ClientIo(error)),
            Err(RelayError::TooLarge { size, limit }) => Err(SessionError::TooLarge { size, limit }),
            Err(
                RelayError::Server { .. }
                | RelayError::Malformed(_)
                | RelayError::HeldBack(_)
                | RelayError::UnexpectedInfile,
            ) => Ok(()),
        }
    }

    async fn relay(
        &mut self,
        job: &Job,
        connection: &mut ServerConnection,
        on_replica: bool,
    ) -> Result<Reply, RelayError> {
        let hold_back = match (on_replica, job.is_repeatable()) {
            (true, true) => HoldBack::Misrouted,
            (false, _) => HoldBack::NotExecuted,
            (true, false) => HoldBack::Nothing,
        };
        let options = RelayOptions {
            client: self.login.capabilities,
            hold_back,
            statement_id: match job.prepared {
                PreparedUse::Prepare(id) => Some(id),
                PreparedUse::None | PreparedUse::Execute(_) | PreparedUse::Continue(_) => None,
            },
            read_only_transaction: self.state.in_read_only_transaction()
                && self.worker.topology().primary != Some(connection.server),
            infile_allowed: matches!(job.intent.kind, Kind::LoadLocal | Kind::Multi | Kind::Call),
        };
        let deprecate_eof = connection.capabilities.contains(Capabilities::DEPRECATE_EOF);
        let digest = self.is_noted(job).then(AnswerDigest::default);
        let mut relay = Relay::new(&mut self.client, &self.slot, job.grammar, deprecate_eof, options);
        relay.command_bytes = if job.continues { 0 } else { job.len };
        relay.acknowledged = Some((&self.worker.shared.acknowledged, connection.flavour));
        relay.fences = Some(&self.worker.shared.fences);
        relay.digest = digest;
        relay.run(connection).await
    }

    fn wants_translation(&self, job: &Job) -> bool {
        job.grammar == Grammar::Query
            && job.prepared == PreparedUse::None
            && job.intent.kind != Kind::Multi
            && job.intent.needs.contains(Needs::PROCESS_IDS)
    }

    /// Reads a whole result that names connections, and passes it on with our ids in it.
    async fn relay_translated(&mut self, connection: &mut ServerConnection) -> Result<Reply, RelayError> {
        let server = connection.server;
        let lost = |error: io::Error| {
            let malformed = error.kind() == io::ErrorKind::InvalidData;
            if malformed {
                RelayError::Malformed(error)
            } else {
                RelayError::Server { error, answered: false }
            }
        };
        let result = inject::collect(connection).await.map_err(lost)?;
        let sessions = self.session_ids().await;
        let mut packets =
            translate::rows(&result.packets, connection.capabilities, server, &sessions).map_err(lost)?;
        packets.extend_from_slice(&result.last);
        write_bounded(&mut self.client, &packets).await.map_err(RelayError::Client)?;
        let status = connection.status;
        Ok(Reply { error: result.error, status, has_status: true, row_count: -1, ..Reply::default() })
    }

    /// Which session holds which server connection now, over all workers.
    async fn session_ids(&self) -> translate::SessionIds {
        let (answer, mut answers) = tokio::sync::mpsc::unbounded_channel();
        self.worker.shared.broadcast(|| Message::Holders(answer.clone()));
        drop(answer);
        let mut ids = translate::SessionIds::new();
        while let Some(holders) = answers.recv().await {
            ids.extend(holders);
        }
        ids
    }

    /// What a failed attempt means: run elsewhere, or the end of the session with what is known of the outcome.
    fn judge(&mut self, error: RelayError, job: &Job, connection: &ServerConnection) -> Failure {
        let server = connection.server;
        match error {
            RelayError::Client(error) => {
                self.interrupt(connection);
                Failure::Session(SessionError::ClientIo(error))
            }
            RelayError::UnexpectedInfile => Failure::Session(SessionError::UnexpectedInfile(server)),
            RelayError::TooLarge { size, limit } => Failure::Session(SessionError::TooLarge { size, limit }),
            RelayError::Malformed(source) if job.is_repeatable() => {
                Failure::Session(SessionError::MalformedAnswer { server, source })
            }
            RelayError::HeldBack(refused) => {
                if says_write(refused.code) {
                    self.worker.counters.misrouted.one();
                    if let Some(classified) = &job.classified {
                        self.worker.classifier.borrow_mut().mark_primary(classified);
                    }
                }
                Failure::Elsewhere {
                    error: io::Error::other("refused by the server"),
                    refused: Some(refused),
                }
            }
            RelayError::Malformed(source) => {
                let commit = self.may_commit(job);
                Failure::Session(SessionError::OutcomeUnknown { server, commit, source })
            }
            RelayError::Server { error, answered } => {
                self.worker.shared.fences.suspect(server);
                let pinned = self.pinned_by(job);
                // What begins a transaction has done nothing yet.
                let begins = matches!(job.intent.kind, Kind::Begin | Kind::BeginReadOnly);
                let repeatable = job.is_repeatable() || begins && !self.state.in_transaction();
                if repeatable && !answered && pinned == PinnedBy::Nothing {
                    return Failure::Elsewhere { error, refused: None };
                }
                let commit = self.may_commit(job);
                let cannot_commit = may_be_repeated(&job.intent) && !job.continues && !commit;
                let error = SessionError::OutcomeUnknown { server, commit, source: error };
                if pinned == PinnedBy::Transaction && cannot_commit && !answered {
                    return Failure::TransactionLost(Lost::new(connection, error));
                }
                Failure::Session(error)
            }
        }
    }

    /// Stops on the server what nobody waits for any more.
    fn interrupt(&self, connection: &ServerConnection) {
        let topology = self.worker.topology();
        let Some(view) = topology.server(connection.server) else { return };
        let (done, _nobody_waits) = tokio::sync::oneshot::channel();
        let request = crate::shared::KillRequest {
            address: view.address.clone(),
            thread_id: connection.thread_id,
            done,
        };
        // A full queue means many kills under way; the server notices the closed socket by itself.
        drop(self.worker.shared.kills.try_send(request));
    }

    fn count(
        &self,
        job: &Job,
        connection: &ServerConnection,
        reply: &Reply,
        on_replica: bool,
        took: Duration,
    ) {
        self.worker.counters.bytes_to_clients.add(reply.bytes);
        self.slot.statements.set(self.slot.statements.get() + 1);
        let Some(server) = self.worker.counters.server(connection.server) else { return };
        if on_replica || job.intent.kind == Kind::Read {
            server.reads.one();
        } else {
            server.writes.one();
        }
        if reply.error.is_some() {
            server.errors.one();
        }
        server.observe(took);
        self.log_if_slow(job, connection, reply, took);
    }

    /// The statement is named by its digest, which holds none of its values.
    fn log_if_slow(&self, job: &Job, connection: &ServerConnection, reply: &Reply, took: Duration) {
        let threshold = self.worker.settings().log.slow_query;
        if threshold.is_zero() || took <= threshold {
            return;
        }
        let Some(left_out) = self.worker.slow_log.admit(self.worker.now()) else { return };
        let topology = self.worker.topology();
        tracing::warn!(
            session = self.slot.id,
            user = &*String::from_utf8_lossy(&self.login.user),
            server = topology.server(connection.server).map_or("", |view| view.name.as_str()),
            kind = job.intent.kind.name(),
            digest = %job.digest,
            milliseconds = u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            rows = reply.rows,
            error = reply.error.unwrap_or_default(),
            left_out,
            "slow statement"
        );
    }

    /// Takes note of what the answer says, then keeps or returns the connection.
    fn finish(&mut self, job: &Job, mut connection: Box<ServerConnection>, reply: &Reply) {
        let observed = Observed {
            server: connection.server,
            error: reply.error,
            has_status: reply.has_status,
            in_transaction: reply.status.contains(Status::IN_TRANS),
            read_only_transaction: reply.status.contains(Status::IN_TRANS_READONLY),
            autocommit: reply.status.contains(Status::AUTOCOMMIT),
            no_backslash_escapes: reply.status.contains(Status::NO_BACKSLASH_ESCAPES),
            cursor_open: reply.status.contains(Status::CURSOR_EXISTS)
                && !reply.status.contains(Status::LAST_ROW_SENT),
            ansi_quotes: reply.status.bits() & MARIADB_ANSI_QUOTES != 0,
            warnings: reply.warnings,
            schema: reply.schema.as_deref(),
            variables: &reply.variables,
            state_changed: reply.state_changed,
            gtid: &reply.gtid,
            eventual: self.consistency(job) == Consistency::Eventual,
        };
        let pins_before = self.state.pins();
        self.state.observe(&job.intent, &observed, self.worker.moment().duration_since(self.worker.started));
        self.note_in_journal(job, reply, pins_before);
        if job.grammar == Grammar::SetOption && reply.error.is_none() {
            self.note_set_option(job);
        }
        self.last_server = Some(connection.server);
        self.last.row_count = reply.row_count;
        // An answer without rows leaves what the last one with rows said.
        if reply.error.is_none() && reply.row_count < 0 && !self.repeats_warnings(job) {
            self.last.found_rows = reply.rows;
        }
        connection.has_warnings |= reply.warnings > 0 || reply.error.is_some();
        self.note_cursor(job, reply);
        self.note_prepared(job, &mut connection, reply);
        self.note_insert_id(job, &mut connection, reply);
        self.refresh_after(job, reply);
        if !job.continues {
            self.consume(job.len);
        }
        connection.state.adopt(&self.state);
        if self.slot.pinned_since.get().is_none() {
            self.slot.pinned_by.set(job.classified.as_ref().map(|classified| classified.digest));
        }
        if reply.schema.is_some() {
            self.show_schema();
        }
        self.settle(connection);
    }

    /// SHOW WARNINGS and SHOW ERRORS, whose rows FOUND_ROWS() does not count; SHOW COUNT(*) WARNINGS is a SELECT.
    fn repeats_warnings(&self, job: &Job) -> bool {
        if job.intent.kind != Kind::Diagnostics || job.continues {
            return false;
        }
        match Command::parse(&self.client.bytes()[HEADER_LEN..job.len], &self.login.capabilities) {
            Ok(Command::Query(query)) => {
                let sql = query.sql.trim_ascii_start();
                sql.get(..4).is_some_and(|word| word.eq_ignore_ascii_case(b"show")) && !sql.contains(&b'(')
            }
            Ok(_) | Err(_) => false,
        }
    }

    fn note_set_option(&mut self, job: &Job) {
        let payload = &self.client.bytes()[HEADER_LEN..job.len];
        if let Ok(Command::SetOption(option)) = Command::parse(payload, &self.login.capabilities) {
            self.state.set_multi_statements(option == MULTI_STATEMENTS_ON, self.worker.now());
        }
    }

    /// Keeps a pinned session's connection, gives any other back.
    pub(super) fn settle(&mut self, connection: Box<ServerConnection>) {
        self.show_pins();
        if self.state.pins().is_empty() {
            self.slot.holds.set(None);
            self.release(connection);
        } else {
            let at = usize::from(connection.server.0);
            self.meet(at);
            self.last_used[at] = connection.serial;
            self.held = Some(connection);
        }
    }

    /// Shows why the session keeps its connection now.
    pub(super) fn show_pins(&self) {
        let pins = self.state.pins();
        self.slot.autocommit.set(self.state.autocommit());
        for place in (pins - self.slot.pins.replace(pins)).places() {
            self.worker.counters.pins[place].one();
        }
        match (pins.is_empty(), self.slot.pinned_since.get()) {
            (true, None) => return,
            (true, Some(_)) => self.slot.pinned_since.set(None),
            (false, None) => self.slot.pinned_since.set(Some(Instant::now())),
            (false, Some(_)) => {}
        }
        let mut view = self.slot.view.borrow_mut();
        view.pins = pins.names().collect();
        view.server = self.last_server.map(|server| server.0);
    }

    /// Keeps count of the cursors that are open on the connection.
    fn note_cursor(&mut self, job: &Job, reply: &Reply) {
        let id = match job.prepared {
            PreparedUse::Execute(id) | PreparedUse::Continue(id) => id,
            PreparedUse::None | PreparedUse::Prepare(_) => return,
        };
        let open = reply.status.contains(Status::CURSOR_EXISTS)
            && !reply.status.contains(Status::LAST_ROW_SENT)
            && reply.error.is_none();
        if open {
            self.statements.cursor_opened(id);
        } else if self.statements.cursor_closed(id) {
            self.state.unpin(Pins::CURSOR);
        }
    }

    fn note_prepared(&mut self, job: &Job, connection: &mut ServerConnection, reply: &Reply) {
        let PreparedUse::Prepare(statement) = job.prepared else { return };
        if let Some(head) = reply.prepared {
            connection.prepared.insert(StatementKey { session: self.slot.id, statement }, head.id);
            self.statements.prepared(statement, head.parameters);
        }
    }

    /// Sends a command that has no answer.
    pub(super) async fn send_silently(
        &mut self,
        job: &Job,
        connection: &mut ServerConnection,
    ) -> Result<(), SessionError> {
        let server = connection.server;
        match self.send_command(job, connection).await {
            Ok(()) => Ok(()),
            Err(RelayError::Client(error)) => Err(SessionError::ClientIo(error)),
            Err(RelayError::Server { error, .. }) => Err(SessionError::StateLost { server, source: error }),
            Err(RelayError::TooLarge { size, limit }) => Err(SessionError::TooLarge { size, limit }),
            Err(RelayError::Malformed(source)) => Err(SessionError::MalformedAnswer { server, source }),
            Err(RelayError::HeldBack(_) | RelayError::UnexpectedInfile) => {
                Err(SessionError::UnexpectedInfile(server))
            }
        }
    }

    fn refresh_after(&self, job: &Job, reply: &Reply) {
        if reply.error.is_some() {
            return;
        }
        // A full queue means that a refresh is about to happen anyway.
        if job.intent.effects.contains(Effects::CATALOGUE_CHANGED) {
            let _full = self.worker.shared.refresh.try_send(Refresh::Catalogue);
        }
        if job.intent.effects.contains(Effects::ACCOUNTS_CHANGED) {
            let _full = self.worker.shared.refresh.try_send(Refresh::Accounts);
        }
    }
}

/// Whether a replica's error says that the statement would have written.
fn says_write(code: u16) -> bool {
    matches!(code, ER_OPTION_PREVENTS | ER_READ_ONLY_TRANSACTION | ER_READ_ONLY_MODE)
}

/// Bit 15 of the status flags, which only MariaDB sets.
const MARIADB_ANSI_QUOTES: u16 = 1 << 15;
/// MYSQL_OPTION_MULTI_STATEMENTS_ON in COM_SET_OPTION.
const MULTI_STATEMENTS_ON: u16 = 0;
