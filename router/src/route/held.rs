//! What binds a session to the connection that it holds, and what makes it leave a replica.

use super::{Decision, Request, keeps_on_primary, refusal};
use crate::intent::{Effects, Intent, Kind, Target};
use crate::session::{Pins, Transaction};
use crate::topology::{ServerId, Topology};

/// Where a statement goes whose session holds a connection to `server`; none when nothing binds it to that.
pub(super) fn on(request: &Request<'_>, topology: &Topology, server: ServerId) -> Option<Decision> {
    let intent = request.intent;
    let pins = request.session.pins() - Pins::FLEETING;
    let asks_back = intent.asks_back();
    if pins.is_empty() {
        // What is left of the previous statement binds only who asks for it.
        return asks_back.then_some(Decision::Pinned);
    }
    if topology.primary == Some(server) || request.listener_read_only || asks_back {
        return Some(Decision::Pinned);
    }
    match request.session.transaction() {
        Transaction::ReadOnly => Some(in_read_only_transaction(request)),
        Transaction::ReadWrite => Some(Decision::Pinned),
        // What the session had there is not left in silence.
        Transaction::None if request.pinned_is_lost && pins.intersects(!MAY_LIE_ON_REPLICA) => {
            Some(Decision::Pinned)
        }
        // A cursor or long data lies on a replica.
        Transaction::None if may_run_on_replica(request) || intent.target == Target::SameAsTransaction => {
            Some(Decision::Pinned)
        }
        Transaction::None => {
            Some(Decision::LeaveReplica { reason: "the session's connection is to a replica".into() })
        }
    }
}

/// Pins that a session without a transaction may have on a replica.
const MAY_LIE_ON_REPLICA: Pins = Pins::CURSOR.union(Pins::LONG_DATA).union(Pins::MULTI_STATEMENTS_OPTION);

/// A READ ONLY transaction on a replica: the server refuses writes by itself, with 1792, whoever the account is.
/// It does not refuse what commits first, what locks, and procedures, which may do anything.
fn in_read_only_transaction(request: &Request<'_>) -> Decision {
    if ends_transaction(request.intent) {
        return Decision::LeaveReplica { reason: "ends a READ ONLY transaction on a replica".into() };
    }
    if stays_in_read_only_transaction(request.intent) {
        Decision::Pinned
    } else {
        Decision::Refuse(refusal::needs_primary_in_read_only_transaction())
    }
}

/// Whether a server would end the open transaction before or while it runs the statement.
fn ends_transaction(intent: &Intent) -> bool {
    let effects = intent.effects;
    let commits = Effects::IMPLICIT_COMMIT | Effects::LOCK_TABLES | Effects::GLOBAL_READ_LOCK;
    effects.intersects(commits)
        || matches!(intent.kind, Kind::Begin | Kind::BeginReadOnly | Kind::Ddl | Kind::Administration)
        || (intent.kind == Kind::Multi
            && intent.target == Target::Primary
            && effects.contains(Effects::MAY_COMMIT))
}

fn stays_in_read_only_transaction(intent: &Intent) -> bool {
    let mut leaves = Pins::of(intent.effects) - Pins::FLEETING - Pins::TEMPORARY_TABLE;
    if intent.kind == Kind::SetTransaction {
        // Refused by every server while a transaction is open: nothing is left.
        leaves -= Pins::ONE_SHOT;
    }
    let may_stay = match intent.kind {
        Kind::Read
        | Kind::UnprovenRead
        | Kind::Write
        | Kind::TemporaryTable
        | Kind::LoadLocal
        | Kind::Savepoint
        | Kind::Commit
        | Kind::Rollback
        | Kind::Diagnostics
        | Kind::ServerQuestion
        | Kind::Lock
        | Kind::Xa
        | Kind::Empty => true,
        // SET GLOBAL is meant for the primary, and several statements are more than the last of them.
        Kind::Set | Kind::SetTransaction | Kind::Use | Kind::Multi => intent.target != Target::Primary,
        Kind::Begin
        | Kind::BeginReadOnly
        | Kind::Ddl
        | Kind::TextPrepare
        | Kind::Handler
        | Kind::Call
        | Kind::Kill
        | Kind::Administration
        | Kind::Unknown => false,
    };
    may_stay && leaves.is_empty()
}

/// Whether the statement is one that a replica may be given at all.
fn may_run_on_replica(request: &Request<'_>) -> bool {
    match request.intent.target {
        Target::Any => true,
        Target::Replica => keeps_on_primary(request).is_none(),
        Target::Primary | Target::Session | Target::SameAsTransaction => false,
    }
}
