//! A table of our own in nftables, by messages over netlink (`include/uapi/linux/netfilter/nf_tables.h`).

use std::io;
use std::net::IpAddr;

use super::netlink::{Attributes, Message, NLM_F_ACK, NLM_F_CREATE, Netlink};

/// The way to one table of one address family.
#[derive(Debug)]
pub(super) struct Nft {
    netlink: Netlink,
    pub(super) family: Family,
    table: &'static str,
}

/// What the families differ in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Family {
    pub(super) number: u8,
    pub(super) address_bytes: usize,
    /// nft's number of the type `ipv4_addr . inet_service` or `ipv6_addr . inet_service`.
    pub(super) key_type: u32,
    /// The key that loads a connection's original destination.
    pub(super) destination: u32,
    /// The register behind the address.
    pub(super) port_register: u32,
    /// Where the destination is in the network header.
    pub(super) destination_offset: u32,
}

impl Nft {
    /// # Errors
    ///
    /// When there is no netlink to netfilter.
    pub(super) fn open(ipv6: bool, table: &'static str) -> io::Result<Self> {
        let family = if ipv6 { IPV6 } else { IPV4 };
        Ok(Self { netlink: Netlink::open(NETLINK_NETFILTER)?, family, table })
    }

    /// Puts the table with these contents in place of the one that may be there, in one transaction.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub(super) fn replace_table(&mut self, contents: Vec<Message>) -> io::Result<()> {
        let new = || self.table_message(NFT_NEWTABLE, NLM_F_CREATE);
        let mut messages = vec![new(), self.table_message(NFT_DELTABLE, 0), new()];
        messages.extend(contents);
        self.transact(messages)
    }

    /// Deletes the table; that it is not there is a success.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub(super) fn delete_table(&mut self) -> io::Result<()> {
        match self.transact(vec![self.table_message(NFT_DELTABLE, 0)]) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            outcome => outcome,
        }
    }

    pub(super) fn dump(&mut self, command: u16, question: Vec<u8>) -> io::Result<Vec<Vec<u8>>> {
        self.netlink.dump(nft(command), question)
    }

    fn transact(&mut self, messages: Vec<Message>) -> io::Result<()> {
        // `struct nfgenmsg` of a batch names the subsystem.
        let marker = |kind| {
            let mut payload = vec![0, 0];
            payload.extend_from_slice(&SUBSYSTEM_NFTABLES.to_be_bytes());
            Message { kind, flags: 0, payload }
        };
        let mut batch = vec![marker(BATCH_BEGIN)];
        batch.extend(messages);
        batch.push(marker(BATCH_END));
        self.netlink.batch(batch)
    }

    /// `struct nfgenmsg`: the family, the version, no resource.
    pub(super) fn header(&self) -> Attributes {
        Attributes::after(&[self.family.number, 0, 0, 0])
    }

    pub(super) fn message(&self, command: u16, flags: u16, attributes: Attributes) -> Message {
        Message { kind: nft(command), flags: flags | NLM_F_ACK, payload: attributes.finish() }
    }

    fn table_message(&self, command: u16, flags: u16) -> Message {
        self.message(command, flags, self.header().text(TABLE_NAME, self.table))
    }
}

impl Family {
    /// An address as it is on the wire.
    pub(super) fn address(self, address: IpAddr) -> Vec<u8> {
        let mut bytes = match address {
            IpAddr::V4(address) => address.octets().to_vec(),
            IpAddr::V6(address) => address.octets().to_vec(),
        };
        bytes.resize(self.address_bytes, 0);
        bytes
    }
}

fn nft(command: u16) -> u16 {
    SUBSYSTEM_NFTABLES << 8 | command
}

pub(super) fn expression(name: &str, data: Attributes) -> Attributes {
    Attributes::default().text(EXPR_NAME, name).nested(EXPR_DATA, data)
}

/// The expressions of a rule.
pub(super) fn list(expressions: impl IntoIterator<Item = Attributes>) -> Attributes {
    expressions.into_iter().fold(Attributes::default(), |list, one| list.nested(LIST_ELEM, one))
}

/// Goes on with the rule where the first register holds this.
pub(super) fn compare(value: &[u8]) -> Attributes {
    let value = Attributes::default().bytes(DATA_VALUE, value);
    expression("cmp", Attributes::default().u32_be(1, REG_1).u32_be(2, CMP_EQ).nested(3, value))
}

const IPV4: Family = Family {
    number: 2,
    address_bytes: 4,
    key_type: 7 << 6 | 13,
    destination: 20,
    port_register: 9,
    destination_offset: 16,
};
const IPV6: Family = Family {
    number: 10,
    address_bytes: 16,
    key_type: 8 << 6 | 13,
    destination: 22,
    port_register: 2,
    destination_offset: 24,
};
pub(super) const PORT_BYTES: usize = 4;

const NETLINK_NETFILTER: isize = 12;
pub(super) const HEADER_BYTES: usize = 4;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const SUBSYSTEM_NFTABLES: u16 = 10;
const NFT_NEWTABLE: u16 = 0;
const NFT_DELTABLE: u16 = 2;
pub(super) const NFT_NEWCHAIN: u16 = 3;
pub(super) const NFT_NEWRULE: u16 = 6;

const TABLE_NAME: u16 = 1;
pub(super) const CHAIN_TABLE: u16 = 1;
pub(super) const CHAIN_NAME: u16 = 3;
pub(super) const CHAIN_HOOK: u16 = 4;
pub(super) const CHAIN_TYPE: u16 = 7;
pub(super) const HOOK_NUMBER: u16 = 1;
pub(super) const HOOK_PRIORITY: u16 = 2;
pub(super) const LIST_ELEM: u16 = 1;
pub(super) const DATA_VALUE: u16 = 1;
pub(super) const RULE_TABLE: u16 = 1;
pub(super) const RULE_CHAIN: u16 = 2;
pub(super) const RULE_EXPRESSIONS: u16 = 4;
const EXPR_NAME: u16 = 1;
const EXPR_DATA: u16 = 2;
pub(super) const REG_1: u32 = 1;
pub(super) const META_L4PROTO: u32 = 16;
const CMP_EQ: u32 = 0;
pub(super) const PROTOCOL_TCP: u8 = 6;
