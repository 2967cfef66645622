//! Whether a server still answers, asked before what must not be sent into the void.
//!
//! The connections of a process that is killed end one after the other, over some milliseconds. A write sent on one
//! that is about to end would have an unknown outcome, though no server has ever seen it.

use std::time::Duration;

use pointsman_protocol::command::code;
use pointsman_protocol::response::Grammar;

use super::Session;
use super::command::Job;
use crate::backend::connection::ServerConnection;
use crate::backend::inject::{self, Answer};

impl Session {
    /// Whether the job may be sent on the connection: costs a round trip while other connections to the server end.
    ///
    /// Not cancel safe.
    pub(super) async fn may_send(&self, job: &Job, connection: &mut ServerConnection) -> bool {
        let fences = &self.worker.shared.fences;
        if fences.stops(connection.server, connection.epoch) {
            return false;
        }
        // The question has a row count of its own.
        let asks_back = job.asks_about_previous() && job.replacement.is_none();
        if job.is_repeatable() || asks_back || !fences.is_suspect(connection.server) {
            return true;
        }
        let answer = inject::command(connection, &[code::PING], Grammar::Ok, PING_LIMIT).await;
        matches!(answer, Ok(Answer::Ok(_))) && !fences.stops(connection.server, connection.epoch)
    }
}

/// A server that takes longer is in no state to be written to.
const PING_LIMIT: Duration = Duration::from_secs(1);
