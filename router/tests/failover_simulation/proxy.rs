//! A proxy: the real controller, and a data plane that does as it is told.

use std::collections::BTreeSet;
use std::time::Duration;

use pointsman_router::failover::{
    Action, Controller, Event, Heartbeat, Mark, Message, ProxyId, Request, RequestId, Service, Settings,
    Stall, StepId,
};

use crate::scenario::Scenario;
use crate::server::Waiter;
use crate::world::{Due, ForProxy, Millis, World, duration};

pub(crate) struct Proxy {
    pub(crate) life: u32,
    pub(crate) alive: bool,
    pub(crate) frozen_until: Millis,
    /// As far as this proxy has heard.
    pub(crate) unlisted: Option<usize>,
    pub(crate) controller: Controller,
    pub(crate) tick_at: Millis,
    pub(crate) service: Service,
    /// Connections of earlier epochs are gone.
    dropped_before: u64,
    pub(crate) mark: Mark,
    pub(crate) outstanding: BTreeSet<StepId>,
    pub(crate) last_arrival: Vec<Millis>,
    /// The last row, and its epoch.
    pub(crate) acknowledged: Option<(u32, u64)>,
    requests: u64,
    /// Since when the heartbeat that it writes has not ended.
    stalled: Option<Millis>,
    /// The last message of each kind: its registration says them again.
    told: Vec<Message>,
}

impl Proxy {
    pub(crate) fn new(at: usize, life: u32, scenario: &Scenario) -> Self {
        let mut settings: Settings = scenario.settings.clone();
        settings.proxy = ProxyId(format!("x{at}-{life}"));
        let controller = Controller::new(settings);
        Self {
            life,
            alive: true,
            frozen_until: 0,
            unlisted: None,
            service: controller.service().clone(),
            controller,
            tick_at: Millis::MAX,
            dropped_before: 0,
            mark: Mark::Known(Default::default()),
            outstanding: BTreeSet::new(),
            last_arrival: vec![0; scenario.servers],
            acknowledged: None,
            requests: 0,
            stalled: None,
            told: Vec::new(),
        }
    }

    /// Takes up the configuration as it is now, when it may. The primary stays in it.
    pub(crate) fn follow(&mut self, unlisted: Option<usize>, scenario: &Scenario) {
        let primary = self.controller.record().and_then(|(record, _)| crate::check::primary_of(record));
        let is_primary = unlisted.is_some() && unlisted == primary;
        if self.unlisted == unlisted || is_primary {
            return;
        }
        let mut settings = scenario.settings.clone();
        settings.proxy = self.controller.proxy().clone();
        if let Some(server) = unlisted {
            settings.servers[server].gone = true;
        }
        if self.controller.may_follow(&settings) {
            self.unlisted = unlisted;
            self.controller.reconfigure(settings);
        }
    }

    fn may_forward(&self, epoch: u64, now: Duration) -> bool {
        if epoch < self.dropped_before {
            return false;
        }
        match &self.service {
            Service::Writes { epoch: current, until, .. } if *current == epoch => {
                until.is_none_or(|until| now < until)
            }
            // Connections of the epoch itself live on while new writes wait.
            Service::Writes { .. } | Service::Hold { .. } | Service::ReadsOnly { .. } => true,
        }
    }
}

impl World {
    pub(crate) fn perform(&mut self, proxy: usize, action: Action) {
        match action {
            Action::Swap { id, expected, record } => {
                let (at, life) = (self.now + 1 + self.random.below(4), self.proxies[proxy].life);
                self.at(at, Due::Swap { proxy, life, id, expected, record });
            }
            Action::ReadRecord => self.ask_record(proxy),
            Action::Step(order) => self.send_step(proxy, order),
            Action::Serve(service) => self.serve(proxy, service),
            Action::Tell { message, .. } => {
                self.send_message(proxy, &message);
                let told = &mut self.proxies[proxy].told;
                told.retain(|before| std::mem::discriminant(before) != std::mem::discriminant(&message));
                told.push(message);
            }
            Action::ProbeNow => {
                for server in 0..self.servers.len() {
                    self.probe(proxy, server, false);
                }
            }
            Action::Answer { .. } | Action::Note(_) => {}
        }
    }

    /// A small write on the primary by whoever is to do it.
    pub(crate) fn beat(&mut self, proxy: usize) {
        let now = self.now;
        let target = self.proxies[proxy].controller.beats();
        let reached = target.filter(|(server, _)| {
            let at = usize::from(server.0);
            self.servers[at].alive() && self.connected(at, self.proxy_end(proxy))
        });
        let Some((server, epoch)) = reached else {
            self.proxies[proxy].stalled = None;
            return;
        };
        let at = usize::from(server.0);
        let (one, attached) = (&self.servers[at], self.attached(at).len());
        let cause = if one.full {
            Some(Stall::DiskFull)
        } else if one.semi_source && attached < one.wait_for as usize {
            Some(Stall::NoAcker)
        } else {
            None
        };
        let stalled = &mut self.proxies[proxy].stalled;
        let outcome = match cause {
            None => {
                *stalled = None;
                Heartbeat::Written
            }
            Some(cause) => {
                let since = duration(now - *stalled.get_or_insert(now));
                Heartbeat::Stalled { since, cause }
            }
        };
        self.tell(proxy, Event::Heartbeat { server, epoch, outcome });
    }

    /// What the registration says is heard each time that it is renewed.
    pub(crate) fn say_again(&mut self, proxy: usize) {
        for message in self.proxies[proxy].told.clone() {
            self.send_message(proxy, &message);
        }
    }

    fn serve(&mut self, proxy: usize, service: Service) {
        let now = self.now;
        let one = &mut self.proxies[proxy];
        let holds = match &service {
            Service::Writes { epoch, .. } => {
                one.dropped_before = one.dropped_before.max(*epoch);
                None
            }
            Service::Hold { epoch, grace, .. } => Some((*epoch, grace.as_millis() as Millis)),
            Service::ReadsOnly { epoch, .. } => Some((*epoch, 0)),
        };
        one.service = service;
        if let Some((epoch, grace)) = holds {
            if grace == 0 {
                one.dropped_before = one.dropped_before.max(epoch);
            }
            let at = now + grace.min(20);
            self.for_proxy(at, proxy, ForProxy::Held { epoch });
        }
    }

    /// What was sent before is let go of at the latest when the hold is confirmed.
    pub(crate) fn let_go(&mut self, proxy: usize, epoch: u64) {
        let one = &mut self.proxies[proxy];
        one.dropped_before = one.dropped_before.max(epoch);
    }

    pub(crate) fn client_write(&mut self, proxy: usize) {
        let next = self.now + 20 + self.random.below(40);
        self.for_proxy(next, proxy, ForProxy::Write);
        let one = &self.proxies[proxy];
        let Service::Writes { primary, epoch, until } = one.service else { return };
        if until.is_some_and(|until| duration(self.now) >= until) {
            return;
        }
        let life = one.life;
        let row = self.check.next_row();
        let waiter = Waiter { length: 0, row, via: Some((proxy, life)), epoch };
        let at = self.now + 1 + self.random.below(3);
        self.at(at, Due::Write { server: usize::from(primary.0), waiter, life });
    }

    pub(crate) fn ok(&mut self, proxy: usize, waiter: Waiter, server: usize) {
        if !self.proxies[proxy].may_forward(waiter.epoch, duration(self.now)) {
            return;
        }
        let position = self.servers[server].position(waiter.length);
        let one = &mut self.proxies[proxy];
        if let Mark::Known(mark) = &mut one.mark {
            mark.merge(&position);
        }
        one.acknowledged = Some((waiter.row, waiter.epoch));
        self.check.acknowledged(
            waiter.row,
            server,
            waiter.epoch,
            self.coordinator.record.as_ref(),
            &self.servers,
        );
    }

    pub(crate) fn request(&mut self, proxy: usize, request: Request) {
        let one = &mut self.proxies[proxy];
        if !one.alive || one.frozen_until > self.now {
            return;
        }
        one.requests += 1;
        let id = RequestId(one.requests);
        self.tell(proxy, Event::Request { id, request });
    }
}
