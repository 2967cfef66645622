//! What operators ask for: plans, refusals, and the swaps that begin it.

use std::time::Duration;

use super::action::{Action, Level};
use super::controller::Controller;
use super::plan::{Answer, Plan, Refusal, Request, RequestId};
use super::record::{Durability, Kind, Maintenance, Phase, Record};
use super::upkeep::errant;
use super::verdict::Verdict;
use super::watch::Watch;
use crate::gtid::GtidSet;
use crate::topology::ServerId;

impl Controller {
    pub(super) fn take_request(&mut self, id: RequestId, request: Request) {
        let answer = match request {
            Request::Switchover { to, dry_run } => self.ask_switchover(to, dry_run),
            Request::Failover { to, accept_loss, dry_run } => self.ask_failover(to, accept_loss, dry_run),
            Request::Maintenance { server, length, reason } => self.ask_maintenance(server, length, reason),
            Request::Pause { paused, reason } => self.ask_pause(paused, &reason),
            Request::Rejoin { server, dry_run } => self.ask_rejoin(server, dry_run),
            Request::Fence { server, fenced: true, dry_run } => self.ask_fence(server, dry_run),
            Request::Fence { server, fenced: false, dry_run } => self.ask_unfence(server, dry_run),
            Request::Cancel { operation } => self.ask_cancel(operation),
        };
        let answer = answer.unwrap_or_else(Answer::Refused);
        if matches!(answer, Answer::Started(_)) {
            self.waiting.push(id);
        }
        self.out.push(Action::Answer { id, answer });
    }

    fn ask_switchover(&mut self, to: Option<ServerId>, dry_run: bool) -> Result<Answer, Refusal> {
        self.check_free()?;
        let primary =
            self.primary().ok_or_else(|| refusal("there is no primary", "failover --to a server"))?;
        if self.verdict != Verdict::Alive {
            return Err(refusal(
                format!(
                    "the primary {} is {}: {}",
                    self.name(primary),
                    self.verdict.name(),
                    self.verdict.reason()
                ),
                "failover --primary-is-dead, if it is certain",
            ));
        }
        let reasons: Vec<_> = self.ids().filter(|id| *id != primary).map(|id| (id, self.unfit(id))).collect();
        let best = reasons.iter().filter(|(_, reason)| reason.is_none()).map(|(id, _)| *id).next();
        let alternative = || match best {
            Some(best) => format!("promote {}", self.name(best)),
            None => "bring a replica in order first; `pointsman status` says what each one lacks".to_owned(),
        };
        let target = match to {
            Some(to) if to == primary => {
                return Err(refusal(format!("{} is the primary already", self.name(to)), alternative()));
            }
            Some(to) => {
                if let Some((_, Some(reason))) = reasons.iter().find(|(id, _)| *id == to) {
                    return Err(refusal(format!("{}: {reason}", self.name(to)), alternative()));
                }
                to
            }
            None => best.ok_or_else(|| refusal("no replica is fit to become the primary", alternative()))?,
        };
        let plan = self.plan(Kind::Switchover, target, GtidSet::default(), reasons);
        if dry_run {
            return Ok(Answer::Planned(plan));
        }
        self.swap_fencing(Kind::Switchover, Some(target), "asked for by an operator".into());
        Ok(Answer::Started(plan))
    }

    fn ask_failover(
        &mut self,
        to: Option<ServerId>,
        accept_loss: bool,
        dry_run: bool,
    ) -> Result<Answer, Refusal> {
        let in_the_way = self.check_free();
        let is_stuck = self.phase() == Some(Phase::Fencing);
        if !is_stuck {
            in_the_way?;
        }
        let primary = self.primary();
        if let Some(primary) = primary.filter(|id| !is_stuck && self.watch(*id).is_some_and(Watch::up)) {
            return Err(refusal(
                format!("the primary {} answers", self.name(primary)),
                "a switchover, which loses nothing",
            ));
        }
        let reasons: Vec<_> =
            self.ids().filter(|id| Some(*id) != primary).map(|id| (id, self.ineligible(id))).collect();
        let fit = |id: &ServerId| self.watch(*id).is_some_and(Watch::up);
        let held = |id: ServerId| self.report(id).map(Self::surely_holds).unwrap_or_default();
        let target = to.or_else(|| {
            let fit = reasons.iter().filter(|(id, reason)| reason.is_none() && fit(id)).map(|(id, _)| *id);
            fit.reduce(|best, id| if held(best).contains(&held(id)) { best } else { id })
        });
        let target = target.filter(fit).ok_or_else(|| {
            refusal("no server that answers may be promoted", "bring a replica back, or name one with --to")
        })?;
        let last = primary.map(held).unwrap_or_default();
        let lost = last.subtract(&held(target));
        let plan = self.plan(Kind::Forced, target, lost, reasons);
        if dry_run {
            return Ok(Answer::Planned(plan));
        }
        if is_stuck {
            self.force(to, accept_loss);
        } else {
            self.swap_fencing(Kind::Forced, to, "an operator says that the primary is dead".into());
            if let Some(pending) = self.coordination.pending.as_mut() {
                pending.record.accept_loss = accept_loss;
            }
            for action in &mut self.out {
                if let Action::Swap { record, .. } = action {
                    record.accept_loss = accept_loss;
                }
            }
        }
        Ok(Answer::Started(plan))
    }

    /// Gives a failover that waits the operator's word.
    fn force(&mut self, to: Option<ServerId>, accept_loss: bool) {
        let Some(mut record) = self.coordination.record.clone() else { return };
        record.kind = Kind::Forced;
        record.accept_loss |= accept_loss;
        if let Some(to) = to {
            record.candidate = Some(self.name(to));
        }
        self.swap(record);
    }

    fn ask_maintenance(
        &mut self,
        server: ServerId,
        length: Option<Duration>,
        reason: String,
    ) -> Result<Answer, Refusal> {
        let record = self.check_free()?;
        let name = self.name(server);
        let mut record = record.clone();
        let text = match length {
            Some(length) => {
                let seconds = length.as_secs();
                let since_ms = self.wall_ms();
                record.maintenance.insert(name.clone(), Maintenance { seconds, since_ms, reason });
                format!("{name} is in maintenance for {seconds} s")
            }
            None => {
                record.maintenance.remove(&name);
                format!("{name} is not in maintenance any more")
            }
        };
        self.note(Level::Info, text.clone());
        self.swap(record);
        Ok(Answer::Done { text })
    }

    fn ask_pause(&mut self, paused: bool, reason: &str) -> Result<Answer, Refusal> {
        let mut record = self.check_free()?.clone();
        record.paused = paused;
        self.swap(record);
        let state = if paused { "paused" } else { "on" };
        let text = format!("automatic failover is {state}: {reason}");
        self.note(Level::Info, text.clone());
        Ok(Answer::Done { text })
    }

    fn ask_rejoin(&mut self, server: ServerId, dry_run: bool) -> Result<Answer, Refusal> {
        let mut record = self.check_free()?.clone();
        let name = self.name(server);
        let primary = self.primary().filter(|id| self.watch(*id).is_some_and(Watch::up));
        let of_primary = primary.and_then(|id| self.report(id));
        let of_primary = of_primary.ok_or_else(|| refusal("the primary does not answer", "wait for it"))?;
        let report = self.watch(server).filter(|watch| watch.up()).and_then(|watch| watch.report.as_ref());
        let report = report.ok_or_else(|| refusal(format!("{name} does not answer"), "start it first"))?;
        if self.primary() == Some(server) {
            return Err(refusal(format!("{name} is the primary"), "promote another server first"));
        }
        if let Some(errant) = errant(report, of_primary) {
            return Err(refusal(
                format!("{name} holds transactions that the primary does not have: {errant}"),
                "save them if they matter, then set the server up anew from a copy of the primary",
            ));
        }
        let text = format!("{name} will replicate from {}", record.primary.clone().unwrap_or_default());
        if !dry_run {
            record.strayed.insert(name);
            self.swap(record);
        }
        Ok(Answer::Done { text })
    }

    /// Whether a request may change the record now.
    pub(super) fn check_free(&self) -> Result<&Record, Refusal> {
        let Some(record) = &self.coordination.record else {
            return Err(refusal(
                "there is no record of a primary yet",
                "wait until the servers have been seen",
            ));
        };
        if record.phase != Phase::Stable {
            return Err(refusal(
                format!("the primary is being changed by {}: {}", record.actor, record.reason),
                "wait for its end",
            ));
        }
        if let Some(reason) = &self.coordination.barred {
            let alternative = match reason.contains("another proxy") {
                true => "ask that proxy",
                false => "start servers that are down: most of them must answer",
            };
            return Err(refusal(reason.clone(), alternative));
        }
        if let Some(reason) = &self.coordination.lost {
            let reason = format!("the coordinator does not answer: {reason}");
            return Err(refusal(reason, "ask a proxy that reaches it"));
        }
        if self.coordination.pending.is_some() {
            return Err(refusal("another change is on its way", "try again"));
        }
        Ok(record)
    }

    /// Why a replica cannot take the primary's place in an orderly way.
    fn unfit(&self, id: ServerId) -> Option<String> {
        let reason = self.ineligible(id).or_else(|| self.errant(id));
        if reason.is_some() {
            return reason;
        }
        let watch = self.watch(id)?;
        let channel = watch.channel();
        if !channel
            .is_some_and(|channel| channel.applies && channel.receiver == crate::discover::Receiver::Running)
        {
            return Some("does not replicate".into());
        }
        if !channel.is_some_and(|channel| self.leads_to_primary(channel)) {
            return Some("does not replicate from the primary itself".into());
        }
        if channel.is_some_and(|channel| !channel.delay.is_zero()) {
            return Some("is delayed on purpose".into());
        }
        None
    }

    fn plan(
        &self,
        kind: Kind,
        to: ServerId,
        lost: GtidSet,
        reasons: Vec<(ServerId, Option<String>)>,
    ) -> Plan {
        let from = self.primary();
        let to_name = self.name(to);
        let from_name = from.map_or_else(|| "nobody".to_owned(), |id| self.name(id));
        let is_lossless =
            self.coordination.record.as_ref().is_some_and(|r| r.durability == Durability::Lossless);
        let mut steps = vec!["hold writes; reads go on".to_owned()];
        match kind {
            Kind::Switchover => {
                steps.push(format!("set {from_name} read-only"));
                steps.push(format!("wait until {to_name} has applied everything"));
            }
            Kind::Automatic | Kind::Forced => {
                steps.push(format!("fence {from_name}"));
                steps.push("stop what the replicas receive, and let them apply it".to_owned());
            }
        }
        steps.push(format!("promote {to_name}, and point the others at it"));
        if is_lossless {
            steps.push(format!("prove that a replica acknowledges what {to_name} writes"));
        }
        steps.push(format!("open {to_name} and send it the held writes"));
        let others = reasons.into_iter().filter(|(id, _)| *id != to);
        let passed_over =
            others.map(|(id, reason)| (id, reason.unwrap_or_else(|| "would do, too".into()))).collect();
        Plan { kind, from, to, steps, lost, passed_over }
    }
}

pub(super) fn refusal(reason: impl Into<String>, alternative: impl Into<String>) -> Refusal {
    Refusal { reason: reason.into(), alternative: alternative.into() }
}
