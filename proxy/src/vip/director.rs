//! The thread that keeps the kernel as it shall be: it hears of servers and of whose the address is, makes
//! differences only, looks again on a timer, and repairs what others have changed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use pointsman_router::topology::Topology;
use pointsman_router::vip::{Change, ReadPool, Table, Wish, plan};
use tokio::sync::{oneshot, watch};
use tracing::{error, info, warn};

use super::announce::{Announcer, Schedule};
use super::kernel::{Fault, Kernel, while_doing};
use super::memory::Memory;
use super::view::{self, State, View};
use super::{Addresses, Command, Ownership, Settings, check};

/// State of the thread.
pub(super) struct Director {
    settings: Settings,
    inbox: Receiver<Command>,
    publisher: watch::Sender<Arc<View>>,
    pool: ReadPool,
    started: Instant,
    topology: Arc<Topology>,
    addresses: Addresses,
    wish: Option<Wish>,
    ownership: Ownership,
    /// When the address goes to somebody else, and who waits for that.
    giving_up: Option<(Instant, oneshot::Sender<bool>)>,
    /// None until the kernel has let us.
    ready: Option<Ready>,
    /// When to try again, or to look again.
    next_look: Instant,
    next_check: Instant,
    view: View,
}

/// What there is once the kernel has let us.
struct Ready {
    kernel: Kernel,
    memory: Memory,
    /// The kernel's table as it was at the last look and has been changed since.
    table: Table,
    /// Present while the address is ours and here.
    announcements: Option<Schedule>,
    announcer: Announcer,
    /// The end of the lease that the kernel has been told.
    told: Option<Instant>,
}

impl Director {
    pub(super) fn new(
        settings: Settings,
        ownership: Ownership,
        inbox: Receiver<Command>,
        publisher: watch::Sender<Arc<View>>,
    ) -> Self {
        let now = Instant::now();
        Self {
            pool: ReadPool::new(settings.policy.clone()),
            view: View::new(&settings),
            settings,
            inbox,
            publisher,
            started: now,
            topology: Arc::default(),
            addresses: Addresses::new(),
            wish: None,
            ownership,
            giving_up: None,
            ready: None,
            next_look: now,
            next_check: now,
        }
    }

    /// Runs until it is told to leave, or nobody can tell it anything any more.
    pub(super) fn run(mut self) {
        describe_metrics();
        loop {
            self.work();
            let wait = self.next_timer().saturating_duration_since(Instant::now());
            match self.inbox.recv_timeout(wait) {
                Ok(Command::Leave(done)) => {
                    self.leave();
                    // Whoever asked may have gone away.
                    let _gone = done.send(());
                    return;
                }
                Ok(command) => self.take(command),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return self.leave(),
            }
        }
    }

    fn take(&mut self, command: Command) {
        match command {
            Command::Servers(topology, addresses) => {
                self.topology = topology;
                self.addresses = addresses;
            }
            Command::Own(ownership) => self.ownership = ownership,
            Command::GiveUp(done) => self.giving_up = Some((self.close_threshold(Instant::now()), done)),
            Command::Readmit(server) => self.pool.readmit(server),
            Command::Evict(server, done) => {
                self.pool.evict(server);
                let address = self.addresses.get(&server).copied();
                self.work();
                let ready = self.ready.as_ref();
                let gone = ready.is_none_or(|ready| {
                    let mut services = ready.table.services.values();
                    services.all(|there| address.is_none_or(|at| !there.destinations.contains_key(&at)))
                });
                // A kernel that never let us forwards nothing.
                let _left = done.send(gone);
            }
            // Handled by the loop.
            Command::Leave(_) => {}
        }
    }

    /// Lets no new connection begin, and says until when those that are being made have time: less than usual at the end of
    /// a lease.
    fn close_threshold(&mut self, now: Instant) -> Instant {
        let last = match self.ownership {
            Ownership::Until(end) => end.checked_sub(MARGIN * 2).unwrap_or(now),
            Ownership::Alone | Ownership::None => now + MAKING,
        };
        let due = last.min(now + MAKING);
        let Some(ready) = self.ready.as_mut().filter(|ready| ready.announcements.is_some() && due > now)
        else {
            return now;
        };
        match ready.kernel.shut_threshold() {
            Ok(()) => due,
            Err(fault) => {
                warn!(%fault, "connections that are being made are cut off by the move of the address");
                now
            }
        }
    }

    /// Does everything that is due.
    fn work(&mut self) {
        let now = Instant::now();
        let given_up = self.giving_up.take_if(|(due, _)| *due <= now);
        if given_up.is_some() {
            self.ownership = Ownership::None;
        }
        // First of all, so that nothing below can delay it.
        self.drop_in_time(now);
        if let Some((_, done)) = given_up {
            let held = self.ready.as_mut().map(|ready| ready.kernel.holds_address());
            // A kernel that never let us has no address of ours.
            let _left = done.send(held.is_none_or(|held| held.is_ok_and(|held| !held)));
        }
        self.wish = self.pool.wish(&self.topology, &self.addresses, now - self.started).or(self.wish.take());
        let Some(wish) = self.wish.clone() else { return };
        if let Err(fault) = self.keep_in_step(&wish, now) {
            self.fail(&fault);
        }
        self.publish();
    }

    fn next_timer(&self) -> Instant {
        let given_up = self.giving_up.as_ref().map(|(due, _)| *due);
        if self.wish.is_none() {
            return given_up.unwrap_or_else(|| Instant::now() + LOOK);
        }
        let mut next = given_up.map_or(self.next_look, |due| due.min(self.next_look));
        let Some(ready) = &self.ready else { return next };
        if let Some(schedule) = &ready.announcements {
            next = next.min(schedule.next());
            if let Ownership::Until(end) = self.ownership {
                next = next.min(end.checked_sub(MARGIN).unwrap_or(end));
            }
        }
        next
    }

    fn keep_in_step(&mut self, wish: &Wish, now: Instant) -> Result<(), Fault> {
        if self.ready.is_none() {
            if now < self.next_look {
                return Ok(());
            }
            self.next_look = now + RETRY;
            self.ready = Some(Ready::open(&self.settings)?);
            self.next_check = now;
        }
        let Some(ready) = &mut self.ready else { return Ok(()) };
        let wishes = BTreeMap::from([(self.settings.service, wish.clone())]);
        let is_due = now >= self.next_look || now >= self.next_check;
        if now >= self.next_check {
            ready.check(self.view.state == State::Starting)?;
            if self.giving_up.is_none() {
                ready.kernel.open_threshold();
            }
            self.next_check = now + CHECK;
        }
        if is_due {
            ready.look(self.view.generation > 0)?;
            self.next_look = now + LOOK;
        } else if wish.destinations.values().any(|wanted| wanted.until.is_some()) {
            // Whether a server still has connections must be known as of now.
            ready.look(self.view.generation > 0)?;
        }
        let changes = plan(&ready.table, &wishes, &ready.memory.owned(), now - self.started);
        ready.kernel.adopt(self.settings.service, &mut ready.memory)?;
        for change in changes {
            ready.change(change, wish)?;
            self.view.generation += 1;
        }
        self.view.generation = self.view.generation.max(1);
        ready.own(self.ownership, is_due, now)?;
        self.view.state = if ready.announcements.is_some() { State::Serving } else { State::Standby };
        let standby = self.view.state == State::Standby;
        self.view.reason =
            if standby { "no lease gives this proxy the address".to_owned() } else { String::new() };
        ready.announce(now);
        Ok(())
    }

    /// Gives the address away before somebody else may take it.
    fn drop_in_time(&mut self, now: Instant) {
        let is_over = match self.ownership {
            Ownership::Alone => false,
            Ownership::None => true,
            Ownership::Until(end) => now + MARGIN >= end,
        };
        if !is_over {
            return;
        }
        self.ownership = Ownership::None;
        let Some(ready) = &mut self.ready else { return };
        if ready.announcements.take().is_some() {
            match ready.kernel.drop_address() {
                Ok(()) => {
                    info!(address = %self.settings.service.address, "the virtual address is given away")
                }
                Err(fault) => error!(%fault, "cannot give the virtual address away"),
            }
        }
    }

    fn fail(&mut self, fault: &Fault) {
        let errno = fault.source.raw_os_error().unwrap_or_default();
        metrics::counter!("pointsman_vip_errors_total", "errno" => errno.to_string()).increment(1);
        let reason = check::explain(fault);
        if self.view.reason != reason {
            warn!(reason, "the virtual address is not served as it should be; the proxy's own listeners are");
        }
        // What the kernel has now is not known any more.
        if self.ready.is_none() || self.view.generation == 0 {
            self.ready = None;
            self.view.state = State::Unavailable;
        }
        self.view.reason = reason;
        self.next_look = Instant::now() + if self.ready.is_none() { RETRY } else { LOOK };
        self.next_check = self.next_check.min(self.next_look);
    }

    fn publish(&mut self) {
        let counted = self.ready.as_mut().map(|ready| ready.kernel.destinations()).unwrap_or_default();
        self.view.servers = view::servers(&counted, self.wish.as_ref(), &self.topology, &self.addresses);
        if let Some(ready) = &self.ready {
            self.view.interface.clone_from(&ready.kernel.interface);
        }
        if **self.publisher.borrow() != self.view {
            record(&self.publisher.borrow(), &self.view);
            self.publisher.send_replace(Arc::new(self.view.clone()));
        }
    }

    fn leave(&mut self) {
        // What an attempt that failed half-way has made is written down too.
        let ready = self.ready.take().or_else(|| self.left_behind());
        if let Some(mut ready) = ready {
            match ready.kernel.leave(&mut ready.memory) {
                Ok(()) => info!("the virtual address and its service are taken away"),
                Err(fault) => error!(%fault, "something of the virtual service is left behind"),
            }
        }
        self.view.state = State::Ended;
        self.publish();
    }
}

impl Director {
    fn left_behind(&self) -> Option<Ready> {
        let memory = Memory::open(&self.settings.state_dir).ok()?;
        if memory.is_empty() { None } else { Ready::open(&self.settings).ok() }
    }
}

impl Ready {
    fn open(settings: &Settings) -> Result<Self, Fault> {
        let kernel = Kernel::open(settings)?;
        let memory = Memory::open(&settings.state_dir).map_err(while_doing("read what is ours"))?;
        let announcer = Announcer::new(&kernel.interface, settings.service.address);
        Ok(Self { kernel, memory, table: Table::default(), announcements: None, announcer, told: None })
    }

    /// Settings, NAT rule and stray addresses.
    fn check(&mut self, first: bool) -> Result<(), Fault> {
        let changed = self.kernel.prepare(&mut self.memory)?;
        if changed > 0 && !first {
            repaired(SETTINGS, changed);
        }
        self.kernel.remove_strays(&mut self.memory)
    }

    /// Takes a fresh picture of the table, and says what others have changed.
    fn look(&mut self, compare: bool) -> Result<(), Fault> {
        let table = self.kernel.table(&self.memory)?;
        let differences = count_differences(&self.table, &table);
        if compare && differences > 0 {
            repaired(TABLE, differences);
        }
        self.table = table;
        Ok(())
    }

    fn change(&mut self, change: Change, wish: &Wish) -> Result<(), Fault> {
        self.kernel.change(change, &mut self.memory)?;
        self.table.apply(change);
        metrics::counter!("pointsman_vip_changes_total", "change" => change.name()).increment(1);
        match change {
            Change::AddDestination { server, weight, .. } | Change::SetDestination { server, weight, .. } => {
                let cause = wish.destinations.get(&server).map_or("", |wanted| wanted.cause.name());
                info!(change = change.name(), %server, weight, cause, "virtual service changed");
            }
            Change::DeleteDestination { server, .. } => {
                let ended = wish.destinations.get(&server).map(|wanted| wanted.cause.name());
                let cause = ended.unwrap_or("down, or not a replica");
                info!(change = change.name(), %server, cause, "virtual service changed");
            }
            Change::AddService { service, .. }
            | Change::SetService { service, .. }
            | Change::DeleteService { service } => {
                info!(change = change.name(), address = %service.address, port = service.port, "virtual service changed");
            }
        }
        Ok(())
    }

    /// Has the address exactly while it is ours. `look` asks the kernel whether it is still there.
    fn own(&mut self, ownership: Ownership, look: bool, now: Instant) -> Result<(), Fault> {
        let (lifetime, end) = match ownership {
            // Given away by whoever called.
            Ownership::None => {
                if look && self.kernel.holds_address()? {
                    // An earlier life had it.
                    self.kernel.drop_address()?;
                }
                return Ok(());
            }
            Ownership::Alone => (None, None),
            Ownership::Until(end) => (Some(end.saturating_duration_since(now)), Some(end)),
        };
        let is_new = self.announcements.is_none();
        let is_there = if is_new || look { self.kernel.holds_address()? } else { true };
        if is_new && !is_there {
            self.probe();
        }
        if !is_there || self.told != end {
            self.kernel.take_address(lifetime, &mut self.memory)?;
            self.told = end;
        }
        if is_new || !is_there {
            info!(
                interface = self.kernel.interface,
                adopted = is_new && is_there,
                "the virtual address is here"
            );
            if !is_new {
                repaired(ADDRESS, 1);
            }
            self.announcements = Some(Schedule::new(now));
        }
        Ok(())
    }

    /// Somebody who still has the address is said, and outvoted: our right to it is the lease.
    fn probe(&self) {
        match self.announcer.other_owner() {
            Ok(None) => {}
            Ok(Some(mac)) => {
                let mac = mac.map(|byte| format!("{byte:02x}")).join(":");
                warn!(mac, "another host answers for the virtual address");
                metrics::counter!("pointsman_vip_duplicates_total").increment(1);
            }
            Err(error) => warn!(%error, "cannot ask whether another host has the virtual address"),
        }
    }

    fn announce(&mut self, now: Instant) {
        let Some(schedule) = self.announcements.as_mut().filter(|schedule| schedule.next() <= now) else {
            return;
        };
        if let Err(error) = self.announcer.announce() {
            warn!(%error, interface = self.kernel.interface, "cannot announce the virtual address");
        }
        schedule.advance(now);
    }
}

/// How many services, servers, weights and ways differ.
fn count_differences(expected: &Table, found: &Table) -> usize {
    let mut count = 0;
    for (key, service) in &expected.services {
        let Some(there) = found.services.get(key) else {
            count += 1;
            continue;
        };
        count += usize::from(there.scheduler != service.scheduler);
        for (at, server) in &service.destinations {
            let same = there
                .destinations
                .get(at)
                .is_some_and(|found| (found.weight, found.forwarding) == (server.weight, server.forwarding));
            count += usize::from(!same);
        }
        count += there.destinations.keys().filter(|at| !service.destinations.contains_key(at)).count();
    }
    count
}

fn repaired(what: &'static str, count: usize) {
    let count = u64::try_from(count).unwrap_or(u64::MAX);
    warn!(what, count, "somebody has changed what belongs to the virtual service: repaired");
    metrics::counter!("pointsman_vip_repairs_total", "what" => what).increment(count);
}

fn describe_metrics() {
    metrics::describe_gauge!("pointsman_vip_up", "Whether the kernel's table is in step with the topology.");
    metrics::describe_gauge!("pointsman_vip_owner", "Whether the virtual address is on this host.");
    metrics::describe_gauge!("pointsman_vip_server_weight", "A server's weight behind the virtual address.");
    metrics::describe_gauge!(
        "pointsman_vip_server_connections",
        "Connections to a server through the address."
    );
    metrics::describe_counter!("pointsman_vip_changes_total", "Changes made to the kernel's table.");
    metrics::describe_counter!("pointsman_vip_repairs_total", "What others had changed and was put right.");
    metrics::describe_counter!("pointsman_vip_errors_total", "Calls that the kernel refused.");
    metrics::describe_counter!(
        "pointsman_vip_duplicates_total",
        "Hosts found with the address when it was taken."
    );
    // A rate over a counter that is not there yet misses its first step.
    metrics::counter!("pointsman_vip_duplicates_total").absolute(0);
    for what in REPAIRED {
        metrics::counter!("pointsman_vip_repairs_total", "what" => what).absolute(0);
    }
    for errno in check::ADVISED {
        metrics::counter!("pointsman_vip_errors_total", "errno" => errno.to_string()).absolute(0);
    }
}

fn record(before: &View, now: &View) {
    let up = matches!(now.state, State::Serving | State::Standby) && now.reason.is_empty();
    let is_standby = now.state == State::Standby;
    metrics::gauge!("pointsman_vip_up").set(f64::from(u8::from(up || is_standby)));
    metrics::gauge!("pointsman_vip_owner").set(f64::from(u8::from(now.state == State::Serving)));
    for gone in before.servers.iter().filter(|old| now.servers.iter().all(|new| new.name != old.name)) {
        metrics::gauge!("pointsman_vip_server_weight", "server" => gone.name.clone()).set(0.0);
        metrics::gauge!("pointsman_vip_server_connections", "server" => gone.name.clone()).set(0.0);
    }
    for server in &now.servers {
        metrics::gauge!("pointsman_vip_server_weight", "server" => server.name.clone())
            .set(f64::from(server.weight));
        metrics::gauge!("pointsman_vip_server_connections", "server" => server.name.clone())
            .set(f64::from(server.active));
    }
}

/// What others may change.
const SETTINGS: &str = "settings";
const TABLE: &str = "table";
const ADDRESS: &str = "address";
const REPAIRED: [&str; 3] = [SETTINGS, TABLE, ADDRESS];
/// How often the table is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// How often settings, NAT rule and stray addresses are looked at.
const CHECK: Duration = Duration::from_secs(10);
/// How often a kernel that does not let us is tried again.
const RETRY: Duration = Duration::from_secs(30);
/// A connection is made within this time, the server's greeting included.
const MAKING: Duration = Duration::from_millis(500);
/// The address goes this long before the lease ends.
const MARGIN: Duration = Duration::from_millis(300);
