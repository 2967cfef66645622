//! Values that no server knows, put into a statement's text: our connection id, our socket, and what the previous
//! statement left on a connection that has gone to another session.

use std::ops::Range;

use pointsman_protocol::command::Command;
use pointsman_protocol::packet::{HEADER_LEN, write_packet};
use pointsman_router::classify::{self, Call};
use pointsman_router::intent::Needs;

use super::Session;
use super::command::Job;

/// A piece of the statement and what stands there instead.
#[derive(Debug)]
struct Edit {
    range: Range<usize>,
    text: String,
}

impl Session {
    /// Replaces the job's packet where its text names something that only Pointsman can answer.
    pub(super) fn substitute(&self, job: &mut Job) {
        if !job.intent.needs.intersects(SUBSTITUTED) || job.continues {
            return;
        }
        let payload = &self.client.bytes()[HEADER_LEN..job.len];
        let (sql, runs_now) = match Command::parse(payload, &self.login.capabilities) {
            Ok(Command::Query(query)) => (query.sql, true),
            Ok(Command::StmtPrepare(sql)) => (sql, false),
            Ok(_) | Err(_) => return,
        };
        let mut edits = Vec::new();
        // An answer that names connections is translated as a whole: there the server's own id is right.
        if job.intent.needs.contains(Needs::CONNECTION_ID) && !job.intent.needs.contains(Needs::PROCESS_IDS) {
            // With the type of the function: as long as the longest number that it gives.
            let id = format!("CAST({:010} AS UNSIGNED)", self.slot.id);
            self.edit_calls(sql, "connection_id", &id, &mut edits);
        }
        if job.intent.needs.contains(Needs::SOCKET) {
            let socket = self.own_socket();
            for call in classify::variables(sql, &self.state.mode(), "socket") {
                edits.push(edit(sql, &call, &socket));
            }
        }
        if runs_now && job.asks_about_previous() && !self.diagnostics_are_at_hand() {
            self.edit_calls(sql, "row_count", &big_integer(self.last.row_count), &mut edits);
            let found_rows = i64::try_from(self.last.found_rows).unwrap_or(i64::MAX);
            self.edit_calls(sql, "found_rows", &big_integer(found_rows), &mut edits);
        }
        if edits.is_empty() {
            return;
        }
        let head = payload.len() - sql.len();
        let mut changed = payload[..head].to_vec();
        changed.extend_from_slice(&apply(sql, edits));
        let mut packet = Vec::with_capacity(changed.len() + HEADER_LEN);
        write_packet(&mut packet, 0, &changed);
        job.replacement = Some(packet);
    }

    fn edit_calls(&self, sql: &[u8], name: &str, value: &str, edits: &mut Vec<Edit>) {
        for call in classify::calls(sql, &self.state.mode(), name) {
            edits.push(edit(sql, &call, value));
        }
    }

    /// Whether the connection of the previous statement is still this session's.
    pub(super) fn diagnostics_are_at_hand(&self) -> bool {
        if self.held.is_some() || self.in_session_mode() {
            return true;
        }
        self.last_server.is_some_and(|server| {
            let serial = self.last_used.get(usize::from(server.0)).copied().unwrap_or_default();
            self.worker.pool.has_own(server, serial, self.slot.id, self.state.fingerprint())
        })
    }

    /// Our own Unix socket as an SQL literal; drivers reconnect to what a server names.
    fn own_socket(&self) -> String {
        match &self.worker.shared.config.listen.rw.socket {
            Some(path) => format!("'{}'", path.display().to_string().replace('\'', "''")),
            None => "NULL".to_owned(),
        }
    }
}

/// An item of its own in the select list keeps the name that the client expects of the column.
fn edit(sql: &[u8], call: &Call, value: &str) -> Edit {
    let text = if call.alone_in_select_list {
        let name = String::from_utf8_lossy(&sql[call.range.clone()]).replace('`', "``");
        format!("{value} AS `{name}`")
    } else {
        format!("({value})")
    };
    Edit { range: call.range.clone(), text }
}

/// An expression of the type BIGINT, which both functions have; a short literal would be an INT on MariaDB.
fn big_integer(value: i64) -> String {
    if value < 0 {
        format!("(-{}+{})", i64::MAX, i64::MAX.wrapping_add(value))
    } else {
        format!("({}-{})", i64::MAX, i64::MAX - value)
    }
}

fn apply(sql: &[u8], mut edits: Vec<Edit>) -> Vec<u8> {
    edits.sort_by_key(|edit| edit.range.start);
    let mut out = Vec::with_capacity(sql.len() + 64);
    let mut at = 0;
    for edit in edits {
        out.extend_from_slice(&sql[at..edit.range.start]);
        out.extend_from_slice(edit.text.as_bytes());
        at = edit.range.end;
    }
    out.extend_from_slice(&sql[at..]);
    out
}

const SUBSTITUTED: Needs = Needs::CONNECTION_ID.union(Needs::SOCKET).union(Needs::DIAGNOSTICS);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn big_integers() {
        assert_eq!(big_integer(3), "(9223372036854775807-9223372036854775804)");
        assert_eq!(big_integer(-1), "(-9223372036854775807+9223372036854775806)");
    }

    #[test]
    fn edits_keep_what_stands_around_them() {
        let edits = vec![
            Edit { range: 18..21, text: "xyz".into() },
            Edit { range: 7..10, text: "1 AS `f()`".into() },
        ];
        assert_eq!(apply(b"SELECT f(), g() + h(), 2", edits), b"SELECT 1 AS `f()`, g() + xyz, 2");
    }
}
