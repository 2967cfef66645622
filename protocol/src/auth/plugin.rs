//! The authentication plugins that are spoken here.

/// How a password is proven over the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Plugin {
    NativePassword,
    CachingSha2,
    Sha256,
    Ed25519,
    /// The password itself: through TLS only.
    ClearPassword,
}

impl Plugin {
    const ALL: [Self; 5] =
        [Self::NativePassword, Self::CachingSha2, Self::Sha256, Self::Ed25519, Self::ClearPassword];

    /// The name that goes over the wire: that of the client's plugin.
    pub fn name(self) -> &'static str {
        match self {
            Self::NativePassword => "mysql_native_password",
            Self::CachingSha2 => "caching_sha2_password",
            Self::Sha256 => "sha256_password",
            Self::Ed25519 => "client_ed25519",
            Self::ClearPassword => "mysql_clear_password",
        }
    }

    pub fn from_name(name: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|plugin| plugin.name().as_bytes() == name)
    }
}
