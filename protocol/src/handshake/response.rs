//! The client's answer to the greeting.

use super::MAX_ATTRIBUTES_BYTES;
use crate::capability::{Capabilities, MariadbCapabilities};
use crate::codec::{Malformed, Reader, put_lenenc_bytes, put_nul_terminated, put_u32};

/// The first packet of a client, before TLS or without it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientHello<'a> {
    /// TLS starts now; the response comes again through it.
    Ssl(SslRequest),
    Response(HandshakeResponse<'a>),
    /// From before MySQL 4.1: no protocol that is spoken here.
    TooOld,
}

/// Half a response: asks for TLS. Nothing it says may be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SslRequest {
    pub capabilities: Capabilities,
    pub mariadb: MariadbCapabilities,
    pub max_packet: u32,
    pub collation: u8,
}

/// Who logs in, with what, and what the client can do.
///
/// MySQL manual, "Protocol::HandshakeResponse41".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HandshakeResponse<'a> {
    pub capabilities: Capabilities,
    /// Valid without [`Capabilities::LONG_PASSWORD`] only; empty otherwise.
    pub mariadb: MariadbCapabilities,
    pub max_packet: u32,
    pub collation: u8,
    pub user: &'a [u8],
    /// The answer to the greeting's nonce in the form of `plugin`.
    pub answer: &'a [u8],
    /// None where the client names no schema or an empty one.
    pub schema: Option<&'a [u8]>,
    /// None for a client without [`Capabilities::PLUGIN_AUTH`].
    pub plugin: Option<&'a [u8]>,
    /// Names and values in turn, each with its length.
    pub attributes: &'a [u8],
    /// With [`Capabilities::ZSTD_COMPRESSION_ALGORITHM`] only.
    pub zstd_level: u8,
}

impl<'a> ClientHello<'a> {
    /// Reads the first packet of a client. `over_tls`: a response that still asks for TLS is taken as it is.
    ///
    /// # Errors
    ///
    /// [`Malformed`] when the packet is cut or has attributes over [`MAX_ATTRIBUTES_BYTES`].
    pub fn parse(payload: &'a [u8], over_tls: bool) -> Result<Self, Malformed> {
        let mut reader = Reader::new(payload);
        let low = reader.u16()?;
        if !Capabilities::from_bits_retain(u32::from(low)).contains(Capabilities::PROTOCOL_41) {
            return Ok(Self::TooOld);
        }
        let head = SslRequest::parse(payload)?;
        if head.capabilities.contains(Capabilities::SSL) && !over_tls {
            return match payload.len() {
                SslRequest::LEN => Ok(Self::Ssl(head)),
                len => Err(Malformed::Trailing { what: "a request for TLS", len: len - SslRequest::LEN }),
            };
        }
        HandshakeResponse::parse_after(head, &payload[SslRequest::LEN..]).map(Self::Response)
    }
}

impl SslRequest {
    /// Length of the payload.
    pub const LEN: usize = 32;

    fn parse(payload: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(payload);
        let capabilities = Capabilities::from_bits_retain(reader.u32()?);
        let max_packet = reader.u32()?;
        let collation = reader.u8()?;
        reader.take(FILLER_LEN)?;
        let extended = reader.u32()?;
        let mariadb = if capabilities.contains(Capabilities::LONG_PASSWORD) { 0 } else { extended };
        Ok(Self {
            capabilities,
            mariadb: MariadbCapabilities::from_bits_retain(mariadb),
            max_packet,
            collation,
        })
    }

    /// Appends the payload.
    pub fn write(&self, out: &mut Vec<u8>) {
        put_u32(out, self.capabilities.bits());
        put_u32(out, self.max_packet);
        out.push(self.collation);
        out.extend_from_slice(&[0; FILLER_LEN]);
        put_u32(out, self.mariadb.bits());
    }
}

impl<'a> HandshakeResponse<'a> {
    fn parse_after(head: SslRequest, body: &'a [u8]) -> Result<Self, Malformed> {
        let SslRequest { capabilities, mariadb, max_packet, collation } = head;
        let mut reader = Reader::new(body);
        let user = reader.nul_terminated()?;
        let answer = read_answer(&mut reader, capabilities)?;
        let mut response =
            Self { capabilities, mariadb, max_packet, collation, user, answer, ..Self::default() };
        // Some clients set a flag and end the packet where the field would be; servers let them in.
        if capabilities.contains(Capabilities::CONNECT_WITH_DB) && !reader.is_empty() {
            response.schema = Some(reader.nul_terminated()?).filter(|name| !name.is_empty());
        }
        if capabilities.contains(Capabilities::PLUGIN_AUTH) {
            response.plugin = Some(if reader.is_empty() { &[] } else { reader.nul_terminated()? });
        }
        if capabilities.contains(Capabilities::CONNECT_ATTRS) && !reader.is_empty() {
            response.attributes = read_attributes(&mut reader)?;
        }
        if capabilities.contains(Capabilities::ZSTD_COMPRESSION_ALGORITHM) && !reader.is_empty() {
            response.zstd_level = reader.u8()?;
        }
        Ok(response)
    }

    /// The part that goes first, in the clear, when the connection is to be encrypted.
    pub fn ssl_request(&self) -> SslRequest {
        SslRequest {
            capabilities: self.capabilities | Capabilities::SSL,
            mariadb: self.mariadb,
            max_packet: self.max_packet,
            collation: self.collation,
        }
    }

    /// Appends the payload in the form that `capabilities` say.
    pub fn write(&self, out: &mut Vec<u8>) {
        let Self { capabilities, mariadb, max_packet, collation, .. } = *self;
        SslRequest { capabilities, mariadb, max_packet, collation }.write(out);
        put_nul_terminated(out, self.user);
        if capabilities.contains(Capabilities::PLUGIN_AUTH_LENENC_CLIENT_DATA) {
            put_lenenc_bytes(out, self.answer);
        } else if capabilities.contains(Capabilities::SECURE_CONNECTION) {
            put_short_bytes(out, self.answer);
        } else {
            put_nul_terminated(out, self.answer);
        }
        if capabilities.contains(Capabilities::CONNECT_WITH_DB) {
            put_nul_terminated(out, self.schema.unwrap_or_default());
        }
        if capabilities.contains(Capabilities::PLUGIN_AUTH) {
            put_nul_terminated(out, self.plugin.unwrap_or_default());
        }
        if capabilities.contains(Capabilities::CONNECT_ATTRS) {
            put_lenenc_bytes(out, self.attributes);
        }
        if capabilities.contains(Capabilities::ZSTD_COMPRESSION_ALGORITHM) {
            out.push(self.zstd_level);
        }
    }
}

fn read_answer<'a>(reader: &mut Reader<'a>, capabilities: Capabilities) -> Result<&'a [u8], Malformed> {
    if reader.is_empty() {
        return Ok(&[]);
    }
    if capabilities.contains(Capabilities::PLUGIN_AUTH_LENENC_CLIENT_DATA) {
        reader.lenenc_bytes()
    } else if capabilities.contains(Capabilities::SECURE_CONNECTION) {
        read_short_bytes(reader)
    } else {
        reader.nul_terminated()
    }
}

/// Takes a byte that holds a length, and as many bytes.
pub(super) fn read_short_bytes<'a>(reader: &mut Reader<'a>) -> Result<&'a [u8], Malformed> {
    let len = reader.u8()?;
    reader.take(usize::from(len))
}

/// Writes a byte with the length, and the bytes; no answer of a known plugin is longer than 255.
pub(super) fn put_short_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    let len = u8::try_from(bytes.len()).unwrap_or(u8::MAX);
    out.push(len);
    out.extend_from_slice(&bytes[..usize::from(len)]);
}

/// Takes the block of connection attributes, which must hold whole pairs.
pub(super) fn read_attributes<'a>(reader: &mut Reader<'a>) -> Result<&'a [u8], Malformed> {
    let block = reader.lenenc_bytes()?;
    if block.len() > MAX_ATTRIBUTES_BYTES {
        return Err(Malformed::TooLong {
            what: "the block of connection attributes",
            len: block.len() as u64,
            limit: MAX_ATTRIBUTES_BYTES,
        });
    }
    let mut pairs = Reader::new(block);
    while !pairs.is_empty() {
        pairs.lenenc_bytes()?;
        pairs.lenenc_bytes()?;
    }
    Ok(block)
}

/// What MariaDB's filler leaves of the 23 bytes that MySQL does not use.
const FILLER_LEN: usize = 19;
