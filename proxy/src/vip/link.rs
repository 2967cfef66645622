//! Links, addresses and routes of this network namespace over rtnetlink (`include/uapi/linux/if_addr.h`,
//! `if_link.h`, `rtnetlink.h`).

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use super::netlink::{
    Attributes, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, Netlink, attributes, read_text, read_u32,
};

/// The way to the kernel's links.
#[derive(Debug)]
pub struct Links {
    netlink: Netlink,
}

/// One link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    pub index: u32,
    pub name: String,
    pub up: bool,
    /// `dummy`, `veth` and so on; empty for hardware.
    pub kind: String,
}

/// One address of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    pub link: u32,
    pub ip: IpAddr,
    pub prefix: u8,
    /// Seconds after which the kernel removes it; none is never.
    pub valid_seconds: Option<u32>,
}

impl Links {
    /// # Errors
    ///
    /// When there is no netlink.
    pub fn open() -> io::Result<Self> {
        Ok(Self { netlink: Netlink::open(NETLINK_ROUTE)? })
    }

    /// # Errors
    ///
    /// The kernel's.
    pub fn all(&mut self) -> io::Result<Vec<Link>> {
        let answers = self.netlink.dump(RTM_GETLINK, link_header(0, false).finish())?;
        Ok(answers.iter().filter_map(|answer| link_of(answer)).collect())
    }

    /// # Errors
    ///
    /// The kernel's.
    pub fn find(&mut self, name: &str) -> io::Result<Option<Link>> {
        Ok(self.all()?.into_iter().find(|link| link.name == name))
    }

    /// Makes a dummy link where there is none, sets it up, and returns its index.
    ///
    /// # Errors
    ///
    /// `AlreadyExists` when there is another kind of link of that name; else the kernel's.
    pub fn ensure_dummy(&mut self, name: &str) -> io::Result<u32> {
        let link = match self.find(name)? {
            Some(link) => link,
            None => {
                let kind = Attributes::default().text(IFLA_INFO_KIND, DUMMY);
                let new = link_header(0, true).text(IFLA_IFNAME, name).nested(IFLA_LINKINFO, kind);
                self.netlink.change(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, new.finish())?;
                self.find(name)?.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?
            }
        };
        if link.kind != DUMMY {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        if !link.up {
            self.netlink.change(RTM_NEWLINK, 0, link_header(link.index, true).finish())?;
        }
        Ok(link.index)
    }

    /// Deletes a dummy link with its addresses; anything else of that name stays.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn delete_dummy(&mut self, name: &str) -> io::Result<()> {
        match self.find(name)? {
            Some(link) if link.kind == DUMMY => {
                self.netlink.change(RTM_DELLINK, 0, link_header(link.index, false).finish())
            }
            _ => Ok(()),
        }
    }

    /// # Errors
    ///
    /// The kernel's.
    pub fn addresses(&mut self) -> io::Result<Vec<Address>> {
        let answers = self.netlink.dump(RTM_GETADDR, vec![0; ADDRESS_HEADER_BYTES])?;
        Ok(answers.iter().filter_map(|answer| address_of(answer)).collect())
    }

    /// Adds an address of one host, or gives it a new lifetime. Neighbours are not asked whether they have it.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn add_address(&mut self, link: u32, ip: IpAddr, lifetime: Option<Duration>) -> io::Result<()> {
        let seconds = lifetime.map_or(FOREVER_SECONDS, |lifetime| {
            // The kernel counts whole seconds: rounded down, it never keeps the address for longer than it is ours.
            u32::try_from(lifetime.as_secs().max(1)).unwrap_or(FOREVER_SECONDS)
        });
        let mut lifetimes = seconds.to_ne_bytes().repeat(2);
        lifetimes.resize(CACHE_INFO_BYTES, 0);
        let flags = if ip.is_ipv6() { IFA_F_NODAD } else { 0 };
        let new = address_message(link, ip).u32(IFA_FLAGS, flags).bytes(IFA_CACHEINFO, &lifetimes);
        self.netlink.change(RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, new.finish())
    }

    /// Removes an address; that it is not there is a success.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn remove_address(&mut self, link: u32, ip: IpAddr) -> io::Result<()> {
        match self.netlink.change(RTM_DELADDR, 0, address_message(link, ip).finish()) {
            Err(error) if matches!(error.raw_os_error(), Some(ENODEV | EADDRNOTAVAIL)) => Ok(()),
            outcome => outcome,
        }
    }

    /// The link through which others of the VIP's network are reached: that of the narrowest network that holds it,
    /// else of the default route.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn outward(&mut self, ip: IpAddr, own_link: &str) -> io::Result<Option<Link>> {
        let links = self.all()?;
        let by_index = |index| links.iter().find(|link| link.index == index && link.name != own_link);
        let connected = self
            .addresses()?
            .into_iter()
            .filter(|address| address.holds(ip) && by_index(address.link).is_some())
            .max_by_key(|address| address.prefix)
            .and_then(|address| by_index(address.link));
        if let Some(link) = connected {
            return Ok(Some(link.clone()));
        }
        let routes = self.netlink.dump(RTM_GETROUTE, route_header(ip))?;
        let by_default = routes.iter().filter_map(|route| default_route_link(route, ip)).find_map(by_index);
        Ok(by_default.cloned())
    }
}

impl Address {
    /// Whether this is another address of the network that `ip` is in.
    fn holds(&self, ip: IpAddr) -> bool {
        let is_one_host = self.prefix == if self.ip.is_ipv4() { 32 } else { 128 };
        let network = ipnet::IpNet::new(self.ip, self.prefix);
        !is_one_host && network.is_ok_and(|network| network.contains(&ip))
    }
}

/// `struct ifinfomsg` of one link, which is set up or left alone.
fn link_header(index: u32, up: bool) -> Attributes {
    let mut header = vec![0; 4];
    header.extend_from_slice(&index.to_ne_bytes());
    let up = if up { IFF_UP } else { 0 };
    // Flags, then which of them count.
    header.extend_from_slice(&up.to_ne_bytes());
    header.extend_from_slice(&up.to_ne_bytes());
    Attributes::after(&header)
}

/// `struct ifaddrmsg` of one host's address.
fn address_message(link: u32, ip: IpAddr) -> Attributes {
    let (family, prefix) = if ip.is_ipv4() { (AF_INET, 32) } else { (AF_INET6, 128) };
    let mut header = vec![family, prefix, 0, 0];
    header.extend_from_slice(&link.to_ne_bytes());
    let octets = octets(ip);
    Attributes::after(&header).bytes(IFA_LOCAL, &octets).bytes(IFA_ADDRESS, &octets)
}

/// `struct rtmsg` of a family.
fn route_header(ip: IpAddr) -> Vec<u8> {
    let mut header = vec![0; ROUTE_HEADER_BYTES];
    header[0] = if ip.is_ipv4() { AF_INET } else { AF_INET6 };
    header
}

fn octets(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

fn link_of(answer: &[u8]) -> Option<Link> {
    let header = answer.first_chunk::<LINK_HEADER_BYTES>()?;
    let mut link = Link {
        index: read_u32(&header[4..])?,
        name: String::new(),
        up: read_u32(&header[8..])? & IFF_UP != 0,
        kind: String::new(),
    };
    for (kind, value) in attributes(&answer[LINK_HEADER_BYTES..]) {
        match kind {
            IFLA_IFNAME => link.name = read_text(value),
            IFLA_LINKINFO => {
                let inner = attributes(value).find(|(kind, _)| *kind == IFLA_INFO_KIND);
                link.kind = inner.map(|(_, value)| read_text(value)).unwrap_or_default();
            }
            _ => {}
        }
    }
    Some(link)
}

fn address_of(answer: &[u8]) -> Option<Address> {
    let header = answer.first_chunk::<ADDRESS_HEADER_BYTES>()?;
    let (mut local, mut other, mut valid_seconds) = (None, None, None);
    for (kind, value) in attributes(&answer[ADDRESS_HEADER_BYTES..]) {
        match kind {
            // Of a point-to-point link the peer's; else, and always for IPv6, our own.
            IFA_ADDRESS => other = ip_of(value),
            IFA_LOCAL => local = ip_of(value),
            IFA_CACHEINFO => {
                valid_seconds = value.get(4..).and_then(read_u32).filter(|left| *left != FOREVER_SECONDS);
            }
            _ => {}
        }
    }
    Some(Address { link: read_u32(&header[4..])?, ip: local.or(other)?, prefix: header[1], valid_seconds })
}

fn ip_of(value: &[u8]) -> Option<IpAddr> {
    match value.len() {
        4 => value.first_chunk::<4>().map(|bytes| IpAddr::from(*bytes)),
        16 => value.first_chunk::<16>().map(|bytes| IpAddr::from(*bytes)),
        _ => None,
    }
}

/// The link of a route that leads everywhere.
fn default_route_link(answer: &[u8], ip: IpAddr) -> Option<u32> {
    let header = answer.first_chunk::<ROUTE_HEADER_BYTES>()?;
    let family = if ip.is_ipv4() { AF_INET } else { AF_INET6 };
    let is_default = header[0] == family && header[1] == 0 && header[7] == RTN_UNICAST;
    let link = attributes(&answer[ROUTE_HEADER_BYTES..]).find(|(kind, _)| *kind == RTA_OIF);
    link.filter(|_| is_default).and_then(|(_, value)| read_u32(value))
}

const NETLINK_ROUTE: isize = 0;
const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_GETADDR: u16 = 22;
const RTM_GETROUTE: u16 = 26;
const LINK_HEADER_BYTES: usize = 16;
const ADDRESS_HEADER_BYTES: usize = 8;
const ROUTE_HEADER_BYTES: usize = 12;
const CACHE_INFO_BYTES: usize = 16;
const FOREVER_SECONDS: u32 = u32::MAX;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const IFF_UP: u32 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_LINKINFO: u16 = 18;
const IFLA_INFO_KIND: u16 = 1;
const DUMMY: &str = "dummy";
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_CACHEINFO: u16 = 6;
const IFA_FLAGS: u16 = 8;
const IFA_F_NODAD: u32 = 2;
const RTA_OIF: u16 = 4;
const RTN_UNICAST: u8 = 1;
const ENODEV: i32 = 19;
const EADDRNOTAVAIL: i32 = 99;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_read_back() {
        for (ip, prefix) in [("10.0.0.100", 32), ("fd00::64", 128)] {
            let ip: IpAddr = ip.parse().unwrap();
            let message = address_message(7, ip).finish();
            assert_eq!(address_of(&message), Some(Address { link: 7, ip, prefix, valid_seconds: None }));
            let lifetimes = [4_u32.to_ne_bytes(), 3_u32.to_ne_bytes(), [0; 4], [0; 4]].concat();
            let message = address_message(7, ip).bytes(IFA_CACHEINFO, &lifetimes).finish();
            assert_eq!(address_of(&message).and_then(|address| address.valid_seconds), Some(3));
        }
    }

    #[test]
    fn a_network_holds_its_hosts() {
        let check = |ip: &str, prefix, other: &str, expected| {
            let address = Address { link: 1, ip: ip.parse().unwrap(), prefix, valid_seconds: None };
            assert_eq!(address.holds(other.parse().unwrap()), expected, "{ip}/{prefix} {other}");
        };
        check("10.0.0.1", 24, "10.0.0.100", true);
        check("10.0.0.1", 32, "10.0.0.1", false);
        check("10.0.1.1", 24, "10.0.0.100", false);
        check("fd00::1", 64, "fd00::64", true);
        check("fd00::1", 64, "10.0.0.1", false);
    }
}
