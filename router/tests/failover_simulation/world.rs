//! The world of one schedule: servers, proxies, a coordinator, clients, and a network that is not to be relied on.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::Duration;

use pointsman_router::discover::{News, Observation};
use pointsman_router::failover::{
    Durability, Event, Message, Outcome, Phase, ProxyId, Record, Revision, StepError, StepId, StepOrder,
    SwapId,
};
use pointsman_router::topology::ServerId;

use crate::check::{Checker, Violation};
use crate::coordinator::Coordinator;
use crate::proxy::Proxy;
use crate::random::Random;
use crate::scenario::{Fault, Scenario};
use crate::server::{NO_ROW, Server, Waiter};
use crate::trace;

pub(crate) type Millis = u64;

pub(crate) fn duration(at: Millis) -> Duration {
    Duration::from_millis(at)
}

/// Something that is due.
#[derive(Debug)]
pub(crate) enum Due {
    Round,
    Fault(Fault),
    Heal,
    DirectWrite,
    /// For a proxy in its `life`.
    Proxy {
        proxy: usize,
        life: u32,
        what: ForProxy,
    },
    Write {
        server: usize,
        waiter: Waiter,
        life: u32,
    },
    Step {
        proxy: usize,
        life: u32,
        order: Box<StepOrder>,
        arrived: Millis,
    },
    Swap {
        proxy: usize,
        life: u32,
        id: SwapId,
        expected: Revision,
        record: Box<Record>,
    },
    Read {
        proxy: usize,
        life: u32,
        asked: Millis,
    },
    Start {
        server: usize,
    },
    Room {
        server: usize,
    },
    Thaw {
        server: usize,
    },
    Reconnect {
        a: usize,
        b: usize,
    },
    /// The configuration names every server again.
    List,
    /// After it: the operator starts the replication of the one that was away.
    Resume {
        server: usize,
    },
    StartProxy {
        proxy: usize,
    },
    CoordinatorUp,
}

/// What happens at a proxy; it waits while the process is frozen.
#[derive(Debug)]
pub(crate) enum ForProxy {
    Tick,
    Probe { server: usize, again: bool },
    Write,
    Ok { waiter: Waiter, server: usize },
    Held { epoch: u64 },
    StepTimeout { id: StepId },
    Renew,
    Beat,
    Event(Box<Event>),
}

pub(crate) struct World {
    pub(crate) now: Millis,
    queue: BinaryHeap<Reverse<(Millis, u64, usize)>>,
    pending: Vec<Option<Due>>,
    free: Vec<usize>,
    sequence: u64,
    pub(crate) random: Random,
    pub(crate) scenario: Scenario,
    pub(crate) servers: Vec<Server>,
    pub(crate) thaws: Vec<Millis>,
    pub(crate) proxies: Vec<Proxy>,
    pub(crate) coordinator: Coordinator,
    /// By both ends; servers first, then proxies, then the coordinator.
    pub(crate) cuts: Vec<u32>,
    pub(crate) check: Checker,
    /// The server that the configuration names no more.
    pub(crate) unlisted: Option<usize>,
    pub(crate) healed: Option<Millis>,
    /// Rows that were written after that are higher.
    pub(crate) healed_row: u32,
    pub(crate) wall_skew: Vec<i64>,
    pub(crate) trace: bool,
}

pub(crate) const FAULTS_UNTIL: Millis = 2_000;
pub(crate) const LIVE_WITHIN: Millis = 30_000;
/// Long enough for every proxy to count it among those that may acknowledge.
const RESUMED_AFTER: Millis = 4_000;
/// Silence is counted each time that this has passed.
const SHARE: Millis = 100;
pub(crate) const LEASE: Millis = 900;

impl World {
    pub(crate) fn new(scenario: Scenario, random: Random) -> Self {
        let (servers, proxies) = (scenario.servers, scenario.proxies);
        let mut world = Self {
            now: 0,
            queue: BinaryHeap::new(),
            pending: Vec::new(),
            free: Vec::new(),
            sequence: 0,
            random,
            servers: (0..servers).map(|id| Server::new(id as u8, scenario.lossless)).collect(),
            thaws: vec![0; servers],
            proxies: (0..proxies).map(|at| Proxy::new(at, 1, &scenario)).collect(),
            coordinator: Coordinator { up: true, revision: 0, record: None, registered: BTreeMap::new() },
            cuts: vec![0; servers + proxies + 1],
            check: Checker::new(scenario.lossless),
            unlisted: None,
            healed: None,
            healed_row: u32::MAX,
            wall_skew: vec![0; proxies],
            trace: false,
            scenario,
        };
        world.at(0, Due::Round);
        world.at(200, Due::DirectWrite);
        for proxy in 0..proxies {
            world.begin_proxy(proxy);
        }
        let faults = world.scenario.faults.clone();
        for (at, fault) in faults {
            world.at(at, Due::Fault(fault));
        }
        world.at(FAULTS_UNTIL, Due::Heal);
        world
    }

    pub(crate) fn run(&mut self) -> Result<(), Violation> {
        while let Some(Reverse((at, _, slot))) = self.queue.pop() {
            self.now = at;
            let due = self.pending[slot].take().expect("a due thing is there once");
            self.free.push(slot);
            self.happen(due);
            if let Some(violation) = self.check.violation.take() {
                return Err(violation);
            }
            if let Some(healed) = self.healed {
                if self.is_well() {
                    return self.check.at_end(self.coordinator.record.as_ref(), &self.servers);
                }
                if self.now > healed + LIVE_WITHIN {
                    return Err(Violation(format!(
                        "no liveness: {:?}; served: {:?}",
                        self.coordinator.record,
                        self.proxies
                            .iter()
                            .map(|proxy| proxy.controller.service().clone())
                            .collect::<Vec<_>>()
                    )));
                }
            }
        }
        Ok(())
    }

    /// Every proxy has had a write acknowledged in the last epoch since the faults stopped.
    fn is_well(&self) -> bool {
        let Some(record) = &self.coordinator.record else { return false };
        record.phase == Phase::Stable
            && self.proxies.iter().all(|proxy| {
                proxy.acknowledged.is_some_and(|(row, epoch)| row > self.healed_row && epoch == record.epoch)
            })
    }

    pub(crate) fn at(&mut self, at: Millis, due: Due) {
        self.sequence += 1;
        let slot = self.free.pop().unwrap_or_else(|| {
            self.pending.push(None);
            self.pending.len() - 1
        });
        self.pending[slot] = Some(due);
        self.queue.push(Reverse((at.max(self.now), self.sequence, slot)));
    }

    pub(crate) fn for_proxy(&mut self, at: Millis, proxy: usize, what: ForProxy) {
        let life = self.proxies[proxy].life;
        self.at(at, Due::Proxy { proxy, life, what });
    }

    pub(crate) fn proxy_end(&self, proxy: usize) -> usize {
        self.servers.len() + proxy
    }

    pub(crate) fn coordinator_end(&self) -> usize {
        self.servers.len() + self.proxies.len()
    }

    pub(crate) fn connected(&self, a: usize, b: usize) -> bool {
        self.cuts[a] & (1 << b) == 0
    }

    pub(crate) fn cut(&mut self, a: usize, b: usize) {
        self.cuts[a] |= 1 << b;
        self.cuts[b] |= 1 << a;
    }

    pub(crate) fn mend(&mut self, a: usize, b: usize) {
        self.cuts[a] &= !(1 << b);
        self.cuts[b] &= !(1 << a);
    }

    pub(crate) fn latency(&mut self) -> Millis {
        match self.random.below(100) {
            0 => 20 + self.random.below(300),
            _ => 1 + self.random.below(3),
        }
    }

    fn begin_proxy(&mut self, proxy: usize) {
        let start = self.now + 1 + self.random.below(20);
        for server in 0..self.servers.len() {
            let offset = self.random.below(100);
            self.for_proxy(start + offset, proxy, ForProxy::Probe { server, again: true });
        }
        self.for_proxy(start, proxy, ForProxy::Tick);
        self.for_proxy(start, proxy, ForProxy::Renew);
        self.for_proxy(start + 10, proxy, ForProxy::Write);
        self.for_proxy(start + 20, proxy, ForProxy::Beat);
    }

    fn happen(&mut self, due: Due) {
        match due {
            Due::Round => {
                self.round();
                self.at(self.now + 10, Due::Round);
            }
            Due::Fault(fault) => self.inject(fault),
            Due::Heal => self.heal(),
            Due::DirectWrite => self.direct_write(),
            Due::Proxy { proxy, life, what } => self.at_proxy(proxy, life, what),
            Due::Write { server, waiter, life } => self.write(server, waiter, life),
            Due::Step { proxy, life, order, arrived } => self.step(proxy, life, order, arrived),
            Due::Swap { proxy, life, id, expected, record } => self.swap(proxy, life, id, expected, record),
            Due::Read { proxy, life, asked } => self.read(proxy, life, asked),
            Due::Start { server } => {
                let behind = self.random.below(3) as usize;
                let autostart = !self.scenario.lossless && self.random.below(2) == 0;
                // Whoever runs without the promise must not cut off anything either.
                let promised = self
                    .coordinator
                    .record
                    .as_ref()
                    .is_some_and(|record| record.durability == Durability::Lossless);
                self.servers[server].truncates = promised;
                self.servers[server].start(behind, autostart);
            }
            Due::Room { server } => self.servers[server].make_room(),
            Due::Thaw { server } => self.servers[server].frozen = false,
            Due::Reconnect { a, b } => self.mend(a, b),
            Due::List => {
                if let Some(server) = self.unlisted.take() {
                    self.at(self.now + RESUMED_AFTER, Due::Resume { server });
                }
            }
            Due::Resume { server } => {
                let server = &mut self.servers[server];
                if server.alive() && server.source.is_some() && !server.receives {
                    server.start_receiver();
                    server.start_applier();
                }
            }
            Due::StartProxy { proxy } => self.start_proxy(proxy),
            Due::CoordinatorUp => self.coordinator.up = true,
        }
    }

    fn start_proxy(&mut self, proxy: usize) {
        if self.proxies[proxy].alive {
            return;
        }
        let life = self.proxies[proxy].life + 1;
        self.proxies[proxy] = Proxy::new(proxy, life, &self.scenario);
        self.begin_proxy(proxy);
    }

    fn at_proxy(&mut self, proxy: usize, life: u32, what: ForProxy) {
        let one = &self.proxies[proxy];
        if one.life != life || !one.alive {
            return;
        }
        if one.frozen_until > self.now {
            self.at(one.frozen_until, Due::Proxy { proxy, life, what });
            return;
        }
        match what {
            ForProxy::Tick => {
                if self.proxies[proxy].tick_at <= self.now {
                    self.proxies[proxy].tick_at = Millis::MAX;
                    self.tell(proxy, Event::Tick);
                }
            }
            ForProxy::Probe { server, again } => self.probe(proxy, server, again),
            ForProxy::Write => self.client_write(proxy),
            ForProxy::Ok { waiter, server } => self.ok(proxy, waiter, server),
            ForProxy::Held { epoch } => {
                self.let_go(proxy, epoch);
                let mark = self.proxies[proxy].mark.clone();
                self.tell(proxy, Event::Held { epoch, mark });
            }
            ForProxy::StepTimeout { id } => {
                let result = Err(StepError::Unknown("no answer".into()));
                self.step_ends(proxy, id, result);
            }
            ForProxy::Renew => {
                self.for_proxy(self.now + LEASE / 3, proxy, ForProxy::Renew);
                self.ask_record(proxy);
                if self.coordinator_reachable(proxy) {
                    self.say_again(proxy);
                }
            }
            ForProxy::Beat => {
                self.for_proxy(self.now + 100, proxy, ForProxy::Beat);
                self.beat(proxy);
            }
            ForProxy::Event(event) => {
                if let Event::StepDone { id, result } = *event {
                    self.step_ends(proxy, id, result);
                } else {
                    self.tell(proxy, *event);
                }
            }
        }
    }

    fn step_ends(&mut self, proxy: usize, id: StepId, result: Result<Outcome, StepError>) {
        if self.proxies[proxy].outstanding.remove(&id) {
            self.tell(proxy, Event::StepDone { id, result });
        }
    }

    /// Feeds the controller, and does what it says.
    pub(crate) fn tell(&mut self, proxy: usize, event: Event) {
        let now = duration(self.now);
        if let Some(text) = self.trace.then(|| trace::event(&event)).flatten() {
            eprintln!("{:6} x{proxy} <- {text}", self.now);
        }
        self.proxies[proxy].follow(self.unlisted, &self.scenario);
        let actions = self.proxies[proxy].controller.handle(event, now);
        for action in actions {
            if let Some(text) = self.trace.then(|| trace::action(&action)).flatten() {
                eprintln!("{:6} x{proxy} -> {text}", self.now);
            }
            self.perform(proxy, action);
        }
        let deadline = self.proxies[proxy].controller.deadline().as_millis() as Millis;
        let one = &mut self.proxies[proxy];
        if deadline < one.tick_at {
            one.tick_at = deadline;
            self.for_proxy(deadline, proxy, ForProxy::Tick);
        }
    }

    pub(crate) fn probe(&mut self, proxy: usize, server: usize, again: bool) {
        if again {
            self.for_proxy(self.now + 100, proxy, ForProxy::Probe { server, again });
        }
        if self.proxies[proxy].unlisted == Some(server) {
            return;
        }
        let latency = self.latency();
        let reaches = self.connected(server, self.proxy_end(proxy));
        let asked = duration(self.now);
        let attached = self.attached(server).len() as u32;
        let one = &mut self.servers[server];
        // What comes late is silence first, and then an answer to an old question.
        let brought = if !reaches || one.frozen {
            vec![(News::Silence, SHARE)]
        } else if !one.up {
            vec![(News::Refused("connection refused".into()), 1)]
        } else {
            let silences = (1..=latency / SHARE).map(|nth| (News::Silence, nth * SHARE));
            silences.chain([(News::Report(Box::new(one.report(attached))), latency)]).collect()
        };
        for (news, after) in brought {
            let noticed = self.now + after;
            let observation =
                Observation { server: ServerId(server as u16), asked, noticed: duration(noticed), news };
            self.for_proxy(noticed, proxy, ForProxy::Event(Box::new(Event::Observed(observation))));
        }
    }

    pub(crate) fn send_step(&mut self, proxy: usize, order: StepOrder) {
        let server = usize::from(order.server.0);
        let life = self.proxies[proxy].life;
        self.proxies[proxy].outstanding.insert(order.id);
        let timeout = order.timeout.as_millis() as Millis;
        self.for_proxy(self.now + timeout, proxy, ForProxy::StepTimeout { id: order.id });
        let arrives = (self.now + self.latency()).max(self.proxies[proxy].last_arrival[server]);
        self.proxies[proxy].last_arrival[server] = arrives;
        self.at(arrives, Due::Step { proxy, life, order: Box::new(order), arrived: arrives });
    }

    fn step(&mut self, proxy: usize, life: u32, order: Box<StepOrder>, arrived: Millis) {
        let server = usize::from(order.server.0);
        if !self.connected(server, self.proxy_end(proxy)) {
            return;
        }
        let one = &self.servers[server];
        if one.frozen {
            // It lies in the server's socket.
            let thaw = self.thaws[server].max(self.now + 1);
            self.at(thaw, Due::Step { proxy, life, order, arrived });
            return;
        }
        let id = order.id;
        let reply = |result| ForProxy::Event(Box::new(Event::StepDone { id, result }));
        if !one.up {
            let refused = Err(StepError::NotDone("connection refused".into()));
            self.at(self.now + 1, Due::Proxy { proxy, life, what: reply(refused) });
            return;
        }
        match self.execute(server, &order.step, arrived) {
            None => self.at(self.now + 10, Due::Step { proxy, life, order, arrived }),
            Some(result) => {
                let late = if self.random.below(60) == 0 { 100 + self.random.below(2500) } else { 0 };
                let at = self.now + self.latency() + late;
                self.at(at, Due::Proxy { proxy, life, what: reply(result) });
            }
        }
    }

    pub(crate) fn report_of(&mut self, server: usize) -> Outcome {
        let attached = self.attached(server).len() as u32;
        let mut report = self.servers[server].report(attached);
        if self.random.below(3) == 0 {
            // A step's connection cannot always tell.
            report.incarnation = 0;
        }
        Outcome::Report(Box::new(report))
    }

    pub(crate) fn send_message(&mut self, from: usize, message: &Message) {
        let id = ProxyId(format!("x{from}-{}", self.proxies[from].life));
        for to in (0..self.proxies.len()).filter(|to| *to != from) {
            if self.connected(self.proxy_end(from), self.proxy_end(to)) {
                let at = self.now + self.latency();
                let event = Event::Peer { from: id.clone(), message: message.clone() };
                self.for_proxy(at, to, ForProxy::Event(Box::new(event)));
            }
        }
    }

    pub(crate) fn freeze(&mut self, server: usize, length: Millis) {
        if self.servers[server].alive() {
            self.servers[server].frozen = true;
            self.thaws[server] = self.now + length;
            self.at(self.now + length, Due::Thaw { server });
        }
    }

    fn heal(&mut self) {
        self.healed = Some(self.now);
        self.healed_row = self.check.next_row();
        self.cuts.iter_mut().for_each(|cuts| *cuts = 0);
        self.coordinator.up = true;
        for server in 0..self.servers.len() {
            self.servers[server].frozen = false;
            self.servers[server].slow = false;
            let at = self.now + self.random.below(500);
            self.at(at, Due::Start { server });
        }
        for proxy in 0..self.proxies.len() {
            self.proxies[proxy].frozen_until = 0;
            let at = self.now + self.random.below(500);
            self.at(at, Due::StartProxy { proxy });
        }
    }

    pub(crate) fn ends(&self) -> (usize, usize, usize) {
        (self.servers.len(), self.proxies.len(), self.coordinator_end())
    }

    pub(crate) fn cut_for(&mut self, a: usize, b: usize, length: Millis) {
        self.cut(a, b);
        self.at(self.now + length, Due::Reconnect { a, b });
    }

    pub(crate) fn is_row(row: u32) -> bool {
        row != NO_ROW
    }
}
