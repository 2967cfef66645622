//! FENCING: take the acknowledgements away from the old primary, and prove who holds everything.

use super::acting::Acting;
use super::action::{Level, Step};
use super::controller::Controller;
use super::defect::Defect;
use super::election::{Choice, Entrant, elect, maximal};
use super::event::Mark;
use super::record::{Durability, Kind, Phase, ProxyId, Record};
use super::watch::Watch;
use crate::discover::Report;
use crate::gtid::GtidSet;
use crate::topology::ServerId;
use pointsman_config::{DataLoss, Promotion};

/// What every candidate must hold.
struct Proof {
    floor: GtidSet,
    /// It is proven for the old primary alone, which may still acknowledge.
    only: Option<ServerId>,
}

impl Controller {
    /// One round of FENCING.
    pub(super) fn fence(&mut self) {
        let Some(record) = self.coordination.record.clone() else { return };
        let planned = record.kind == Kind::Switchover
            && self.acting.as_ref().is_some_and(|acting| acting.given_up.is_none());
        if planned && self.switch_over() {
            return;
        }
        if record.stalled && self.forgives_stall() {
            return self.swap(Record { stalled: false, ..record });
        }
        self.fence_primary(record.kind);
        self.gather();
        self.choose();
    }

    /// Nobody else could be proven for a long time: the primary may be taken again, whether it can write by now or not.
    fn forgives_stall(&self) -> bool {
        let Some(acting) = &self.acting else { return false };
        self.primary_is_intact()
            && acting.floor.is_none()
            && self.now.saturating_sub(acting.since) >= self.settings.stalled_for * super::STALLS_FORGIVEN
    }

    /// Fences a primary that does not take part; nobody waits for it.
    fn fence_primary(&mut self, kind: Kind) {
        let failures = self.settings.failures;
        let Some(primary) = self.primary() else { return };
        let is_gone = self.watch(primary).is_none_or(|watch| watch.down(failures));
        let restarted = self.primary_has_restarted();
        let Some(acting) = self.acting.as_mut().filter(|acting| !acting.fenced) else { return };
        if kind != Kind::Switchover || is_gone || restarted {
            acting.fenced = true;
            self.order(primary, Step::Fence);
        }
    }

    /// Stops what the replicas receive, lets them apply it, and reads the old primary's position if it answers.
    fn gather(&mut self) {
        let (now, primary) = (self.now, self.primary());
        if let Some(acting) = &mut self.acting {
            acting.gathers.get_or_insert(now);
        }
        for id in self.ids() {
            // Somebody may have made a replica of the old primary meanwhile.
            let replicates = self.watch(id).and_then(Watch::channel).is_some();
            if Some(id) == primary && !replicates {
                let read = self
                    .acting
                    .as_ref()
                    .and_then(|acting| acting.hand(id))
                    .is_some_and(|h| h.stopped.is_some());
                let fresh = self.watch(id).is_some_and(|w| w.up() && w.asked >= self.coordination.epoch_seen);
                if !read && fresh {
                    self.hand_order(id, Step::ReadPosition);
                }
            } else if let Some(step) = self.next_replica_step(id) {
                self.hand_order(id, step);
            }
        }
    }

    /// Goes on to CHOSEN when it is proven that a candidate holds everything.
    fn choose(&mut self) {
        let entrants = self.entrants();
        let Proof { floor, only } = match self.prove(&entrants) {
            Ok(proof) => proof,
            Err(reason) => return self.stuck(reason),
        };
        if let Some(acting) = self.acting.as_mut().filter(|_| only.is_none()) {
            acting.floor.get_or_insert(floor.clone());
        }
        if !self.settled(&[]) {
            return;
        }
        let choice = elect(&entrants, self.wish().or(only), &|id| self.name(id));
        match choice {
            Choice::Candidate(id) if only.is_some_and(|only| only != id) => {
                self.stuck("only the old primary is known to hold everything".into());
            }
            Choice::Candidate(id) => {
                let Some(entrant) = entrants.iter().find(|entrant| entrant.id == id) else { return };
                if !entrant.holds.contains(&floor) && !self.loss_accepted() {
                    return self.stuck(format!("{} lacks {}", self.name(id), floor.subtract(&entrant.holds)));
                }
                if entrant.applied || self.errs(Defect::PromoteUnapplied) {
                    self.swap_chosen(id, entrant.holds.clone());
                } else {
                    self.stuck(format!("{} has not applied yet all that it has received", self.name(id)));
                }
            }
            Choice::CatchUp { .. } if only.is_some() => {
                self.stuck("another server holds what the old primary does not".into());
            }
            Choice::CatchUp { candidate, source } => {
                // Pointing it elsewhere throws its relay log away, and the source must be worth it.
                let ready = self.report(candidate).is_some_and(Report::has_applied_all);
                let has_floor =
                    entrants.iter().any(|entrant| entrant.id == source && entrant.holds.contains(&floor));
                if !has_floor && !self.loss_accepted() {
                    self.stuck(format!("{} lacks part of {floor}", self.name(source)));
                } else if ready {
                    self.hand_order(candidate, Step::Repoint { source, acker: false });
                }
            }
            Choice::None { reason } => self.stuck(reason),
        }
    }

    /// Who an operator asked for; the old primary after a switchover that was given up.
    fn wish(&self) -> Option<ServerId> {
        let given_up = self.acting.as_ref().is_some_and(|acting| acting.given_up.is_some());
        if !given_up {
            return self.candidate();
        }
        self.primary().filter(|_| self.primary_is_intact())
    }

    pub(super) fn swap_chosen(&mut self, candidate: ServerId, floor: GtidSet) {
        let Some(mut record) = self.coordination.record.clone() else { return };
        record.phase = Phase::Chosen;
        record.candidate = Some(self.name(candidate));
        record.floor = floor;
        self.swap(record);
        if let Some(acting) = &mut self.acting {
            acting.chose = true;
        }
    }

    /// Why it does not go on; said once, and shown to clients that wait.
    pub(super) fn stuck(&mut self, reason: String) {
        if let Some(acting) = &mut self.acting
            && acting.stuck.as_ref() != Some(&reason)
        {
            acting.stuck = Some(reason.clone());
            self.note(Level::Info, format!("waiting: {reason}"));
        }
    }

    /// Whether everything that can be reached has been reached, or was waited for long enough.
    pub(super) fn settled(&self, but: &[ServerId]) -> bool {
        let Some(acting) = &self.acting else { return false };
        let primary = self.primary();
        let waited =
            acting.gathers.is_some_and(|since| self.now.saturating_sub(since) >= super::GATHER_PATIENCE);
        let reached = |id: ServerId| acting.hand(id).is_some_and(|hand| hand.stopped.is_some());
        // Where something may be lost, the old primary may have the most.
        let counts = |id: &ServerId| !but.contains(id) && (Some(*id) != primary || self.loss_accepted());
        waited || self.ids().filter(counts).filter(|id| self.watch(*id).is_some_and(Watch::up)).all(reached)
    }

    fn entrants(&self) -> Vec<Entrant> {
        let Some(acting) = &self.acting else { return Vec::new() };
        let seen =
            |id: &ServerId| self.watch(*id).is_some_and(Watch::up) && self.errs(Defect::ProveWithoutStopping);
        let reached = |id: &ServerId| acting.hand(*id).is_some_and(|hand| hand.stopped.is_some()) || seen(id);
        self.ids().filter(reached).filter_map(|id| self.entrant(id, acting)).collect()
    }

    fn entrant(&self, id: ServerId, acting: &Acting) -> Option<Entrant> {
        let report = self.watch(id)?.report.as_ref()?;
        let is_primary = self.primary() == Some(id);
        if self.barred(id).is_some() {
            return None;
        }
        if is_primary && !self.primary_may_stand(acting) {
            return None;
        }
        let holds = if is_primary { report.executed.clone() } else { Self::surely_holds(report) };
        Some(Entrant {
            id,
            applied: report.executed.contains(&holds),
            holds,
            can_pass_on: self.watch(id)?.channel().is_none_or(|channel| !channel.filtered),
            ineligible: self.ineligible(id),
            rank: self.rank(id),
        })
    }

    /// Why what a server holds proves nothing.
    pub(super) fn barred(&self, id: ServerId) -> Option<String> {
        // What has not rejoined since an earlier failover may hold anything.
        let strayed =
            self.primary() != Some(id) && !self.has_followed(id) && !self.errs(Defect::StrayedStand);
        self.errant(id).or_else(|| strayed.then(|| "has not rejoined".into()))
    }

    /// Whether a server has been a replica of this primary: what strayed in an earlier failover must show its epoch.
    pub(super) fn has_followed(&self, id: ServerId) -> bool {
        let (Some(record), Some(report)) = (&self.coordination.record, self.report(id)) else { return false };
        if !record.strayed.contains(&self.name(id)) {
            return true;
        }
        match (&report.epoch, record.history.last()) {
            (Some(row), Some(past)) => row.epoch >= past.epoch,
            // What was written to by itself may have passed the primary's numbers without holding any of it.
            (Some(_) | None, _) => report.replicates() && self.is_whole(id),
        }
    }

    /// Transactions of a replica that the primary never had.
    pub(super) fn errant(&self, id: ServerId) -> Option<String> {
        if self.primary() == Some(id) {
            return None;
        }
        if let Some(own) = self.own_writes(id) {
            return Some(format!("was written to while it was a replica: {own}"));
        }
        let of_primary = self.primary().and_then(|primary| self.report(primary));
        let lossless = of_primary.filter(|report| report.semi_sync.source);
        self.watch(id)?.divergence.verdict(self.now, lossless)
    }

    /// What a replica wrote itself, beyond what the primary was last seen to have.
    fn own_writes(&self, id: ServerId) -> Option<GtidSet> {
        let floor_is_known = self.coordination.record.as_ref().is_some_and(|record| !record.floor.is_empty());
        let of_primary = self.primary().and_then(|primary| self.report(primary))?;
        let report = self.report(id)?;
        if floor_is_known || of_primary.executed.is_empty() {
            // A candidate that was given up wrote the row of its epoch.
            return None;
        }
        let own = report.executed.subtract(&of_primary.executed);
        own.names_author(report.server_id, &report.uuid).then_some(own)
    }

    /// The old primary may go on if it has not restarted and takes writes, or if restarting loses nothing.
    fn primary_may_stand(&self, acting: &Acting) -> bool {
        let Some(record) = &self.coordination.record else { return false };
        if record.stalled && self.primary_lives_as_claimed() && !self.errs(Defect::StalledStands) {
            return false;
        }
        self.primary_is_intact()
            || record.durability == Durability::Async
            || self.all_in_view(acting)
            || self.errs(Defect::RestartedPrimaryStands)
    }

    pub(super) fn primary_is_intact(&self) -> bool {
        let up = self.primary().and_then(|id| self.watch(id)).is_some_and(Watch::up);
        up && self.primary_lives_as_claimed()
    }

    pub(super) fn is_lossless(&self) -> bool {
        self.coordination.record.as_ref().is_some_and(|record| record.durability == Durability::Lossless)
    }

    /// Where commits wait for acknowledgements, the old primary is known to be another process than the record speaks of: it
    /// may have cut off what was acknowledged, and waits for nobody any more.
    pub(super) fn primary_has_restarted(&self) -> bool {
        let life = self.primary().and_then(|id| self.watch(id)).map_or(0, Watch::incarnation);
        life != 0 && self.is_lossless() && !self.primary_lives_as_claimed()
    }

    /// As far as was seen, the old primary has not restarted since it lost its role.
    fn primary_lives_as_claimed(&self) -> bool {
        let Some(record) = &self.coordination.record else { return false };
        let Some(watch) = self.primary().and_then(|id| self.watch(id)) else { return false };
        let name = record.primary.as_deref().unwrap_or_default();
        record.lives.get(name).is_some_and(|life| *life == watch.incarnation())
    }

    /// Every copy that can exist of anything acknowledged has been stopped and read, and what some can no longer make
    /// use of others have.
    fn all_in_view(&self, acting: &Acting) -> bool {
        let Some(record) = &self.coordination.record else { return false };
        let names = record.ackers.iter().chain(record.primary.as_ref());
        let read = |name: &String| {
            let id = self.find(name)?;
            acting.hand(id).filter(|hand| hand.stopped.is_some()).and_then(|_| self.report(id))
        };
        let Some(reports) = names.map(read).collect::<Option<Vec<_>>>() else { return false };
        let mut usable = GtidSet::default();
        reports.iter().for_each(|report| usable.merge(&Self::surely_holds(report)));
        reports.iter().all(|report| usable.contains(&report.held()))
    }

    pub(super) fn ineligible(&self, id: ServerId) -> Option<String> {
        let watch = self.watch(id)?;
        let server = self.settings.servers.get(usize::from(id.0))?;
        let record = self.coordination.record.as_ref()?;
        let channel = watch.channel();
        let is_primary = self.primary() == Some(id);
        let region =
            self.primary().and_then(|id| self.settings.servers.get(usize::from(id.0))).map(|p| &p.region);
        if server.promotion == Promotion::Never && !is_primary {
            Some("promotion is never".into())
        } else if record.maintenance.contains_key(&server.name) {
            Some("is in maintenance".into())
        } else if record.fenced.contains(&server.name) {
            Some("is fenced".into())
        } else if region.is_some_and(|region| *region != server.region) {
            Some(format!("is in region {:?}", server.region))
        } else if channel.is_some_and(|channel| channel.filtered) {
            Some("has replication filters".into())
        } else if let Some(channel) = channel.filter(|c| !c.applies && c.applier_error.code != 0) {
            Some(format!("does not apply: error {}", channel.applier_error.code))
        } else if !watch.up() {
            Some("does not answer".into())
        } else {
            None
        }
    }

    fn rank(&self, id: ServerId) -> u32 {
        let zone =
            self.primary().and_then(|id| self.settings.servers.get(usize::from(id.0))).map(|p| &p.zone);
        let Some(server) = self.settings.servers.get(usize::from(id.0)) else { return u32::MAX };
        let preferred = server.promotion == Promotion::Prefer;
        // An old primary that must be written to again comes last: it has just failed.
        u32::from(self.primary() == Some(id)) * 4
            + u32::from(!preferred) * 2
            + u32::from(zone.is_some_and(|zone| *zone != server.zone))
    }

    /// What every candidate must hold, if it is proven that nothing else was acknowledged and nothing more will be.
    fn prove(&self, entrants: &[Entrant]) -> Result<Proof, String> {
        let (Some(acting), Some(record)) = (&self.acting, &self.coordination.record) else {
            return Err("nothing to do".into());
        };
        if self.held.as_ref().is_none_or(|(epoch, _)| *epoch < record.epoch) {
            return Err("this proxy still has connections of the old epoch".into());
        }
        if let Some(floor) = &acting.floor {
            return Ok(Proof { floor: floor.clone(), only: None });
        }
        let best = maximal(entrants).and_then(|best| best.first().map(|entrant| entrant.holds.clone()));
        let Some(best) = best else { return Err("no server with everything was reached".into()) };
        let standing = entrants.iter().find(|entrant| self.primary() == Some(entrant.id));
        if record.durability == Durability::Async && !self.leases_over() && !self.errs(Defect::IgnoreLeases) {
            return Err("another proxy may still acknowledge writes".into());
        }
        let is_final = |entrant: &Entrant| {
            let read_only = self.report(entrant.id).is_some_and(|report| report.read_only);
            read_only || self.errs(Defect::TrustWritablePrimary)
        };
        let proven = match record.durability {
            _ if standing.is_some_and(is_final) => Ok(()),
            Durability::Lossless => self.prove_by_quorum(acting, entrants, &best),
            Durability::Async => self.prove_by_marks(),
        };
        let (best, only) = match (proven, standing) {
            (Ok(()), _) => (best, None),
            // What it acknowledges meanwhile to clients that came directly nobody else may have.
            (Err(_), Some(primary)) => (primary.holds.clone(), Some(primary.id)),
            (Err(reason), None) => return Err(reason),
        };
        let mut marks = self.marks();
        if record.durability == Durability::Async
            && let Some(baseline) = &self.baseline
        {
            marks.merge(baseline);
        }
        if best.contains(&marks) || self.loss_accepted() || self.errs(Defect::IgnoreMarks) {
            Ok(Proof { floor: best, only })
        } else {
            Err(format!(
                "acknowledged and not found on any server that was reached: {}",
                marks.subtract(&best)
            ))
        }
    }

    fn prove_by_quorum(&self, acting: &Acting, entrants: &[Entrant], best: &GtidSet) -> Result<(), String> {
        let Some(record) = &self.coordination.record else { return Ok(()) };
        // One that the configuration names no more may hold what nobody else does.
        let missing = |name: &&String| {
            let proves = |id| self.counts(acting, id, entrants) && self.has_no_more_than(id, best);
            self.find(name).map_or(!self.errs(Defect::CountUnlistedAcker), |id| !proves(id))
        };
        let named = |name: &String| {
            let Some(id) = self.find(name) else { return format!("{name} (in no configuration)") };
            match acting.hand(id).and_then(|hand| hand.stopped) {
                None => name.clone(),
                Some(_) => match self.barred(id) {
                    Some(reason) => format!("{name} ({reason})"),
                    None if self.is_whole(id) => name.clone(),
                    None => {
                        format!("{name} (its replication began anew, and the primary was not seen since)")
                    }
                },
            }
        };
        let missing: Vec<_> = record.ackers.iter().filter(missing).map(named).collect();
        let counted = record.ackers.len() - missing.len() + usize::from(self.errs(Defect::QuorumOneShort));
        if counted >= record.quorum() || (record.accept_loss && !entrants.is_empty()) {
            return Ok(());
        }
        Err(format!(
            "{counted} of {} ackers are stopped with whole relay logs, {} are needed; missing: {}",
            record.ackers.len(),
            record.quorum(),
            missing.join(", ")
        ))
    }

    /// Whether an acker's position proves something: it is stopped, and has lost nothing since it last held the
    /// primary's position.
    fn counts(&self, acting: &Acting, id: ServerId, entrants: &[Entrant]) -> bool {
        let stopped = acting.hand(id).is_some_and(|hand| hand.stopped.is_some())
            || self.errs(Defect::ProveWithoutStopping);
        let whole = self.is_whole(id) || self.errs(Defect::CountRestartedAcker);
        stopped && whole && entrants.iter().any(|entrant| entrant.id == id)
    }

    /// What a server has received and cannot apply may be the only copy of something acknowledged.
    fn has_no_more_than(&self, id: ServerId, best: &GtidSet) -> bool {
        self.report(id).is_some_and(|report| best.contains(&report.held()))
            || self.errs(Defect::StopReceiverFirst)
    }

    /// Whether a server has lost nothing since it last held the primary's position.
    fn is_whole(&self, id: ServerId) -> bool {
        let (Some(record), Some(watch)) = (&self.coordination.record, self.watch(id)) else { return false };
        watch.whole || record.lives.get(&self.name(id)).is_some_and(|life| *life == watch.incarnation())
    }

    fn prove_by_marks(&self) -> Result<(), String> {
        if self.loss_accepted() || self.errs(Defect::IgnoreMarks) {
            return Ok(());
        }
        if self.baseline.is_none() {
            return Err("it is not known what a proxy that is gone had acknowledged".into());
        }
        let Some(record) = &self.coordination.record else { return Ok(()) };
        let mut witnesses = record.witnesses.iter().chain(&self.coordination.proxies);
        match witnesses.find(|id| !self.has_testified(id) && !self.errs(Defect::IgnoreLeases)) {
            Some(silent) => Err(format!("the proxy {silent} has not said what it acknowledged last")),
            None => Ok(()),
        }
    }

    /// Whether it is known what a proxy has acknowledged at most.
    fn has_testified(&self, id: &ProxyId) -> bool {
        let said = if *id == self.settings.proxy {
            self.held.as_ref()
        } else {
            self.peers.get(id).and_then(|peer| peer.fenced.as_ref())
        };
        said.is_some_and(|(epoch, mark)| *epoch >= self.epoch() && matches!(mark, Mark::Known(_)))
    }

    /// Everything that any proxy is known to have acknowledged.
    fn marks(&self) -> GtidSet {
        let mut union = GtidSet::default();
        let own = self.held.iter().map(|(_, mark)| mark);
        let peers = self.peers.values().flat_map(|peer| {
            peer.fenced.iter().map(|(_, mark)| mark).chain(std::iter::once(&peer.alive.mark))
        });
        for position in own.chain(peers).filter_map(Mark::known) {
            union.merge(position);
        }
        union
    }

    fn loss_accepted(&self) -> bool {
        let Some(record) = &self.coordination.record else { return false };
        let waited =
            self.acting.as_ref().is_some_and(|a| self.now.saturating_sub(a.since) >= super::LOSS_PATIENCE);
        let by_policy =
            record.durability == Durability::Async && self.settings.data_loss == DataLoss::Accept && waited;
        record.accept_loss || by_policy
    }
}
