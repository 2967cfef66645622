//! The controller of one proxy: what it knows, and the order in which an event is worked through.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::acting::Acting;
use super::action::{Action, Level, Note, Service, Step, StepId, StepOrder};
use super::beats::Beats;
use super::coordination::Coordination;
use super::event::{Alive, Event, Heartbeat, Mark, Outcome, StepError};
use super::plan::RequestId;
use super::record::{Durability, Phase, ProxyId, Record, Revision};
use super::settings::Settings;
use super::verdict::Verdict;
use super::watch::Watch;
use super::{FROZEN_AFTER, STEP_EXPIRES, STEP_TIMEOUT, TICK_ACTING, TICK_IDLE};
use crate::gtid::GtidSet;
use crate::topology::ServerId;

/// Decides, for one proxy, who takes writes. See [`super`].
#[derive(Debug)]
pub struct Controller {
    pub(super) settings: Settings,
    pub(super) now: Duration,
    pub(super) started: Duration,
    pub(super) watches: Vec<Watch>,
    pub(super) coordination: Coordination,
    pub(super) peers: BTreeMap<ProxyId, Peer>,
    pub(super) verdict: Verdict,
    /// Since when the verdict has had its name.
    pub(super) verdict_since: Duration,
    pub(super) beats: Beats,
    /// What this proxy does while the record names it as the actor.
    pub(super) acting: Option<Acting>,
    /// Steps outside of a change of the primary, one for each server.
    pub(super) upkeep: BTreeMap<ServerId, Upkeep>,
    /// Former primaries that get back what they have lost only as ackers.
    pub(super) lacks_own: BTreeSet<ServerId>,
    /// Servers whose clients have been ended since an operator fenced them.
    pub(super) isolated: BTreeSet<ServerId>,
    pub(super) service: Service,
    /// What the data plane has confirmed: no OK from before this epoch, and the mark.
    pub(super) held: Option<(u64, Mark)>,
    pub(super) said_alive: Option<(Duration, Alive)>,
    /// A position of the primary from after the last time that a proxy went away: everything is in it that those who are
    /// gone have acknowledged in this epoch.
    pub(super) baseline: Option<GtidSet>,
    pub(super) departed: Duration,
    /// Why the primary is not replaced although there is reason to.
    pub(super) refusal: Option<String>,
    /// The newest epoch whose row this proxy has seen to outside of a promotion.
    pub(super) epoch_row_written: u64,
    /// By name of the server: which maintenance, and until when on this process's clock.
    pub(super) maintenance_until: BTreeMap<String, (u64, Duration)>,
    /// Since when nobody acknowledges but servers of the configuration, and the primary's position at that time.
    pub(super) known_alone: Option<(Duration, GtidSet)>,
    /// Since when too few are attached to acknowledge anything.
    pub(super) unacknowledged: Option<Duration>,
    /// Requests that wait for the end of the change that they have begun.
    pub(super) waiting: Vec<RequestId>,
    /// Said already, so that it is not said at every tick.
    pub(super) noted: BTreeSet<String>,
    pub(super) probed: Duration,
    pub(super) steps: u64,
    pub(super) swaps: u64,
    pub(super) out: Vec<Action>,
}

/// Another proxy.
#[derive(Debug, Default)]
pub(super) struct Peer {
    pub(super) alive: Alive,
    pub(super) heard: Option<Duration>,
    pub(super) fenced: Option<(u64, Mark)>,
}

/// A step in flight, or the time before the next one, for a server outside of a change of the primary.
#[derive(Debug, Default)]
pub(super) struct Upkeep {
    pub(super) flight: Option<(StepId, Step)>,
    pub(super) not_before: Duration,
}

impl Controller {
    pub fn new(settings: Settings) -> Self {
        let watches = settings.servers.iter().map(|_| Watch::default()).collect();
        Self {
            settings,
            now: Duration::ZERO,
            started: Duration::MAX,
            watches,
            coordination: Coordination::default(),
            peers: BTreeMap::new(),
            verdict: Verdict::Alive,
            verdict_since: Duration::ZERO,
            beats: Beats::default(),
            acting: None,
            upkeep: BTreeMap::new(),
            lacks_own: BTreeSet::new(),
            isolated: BTreeSet::new(),
            service: Service::Hold {
                epoch: 0,
                grace: Duration::ZERO,
                reason: "the coordinator has not been read yet".into(),
            },
            held: None,
            said_alive: None,
            baseline: None,
            departed: Duration::ZERO,
            refusal: None,
            epoch_row_written: 0,
            maintenance_until: BTreeMap::new(),
            known_alone: None,
            unacknowledged: None,
            waiting: Vec::new(),
            noted: BTreeSet::new(),
            probed: Duration::ZERO,
            steps: 0,
            swaps: 0,
            out: Vec::new(),
        }
    }

    /// This proxy.
    pub fn proxy(&self) -> &ProxyId {
        &self.settings.proxy
    }

    /// Whether the servers may [change](Self::reconfigure) to these. One that comes may help a change of the primary on
    /// its way; in the midst of one none may go.
    pub fn may_follow(&self, settings: &Settings) -> bool {
        let mut both = self.settings.servers.iter().zip(&settings.servers);
        self.is_calm() || both.all(|(before, after)| before.gone || !after.gone)
    }

    fn is_calm(&self) -> bool {
        let flies = self.upkeep.values().any(|upkeep| upkeep.flight.is_some());
        let stable = matches!(self.phase(), None | Some(Phase::Stable));
        stable && !self.is_swapping() && self.waiting.is_empty() && !flies
    }

    /// Takes up servers that have come or gone; everything else goes on.
    pub fn reconfigure(&mut self, settings: Settings) {
        let ids = (0..).map(ServerId);
        for (id, server) in ids.zip(&settings.servers) {
            if self.settings.servers.get(usize::from(id.0)).is_some_and(|old| old.gone == server.gone) {
                continue;
            }
            self.upkeep.remove(&id);
            self.lacks_own.remove(&id);
            self.isolated.remove(&id);
            if let Some(acting) = &mut self.acting {
                acting.meet(id);
            }
            match self.watches.get_mut(usize::from(id.0)) {
                Some(watch) => *watch = Watch::default(),
                None => self.watches.push(Watch::default()),
            }
        }
        self.known_alone = None;
        self.settings = settings;
    }

    /// Takes one event at `now`, on the process's clock, and says what to do. `now` never goes back.
    pub fn handle(&mut self, event: Event, now: Duration) -> Vec<Action> {
        if self.started == Duration::MAX {
            self.started = now;
            self.departed = now;
            self.now = now;
            self.out.push(Action::ReadRecord);
        }
        let pause = now.saturating_sub(self.now);
        self.now = self.now.max(now);
        if pause > FROZEN_AFTER {
            self.wake_up(pause);
        }
        self.take(event);
        self.judge();
        self.decide();
        self.tell_peers();
        self.serve();
        std::mem::take(&mut self.out)
    }

    /// When to send the next [`Event::Tick`], at the latest.
    pub fn deadline(&self) -> Duration {
        let busy = self.acting.is_some()
            || self.verdict != Verdict::Alive
            || self.primary().is_some_and(|id| self.watch(id).is_some_and(|watch| watch.misses > 0));
        self.now + if busy { TICK_ACTING } else { TICK_IDLE }
    }

    /// The record as this proxy knows it, and its revision.
    pub fn record(&self) -> Option<(&Record, Revision)> {
        self.coordination.record.as_ref().map(|record| (record, self.coordination.revision))
    }

    /// Whether a swap of the record has not been answered: a request would be refused for that alone.
    pub fn is_swapping(&self) -> bool {
        self.coordination.pending.is_some()
    }

    /// What is thought of the primary.
    pub fn verdict(&self) -> &Verdict {
        &self.verdict
    }

    /// Why the coordinator does not answer; none while it does.
    pub fn coordinator_lost(&self) -> Option<&str> {
        self.coordination.lost.as_deref()
    }

    /// Where this proxy is to write heartbeats, and in which epoch: one of all proxies does, where clients write.
    pub fn beats(&self) -> Option<(ServerId, u64)> {
        let (primary, record) = (self.primary()?, self.coordination.record.as_ref()?);
        let may_write =
            record.durability == Durability::Lossless || matches!(self.service, Service::Writes { .. });
        let stands = record.phase == Phase::Stable && self.primary_lives_on();
        (stands && may_write && self.leads()).then_some((primary, record.epoch))
    }

    /// What the data plane has been told last.
    pub fn service(&self) -> &Service {
        &self.service
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Tick => {}
            Event::Observed(observation) => self.observed(observation),
            Event::Heartbeat { server, epoch, outcome } => self.heartbeat(server, epoch, outcome),
            Event::Read(read) => self.take_read(*read),
            Event::Changed { revision, record } => self.learn_record(revision, *record),
            Event::Swapped { id, outcome } => self.take_swap(id, outcome),
            Event::CoordinatorLost { reason } => self.coordination.lost = Some(reason),
            Event::StepDone { id, result } => self.step_done(id, result),
            Event::Held { epoch, mark } => self.held = Some((epoch, mark)),
            Event::Peer { from, message } => self.take_message(from, message),
            Event::Request { id, request } => self.take_request(id, request),
        }
    }

    /// One that was on its way when the primary or the epoch changed says nothing of now.
    fn heartbeat(&mut self, server: ServerId, epoch: u64, outcome: Heartbeat) {
        if self.beats() != Some((server, epoch)) {
            return;
        }
        if let Heartbeat::Refused { reason } = &outcome {
            self.note(Level::Info, format!("no heartbeat on {}: {reason}", self.name(server)));
        }
        self.beats.hear(outcome, self.now);
    }

    fn observed(&mut self, observation: crate::discover::Observation) {
        let server = observation.server;
        // One that came after the server had left the configuration says nothing.
        if self.settings.servers.get(usize::from(server.0)).is_none_or(|server| server.gone) {
            return;
        }
        let is_report = matches!(observation.news, crate::discover::News::Report(_));
        let primary = self.primary();
        let position = primary
            .filter(|id| *id != server)
            .and_then(|id| self.watch(id))
            .and_then(|watch| watch.report.as_ref().map(|report| (report.executed.clone(), watch.asked)));
        let Some(watch) = self.watches.get_mut(usize::from(server.0)) else { return };
        watch.observe(observation, position.as_ref().map(|(position, at)| (position, *at)));
        if primary == Some(server) && is_report {
            self.compare_with_primary(server);
        }
    }

    /// A report of the primary: the others are held against it.
    fn compare_with_primary(&mut self, primary: ServerId) {
        let Some(watch) = self.watch(primary) else { return };
        let Some(report) = watch.report.as_ref() else { return };
        let (position, asked) = (report.executed.clone(), watch.asked);
        if self.baseline.is_none() && asked > self.departed && self.primary_lives_on() {
            self.baseline = Some(position.clone());
        }
        // A primary that has restarted may have lost what its replicas rightly hold.
        let lives_on = self.primary_lives_on();
        for (at, other) in self.watches.iter_mut().enumerate() {
            if at == usize::from(primary.0) {
                continue;
            }
            if !lives_on {
                continue;
            }
            other.compare(&position, asked);
            other.divergence.compare(&position, asked, self.now);
        }
    }

    fn step_done(&mut self, id: StepId, result: Result<Outcome, StepError>) {
        if let Some((server, step)) = self.acting.as_mut().and_then(|acting| acting.land(id)) {
            self.acting_step_done(server, step, result);
            return;
        }
        let found =
            self.upkeep.iter_mut().find(|(_, upkeep)| upkeep.flight.as_ref().is_some_and(|f| f.0 == id));
        if let Some((server, upkeep)) = found {
            let (server, step) = (*server, upkeep.flight.take().map(|(_, step)| step));
            upkeep.not_before = self.now + super::UPKEEP_EVERY;
            if let Some(step) = step {
                self.upkeep_step_done(server, step, result);
            }
        }
    }

    fn decide(&mut self) {
        match self.phase() {
            None => self.bootstrap(),
            Some(Phase::Stable) => {
                self.acting = None;
                self.tend();
                self.claim();
            }
            Some(Phase::Active) => {
                self.act();
                self.claim();
            }
            Some(Phase::Fencing | Phase::Chosen) => self.act(),
        }
    }

    /// The process has not run for `pause`: whatever it was about to do may be somebody else's by now.
    fn wake_up(&mut self, pause: Duration) {
        if let Some(acting) = &mut self.acting {
            acting.verify_after = Some(self.now);
            self.out.push(Action::ReadRecord);
            self.note(Level::Warning, format!("this process has not run for {} ms", pause.as_millis()));
        }
        self.beats = Beats::default();
        for watch in &mut self.watches {
            // What was silent meanwhile was us.
            if watch.refused.is_none() {
                watch.misses = 0;
                watch.missing_since = None;
            }
        }
    }

    pub(super) fn phase(&self) -> Option<Phase> {
        self.coordination.record.as_ref().map(|record| record.phase)
    }

    pub(super) fn epoch(&self) -> u64 {
        self.coordination.record.as_ref().map_or(0, |record| record.epoch)
    }

    /// The primary of the record.
    pub(super) fn primary(&self) -> Option<ServerId> {
        self.coordination
            .record
            .as_ref()
            .and_then(|record| record.primary.as_deref())
            .and_then(|n| self.find(n))
    }

    pub(super) fn candidate(&self) -> Option<ServerId> {
        self.coordination
            .record
            .as_ref()
            .and_then(|record| record.candidate.as_deref())
            .and_then(|n| self.find(n))
    }

    pub(super) fn find(&self, name: &str) -> Option<ServerId> {
        let at = self.settings.servers.iter().position(|server| !server.gone && server.name == name)?;
        u16::try_from(at).ok().map(ServerId)
    }

    pub(super) fn name(&self, id: ServerId) -> String {
        self.settings.servers.get(usize::from(id.0)).map_or_else(String::new, |server| server.name.clone())
    }

    pub(super) fn watch(&self, id: ServerId) -> Option<&Watch> {
        self.watches.get(usize::from(id.0))
    }

    /// The servers of the configuration.
    pub(super) fn ids(&self) -> impl Iterator<Item = ServerId> + use<> {
        let ids = (0..).map(ServerId).zip(&self.settings.servers);
        let ids: Vec<_> = ids.filter(|(_, server)| !server.gone).map(|(id, _)| id).collect();
        ids.into_iter()
    }

    /// What is known of each of them.
    pub(super) fn members(&self) -> impl Iterator<Item = &Watch> {
        self.ids().filter_map(|id| self.watch(id))
    }

    pub(super) fn is_acker(&self, id: ServerId) -> bool {
        let Some(record) = &self.coordination.record else { return false };
        self.settings
            .servers
            .get(usize::from(id.0))
            .is_some_and(|server| record.ackers.contains(&server.name))
    }

    pub(super) fn order(&mut self, server: ServerId, step: Step) -> StepId {
        self.steps += 1;
        let id = StepId(self.steps);
        let timeout = match step {
            Step::WaitApplied { .. } => super::APPLY_TIMEOUT,
            Step::Fence => super::FENCE_TIMEOUT,
            Step::StartApplier
            | Step::RemoveDelay
            | Step::StopReceiver
            | Step::ReadPosition
            | Step::Promote { .. }
            | Step::WriteEpoch { .. }
            | Step::SetWritable { .. }
            | Step::SetReadOnly { .. }
            | Step::Repoint { .. }
            | Step::StartReplication => STEP_TIMEOUT,
        };
        let expires = self.now + STEP_EXPIRES;
        self.out.push(Action::Step(StepOrder { id, server, step, epoch: self.epoch(), expires, timeout }));
        id
    }

    /// Says something once in an epoch.
    pub(super) fn note(&mut self, level: Level, text: String) {
        let epoch = self.epoch();
        if self.noted.len() > MOST_NOTED {
            self.noted.clear();
        }
        if self.noted.insert(format!("{epoch} {text}")) {
            self.out.push(Action::Note(Note { level, epoch, text }));
        }
    }

    pub(super) fn probe_now(&mut self) {
        if self.now.saturating_sub(self.probed) >= TICK_ACTING {
            self.probed = self.now;
            self.out.push(Action::ProbeNow);
        }
    }
}

/// Notes remembered so as not to repeat them.
const MOST_NOTED: usize = 200;
