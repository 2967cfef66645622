//! What the data plane and the other proxies are told.

use std::time::Duration;

use super::action::{Action, Service, To};
use super::controller::Controller;
use super::defect::Defect;
use super::event::{Alive, Mark, Message, Stall};
use super::record::{Durability, Kind, Phase, Record};
use super::verdict::Verdict;
use super::watch::Watch;

impl Controller {
    /// Tells the data plane, if it has to do something else than before.
    pub(super) fn serve(&mut self) {
        let service = self.wanted_service();
        if service != self.service {
            self.service = service.clone();
            self.out.push(Action::Serve(service));
        }
    }

    fn wanted_service(&self) -> Service {
        let hold =
            |epoch, reason: &str| Service::Hold { epoch, grace: Duration::ZERO, reason: reason.into() };
        let Some(record) = &self.coordination.record else {
            return hold(0, "there is no record of a primary yet");
        };
        let epoch = record.epoch;
        match record.phase {
            Phase::Stable | Phase::Active => self.service_of_primary(record),
            Phase::Fencing if record.kind == Kind::Switchover => {
                let given_up = self.acting.as_ref().is_some_and(|acting| acting.given_up.is_some());
                let grace = if given_up { Duration::ZERO } else { self.settings.transaction_timeout };
                Service::Hold { epoch, grace, reason: "switchover".into() }
            }
            Phase::Chosen if self.errs(Defect::OpenBeforeActive) && self.opened_early() => Service::Writes {
                primary: self.candidate().unwrap_or(crate::topology::ServerId(0)),
                epoch,
                until: None,
            },
            Phase::Fencing | Phase::Chosen => {
                let stuck = self.acting.as_ref().and_then(|acting| acting.stuck.clone());
                let waits = self.now.saturating_sub(self.coordination.epoch_seen) >= super::STUCK_AFTER;
                match stuck.filter(|_| waits) {
                    Some(reason) => Service::ReadsOnly { epoch, reason },
                    None => hold(epoch, &record.reason),
                }
            }
        }
    }

    /// Only ever asked by a controller that errs on purpose.
    fn opened_early(&self) -> bool {
        self.candidate().and_then(|id| self.acting.as_ref()?.hand(id)).is_some_and(|hand| hand.writable)
    }

    fn service_of_primary(&self, record: &Record) -> Service {
        let epoch = record.epoch;
        let hold = |reason: &str| Service::Hold { epoch, grace: Duration::ZERO, reason: reason.into() };
        let Some(primary) = self.primary() else { return hold("the primary is not configured here") };
        if record.durability == Durability::Async && self.lease_until().is_none_or(|until| self.now >= until)
        {
            return hold("this proxy has lost the coordinator: another one may promote a server");
        }
        if self.coordination.lost.is_some() && self.writes_stall() {
            return hold("writes are not acknowledged, and this proxy has lost the coordinator");
        }
        if record.phase == Phase::Active && !self.is_open(record) {
            return hold("the new primary is not writable yet");
        }
        let replaceable = matches!(self.verdict, Verdict::Dead { .. }) || self.primary_lost_its_role();
        match (&self.refusal, replaceable) {
            (Some(reason), true) => Service::ReadsOnly { epoch, reason: reason.clone() },
            (None, true) => hold(self.verdict.reason()),
            (_, false) => {
                let is_async = record.durability == Durability::Async;
                let until = self.lease_until().filter(|_| is_async);
                Service::Writes { primary, epoch, until }
            }
        }
    }

    /// Whether the primary of an ACTIVE record is known to be writable.
    fn is_open(&self, record: &Record) -> bool {
        let Some(primary) = self.primary() else { return false };
        let by_us =
            self.acting.as_ref().and_then(|acting| acting.hand(primary)).is_some_and(|hand| hand.writable);
        let seen = self.watch(primary).is_some_and(|watch| {
            watch.asked >= self.coordination.epoch_seen
                && watch.report.as_ref().is_some_and(|report| {
                    !report.read_only && report.epoch.as_ref().is_some_and(|row| row.epoch == record.epoch)
                })
        });
        by_us || seen
    }

    fn writes_stall(&self) -> bool {
        self.beats.stall(self.now).is_some_and(|(since, _)| since >= super::ACK_STALL)
    }

    /// Tells the others what they should know: at once when it changes, and again and again while somebody may wait
    /// for it. At other times it is said with each renewal of this proxy's registration.
    pub(super) fn tell_peers(&mut self) {
        let alive = self.alive();
        let due = match &self.said_alive {
            None => true,
            Some((_, said)) if *said != alive => true,
            Some((at, _)) => self.now.saturating_sub(*at) >= super::PEER_EVERY && self.is_listened_to(),
        };
        if !due {
            return;
        }
        self.said_alive = Some((self.now, alive.clone()));
        self.out.push(Action::Tell { to: To::All, message: Message::Alive(Box::new(alive)) });
        let fencing = matches!(self.phase(), Some(Phase::Fencing | Phase::Chosen));
        if let Some((epoch, mark)) = self.held.clone().filter(|(epoch, _)| fencing && *epoch >= self.epoch())
        {
            self.out.push(Action::Tell { to: To::All, message: Message::Fenced { epoch, mark } });
        }
    }

    /// Whether somebody may need to know that this proxy lives and what it sees: while the primary's place moves, and
    /// while anybody has lost sight of the primary.
    fn is_listened_to(&self) -> bool {
        if self.coordination.proxies.len() < 2 {
            return false;
        }
        let moves = self.phase().is_some_and(|phase| phase != Phase::Stable);
        let lost_by_us = self.verdict != Verdict::Alive
            || self.primary().and_then(|id| self.watch(id)).is_some_and(|watch| watch.misses > 0);
        let lost_by_peer = self.peers.values().any(|peer| {
            let fresh = peer.heard.is_some_and(|at| self.now.saturating_sub(at) < super::ACTOR_PATIENCE);
            fresh && peer.alive.epoch == self.epoch() && !peer.alive.reaches_primary
        });
        moves || lost_by_us || lost_by_peer
    }

    fn alive(&self) -> Alive {
        Alive {
            epoch: self.epoch(),
            reaches_primary: self.primary().and_then(|id| self.watch(id)).is_some_and(Watch::up),
            reaches_all: self.members().all(Watch::up),
            coordinator_lost: self.coordination.lost.is_some(),
            mark: self.held.as_ref().map_or(Mark::Unknown, |(_, mark)| mark.clone()),
        }
    }

    /// Every registered proxy has confirmed that it holds writes.
    pub(super) fn all_fenced(&self) -> bool {
        let others = self.coordination.proxies.iter().filter(|id| **id != self.settings.proxy);
        others.into_iter().all(|id| {
            let fenced = self.peers.get(id).and_then(|peer| peer.fenced.as_ref());
            fenced.is_some_and(|(epoch, _)| *epoch >= self.epoch())
        })
    }
}

impl Stall {
    /// How many times [`super::Settings::stalled_for`] it is waited for; none where another server would do no better.
    pub(super) fn patience(self) -> Option<u32> {
        match self {
            Self::NoAcker => None,
            Self::DiskFull | Self::Unknown => Some(1),
            Self::LargeTransaction => Some(super::LARGE_TRANSACTION_PATIENCE),
        }
    }
}
