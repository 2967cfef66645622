//! The first packet of a connection, sent by the server (protocol version 10).

use super::NONCE_LEN;
use crate::capability::{Capabilities, MariadbCapabilities, Status};
use crate::codec::{Malformed, Reader, put_nul_terminated, put_u16, put_u32};

/// What a server says about itself before anybody has logged in.
///
/// MySQL manual, "Protocol::HandshakeV10"; MariaDB puts its own capabilities into the last four bytes of the filler.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Greeting {
    /// As on the wire: MariaDB writes `5.5.5-` in front of its own version.
    pub version: Vec<u8>,
    pub connection_id: u32,
    pub nonce: [u8; NONCE_LEN],
    pub capabilities: Capabilities,
    /// Valid without [`Capabilities::LONG_PASSWORD`] only.
    pub mariadb: MariadbCapabilities,
    pub collation: u8,
    pub status: Status,
    /// The plugin that the nonce is for; empty where the server names none.
    pub plugin: Vec<u8>,
}

impl Greeting {
    const PROTOCOL_VERSION: u8 = 10;

    /// Reads a payload.
    ///
    /// # Errors
    ///
    /// [`Malformed`] when the payload is cut or of another protocol version.
    pub fn parse(payload: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(payload);
        let header = reader.u8()?;
        if header != Self::PROTOCOL_VERSION {
            return Err(Malformed::Header { expected: "a greeting of version 10", got: header });
        }
        let version = reader.nul_terminated()?.to_vec();
        let connection_id = reader.u32()?;
        let first: [u8; NONCE_HEAD_LEN] = reader.array()?;
        reader.u8()?;
        let low = reader.u16()?;
        let collation = reader.u8()?;
        let status = Status::from_bits_retain(reader.u16()?);
        let high = reader.u16()?;
        let capabilities = Capabilities::from_bits_retain(u32::from(high) << 16 | u32::from(low));
        reader.u8()?;
        reader.take(FILLER_LEN)?;
        let extended = reader.u32()?;
        let mariadb = if capabilities.contains(Capabilities::LONG_PASSWORD) { 0 } else { extended };
        let second: [u8; NONCE_LEN - NONCE_HEAD_LEN] = reader.array()?;
        reader.u8()?;
        let mut nonce = [0; NONCE_LEN];
        nonce[..NONCE_HEAD_LEN].copy_from_slice(&first);
        nonce[NONCE_HEAD_LEN..].copy_from_slice(&second);
        Ok(Self {
            version,
            connection_id,
            nonce,
            capabilities,
            mariadb: MariadbCapabilities::from_bits_retain(mariadb),
            collation,
            status,
            plugin: last_string(&mut reader).to_vec(),
        })
    }

    /// Appends the payload.
    pub fn write(&self, out: &mut Vec<u8>) {
        let bits = self.capabilities.bits();
        out.push(Self::PROTOCOL_VERSION);
        put_nul_terminated(out, &self.version);
        put_u32(out, self.connection_id);
        out.extend_from_slice(&self.nonce[..NONCE_HEAD_LEN]);
        out.push(0);
        put_u16(out, bits as u16);
        out.push(self.collation);
        put_u16(out, self.status.bits());
        put_u16(out, (bits >> 16) as u16);
        out.push(if self.capabilities.contains(Capabilities::PLUGIN_AUTH) { NONCE_LEN as u8 + 1 } else { 0 });
        out.extend_from_slice(&[0; FILLER_LEN]);
        put_u32(out, self.mariadb.bits());
        out.extend_from_slice(&self.nonce[NONCE_HEAD_LEN..]);
        out.push(0);
        if self.capabilities.contains(Capabilities::PLUGIN_AUTH) {
            put_nul_terminated(out, &self.plugin);
        }
    }
}

/// A string at the end of a packet, with or without its zero byte.
fn last_string<'a>(reader: &mut Reader<'a>) -> &'a [u8] {
    reader.nul_terminated().unwrap_or_else(|_| reader.rest())
}

const NONCE_HEAD_LEN: usize = 8;
/// The part of the ten filler bytes that MariaDB leaves empty, too.
const FILLER_LEN: usize = 6;

#[cfg(test)]
mod tests {
    use super::*;

    /// The greeting of a MariaDB 10.11 server.
    const MARIADB: &[u8] =
        b"\x0a5.5.5-10.11.19-MariaDB-0+deb12u1-log\0\x05\0\0\0'ZrOqlKq\0\xfe\xff\x08\x02\0\xff\x81\
        \x15\0\0\0\0\0\0\x1d\0\0\0v|.kS=v^PYMT\0mysql_native_password\0";
    /// The greeting of a MySQL 9.7 server.
    const MYSQL: &[u8] =
        b"\x0a9.7.4-2\0\x0a\0\0\0fOpHe O\x0f\0\xff\xff\xff\x02\0\xff\xdf\x15\0\0\0\0\0\0\0\0\0\0\
        \x0c}UXu\x1cE])61\x03\0caching_sha2_password\0";

    #[test]
    fn real_greetings() {
        check(MARIADB, "5.5.5-10.11.19-MariaDB-0+deb12u1-log", "mysql_native_password", 0x1d);
        check(MYSQL, "9.7.4-2", "caching_sha2_password", 0);
    }

    #[track_caller]
    fn check(payload: &[u8], version: &str, plugin: &str, mariadb: u32) {
        let greeting = Greeting::parse(payload).expect("a greeting");
        assert_eq!(greeting.version, version.as_bytes());
        assert_eq!(greeting.plugin, plugin.as_bytes());
        assert_eq!(greeting.mariadb.bits(), mariadb);
        assert_eq!(greeting.status, Status::AUTOCOMMIT);
        let mut written = Vec::new();
        greeting.write(&mut written);
        assert_eq!(written, payload);
        let fixed = payload.len() - plugin.len() - 1;
        for cut in 0..fixed {
            Greeting::parse(&payload[..cut]).expect_err("a greeting that is cut");
        }
    }

    #[test]
    fn other_versions_are_refused() {
        let mut old = MYSQL.to_vec();
        old[0] = 9;
        Greeting::parse(&old).expect_err("version 9");
    }
}
