//! LAST_INSERT_ID() of a session whose statements run on several connections.
//!
//! What an INSERT's answer says is not always what LAST_INSERT_ID() is afterwards: rows with ids of their own and
//! `ON DUPLICATE KEY UPDATE` show an id there and leave LAST_INSERT_ID() alone. So the connection that ran it is asked
//! before it goes to another session, and what may leave the value as it is finds the session's there beforehand.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pointsman_router::intent::{Effects, Kind, Needs};

use super::Session;
use super::command::Job;
use super::relay::Reply;
use crate::backend::connection::{InsertId, LastInsertId, ServerConnection};
use crate::backend::inject;
use crate::backend::sync::{self, SyncError};

impl Session {
    /// LAST_INSERT_ID(), unless a connection has to be asked first.
    pub(super) fn known_insert_id(&self) -> Option<u64> {
        match &self.insert_id {
            None => Some(0),
            Some((_, saved)) => saved.is_confirmed().then(|| saved.get()),
        }
    }

    /// Makes LAST_INSERT_ID() right on a connection of this session's, for a statement that asks for it or may leave it
    /// as it is.
    pub(super) async fn carry_insert_id(
        &self,
        connection: &mut ServerConnection,
        needs: Needs,
    ) -> Result<(), SyncError> {
        let concerned = needs.intersects(Needs::INSERT_ID | Needs::MAY_KEEP_INSERT_ID);
        if !concerned || self.made_insert_id_on(connection) {
            return Ok(());
        }
        self.ask_for_insert_id().await;
        set_insert_id(connection, self.likely_insert_id()).await
    }

    /// LAST_INSERT_ID(), or what it most likely is while no connection has been asked.
    pub(super) fn likely_insert_id(&self) -> u64 {
        self.insert_id.as_ref().map_or(0, |(_, saved)| saved.get())
    }

    /// The statements that made what LAST_INSERT_ID() is have run again on this connection.
    pub(super) fn made_insert_id_again(&mut self, connection: &mut ServerConnection) {
        if self.insert_id.is_some() {
            self.insert_id_is_on(connection, self.likely_insert_id());
        }
    }

    fn insert_id_is_on(&mut self, connection: &mut ServerConnection, likely: u64) {
        let saved = Arc::new(InsertId::new(likely));
        connection.insert_id = LastInsertId::OfOwner(saved.clone());
        self.insert_id = Some((connection.serial, saved));
    }

    /// Whether the connection has the session's value without our knowing it.
    fn made_insert_id_on(&self, connection: &ServerConnection) -> bool {
        match (&connection.insert_id, &self.insert_id) {
            (LastInsertId::OfOwner(here), Some((_, ours))) => Arc::ptr_eq(here, ours),
            (LastInsertId::OfOwner(_) | LastInsertId::Is(_) | LastInsertId::Unknown, _) => false,
        }
    }

    /// Asks the connection that knows, if nobody has used it since, or waits until the session that has taken it has
    /// asked.
    async fn ask_for_insert_id(&self) {
        let Some((serial, saved)) = &self.insert_id else { return };
        let deadline = Instant::now() + INSERT_ID_TIMEOUT;
        while !saved.is_confirmed() && Arc::strong_count(saved) > 1 && Instant::now() < deadline {
            self.ask_own_connection(*serial).await;
            if !saved.is_confirmed() {
                tokio::time::sleep(INSERT_ID_POLL).await;
            }
        }
    }

    async fn ask_own_connection(&self, serial: u64) {
        let Some(primary) = self.worker.topology().primary else { return };
        let Some(mut own) = self.worker.pool.take_own(primary, serial, self.slot.id) else { return };
        // A connection that cannot answer is closed.
        if sync::save_insert_id(&mut own, None).await.is_ok() {
            self.worker.pool.give_back(own);
        }
    }

    /// Takes note of an answer after which LAST_INSERT_ID() may be another.
    pub(super) fn note_insert_id(&mut self, job: &Job, connection: &mut ServerConnection, reply: &Reply) {
        if reply.insert_id == 0 && !may_hide_insert_id(job, reply) {
            return;
        }
        let likely = if reply.insert_id == 0 { self.likely_insert_id() } else { reply.insert_id };
        self.insert_id_is_on(connection, likely);
    }
}

/// Puts a value in the place of a connection's own.
pub(super) async fn set_insert_id(connection: &mut ServerConnection, value: u64) -> Result<(), SyncError> {
    if connection.insert_id.is(value) {
        return Ok(());
    }
    let sql = format!("SET last_insert_id = {value}");
    match inject::query(connection, sql.as_bytes(), INSERT_ID_TIMEOUT).await? {
        inject::Answer::Ok(_) => {
            connection.insert_id = LastInsertId::Is(value);
            Ok(())
        }
        inject::Answer::Err(error) => Err(SyncError::Refused(error)),
    }
}

/// Whether LAST_INSERT_ID() may have changed although no OK packet shows an id: after a failure in mid-statement, behind
/// RETURNING, in a procedure, by LAST_INSERT_ID(n).
fn may_hide_insert_id(job: &Job, reply: &Reply) -> bool {
    let intent = &job.intent;
    if intent.effects.intersects(Effects::SETS_INSERT_ID | Effects::UNKNOWN_STATE) {
        return true;
    }
    let writes = matches!(intent.kind, Kind::Write | Kind::LoadLocal | Kind::Multi);
    let shows_none = reply.error.is_some() || reply.row_count < 0 || intent.kind == Kind::Multi;
    writes && shows_none && job.needs().contains(Needs::MAY_KEEP_INSERT_ID)
}

const INSERT_ID_POLL: Duration = Duration::from_millis(1);
const INSERT_ID_TIMEOUT: Duration = Duration::from_secs(2);
