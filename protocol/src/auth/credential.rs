//! What a login proves and what further logins to servers are made with.

use std::fmt;

use zeroize::Zeroizing;

/// Stands for a user's password towards servers.
#[derive(Clone)]
pub enum Credential {
    /// The account has no password.
    Empty,
    /// SHA1 of the password: enough for mysql_native_password and nothing else.
    Sha1(Zeroizing<[u8; 20]>),
    /// The password: enough for every plugin.
    Clear(Zeroizing<Vec<u8>>),
}

impl Credential {
    /// A password in clear; an empty one is no password.
    pub fn from_password(password: &[u8]) -> Self {
        if password.is_empty() { Self::Empty } else { Self::Clear(Zeroizing::new(password.to_vec())) }
    }
}

/// Says which kind it is and nothing more.
impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "Empty",
            Self::Sha1(_) => "Sha1(..)",
            Self::Clear(_) => "Clear(..)",
        })
    }
}
