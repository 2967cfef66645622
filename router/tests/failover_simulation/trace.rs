//! One line for what matters in a replay.

use pointsman_router::failover::{Action, Event, Outcome, Record, Service, StepError, Swap};

pub(crate) fn record(record: &Record) -> String {
    format!(
        "{} {} {:?}->{:?} {:?} ackers {:?} floor {} lives {:?} strayed {:?} by {} ({:?}: {})",
        record.epoch,
        record.phase.name(),
        record.primary,
        record.candidate,
        record.durability,
        record.ackers,
        record.floor,
        record.lives,
        record.strayed,
        record.actor,
        record.kind,
        record.reason
    )
}

pub(crate) fn event(event: &Event) -> Option<String> {
    match event {
        Event::StepDone { id, result } => Some(format!("{id:?} {}", outcome(result))),
        Event::Swapped { id, outcome } => Some(match outcome {
            Swap::Won { revision } => format!("{id:?} won {revision:?}"),
            Swap::Lost { revision, .. } => format!("{id:?} lost to {revision:?}"),
            Swap::Failed { reason } => format!("{id:?} failed: {reason}"),
        }),
        Event::Changed { revision, record } => {
            Some(format!("{revision:?} {} {}", record.epoch, record.phase.name()))
        }
        Event::CoordinatorLost { .. } | Event::Request { .. } | Event::Heartbeat { .. } => {
            Some(format!("{event:?}"))
        }
        Event::Held { epoch, .. } => Some(format!("held {epoch}")),
        Event::Tick | Event::Observed(_) | Event::Read(_) | Event::Peer { .. } => None,
    }
}

fn outcome(result: &Result<Outcome, StepError>) -> String {
    match result {
        Ok(Outcome::Done) => "done".into(),
        Ok(Outcome::Report(report)) => format!(
            "has {} of {}, life {}, read_only {}",
            report.executed,
            report.held(),
            report.incarnation,
            report.read_only
        ),
        Err(error) => error.to_string(),
    }
}

pub(crate) fn action(action: &Action) -> Option<String> {
    match action {
        Action::Swap { id, record, .. } => Some(format!("{id:?} {}", self::record(record))),
        Action::Step(order) => Some(format!("{:?} s{} {:?}", order.id, order.server.0, order.step)),
        Action::Serve(Service::Writes { primary, epoch, .. }) => {
            Some(format!("writes to s{} in {epoch}", primary.0))
        }
        Action::Serve(service) => Some(format!("{service:?}")),
        Action::Answer { answer, .. } => Some(format!("{answer:?}").chars().take(200).collect()),
        Action::Note(note) => Some(format!("{:?}: {}", note.level, note.text)),
        Action::ReadRecord | Action::Tell { .. } | Action::ProbeNow => None,
    }
}
