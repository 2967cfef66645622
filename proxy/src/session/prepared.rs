//! A session's prepared statements: known to the client by our ids, prepared on each server when needed there.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use pointsman_protocol::command::Execute;
use pointsman_protocol::packet::{HEADER_LEN, write_packet};
use pointsman_protocol::response::Grammar;
use pointsman_router::classify::Classified;
use pointsman_router::intent::{Effects, Intent, Kind, Needs};
use pointsman_router::session::{Pins, Reading, Steps};

use super::Session;
use super::command::{Job, PreparedUse};
use super::parameter_types::Execution;
use crate::backend::connection::ServerConnection;
use crate::backend::inject::{self, Answer};
use crate::backend::prepared::StatementKey;
use crate::backend::sync::{self, SyncError};
use crate::error::{ClientError, SessionError};

/// The statements that the client has prepared and not closed.
#[derive(Debug, Default)]
pub(super) struct Statements {
    by_id: BTreeMap<u32, Statement>,
    last_id: u32,
    /// Statements whose rows are still to be fetched.
    open_cursors: BTreeSet<u32>,
    /// Statements with data that waits on the held connection for their execution.
    long_data: BTreeSet<u32>,
}

/// Whether a connection can run a job.
#[derive(Debug)]
pub(super) enum Readiness {
    Ready,
    /// The session has no such statement, or not here.
    NoStatement,
    /// The server refused to prepare it.
    Refused(ClientError),
}

#[derive(Debug)]
struct Statement {
    /// The payload of the client's COM_STMT_PREPARE; none where it came in several packets, which are not kept.
    prepare: Option<Arc<[u8]>>,
    /// How the text was read then: later changes of the schema are none of its.
    reading: Reading,
    classified: Classified,
    parameters: u16,
    /// The parameter types as the client last sent them: its later executions leave them out.
    types: Arc<[u8]>,
    /// Rises with every change of `types`; 0 for none yet.
    types_version: u32,
    /// The server has accepted the text.
    confirmed: bool,
    /// Set when long data could not be passed on; told at the execution.
    failed: Option<ClientError>,
}

impl Statements {
    /// The session starts over. Ids are not given twice: a connection that another session is using may still know a
    /// statement by an old one.
    pub(super) fn forget(&mut self) {
        *self = Self { last_id: self.last_id, ..Self::default() };
    }

    pub(super) fn prepared(&mut self, id: u32, parameters: u16) {
        if let Some(statement) = self.by_id.get_mut(&id) {
            statement.parameters = parameters;
            statement.confirmed = true;
        }
    }

    pub(super) fn cursor_opened(&mut self, id: u32) {
        self.open_cursors.insert(id);
    }

    /// Whether this was the last one open.
    pub(super) fn cursor_closed(&mut self, id: u32) -> bool {
        self.open_cursors.remove(&id) && self.open_cursors.is_empty()
    }

    /// Whether this was the last one whose data waited.
    fn long_data_used(&mut self, id: u32) -> bool {
        self.long_data.remove(&id) && self.long_data.is_empty()
    }
}

/// What servers say of an id that they do not know.
pub(super) fn unknown_statement(id: u32) -> ClientError {
    let text = format!("Unknown prepared statement handler ({id}) given to mysqld_stmt_execute");
    ClientError::new(1243, b"HY000", text)
}

/// What servers say of a statement that only its client can prepare again.
fn must_be_prepared_again() -> ClientError {
    ClientError::new(1615, b"HY000", "Prepared statement needs to be re-prepared")
}

impl Session {
    /// COM_STMT_PREPARE: prepared at once where the statement would run now.
    pub(super) async fn prepare(&mut self, mut job: Job) -> Result<(), SessionError> {
        if self.statements.by_id.len() >= MAX_STATEMENTS {
            let text = "Can't create more than max_prepared_stmt_count statements";
            return self.finish_unsent(&ClientError::new(1461, b"42000", text), &job).await;
        }
        self.statements.last_id = self.statements.last_id.wrapping_add(1).max(1);
        let id = self.statements.last_id;
        self.substitute(&mut job);
        let text = job.replacement.as_deref().unwrap_or(&self.client.bytes()[..job.len]);
        let Some(classified) = job.classified.clone() else {
            return Err(SessionError::Malformed("prepare"));
        };
        let statement = Statement {
            prepare: (!job.continues).then(|| text[HEADER_LEN..].into()),
            reading: self.state.reading(),
            classified,
            parameters: 0,
            types: Arc::new([]),
            types_version: 0,
            confirmed: false,
            failed: None,
        };
        self.statements.by_id.insert(id, statement);
        job.prepared = PreparedUse::Prepare(id);
        job.intent = Arc::new(preparing(&job.intent));
        self.worker.counters.prepares.one();
        let ended = self.run_job(job).await;
        // A refused statement was never the client's.
        if self.statements.by_id.get(&id).is_some_and(|statement| !statement.confirmed) {
            self.statements.by_id.remove(&id);
        }
        ended
    }

    /// COM_STMT_EXECUTE and COM_STMT_BULK_EXECUTE.
    pub(super) async fn execute_prepared(
        &mut self,
        id: u32,
        cursor: bool,
        len: usize,
        continues: bool,
    ) -> Result<(), SessionError> {
        let job = match self.statements.by_id.get_mut(&id) {
            Some(statement) => {
                let mut job = Job::new(statement.classified.clone(), Grammar::Query, len, continues);
                job.prepared = PreparedUse::Execute(id);
                job.will_pin = cursor;
                if let Some(failed) = statement.failed.take() {
                    self.drop_long_data(id);
                    return self.finish_unsent(&failed, &job).await;
                }
                job
            }
            None => {
                self.consume(len);
                if continues {
                    self.skip_continuation().await?;
                }
                return self.answer_error(&unknown_statement(id)).await;
            }
        };
        if let Err(error) = self.learn_types(id, len) {
            self.drop_long_data(id);
            return self.finish_unsent(&error, &job).await;
        }
        let ended = self.run_job(job).await;
        // Only now: where the data is, the statement must run.
        self.long_data_is_used(id);
        ended
    }

    /// A server that refused this execution would have dropped its data, which here goes with the statement.
    fn drop_long_data(&mut self, id: u32) {
        if self.statements.long_data.contains(&id)
            && let Some(held) = self.held.as_mut()
        {
            held.prepared.close(StatementKey { session: self.slot.id, statement: id });
        }
        self.long_data_is_used(id);
    }

    /// An execution uses the data up, a reset or the end of the statement drops it.
    fn long_data_is_used(&mut self, id: u32) {
        if self.statements.long_data_used(id) {
            self.state.unpin(Pins::LONG_DATA);
            self.let_go_if_unpinned();
        }
    }

    /// Remembers the parameter types that an execution brings.
    fn learn_types(&mut self, id: u32, len: usize) -> Result<(), ClientError> {
        let Some(statement) = self.statements.by_id.get_mut(&id) else { return Ok(()) };
        if statement.parameters == 0 {
            return Ok(());
        }
        let payload = &self.client.bytes()[HEADER_LEN..len];
        let execution = Execution::parse(payload, statement.parameters, self.login.capabilities).map_err(
            |_malformed| ClientError::new(1210, b"HY000", "Incorrect arguments to mysqld_stmt_execute"),
        )?;
        let Some(types) = execution.and_then(|execution| execution.types(payload)) else { return Ok(()) };
        if *types != *statement.types {
            statement.types = types.into();
            statement.types_version += 1;
        }
        Ok(())
    }

    /// Puts the server's id into the packet of a job, preparing the statement first where the connection does
    /// not know it.
    pub(super) async fn is_prepared_for(
        &mut self,
        connection: &mut ServerConnection,
        job: &mut Job,
    ) -> io::Result<Readiness> {
        let (id, prepare_anew) = match job.prepared {
            PreparedUse::None | PreparedUse::Prepare(_) => return Ok(Readiness::Ready),
            PreparedUse::Execute(id) => (id, true),
            PreparedUse::Continue(id) => (id, false),
        };
        let key = StatementKey { session: self.slot.id, statement: id };
        if prepare_anew {
            match self.make_known(connection, key).await? {
                Readiness::Ready => {}
                failed @ (Readiness::NoStatement | Readiness::Refused(_)) => return Ok(failed),
            }
        }
        let Some(known) = connection.prepared.find(key) else { return Ok(Readiness::NoStatement) };
        if let Some(at) = self.client.bytes_mut().get_mut(ID_AT..ID_AT + 4) {
            at.copy_from_slice(&known.server_id.to_le_bytes());
        }
        job.replacement = None;
        if prepare_anew {
            self.fit_types(connection, key, known.types_version, job);
        }
        Ok(Readiness::Ready)
    }

    /// Prepares a statement on a connection that does not know it.
    async fn make_known(
        &self,
        connection: &mut ServerConnection,
        key: StatementKey,
    ) -> io::Result<Readiness> {
        if connection.prepared.find(key).is_some() {
            return Ok(Readiness::Ready);
        }
        let Some(statement) = self.statements.by_id.get(&key.statement) else {
            return Ok(Readiness::NoStatement);
        };
        let Some(prepare) = statement.prepare.clone() else {
            return Ok(Readiness::Refused(must_be_prepared_again()));
        };
        let detour = connection.state.detour(&self.state, &statement.reading);
        self.worker.counters.prepares.one();
        match detour {
            None => prepare_on(connection, key, &prepare).await,
            Some(detour) => prepare_as_then(connection, key, &prepare, &detour).await,
        }
    }

    /// An execution of long ago as this connection understands it; none where it does not know the statement.
    pub(super) async fn for_connection(
        &self,
        connection: &mut ServerConnection,
        id: u32,
        packet: &[u8],
    ) -> io::Result<Option<Vec<u8>>> {
        let key = StatementKey { session: self.slot.id, statement: id };
        if !matches!(self.make_known(connection, key).await?, Readiness::Ready) {
            return Ok(None);
        }
        let mut packet = packet.to_vec();
        let known = connection.prepared.find(key).zip(packet.get_mut(ID_AT..ID_AT + 4));
        let Some((known, place)) = known else { return Ok(None) };
        place.copy_from_slice(&known.server_id.to_le_bytes());
        Ok(Some(packet))
    }

    /// Adds the parameter types to an execution that leaves them out, where this server has not seen them.
    fn fit_types(&self, connection: &mut ServerConnection, key: StatementKey, seen: u32, job: &mut Job) {
        let Some(statement) = self.statements.by_id.get(&key.statement) else { return };
        if statement.parameters == 0 || statement.types_version == 0 || seen == statement.types_version {
            return;
        }
        let packet = &self.client.bytes()[..job.len];
        let Some(execution) = self.execution(statement, packet) else { return };
        // Nothing can be put into a packet that is streamed: the server says itself what it lacks.
        if job.continues && execution.types(&packet[HEADER_LEN..]).is_none() {
            return;
        }
        connection.prepared.saw_types(key, statement.types_version);
        job.replacement = self.with_types(key.statement, packet);
    }

    fn execution(&self, statement: &Statement, packet: &[u8]) -> Option<Execution> {
        Execution::parse(&packet[HEADER_LEN..], statement.parameters, self.login.capabilities).ok().flatten()
    }

    /// An execution with the parameter types that it leaves out; none where it leaves none out.
    pub(super) fn with_types(&self, id: u32, packet: &[u8]) -> Option<Vec<u8>> {
        let statement = self.statements.by_id.get(&id)?;
        if statement.parameters == 0 || statement.types_version == 0 {
            return None;
        }
        let execution = self.execution(statement, packet)?;
        let with_types = execution.with_types(&packet[HEADER_LEN..], &statement.types)?;
        let mut packet = Vec::with_capacity(with_types.len() + HEADER_LEN);
        write_packet(&mut packet, 0, &with_types);
        Some(packet)
    }

    /// COM_STMT_SEND_LONG_DATA has no answer: what goes wrong is told at the execution.
    pub(super) async fn long_data(
        &mut self,
        id: u32,
        len: usize,
        continues: bool,
    ) -> Result<(), SessionError> {
        let Some(statement) = self.statements.by_id.get(&id) else {
            self.consume(len);
            return if continues { self.skip_continuation().await } else { Ok(()) };
        };
        let mut job = Job::new(statement.classified.clone(), Grammar::None, len, continues);
        job.prepared = PreparedUse::Execute(id);
        job.will_pin = true;
        match self.long_data_connection(&mut job).await {
            Ok(mut connection) => {
                let sent = self.send_silently(&job, &mut connection).await;
                if !continues {
                    self.consume(len);
                }
                sent?;
                self.statements.long_data.insert(id);
                self.state.pin(Pins::LONG_DATA, self.worker.now());
                self.held = Some(connection);
            }
            Err(error) => {
                self.consume(len);
                if continues {
                    self.skip_continuation().await?;
                }
                if let Some(statement) = self.statements.by_id.get_mut(&id) {
                    statement.failed = Some(error);
                }
            }
        }
        Ok(())
    }

    /// COM_STMT_CLOSE has no answer; servers hear of it with the next write.
    pub(super) fn close_prepared(&mut self, id: u32, len: usize) {
        self.consume(len);
        self.statements.by_id.remove(&id);
        let key = StatementKey { session: self.slot.id, statement: id };
        for connection in self.held.iter_mut().chain(self.kept.iter_mut().flatten()) {
            connection.prepared.close(key);
        }
        self.worker.pool.close_statement(key);
        if self.statements.cursor_closed(id) {
            self.state.unpin(Pins::CURSOR);
        }
        self.long_data_is_used(id);
        self.let_go_if_unpinned();
    }

    /// COM_STMT_FETCH and COM_STMT_RESET, which make sense only where the statement was executed.
    pub(super) async fn continue_prepared(
        &mut self,
        id: u32,
        grammar: Grammar,
        len: usize,
    ) -> Result<(), SessionError> {
        let is_reset = grammar == Grammar::Ok;
        if !self.statements.by_id.contains_key(&id) {
            self.consume(len);
            return self.answer_error(&unknown_statement(id)).await;
        }
        if self.held.is_none() {
            self.consume(len);
            if is_reset {
                return self.answer_ok().await;
            }
            let text = format!("The statement ({id}) has no open cursor.");
            return self.answer_error(&ClientError::new(1421, b"HY000", text)).await;
        }
        let mut job = Job::plain_read(grammar, len);
        job.prepared = PreparedUse::Continue(id);
        let ended = self.run_pinned(&mut job).await;
        if is_reset {
            self.long_data_is_used(id);
        }
        ended
    }

    /// Gives the held connection back once nothing pins it.
    pub(super) fn let_go_if_unpinned(&mut self) {
        if self.state.pins().is_empty()
            && let Some(held) = self.held.take()
        {
            self.settle(held);
        }
    }
}

async fn prepare_on(
    connection: &mut ServerConnection,
    key: StatementKey,
    prepare: &[u8],
) -> io::Result<Readiness> {
    Ok(match inject::command(connection, prepare, Grammar::Prepare, PREPARE_TIMEOUT).await? {
        Answer::Ok(Some(head)) => {
            connection.prepared.insert(key, head.id);
            Readiness::Ready
        }
        Answer::Ok(None) => Readiness::NoStatement,
        Answer::Err(error) => Readiness::Refused(error),
    })
}

/// Prepares a text where it is read as it was when the client prepared it: unqualified names keep their schema.
async fn prepare_as_then(
    connection: &mut ServerConnection,
    key: StatementKey,
    prepare: &[u8],
    (there, back): &(Steps, Steps),
) -> io::Result<Readiness> {
    let in_between = || io::Error::other("the server refused a state that the session had before");
    match sync::apply(connection, there).await {
        Ok(()) => {}
        // Only the first of several leaves the connection as it was.
        Err(SyncError::Refused(error)) if there.len() == 1 => return Ok(Readiness::Refused(error)),
        Err(SyncError::Io(error)) => return Err(error),
        Err(SyncError::Refused(_) | SyncError::Unusable) => return Err(in_between()),
    }
    let readiness = prepare_on(connection, key, prepare).await?;
    sync::apply(connection, back).await.map_err(|_refused| in_between())?;
    Ok(readiness)
}

/// Preparing has none of the effects of executing, and may happen wherever the statement will run.
fn preparing(intent: &Intent) -> Intent {
    let kind = if intent.kind == Kind::Read { Kind::Read } else { Kind::UnprovenRead };
    Intent { kind, effects: Effects::empty(), needs: Needs::empty(), actions: None, ..intent.clone() }
}

/// The statement id in COM_STMT_EXECUTE, FETCH, RESET and SEND_LONG_DATA: after the header and the command byte.
const ID_AT: usize = HEADER_LEN + Execute::ID_AT;
/// Statements that one client may hold, as max_prepared_stmt_count of servers limits all together.
const MAX_STATEMENTS: usize = 16_382;
const PREPARE_TIMEOUT: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_not_given_again_after_a_reset() {
        let mut statements = Statements { last_id: 7, ..Statements::default() };
        statements.cursor_opened(7);
        statements.forget();
        assert_eq!((statements.last_id, statements.open_cursors.len()), (7, 0));
    }
}
