//! How changes of the primary went, moment by moment, as this proxy saw them: for operators and for `history`.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pointsman_router::failover::{
    Action, Controller, Event, HISTORY_LENGTH, Level, Note, Phase, Service, StepId, Verdict,
};
use pointsman_router::roster::Roster;
use serde::Serialize;
use tokio::sync::watch;

/// One change of the primary, or an attempt at one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Change {
    /// What it raised the epoch to.
    pub epoch: u64,
    /// How long this proxy held writes.
    pub pause_ms: Option<u64>,
    pub phases: Vec<Moment>,
}

/// Something that happened in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Moment {
    /// Since the first moment of the change.
    pub ms: u64,
    /// Wall clock, milliseconds since 1970.
    pub at_ms: u64,
    pub kind: Kind,
    pub text: String,
}

/// What a moment is, for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// What is thought of the primary has changed.
    Verdict,
    /// Writes are held from here.
    Held,
    /// The epoch has risen: the primary has lost its role.
    Fencing,
    /// This proxy has dropped every connection from before.
    Fenced,
    /// A step on a server has ended.
    Step,
    Chosen,
    /// The record names the new primary, and anybody may open it.
    Active,
    /// Writes go on.
    Open,
    Ended,
    /// Whatever else the controller says.
    Note,
}

/// Compares the controller before and after each event.
#[derive(Debug)]
pub(super) struct Timeline {
    roster: watch::Receiver<Arc<Roster>>,
    seen: Seen,
    /// Steps in flight: what they do, and since when.
    steps: BTreeMap<StepId, (String, Duration)>,
    running: Option<Running>,
    past: VecDeque<Arc<Change>>,
}

/// What the controller looked like after the event before.
#[derive(Debug)]
struct Seen {
    epoch: u64,
    phase: Option<Phase>,
    /// The newest epoch that this proxy has dropped all connections for.
    fenced: u64,
    verdict: &'static str,
    serves: bool,
}

#[derive(Debug)]
struct Running {
    began: Duration,
    held: Option<Duration>,
    change: Change,
}

impl Timeline {
    pub(super) fn new(roster: watch::Receiver<Arc<Roster>>) -> Self {
        let seen = Seen { epoch: 0, phase: None, fenced: 0, verdict: "ALIVE", serves: false };
        Self { roster, seen, steps: BTreeMap::new(), running: None, past: VecDeque::new() }
    }

    /// The changes that have ended, the oldest first.
    pub(super) fn past(&self) -> &VecDeque<Arc<Change>> {
        &self.past
    }

    /// What an event says by itself; to be asked before the controller takes it.
    pub(super) fn hear(&mut self, event: &Event, now: Duration) -> Option<(Kind, String)> {
        if let Event::StepDone { id, result } = event {
            let (what, ordered) = self.steps.remove(id)?;
            let took = now.saturating_sub(ordered).as_millis();
            let how = if result.is_ok() { "took" } else { "failed after" };
            return Some((Kind::Step, format!("{what} {how} {took} ms")));
        }
        // Of what is held while the primary is only suspected, nothing has been dropped.
        let Event::Held { epoch, .. } = event else { return None };
        if self.seen.phase != Some(Phase::Fencing) || *epoch <= self.seen.fenced {
            return None;
        }
        self.seen.fenced = *epoch;
        Some((Kind::Fenced, "no answer from before can reach a client any more".into()))
    }

    /// What has changed by an event; to be asked after the controller took it. What the controller has noted itself is
    /// only kept here.
    pub(super) fn look(
        &mut self,
        heard: Option<(Kind, String)>,
        controller: &Controller,
        actions: &[Action],
        now: Duration,
    ) -> Vec<Note> {
        self.time_steps(actions, now);
        let mut moments = Vec::new();
        moments.extend(self.verdict(controller));
        moments.extend(heard);
        moments.extend(self.phase(controller));
        let changing = matches!(self.seen.phase, Some(Phase::Fencing | Phase::Chosen | Phase::Active));
        let in_doubt = matches!(controller.verdict(), Verdict::Dead { .. } | Verdict::Stalled { .. });
        if changing || in_doubt {
            self.running.get_or_insert_with(|| Running::new(now));
        }
        moments.extend(self.service(controller, now));
        let epoch = self.seen.epoch;
        let Some(running) = &mut self.running else { return Vec::new() };
        for (kind, text) in moments.iter().cloned().chain(notes(actions)) {
            running.add(kind, text, now);
        }
        if changing {
            running.change.epoch = epoch;
        } else if !in_doubt {
            self.close();
        }
        moments.into_iter().map(|(_, text)| Note { level: Level::Info, epoch, text }).collect()
    }

    fn time_steps(&mut self, actions: &[Action], now: Duration) {
        for action in actions {
            if let Action::Step(order) = action {
                let roster = self.roster.borrow();
                let server = roster.name(order.server);
                self.steps.insert(order.id, (format!("{} on {server}", order.step.name()), now));
            }
        }
    }

    fn verdict(&mut self, controller: &Controller) -> Option<(Kind, String)> {
        let verdict = controller.verdict();
        if verdict.name() == self.seen.verdict {
            return None;
        }
        self.seen.verdict = verdict.name();
        // While it is being replaced, it does not matter how it looks.
        let reason = verdict.reason();
        if !matches!(self.seen.phase, Some(Phase::Stable)) {
            return None;
        }
        let text = || format!("the primary is {}: {reason}", verdict.name());
        (!reason.is_empty()).then(|| (Kind::Verdict, text()))
    }

    fn phase(&mut self, controller: &Controller) -> Option<(Kind, String)> {
        let (record, _) = controller.record()?;
        let before = (self.seen.epoch, self.seen.phase.replace(record.phase));
        self.seen.epoch = record.epoch;
        if before == (record.epoch, Some(record.phase)) {
            return None;
        }
        let name = |name: &Option<String>| name.clone().unwrap_or_else(|| "nobody".into());
        match record.phase {
            Phase::Fencing => {
                let primary = name(&record.primary);
                Some((
                    Kind::Fencing,
                    format!("epoch {}: {primary} loses its role: {}", record.epoch, record.reason),
                ))
            }
            Phase::Chosen => Some((Kind::Chosen, format!("{} is chosen", name(&record.candidate)))),
            Phase::Active => Some((Kind::Active, format!("{} is the primary", name(&record.primary)))),
            Phase::Stable if before.1.is_none() => None,
            Phase::Stable => Some((Kind::Ended, "the change has ended".into())),
        }
    }

    fn service(&mut self, controller: &Controller, now: Duration) -> Option<(Kind, String)> {
        let serves = matches!(controller.service(), Service::Writes { .. });
        if serves == std::mem::replace(&mut self.seen.serves, serves) {
            return None;
        }
        let running = self.running.as_mut()?;
        if !serves {
            running.held.get_or_insert(now);
            return Some((Kind::Held, "writes are held".into()));
        }
        let pause = millis(now.saturating_sub(running.held?));
        running.change.pause_ms = Some(pause);
        Some((Kind::Open, format!("writes go on, after {pause} ms")))
    }

    fn close(&mut self) {
        let Some(running) = self.running.take() else { return };
        // Without an epoch nothing was changed: the primary came back in time.
        if running.change.epoch == 0 {
            return;
        }
        self.past.push_back(Arc::new(running.change));
        if self.past.len() > HISTORY_LENGTH {
            self.past.pop_front();
        }
    }
}

impl Running {
    fn new(now: Duration) -> Self {
        Self { began: now, held: None, change: Change::default() }
    }

    fn add(&mut self, kind: Kind, text: String, now: Duration) {
        if self.change.phases.len() < MAX_MOMENTS {
            let ms = millis(now.saturating_sub(self.began));
            let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            self.change.phases.push(Moment { ms, at_ms: millis(at), kind, text });
        }
    }
}

fn notes(actions: &[Action]) -> impl Iterator<Item = (Kind, String)> {
    actions.iter().filter_map(|action| match action {
        Action::Note(note) => Some((Kind::Note, note.text.clone())),
        Action::Swap { .. }
        | Action::ReadRecord
        | Action::Step(_)
        | Action::Serve(_)
        | Action::Tell { .. }
        | Action::ProbeNow
        | Action::Answer { .. } => None,
    })
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Moments that are kept of one change.
const MAX_MOMENTS: usize = 200;
