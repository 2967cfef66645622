//! One account as it is stored, before it is made into something that logs in.

use pointsman_protocol::auth::Verifier;
use zeroize::Zeroizing;

use super::account::Require;

/// A row of `mysql.user` or `mysql.global_priv`, or a `[[user]]` of the configuration.
///
/// Rows are compared to see whether an account has changed.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) user: String,
    /// None for users of the configuration, who may come from anywhere.
    pub(super) host: Option<String>,
    /// The ways to prove a password; any of them will do.
    pub(super) methods: Vec<Method>,
    pub(super) require: Require,
    pub(super) locked: bool,
    pub(super) stopped_by_read_only: bool,
    pub(super) privileged: bool,
}

/// A plugin and what it stores.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Method {
    Stored { plugin: String, text: Zeroizing<String> },
    Clear(Zeroizing<String>),
}

impl Method {
    pub(super) fn stored(plugin: &str, text: &str) -> Self {
        Self::Stored { plugin: plugin.to_owned(), text: Zeroizing::new(text.to_owned()) }
    }

    fn verifier(&self) -> Verifier {
        match self {
            Self::Stored { plugin, text } => Verifier::parse(plugin, text.as_bytes()),
            Self::Clear(password) => Verifier::from_password(password.as_bytes()),
        }
    }
}

impl Row {
    /// What a client's password is checked by: the first method that can be used here, a password that may be shown
    /// to every server before one that needs TLS.
    pub(super) fn verifier(&self) -> Verifier {
        let ease = |verifier: &Verifier| match verifier {
            Verifier::Empty
            | Verifier::Native(_)
            | Verifier::CachingSha2(_)
            | Verifier::Sha256(_)
            | Verifier::Clear(_) => 0,
            Verifier::Ed25519(_) => 1,
            Verifier::Unusable { .. } => 2,
        };
        let none = || Verifier::Unusable { plugin: "none".into() };
        self.methods.iter().map(Method::verifier).min_by_key(ease).unwrap_or_else(none)
    }
}
