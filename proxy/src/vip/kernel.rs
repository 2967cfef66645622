//! Everything that is done to the kernel for one virtual service, in the order that keeps clients served: settings,
//! NAT, services, servers, and the address last; away again in the reverse order.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use pointsman_config::Forwarding;
use pointsman_router::vip::{Change, ServiceKey, Table};
use tracing::warn;

use super::Settings;
use super::ipvs::{Destinations, Ipvs};
use super::link::Links;
use super::memory::Memory;
use super::nat::Nat;
use super::sysctl;
use super::threshold::Threshold;

/// Handles to the parts of the kernel, and what belongs there.
#[derive(Debug)]
pub(super) struct Kernel {
    pub(super) ipvs: Ipvs,
    links: Links,
    nat: Option<Nat>,
    /// None where the kernel has no nftables, which only masquerading needs.
    threshold: Option<Threshold>,
    service: ServiceKey,
    settings: sysctl::Settings,
    /// Answers for the address towards clients.
    pub(super) interface: String,
    /// Holds the address.
    holder: Holder,
    idle_timeout: Duration,
}

#[derive(Clone, Debug)]
enum Holder {
    /// A link of our own; the kernel answers for its addresses on all others.
    Dummy(String),
    /// The outward interface itself: neighbour discovery answers only for an interface's own addresses, and with
    /// `arp_ignore` ARP does too.
    Interface,
}

/// What cannot be done, with what there was to do.
#[derive(Debug, thiserror::Error)]
#[error("{doing}: {source}")]
pub(super) struct Fault {
    pub(super) doing: &'static str,
    #[source]
    pub(super) source: io::Error,
}

/// Names what was being done when something failed.
pub(super) fn while_doing(doing: &'static str) -> impl Fn(io::Error) -> Fault {
    move |source| Fault { doing, source }
}

impl Kernel {
    /// Opens everything and changes nothing.
    pub(super) fn open(wanted: &Settings) -> Result<Self, Fault> {
        let ipvs = Ipvs::open().map_err(while_doing(FIND_IPVS))?;
        let mut links = Links::open().map_err(while_doing("look for network interfaces"))?;
        let ipv6 = wanted.service.address.is_ipv6();
        let interface = match &wanted.interface {
            Some(name) => name.clone(),
            None => {
                let found = links
                    .outward(wanted.service.address, &wanted.link)
                    .map_err(while_doing("look for the interface of vip.address"))?;
                let found = found.ok_or_else(|| Fault {
                    doing: "find the interface of vip.address (vip.interface names it)",
                    source: io::ErrorKind::NotFound.into(),
                })?;
                found.name
            }
        };
        let masquerade = wanted.policy.forwarding == Forwarding::Masquerade;
        let nat = masquerade.then(|| Nat::open(ipv6)).transpose().map_err(while_doing(OPEN_NAT))?;
        let settings = sysctl::wanted(wanted.policy.forwarding, ipv6, &interface);
        let holder = if ipv6 || answers_only_for_own(&interface) {
            Holder::Interface
        } else {
            Holder::Dummy(wanted.link.clone())
        };
        let (service, idle_timeout) = (wanted.service, wanted.idle_timeout);
        let threshold = Threshold::open(service).ok();
        Ok(Self { ipvs, links, nat, threshold, service, settings, interface, holder, idle_timeout })
    }

    /// Settings and NAT as they must be; how many things had to be changed.
    pub(super) fn prepare(&mut self, memory: &mut Memory) -> Result<usize, Fault> {
        let mut changed = self.ensure_settings(memory)?;
        if let Some(nat) = &mut self.nat {
            let services = BTreeSet::from([self.service]);
            changed += usize::from(nat.ensure(&services).map_err(while_doing(WRITE_NAT))?);
        }
        Ok(changed)
    }

    fn ensure_settings(&mut self, memory: &mut Memory) -> Result<usize, Fault> {
        let mut changed = 0;
        for (path, value) in &self.settings {
            let before = sysctl::read(path).map_err(while_doing("read kernel settings"))?;
            if before == *value {
                continue;
            }
            // The first value that was found is the one to go back to.
            let noted = memory.note(|made| {
                made.settings.entry(path.clone()).or_insert(before);
            });
            noted.map_err(while_doing(NOTE))?;
            sysctl::ensure(&[(path.clone(), value.clone())].into()).map_err(while_doing(WRITE_SETTINGS))?;
            changed += 1;
        }
        let seconds = u32::try_from(self.idle_timeout.as_secs()).unwrap_or(u32::MAX);
        if seconds > 0 {
            let before = self.ipvs.tcp_timeout().map_err(while_doing("read IPVS' time-outs"))?;
            if before != seconds {
                let noted = memory.note(|made| {
                    made.tcp_timeout_seconds.get_or_insert(before);
                });
                noted.map_err(while_doing(NOTE))?;
                self.ipvs.set_tcp_timeout(seconds).map_err(while_doing("write IPVS' time-outs"))?;
                changed += 1;
            }
        }
        Ok(changed)
    }

    /// The part of the kernel's table that is ours by configuration or by memory.
    pub(super) fn table(&mut self, memory: &Memory) -> Result<Table, Fault> {
        let mut table = Table::default();
        let owned = memory.owned();
        for (key, mut service) in self.ipvs.services().map_err(while_doing(READ_TABLE))? {
            if key == self.service || owned.contains(&key) {
                let there = self.ipvs.destinations(key).map_err(while_doing(READ_TABLE))?;
                service.destinations = there.into_iter().map(|(at, (there, _))| (at, there)).collect();
                table.services.insert(key, service);
            }
        }
        Ok(table)
    }

    /// The servers of our service, with what was counted; empty while it is not there.
    pub(super) fn destinations(&mut self) -> Destinations {
        self.ipvs.destinations(self.service).unwrap_or_default()
    }

    /// Makes one change of the table.
    pub(super) fn change(&mut self, change: Change, memory: &mut Memory) -> Result<(), Fault> {
        if let Change::AddService { service, .. } | Change::SetService { service, .. } = change {
            self.adopt(service, memory)?;
        }
        self.ipvs.change(change).map_err(while_doing(doing(change)))
    }

    /// Notes that a service is ours.
    pub(super) fn adopt(&self, service: ServiceKey, memory: &mut Memory) -> Result<(), Fault> {
        let at = (service.address, service.port).into();
        let noted = memory.note(|made| {
            if !made.services.contains(&at) {
                made.services.push(at);
            }
        });
        noted.map_err(while_doing(NOTE))
    }

    /// Whether the address is on our link, and for how much longer.
    pub(super) fn holds_address(&mut self) -> Result<bool, Fault> {
        let link = self.holder_name();
        let Some(link) = self.links.find(&link).map_err(while_doing(READ_ADDRESSES))? else {
            return Ok(false);
        };
        let addresses = self.links.addresses().map_err(while_doing(READ_ADDRESSES))?;
        Ok(addresses.iter().any(|there| there.link == link.index && there.ip == self.service.address))
    }

    /// Takes the address, or takes it for longer.
    pub(super) fn take_address(
        &mut self,
        lifetime: Option<Duration>,
        memory: &mut Memory,
    ) -> Result<(), Fault> {
        let (name, ip) = (self.holder_name(), self.service.address);
        let dummy = matches!(self.holder, Holder::Dummy(_));
        let noted = memory.note(|made| {
            if dummy {
                made.link = Some(name.clone());
            }
            if !made.addresses.contains(&(name.clone(), ip)) {
                made.addresses.push((name.clone(), ip));
            }
        });
        noted.map_err(while_doing(NOTE))?;
        let index = if dummy {
            self.links.ensure_dummy(&name).map_err(while_doing("make the dummy link vip.link"))?
        } else {
            let link = self.links.find(&name).map_err(while_doing(READ_ADDRESSES))?;
            link.ok_or_else(|| while_doing("find vip.interface")(io::ErrorKind::NotFound.into()))?.index
        };
        self.open_threshold();
        self.links.add_address(index, ip, lifetime).map_err(while_doing("add vip.address"))
    }

    /// Gives the address away; the rest stays in step, which harms nobody.
    pub(super) fn drop_address(&mut self) -> Result<(), Fault> {
        let name = self.holder_name();
        let removed = self.remove(&name, self.service.address);
        self.open_threshold();
        removed
    }

    /// Lets no new connections in, until the address has been dropped or is taken again.
    pub(super) fn shut_threshold(&mut self) -> Result<(), Fault> {
        let threshold = self.threshold.as_mut().ok_or(io::ErrorKind::Unsupported.into());
        threshold.and_then(Threshold::shut).map_err(while_doing("hold new connections back"))
    }

    /// Lets new connections in, if they were held back. What fails is tried again with the next look.
    pub(super) fn open_threshold(&mut self) {
        match self.threshold.as_mut().map(Threshold::clear) {
            None | Some(Ok(())) => {}
            // Without nftables in the kernel there is nothing to take away.
            Some(Err(error)) if matches!(error.raw_os_error(), Some(EOPNOTSUPP | EINVAL)) => {}
            Some(Err(error)) => warn!(%error, "new connections to the virtual address may be held back"),
        }
    }

    fn remove(&mut self, link: &str, ip: IpAddr) -> Result<(), Fault> {
        let Some(link) = self.links.find(link).map_err(while_doing(READ_ADDRESSES))? else { return Ok(()) };
        self.links.remove_address(link.index, ip).map_err(while_doing("remove vip.address"))
    }

    /// Removes addresses that an earlier life has put elsewhere.
    pub(super) fn remove_strays(&mut self, memory: &mut Memory) -> Result<(), Fault> {
        let ours = (self.holder_name(), self.service.address);
        let strays: Vec<_> = memory.made().addresses.iter().filter(|at| **at != ours).cloned().collect();
        for (link, ip) in strays {
            self.remove(&link, ip)?;
            memory
                .note(|made| made.addresses.retain(|at| *at != (link.clone(), ip)))
                .map_err(while_doing(NOTE))?;
        }
        Ok(())
    }

    /// Takes away everything that was made, the address first. Goes on after a failure and returns the first.
    pub(super) fn leave(&mut self, memory: &mut Memory) -> Result<(), Fault> {
        let mut outcome = self.drop_address();
        let mut then = |next: Result<(), Fault>| {
            if outcome.is_ok() {
                outcome = next;
            }
        };
        then(self.remove_strays(memory));
        for service in memory.owned() {
            let deleted = self.ipvs.change(Change::DeleteService { service });
            // ESRCH: somebody was faster.
            let gone = matches!(&deleted, Err(error) if error.raw_os_error() == Some(ESRCH));
            then(if gone { Ok(()) } else { deleted.map_err(while_doing("delete the virtual service")) });
        }
        if let Some(nat) = &mut self.nat {
            then(nat.remove().map_err(while_doing("delete the NAT rule")));
        }
        let made = memory.made().clone();
        then(sysctl::restore(&made.settings, &self.settings).map_err(while_doing("put settings back")));
        if let Some(seconds) = made.tcp_timeout_seconds {
            then(self.ipvs.set_tcp_timeout(seconds).map_err(while_doing("put time-outs back")));
        }
        if let Some(link) = made.link {
            then(self.links.delete_dummy(&link).map_err(while_doing("delete the dummy link")));
        }
        outcome?;
        memory.forget().map_err(while_doing(NOTE))
    }

    fn holder_name(&self) -> String {
        match &self.holder {
            Holder::Dummy(name) => name.clone(),
            Holder::Interface => self.interface.clone(),
        }
    }
}

/// Whether ARP on this interface answers for its own addresses only.
fn answers_only_for_own(interface: &str) -> bool {
    let set =
        |of: &str| sysctl::read(&format!("net/ipv4/conf/{of}/arp_ignore")).is_ok_and(|value| value != "0");
    // The larger of the two counts.
    set("all") || set(interface)
}

fn doing(change: Change) -> &'static str {
    match change {
        Change::AddService { .. } => MAKE_SERVICE,
        Change::SetService { .. } => CHANGE_SERVICE,
        Change::DeleteService { .. } => "delete the virtual service",
        Change::AddDestination { .. } => "add a server",
        Change::SetDestination { .. } => "change a server",
        Change::DeleteDestination { .. } => "delete a server",
    }
}

pub(super) const FIND_IPVS: &str = "find IPVS in the kernel";
pub(super) const OPEN_NAT: &str = "open nftables";
pub(super) const MAKE_SERVICE: &str = "make the virtual service";
pub(super) const CHANGE_SERVICE: &str = "change the virtual service";
pub(super) const WRITE_NAT: &str = "write the NAT rule";
pub(super) const WRITE_SETTINGS: &str = "write kernel settings";
const NOTE: &str = "write down what is ours in coordination.state_dir";
const READ_TABLE: &str = "read the table of IPVS";
const READ_ADDRESSES: &str = "read addresses";
const ESRCH: i32 = 3;
const EINVAL: i32 = 22;
const EOPNOTSUPP: i32 = 95;
