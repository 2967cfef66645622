//! An open transaction whose server is gone is done again on the new primary, unless anything about it differs.
//!
//! The client sees neither. Where its transaction cannot be done again it is told that it was rolled back: no server
//! has committed it, because no statement of it could commit.

use std::io;
use std::time::{Duration, Instant};

use pointsman_protocol::capability::Status;
use pointsman_protocol::command::code;
use pointsman_protocol::packet::HEADER_LEN;
use pointsman_router::intent::{Kind, Needs};
use pointsman_router::session::Pins;
use pointsman_router::topology::{ServerId, Topology};

use super::Session;
use super::checkout::AcquireError;
use super::command::{Job, PreparedUse};
use super::insert_id::set_insert_id;
use super::journal::{Done, Journal};
use super::relay::Reply;
use super::statement::Attempts;
use crate::backend::connection::ServerConnection;
use crate::backend::inject;
use crate::backend::sync::SyncError;
use crate::error::{ClientError, SessionError};

/// What keeps a session on its connection, as far as a loss of it is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PinnedBy {
    Nothing,
    /// Only a transaction, which may be done again.
    Transaction,
    More,
}

/// A transaction whose connection is gone.
#[derive(Debug)]
pub(super) struct Lost {
    server: ServerId,
    epoch: u64,
    /// What ends the session if its server was not even replaced.
    pub(super) error: SessionError,
}

impl Lost {
    pub(super) fn new(connection: &ServerConnection, error: SessionError) -> Self {
        Self { server: connection.server, epoch: connection.epoch, error }
    }
}

/// What came of doing a transaction again.
enum Replayed {
    Same(Box<ServerConnection>),
    Different(&'static str),
    /// The server cannot be reached, or not any more.
    Unreachable,
}

impl Session {
    pub(super) fn pinned_by(&self, job: &Job) -> PinnedBy {
        let pins = self.state.pins();
        let lasting = pins - Pins::FLEETING;
        let asked_back = pins.intersects(Pins::FLEETING) && job.intent.asks_back();
        if lasting == Pins::TRANSACTION {
            PinnedBy::Transaction
        } else if lasting.is_empty() && !asked_back {
            PinnedBy::Nothing
        } else {
            PinnedBy::More
        }
    }

    /// Whether the answer to the job is to be known again: it runs in a transaction, or begins one.
    pub(super) fn is_noted(&self, job: &Job) -> bool {
        let begins = matches!(job.intent.kind, Kind::Begin | Kind::BeginReadOnly);
        begins || self.state.in_transaction() || !self.state.autocommit()
    }

    /// Takes note of a statement that was answered, for as long as a transaction is open.
    pub(super) fn note_in_journal(&mut self, job: &Job, reply: &Reply, pins_before: Pins) {
        if !self.state.in_transaction() {
            return self.journal.clear();
        }
        let statement = match job.prepared {
            // Prepared again when it is executed.
            PreparedUse::Prepare(_) => return,
            PreparedUse::None => None,
            PreparedUse::Execute(id) | PreparedUse::Continue(id) => Some(id),
        };
        let sent = match &job.replacement {
            Some(replacement) => Some(&replacement[..]),
            None if job.continues => None,
            None => Some(&self.client.bytes()[..job.len]),
        };
        let typed = statement.zip(sent).and_then(|(id, packet)| self.with_types(id, packet));
        // Nothing has shown yet that a bulk execution answers the same a second time.
        let is_bulk = sent.is_some_and(|packet| packet.get(HEADER_LEN) == Some(&code::STMT_BULK_EXECUTE));
        let is_whole =
            reply.digest.is_some() && !is_bulk && !matches!(job.prepared, PreparedUse::Continue(_));
        let done = Done {
            intent: &job.intent,
            packet: typed.as_deref().or(sent).filter(|_| is_whole),
            statement,
            answer: reply.digest.unwrap_or_default(),
            pins: pins_before | self.state.pins(),
            insert_id: reply.insert_id,
            insert_id_before: self.likely_insert_id(),
            has_gtid: !reply.gtid.is_empty(),
        };
        self.journal.note(&done, self.worker.shared.config.failover.replay_limit);
    }

    /// Does the lost transaction again on the next primary and holds its connection; false when the client was told
    /// that it is rolled back.
    ///
    /// # Errors
    ///
    /// What ends the session where the server lives on: then its connection was ended on purpose. Not cancel safe.
    pub(super) async fn move_transaction(&mut self, job: &Job, lost: Lost) -> Result<bool, SessionError> {
        self.slot.holds.set(None);
        let began = Instant::now();
        let mut attempts = Attempts::new(self);
        let reason = loop {
            let topology = self.worker.topology();
            match topology.primary {
                Some(primary) if (primary, topology.epoch) != (lost.server, lost.epoch) => {
                    if let Some(reason) = self.journal.spoilt() {
                        break reason;
                    }
                    let left = attempts.hold_left(self.worker.settings().routing.hold_timeout);
                    let replay = self.replay_on(primary, &topology);
                    match tokio::time::timeout(left, replay).await {
                        Ok(Replayed::Same(connection)) => {
                            self.worker.counters.replayed_transactions.one();
                            self.slot.holds.set(Some((connection.server, connection.thread_id)));
                            self.held = Some(connection);
                            return Ok(true);
                        }
                        Ok(Replayed::Different(reason)) => break reason,
                        Ok(Replayed::Unreachable) => {}
                        Err(_elapsed) => break "doing it again took too long",
                    }
                }
                Some(_) if began.elapsed() > ENDED_ON_PURPOSE => return Err(lost.error),
                Some(_) | None => {}
            }
            if !self.hold("the transaction's server is gone", &mut attempts, job).await? {
                break "no server took the primary's place in time";
            }
        };
        self.transaction_is_rolled_back(job, reason).await.map(|()| false)
    }

    async fn transaction_is_rolled_back(&mut self, job: &Job, reason: &str) -> Result<(), SessionError> {
        tracing::info!(session = self.slot.id, reason, "transaction rolled back with its server");
        self.worker.counters.lost_transactions.one();
        self.journal.clear();
        self.state.connection_is_gone();
        let text = format!(
            "The transaction was rolled back: its server is gone and it was not done again: {reason}"
        );
        self.finish_unsent(&ClientError::new(ER_ERROR_DURING_COMMIT, b"HY000", text), job).await
    }

    async fn replay_on(&mut self, primary: ServerId, topology: &Topology) -> Replayed {
        let mut connection = match self.acquire(primary, topology, Needs::empty()).await {
            Ok(connection) => connection,
            Err(AcquireError::Unreachable(_)) => return Replayed::Unreachable,
            Err(AcquireError::Refused(_)) => {
                return Replayed::Different("the new primary refused the session");
            }
            Err(AcquireError::PoolTimeout) => return Replayed::Different("no server connection became free"),
        };
        // Written back: another server may have to be tried.
        let journal = std::mem::take(&mut self.journal);
        let outcome = self.replay(&journal, &mut connection).await;
        self.journal = journal;
        match outcome {
            Ok(None) => {
                self.made_insert_id_again(&mut connection);
                Replayed::Same(connection)
            }
            Ok(Some(difference)) => Replayed::Different(difference),
            Err(error) => {
                tracing::debug!(%error, "replay failed");
                Replayed::Unreachable
            }
        }
    }

    /// Runs all statements and compares their answers; the first difference, if there is one.
    async fn replay(
        &mut self,
        journal: &Journal,
        connection: &mut ServerConnection,
    ) -> io::Result<Option<&'static str>> {
        if let Err(error) = set_insert_id(connection, journal.insert_id_before()).await {
            return match error {
                SyncError::Io(error) => Err(error),
                SyncError::Unusable | SyncError::Refused(_) => {
                    Ok(Some("the new primary refused the session"))
                }
            };
        }
        for (entry, packet) in journal.statements() {
            let packet = match entry.statement {
                None => packet.to_vec(),
                Some(id) => match self.for_connection(connection, id, packet).await? {
                    Some(packet) => packet,
                    None => return Ok(Some("a prepared statement of it is gone")),
                },
            };
            if inject::digest(connection, &packet).await? != entry.answer {
                return Ok(Some("a statement of it was answered differently"));
            }
            if !connection.status.contains(Status::IN_TRANS) {
                return Ok(Some("the new primary did not keep it open"));
            }
        }
        Ok(None)
    }
}

/// A server that lives on for so long after one of its connections ended has ended it on purpose.
const ENDED_ON_PURPOSE: Duration = Duration::from_secs(1);
const ER_ERROR_DURING_COMMIT: u16 = 1180;
