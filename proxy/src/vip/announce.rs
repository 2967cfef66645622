//! Telling the network where the virtual address is: gratuitous ARP (RFC 5227) and unsolicited neighbour
//! advertisements (RFC 4861, 7.2.6). Without them new connections go to the previous owner until caches expire.

use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddrV6};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{LinkAddr, MsgFlags, sendto};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

type Mac = [u8; 6];

/// The interface on which neighbours are told.
#[derive(Debug)]
pub(super) struct Announcer {
    interface: String,
    ip: IpAddr,
}

impl Announcer {
    pub(super) fn new(interface: &str, ip: IpAddr) -> Self {
        Self { interface: interface.to_owned(), ip }
    }

    /// Says once that the address is here, in both forms that neighbours listen to.
    pub(super) fn announce(&self) -> io::Result<()> {
        let (link, mac) = self.hardware()?;
        match self.ip {
            IpAddr::V4(ip) => {
                let socket = arp_socket()?;
                for operation in [ARP_REQUEST, ARP_REPLY] {
                    send_frame(&socket, &link, &arp(operation, mac, ip, ip))?;
                }
                Ok(())
            }
            IpAddr::V6(ip) => advertise(u32::try_from(link.ifindex()).unwrap_or(0), mac, ip),
        }
    }

    /// The hardware address of another host that answers for an IPv4 address; none after a short while of silence.
    ///
    /// For IPv6 nobody is asked.
    pub(super) fn other_owner(&self) -> io::Result<Option<Mac>> {
        let IpAddr::V4(ip) = self.ip else { return Ok(None) };
        let (link, mac) = self.hardware()?;
        let socket = arp_socket()?;
        send_frame(&socket, &link, &arp(ARP_REQUEST, mac, Ipv4Addr::UNSPECIFIED, ip))?;
        let deadline = Instant::now() + PROBE;
        while let Some(left) = deadline.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
        {
            socket.set_read_timeout(Some(left))?;
            let mut frame = [0; 64];
            match (&socket).read(&mut frame) {
                Ok(length) => {
                    if let Some(other) = sender_of(&frame[..length], ip).filter(|other| *other != mac) {
                        return Ok(Some(other));
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    fn hardware(&self) -> io::Result<(LinkAddr, Mac)> {
        let of_interface = getifaddrs()?
            .filter(|address| address.interface_name == self.interface)
            .filter_map(|address| address.address)
            .find_map(|address| address.as_link_addr().copied());
        let link = of_interface.ok_or_else(|| {
            io::Error::new(io::ErrorKind::NotFound, format!("there is no interface {}", self.interface))
        })?;
        let mac = link.addr().ok_or_else(|| io::Error::from(io::ErrorKind::Unsupported))?;
        Ok((link, mac))
    }
}

fn arp_socket() -> io::Result<Socket> {
    Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(i32::from(ETHERTYPE_ARP.to_be()))))
}

fn send_frame(socket: &Socket, link: &LinkAddr, frame: &[u8]) -> io::Result<()> {
    sendto(socket.as_raw_fd(), frame, link, MsgFlags::empty())?;
    Ok(())
}

/// An Ethernet frame to everybody (RFC 826).
fn arp(operation: u16, mac: Mac, sender: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    let mut frame = Vec::with_capacity(ARP_FRAME_BYTES);
    frame.extend_from_slice(&BROADCAST);
    frame.extend_from_slice(&mac);
    frame.extend_from_slice(&ETHERTYPE_ARP.to_be_bytes());
    // Ethernet, IPv4, and the lengths of their addresses.
    frame.extend_from_slice(&[0, 1, 8, 0, 6, 4]);
    frame.extend_from_slice(&operation.to_be_bytes());
    frame.extend_from_slice(&mac);
    frame.extend_from_slice(&sender.octets());
    frame.extend_from_slice(if operation == ARP_REPLY { &BROADCAST } else { &[0; 6] });
    frame.extend_from_slice(&target.octets());
    frame
}

/// Who says in this frame that it has the address.
fn sender_of(frame: &[u8], ip: Ipv4Addr) -> Option<Mac> {
    let is_arp = frame.get(12..14)? == ETHERTYPE_ARP.to_be_bytes();
    let is_owner = frame.get(28..32)? == ip.octets();
    frame.get(22..28)?.first_chunk().copied().filter(|_| is_arp && is_owner)
}

fn advertise(interface: u32, mac: Mac, ip: Ipv6Addr) -> io::Result<()> {
    let socket = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6))?;
    socket.set_multicast_hops_v6(NEIGHBOUR_HOPS)?;
    socket.set_multicast_if_v6(interface)?;
    // The kernel adds the checksum.
    let mut message = vec![NEIGHBOUR_ADVERTISEMENT, 0, 0, 0, FLAG_OVERRIDE, 0, 0, 0];
    message.extend_from_slice(&ip.octets());
    message.extend_from_slice(&[OPTION_TARGET_HARDWARE, 1]);
    message.extend_from_slice(&mac);
    let everybody = SocketAddrV6::new(ALL_NODES, 0, 0, interface);
    socket.send_to(&message, &SockAddr::from(everybody))?;
    Ok(())
}

/// When to say it again: neighbours may miss one, and some switches forget.
#[derive(Debug)]
pub(super) struct Schedule {
    since: Instant,
    said: usize,
}

impl Schedule {
    /// Begins with an announcement that is due at once.
    pub(super) fn new(now: Instant) -> Self {
        Self { since: now, said: 0 }
    }

    pub(super) fn next(&self) -> Instant {
        match FIRST.get(self.said) {
            Some(after) => self.since + *after,
            None => self.since + REPEAT,
        }
    }

    /// To be called after each announcement.
    pub(super) fn advance(&mut self, now: Instant) {
        if self.said >= FIRST.len() {
            self.since = now;
        }
        self.said = (self.said + 1).min(FIRST.len());
    }
}

const FIRST: [Duration; 4] =
    [Duration::ZERO, Duration::from_millis(100), Duration::from_secs(1), Duration::from_secs(10)];
const REPEAT: Duration = Duration::from_secs(30);
const PROBE: Duration = Duration::from_millis(200);
const ETHERTYPE_ARP: u16 = 0x0806;
const ARP_REQUEST: u16 = 1;
const ARP_REPLY: u16 = 2;
const ARP_FRAME_BYTES: usize = 42;
const BROADCAST: Mac = [0xff; 6];
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
const FLAG_OVERRIDE: u8 = 0x20;
const OPTION_TARGET_HARDWARE: u8 = 2;
/// Less, and neighbours take it for a message from outside.
const NEIGHBOUR_HOPS: u32 = 255;
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames() {
        let (mac, ip) = ([2, 0, 0, 0, 0, 1], Ipv4Addr::new(10, 0, 0, 100));
        let frame = arp(ARP_REPLY, mac, ip, ip);
        assert_eq!(frame.len(), ARP_FRAME_BYTES);
        assert_eq!(sender_of(&frame, ip), Some(mac));
        assert_eq!(sender_of(&frame, Ipv4Addr::new(10, 0, 0, 101)), None);
        // A probe claims nothing.
        assert_eq!(sender_of(&arp(ARP_REQUEST, mac, Ipv4Addr::UNSPECIFIED, ip), ip), None);
        assert!((0..31).all(|length| sender_of(&frame[..length], ip).is_none()));
    }

    #[test]
    fn announcements_become_rarer() {
        let start = Instant::now();
        let mut schedule = Schedule::new(start);
        let mut at = Vec::new();
        for _ in 0..6 {
            let next = schedule.next();
            at.push((next - start).as_millis());
            schedule.advance(next);
        }
        assert_eq!(at, [0, 100, 1_000, 10_000, 30_000, 60_000]);
    }
}
