//! By which changes the kernel's table becomes what it shall be: differences only, in an order that never leaves a
//! service without a server in between.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use pointsman_config::{Forwarding, Scheduler};

use super::{Destination, Service, ServiceKey, Table, Wanted, Wish};

/// The services that Pointsman has made, now or in an earlier life. Others are never touched.
pub type Owned = BTreeSet<ServiceKey>;

/// One call to the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    AddService {
        service: ServiceKey,
        scheduler: Scheduler,
    },
    /// Another scheduler; connections stay.
    SetService {
        service: ServiceKey,
        scheduler: Scheduler,
    },
    AddDestination {
        service: ServiceKey,
        server: SocketAddr,
        weight: u32,
        forwarding: Forwarding,
    },
    SetDestination {
        service: ServiceKey,
        server: SocketAddr,
        weight: u32,
        forwarding: Forwarding,
    },
    DeleteDestination {
        service: ServiceKey,
        server: SocketAddr,
    },
    DeleteService {
        service: ServiceKey,
    },
}

/// What must be done so that `table` becomes as wished, in this order.
///
/// A service that is wished and already there is taken over as it is, whoever made it: its address is ours by
/// configuration. One that is neither wished nor owned belongs to somebody else.
pub fn plan(table: &Table, wishes: &BTreeMap<ServiceKey, Wish>, owned: &Owned, now: Duration) -> Vec<Change> {
    let mut changes = Changes::default();
    for (&key, wish) in wishes {
        let there = table.services.get(&key);
        changes.service(key, there, wish);
        let none = BTreeMap::new();
        changes.destinations(key, there.map_or(&none, |service| &service.destinations), wish, now);
    }
    for &service in owned {
        if table.services.contains_key(&service) && !wishes.contains_key(&service) {
            changes.last.push(Change::DeleteService { service });
        }
    }
    changes.in_order()
}

#[derive(Default)]
struct Changes {
    services: Vec<Change>,
    more: Vec<Change>,
    less: Vec<Change>,
    last: Vec<Change>,
}

impl Changes {
    fn in_order(self) -> Vec<Change> {
        [self.services, self.more, self.less, self.last].concat()
    }

    fn service(&mut self, service: ServiceKey, there: Option<&Service>, wish: &Wish) {
        let scheduler = wish.scheduler;
        match there {
            None => self.services.push(Change::AddService { service, scheduler }),
            Some(there) if there.scheduler != Some(scheduler) || there.persistent => {
                self.services.push(Change::SetService { service, scheduler });
            }
            Some(_) => {}
        }
    }

    fn destinations(
        &mut self,
        service: ServiceKey,
        there: &BTreeMap<SocketAddr, Destination>,
        wish: &Wish,
        now: Duration,
    ) {
        let forwarding = wish.forwarding;
        for (&server, wanted) in &wish.destinations {
            let weight = wanted.weight;
            match there.get(&server) {
                // One that ends is not brought back for its end.
                None if wanted.until.is_some() => {}
                None => self.more.push(Change::AddDestination { service, server, weight, forwarding }),
                Some(there) if has_ended(wanted, there, now) => {
                    self.less.push(Change::DeleteDestination { service, server });
                }
                Some(there) if there.weight != weight || there.forwarding != Some(forwarding) => {
                    let change = Change::SetDestination { service, server, weight, forwarding };
                    let is_more = weight >= there.weight;
                    if is_more { self.more.push(change) } else { self.less.push(change) }
                }
                Some(_) => {}
            }
        }
        for &server in there.keys() {
            if !wish.destinations.contains_key(&server) && !wish.untouched.contains(&server) {
                self.last.push(Change::DeleteDestination { service, server });
            }
        }
    }
}

fn has_ended(wanted: &Wanted, there: &Destination, now: Duration) -> bool {
    // Weight first, in a call of its own: connections that come in between are counted by the next look.
    wanted.until.is_some_and(|until| there.weight == 0 && (there.active == 0 || now >= until))
}

impl Table {
    /// Does to this picture what the kernel has done.
    pub fn apply(&mut self, change: Change) {
        match change {
            Change::AddService { service, scheduler } => {
                let destinations = BTreeMap::new();
                let new = Service { scheduler: Some(scheduler), persistent: false, destinations };
                self.services.insert(service, new);
            }
            Change::SetService { service, scheduler } => {
                if let Some(there) = self.services.get_mut(&service) {
                    there.scheduler = Some(scheduler);
                    there.persistent = false;
                }
            }
            Change::AddDestination { service, server, weight, forwarding }
            | Change::SetDestination { service, server, weight, forwarding } => {
                if let Some(there) = self.services.get_mut(&service) {
                    let new = Destination { weight, forwarding: Some(forwarding), active: 0, inactive: 0 };
                    let entry = there.destinations.entry(server).or_insert(new);
                    *entry = Destination { active: entry.active, inactive: entry.inactive, ..new };
                }
            }
            Change::DeleteDestination { service, server } => {
                if let Some(there) = self.services.get_mut(&service) {
                    there.destinations.remove(&server);
                }
            }
            Change::DeleteService { service } => {
                self.services.remove(&service);
            }
        }
    }
}

impl Change {
    /// The name in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::AddService { .. } => "add_service",
            Self::SetService { .. } => "set_service",
            Self::AddDestination { .. } => "add_server",
            Self::SetDestination { .. } => "set_server",
            Self::DeleteDestination { .. } => "delete_server",
            Self::DeleteService { .. } => "delete_service",
        }
    }

    pub fn service(self) -> ServiceKey {
        match self {
            Self::AddService { service, .. }
            | Self::SetService { service, .. }
            | Self::AddDestination { service, .. }
            | Self::SetDestination { service, .. }
            | Self::DeleteDestination { service, .. }
            | Self::DeleteService { service } => service,
        }
    }
}
