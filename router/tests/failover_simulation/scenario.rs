//! What a schedule consists of: how many of what, and which faults when.

use std::time::Duration;

use pointsman_router::failover::{Phase, Request, ServerSettings, Settings};
use pointsman_router::roster::Roster;
use pointsman_router::topology::ServerId;

use crate::coverage::count;
use crate::random::Random;
use crate::world::{Due, FAULTS_UNTIL, LEASE, Millis, World};

#[derive(Clone, Debug)]
pub(crate) struct Scenario {
    pub(crate) servers: usize,
    pub(crate) proxies: usize,
    pub(crate) lossless: bool,
    pub(crate) direct: bool,
    pub(crate) settings: Settings,
    pub(crate) faults: Vec<(Millis, Fault)>,
    /// How often, in a hundred, a change of phase meets a fault.
    pub(crate) at_phase: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    KillPrimary,
    KillAny,
    /// The primary and a replica at once.
    KillTwo,
    RestartPrimary,
    FreezePrimary,
    FreezeAny,
    /// The primary from everything.
    CutPrimary,
    /// The primary from its replicas.
    CutReplicas,
    /// A proxy from the primary.
    CutProxy,
    CutAny,
    KillActor,
    KillPrimaryAndProxy,
    FreezeActor,
    CoordinatorDown,
    CutCoordinator,
    CutPeers,
    JumpWallClock,
    RestartThreads,
    StopApplier,
    SlowApplier,
    SemiSyncOff,
    /// The primary's disk.
    FillPrimary,
    Switchover,
    /// Operators stop a replica and take it out of the configuration for a while.
    Unlist,
}

pub(crate) const FAULTS: [Fault; 24] = [
    Fault::KillPrimary,
    Fault::KillAny,
    Fault::KillTwo,
    Fault::RestartPrimary,
    Fault::FreezePrimary,
    Fault::FreezeAny,
    Fault::CutPrimary,
    Fault::CutReplicas,
    Fault::CutProxy,
    Fault::CutAny,
    Fault::KillActor,
    Fault::KillPrimaryAndProxy,
    Fault::FreezeActor,
    Fault::CoordinatorDown,
    Fault::CutCoordinator,
    Fault::CutPeers,
    Fault::JumpWallClock,
    Fault::RestartThreads,
    Fault::StopApplier,
    Fault::SlowApplier,
    Fault::SemiSyncOff,
    Fault::FillPrimary,
    Fault::Switchover,
    Fault::Unlist,
];

impl Scenario {
    pub(crate) fn random(random: &mut Random, base: &Settings) -> Self {
        let lossless = random.below(3) != 0;
        let servers = if lossless {
            [3, 3, 3, 4, 4, 5][random.below(6) as usize]
        } else {
            2 + random.below(2) as usize
        };
        let proxies = 1 + random.below(3) as usize;
        let mut settings = base.clone();
        settings.servers.truncate(servers);
        if lossless && random.below(8) == 0 {
            settings.servers[1].promotion = pointsman_config::Promotion::Never;
        }
        let mut faults = Vec::new();
        for _ in 0..1 + random.below(4) {
            let at = 300 + random.below(FAULTS_UNTIL - 400);
            faults.push((at, FAULTS[random.below(FAULTS.len() as u64) as usize]));
        }
        let at_phase = [0, 0, 15, 40][random.below(4) as usize];
        Self { servers, proxies, lossless, direct: random.below(2) == 0, settings, faults, at_phase }
    }

    pub(crate) fn base_settings() -> Settings {
        let config = pointsman_config::Config::default();
        let mut settings = Settings::new(&config, &Roster::default(), Default::default());
        let server = |at: usize| ServerSettings {
            name: format!("s{at}"),
            address: format!("s{at}:3306"),
            region: String::new(),
            zone: String::new(),
            promotion: Default::default(),
            gone: false,
        };
        settings.servers = (0..5).map(server).collect();
        settings.min_interval = Duration::ZERO;
        settings.max_per_hour = 0;
        settings.async_silence = Duration::from_millis(600);
        settings.stalled_for = Duration::from_millis(400);
        settings.lease = Duration::from_millis(LEASE);
        settings.switchover_timeout = Duration::from_secs(2);
        settings.transaction_timeout = Duration::from_millis(50);
        settings
    }
}

impl World {
    fn length(&mut self) -> Millis {
        match self.random.below(3) {
            0 => 50 + self.random.below(300),
            1 => 300 + self.random.below(1200),
            _ => 1000 + self.random.below(2000),
        }
    }

    fn some_server(&mut self) -> usize {
        self.random.below(self.servers.len() as u64) as usize
    }

    fn some_proxy(&mut self) -> usize {
        self.random.below(self.proxies.len() as u64) as usize
    }

    fn primary(&self) -> usize {
        self.coordinator.record.as_ref().and_then(crate::check::primary_of).unwrap_or(0)
    }

    /// The proxy that acts, or any.
    fn actor(&mut self) -> usize {
        let actor = self.coordinator.record.as_ref().map(|record| record.actor.0.clone()).unwrap_or_default();
        let found = actor.strip_prefix('x').and_then(|rest| rest.split('-').next()?.parse().ok());
        found.unwrap_or_else(|| self.some_proxy())
    }

    pub(crate) fn fault_at_phase(&mut self, phase: Phase) {
        if phase == Phase::Stable || self.healed.is_some() || self.random.below(100) >= self.scenario.at_phase
        {
            return;
        }
        let fault = FAULTS[self.random.below(FAULTS.len() as u64) as usize];
        let at = self.now + self.random.below(60);
        self.at(at, Due::Fault(fault));
    }

    fn kill(&mut self, server: usize) {
        let back = self.now + self.length();
        self.servers[server].crash();
        self.at(back, Due::Start { server });
    }

    fn kill_proxy(&mut self, proxy: usize) {
        let back = self.now + self.length();
        self.proxies[proxy].alive = false;
        self.at(back, Due::StartProxy { proxy });
    }

    #[allow(clippy::too_many_lines, reason = "one arm for each fault")]
    pub(crate) fn inject(&mut self, fault: Fault) {
        if self.healed.is_some() {
            return;
        }
        if self.trace {
            eprintln!("{:6} fault {fault:?}", self.now);
        }
        count(self.coordinator.record.as_ref().map(|record| record.phase), fault);
        let (servers, proxies, coordinator) = self.ends();
        let primary = self.primary();
        let length = self.length();
        match fault {
            Fault::KillPrimary => self.kill(primary),
            Fault::KillAny => {
                let server = self.some_server();
                self.kill(server);
            }
            Fault::KillTwo => {
                self.kill(primary);
                let server = self.some_server();
                self.kill(server);
            }
            Fault::RestartPrimary => {
                self.servers[primary].crash();
                let back = self.now + self.random.below(80);
                self.at(back, Due::Start { server: primary });
            }
            Fault::FreezePrimary => self.freeze(primary, length),
            Fault::FreezeAny => {
                let server = self.some_server();
                self.freeze(server, length);
            }
            Fault::CutPrimary => (0..=coordinator).filter(|end| *end != primary).for_each(|end| {
                self.cut_for(primary, end, length);
            }),
            Fault::CutReplicas => (0..servers).filter(|end| *end != primary).for_each(|end| {
                self.cut_for(primary, end, length);
            }),
            Fault::CutProxy => {
                let proxy = servers + self.some_proxy();
                self.cut_for(primary, proxy, length);
            }
            Fault::CutAny => {
                let a = self.random.below(coordinator as u64 + 1) as usize;
                let b = self.random.below(coordinator as u64 + 1) as usize;
                if a != b {
                    self.cut_for(a, b, length);
                }
            }
            Fault::KillActor => {
                let proxy = self.actor();
                self.kill_proxy(proxy);
            }
            Fault::KillPrimaryAndProxy => {
                let proxy = self.actor();
                self.kill(primary);
                self.kill_proxy(proxy);
            }
            Fault::FreezeActor => {
                let proxy = self.actor();
                self.proxies[proxy].frozen_until = self.now + length;
            }
            Fault::CoordinatorDown => {
                self.coordinator.up = false;
                self.at(self.now + length, Due::CoordinatorUp);
            }
            Fault::CutCoordinator => {
                let proxy = servers + self.some_proxy();
                self.cut_for(proxy, coordinator, length);
            }
            Fault::CutPeers => {
                for one in 0..proxies {
                    for other in 0..one {
                        self.cut_for(servers + one, servers + other, length);
                    }
                }
            }
            Fault::JumpWallClock => {
                let proxy = self.some_proxy();
                self.wall_skew[proxy] += if self.random.below(2) == 0 { 3_600_000 } else { -3_600_000 };
            }
            Fault::RestartThreads => {
                let server = &mut self.servers[(primary + 1) % servers];
                if server.alive() && server.source.is_some() {
                    server.stop_receiver();
                    server.stop_applier();
                    server.start_receiver();
                    server.start_applier();
                }
            }
            Fault::StopApplier => self.servers[(primary + 1) % servers].stop_applier(),
            Fault::SlowApplier => self.servers[(primary + 1) % servers].slow = true,
            Fault::FillPrimary => {
                self.servers[primary].full = true;
                if self.random.below(2) == 0 {
                    self.at(self.now + length, Due::Room { server: primary });
                }
            }
            Fault::SemiSyncOff => {
                // Only where nothing depends on it: it ends the promise.
                if !self.scenario.lossless {
                    self.servers[primary].semi_source = false;
                }
            }
            Fault::Switchover => {
                let proxy = self.some_proxy();
                let to =
                    (self.random.below(2) == 0).then(|| ServerId(self.random.below(servers as u64) as u16));
                self.request(proxy, Request::Switchover { to, dry_run: false });
            }
            Fault::Unlist => {
                let server = (primary + 1) % servers;
                if servers > 2 && self.unlisted.is_none() {
                    self.servers[server].stop_receiver();
                    self.unlisted = Some(server);
                    let back = self.now + 1_000 + self.random.below(8_000);
                    self.at(back, Due::List);
                }
            }
        }
    }
}
