//! The key pair by which a password crosses a connection without TLS.

use std::fmt;

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rsa::{
    KeySize, OAEP_SHA1_MGF1SHA1, OaepPrivateDecryptingKey, OaepPublicEncryptingKey, PrivateDecryptingKey,
    PublicEncryptingKey,
};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use thiserror::Error;
use zeroize::Zeroizing;

use super::scramble::veil;

/// Our own pair, made anew at each start: clients ask for the public half.
pub struct RsaKey {
    private: OaepPrivateDecryptingKey,
    public_pem: Vec<u8>,
}

/// Why RSA could not be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum RsaKeyError {
    #[error("expected a public key in PEM form, got something else")]
    NotPem,
    #[error("expected an RSA key of 2048 to 8192 bits, got another key")]
    Unsuitable,
    #[error("a key of {bits} bits is too short for a password of {password} bytes")]
    TooShort { bits: usize, password: usize },
    #[error("the key pair could not be made")]
    Generation,
}

impl RsaKey {
    /// Makes a key of 2048 bits. Heavy: a tenth of a second of work.
    ///
    /// # Errors
    ///
    /// [`RsaKeyError::Generation`] when the library fails.
    pub fn generate() -> Result<Self, RsaKeyError> {
        let failed = |_unspecified| RsaKeyError::Generation;
        let private = PrivateDecryptingKey::generate(KeySize::Rsa2048).map_err(failed)?;
        let der = private.public_key().as_der().map_err(failed)?;
        let public_pem = to_pem(der.as_ref());
        Ok(Self { private: OaepPrivateDecryptingKey::new(private).map_err(failed)?, public_pem })
    }

    /// The public half as it is sent to clients.
    pub fn public_pem(&self) -> &[u8] {
        &self.public_pem
    }

    /// Takes the password out of what a client has encrypted. Heavy: a millisecond of work.
    pub fn decrypt(&self, cipher: &[u8], nonce: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let mut plain = Zeroizing::new(vec![0; self.private.min_output_size()]);
        let len = self.private.decrypt(&OAEP_SHA1_MGF1SHA1, cipher, &mut plain, None).ok()?.len();
        plain.truncate(len);
        veil(&mut plain, nonce);
        (plain.pop() == Some(0)).then_some(plain)
    }
}

impl fmt::Debug for RsaKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RsaKey(..)")
    }
}

/// Encrypts a password for the server with the public key that it has sent.
pub(super) fn encrypt(password: &[u8], nonce: &[u8], public_pem: &[u8]) -> Result<Vec<u8>, RsaKeyError> {
    let der = from_pem(public_pem).ok_or(RsaKeyError::NotPem)?;
    let key = PublicEncryptingKey::from_der(&der).map_err(|_rejected| RsaKeyError::Unsuitable)?;
    let bits = key.key_size_bits();
    let key = OaepPublicEncryptingKey::new(key).map_err(|_unspecified| RsaKeyError::Unsuitable)?;
    let mut plain = Zeroizing::new(Vec::with_capacity(password.len() + 1));
    plain.extend_from_slice(password);
    plain.push(0);
    veil(&mut plain, nonce);
    let mut cipher = vec![0; key.ciphertext_size()];
    let len = key
        .encrypt(&OAEP_SHA1_MGF1SHA1, &plain, &mut cipher, None)
        .map_err(|_unspecified| RsaKeyError::TooShort { bits, password: password.len() })?
        .len();
    cipher.truncate(len);
    Ok(cipher)
}

fn to_pem(der: &[u8]) -> Vec<u8> {
    let encoded = STANDARD.encode(der);
    let mut pem = Vec::with_capacity(encoded.len() * 66 / 64 + PEM_BEGIN.len() + PEM_END.len() + 4);
    pem.extend_from_slice(PEM_BEGIN);
    pem.push(b'\n');
    for line in encoded.as_bytes().chunks(PEM_LINE_LEN) {
        pem.extend_from_slice(line);
        pem.push(b'\n');
    }
    pem.extend_from_slice(PEM_END);
    pem.push(b'\n');
    pem
}

fn from_pem(pem: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(pem).ok()?;
    let begin = text.find(std::str::from_utf8(PEM_BEGIN).ok()?)? + PEM_BEGIN.len();
    let end = text.find(std::str::from_utf8(PEM_END).ok()?)?;
    let body: String = text.get(begin..end)?.split_ascii_whitespace().collect();
    STANDARD.decode(body).ok()
}

const PEM_BEGIN: &[u8] = b"-----BEGIN PUBLIC KEY-----";
const PEM_END: &[u8] = b"-----END PUBLIC KEY-----";
const PEM_LINE_LEN: usize = 64;
