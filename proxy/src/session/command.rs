//! From a command packet to what is to be done about it.

use std::sync::Arc;

use pointsman_protocol::command::{Attribute, Command, Query};
use pointsman_protocol::packet::{HEADER_LEN, MAX_PAYLOAD};
use pointsman_protocol::response::Grammar;
use pointsman_router::classify::{Classified, Digest};
use pointsman_router::intent::{Action, Effects, Hint, Intent, Kind, Needs, Reason, Target};

use super::{Flow, Session, kill};
use crate::error::{ClientError, SessionError};

/// One statement to be run on a server.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) intent: Arc<Intent>,
    pub(super) digest: Digest,
    pub(super) grammar: Grammar,
    /// The command's bytes in the client's buffer, header included.
    pub(super) len: usize,
    /// What is sent in place of the client's bytes: a whole packet.
    pub(super) replacement: Option<Vec<u8>>,
    /// More than 16 MiB: further packets follow on the wire.
    pub(super) continues: bool,
    /// As the classifier gave it, to be told where it was wrong; none for commands without text.
    pub(super) classified: Option<Classified>,
    pub(super) prepared: PreparedUse,
    /// Leaves a cursor or long data on its connection.
    pub(super) will_pin: bool,
}

/// What a job has to do with prepared statements.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum PreparedUse {
    #[default]
    None,
    /// COM_STMT_PREPARE; the id that the client will know.
    Prepare(u32),
    /// COM_STMT_EXECUTE, COM_STMT_BULK_EXECUTE.
    Execute(u32),
    /// COM_STMT_FETCH and COM_STMT_RESET: only where the statement is.
    Continue(u32),
}

/// A command as the session sees it, without borrows of the client's buffer.
#[derive(Debug)]
enum Task {
    Quit,
    Run(Job),
    Query(Classified),
    Prepare(Classified),
    Execute { id: u32, cursor: bool },
    LongData(u32),
    Close(u32),
    Continue { id: u32, grammar: Grammar },
    Ping,
    Reset,
    ChangeUser,
    Kill(u32),
    Tunnel,
    Refuse(ClientError),
}

impl Session {
    /// Serves one command that lies whole in the client's buffer.
    pub(super) async fn command(&mut self, len: usize) -> Result<Flow, SessionError> {
        let continues = len - HEADER_LEN == MAX_PAYLOAD;
        self.worker.counters.bytes_from_clients.add(len as u64);
        let task = self.interpret(len)?;
        match task {
            Task::Quit => return Ok(Flow::Quit),
            Task::Run(job) => self.run_job(job).await?,
            Task::Query(classified) => {
                let job = Job::new(classified, Grammar::Query, len, continues);
                self.query(job).await?;
            }
            Task::Prepare(classified) => {
                let job = Job::new(classified, Grammar::Prepare, len, continues);
                self.prepare(job).await?;
            }
            Task::Execute { id, cursor } => self.execute_prepared(id, cursor, len, continues).await?,
            Task::LongData(id) => self.long_data(id, len, continues).await?,
            Task::Close(id) => self.close_prepared(id, len),
            Task::Continue { id, grammar } => self.continue_prepared(id, grammar, len).await?,
            Task::Ping => self.ping(len).await?,
            Task::Reset => self.reset_connection(len).await?,
            Task::ChangeUser => Box::pin(self.change_user(len)).await?,
            Task::Kill(id) => self.kill(id, false, len).await?,
            Task::Tunnel => return Box::pin(self.tunnel(len)).await,
            Task::Refuse(error) => {
                self.consume(len);
                self.answer_error(&error).await?;
            }
        }
        Ok(Flow::Continue)
    }

    fn interpret(&self, len: usize) -> Result<Task, SessionError> {
        let payload = &self.client.bytes()[HEADER_LEN..len];
        let command = Command::parse(payload, &self.login.capabilities)
            .map_err(|_malformed| SessionError::Malformed("command"))?;
        let run = |kind, target, grammar| Task::Run(Job::plain(kind, target, grammar, len));
        Ok(match command {
            Command::Quit => Task::Quit,
            Command::Query(query) => Task::Query(self.classify_query(&query)),
            Command::StmtPrepare(sql) => Task::Prepare(self.classify(sql)),
            Command::StmtExecute(execute) => Task::Execute { id: execute.id, cursor: execute.wants_cursor() },
            Command::StmtBulkExecute { id, .. } => Task::Execute { id, cursor: false },
            Command::StmtSendLongData { id, .. } => Task::LongData(id),
            Command::StmtClose(id) => Task::Close(id),
            Command::StmtReset(id) => Task::Continue { id, grammar: Grammar::Ok },
            Command::StmtFetch { id, .. } => Task::Continue { id, grammar: Grammar::Fetch },
            Command::InitDb(name) => {
                let mut job = Job::plain(Kind::Use, Target::Session, Grammar::Ok, len);
                let actions: Arc<[Action]> = Arc::new([Action::Use(name.into())]);
                Arc::make_mut(&mut job.intent).actions = Some(actions);
                Task::Run(job)
            }
            Command::FieldList(_) => run(Kind::Read, Target::Primary, Grammar::FieldList),
            Command::Statistics => run(Kind::ServerQuestion, Target::Primary, Grammar::Statistics),
            Command::ProcessInfo => run(Kind::ServerQuestion, Target::Primary, Grammar::Query),
            Command::Refresh(_) => run(Kind::Administration, Target::Primary, Grammar::Ok),
            Command::Debug => run(Kind::Administration, Target::Primary, Grammar::SetOption),
            Command::SetOption(_) => run(Kind::Set, Target::Session, Grammar::SetOption),
            Command::Ping => Task::Ping,
            Command::ResetConnection => Task::Reset,
            Command::ChangeUser(_) => Task::ChangeUser,
            Command::ProcessKill(id) => match kill::own_id(u64::from(id)) {
                Some(own) => Task::Kill(own),
                None => run(Kind::Kill, Target::Primary, Grammar::Ok),
            },
            Command::BinlogDump(_) | Command::BinlogDumpGtid(_) | Command::RegisterSlave(_) => Task::Tunnel,
            Command::Shutdown => {
                let text = "Access denied; SHUTDOWN is not passed on through the proxy";
                Task::Refuse(ClientError::new(1227, b"42000", text))
            }
            Command::TableDump(_) | Command::Unknown(_) => {
                Task::Refuse(ClientError::new(1047, b"08S01", "Unknown command"))
            }
        })
    }

    /// Hints come in comments, of which the classifier knows, and as query attributes.
    fn classify_query(&self, query: &Query<'_>) -> Classified {
        let take = |classified: Classified, attribute: Attribute<'_>| match attribute.value {
            Some(value) => classified.with_attribute(attribute.name, value),
            None => classified,
        };
        query.attributes.iter().fold(self.classify(query.sql), take)
    }

    pub(super) fn classify(&self, sql: &[u8]) -> Classified {
        let catalogue = self.worker.catalogue();
        self.worker.classifier.borrow_mut().classify(sql, &self.state.mode(), &catalogue)
    }
}

impl Job {
    pub(super) fn new(classified: Classified, grammar: Grammar, len: usize, continues: bool) -> Self {
        let (intent, digest) = (classified.intent.clone(), classified.digest);
        Self::of(intent, digest, grammar, len, continues).with(classified)
    }

    fn of(intent: Arc<Intent>, digest: Digest, grammar: Grammar, len: usize, continues: bool) -> Self {
        Self {
            intent,
            digest,
            grammar,
            len,
            replacement: None,
            continues,
            classified: None,
            prepared: PreparedUse::None,
            will_pin: false,
        }
    }

    fn with(self, classified: Classified) -> Self {
        Self { classified: Some(classified), ..self }
    }

    /// A command without SQL text.
    fn plain(kind: Kind, target: Target, grammar: Grammar, len: usize) -> Self {
        let intent = Intent {
            kind,
            target,
            effects: Effects::empty(),
            needs: Needs::empty(),
            reason: Reason("command without statement text".into()),
            actions: None,
            hint: None::<Hint>,
        };
        Self::of(Arc::new(intent), Digest::default(), grammar, len, false)
    }

    /// A command that belongs to a statement executed before.
    pub(super) fn plain_read(grammar: Grammar, len: usize) -> Self {
        Self::plain(Kind::UnprovenRead, Target::SameAsTransaction, grammar, len)
    }

    /// What it needs of its connection: preparing a statement asks for nothing yet.
    pub(super) fn needs(&self) -> Needs {
        match self.prepared {
            PreparedUse::Prepare(_) => self.intent.needs - (Needs::INSERT_ID | Needs::MAY_KEEP_INSERT_ID),
            PreparedUse::None | PreparedUse::Execute(_) | PreparedUse::Continue(_) => self.intent.needs,
        }
    }

    /// Whether it asks about the statement before; of several, the later ones ask about the first.
    pub(super) fn asks_about_previous(&self) -> bool {
        self.intent.needs.contains(Needs::DIAGNOSTICS) && self.intent.kind != Kind::Multi
    }

    /// Whether running it twice is the same as running it once.
    pub(super) fn is_repeatable(&self) -> bool {
        self.intent.kind == Kind::Read && !self.continues
    }
}
