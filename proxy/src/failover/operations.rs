//! What operators have asked for, and how far it is: kept for a while, so that nobody has to wait at a terminal.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use pointsman_router::failover::{Answer, Event, Plan, Request, RequestId};
use pointsman_router::roster::Roster;
use pointsman_router::topology::ServerId;
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};

use crate::cluster::Clock;

/// Operations that are remembered.
const MAX_KEPT: usize = 100;
/// Notes that are remembered of each.
const MAX_NOTES: usize = 200;

/// A request on its way to the engine.
#[derive(Debug)]
pub(super) struct Asked {
    id: RequestId,
    request: Request,
}

/// All of them, the newest last.
#[derive(Debug)]
pub struct Operations {
    kept: Mutex<VecDeque<Operation>>,
    sender: mpsc::Sender<Asked>,
    /// Rises with every change of any operation.
    changes: watch::Sender<u64>,
    roster: watch::Receiver<Arc<Roster>>,
    clock: Clock,
}

#[derive(Debug)]
struct Operation {
    id: RequestId,
    verb: &'static str,
    began: Duration,
    ended: Option<Duration>,
    state: State,
    plan: Option<Value>,
    /// What was said last.
    text: String,
    alternative: String,
    notes: Vec<(Duration, String)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Asked,
    Planned,
    Running,
    Done,
    Refused,
    /// Refused after it had begun: all of it was undone.
    Undone,
}

impl State {
    fn name(self) -> &'static str {
        match self {
            Self::Asked => "asked",
            Self::Planned => "planned",
            Self::Running => "running",
            Self::Done => "done",
            Self::Refused => "refused",
            Self::Undone => "undone",
        }
    }
}

impl Operations {
    pub(super) fn new(
        roster: watch::Receiver<Arc<Roster>>,
        clock: Clock,
    ) -> (Arc<Self>, mpsc::Receiver<Asked>) {
        let (sender, asked) = mpsc::channel(MAX_KEPT);
        let kept = Mutex::default();
        (Arc::new(Self { kept, sender, changes: watch::Sender::new(0), roster, clock }), asked)
    }

    /// Asks for something; the number names the operation from now on. None when nobody serves requests.
    pub async fn ask(&self, verb: &'static str, request: Request) -> Option<u64> {
        let id = {
            let mut kept = self.kept();
            let id = RequestId(kept.back().map_or(0, |operation| operation.id.0) + 1);
            kept.push_back(Operation {
                id,
                verb,
                began: self.clock.now(),
                ended: None,
                state: State::Asked,
                plan: None,
                text: String::new(),
                alternative: String::new(),
                notes: Vec::new(),
            });
            if kept.len() > MAX_KEPT {
                kept.pop_front();
            }
            id
        };
        self.sender.send(Asked { id, request }).await.ok()?;
        Some(id.0)
    }

    /// Waits until an operation is past `asked`, or until it has ended; gives what is known of it then.
    pub async fn wait(&self, id: u64, until_end: bool, limit: Duration) -> Option<Value> {
        let mut changes = self.changes.subscribe();
        let is_there = || {
            let kept = self.kept();
            let operation = kept.iter().find(|operation| operation.id.0 == id)?;
            Some(match operation.state {
                State::Asked => false,
                State::Running => !until_end,
                State::Planned | State::Done | State::Refused | State::Undone => true,
            })
        };
        // When the time is over, it is told as it is.
        drop(
            tokio::time::timeout(limit, async {
                while is_there() == Some(false) && changes.changed().await.is_ok() {}
            })
            .await,
        );
        self.show(id)
    }

    /// One operation as JSON.
    pub fn show(&self, id: u64) -> Option<Value> {
        let kept = self.kept();
        kept.iter().find(|operation| operation.id.0 == id).map(|operation| self.document(operation))
    }

    /// All of them as JSON, the newest first.
    pub fn list(&self) -> Vec<Value> {
        self.kept().iter().rev().map(|operation| self.document(operation)).collect()
    }

    pub(super) fn begin(&self, asked: Asked) -> Event {
        Event::Request { id: asked.id, request: asked.request }
    }

    pub(super) fn answer(&self, id: RequestId, answer: Answer) {
        let now = self.clock.now();
        if let Some(operation) = self.kept().iter_mut().find(|operation| operation.id == id) {
            let began = operation.state == State::Running;
            match answer {
                Answer::Planned(plan) => {
                    operation.state = State::Planned;
                    operation.plan = Some(self.plan(&plan));
                }
                Answer::Started(plan) => {
                    operation.state = State::Running;
                    operation.plan = Some(self.plan(&plan));
                }
                Answer::Done { text } => {
                    operation.state = State::Done;
                    operation.text = text;
                }
                Answer::Refused(refusal) => {
                    operation.state = if began { State::Undone } else { State::Refused };
                    operation.text = refusal.reason;
                    operation.alternative = refusal.alternative;
                }
            }
            if operation.state != State::Running {
                operation.ended = Some(now);
            }
        }
        self.changes.send_modify(|change| *change += 1);
    }

    /// Something happened: it belongs to every operation that runs.
    pub(super) fn note(&self, _epoch: u64, text: String, now: Duration) {
        for operation in self.kept().iter_mut().filter(|operation| operation.state == State::Running) {
            if operation.notes.len() < MAX_NOTES {
                operation.notes.push((now.saturating_sub(operation.began), text.clone()));
            }
        }
        self.changes.send_modify(|change| *change += 1);
    }

    fn name(&self, server: ServerId) -> String {
        self.roster.borrow().name(server).to_owned()
    }

    fn plan(&self, plan: &Plan) -> Value {
        let passed_over: Vec<_> = plan
            .passed_over
            .iter()
            .map(|(server, reason)| json!({ "server": self.name(*server), "reason": reason }))
            .collect();
        json!({
            "from": plan.from.map(|server| self.name(server)),
            "to": self.name(plan.to),
            "steps": plan.steps,
            "lost": plan.lost.to_string(),
            "passed_over": passed_over,
        })
    }

    fn document(&self, operation: &Operation) -> Value {
        let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let ended = operation.ended.unwrap_or_else(|| self.clock.now());
        let notes: Vec<_> =
            operation.notes.iter().map(|(at, text)| json!({ "ms": ms(*at), "text": text })).collect();
        json!({
            "apiVersion": "pointsman/v1",
            "id": operation.id.0,
            "operation": operation.verb,
            "state": operation.state.name(),
            "plan": operation.plan,
            "phases": notes,
            "text": operation.text,
            "alternative": operation.alternative,
            "duration_ms": ms(ended.saturating_sub(operation.began)),
        })
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, VecDeque<Operation>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
