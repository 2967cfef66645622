//! Built-in functions and system variables whose use says more than "a read".

use crate::intent::{Effects, Kind, Needs, Target};

/// What using a function or a variable means for the statement.
#[derive(Clone, Copy, Debug)]
pub(super) struct Special {
    pub(super) kind: Kind,
    pub(super) target: Target,
    pub(super) effects: Effects,
    pub(super) needs: Needs,
    pub(super) why: &'static str,
}

impl Special {
    const fn primary(kind: Kind, why: &'static str) -> Self {
        Self { kind, target: Target::Primary, effects: Effects::empty(), needs: Needs::empty(), why }
    }

    const fn session(kind: Kind, needs: Needs, why: &'static str) -> Self {
        Self { kind, target: Target::Session, effects: Effects::empty(), needs, why }
    }

    const fn with_effects(self, effects: Effects) -> Self {
        Self { effects, ..self }
    }

    const fn with_needs(self, needs: Needs) -> Self {
        Self { needs, ..self }
    }
}

const SERVER: Special = Special::primary(Kind::ServerQuestion, "asks about the server");
const VARIABLE: Special = Special::primary(Kind::ServerQuestion, "asks for a variable of the server");
const LOCK: Special = Special::primary(Kind::Lock, "takes or releases a lock of the session");
const WAIT: Special = Special::primary(Kind::ServerQuestion, "waits for the server's replication")
    .with_needs(Needs::PRIMARY_ITSELF);
const SEQUENCE: Special = Special::primary(Kind::UnprovenRead, "moves a sequence, or depends on a move");
const PATH: Special = Special::primary(Kind::UnprovenRead, "its path may read user variables");
const SETS_INSERT_ID: Special =
    Special::primary(Kind::UnprovenRead, "changes LAST_INSERT_ID()").with_effects(Effects::SETS_INSERT_ID);
const DIAGNOSTICS: Special =
    Special::session(Kind::Diagnostics, Needs::DIAGNOSTICS, "asks about the statement before");
const INSERT_ID: Special =
    Special::session(Kind::Diagnostics, Needs::INSERT_ID, "asks for the session's last insert id");
const CONNECTION_ID: Special =
    Special::session(Kind::ServerQuestion, Needs::CONNECTION_ID, "asks for the session's connection id");
const SOCKET: Special =
    Special::session(Kind::ServerQuestion, Needs::SOCKET, "asks for the socket to connect to");

/// What a call of the lower-case name means; none for ordinary functions.
pub(super) fn function(lower: &[u8], has_arguments: bool) -> Option<Special> {
    let special = match lower {
        b"get_lock" => LOCK.with_effects(Effects::USER_LOCK),
        b"release_lock" => LOCK,
        b"release_all_locks" => LOCK.with_effects(Effects::USER_LOCKS_RELEASED),
        b"is_used_lock" => SERVER.with_needs(Needs::PROCESS_IDS),
        b"is_free_lock" => SERVER,
        b"last_insert_id" if has_arguments => SETS_INSERT_ID,
        b"last_insert_id" => INSERT_ID,
        b"found_rows" | b"row_count" => DIAGNOSTICS,
        b"connection_id" => CONNECTION_ID,
        b"nextval" | b"setval" | b"lastval" => SEQUENCE,
        b"extractvalue" | b"updatexml" => PATH,
        b"ps_current_thread_id" | b"ps_thread_id" => SERVER.with_needs(Needs::PROCESS_IDS),
        b"version"
        | b"load_file"
        | b"uuid_short"
        | b"icu_version"
        | b"roles_graphml"
        | b"validate_password_strength"
        | b"des_encrypt"
        | b"des_decrypt"
        | b"wsrep_last_seen_gtid"
        | b"wsrep_last_written_gtid" => SERVER,
        b"binlog_gtid_pos" => SERVER.with_needs(Needs::PRIMARY_ITSELF),
        b"master_pos_wait"
        | b"source_pos_wait"
        | b"master_gtid_wait"
        | b"wait_for_executed_gtid_set"
        | b"wsrep_sync_wait_upto_gtid" => WAIT,
        _ => return None,
    };
    Some(special)
}

/// What reading a system variable means, by its lower-case name without scope.
pub(super) fn variable(lower: &[u8]) -> Special {
    match lower {
        b"socket" => SOCKET,
        b"identity" | b"last_insert_id" => INSERT_ID,
        b"warning_count" | b"error_count" => DIAGNOSTICS,
        b"pseudo_thread_id" => CONNECTION_ID,
        _ if lower.starts_with(b"gtid_") => VARIABLE.with_needs(Needs::PRIMARY_ITSELF),
        _ => VARIABLE,
    }
}
