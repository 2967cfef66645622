//! The task that feeds the controller and runs what it decides.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pointsman_config::Config;
use pointsman_router::discover::{Appointment, Observation, Withdrawn};
use pointsman_router::failover::Settings;
use pointsman_router::failover::{
    Action, Controller, Event, Note, ProxyId, ReadRecord, Record, Revision, Swap, SwapId,
};
use pointsman_router::roster::Roster;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout};

use super::coordinator::{Cas, Coordinator, CoordinatorError, Entitlement, Found, Locks, Sessions};
use super::hand::Hands;
use super::heartbeat;
use super::operations::{Asked, Operations};
use super::peers::{self, Voice};
use super::service;
use super::timeline::Timeline;
use super::view::View;
use crate::cluster;

/// What the engine is made of.
pub(super) struct Engine {
    pub(super) config: Arc<Config>,
    pub(super) roster: watch::Receiver<Arc<Roster>>,
    pub(super) controller: Controller,
    pub(super) proxy: ProxyId,
    pub(super) hands: Hands,
    pub(super) coordinator: Arc<dyn Coordinator>,
    /// For the `local` coordinator: whether this process may act.
    pub(super) entitlement: Option<Entitlement>,
    /// What that follows from.
    pub(super) locks: Option<Locks>,
    pub(super) sessions: service::Sessions,
    pub(super) cluster: cluster::Handle,
    pub(super) observations: mpsc::Receiver<Observation>,
    /// What comes back from steps, swaps, reads and sessions.
    pub(super) events: mpsc::Receiver<Event>,
    pub(super) back: mpsc::Sender<Event>,
    pub(super) asked: mpsc::Receiver<Asked>,
    pub(super) operations: Arc<Operations>,
    pub(super) timeline: Timeline,
    pub(super) view: watch::Sender<Arc<View>>,
    pub(super) mode: &'static str,
    pub(super) lease: Duration,
    pub(super) voice: Arc<Voice>,
    pub(super) heard: peers::Heard,
    /// What the topology was told last.
    pub(super) withdrawn: Withdrawn,
    /// Where heartbeats are written.
    pub(super) beats: watch::Sender<heartbeat::Target>,
    /// Why this proxy leaves the primary to be discovered: another one acts for the cluster.
    pub(super) bystander: Option<String>,
}

/// What woke the engine.
enum Woken {
    Event(Event),
    Asked(Asked),
    /// Of the record.
    Heard,
    /// Of the sessions of other proxies.
    Told,
    Entitled,
    ReadDue,
    /// The configuration names other servers.
    Servers,
    End,
}

impl Engine {
    pub(super) async fn run(mut self) {
        let mut heard = self.coordinator.watch();
        let mut told = self.coordinator.sessions();
        let mut servers = self.roster.clone();
        let mut stale = false;
        let mut read_due = Instant::now();
        loop {
            stale = stale && !self.follow_servers();
            let clock = self.cluster.clock;
            let tick = Instant::now() + self.controller.deadline().saturating_sub(clock.now());
            let woken = tokio::select! {
                biased;
                Some(event) = self.events.recv() => Woken::Event(event),
                observation = self.observations.recv() => match observation {
                    Some(observation) => Woken::Event(Event::Observed(observation)),
                    None => Woken::End,
                },
                Some(asked) = self.asked.recv(), if !self.controller.is_swapping() => Woken::Asked(asked),
                Ok(()) = heard.changed() => Woken::Heard,
                Ok(()) = told.changed() => Woken::Told,
                () = changed(&mut self.entitlement) => Woken::Entitled,
                () = sleep_until(read_due) => Woken::ReadDue,
                Ok(()) = servers.changed() => Woken::Servers,
                () = sleep_until(tick) => Woken::Event(Event::Tick),
            };
            let event = match woken {
                Woken::End => return,
                Woken::Event(event) => event,
                Woken::Asked(asked) => self.operations.begin(asked),
                Woken::Heard => {
                    let newest = heard.borrow_and_update().clone();
                    let Some(event) = newest.and_then(|(revision, text)| changed_record(revision, &text))
                    else {
                        continue;
                    };
                    event
                }
                Woken::Servers => {
                    stale = true;
                    continue;
                }
                Woken::Told => {
                    let sessions = told.borrow_and_update().clone();
                    self.listen(&sessions);
                    continue;
                }
                Woken::Entitled | Woken::ReadDue => {
                    read_due = Instant::now() + self.lease / READS_IN_LEASE;
                    self.read();
                    continue;
                }
            };
            self.take(event);
        }
    }

    /// Takes up the servers that have come or gone; whether it may.
    fn follow_servers(&mut self) -> bool {
        let roster = self.roster.borrow().clone();
        let settings = Settings::new(&self.config, &roster, self.proxy.clone());
        if !self.controller.may_follow(&settings) {
            return false;
        }
        self.controller.reconfigure(settings);
        self.hands.follow();
        if let Some(locks) = &mut self.locks {
            locks.follow(&roster);
        }
        true
    }

    fn take(&mut self, event: Event) {
        let now = self.cluster.clock.now();
        let heard = self.timeline.hear(&event, now);
        let actions = self.controller.handle(event, now);
        for note in self.timeline.look(heard, &self.controller, &actions, now) {
            self.note(note);
        }
        for action in actions {
            self.carry_out(action);
        }
        let beats = self.controller.beats();
        self.beats.send_if_modified(|before| std::mem::replace(before, beats) != beats);
        let withdrawn = self.controller.withdrawn();
        // Where it could not be told, it is told after the next event.
        if withdrawn != self.withdrawn && self.cluster.withdraw(withdrawn.clone()).is_ok() {
            self.withdrawn = withdrawn;
        }
        self.show();
    }

    fn carry_out(&mut self, action: Action) {
        match action {
            Action::Swap { id, expected, record } => self.swap(id, expected, *record),
            Action::ReadRecord => self.read(),
            Action::Step(order) => self.hands.order(order),
            Action::Serve(service) => self.sessions.serve(service, &self.back),
            Action::Tell { message, .. } => self.voice.tell(&message),
            Action::ProbeNow => {
                self.cluster.hurry.send_replace(());
            }
            Action::Answer { id, answer } => self.operations.answer(id, answer),
            Action::Note(note) => self.note(note),
        }
    }

    /// Renews the session and reads the register; the answer comes back as an event.
    fn read(&mut self) {
        let (coordinator, back, clock) = (self.coordinator.clone(), self.back.clone(), self.cluster.clock);
        let (voice, limit) = (self.voice.clone(), self.lease / 2);
        let barred = self.entitlement.as_mut().and_then(Entitlement::barred);
        tokio::spawn(async move {
            let asked = clock.now();
            let reading = async {
                voice.say().await?;
                coordinator.get().await
            };
            let found = match timeout(limit, reading).await {
                Ok(found) => found,
                Err(_) => Err(CoordinatorError::TimedOut(limit)),
            };
            let event = found
                .map_err(|error| error.to_string())
                .and_then(|found| read_event(asked, found, barred))
                .unwrap_or_else(|reason| Event::CoordinatorLost { reason });
            drop(back.send(event).await);
        });
    }

    fn swap(&self, id: SwapId, expected: Revision, record: Record) {
        let (coordinator, back, limit) = (self.coordinator.clone(), self.back.clone(), self.lease / 2);
        tokio::spawn(async move {
            let outcome = match serde_json::to_string(&record) {
                Ok(text) => match timeout(limit, coordinator.cas(expected, text)).await {
                    Ok(Ok(cas)) => swapped(cas),
                    Ok(Err(error)) => Swap::Failed { reason: error.to_string() },
                    Err(_) => Swap::Failed { reason: CoordinatorError::TimedOut(limit).to_string() },
                },
                Err(error) => Swap::Failed { reason: error.to_string() },
            };
            drop(back.send(Event::Swapped { id, outcome }).await);
        });
    }

    fn listen(&mut self, sessions: &Sessions) {
        for (from, message) in self.heard.news(sessions, &self.proxy) {
            self.take(Event::Peer { from, message });
        }
    }

    fn note(&self, note: Note) {
        use pointsman_router::failover::Level;
        let Note { level, epoch, text } = note;
        match level {
            Level::Info => tracing::info!(epoch, "failover: {text}"),
            Level::Warning => tracing::warn!(epoch, "failover: {text}"),
            Level::Alarm => tracing::error!(epoch, "failover: {text}"),
        }
        self.operations.note(epoch, text, self.cluster.clock.now());
    }

    /// A proxy that may not act and knows of no record follows what the servers look like, as without failover.
    fn stand_by(&mut self) {
        let Some(entitlement) = &mut self.entitlement else { return };
        let barred = entitlement.barred().filter(|_| entitlement.is_settled());
        let bystander = barred.filter(|_| self.controller.record().is_none());
        if bystander.is_some() && self.bystander.is_none() {
            drop(self.cluster.appoint(Appointment::Free));
        }
        self.bystander = bystander;
    }

    fn show(&mut self) {
        self.stand_by();
        let mut new = View::of(&self.controller, self.mode, &self.timeline);
        if let Some(reason) = &self.bystander {
            (new.mode, new.off_reason, new.held) = ("off", reason.clone(), String::new());
        }
        self.view.send_if_modified(|old| {
            let changed = **old != new;
            if changed {
                *old = Arc::new(new);
            }
            changed
        });
    }
}

async fn changed(entitlement: &mut Option<Entitlement>) {
    match entitlement {
        Some(entitlement) => entitlement.changed().await,
        None => std::future::pending().await,
    }
}

fn changed_record(revision: Revision, text: &str) -> Option<Event> {
    let record = serde_json::from_str(text).ok()?;
    Some(Event::Changed { revision, record: Box::new(record) })
}

/// What a reading says of the record; what the sessions say is heard as all that is heard of them.
fn read_event(asked: Duration, found: Found, barred: Option<String>) -> Result<Event, String> {
    let record = found.value.as_deref().map(serde_json::from_str).transpose();
    let record = record.map_err(|error| format!("the record in the coordinator cannot be read: {error}"))?;
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let proxies = found.sessions.into_keys().map(ProxyId).collect();
    let read = ReadRecord { asked, revision: found.revision, record, proxies, barred, wall };
    Ok(Event::Read(Box::new(read)))
}

fn swapped(cas: Cas) -> Swap {
    match cas {
        Cas::Won { revision } => Swap::Won { revision },
        Cas::Lost { revision, value } => {
            let record = value.and_then(|text| serde_json::from_str(&text).ok());
            Swap::Lost { revision, record: record.map(Box::new) }
        }
    }
}

const READS_IN_LEASE: u32 = 3;
