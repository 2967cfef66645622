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

use pointsman_router::vip::ServiceKey;

use super::netlink::{Attributes, Message, NLM_F_APPEND, NLM_F_CREATE, attributes, read_text};
use super::nft::{
    CHAIN_HOOK, CHAIN_NAME, CHAIN_TABLE, CHAIN_TYPE, DATA_VALUE, Family, HEADER_BYTES, HOOK_NUMBER,
    HOOK_PRIORITY, LIST_ELEM, META_L4PROTO, NFT_NEWCHAIN, NFT_NEWRULE, Nft, PORT_BYTES, PROTOCOL_TCP, REG_1,
    RULE_CHAIN, RULE_EXPRESSIONS, RULE_TABLE, compare, expression, list,
};

/// The NAT table of one address family.
#[derive(Debug)]
pub struct Nat {
    nft: Nft,
}

/// What is in the table; none where it is absent or incomplete.
type Elements = BTreeSet<Vec<u8>>;

impl Nat {
    /// # Errors
    ///
    /// When there is no netlink to netfilter.
    pub fn open(ipv6: bool) -> io::Result<Self> {
        Ok(Self { nft: Nft::open(ipv6, TABLE)? })
    }

    /// Brings the table to exactly these services; whether it had to be changed.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn ensure(&mut self, services: &BTreeSet<ServiceKey>) -> io::Result<bool> {
        let wanted: Elements = services.iter().map(|key| element(self.nft.family, *key)).collect();
        if self.elements()?.is_some_and(|elements| elements == wanted) && self.has_rule()? {
            return Ok(false);
        }
        // Connections that are translated already stay so.
        let mut messages = vec![self.chain(), self.set()];
        let elements: Vec<_> = wanted.into_iter().collect();
        messages.extend(elements.chunks(ELEMENTS_EACH).map(|chunk| self.new_elements(chunk)));
        messages.push(self.rule());
        self.nft.replace_table(messages)?;
        Ok(true)
    }

    /// Deletes the table; that it is not there is a success.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn remove(&mut self) -> io::Result<()> {
        self.nft.delete_table()
    }

    fn elements(&mut self) -> io::Result<Option<Elements>> {
        let question = self.nft.header().text(SET_ELEM_TABLE, TABLE).text(SET_ELEM_SET, SET).finish();
        let answers = match self.nft.dump(NFT_GETSETELEM, question) {
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
        let question = self.nft.header().text(RULE_TABLE, TABLE).text(RULE_CHAIN, CHAIN).finish();
        let answers = match self.nft.dump(NFT_GETRULE, question) {
            Ok(answers) => answers,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        };
        let ours = answers.iter().filter(|answer| {
            let mut of_rule = attributes(answer.get(HEADER_BYTES..).unwrap_or_default());
            let in_table = of_rule.any(|(kind, value)| kind == RULE_TABLE && read_text(value) == TABLE);
            in_table && answer.first() == Some(&self.nft.family.number)
        });
        Ok(ours.count() == 1)
    }

    fn chain(&self) -> Message {
        let hook =
            Attributes::default().u32_be(HOOK_NUMBER, POSTROUTING).u32_be(HOOK_PRIORITY, PRIORITY_SOURCE_NAT);
        let chain = self
            .nft
            .header()
            .text(CHAIN_TABLE, TABLE)
            .text(CHAIN_NAME, CHAIN)
            .nested(CHAIN_HOOK, hook)
            .text(CHAIN_TYPE, "nat");
        self.nft.message(NFT_NEWCHAIN, NLM_F_CREATE, chain)
    }

    fn set(&self) -> Message {
        let set = self
            .nft
            .header()
            .text(SET_TABLE, TABLE)
            .text(SET_NAME, SET)
            .u32_be(SET_FLAGS, 0)
            .u32_be(SET_KEY_TYPE, self.nft.family.key_type)
            .u32_be(SET_KEY_LENGTH, u32::try_from(self.nft.family.address_bytes + PORT_BYTES).unwrap_or(0))
            .u32_be(SET_ID, 1);
        self.nft.message(NFT_NEWSET, NLM_F_CREATE, set)
    }

    fn new_elements(&self, elements: &[Vec<u8>]) -> Message {
        let list = elements.iter().fold(Attributes::default(), |list, element| {
            let value = Attributes::default().bytes(DATA_VALUE, element);
            list.nested(LIST_ELEM, Attributes::default().nested(ELEM_KEY, value))
        });
        let new = self
            .nft
            .header()
            .text(SET_ELEM_TABLE, TABLE)
            .text(SET_ELEM_SET, SET)
            .nested(SET_ELEM_ELEMENTS, list);
        self.nft.message(NFT_NEWSETELEM, NLM_F_CREATE, new)
    }

    fn rule(&self) -> Message {
        let original = |key, register| {
            Attributes::default().u32_be(1, register).u32_be(2, key).bytes(3, &[DIRECTION_ORIGINAL])
        };
        let expressions = list([
            expression("meta", Attributes::default().u32_be(1, REG_1).u32_be(2, META_L4PROTO)),
            compare(&[PROTOCOL_TCP]),
            expression("ct", original(self.nft.family.destination, REG_1)),
            expression("ct", original(CT_PROTO_DST, self.nft.family.port_register)),
            expression("lookup", Attributes::default().text(1, SET).u32_be(2, REG_1)),
            expression("masq", Attributes::default()),
        ]);
        let rule = self
            .nft
            .header()
            .text(RULE_TABLE, TABLE)
            .text(RULE_CHAIN, CHAIN)
            .nested(RULE_EXPRESSIONS, expressions);
        self.nft.message(NFT_NEWRULE, NLM_F_CREATE | NLM_F_APPEND, rule)
    }
}

/// Address and port as the set holds them: each part fills whole registers of four bytes.
fn element(family: Family, key: ServiceKey) -> Vec<u8> {
    let mut bytes = family.address(key.address);
    bytes.extend_from_slice(&key.port.to_be_bytes());
    bytes.resize(family.address_bytes + PORT_BYTES, 0);
    bytes
}

pub(super) const TABLE: &str = "pointsman";
const CHAIN: &str = "post";
const SET: &str = "vips";
/// An attribute holds at most 64 KiB.
const ELEMENTS_EACH: usize = 1000;

const NFT_GETRULE: u16 = 7;
const NFT_NEWSET: u16 = 9;
const NFT_NEWSETELEM: u16 = 12;
const NFT_GETSETELEM: u16 = 13;

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
const ELEM_KEY: u16 = 1;
const CT_PROTO_DST: u32 = 12;
const DIRECTION_ORIGINAL: u8 = 0;
