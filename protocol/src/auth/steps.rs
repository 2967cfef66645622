//! The states between two packets of a client, and what an authentication comes to.

use std::fmt;
use std::sync::Arc;

use thiserror::Error;
use zeroize::Zeroizing;

use super::credential::Credential;
use super::message::more_data;
use super::plugin::Plugin;
use super::rsa::RsaKey;
use super::verify::{MAX_PASSWORD_BYTES, Verification};

/// What has to happen now.
#[derive(Debug)]
pub enum Next {
    /// Send the payload and give the client's next packet to the state.
    Ask {
        payload: Vec<u8>,
        then: Waiting,
    },
    /// Give the state the process's key pair.
    Key(KeyWanted),
    /// Run this off the worker.
    Work(Work),
    Verified(Verified),
    Denied(Denied),
}

/// A client that has not proven it.
#[derive(Debug)]
pub struct Denied {
    pub reason: Denial,
    /// What it said, to be held against what is stored now: the account may have changed since it was read.
    pub evidence: Option<Evidence>,
}

/// What a client has shown of its password; good for another look without asking it again.
pub enum Evidence {
    NoPassword,
    /// The answer of mysql_native_password to the nonce of the verification that it comes from.
    Native([u8; 20]),
    Clear(Zeroizing<Vec<u8>>),
}

/// A client that has proven to know the password.
#[derive(Debug)]
pub struct Verified {
    pub credential: Arc<Credential>,
    /// A payload to be sent before the OK packet.
    pub prelude: Option<Vec<u8>>,
    /// What the server stores for the plugin that was used, for [`super::certificate_proof`]; none where the client
    /// cannot check one.
    pub stored: Option<Vec<u8>>,
}

/// Why a client was not let in.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Denial {
    #[error("wrong password (a password was given: {given})")]
    Password { given: bool },
    /// The client knows mysql_native_password only.
    #[error("the client cannot use the account's plugin {}", .0.name())]
    OldClient(Plugin),
    #[error("the account's plugin needs the password in clear, and the connection has no TLS")]
    NeedsTls,
    #[error("accounts with plugin {0:?} cannot log in through a proxy")]
    Unusable(Box<str>),
    #[error("expected an answer of {}, got {len} bytes", .plugin.name())]
    Malformed { plugin: Plugin, len: usize },
}

pub(super) fn denied(reason: Denial) -> Next {
    Next::Denied(Denied { reason, evidence: None })
}

pub(super) fn denied_password(evidence: Option<Evidence>) -> Next {
    Next::Denied(Denied { reason: Denial::Password { given: true }, evidence })
}

pub(super) fn denied_no_password() -> Next {
    Next::Denied(Denied { reason: Denial::Password { given: false }, evidence: Some(Evidence::NoPassword) })
}

impl Evidence {
    /// Looks at it again, with what is stored now. `plugin`: the client's, if it has not been switched to another one
    /// yet, which clients put up with once.
    pub fn against(self, verification: Verification, plugin: Option<&[u8]>) -> Next {
        match self {
            Self::NoPassword => verification.judge_no_password(),
            Self::Native(answer) if verification.takes_native() => verification.judge_native(&answer),
            Self::Native(_) if plugin.is_some() => verification.begin_again(plugin, &[]),
            Self::Native(_) => denied_password(None),
            Self::Clear(password) => Next::Work(Work::Check(verification, password)),
        }
    }
}

/// Shows no password.
impl fmt::Debug for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoPassword => "NoPassword",
            Self::Native(_) => "Native(..)",
            Self::Clear(_) => "Clear(..)",
        })
    }
}

/// The client has been asked for something.
#[derive(Debug)]
pub enum Waiting {
    /// For the first answer of a plugin that the client was switched to.
    Answer(Verification, Plugin),
    /// For the password: in clear, encrypted, or a request for the key to encrypt it with.
    Secret(Verification, Plugin),
    /// For the password encrypted with the key that was sent.
    Cipher(Verification, Arc<RsaKey>),
}

impl Waiting {
    /// Takes the payload of the client's packet.
    pub fn answer(self, payload: &[u8]) -> Next {
        match self {
            Self::Answer(verification, plugin) => verification.judge(plugin, payload),
            Self::Secret(verification, plugin) => verification.judge_secret(plugin, payload),
            Self::Cipher(verification, key) => Next::Work(Work::Decrypt(verification, key, payload.to_vec())),
        }
    }
}

/// The process's key pair is needed; making it takes so long that it is made when first wanted.
#[derive(Debug)]
pub enum KeyWanted {
    /// For its public half.
    ToSend(Verification),
    /// For a password that the client has encrypted with a key that it had already.
    ToDecrypt(Verification, Vec<u8>),
}

impl KeyWanted {
    /// Goes on with the key.
    pub fn with(self, key: &Arc<RsaKey>) -> Next {
        match self {
            Self::ToSend(verification) => Next::Ask {
                payload: more_data(key.public_pem()),
                then: Waiting::Cipher(verification, key.clone()),
            },
            Self::ToDecrypt(verification, cipher) => {
                Next::Work(Work::Decrypt(verification, key.clone(), cipher))
            }
        }
    }
}

/// Milliseconds of computing.
pub enum Work {
    Check(Verification, Zeroizing<Vec<u8>>),
    Decrypt(Verification, Arc<RsaKey>, Vec<u8>),
}

impl Work {
    /// Does it, and says what follows.
    pub fn run(self) -> Next {
        match self {
            Self::Check(verification, password) => verification.check(password),
            Self::Decrypt(verification, key, cipher) => match key.decrypt(&cipher, &verification.nonce) {
                Some(password) if password.is_empty() => verification.judge_no_password(),
                Some(password) if password.len() <= MAX_PASSWORD_BYTES => verification.check(password),
                Some(_) | None => denied_password(None),
            },
        }
    }
}

/// Shows no password.
impl fmt::Debug for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Check(..) => "Check(..)",
            Self::Decrypt(..) => "Decrypt(..)",
        })
    }
}
