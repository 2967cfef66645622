//! The packets that a server sends in the middle of an authentication.

use crate::codec::{Malformed, Reader, put_nul_terminated};

/// First byte of [`AuthSwitch`].
pub const AUTH_SWITCH: u8 = 0xfe;
/// First byte of a packet that carries a plugin's own data.
pub const MORE_DATA: u8 = 0x01;

// The bytes of the two SHA256 plugins: `sql/auth/sha2_password_common.h` in MySQL.
pub(super) const SHA256_PUBLIC_KEY_REQUEST: u8 = 1;
pub(super) const CACHING_PUBLIC_KEY_REQUEST: u8 = 2;
pub(super) const FAST_AUTHENTICATION_OK: u8 = 3;
pub(super) const FULL_AUTHENTICATION: u8 = 4;

/// Asks the client to go on with another plugin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuthSwitch<'a> {
    pub plugin: &'a [u8],
    /// The plugin's nonce, as it stands in the packet: that of passwords ends with a zero byte.
    pub data: &'a [u8],
}

impl<'a> AuthSwitch<'a> {
    /// Reads a payload that starts with [`AUTH_SWITCH`].
    ///
    /// # Errors
    ///
    /// [`Malformed`] when the name has no end, as in the packet of one byte from before MySQL 4.1.
    pub fn parse(payload: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(payload);
        let header = reader.u8()?;
        if header != AUTH_SWITCH {
            return Err(Malformed::Header { expected: "an authentication switch", got: header });
        }
        Ok(Self { plugin: reader.nul_terminated()?, data: reader.rest() })
    }

    /// The payload.
    pub fn to_payload(&self) -> Vec<u8> {
        let mut payload = vec![AUTH_SWITCH];
        put_nul_terminated(&mut payload, self.plugin);
        payload.extend_from_slice(self.data);
        payload
    }
}

/// The payload of a packet with a plugin's own data.
pub fn more_data(data: &[u8]) -> Vec<u8> {
    [&[MORE_DATA], data].concat()
}
