//! Logs in to a server: the client's side of an authentication.

use std::fmt;
use std::sync::Arc;

use thiserror::Error;
use zeroize::Zeroizing;

use super::credential::Credential;
use super::ed25519;
use super::message::{
    AUTH_SWITCH, AuthSwitch, CACHING_PUBLIC_KEY_REQUEST, FAST_AUTHENTICATION_OK, FULL_AUTHENTICATION,
    MORE_DATA, SHA256_PUBLIC_KEY_REQUEST,
};
use super::plugin::Plugin;
use super::rsa::{RsaKeyError, encrypt};
use super::scramble::{native_answer, sha1, sha2_answer};
use crate::codec::Malformed;
use crate::err::ErrPacket;
use crate::handshake::NONCE_LEN;
use crate::ok::OkPacket;

/// A login under way.
#[derive(Debug)]
pub struct Login {
    credential: Arc<Credential>,
    plugin: Plugin,
    /// The nonce of `plugin`.
    nonce: Vec<u8>,
    /// Whether a password may be sent in clear: through TLS, or through a Unix socket.
    secure: bool,
    state: State,
}

/// What the server may say next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The verdict, another plugin, or more of this one.
    Verdict,
    /// Its public key.
    Key,
}

/// What a packet of the server calls for.
#[derive(Debug)]
pub enum Reply {
    Send(Answer, Login),
    /// Nothing; the verdict follows.
    Wait(Login),
    /// The payload is an OK packet.
    Accepted,
    /// The payload is an ERR packet.
    Refused,
}

/// A payload that may hold a password.
pub struct Answer(Zeroizing<Vec<u8>>);

/// Why a login came to no verdict.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum LoginError {
    #[error("the server asks for plugin {plugin:?}, which cannot be answered with {}", .have)]
    Unfit { plugin: String, have: &'static str },
    #[error("the server asks for the password in clear, and the connection has no TLS")]
    NeedsTls,
    #[error("expected a nonce of {wanted} bytes, got {got}")]
    Nonce { wanted: usize, got: usize },
    #[error(transparent)]
    Key(#[from] RsaKeyError),
    #[error(transparent)]
    Malformed(#[from] Malformed),
}

impl Login {
    /// Answers the greeting, by its plugin where the credential fits it and by another one where not: the server
    /// then says which it wants.
    pub fn start(
        credential: Arc<Credential>,
        plugin: &[u8],
        nonce: &[u8; NONCE_LEN],
        secure: bool,
    ) -> (Self, Answer) {
        let greeted = Plugin::from_name(plugin)
            .filter(|plugin| matches!(plugin, Plugin::NativePassword | Plugin::CachingSha2))
            .unwrap_or(Plugin::NativePassword);
        let plugin = match *credential {
            Credential::Sha1(_) => Plugin::NativePassword,
            Credential::Empty | Credential::Clear(_) => greeted,
        };
        let mut login = Self { credential, plugin, nonce: nonce.to_vec(), secure, state: State::Verdict };
        // A plugin of the two above answers every credential chosen for it.
        let answer = login.first_answer().unwrap_or_else(|_| Answer::empty());
        (login, answer)
    }

    /// The plugin that the answer at hand is for.
    pub fn plugin(&self) -> Plugin {
        self.plugin
    }

    /// Takes the payload of the server's next packet.
    ///
    /// # Errors
    ///
    /// [`LoginError`] when the server wants what the credential cannot give, or says what no server says.
    pub fn on_packet(mut self, payload: &[u8]) -> Result<Reply, LoginError> {
        match payload.first().copied() {
            Some(OkPacket::HEADER) => Ok(Reply::Accepted),
            Some(ErrPacket::HEADER) => Ok(Reply::Refused),
            Some(AUTH_SWITCH) => {
                let switch = AuthSwitch::parse(payload)?;
                self.plugin = Plugin::from_name(switch.plugin).ok_or_else(|| self.unfit(switch.plugin))?;
                self.nonce = switch.data.strip_suffix(&[0]).unwrap_or(switch.data).to_vec();
                if self.plugin == Plugin::Ed25519 {
                    self.nonce = switch.data.to_vec();
                }
                self.state = State::Verdict;
                Ok(Reply::Send(self.first_answer()?, self))
            }
            Some(MORE_DATA) => self.on_more(&payload[1..]),
            Some(got) => Err(Malformed::Header { expected: "a step of the authentication", got }.into()),
            None => Err(Malformed::Short { wanted: 1, left: 0 }.into()),
        }
    }

    fn on_more(mut self, data: &[u8]) -> Result<Reply, LoginError> {
        match (self.plugin, self.state, data) {
            (Plugin::CachingSha2, State::Verdict, [FAST_AUTHENTICATION_OK]) => Ok(Reply::Wait(self)),
            (Plugin::CachingSha2, State::Verdict, [FULL_AUTHENTICATION]) => {
                let answer = self.secret_or_key_request(CACHING_PUBLIC_KEY_REQUEST)?;
                Ok(Reply::Send(answer, self))
            }
            (Plugin::CachingSha2 | Plugin::Sha256, State::Key, pem) => {
                let cipher = encrypt(self.password()?, &self.nonce, pem)?;
                self.state = State::Verdict;
                Ok(Reply::Send(Answer::new(&cipher), self))
            }
            (_, _, data) => Err(Malformed::Field {
                expected: "a step of the authentication plugin",
                got: data.first().copied().map_or(0, u64::from),
            }
            .into()),
        }
    }

    fn first_answer(&mut self) -> Result<Answer, LoginError> {
        let empty = matches!(*self.credential, Credential::Empty);
        match self.plugin {
            Plugin::NativePassword | Plugin::CachingSha2 if empty => Ok(Answer::empty()),
            Plugin::NativePassword => {
                let nonce = self.short_nonce()?;
                let secret = match &*self.credential {
                    Credential::Sha1(secret) => secret.clone(),
                    Credential::Clear(password) => sha1(password),
                    Credential::Empty => return Ok(Answer::empty()),
                };
                Ok(Answer::new(&native_answer(nonce, &secret)))
            }
            Plugin::CachingSha2 => Ok(Answer::new(&sha2_answer(self.short_nonce()?, self.password()?))),
            Plugin::Sha256 if empty => Ok(Answer::new(&[0])),
            Plugin::Sha256 => self.secret_or_key_request(SHA256_PUBLIC_KEY_REQUEST),
            Plugin::Ed25519 if self.nonce.len() != ed25519::NONCE_LEN => {
                Err(LoginError::Nonce { wanted: ed25519::NONCE_LEN, got: self.nonce.len() })
            }
            Plugin::Ed25519 => Ok(Answer::new(&ed25519::sign(&self.nonce, self.password()?))),
            Plugin::ClearPassword if self.secure => Ok(Answer::terminated(self.password()?)),
            Plugin::ClearPassword => Err(LoginError::NeedsTls),
        }
    }

    fn short_nonce(&self) -> Result<&[u8], LoginError> {
        if self.nonce.len() == NONCE_LEN {
            Ok(&self.nonce)
        } else {
            Err(LoginError::Nonce { wanted: NONCE_LEN, got: self.nonce.len() })
        }
    }

    fn secret_or_key_request(&mut self, request: u8) -> Result<Answer, LoginError> {
        if self.secure {
            return Ok(Answer::terminated(self.password()?));
        }
        self.password()?;
        self.state = State::Key;
        Ok(Answer::new(&[request]))
    }

    fn password(&self) -> Result<&[u8], LoginError> {
        match &*self.credential {
            Credential::Clear(password) => Ok(password),
            Credential::Empty => Ok(&[]),
            Credential::Sha1(_) => Err(self.unfit(self.plugin.name().as_bytes())),
        }
    }

    fn unfit(&self, plugin: &[u8]) -> LoginError {
        let have = match *self.credential {
            Credential::Empty => "no password",
            Credential::Sha1(_) => "the SHA1 of the password",
            Credential::Clear(_) => "a password",
        };
        LoginError::Unfit { plugin: String::from_utf8_lossy(plugin).into_owned(), have }
    }
}

impl Answer {
    fn new(bytes: &[u8]) -> Self {
        Self(Zeroizing::new(bytes.to_vec()))
    }

    fn empty() -> Self {
        Self(Zeroizing::default())
    }

    fn terminated(password: &[u8]) -> Self {
        let mut bytes = Zeroizing::new(Vec::with_capacity(password.len() + 1));
        bytes.extend_from_slice(password);
        bytes.push(0);
        Self(bytes)
    }

    pub fn payload(&self) -> &[u8] {
        &self.0
    }
}

/// Shows no password.
impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Answer({} bytes)", self.0.len())
    }
}
