//! Where a statement goes: one pure function of the statement, its session, the servers and the time.
//!
//! The rule behind all of it: the primary, unless the statement is proven to be a pure read and a replica is
//! known, or will be made to have seen, what the session has to see.

mod held;
mod read;
mod refusal;
mod rules;

use std::borrow::Cow;
use std::time::Duration;

use pointsman_config::{Consistency, Lag, ListenerName, Routing, RuleTarget};

pub use read::Wait;
pub use refusal::Refusal;
pub use rules::Rules;

use crate::balance::Balancer;
use crate::gtid::GtidSet;
use crate::intent::{Hint, Intent, Kind, Needs, Target};
use crate::session::{Pins, SessionState};
use crate::topology::{ServerId, State, Topology};

/// Why a decision is what it is, as one short phrase; borrowed, so that telling it costs nothing.
pub type Why = Cow<'static, str>;

/// Everything a decision depends on, besides the servers and the time.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    pub intent: &'a Intent,
    pub session: &'a SessionState,
    /// The consistency of this statement: of its hint, its session, its user, its listener or the configuration.
    pub consistency: Consistency,
    /// What is known of the primary's position as of this statement.
    pub asked: Asked,
    /// The server of the connection that the session holds.
    pub pinned: Option<ServerId>,
    /// That server has lost the primary's place since: nothing is sent on the connection any more.
    pub pinned_is_lost: bool,
    /// The statement will leave a cursor or long data on its connection, which its text does not tell.
    pub will_pin: bool,
    /// No wait for a position has failed for this statement: a second one would only add to the delay.
    pub may_wait: bool,
    /// Servers that failed this statement or refuse this user.
    pub excluded: &'a [ServerId],
    pub listener_read_only: bool,
    /// read_only stops this account's writes.
    pub stopped_by_read_only: bool,
    pub user: &'a [u8],
    pub digest: u128,
    pub rules: &'a Rules,
    pub routing: &'a Routing,
    pub lag: &'a Lag,
}

/// Whether the primary's position was asked since the statement arrived.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Asked {
    #[default]
    No,
    /// It was, and the session's floor has it: see [`SessionState::floor_is_asked`].
    Answered,
    /// It was, in vain.
    Failed,
}

/// What to do with a statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Run it on the topology's primary.
    Primary {
        reason: Why,
    },
    /// Run it on this server, after the wait if there is one. Not always a replica: what follows up on the previous
    /// statement goes where that ran.
    Replica {
        id: ServerId,
        wait: Option<Wait>,
        reason: Why,
    },
    /// Run it on the connection that the session holds.
    Pinned,
    /// End what the session has on the held connection to a replica, its READ ONLY transaction above all, and
    /// route again: the statement must run on the primary and ends such a transaction anyway.
    LeaveReplica {
        reason: Why,
    },
    /// Ask the primary for its position, give it to [`SessionState::floor_is_asked`], and route again.
    AskPosition {
        reason: Why,
    },
    /// Wait for another topology, up to `routing.hold_timeout`.
    Hold {
        reason: Why,
    },
    Refuse(Refusal),
}

/// Decides where a statement goes. `random` is any number and only spreads load.
pub fn route(
    request: &Request<'_>,
    topology: &Topology,
    balancer: &mut Balancer,
    now: Duration,
    random: u64,
) -> Decision {
    if request.listener_read_only
        && let Some(refusal) = refusal::on_read_only_listener(request, topology)
    {
        return Decision::Refuse(refusal);
    }
    if let Some(server) = request.pinned
        && let Some(decision) = held::on(request, topology, server)
    {
        return decision;
    }
    match place(request, topology) {
        Place::Primary(reason) => primary(request, topology, reason),
        Place::Anywhere => read::anywhere(request, topology, balancer, now, random),
        Place::Replica(reason) => read::read(request, topology, balancer, now, random, reason),
    }
}

/// Where a statement belongs that nothing holds on a connection.
enum Place {
    Primary(Why),
    /// Any server gives the same answer.
    Anywhere,
    Replica(Why),
}

fn place(request: &Request<'_>, topology: &Topology) -> Place {
    let intent = request.intent;
    if request.listener_read_only && intent.target == Target::Primary {
        return Place::Replica("read-only listener".into());
    }
    match intent.target {
        Target::Any => return Place::Anywhere,
        Target::Session | Target::SameAsTransaction if may_run_without_primary(request, topology) => {
            return Place::Anywhere;
        }
        Target::Session => return Place::Primary("changes the session".into()),
        Target::SameAsTransaction => return Place::Primary("outside of a transaction".into()),
        Target::Primary if intent.kind == Kind::BeginReadOnly => {}
        Target::Primary if may_be_asked_elsewhere(request, topology) => {
            return Place::Replica("a question about the server, without a primary to ask".into());
        }
        Target::Primary => return Place::Primary("not proven to be a pure read".into()),
        Target::Replica => {}
    }
    if request.listener_read_only {
        return Place::Replica("pure read".into());
    }
    if intent.hint == Some(Hint::Primary) {
        return Place::Primary("hint".into());
    }
    if let Some(reason) = keeps_on_primary(request) {
        return Place::Primary(reason.into());
    }
    if intent.hint == Some(Hint::Replica) {
        return Place::Replica("hint".into());
    }
    match request.rules.first(request) {
        Some((RuleTarget::Primary, name)) => Place::Primary(format!("rule {name}").into()),
        Some((RuleTarget::Replica, name)) => Place::Replica(format!("rule {name}").into()),
        None => Place::Replica("pure read".into()),
    }
}

/// Why a proven read does not leave the primary.
fn keeps_on_primary(request: &Request<'_>) -> Option<&'static str> {
    let (intent, session) = (request.intent, request.session);
    if intent.needs.contains(Needs::STOPPED_BY_READ_ONLY) && !request.stopped_by_read_only {
        return Some("a stored function, and read_only does not stop this account");
    }
    if request.will_pin || !(Pins::of(intent.effects) - Pins::FLEETING).is_empty() {
        return Some("leaves something on its connection");
    }
    if session.is_serializable() {
        return Some("serializable");
    }
    if !session.autocommit() && intent.kind != Kind::BeginReadOnly && !session.begins_read_only() {
        return Some("autocommit is off");
    }
    None
}

/// What changes only the session runs on a replica while there is no primary, so that reads can go on.
fn may_run_without_primary(request: &Request<'_>, topology: &Topology) -> bool {
    let leaves = Pins::of(request.intent.effects) - Pins::FLEETING;
    leaves.is_empty() && (request.listener_read_only || usable_primary(request, topology).is_none())
}

/// What drivers ask when they connect, for `@@max_allowed_packet` and the like, a replica answers while there is no
/// primary: applications could not open connections to read with otherwise.
fn may_be_asked_elsewhere(request: &Request<'_>, topology: &Topology) -> bool {
    let intent = request.intent;
    intent.kind == Kind::ServerQuestion
        && !intent.needs.intersects(Needs::PROCESS_IDS | Needs::PRIMARY_ITSELF)
        && intent.hint != Some(Hint::Primary)
        && keeps_on_primary(request).is_none()
        && usable_primary(request, topology).is_none()
}

fn primary(request: &Request<'_>, topology: &Topology, reason: Why) -> Decision {
    match usable_primary(request, topology) {
        Some(_) => Decision::Primary { reason },
        None => Decision::Hold { reason: no_primary_reason(topology) },
    }
}

/// The primary, if new work may start on it.
fn usable_primary(request: &Request<'_>, topology: &Topology) -> Option<ServerId> {
    let primary = topology.primary()?;
    let usable = primary.state == State::Online && !request.excluded.contains(&primary.id);
    usable.then_some(primary.id)
}

fn no_primary_reason(topology: &Topology) -> Why {
    if !topology.ready {
        return "the servers have not been looked at yet".into();
    }
    match topology.primary() {
        None if topology.no_primary_reason.is_empty() => "no primary".into(),
        None => topology.no_primary_reason.clone().into(),
        Some(primary) => match primary.state {
            State::Online => "the primary did not serve this statement".into(),
            State::Down => "the primary does not answer".into(),
            State::Draining => "the primary is being drained".into(),
            State::Excluded | State::Lagging | State::Unknown | State::Gone => {
                "the primary cannot be used".into()
            }
        },
    }
}

impl Request<'_> {
    fn listener(&self) -> ListenerName {
        if self.listener_read_only { ListenerName::Ro } else { ListenerName::Rw }
    }

    fn floor(&self) -> &GtidSet {
        self.session.floor()
    }
}

#[cfg(test)]
mod tests;
