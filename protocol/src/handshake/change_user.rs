//! COM_CHANGE_USER: a login on a connection that is open already.

use super::response::{put_short_bytes, read_attributes, read_short_bytes};
use crate::capability::Capabilities;
use crate::codec::{Malformed, Reader, put_lenenc_bytes, put_nul_terminated, put_u16};

/// The body of the command, after its code.
///
/// MySQL manual, "COM_CHANGE_USER".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChangeUser<'a> {
    pub user: &'a [u8],
    pub answer: &'a [u8],
    pub schema: Option<&'a [u8]>,
    /// Two bytes here, unlike in the first login. None where the client ends the packet before it.
    pub collation: Option<u16>,
    pub plugin: Option<&'a [u8]>,
    pub attributes: &'a [u8],
}

impl<'a> ChangeUser<'a> {
    /// The command's code, the first byte of the payload.
    pub const CODE: u8 = 0x11;

    /// Reads what follows the command's code.
    ///
    /// # Errors
    ///
    /// [`Malformed`] when the body is cut or has attributes that cannot be read.
    pub fn parse(body: &'a [u8], capabilities: Capabilities) -> Result<Self, Malformed> {
        let mut reader = Reader::new(body);
        let user = reader.nul_terminated()?;
        let answer = if capabilities.contains(Capabilities::SECURE_CONNECTION) {
            read_short_bytes(&mut reader)?
        } else {
            reader.nul_terminated()?
        };
        let schema = Some(reader.nul_terminated()?).filter(|name| !name.is_empty());
        let mut change = Self { user, answer, schema, ..Self::default() };
        if reader.is_empty() {
            return Ok(change);
        }
        change.collation = Some(reader.u16()?);
        if capabilities.contains(Capabilities::PLUGIN_AUTH) && !reader.is_empty() {
            change.plugin = Some(reader.nul_terminated()?);
        }
        if capabilities.contains(Capabilities::CONNECT_ATTRS) && !reader.is_empty() {
            change.attributes = read_attributes(&mut reader)?;
        }
        Ok(change)
    }

    /// Appends the whole command in the form that `capabilities` say.
    pub fn write(&self, out: &mut Vec<u8>, capabilities: Capabilities) {
        out.push(Self::CODE);
        put_nul_terminated(out, self.user);
        if capabilities.contains(Capabilities::SECURE_CONNECTION) {
            put_short_bytes(out, self.answer);
        } else {
            put_nul_terminated(out, self.answer);
        }
        put_nul_terminated(out, self.schema.unwrap_or_default());
        let Some(collation) = self.collation else { return };
        put_u16(out, collation);
        if capabilities.contains(Capabilities::PLUGIN_AUTH) {
            put_nul_terminated(out, self.plugin.unwrap_or_default());
        }
        if capabilities.contains(Capabilities::CONNECT_ATTRS) {
            put_lenenc_bytes(out, self.attributes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODERN: Capabilities =
        Capabilities::SECURE_CONNECTION.union(Capabilities::PLUGIN_AUTH).union(Capabilities::CONNECT_ATTRS);

    #[test]
    fn every_form() {
        let full = ChangeUser {
            user: b"n1",
            answer: &[9; 20],
            schema: Some(b"db1"),
            collation: Some(0x0101),
            plugin: Some(b"mysql_native_password"),
            attributes: b"\x01a\x01b",
        };
        check(&full, MODERN);
        check(&ChangeUser { schema: None, attributes: &[], ..full }, MODERN);
        check(&ChangeUser { plugin: None, attributes: &[], ..full }, Capabilities::SECURE_CONNECTION);
        check(&ChangeUser { user: b"old", answer: b"abc", ..ChangeUser::default() }, Capabilities::empty());
    }

    #[track_caller]
    fn check(change: &ChangeUser<'_>, capabilities: Capabilities) {
        let mut command = Vec::new();
        change.write(&mut command, capabilities);
        assert_eq!(command[0], ChangeUser::CODE);
        assert_eq!(ChangeUser::parse(&command[1..], capabilities), Ok(*change));
        for cut in 1..command.len() {
            // Whole fields may be missing at the end: what is read must be what was written.
            if let Ok(part) = ChangeUser::parse(&command[1..cut], capabilities) {
                assert_eq!(
                    (part.user, part.answer, part.schema),
                    (change.user, change.answer, change.schema)
                );
            }
        }
    }
}
