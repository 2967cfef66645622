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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// `mariadb` of Connector/C 3.3.20, to a MariaDB server.
    const LIBMARIADB: &[u8] =
        b"\x8c\xa2\xbf\0\0\0\x10\0!\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x1d\0\0\0n1\0\
        \x14D\x96\xc2\xa5\xe6\x17wn\x18\xdf\xb9\xa2*XU\xb3\xe4\xa1\xd7\x0bdb1\0mysql_native_password\0\
        \x7f\x03_os\x05Linux\x0c_client_name\x0alibmariadb\x04_pid\x0515237\x0f_client_version\x063.3.20\
        \x09_platform\x06x86_64\x0cprogram_name\x05mysql\x0c_server_host\x09127.0.0.1";
    /// `mysql` 9.7.4, to a server whose greeting names another plugin than its own: no answer yet.
    const LIBMYSQL: &[u8] = b"\x8d\xa2\xbf\x19\0\0\0\x01\xff\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0n1\0\0db1\0\
        caching_sha2_password\0r\x04_pid\x0515259\x09_platform\x06x86_64\x03_os\x05Linux\x0c_client_name\x08libmysql\
        \x07os_user\x04root\x0f_client_version\x059.7.4\x0cprogram_name\x05mysql";
    /// PHP's mysqlnd.
    const MYSQLND: &[u8] = b"\x8d\xa2\x1a\0\0\0\0\xc0\xff\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0n1\0 H\\\xab\xd7k\
        \x92\x02\x02[\x8d\x06\xaf\x91\xdf\x98\xb6UD\xe9\xc1\x0b\xf1`u\xb84DF\xcf}\x07\xc0db1\0caching_sha2_password\0\
        ,\x0c_client_name\x07mysqlnd\x0c_server_host\x09127.0.0.1";

    #[test]
    fn real_responses() {
        check(LIBMARIADB, 20, "mysql_native_password", 127, 0x1d);
        check(LIBMYSQL, 0, "caching_sha2_password", 114, 0);
        check(MYSQLND, 32, "caching_sha2_password", 44, 0);
    }

    #[track_caller]
    fn check(payload: &[u8], answer: usize, plugin: &str, attributes: usize, mariadb: u32) {
        let response = parse(payload).expect("a response");
        assert_eq!((response.user, response.schema), (&b"n1"[..], Some(&b"db1"[..])));
        assert_eq!(response.answer.len(), answer);
        assert_eq!(response.plugin, Some(plugin.as_bytes()));
        assert_eq!(response.attributes.len(), attributes);
        assert_eq!(response.mariadb.bits(), mariadb);
        let mut written = Vec::new();
        response.write(&mut written);
        assert_eq!(written, payload);
        // A packet may end before a field that it announces, never inside one.
        let user_end = SslRequest::LEN + 3;
        let answer_end = user_end + 1 + answer;
        let schema_end = answer_end + 4;
        let plugin_end = schema_end + plugin.len() + 1;
        for cut in 0..payload.len() {
            let whole_fields = [user_end, answer_end, schema_end, plugin_end].contains(&cut);
            assert_eq!(ClientHello::parse(&payload[..cut], false).is_ok(), whole_fields, "cut at {cut}");
        }
    }

    fn parse(payload: &[u8]) -> Option<HandshakeResponse<'_>> {
        match ClientHello::parse(payload, false) {
            Ok(ClientHello::Response(response)) => Some(response),
            Ok(ClientHello::Ssl(_) | ClientHello::TooOld) | Err(_) => None,
        }
    }

    #[test]
    fn tls_is_asked_for_with_half_a_response() {
        let asking = b"\x8c\xaa\xbf\0\0\0\x10\0!\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x1d\0\0\0";
        let Ok(ClientHello::Ssl(request)) = ClientHello::parse(asking, false) else {
            panic!("expected a request for TLS");
        };
        assert_eq!(request.mariadb.bits(), 0x1d);
        let mut written = Vec::new();
        request.write(&mut written);
        assert_eq!(written, asking);

        let mut through_tls = LIBMARIADB.to_vec();
        through_tls[1] |= 0x08;
        assert!(matches!(ClientHello::parse(&through_tls, true), Ok(ClientHello::Response(_))));
        ClientHello::parse(&through_tls, false).expect_err("a whole response that asks for TLS");
    }

    #[test]
    fn old_clients() {
        assert_eq!(ClientHello::parse(b"\x85\x24\0\0\0root\0", false), Ok(ClientHello::TooOld));
        // mysql_native_password without names, lengths or attributes.
        let mut payload = Vec::new();
        let old = HandshakeResponse {
            capabilities: Capabilities::PROTOCOL_41 | Capabilities::SECURE_CONNECTION,
            user: b"root",
            answer: &[7; 20],
            ..HandshakeResponse::default()
        };
        old.write(&mut payload);
        assert_eq!(payload.len(), SslRequest::LEN + 5 + 21);
        assert_eq!(parse(&payload), Some(old));
    }

    #[test]
    fn attributes_are_bounded_and_whole() {
        check_attributes(&[], true);
        check_attributes(b"\x01a\x01b", true);
        check_attributes(b"\x01a", false);
        check_attributes(b"\x01a\x05b", false);
        check_attributes(&[0; MAX_ATTRIBUTES_BYTES], true);
        check_attributes(&[0; MAX_ATTRIBUTES_BYTES + 2], false);
    }

    #[track_caller]
    fn check_attributes(attributes: &[u8], good: bool) {
        let capabilities = Capabilities::PROTOCOL_41 | Capabilities::CONNECT_ATTRS;
        let response = HandshakeResponse { capabilities, attributes, ..HandshakeResponse::default() };
        let mut payload = Vec::new();
        response.write(&mut payload);
        assert_eq!(parse(&payload), good.then_some(response));
    }

    proptest! {
        #[test]
        fn written_responses_are_read_back(
            bits: u32, mariadb: u32, collation: u8, max_packet: u32, zstd_level: u8,
            user in "[a-zü]{0,32}", answer in "[a-z]{0,40}", schema in "[a-z]{1,20}", plugin in "[a-z]{0,20}",
        ) {
            let capabilities = (Capabilities::from_bits_retain(bits) | Capabilities::PROTOCOL_41) - Capabilities::SSL;
            let with = |flag| capabilities.contains(flag);
            let extended = if with(Capabilities::LONG_PASSWORD) { 0 } else { mariadb };
            let response = HandshakeResponse {
                capabilities,
                mariadb: MariadbCapabilities::from_bits_retain(extended),
                max_packet,
                collation,
                user: user.as_bytes(),
                answer: answer.as_bytes(),
                schema: with(Capabilities::CONNECT_WITH_DB).then_some(schema.as_bytes()),
                plugin: with(Capabilities::PLUGIN_AUTH).then_some(plugin.as_bytes()),
                attributes: if with(Capabilities::CONNECT_ATTRS) { b"\x01a\x01b" } else { &[] },
                zstd_level: if with(Capabilities::ZSTD_COMPRESSION_ALGORITHM) { zstd_level } else { 0 },
            };
            let mut payload = Vec::new();
            response.write(&mut payload);
            prop_assert_eq!(parse(&payload), Some(response));
        }

        #[test]
        fn no_bytes_panic(bytes: Vec<u8>, over_tls: bool) {
            // Whatever comes of it: the call returns.
            let _ = ClientHello::parse(&bytes, over_tls);
        }
    }
}
