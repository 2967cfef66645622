//! What one server may be used for, and why not for more.

use std::time::Duration;

use pointsman_config::Lag;

use super::Tracked;
use super::observation::{Channel, Receiver, Replication, Report, ThreadError};
use super::roles::{Primary, Seen, Sources};
use crate::topology::{Role, ServerId, State};

/// Part of a replica's standing that depends on its past.
#[derive(Clone, Debug, Default)]
pub(super) struct Standing {
    /// Measurements in a row beyond `lag.maximum`, or well within it while out.
    streak: u32,
    behind: bool,
    /// The last measurement was beyond `lag.maximum`.
    over: bool,
    /// Its receiving thread was stopped while there was a primary to receive from.
    pub(super) receiver_stopped: bool,
}

impl Standing {
    /// Takes one measurement; unknown is as bad as too much. One sample decides nothing.
    pub(super) fn measure(&mut self, lag: Option<Duration>, limits: &Lag) {
        self.over = lag.is_none_or(|lag| lag > limits.maximum);
        let turns = if self.behind {
            lag.is_some_and(|lag| lag <= limits.maximum.mul_f64(WELL_WITHIN))
        } else {
            self.over
        };
        self.streak = if turns { self.streak + 1 } else { 0 };
        if self.streak >= DECISIVE_STREAK {
            self.behind = !self.behind;
            self.streak = 0;
        }
    }
}

const DECISIVE_STREAK: u32 = 2;
/// The share of `lag.maximum` under which a replica must come to be read from again.
const WELL_WITHIN: f64 = 0.8;

/// What every server is judged against.
pub(super) struct Surroundings<'a> {
    pub(super) primary: &'a Primary,
    pub(super) last: Option<ServerId>,
    pub(super) sources: &'a Sources,
    pub(super) seen: &'a [Seen<'a>],
    /// The primary's place is being moved: replicas are stopped and pointed elsewhere on purpose.
    pub(super) moving: bool,
    pub(super) now: Duration,
}

/// See [`Surroundings::judge`].
#[derive(Debug)]
pub(super) struct Verdict {
    pub(super) role: Role,
    pub(super) state: State,
    pub(super) reason: String,
    pub(super) receiver_stopped: bool,
}

impl Surroundings<'_> {
    pub(super) fn judge(&self, server: &Tracked) -> Verdict {
        if server.gone {
            let (role, state) = (Role::Unknown, State::Gone);
            let reason = "the configuration names it no more".into();
            return Verdict { role, state, reason, receiver_stopped: false };
        }
        let receiver_stopped = self.receiver_stopped(server);
        let (role, problem) = self.problem(server, receiver_stopped);
        let (state, reason) = match problem {
            Some((state, reason)) => (state, reason),
            None if role == Role::Primary => (State::Online, String::new()),
            None if server.maintenance => (State::Draining, "in maintenance".into()),
            None if server.draining => (State::Draining, "taken out of the read pool by an operator".into()),
            None => (State::Online, String::new()),
        };
        Verdict { role, state, reason, receiver_stopped }
    }

    /// The role, and what keeps the server from it.
    fn problem(&self, server: &Tracked, receiver_stopped: bool) -> (Role, Option<(State, String)>) {
        let role = self.role(server);
        if !server.health.known() {
            return (role, Some((State::Unknown, "not probed yet".into())));
        }
        if !server.health.up() {
            return (role, Some((State::Down, server.health.trouble().into())));
        }
        let excluded = |reason: String| Some((State::Excluded, reason));
        let Some(report) = &server.report else {
            return (role, excluded(server.health.trouble().into()));
        };
        if let Primary::None { reason, rivals } = self.primary
            && rivals.contains(&server.id)
        {
            return (role, excluded(reason.clone()));
        }
        if role == Role::Primary {
            return (role, None);
        }
        if server.fenced {
            return (role, excluded("fenced by an operator".into()));
        }
        if self.moving && server.role == Role::Replica && server.state == State::Online {
            return (Role::Replica, Self::late(server));
        }
        let problem = self
            .misplaced(server, report)
            .or_else(|| self.unusable(server, report, receiver_stopped))
            .map_or_else(|| Self::late(server), excluded);
        (role, problem)
    }

    fn role(&self, server: &Tracked) -> Role {
        let is_primary = match self.primary {
            Primary::Is(id) => *id == server.id,
            // A primary that is away is not anything else in the meantime.
            Primary::None { .. } => self.last == Some(server.id) && !server.health.up(),
        };
        match &server.report {
            _ if is_primary => Role::Primary,
            Some(report) if report.replicates() => Role::Replica,
            Some(_) | None => Role::Unknown,
        }
    }

    /// The server whose data the replicas must hold.
    fn anchor(&self) -> Option<&Seen<'_>> {
        let id = match self.primary {
            Primary::Is(id) => Some(*id),
            Primary::None { .. } => self.last,
        };
        id.and_then(|id| self.seen.get(usize::from(id.0)))
    }

    /// Why the server does not hold the primary's data at all.
    fn misplaced(&self, server: &Tracked, report: &Report) -> Option<String> {
        let anchor = self.anchor();
        let primary = anchor.map_or("any server", |anchor| anchor.name);
        if let Replication::Hidden { code, message } = &report.replication {
            return Some(format!(
                "the service account may not see the replication status: error {code}: {message}"
            ));
        }
        if !report.replicates() {
            return Some(if report.read_only {
                match server.divergence.verdict(self.now, None) {
                    Some(divergence) => format!("does not replicate from {primary}: {divergence}"),
                    None => format!("does not replicate from {primary}"),
                }
            } else {
                match anchor {
                    Some(_) => format!("accepts writes but is not the primary {primary}"),
                    None => "accepts writes, and it is not known yet which server is the primary".to_owned(),
                }
            });
        }
        let Some(anchor) = anchor else {
            // Rivals without a past: nobody knows whose data are right.
            return match self.primary {
                Primary::None { reason, rivals } if !rivals.is_empty() => Some(reason.clone()),
                Primary::Is(_) | Primary::None { .. } => None,
            };
        };
        if anchor.report.is_some_and(|of_primary| of_primary.flavour != report.flavour) {
            return Some(format!("is of another flavour than the primary {}", anchor.name));
        }
        if self.sources.channel_to(server.id, anchor.id, self.seen).is_none() {
            let sources: Vec<_> = report.channels().iter().map(Channel::source).collect();
            return Some(format!(
                "replicates from {}, which does not lead to the primary {}",
                sources.join(" and "),
                anchor.name
            ));
        }
        None
    }

    /// Why the replica does not follow the primary, or cannot be measured against it.
    fn unusable(&self, server: &Tracked, report: &Report, receiver_stopped: bool) -> Option<String> {
        if !report.gtids {
            return Some("gtid_mode is not ON: its position cannot be compared".into());
        }
        let channel = self.channel(server, report)?;
        if !channel.applies {
            return Some(stopped("applying (SQL)", &channel.applier_error));
        }
        if receiver_stopped {
            return Some(stopped("receiving (IO)", &channel.receiver_error));
        }
        let of_primary = self.anchor().and_then(|anchor| anchor.report);
        let lossless = of_primary.filter(|report| report.semi_sync.source);
        server.divergence.verdict(self.now, lossless)
    }

    fn channel<'a>(&'a self, server: &Tracked, report: &'a Report) -> Option<&'a Channel> {
        match self.anchor() {
            Some(anchor) => self.sources.channel_to(server.id, anchor.id, self.seen),
            None => report.channels().first(),
        }
    }

    /// A thread that gave up on a primary that is away says nothing about the replica.
    fn receiver_stopped(&self, server: &Tracked) -> bool {
        let channel = server.report.as_ref().and_then(|report| self.channel(server, report));
        let Some(channel) = channel else { return false };
        match channel.receiver {
            Receiver::Running | Receiver::Connecting => false,
            Receiver::Stopped if matches!(self.primary, Primary::Is(_)) => true,
            Receiver::Stopped => {
                let error = &channel.receiver_error;
                server.standing.receiver_stopped || (error.code != 0 && !error.is_connection_trouble())
            }
        }
    }

    fn late(server: &Tracked) -> Option<(State, String)> {
        if server.standing.behind {
            let reason = match server.lag {
                Some(lag) if server.standing.over => {
                    format!("lag {:.1} s is over lag.maximum", lag.as_secs_f64())
                }
                Some(lag) => {
                    format!("lag {:.1} s: was over lag.maximum, not well within it yet", lag.as_secs_f64())
                }
                None => "has applied nothing yet that the primary is known to have held".into(),
            };
            return Some((State::Lagging, reason));
        }
        if !server.health.steady() {
            // A server that has not been in the pool yet is not out of it either.
            let state = if server.pooled { State::Excluded } else { State::Unknown };
            return Some((state, "has not answered for long enough yet".into()));
        }
        None
    }
}

fn stopped(thread: &str, error: &ThreadError) -> String {
    if error.code == 0 {
        format!("the {thread} thread is stopped")
    } else {
        format!("the {thread} thread is stopped: error {}: {}", error.code, error.message)
    }
}
