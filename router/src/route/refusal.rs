//! Statements that no server is asked.

use super::Request;
use crate::intent::{Effects, Flavour, Kind, Needs, Target};
use crate::session::Pins;
use crate::topology::Topology;

/// The error that a client gets instead of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub code: u16,
    pub sqlstate: [u8; 5],
    pub message: String,
}

impl Refusal {
    fn new(code: u16, sqlstate: &[u8; 5], message: impl Into<String>) -> Self {
        Self { code, sqlstate: *sqlstate, message: message.into() }
    }
}

/// What may not run on the listener whose sessions never leave the replicas: the answer is that of a read-only
/// server, which drivers know.
pub(super) fn on_read_only_listener(request: &Request<'_>, topology: &Topology) -> Option<Refusal> {
    let intent = request.intent;
    let proven = matches!(intent.target, Target::Replica | Target::Any);
    let harmless = match intent.kind {
        Kind::Read
        | Kind::Begin
        | Kind::BeginReadOnly
        | Kind::Commit
        | Kind::Rollback
        | Kind::Savepoint
        | Kind::Diagnostics
        | Kind::ServerQuestion
        | Kind::Empty => true,
        // SET GLOBAL and a server's own connection ids are meant for the primary.
        Kind::Set | Kind::SetTransaction | Kind::Use | Kind::Kill => intent.target != Target::Primary,
        // The replica itself stops what would write.
        Kind::UnprovenRead => request.stopped_by_read_only && !intent.effects.contains(Effects::USER_LOCK),
        Kind::Write
        | Kind::Ddl
        | Kind::Xa
        | Kind::Lock
        | Kind::TemporaryTable
        | Kind::TextPrepare
        | Kind::Handler
        | Kind::Call
        | Kind::LoadLocal
        | Kind::Administration
        | Kind::Multi
        | Kind::Unknown => proven,
    };
    let stopped = !intent.needs.contains(Needs::STOPPED_BY_READ_ONLY) || request.stopped_by_read_only;
    let locks =
        Pins::of(intent.effects).intersects(Pins::LOCK_TABLES | Pins::GLOBAL_READ_LOCK | Pins::USER_LOCK);
    if harmless && stopped && !locks || intent.target == Target::Any {
        return None;
    }
    let server = match topology.flavour {
        Flavour::Mariadb => "MariaDB",
        Flavour::Mysql => "MySQL",
    };
    let text = format!(
        "The {server} server is running with the --read-only option so it cannot execute this statement"
    );
    Some(Refusal::new(ER_OPTION_PREVENTS_STATEMENT, b"HY000", text))
}

/// In a transaction that cannot leave its replica.
pub(super) fn needs_primary_in_read_only_transaction() -> Refusal {
    let text = "This statement needs the primary, but its READ ONLY transaction runs on a replica; \
                begin the transaction without READ ONLY";
    Refusal::new(ER_NOT_SUPPORTED_YET, b"42000", text)
}

pub(super) fn no_replica(reason: &str) -> Refusal {
    let text = format!("The read needs a replica and there is none: {reason}");
    Refusal::new(ER_OPTION_PREVENTS_STATEMENT, b"HY000", text)
}

const ER_NOT_SUPPORTED_YET: u16 = 1235;
const ER_OPTION_PREVENTS_STATEMENT: u16 = 1290;
