//! Checks a client: the server's side of an authentication.
//!
//! Each state takes the client's next packet and says what comes [`Next`]. Heavy work is a value of its own, to be
//! run where it holds nobody up.

use std::sync::Arc;

use zeroize::Zeroizing;

use super::credential::Credential;
use super::ed25519;
use super::message::{
    AuthSwitch, CACHING_PUBLIC_KEY_REQUEST, FAST_AUTHENTICATION_OK, FULL_AUTHENTICATION,
    SHA256_PUBLIC_KEY_REQUEST, more_data,
};
use super::plugin::Plugin;
use super::scramble::{double_sha256, native_secret, same, sha1, sha2_matches};
use super::steps::{
    Denial, Evidence, KeyWanted, Next, Verified, Waiting, Work, denied, denied_no_password, denied_password,
};
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
    pub doubled: Zeroizing<[u8; 32]>,
    /// The password, while somebody who logged in with it is connected.
    pub credential: Option<Arc<Credential>>,
}

impl Verification {
    /// Takes the client's first answer. `plugin`: the name that came with it; none from a client without
    /// `PLUGIN_AUTH`, whose answer is one of mysql_native_password.
    pub fn begin(self, plugin: Option<&[u8]>, answer: &[u8]) -> Next {
        let offered = plugin.map_or(Some(Plugin::NativePassword), Plugin::from_name);
        let wanted = match self.wanted(offered) {
            Ok(wanted) => wanted,
            Err(denial) => return denied(denial),
        };
        // A client whose plugin is not the greeting's has seen no nonce for it and may answer nothing yet.
        let answered = offered == Some(wanted)
            && (plugin.is_none() || wanted == self.greeted || !answer.is_empty())
            && matches!(wanted, Plugin::NativePassword | Plugin::CachingSha2);
        if answered {
            self.judge(wanted, answer)
        } else if plugin.is_none() {
            denied(Denial::OldClient(wanted))
        } else {
            self.switch(wanted)
        }
    }

    /// Takes the answer of a COM_CHANGE_USER, which a client may have made from the nonce of its last login or from
    /// nothing: one that is not right at once is asked for again, as servers do.
    pub fn begin_again(self, plugin: Option<&[u8]>, answer: &[u8]) -> Next {
        let offered = plugin.map_or(Some(Plugin::NativePassword), Plugin::from_name);
        match (self.wanted(offered), offered) {
            (Err(denial), _) => denied(denial),
            (Ok(wanted), Some(offered)) if wanted == offered => {
                let judged = match wanted {
                    Plugin::NativePassword => self.judge_native(answer),
                    Plugin::CachingSha2 => self.clone().judge_fast(answer),
                    Plugin::Sha256 | Plugin::Ed25519 | Plugin::ClearPassword => return self.switch(wanted),
                };
                if matches!(judged, Next::Verified(_)) || plugin.is_none() {
                    return judged;
                }
                self.switch(wanted)
            }
            (Ok(wanted), _) if plugin.is_none() => denied(Denial::OldClient(wanted)),
            (Ok(wanted), _) => self.switch(wanted),
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

    /// Whether an answer of mysql_native_password can be checked.
    pub(super) fn takes_native(&self) -> bool {
        matches!(*self.verifier, Verifier::Native(_) | Verifier::Clear(_))
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

    pub(super) fn judge(self, plugin: Plugin, answer: &[u8]) -> Next {
        match plugin {
            Plugin::NativePassword => self.judge_native(answer),
            Plugin::CachingSha2 => self.judge_fast(answer),
            Plugin::Sha256 => self.judge_secret(Plugin::Sha256, answer),
            Plugin::Ed25519 => self.judge_signature(answer),
            Plugin::ClearPassword => self.judge_clear(answer),
        }
    }

    pub(super) fn judge_native(&self, answer: &[u8]) -> Next {
        let (stored, clear) = match &*self.verifier {
            _ if answer.is_empty() => return self.judge_no_password(),
            Verifier::Native(stored) => (stored.clone(), None),
            Verifier::Clear(password) => (sha1(&*sha1(password)), Some(password)),
            Verifier::Empty
            | Verifier::CachingSha2(_)
            | Verifier::Sha256(_)
            | Verifier::Ed25519(_)
            | Verifier::Unusable { .. } => return denied_password(None),
        };
        let Ok(answer) = answer.try_into() else {
            return denied(Denial::Malformed { plugin: Plugin::NativePassword, len: answer.len() });
        };
        let Some(secret) = native_secret(&self.nonce, answer, &stored) else {
            return denied_password(Some(Evidence::Native(*answer)));
        };
        let credential = clear.map_or(Credential::Sha1(secret), |clear| Credential::Clear(clear.clone()));
        Next::Verified(Verified {
            credential: Arc::new(credential),
            prelude: None,
            stored: Some(stored.to_vec()),
        })
    }

    pub(super) fn judge_no_password(&self) -> Next {
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
            | Verifier::Unusable { .. } => denied_no_password(),
        }
    }

    /// The fast way of caching_sha2_password; where it leads nowhere, the password itself is asked for.
    fn judge_fast(self, answer: &[u8]) -> Next {
        if answer.is_empty() || answer == [0] {
            return self.judge_no_password();
        }
        let Ok(answer) = answer.try_into() else {
            return denied(Denial::Malformed { plugin: Plugin::CachingSha2, len: answer.len() });
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
            | Verifier::Unusable { .. } => denied_password(None),
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
    pub(super) fn judge_secret(self, plugin: Plugin, answer: &[u8]) -> Next {
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
            return denied_password(None);
        }
        Next::Work(Work::Check(self, Zeroizing::new(password.to_vec())))
    }

    fn judge_signature(&self, answer: &[u8]) -> Next {
        let Ok(answer) = answer.try_into() else {
            return denied(Denial::Malformed { plugin: Plugin::Ed25519, len: answer.len() });
        };
        let (Verifier::Ed25519(key), Some(credential)) = (&*self.verifier, self.live_credential()) else {
            return denied(Denial::NeedsTls);
        };
        if !ed25519::verify(key, &self.long_nonce, answer) {
            return denied_password(None);
        }
        Next::Verified(Verified { credential: credential.clone(), prelude: None, stored: Some(key.to_vec()) })
    }

    /// Whether this is the account's password. Heavy where the server stores a slow hash.
    fn is_password(&self, password: &[u8]) -> bool {
        let known = self.learnt.as_ref().is_some_and(|learnt| learnt.doubled == double_sha256(password));
        match &*self.verifier {
            Verifier::Empty | Verifier::Unusable { .. } => false,
            Verifier::Native(stored) => same(&*sha1(&*sha1(password)), &stored[..]),
            Verifier::CachingSha2(crypt) | Verifier::Sha256(crypt) => known || crypt.matches(password),
            Verifier::Ed25519(key) => ed25519::public_key(password) == *key,
            Verifier::Clear(right) => same(right, password),
        }
    }

    pub(super) fn check(&self, password: Zeroizing<Vec<u8>>) -> Next {
        if !self.is_password(&password) {
            return denied_password(Some(Evidence::Clear(password)));
        }
        Next::Verified(Verified {
            credential: Arc::new(Credential::Clear(password)),
            prelude: None,
            stored: None,
        })
    }
}

/// Length of [`Verification::long_nonce`].
pub const LONG_NONCE_LEN: usize = ed25519::NONCE_LEN;
/// Longest password that is hashed, as in MySQL (`MAX_PLAINTEXT_LENGTH`).
pub(super) const MAX_PASSWORD_BYTES: usize = 256;
