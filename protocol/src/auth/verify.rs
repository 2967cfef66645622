//! Checks a client: the server's side of an authentication.
//!
//! Each state takes the client's next packet and says what comes [`Next`]. Heavy work is a value of its own, to be
//! run where it holds nobody up.

use std::sync::Arc;

use thiserror::Error;
use zeroize::Zeroizing;

use super::credential::Credential;
use super::ed25519;
use super::message::{
    AuthSwitch, CACHING_PUBLIC_KEY_REQUEST, FAST_AUTHENTICATION_OK, FULL_AUTHENTICATION,
    SHA256_PUBLIC_KEY_REQUEST, more_data,
};
use super::plugin::Plugin;
use super::rsa::RsaKey;
use super::scramble::{double_sha256, native_secret, same, sha1, sha2_matches};
use super::verifier::Verifier;
use crate::handshake::NONCE_LEN;

/// All that a client is checked by.
#[derive(Clone, Debug)]
pub struct Verification {
    pub verifier: Arc<Verifier>,
    /// The nonce of the greeting, sent again with each switch to a plugin of its length.
    pub nonce: [u8; NONCE_LEN],
    /// For plugins with a longer nonce.
    pub long_nonce: [u8; LONG_NONCE_LEN],
    /// The plugin that the greeting named.
    pub greeted: Plugin,
    pub channel: Channel,
    /// What an earlier login of this account has taught.
    pub learnt: Option<Learnt>,
}

/// How bytes of this client travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Channel {
    Plain,
    Tls,
    /// A Unix socket, to which clients trust a password as they do to TLS.
    Local,
}

/// What is known of an account's password beyond what servers store.
#[derive(Clone, Debug)]
pub struct Learnt {
    /// See [`double_sha256`].
    pub doubled: [u8; 32],
    /// The password, while somebody who logged in with it is connected.
    pub credential: Option<Arc<Credential>>,
}

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
    Denied(Denial),
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

impl Verification {
    /// Takes the client's first answer. `plugin`: the name that came with it; none from a client without
    /// `PLUGIN_AUTH`, whose answer is one of mysql_native_password.
    pub fn begin(self, plugin: Option<&[u8]>, answer: &[u8]) -> Next {
        let offered = plugin.map_or(Some(Plugin::NativePassword), Plugin::from_name);
        let wanted = match self.wanted(offered) {
            Ok(wanted) => wanted,
            Err(denial) => return Next::Denied(denial),
        };
        // A client whose plugin is not the greeting's has seen no nonce for it and may answer nothing yet.
        let answered = offered == Some(wanted)
            && (plugin.is_none() || wanted == self.greeted || !answer.is_empty())
            && matches!(wanted, Plugin::NativePassword | Plugin::CachingSha2);
        if answered {
            self.judge(wanted, answer)
        } else if plugin.is_none() {
            Next::Denied(Denial::OldClient(wanted))
        } else {
            self.switch(wanted)
        }
    }

    /// Which plugin the account is checked by.
    fn wanted(&self, offered: Option<Plugin>) -> Result<Plugin, Denial> {
        match &*self.verifier {
            Verifier::Native(_) => Ok(Plugin::NativePassword),
            Verifier::CachingSha2(_) => Ok(Plugin::CachingSha2),
            Verifier::Sha256(_) => Ok(Plugin::Sha256),
            Verifier::Ed25519(_) if self.live_credential().is_some() => Ok(Plugin::Ed25519),
            Verifier::Ed25519(_) if self.channel != Channel::Plain => Ok(Plugin::ClearPassword),
            Verifier::Ed25519(_) => Err(Denial::NeedsTls),
            Verifier::Empty | Verifier::Clear(_) => {
                let usable = |plugin: &Plugin| matches!(plugin, Plugin::NativePassword | Plugin::CachingSha2);
                Ok(offered.filter(usable).unwrap_or(self.greeted))
            }
            Verifier::Unusable { plugin } => Err(Denial::Unusable(plugin.clone())),
        }
    }

    fn live_credential(&self) -> Option<&Arc<Credential>> {
        self.learnt.as_ref()?.credential.as_ref()
    }

    fn switch(self, plugin: Plugin) -> Next {
        let mut short_nonce = self.nonce.to_vec();
        short_nonce.push(0);
        let data: &[u8] = match plugin {
            Plugin::NativePassword | Plugin::CachingSha2 | Plugin::Sha256 => &short_nonce,
            Plugin::Ed25519 => &self.long_nonce,
            Plugin::ClearPassword => &[],
        };
        let payload = AuthSwitch { plugin: plugin.name().as_bytes(), data }.to_payload();
        Next::Ask { payload, then: Waiting::Answer(self, plugin) }
    }

    fn judge(self, plugin: Plugin, answer: &[u8]) -> Next {
        match plugin {
            Plugin::NativePassword => self.judge_native(answer),
            Plugin::CachingSha2 => self.judge_fast(answer),
            Plugin::Sha256 => self.judge_secret(Plugin::Sha256, answer),
            Plugin::Ed25519 => self.judge_signature(answer),
            Plugin::ClearPassword => self.judge_clear(answer),
        }
    }

    fn judge_native(&self, answer: &[u8]) -> Next {
        let (stored, clear) = match &*self.verifier {
            _ if answer.is_empty() => return self.judge_no_password(),
            Verifier::Native(stored) => (*stored, None),
            Verifier::Clear(password) => (*sha1(&*sha1(password)), Some(password)),
            Verifier::Empty
            | Verifier::CachingSha2(_)
            | Verifier::Sha256(_)
            | Verifier::Ed25519(_)
            | Verifier::Unusable { .. } => return Next::Denied(Denial::Password { given: true }),
        };
        let Ok(answer) = answer.try_into() else {
            return Next::Denied(Denial::Malformed { plugin: Plugin::NativePassword, len: answer.len() });
        };
        let Some(secret) = native_secret(&self.nonce, answer, &stored) else {
            return Next::Denied(Denial::Password { given: true });
        };
        let credential = clear.map_or(Credential::Sha1(secret), |clear| Credential::Clear(clear.clone()));
        Next::Verified(Verified {
            credential: Arc::new(credential),
            prelude: None,
            stored: Some(stored.to_vec()),
        })
    }

    fn judge_no_password(&self) -> Next {
        match &*self.verifier {
            Verifier::Empty => Next::Verified(Verified {
                credential: Arc::new(Credential::Empty),
                prelude: None,
                stored: None,
            }),
            Verifier::Native(_)
            | Verifier::CachingSha2(_)
            | Verifier::Sha256(_)
            | Verifier::Ed25519(_)
            | Verifier::Clear(_)
            | Verifier::Unusable { .. } => Next::Denied(Denial::Password { given: false }),
        }
    }

    /// The fast way of caching_sha2_password; where it leads nowhere, the password itself is asked for.
    fn judge_fast(self, answer: &[u8]) -> Next {
        if answer.is_empty() || answer == [0] {
            return self.judge_no_password();
        }
        let Ok(answer) = answer.try_into() else {
            return Next::Denied(Denial::Malformed { plugin: Plugin::CachingSha2, len: answer.len() });
        };
        if let Some(credential) = self.fast_credential(answer) {
            let prelude = Some(more_data(&[FAST_AUTHENTICATION_OK]));
            return Next::Verified(Verified { credential, prelude, stored: None });
        }
        match &*self.verifier {
            Verifier::CachingSha2(_) => Next::Ask {
                payload: more_data(&[FULL_AUTHENTICATION]),
                then: Waiting::Secret(self, Plugin::CachingSha2),
            },
            Verifier::Empty
            | Verifier::Native(_)
            | Verifier::Sha256(_)
            | Verifier::Ed25519(_)
            | Verifier::Clear(_)
            | Verifier::Unusable { .. } => Next::Denied(Denial::Password { given: true }),
        }
    }

    fn fast_credential(&self, answer: &[u8; 32]) -> Option<Arc<Credential>> {
        if let Verifier::Clear(password) = &*self.verifier {
            return sha2_matches(&self.nonce, answer, &double_sha256(password))
                .then(|| Arc::new(Credential::Clear(password.clone())));
        }
        let learnt = self.learnt.as_ref()?;
        let credential = learnt.credential.as_ref()?;
        sha2_matches(&self.nonce, answer, &learnt.doubled).then(|| credential.clone())
    }

    /// The password, or what it takes to get it through a connection that others can read.
    fn judge_secret(self, plugin: Plugin, answer: &[u8]) -> Next {
        let request =
            if plugin == Plugin::Sha256 { SHA256_PUBLIC_KEY_REQUEST } else { CACHING_PUBLIC_KEY_REQUEST };
        if answer == [request] && self.channel != Channel::Tls {
            return Next::Key(KeyWanted::ToSend(self));
        }
        match self.channel {
            Channel::Tls | Channel::Local => self.judge_clear(answer),
            Channel::Plain if answer.is_empty() || answer == [0] => self.judge_no_password(),
            Channel::Plain => Next::Key(KeyWanted::ToDecrypt(self, answer.to_vec())),
        }
    }

    fn judge_clear(self, answer: &[u8]) -> Next {
        let password = answer.strip_suffix(&[0]).unwrap_or(answer);
        if password.is_empty() {
            return self.judge_no_password();
        }
        if password.len() > MAX_PASSWORD_BYTES {
            return Next::Denied(Denial::Password { given: true });
        }
        Next::Work(Work::Check(self, Zeroizing::new(password.to_vec())))
    }

    fn judge_signature(&self, answer: &[u8]) -> Next {
        let Ok(answer) = answer.try_into() else {
            return Next::Denied(Denial::Malformed { plugin: Plugin::Ed25519, len: answer.len() });
        };
        let (Verifier::Ed25519(key), Some(credential)) = (&*self.verifier, self.live_credential()) else {
            return Next::Denied(Denial::NeedsTls);
        };
        if !ed25519::verify(key, &self.long_nonce, answer) {
            return Next::Denied(Denial::Password { given: true });
        }
        Next::Verified(Verified { credential: credential.clone(), prelude: None, stored: Some(key.to_vec()) })
    }

    /// Whether this is the account's password. Heavy where the server stores a slow hash.
    fn is_password(&self, password: &[u8]) -> bool {
        let known = self.learnt.as_ref().is_some_and(|learnt| learnt.doubled == double_sha256(password));
        match &*self.verifier {
            Verifier::Empty | Verifier::Unusable { .. } => false,
            Verifier::Native(stored) => same(&*sha1(&*sha1(password)), stored),
            Verifier::CachingSha2(crypt) | Verifier::Sha256(crypt) => known || crypt.matches(password),
            Verifier::Ed25519(key) => ed25519::public_key(password) == *key,
            Verifier::Clear(right) => same(right, password),
        }
    }

    fn check(&self, password: Zeroizing<Vec<u8>>) -> Next {
        if !self.is_password(&password) {
            return Next::Denied(Denial::Password { given: true });
        }
        Next::Verified(Verified {
            credential: Arc::new(Credential::Clear(password)),
            prelude: None,
            stored: None,
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
                Some(_) | None => Next::Denied(Denial::Password { given: true }),
            },
        }
    }
}

/// Shows no password.
impl std::fmt::Debug for Work {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Check(..) => "Check(..)",
            Self::Decrypt(..) => "Decrypt(..)",
        })
    }
}

/// Length of [`Verification::long_nonce`].
pub const LONG_NONCE_LEN: usize = ed25519::NONCE_LEN;
/// Longest password that is hashed, as in MySQL (`MAX_PLAINTEXT_LENGTH`).
const MAX_PASSWORD_BYTES: usize = 256;
