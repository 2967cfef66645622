//! No new connections for the moment before the address moves: those that are being made come through, and whoever
//! begins one is heard by the next owner, because TCP sends again what was dropped.
//!
//! ```text
//! table ip pointsman-move {
//!   chain in { type filter hook input priority filter
//!              meta l4proto tcp ip daddr VIP tcp dport port tcp flags & (syn | ack) == syn drop } }
//! ```

use std::io;

use pointsman_router::vip::ServiceKey;

use super::netlink::{Attributes, Message, NLM_F_APPEND, NLM_F_CREATE};
use super::nft::{
    CHAIN_HOOK, CHAIN_NAME, CHAIN_TABLE, CHAIN_TYPE, DATA_VALUE, HOOK_NUMBER, HOOK_PRIORITY, META_L4PROTO,
    NFT_NEWCHAIN, NFT_NEWRULE, Nft, PROTOCOL_TCP, REG_1, RULE_CHAIN, RULE_EXPRESSIONS, RULE_TABLE, compare,
    expression, list,
};

/// See the module.
#[derive(Debug)]
pub(super) struct Threshold {
    nft: Nft,
    service: ServiceKey,
    /// Of an earlier life nothing is known.
    may_be_shut: bool,
}

impl Threshold {
    /// # Errors
    ///
    /// When there is no netlink to netfilter.
    pub(super) fn open(service: ServiceKey) -> io::Result<Self> {
        let nft = Nft::open(service.address.is_ipv6(), TABLE)?;
        Ok(Self { nft, service, may_be_shut: true })
    }

    /// Drops what begins a connection to the service.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub(super) fn shut(&mut self) -> io::Result<()> {
        self.may_be_shut = true;
        let contents = vec![self.chain(), self.rule()];
        self.nft.replace_table(contents)
    }

    /// Lets new connections in again.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub(super) fn clear(&mut self) -> io::Result<()> {
        if self.may_be_shut {
            self.nft.delete_table()?;
            self.may_be_shut = false;
        }
        Ok(())
    }

    fn chain(&self) -> Message {
        let hook = Attributes::default().u32_be(HOOK_NUMBER, INPUT).u32_be(HOOK_PRIORITY, PRIORITY_FILTER);
        let chain = self
            .nft
            .header()
            .text(CHAIN_TABLE, TABLE)
            .text(CHAIN_NAME, CHAIN)
            .nested(CHAIN_HOOK, hook)
            .text(CHAIN_TYPE, "filter");
        self.nft.message(NFT_NEWCHAIN, NLM_F_CREATE, chain)
    }

    fn rule(&self) -> Message {
        let family = self.nft.family;
        let address = family.address(self.service.address);
        let value = |bytes: &[u8]| Attributes::default().bytes(DATA_VALUE, bytes);
        let flags = Attributes::default()
            .u32_be(1, REG_1)
            .u32_be(2, REG_1)
            .u32_be(3, 1)
            .nested(4, value(&[SYN | ACK]))
            .nested(5, value(&[0]));
        let verdict = Attributes::default().u32_be(VERDICT_CODE, NF_DROP);
        let verdict = Attributes::default().nested(DATA_VERDICT, verdict);
        let expressions = list([
            expression("meta", Attributes::default().u32_be(1, REG_1).u32_be(2, META_L4PROTO)),
            compare(&[PROTOCOL_TCP]),
            payload(NETWORK_HEADER, family.destination_offset, address.len()),
            compare(&address),
            payload(TRANSPORT_HEADER, TCP_DESTINATION_PORT, 2),
            compare(&self.service.port.to_be_bytes()),
            payload(TRANSPORT_HEADER, TCP_FLAGS, 1),
            expression("bitwise", flags),
            compare(&[SYN]),
            expression("immediate", Attributes::default().u32_be(1, REG_VERDICT).nested(2, verdict)),
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

/// Loads bytes of a packet into the first register.
fn payload(header: u32, offset: u32, bytes: usize) -> Attributes {
    let bytes = u32::try_from(bytes).unwrap_or(0);
    let place = Attributes::default().u32_be(1, REG_1).u32_be(2, header).u32_be(3, offset).u32_be(4, bytes);
    expression("payload", place)
}

const TABLE: &str = "pointsman-move";
const CHAIN: &str = "in";
const INPUT: u32 = 1;
const PRIORITY_FILTER: u32 = 0;
const NETWORK_HEADER: u32 = 1;
const TRANSPORT_HEADER: u32 = 2;
const TCP_DESTINATION_PORT: u32 = 2;
const TCP_FLAGS: u32 = 13;
const SYN: u8 = 0x02;
const ACK: u8 = 0x10;
const REG_VERDICT: u32 = 0;
const DATA_VERDICT: u16 = 2;
const VERDICT_CODE: u16 = 1;
const NF_DROP: u32 = 0;
