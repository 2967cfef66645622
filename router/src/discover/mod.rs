//! From what the probes bring to the picture that statements are routed by.
//!
//! [`Discovery`] is the only judge of roles, health and lag. It is told everything, time included, and asks
//! nothing; the cluster task feeds it and publishes what it says. It must not know connections or coordinators.

mod divergence;
mod health;
mod observation;
mod roles;
mod verdict;

use std::time::Duration;

use pointsman_config::Config;

pub use self::observation::{
    Channel, EpochRow, News, Observation, Pulse, Receiver, Replication, Report, SemiSync, ThreadError,
    join_host_port,
};

pub(crate) use self::divergence::Divergence;
use self::health::Health;
use self::roles::{Primary, Seen, Sources};
use self::verdict::Standing;
use crate::gtid::GtidSet;
use crate::lag::LagClock;
use crate::roster::{Member, Roster};
use crate::topology::{Role, ServerId, ServerView, State, Topology};

/// Who takes writes, where that is not left to discovery.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Appointment {
    /// Nobody says: the primary is who looks like one.
    #[default]
    Free,
    /// This server and no other, since this epoch.
    Primary { server: ServerId, epoch: u64 },
    /// Nobody for now: the primary's place is being moved, or may not be known.
    Nobody { epoch: u64, reason: String },
}

/// Servers that operators keep from clients by a word that all proxies hear.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Withdrawn {
    /// From all clients.
    pub fenced: Vec<ServerId>,
    /// From readers, for a while.
    pub maintenance: Vec<ServerId>,
}

/// Everything known of the cluster, and the judgement of it.
#[derive(Debug)]
pub struct Discovery {
    failures: u32,
    lag: pointsman_config::Lag,
    servers: Vec<Tracked>,
    sources: Sources,
    clock: LagClock,
    /// When the newest position in `clock` was taken.
    newest: Option<Duration>,
    /// The samples in `clock` are the replicas' own: no primary has been seen yet.
    estimated: bool,
    primary: Primary,
    /// The server that was the primary last; it stays the anchor of the replicas while there is none.
    last: Option<ServerId>,
    epoch: u64,
    appointment: Appointment,
    /// The first monitor round is over.
    ready: bool,
}

/// One server and what is known of it.
#[derive(Debug)]
struct Tracked {
    id: ServerId,
    name: String,
    address: String,
    weight: u32,
    zone: String,
    health: Health,
    report: Option<Report>,
    /// When the last report was asked for.
    asked: Duration,
    /// When it came.
    reported: Duration,
    divergence: Divergence,
    /// The position that the server had before it went back, until it has that again.
    lost: Option<GtidSet>,
    lag: Option<Duration>,
    standing: Standing,
    draining: bool,
    /// Kept from all clients, by every proxy.
    fenced: bool,
    maintenance: bool,
    /// The configuration names it no more.
    gone: bool,
    /// Has been used at any time.
    pooled: bool,
    role: Role,
    state: State,
    reason: String,
    online_since: Duration,
}

impl Discovery {
    pub fn new(config: &Config) -> Self {
        Self {
            failures: config.monitor.failures,
            lag: config.lag.clone(),
            servers: Roster::new(&config.servers)
                .members()
                .map(|(id, member)| Tracked::new(id, member))
                .collect(),
            sources: Sources::default(),
            clock: LagClock::default(),
            newest: None,
            estimated: false,
            primary: Primary::None { reason: "no server has answered yet".into(), rivals: Vec::new() },
            last: None,
            epoch: 0,
            appointment: Appointment::Free,
            ready: config.servers.is_empty(),
        }
    }

    /// Follows what the failover controller says instead of what the servers look like.
    pub fn appoint(&mut self, appointment: Appointment, now: Duration) {
        self.appointment = appointment;
        self.decide_primary();
        self.judge_all(now);
    }

    /// Takes the outcome of one probe and judges all servers anew.
    pub fn observe(&mut self, observation: Observation) {
        let Observation { server, asked, noticed, news } = observation;
        let at = usize::from(server.0);
        // A probe of one that has gone meanwhile says nothing.
        let Some(tracked) = self.servers.get_mut(at).filter(|tracked| !tracked.gone) else { return };
        tracked.health.observe(&news, self.failures);
        let is_report = matches!(news, News::Report(_));
        if let News::Report(report) = news {
            tracked.asked = asked;
            tracked.reported = noticed;
            tracked.divergence.note(&report.executed, noticed);
            self.take_report(at, *report);
        }
        self.decide_primary();
        if is_report {
            self.take_position(server, asked, noticed);
        }
        self.judge_all(noticed);
    }

    /// Takes a server out of the read pool, or lets it back in.
    pub fn set_draining(&mut self, server: ServerId, draining: bool, now: Duration) {
        if let Some(tracked) = self.servers.get_mut(usize::from(server.0)) {
            tracked.draining = draining;
            self.judge_all(now);
        }
    }

    /// Keeps these servers from clients, and no others.
    pub fn withdraw(&mut self, withdrawn: &Withdrawn, now: Duration) {
        for tracked in &mut self.servers {
            tracked.fenced = withdrawn.fenced.contains(&tracked.id);
            tracked.maintenance = withdrawn.maintenance.contains(&tracked.id);
        }
        self.judge_all(now);
    }

    /// Takes up a changed configuration: servers that have come or gone, weights and lag limits.
    pub fn reconfigure(&mut self, config: &Config, roster: &Roster, now: Duration) {
        self.lag = config.lag.clone();
        for (id, member) in roster.members() {
            match self.servers.get_mut(usize::from(id.0)) {
                Some(tracked) if tracked.gone == member.gone => tracked.weight = member.server.weight,
                Some(tracked) => *tracked = Tracked::new(id, member),
                None => self.servers.push(Tracked::new(id, member)),
            }
            if member.gone {
                self.sources.forget(id);
                self.last = self.last.filter(|last| *last != id);
            }
        }
        self.decide_primary();
        self.judge_all(now);
    }

    /// The last report of a server, however old.
    pub fn report(&self, server: ServerId) -> Option<&Report> {
        self.servers.get(usize::from(server.0))?.report.as_ref()
    }

    /// The picture as it is now.
    pub fn topology(&self) -> Topology {
        let (primary, no_primary_reason) = match &self.primary {
            Primary::Is(id) => (Some(*id), String::new()),
            Primary::None { reason, .. } => (None, reason.clone()),
        };
        let speaker = self.last.and_then(|id| self.report(id));
        let speaker = speaker.or_else(|| self.servers.iter().find_map(|s| s.report.as_ref()));
        Topology {
            epoch: self.epoch,
            primary,
            no_primary_reason,
            ready: self.ready,
            flavour: speaker.map(|report| report.flavour).unwrap_or_default(),
            version: speaker.map(|report| report.version.clone()).unwrap_or_default(),
            servers: self.servers.iter().map(Tracked::view).collect(),
        }
    }

    /// Stores a report, and notices a position that went back.
    fn take_report(&mut self, at: usize, report: Report) {
        let is_primary = self.primary == Primary::Is(self.servers[at].id);
        let tracked = &mut self.servers[at];
        let before = tracked.report.replace(report);
        let Some(report) = &tracked.report else { return };
        if tracked.lost.as_ref().is_some_and(|lost| report.executed.contains(lost)) {
            tracked.lost = None;
        }
        let Some(before) = before.filter(|before| !report.executed.contains(&before.executed)) else {
            return;
        };
        tracked.lost.get_or_insert_with(GtidSet::default).merge(&before.executed);
        if is_primary {
            self.restart_clock();
            for other in self.servers.iter_mut().filter(|other| usize::from(other.id.0) != at) {
                if let Some(report) = &other.report {
                    other.divergence.strand(&report.executed);
                }
            }
        }
    }

    fn decide_primary(&mut self) {
        let barred: Vec<_> = self.servers.iter().map(Tracked::barred).collect();
        let seen = seen(&self.servers, &barred);
        self.sources.learn(&seen);
        let discovered = match &self.appointment {
            Appointment::Free => roles::decide(&seen, &self.sources, self.last),
            Appointment::Primary { server, epoch } => {
                self.last = Some(*server);
                self.epoch = *epoch;
                roles::appointed(&seen, *server)
            }
            Appointment::Nobody { epoch, reason } => {
                self.epoch = self.epoch.max(*epoch);
                Primary::None { reason: reason.clone(), rivals: Vec::new() }
            }
        };
        self.primary = discovered;
        if let Primary::Is(id) = self.primary
            && self.last != Some(id)
        {
            self.last = Some(id);
            self.epoch += 1;
        }
    }

    /// Uses a fresh report of `server`: the primary's gives the lag clock a sample, a replica's is held against it.
    fn take_position(&mut self, server: ServerId, asked: Duration, noticed: Duration) {
        let at = usize::from(server.0);
        if self.primary == Primary::Is(server) {
            let Some(position) = self.report(server).map(|report| report.executed.clone()) else { return };
            for other in self.servers.iter_mut().filter(|other| other.id != server) {
                other.divergence.compare(&position, asked, noticed);
            }
            if std::mem::take(&mut self.estimated) {
                self.restart_clock();
            }
            self.sample(&position, asked);
            return;
        }
        if self.last.is_none() {
            // Nobody knows the primary's position: the replicas are measured by the most advanced of them.
            let mut union = GtidSet::default();
            for report in self.servers.iter().filter_map(|s| s.report.as_ref()) {
                union.merge(&report.applied);
            }
            self.estimated = true;
            self.sample(&union, asked);
        }
        let lag = self.lag_of(at, noticed);
        let tracked = &mut self.servers[at];
        tracked.lag = lag;
        tracked.standing.measure(lag, &self.lag);
    }

    fn sample(&mut self, position: &GtidSet, at: Duration) {
        self.clock.sample(at, position);
        self.newest = Some(at);
    }

    fn restart_clock(&mut self) {
        self.clock = LagClock::default();
        self.newest = None;
    }

    /// The lag of a replica at `now`; it stands still while the primary makes nothing that it could miss.
    fn lag_of(&self, at: usize, now: Duration) -> Option<Duration> {
        let report = self.servers.get(at)?.report.as_ref()?;
        let now = match (&self.primary, self.newest) {
            (Primary::None { .. }, Some(newest)) => now.min(newest),
            (Primary::Is(_) | Primary::None { .. }, _) => now,
        };
        self.clock.lag_of(&report.applied, now)
    }

    fn judge_all(&mut self, now: Duration) {
        // It stays over when a server is added.
        self.ready |= self.servers.iter().all(|s| s.gone || s.health.known());
        self.age_silent_servers(now);
        let barred: Vec<_> = self.servers.iter().map(Tracked::barred).collect();
        let seen = seen(&self.servers, &barred);
        let surroundings = verdict::Surroundings {
            primary: &self.primary,
            last: self.last,
            sources: &self.sources,
            seen: &seen,
            moving: matches!(self.appointment, Appointment::Nobody { .. }),
            now,
        };
        let verdicts: Vec<_> = self.servers.iter().map(|server| surroundings.judge(server)).collect();
        for (server, verdict) in self.servers.iter_mut().zip(verdicts) {
            if verdict.state == State::Online && server.state != State::Online {
                server.online_since = now;
            }
            server.pooled |= verdict.state == State::Online;
            server.standing.receiver_stopped = verdict.receiver_stopped;
            server.role = verdict.role;
            server.state = verdict.state;
            server.reason = verdict.reason;
        }
    }

    /// A server that lives but answers no more questions falls behind, as far as anybody can tell.
    fn age_silent_servers(&mut self, now: Duration) {
        for at in 0..self.servers.len() {
            let server = &self.servers[at];
            if self.last == Some(server.id) || now.saturating_sub(server.reported) < STALE_AFTER {
                continue;
            }
            let lag = self.lag_of(at, now);
            let tracked = &mut self.servers[at];
            tracked.lag = lag;
            tracked.standing.measure(lag, &self.lag);
        }
    }
}

/// The age of a report from which on its lag is counted up.
const STALE_AFTER: Duration = Duration::from_secs(1);

fn seen<'a>(servers: &'a [Tracked], barred: &'a [Option<String>]) -> Vec<Seen<'a>> {
    let one = |(server, barred): (&'a Tracked, &'a Option<String>)| Seen {
        id: server.id,
        name: &server.name,
        // Another one may have it now.
        address: if server.gone { "" } else { &server.address },
        up: server.health.up(),
        report: server.report.as_ref(),
        barred: barred.as_deref(),
    };
    servers.iter().zip(barred).map(one).collect()
}

impl Tracked {
    /// A server of which nothing is known yet.
    fn new(id: ServerId, Member { server, gone }: &Member) -> Self {
        Self {
            id,
            name: server.name.clone(),
            address: server.address.clone(),
            weight: server.weight,
            zone: server.zone.clone(),
            health: Health::default(),
            report: None,
            asked: Duration::ZERO,
            reported: Duration::ZERO,
            divergence: Divergence::default(),
            lost: None,
            lag: None,
            standing: Standing::default(),
            draining: false,
            fenced: false,
            maintenance: false,
            gone: *gone,
            pooled: false,
            role: Role::Unknown,
            state: State::Unknown,
            reason: String::new(),
            online_since: Duration::ZERO,
        }
    }

    /// Why the server is no candidate for the primary's place although it accepts writes.
    fn barred(&self) -> Option<String> {
        self.lost.as_ref().map(|lost| format!("its position went back and lacks part of {lost}"))
    }

    fn view(&self) -> ServerView {
        let report = self.report.as_ref();
        ServerView {
            id: self.id,
            name: self.name.clone(),
            address: self.address.clone(),
            weight: self.weight,
            zone: self.zone.clone(),
            role: self.role,
            state: self.state,
            reason: self.reason.clone(),
            lag: if self.role == Role::Primary { Some(Duration::ZERO) } else { self.lag },
            position: report
                .map(|report| match self.role {
                    Role::Primary => report.executed.clone(),
                    Role::Replica | Role::Unknown => report.applied.clone(),
                })
                .unwrap_or_default(),
            position_at: self.asked,
            online_since: self.online_since,
            read_only: report.is_some_and(|report| report.read_only),
            version: report.map(|report| report.version.clone()).unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests;
