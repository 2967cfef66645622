//! Masquerading of connections through the virtual services: one nftables table with one rule and one set, however
//! many services there are (`include/uapi/linux/netfilter/nf_tables.h`).
//!
//! ```text
//! table ip pointsman {
//!   set vips { type ipv4_addr . inet_service; elements = { VIP . port } }
//!   chain post { type nat hook postrouting priority srcnat
//!                meta l4proto tcp ct original ip daddr . ct original proto-dst @vips masquerade } }
//! ```
//! The original tuple of a connection still holds VIP and port after IPVS has rewritten the packet. The table is our
//! own, so nothing of others is touched.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;

use pointsman_router::vip::ServiceKey;

use super::netlink::{
    Attributes, Message, NLM_F_ACK, NLM_F_APPEND, NLM_F_CREATE, Netlink, attributes, read_text,
};

/// The NAT table of one address family.
#[derive(Debug)]
pub struct Nat {
    netlink: Netlink,
    family: Family,
}

/// What the families differ in.
#[derive(Clone, Copy, Debug)]
struct Family {
    number: u8,
    address_bytes: usize,
    /// nft's number of the type `ipv4_addr . inet_service` or `ipv6_addr . inet_service`.
    key_type: u32,
    /// The key that loads a connection's original destination.
    destination: u32,
    /// The register behind the address.
    port_register: u32,
}

/// What is in the table; none where it is absent or incomplete.
type Elements = BTreeSet<Vec<u8>>;

impl Nat {
    /// # Errors
    ///
    /// When there is no netlink to netfilter.
    pub fn open(ipv6: bool) -> io::Result<Self> {
        let family = if ipv6 { IPV6 } else { IPV4 };
        Ok(Self { netlink: Netlink::open(NETLINK_NETFILTER)?, family })
    }

    /// Brings the table to exactly these services; whether it had to be changed.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn ensure(&mut self, services: &BTreeSet<ServiceKey>) -> io::Result<bool> {
        let wanted: Elements = services.iter().map(|key| self.family.element(*key)).collect();
        if self.elements()?.is_some_and(|elements| elements == wanted) && self.has_rule()? {
            return Ok(false);
        }
        // The table is replaced in one transaction; connections that are translated already stay so.
        let mut messages = vec![self.table(NFT_NEWTABLE, NLM_F_CREATE), self.table(NFT_DELTABLE, 0)];
        messages.extend([self.table(NFT_NEWTABLE, NLM_F_CREATE), self.chain(), self.set()]);
        let elements: Vec<_> = wanted.into_iter().collect();
        messages.extend(elements.chunks(ELEMENTS_EACH).map(|chunk| self.new_elements(chunk)));
        messages.push(self.rule());
        self.transact(messages)?;
        Ok(true)
    }

    /// Deletes the table; that it is not there is a success.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn remove(&mut self) -> io::Result<()> {
        match self.transact(vec![self.table(NFT_DELTABLE, 0)]) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            outcome => outcome,
        }
    }

    fn elements(&mut self) -> io::Result<Option<Elements>> {
        let question = self.header().text(SET_ELEM_TABLE, TABLE).text(SET_ELEM_SET, SET).finish();
        let answers = match self.netlink.dump(nft(NFT_GETSETELEM), question) {
            Ok(answers) => answers,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut elements = Elements::new();
        for answer in &answers {
            let lists = attributes(answer.get(HEADER_BYTES..).unwrap_or_default())
                .filter(|(kind, _)| *kind == SET_ELEM_ELEMENTS);
            for (_, element) in lists.flat_map(|(_, list)| attributes(list)) {
                let key = attributes(element).find(|(kind, _)| *kind == ELEM_KEY);
                let value = key.and_then(|(_, key)| attributes(key).find(|(kind, _)| *kind == DATA_VALUE));
                elements.extend(value.map(|(_, value)| value.to_vec()));
            }
        }
        Ok(Some(elements))
    }

    /// Whether our chain holds exactly the one rule.
    fn has_rule(&mut self) -> io::Result<bool> {
        let question = self.header().text(RULE_TABLE, TABLE).text(RULE_CHAIN, CHAIN).finish();
        let answers = match self.netlink.dump(nft(NFT_GETRULE), question) {
            Ok(answers) => answers,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        };
        let ours = answers.iter().filter(|answer| {
            let mut of_rule = attributes(answer.get(HEADER_BYTES..).unwrap_or_default());
            let in_table = of_rule.any(|(kind, value)| kind == RULE_TABLE && read_text(value) == TABLE);
            in_table && answer.first() == Some(&self.family.number)
        });
        Ok(ours.count() == 1)
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
    fn header(&self) -> Attributes {
        Attributes::after(&[self.family.number, 0, 0, 0])
    }

    fn message(&self, command: u16, flags: u16, attributes: Attributes) -> Message {
        Message { kind: nft(command), flags: flags | NLM_F_ACK, payload: attributes.finish() }
    }

    fn table(&self, command: u16, flags: u16) -> Message {
        self.message(command, flags, self.header().text(TABLE_NAME, TABLE))
    }

    fn chain(&self) -> Message {
        let hook =
            Attributes::default().u32_be(HOOK_NUMBER, POSTROUTING).u32_be(HOOK_PRIORITY, PRIORITY_SOURCE_NAT);
        let chain = self
            .header()
            .text(CHAIN_TABLE, TABLE)
            .text(CHAIN_NAME, CHAIN)
            .nested(CHAIN_HOOK, hook)
            .text(CHAIN_TYPE, "nat");
        self.message(NFT_NEWCHAIN, NLM_F_CREATE, chain)
    }

    fn set(&self) -> Message {
        let set = self
            .header()
            .text(SET_TABLE, TABLE)
            .text(SET_NAME, SET)
            .u32_be(SET_FLAGS, 0)
            .u32_be(SET_KEY_TYPE, self.family.key_type)
            .u32_be(SET_KEY_LENGTH, u32::try_from(self.family.address_bytes + PORT_BYTES).unwrap_or(0))
            .u32_be(SET_ID, 1);
        self.message(NFT_NEWSET, NLM_F_CREATE, set)
    }

    fn new_elements(&self, elements: &[Vec<u8>]) -> Message {
        let list = elements.iter().fold(Attributes::default(), |list, element| {
            let value = Attributes::default().bytes(DATA_VALUE, element);
            list.nested(LIST_ELEM, Attributes::default().nested(ELEM_KEY, value))
        });
        let new =
            self.header().text(SET_ELEM_TABLE, TABLE).text(SET_ELEM_SET, SET).nested(SET_ELEM_ELEMENTS, list);
        self.message(NFT_NEWSETELEM, NLM_F_CREATE, new)
    }

    fn rule(&self) -> Message {
        let tcp = Attributes::default().bytes(DATA_VALUE, &[PROTOCOL_TCP]);
        let original = |key, register| {
            Attributes::default().u32_be(1, register).u32_be(2, key).bytes(3, &[DIRECTION_ORIGINAL])
        };
        let expressions = Attributes::default()
            .nested(
                LIST_ELEM,
                expression("meta", Attributes::default().u32_be(1, REG_1).u32_be(2, META_L4PROTO)),
            )
            .nested(
                LIST_ELEM,
                expression("cmp", Attributes::default().u32_be(1, REG_1).u32_be(2, CMP_EQ).nested(3, tcp)),
            )
            .nested(LIST_ELEM, expression("ct", original(self.family.destination, REG_1)))
            .nested(LIST_ELEM, expression("ct", original(CT_PROTO_DST, self.family.port_register)))
            .nested(LIST_ELEM, expression("lookup", Attributes::default().text(1, SET).u32_be(2, REG_1)))
            .nested(LIST_ELEM, expression("masq", Attributes::default()));
        let rule = self
            .header()
            .text(RULE_TABLE, TABLE)
            .text(RULE_CHAIN, CHAIN)
            .nested(RULE_EXPRESSIONS, expressions);
        self.message(NFT_NEWRULE, NLM_F_CREATE | NLM_F_APPEND, rule)
    }
}

impl Family {
    /// Address and port as the set holds them: each part fills whole registers of four bytes.
    fn element(self, key: ServiceKey) -> Vec<u8> {
        let mut bytes = match key.address {
            IpAddr::V4(address) => address.octets().to_vec(),
            IpAddr::V6(address) => address.octets().to_vec(),
        };
        bytes.resize(self.address_bytes, 0);
        bytes.extend_from_slice(&key.port.to_be_bytes());
        bytes.resize(self.address_bytes + PORT_BYTES, 0);
        bytes
    }
}

fn nft(command: u16) -> u16 {
    SUBSYSTEM_NFTABLES << 8 | command
}

fn expression(name: &str, data: Attributes) -> Attributes {
    Attributes::default().text(EXPR_NAME, name).nested(EXPR_DATA, data)
}

const IPV4: Family =
    Family { number: 2, address_bytes: 4, key_type: 7 << 6 | 13, destination: 20, port_register: 9 };
const IPV6: Family =
    Family { number: 10, address_bytes: 16, key_type: 8 << 6 | 13, destination: 22, port_register: 2 };
pub(super) const TABLE: &str = "pointsman";
const CHAIN: &str = "post";
const SET: &str = "vips";
const PORT_BYTES: usize = 4;
/// An attribute holds at most 64 KiB.
const ELEMENTS_EACH: usize = 1000;

const NETLINK_NETFILTER: isize = 12;
const HEADER_BYTES: usize = 4;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const SUBSYSTEM_NFTABLES: u16 = 10;
const NFT_NEWTABLE: u16 = 0;
const NFT_DELTABLE: u16 = 2;
const NFT_NEWCHAIN: u16 = 3;
const NFT_NEWRULE: u16 = 6;
const NFT_GETRULE: u16 = 7;
const NFT_NEWSET: u16 = 9;
const NFT_NEWSETELEM: u16 = 12;
const NFT_GETSETELEM: u16 = 13;

const TABLE_NAME: u16 = 1;
const CHAIN_TABLE: u16 = 1;
const CHAIN_NAME: u16 = 3;
const CHAIN_HOOK: u16 = 4;
const CHAIN_TYPE: u16 = 7;
const HOOK_NUMBER: u16 = 1;
const HOOK_PRIORITY: u16 = 2;
const POSTROUTING: u32 = 4;
const PRIORITY_SOURCE_NAT: u32 = 100;
const SET_TABLE: u16 = 1;
const SET_NAME: u16 = 2;
const SET_FLAGS: u16 = 3;
const SET_KEY_TYPE: u16 = 4;
const SET_KEY_LENGTH: u16 = 5;
const SET_ID: u16 = 10;
const SET_ELEM_TABLE: u16 = 1;
const SET_ELEM_SET: u16 = 2;
const SET_ELEM_ELEMENTS: u16 = 3;
const LIST_ELEM: u16 = 1;
const ELEM_KEY: u16 = 1;
const DATA_VALUE: u16 = 1;
const RULE_TABLE: u16 = 1;
const RULE_CHAIN: u16 = 2;
const RULE_EXPRESSIONS: u16 = 4;
const EXPR_NAME: u16 = 1;
const EXPR_DATA: u16 = 2;
const REG_1: u32 = 1;
const META_L4PROTO: u32 = 16;
const CMP_EQ: u32 = 0;
const CT_PROTO_DST: u32 = 12;
const DIRECTION_ORIGINAL: u8 = 0;
const PROTOCOL_TCP: u8 = 6;
