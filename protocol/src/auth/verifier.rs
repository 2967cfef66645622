//! What a server has stored to check an account's password by.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use zeroize::Zeroizing;

use super::plugin::Plugin;
use super::sha256_crypt::Sha256Crypt;

/// A stored password in one of the forms that servers use.
#[derive(Clone)]
pub enum Verifier {
    /// The account has no password.
    Empty,
    /// SHA1 of SHA1 of the password.
    Native(Zeroizing<[u8; 20]>),
    CachingSha2(Sha256Crypt),
    Sha256(Sha256Crypt),
    /// The public key of MariaDB's ed25519.
    Ed25519([u8; 32]),
    /// The password itself, from the configuration.
    Clear(Zeroizing<Vec<u8>>),
    /// A plugin or a stored text by which nobody can be let in here.
    Unusable {
        plugin: Box<str>,
    },
}

impl Verifier {
    /// Reads `plugin` and `authentication_string` of an account as they stand in the server's tables.
    pub fn parse(plugin: &str, stored: &[u8]) -> Self {
        let parsed = match plugin {
            "mysql_native_password" | "" => parse_native(stored),
            "caching_sha2_password" if !stored.is_empty() => {
                Sha256Crypt::parse_caching(stored).map(Self::CachingSha2)
            }
            "sha256_password" if !stored.is_empty() => Sha256Crypt::parse_plain(stored).map(Self::Sha256),
            "ed25519" if !stored.is_empty() => parse_key(stored).map(Self::Ed25519),
            "caching_sha2_password" | "sha256_password" | "ed25519" => Some(Self::Empty),
            _other => None,
        };
        parsed.unwrap_or_else(|| Self::Unusable { plugin: plugin.into() })
    }

    /// A password from the configuration; an empty one is no password.
    pub fn from_password(password: &[u8]) -> Self {
        if password.is_empty() { Self::Empty } else { Self::Clear(Zeroizing::new(password.to_vec())) }
    }

    /// What no password fits, for a user that does not exist, in the form of the accounts that do.
    pub fn decoy(plugin: Plugin, random: [u8; 20]) -> Self {
        match plugin {
            Plugin::CachingSha2 | Plugin::Sha256 => Self::CachingSha2(Sha256Crypt::decoy(random)),
            Plugin::NativePassword | Plugin::Ed25519 | Plugin::ClearPassword => Self::Native(random.into()),
        }
    }
}

fn parse_native(stored: &[u8]) -> Option<Verifier> {
    if stored.is_empty() {
        return Some(Verifier::Empty);
    }
    let digits = stored.strip_prefix(b"*").filter(|digits| digits.len() == 40)?;
    let mut hash = [0; 20];
    for (byte, pair) in hash.iter_mut().zip(digits.chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(Verifier::Native(hash.into()))
}

fn parse_key(stored: &[u8]) -> Option<[u8; 32]> {
    STANDARD_NO_PAD.decode(stored).ok()?.try_into().ok()
}

/// Says which kind it is and nothing more: hashes can be attacked offline.
impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("Empty"),
            Self::Native(_) => f.write_str("Native(..)"),
            Self::CachingSha2(_) => f.write_str("CachingSha2(..)"),
            Self::Sha256(_) => f.write_str("Sha256(..)"),
            Self::Ed25519(_) => f.write_str("Ed25519(..)"),
            Self::Clear(_) => f.write_str("Clear(..)"),
            Self::Unusable { plugin } => write!(f, "Unusable({plugin})"),
        }
    }
}
