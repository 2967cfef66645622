//! Which replica serves a read, and what it has to wait for.

use std::time::Duration;

use pointsman_config::{Consistency, NoReplica};

use super::{Asked, Decision, Request, Why, no_primary_reason, refusal, usable_primary};
use crate::balance::{Balancer, Candidate};
use crate::gtid::GtidSet;
use crate::intent::Flavour;
use crate::session::{STAY, Seen};
use crate::topology::{Role, ServerId, ServerView, State, Topology};

/// What a replica has to execute before it may serve the read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wait {
    /// In the server's syntax.
    pub position: String,
    pub timeout: Duration,
}

impl Wait {
    /// The statement that waits; its one value is `0` when the position was reached, and nothing else counts.
    pub fn sql(&self, flavour: Flavour) -> String {
        let (position, seconds) = (&self.position, self.timeout.as_secs_f64());
        match flavour {
            Flavour::Mariadb => format!("SELECT MASTER_GTID_WAIT('{position}', {seconds:.3})"),
            Flavour::Mysql => format!("SELECT WAIT_FOR_EXECUTED_GTID_SET('{position}', {seconds:.3})"),
        }
    }
}

/// A read that touches no data: the session's replica, else any, else the primary.
pub(super) fn anywhere(
    request: &Request<'_>,
    topology: &Topology,
    balancer: &mut Balancer,
    now: Duration,
    random: u64,
) -> Decision {
    let candidates = gather(request, topology, balancer, |_| true);
    let stays = request.session.seen().filter(|seen| candidates.iter().any(|c| c.id == seen.server));
    let picked = stays.map(|seen| seen.server).or_else(|| balancer.pick(&candidates, now, random));
    balancer.scratch = candidates;
    let reason = Why::Borrowed("the same on every server");
    match picked {
        Some(id) => Decision::Replica { id, wait: None, reason },
        None => without_replica(request, topology, reason),
    }
}

/// A proven read.
pub(super) fn read(
    request: &Request<'_>,
    topology: &Topology,
    balancer: &mut Balancer,
    now: Duration,
    random: u64,
    reason: Why,
) -> Decision {
    let candidates = gather(request, topology, balancer, |_| true);
    let mut reader = Reader { request, topology, balancer, now, random, candidates: &candidates };
    let decision = reader.decide(reason);
    balancer.scratch = candidates;
    decision
}

/// One read looking for its replica.
struct Reader<'a, 'b> {
    request: &'a Request<'a>,
    topology: &'a Topology,
    balancer: &'b mut Balancer,
    now: Duration,
    random: u64,
    /// Replicas that may serve reads of this session, whatever it has to see.
    candidates: &'a [Candidate],
}

/// What a server that takes over from another has to contain, so that the session does not go back in time.
enum Evidence<'a> {
    /// Nothing beyond the floor.
    Nothing,
    Position(&'a GtidSet),
    /// The session has read since the servers were last asked.
    Unknown,
}

impl<'a> Reader<'a, '_> {
    fn decide(&mut self, reason: Why) -> Decision {
        if !self.candidates.iter().any(|candidate| candidate.weight > 0) {
            return without_replica(self.request, self.topology, "no replica may serve reads".into());
        }
        match self.request.consistency {
            Consistency::Eventual => {
                let picked = self.balancer.pick(self.candidates, self.now, self.random);
                self.on(picked, reason)
            }
            Consistency::Session => self.within_session(reason),
            Consistency::Global => match self.request.asked {
                Asked::No => Decision::AskPosition { reason: "global consistency".into() },
                Asked::Answered => self.within_session(reason),
                Asked::Failed => self.on_primary("the primary's position is not known"),
            },
        }
    }

    fn within_session(&mut self, reason: Why) -> Decision {
        let seen = self.request.session.seen();
        // The replica that served this session last, if it still may.
        let last = seen.filter(|seen| self.is_candidate(seen.server));
        let covered = last.filter(|seen| seen.covers_floor);
        if let Some(seen) = covered
            && self.is_good(seen.server)
            && self.now.saturating_sub(seen.since) < STAY
        {
            return self.on(Some(seen.server), reason);
        }
        match self.evidence(seen) {
            Evidence::Unknown => self.blindly(last, reason),
            Evidence::Nothing => self.choose(covered, &GtidSet::Empty, reason),
            Evidence::Position(position) => self.choose(covered, position, reason),
        }
    }

    /// What the session may have seen on the server it read from last.
    fn evidence(&self, seen: Option<Seen>) -> Evidence<'a> {
        let Some(seen) = seen else { return Evidence::Nothing };
        if self.request.asked == Asked::Answered {
            return Evidence::Nothing;
        }
        let asked_since = |view: &&ServerView| view.position_at >= seen.at;
        let last = self.topology.server(seen.server);
        if let Some(view) = last.filter(asked_since) {
            return Evidence::Position(&view.position);
        }
        // A replica is never ahead of the primary.
        if let Some(view) = self.topology.primary().filter(asked_since) {
            return Evidence::Position(&view.position);
        }
        Evidence::Unknown
    }

    /// A choice while it is not known what the last server had shown: to stay, or to ask.
    fn blindly(&mut self, last: Option<Seen>, reason: Why) -> Decision {
        if let Some(seen) = last {
            if !seen.covers_floor {
                return self.wait_on_last(seen, reason);
            }
            let preferred = self.balancer.pick(self.candidates, self.now, self.random);
            if preferred == Some(seen.server) || self.request.asked == Asked::Failed {
                return self.on(Some(seen.server), reason);
            }
        }
        match (self.request.asked, usable_primary(self.request, self.topology)) {
            (Asked::No, Some(_)) => Decision::AskPosition { reason: "moves to another server".into() },
            (Asked::Answered | Asked::Failed, Some(_)) => {
                self.on_primary("what the session has seen is not known")
            }
            // Without a primary the best that is known has to do, so that reads go on.
            (_, None) => match last {
                Some(seen) => self.on(Some(seen.server), reason),
                None => self.choose(None, &GtidSet::Empty, reason),
            },
        }
    }

    /// The session's replica has to reach a floor that was raised since.
    fn wait_on_last(&mut self, seen: Seen, reason: Why) -> Decision {
        let Some(view) = self.topology.server(seen.server) else { return self.on_primary("unknown server") };
        if view.position.contains(self.request.floor()) {
            return self.on(Some(seen.server), reason);
        }
        if can_wait(self.request, view) {
            return self.wait_on(seen.server, &GtidSet::Empty);
        }
        self.on_primary("the session's replica is too far behind")
    }

    /// A replica that is past the floor and `seen`, else one that can get there in time, else the primary.
    fn choose(&mut self, covered: Option<Seen>, seen: &GtidSet, reason: Why) -> Decision {
        let floor = self.request.floor();
        let topology = self.topology;
        let is_past = |candidate: &Candidate| {
            covered.is_some_and(|covered| covered.server == candidate.id)
                || topology
                    .server(candidate.id)
                    .is_some_and(|view| view.position.contains(floor) && view.position.contains(seen))
        };
        if let Some(id) = self.pick_where(is_past) {
            return self.on(Some(id), reason);
        }
        let request = self.request;
        let can_wait =
            |candidate: &Candidate| topology.server(candidate.id).is_some_and(|view| can_wait(request, view));
        match self.pick_where(can_wait) {
            Some(id) => self.wait_on(id, seen),
            None => self.on_primary("no replica has what the session has seen"),
        }
    }

    fn pick_where(&mut self, holds: impl Fn(&Candidate) -> bool) -> Option<ServerId> {
        // Usually all candidates qualify, and none has to be copied.
        if self.candidates.iter().all(&holds) {
            return self.balancer.pick(self.candidates, self.now, self.random);
        }
        let some: Vec<Candidate> = self.candidates.iter().filter(|c| holds(c)).copied().collect();
        self.balancer.pick(&some, self.now, self.random)
    }

    fn is_candidate(&self, id: ServerId) -> bool {
        self.candidates.iter().any(|candidate| candidate.id == id && candidate.weight > 0)
    }

    /// Whether no other candidate is of a better grade.
    fn is_good(&self, id: ServerId) -> bool {
        let fresh = |c: &Candidate| c.fresh && c.weight > 0;
        self.candidates.iter().any(|c| c.id == id && c.fresh) || !self.candidates.iter().any(fresh)
    }

    fn on(&self, picked: Option<ServerId>, reason: Why) -> Decision {
        match picked {
            Some(id) => Decision::Replica { id, wait: None, reason },
            None => self.on_primary("no replica may serve reads"),
        }
    }

    fn wait_on(&self, id: ServerId, seen: &GtidSet) -> Decision {
        let mut position = self.request.floor().clone();
        position.merge(seen);
        let wait = Wait { position: position.to_string(), timeout: self.request.routing.read_wait };
        Decision::Replica { id, wait: Some(wait), reason: "waits for what the session has seen".into() }
    }

    /// A replica could serve the read, but not with what the session has seen.
    fn on_primary(&self, reason: &'static str) -> Decision {
        if self.request.listener_read_only {
            return Decision::Hold { reason: reason.into() };
        }
        super::primary(self.request, self.topology, reason.into())
    }
}

/// Whether the server can be expected to reach the newest position within `routing.read_wait`.
fn can_wait(request: &Request<'_>, view: &ServerView) -> bool {
    let limit = request.routing.read_wait;
    request.may_wait && !limit.is_zero() && view.lag.is_some_and(|lag| lag <= limit)
}

/// `routing.no_replica` decides.
fn without_replica(request: &Request<'_>, topology: &Topology, reason: Why) -> Decision {
    if !topology.ready {
        return Decision::Hold { reason: no_primary_reason(topology) };
    }
    match request.routing.no_replica {
        NoReplica::Wait => Decision::Hold { reason },
        NoReplica::Primary if !request.listener_read_only => super::primary(request, topology, reason),
        NoReplica::Primary | NoReplica::Error => Decision::Refuse(refusal::no_replica(&reason)),
    }
}

/// The replicas that may serve reads of this session, in the balancer's scratch space.
fn gather(
    request: &Request<'_>,
    topology: &Topology,
    balancer: &mut Balancer,
    holds: impl Fn(&ServerView) -> bool,
) -> Vec<Candidate> {
    let mut candidates = std::mem::take(&mut balancer.scratch);
    candidates.clear();
    for view in &topology.servers {
        let serves =
            view.role == Role::Replica && view.state == State::Online && Some(view.id) != topology.primary;
        let Some(lag) = view.lag.filter(|lag| *lag <= request.lag.maximum) else { continue };
        if serves && !request.excluded.contains(&view.id) && holds(view) {
            candidates.push(Candidate {
                id: view.id,
                weight: view.weight,
                fresh: lag <= request.lag.preferred,
                // Comparing two empty strings costs 150 ns where a masked load meets their dangling pointers.
                near: request.routing.zone.is_empty() || view.zone == request.routing.zone,
                online_since: view.online_since,
            });
        }
    }
    candidates
}
