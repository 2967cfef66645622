//! The kernel's IPVS table over generic netlink (`include/uapi/linux/ip_vs.h`, `net/netfilter/ipvs/ip_vs_ctl.c`).
//!
//! Ports are big-endian, an address is always 16 bytes with IPv4 in the first four, everything else is in host
//! order. A call that makes or sets an entry wants every field of it.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};

use pointsman_config::{Forwarding, Scheduler};
use pointsman_router::vip::{Change, Destination, Service, ServiceKey, Table};

use super::netlink::{Attributes, Netlink, attributes, read_text, read_u16, read_u32, read_u64};

/// The table of this network namespace.
#[derive(Debug)]
pub struct Ipvs {
    netlink: Netlink,
    family: u16,
}

/// What the kernel has counted of a server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    pub connections: u64,
    pub bytes_in: u64,
    pub bytes_out: u64,
}

/// The servers of a service with what was counted.
pub type Destinations = BTreeMap<SocketAddr, (Destination, Counted)>;

impl Ipvs {
    /// Finds the family; the kernel loads its module for that.
    ///
    /// # Errors
    ///
    /// `NotFound` where the kernel has no IPVS, and whatever a netlink socket fails with.
    pub fn open() -> io::Result<Self> {
        let mut netlink = Netlink::open(NETLINK_GENERIC)?;
        let name = Attributes::after(&[CTRL_GETFAMILY, 1, 0, 0]).text(CTRL_ATTR_NAME, "IPVS").finish();
        let answer = netlink.ask(GENL_ID_CTRL, name)?;
        let family = attributes(answer.get(4..).unwrap_or_default())
            .find(|(kind, _)| *kind == CTRL_ATTR_ID)
            .and_then(|(_, value)| read_u16(value))
            .ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        Ok(Self { netlink, family })
    }

    /// Makes one change.
    ///
    /// # Errors
    ///
    /// The kernel's: 1 without the capability, 2 for a destination or a scheduler that does not exist, 17 for a
    /// service that does.
    pub fn change(&mut self, change: Change) -> io::Result<()> {
        let (command, attributes) = encode(change);
        self.netlink.change(self.family, 0, call(command, attributes))
    }

    /// All TCP services with an address, and their servers.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn table(&mut self) -> io::Result<Table> {
        let mut table = Table::default();
        for answer in self.netlink.dump(self.family, call(GET_SERVICE, Attributes::default()))? {
            if let Some((key, mut service)) = service_of(body(&answer)) {
                let destinations = self.destinations(key)?;
                service.destinations = destinations.into_iter().map(|(at, (there, _))| (at, there)).collect();
                table.services.insert(key, service);
            }
        }
        Ok(table)
    }

    /// Whether there is this service, and which scheduler it has, without its servers.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn services(&mut self) -> io::Result<BTreeMap<ServiceKey, Service>> {
        let answers = self.netlink.dump(self.family, call(GET_SERVICE, Attributes::default()))?;
        Ok(answers.iter().filter_map(|answer| service_of(body(answer))).collect())
    }

    /// The servers of one service.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn destinations(&mut self, key: ServiceKey) -> io::Result<Destinations> {
        let question = Attributes::default().nested(ATTR_SERVICE, key_attributes(key));
        let answers = self.netlink.dump(self.family, call(GET_DEST, question))?;
        Ok(answers.iter().filter_map(|answer| destination_of(body(answer), key.address)).collect())
    }

    /// The time-out of idle TCP connections in seconds, of every service of the namespace.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn tcp_timeout(&mut self) -> io::Result<u32> {
        let answer = self.netlink.ask(self.family, call(GET_CONFIG, Attributes::default()))?;
        let timeout = attributes(body(&answer)).find(|(kind, _)| *kind == ATTR_TIMEOUT_TCP);
        timeout.and_then(|(_, value)| read_u32(value)).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    /// Sets it; the other time-outs stay.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn set_tcp_timeout(&mut self, seconds: u32) -> io::Result<()> {
        // Zero leaves a time-out as it is.
        let timeouts = Attributes::default()
            .u32(ATTR_TIMEOUT_TCP, seconds)
            .u32(ATTR_TIMEOUT_TCP_FIN, 0)
            .u32(ATTR_TIMEOUT_UDP, 0);
        self.netlink.change(self.family, 0, call(SET_CONFIG, timeouts))
    }
}

/// A generic netlink message without netlink's own header.
fn call(command: u8, attributes: Attributes) -> Vec<u8> {
    let mut payload = vec![command, IPVS_VERSION, 0, 0];
    payload.extend(attributes.finish());
    payload
}

/// The attributes of an answer.
fn body(answer: &[u8]) -> &[u8] {
    answer.get(4..).unwrap_or_default()
}

fn encode(change: Change) -> (u8, Attributes) {
    let service_only = |attributes| Attributes::default().nested(ATTR_SERVICE, attributes);
    let with_server = |service, server| {
        Attributes::default().nested(ATTR_SERVICE, key_attributes(service)).nested(ATTR_DEST, server)
    };
    match change {
        Change::AddService { service, scheduler } => {
            (NEW_SERVICE, service_only(service_attributes(service, scheduler)))
        }
        Change::SetService { service, scheduler } => {
            (SET_SERVICE, service_only(service_attributes(service, scheduler)))
        }
        Change::DeleteService { service } => (DEL_SERVICE, service_only(key_attributes(service))),
        Change::AddDestination { service, server, weight, forwarding } => {
            (NEW_DEST, with_server(service, server_attributes(server, weight, forwarding)))
        }
        Change::SetDestination { service, server, weight, forwarding } => {
            (SET_DEST, with_server(service, server_attributes(server, weight, forwarding)))
        }
        Change::DeleteDestination { service, server } => (DEL_DEST, with_server(service, server_key(server))),
    }
}

fn key_attributes(key: ServiceKey) -> Attributes {
    Attributes::default()
        .u16(SVC_AF, family_of(key.address))
        .u16(SVC_PROTOCOL, PROTOCOL_TCP)
        .bytes(SVC_ADDR, &address_bytes(key.address))
        .u16_be(SVC_PORT, key.port)
}

fn service_attributes(key: ServiceKey, scheduler: Scheduler) -> Attributes {
    // A mask of one host: IPv4 as an address, IPv6 as a prefix length.
    let netmask = if key.address.is_ipv4() { u32::MAX } else { 128 };
    let mut flags = 0_u32.to_ne_bytes().to_vec();
    flags.extend_from_slice(&u32::MAX.to_ne_bytes());
    key_attributes(key)
        .text(SVC_SCHEDULER, scheduler_name(scheduler))
        .bytes(SVC_FLAGS, &flags)
        .u32(SVC_TIMEOUT, 0)
        .u32(SVC_NETMASK, netmask)
}

fn server_key(server: SocketAddr) -> Attributes {
    Attributes::default()
        .u16(DEST_FAMILY, family_of(server.ip()))
        .bytes(DEST_ADDR, &address_bytes(server.ip()))
        .u16_be(DEST_PORT, server.port())
}

fn server_attributes(server: SocketAddr, weight: u32, forwarding: Forwarding) -> Attributes {
    server_key(server)
        .u32(DEST_FORWARDING, forwarding_number(forwarding))
        .u32(DEST_WEIGHT, weight)
        // No limits of connections: inactive ones would count too.
        .u32(DEST_UPPER, 0)
        .u32(DEST_LOWER, 0)
}

/// None for what is not TCP with an address, or malformed.
fn service_of(body: &[u8]) -> Option<(ServiceKey, Service)> {
    let inner = attributes(body).find(|(kind, _)| *kind == ATTR_SERVICE)?.1;
    let (mut family, mut address, mut port, mut is_tcp) = (None, None, None, false);
    let mut service = Service { scheduler: None, persistent: false, destinations: BTreeMap::new() };
    for (kind, value) in attributes(inner) {
        match kind {
            SVC_AF => family = read_u16(value),
            SVC_PROTOCOL => is_tcp = read_u16(value) == Some(PROTOCOL_TCP),
            SVC_ADDR => address = Some(value),
            SVC_PORT => port = value.first_chunk().map(|bytes| u16::from_be_bytes(*bytes)),
            SVC_SCHEDULER => service.scheduler = scheduler_named(&read_text(value)),
            SVC_FLAGS => service.persistent = read_u32(value).is_some_and(|flags| flags & PERSISTENT != 0),
            _ => {}
        }
    }
    let address = read_address(family?, address?)?;
    is_tcp.then_some((ServiceKey { address, port: port? }, service))
}

fn destination_of(body: &[u8], service: IpAddr) -> Option<(SocketAddr, (Destination, Counted))> {
    let inner = attributes(body).find(|(kind, _)| *kind == ATTR_DEST)?.1;
    // Old kernels do not name the family: it is the service's.
    let (mut family, mut address, mut port) = (family_of(service), None, None);
    let mut there = Destination { weight: 0, forwarding: None, active: 0, inactive: 0 };
    let mut counted = Counted::default();
    for (kind, value) in attributes(inner) {
        match kind {
            DEST_FAMILY => family = read_u16(value)?,
            DEST_ADDR => address = Some(value),
            DEST_PORT => port = value.first_chunk().map(|bytes| u16::from_be_bytes(*bytes)),
            DEST_FORWARDING => there.forwarding = forwarding_numbered(read_u32(value)? & FORWARDING_MASK),
            DEST_WEIGHT => there.weight = read_u32(value)?,
            DEST_ACTIVE => there.active = read_u32(value)?,
            DEST_INACTIVE => there.inactive = read_u32(value)?,
            DEST_STATS64 => counted = counted_of(value),
            _ => {}
        }
    }
    Some((SocketAddr::new(read_address(family, address?)?, port?), (there, counted)))
}

fn counted_of(value: &[u8]) -> Counted {
    let mut counted = Counted::default();
    for (kind, value) in attributes(value) {
        let number = read_u64(value).unwrap_or_default();
        match kind {
            STATS_CONNECTIONS => counted.connections = number,
            STATS_BYTES_IN => counted.bytes_in = number,
            STATS_BYTES_OUT => counted.bytes_out = number,
            _ => {}
        }
    }
    counted
}

fn family_of(address: IpAddr) -> u16 {
    if address.is_ipv4() { AF_INET } else { AF_INET6 }
}

fn address_bytes(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V6(address) => address.octets(),
        IpAddr::V4(address) => {
            let mut bytes = [0; 16];
            bytes[..4].copy_from_slice(&address.octets());
            bytes
        }
    }
}

fn read_address(family: u16, bytes: &[u8]) -> Option<IpAddr> {
    match family {
        AF_INET => bytes.first_chunk::<4>().map(|bytes| IpAddr::from(*bytes)),
        AF_INET6 => bytes.first_chunk::<16>().map(|bytes| IpAddr::from(*bytes)),
        _ => None,
    }
}

/// The kernel's name of a scheduler; its module is `ip_vs_` and this.
pub(super) fn scheduler_name(scheduler: Scheduler) -> &'static str {
    match scheduler {
        Scheduler::Wrr => "wrr",
        Scheduler::Rr => "rr",
        Scheduler::Lc => "lc",
        Scheduler::Wlc => "wlc",
        Scheduler::Sh => "sh",
        Scheduler::Mh => "mh",
    }
}

fn scheduler_named(name: &str) -> Option<Scheduler> {
    use Scheduler::{Lc, Mh, Rr, Sh, Wlc, Wrr};
    [Wrr, Rr, Lc, Wlc, Sh, Mh].into_iter().find(|scheduler| scheduler_name(*scheduler) == name)
}

pub(super) fn forwarding_name(forwarding: Forwarding) -> &'static str {
    match forwarding {
        Forwarding::Masquerade => "masquerade",
        Forwarding::Direct => "direct",
        Forwarding::Tunnel => "tunnel",
    }
}

fn forwarding_number(forwarding: Forwarding) -> u32 {
    match forwarding {
        Forwarding::Masquerade => 0,
        Forwarding::Tunnel => 2,
        Forwarding::Direct => 3,
    }
}

fn forwarding_numbered(number: u32) -> Option<Forwarding> {
    use Forwarding::{Direct, Masquerade, Tunnel};
    [Masquerade, Tunnel, Direct].into_iter().find(|forwarding| forwarding_number(*forwarding) == number)
}

const NETLINK_GENERIC: isize = 16;
const GENL_ID_CTRL: u16 = 16;
const CTRL_GETFAMILY: u8 = 3;
const CTRL_ATTR_ID: u16 = 1;
const CTRL_ATTR_NAME: u16 = 2;
const IPVS_VERSION: u8 = 1;
const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;
const PROTOCOL_TCP: u16 = 6;

const NEW_SERVICE: u8 = 1;
const SET_SERVICE: u8 = 2;
const DEL_SERVICE: u8 = 3;
const GET_SERVICE: u8 = 4;
const NEW_DEST: u8 = 5;
const SET_DEST: u8 = 6;
const DEL_DEST: u8 = 7;
const GET_DEST: u8 = 8;
const SET_CONFIG: u8 = 12;
const GET_CONFIG: u8 = 13;

const ATTR_SERVICE: u16 = 1;
const ATTR_DEST: u16 = 2;
const ATTR_TIMEOUT_TCP: u16 = 4;
const ATTR_TIMEOUT_TCP_FIN: u16 = 5;
const ATTR_TIMEOUT_UDP: u16 = 6;

const SVC_AF: u16 = 1;
const SVC_PROTOCOL: u16 = 2;
const SVC_ADDR: u16 = 3;
const SVC_PORT: u16 = 4;
const SVC_SCHEDULER: u16 = 6;
const SVC_FLAGS: u16 = 7;
const SVC_TIMEOUT: u16 = 8;
const SVC_NETMASK: u16 = 9;
const PERSISTENT: u32 = 1;

const DEST_ADDR: u16 = 1;
const DEST_PORT: u16 = 2;
const DEST_FORWARDING: u16 = 3;
const DEST_WEIGHT: u16 = 4;
const DEST_UPPER: u16 = 5;
const DEST_LOWER: u16 = 6;
const DEST_ACTIVE: u16 = 7;
const DEST_INACTIVE: u16 = 8;
const DEST_FAMILY: u16 = 11;
const DEST_STATS64: u16 = 12;
const FORWARDING_MASK: u32 = 7;

const STATS_CONNECTIONS: u16 = 1;
const STATS_BYTES_IN: u16 = 4;
const STATS_BYTES_OUT: u16 = 5;

#[cfg(test)]
mod tests {
    use super::*;

    fn key(address: &str) -> ServiceKey {
        ServiceKey { address: address.parse().unwrap(), port: 3306 }
    }

    /// What is sent for an entry reads back as that entry.
    #[test]
    fn entries_read_back() {
        for address in ["10.0.0.100", "fd00::64"] {
            let service = key(address);
            let change = Change::AddService { service, scheduler: Scheduler::Mh };
            let (command, attributes) = encode(change);
            assert_eq!(command, NEW_SERVICE);
            let expected =
                Service { scheduler: Some(Scheduler::Mh), persistent: false, destinations: BTreeMap::new() };
            assert_eq!(service_of(&attributes.finish()), Some((service, expected)));

            let server = SocketAddr::new(address.parse().unwrap(), 3307);
            for forwarding in [Forwarding::Masquerade, Forwarding::Direct, Forwarding::Tunnel] {
                let change = Change::SetDestination { service, server, weight: 70, forwarding };
                let (command, attributes) = encode(change);
                assert_eq!(command, SET_DEST);
                let there = Destination { weight: 70, forwarding: Some(forwarding), active: 0, inactive: 0 };
                let read = destination_of(&attributes.finish(), service.address);
                assert_eq!(read, Some((server, (there, Counted::default()))));
            }
        }
    }

    #[test]
    fn bytes_on_the_wire() {
        let service = key("10.0.0.100");
        let (_, attributes) = encode(Change::DeleteService { service });
        let expected: &[u8] = &[
            44, 0, 1, 0x80, 6, 0, 1, 0, 2, 0, 0, 0, 6, 0, 2, 0, 6, 0, 0, 0, 20, 0, 3, 0, 10, 0, 0, 100, 0, 0,
            0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 6, 0, 4, 0, 0x0c, 0xea, 0, 0,
        ];
        let bytes = attributes.finish();
        assert_eq!(bytes[4..], expected[4..]);
        assert_eq!(bytes.len(), expected.len());
    }

    #[test]
    fn other_services_are_not_seen() {
        let udp = Attributes::default()
            .u16(SVC_AF, AF_INET)
            .u16(SVC_PROTOCOL, 17)
            .bytes(SVC_ADDR, &[0; 16])
            .u16_be(SVC_PORT, 53);
        let by_mark = Attributes::default().u16(SVC_AF, AF_INET).u32(5, 7).text(SVC_SCHEDULER, "rr");
        for service in [udp, by_mark] {
            assert_eq!(service_of(&Attributes::default().nested(ATTR_SERVICE, service).finish()), None);
        }
        assert_eq!(scheduler_named("lblc"), None);
    }
}
