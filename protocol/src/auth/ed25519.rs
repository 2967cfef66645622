//! MariaDB's ed25519: signatures whose secret is the password's SHA512.
//!
//! RFC 8032 hashes a random seed into the two halves of the expanded secret key; MariaDB hashes the password
//! (`plugin/auth_ed25519/ref10/sign.c`). Everything else is Ed25519 as it stands.

use ed25519_dalek::hazmat::{ExpandedSecretKey, raw_sign};
use ed25519_dalek::{Signature, VerifyingKey};
use sha2::{Digest, Sha512};
use zeroize::Zeroizing;

/// Length of the nonce that a server sends for this plugin.
pub(super) const NONCE_LEN: usize = 32;
/// Length of the answer.
pub(super) const SIGNATURE_LEN: usize = 64;

/// The answer to a nonce.
pub(super) fn sign(nonce: &[u8], password: &[u8]) -> [u8; SIGNATURE_LEN] {
    let secret = expand(password);
    raw_sign::<Sha512>(&secret, nonce, &VerifyingKey::from(&secret)).to_bytes()
}

/// Whether `answer` is `nonce` signed by the owner of `public_key`.
pub(super) fn verify(public_key: &[u8; 32], nonce: &[u8], answer: &[u8; SIGNATURE_LEN]) -> bool {
    VerifyingKey::from_bytes(public_key)
        .is_ok_and(|key| key.verify_strict(nonce, &Signature::from_bytes(answer)).is_ok())
}

/// What the server stores for a password.
pub(super) fn public_key(password: &[u8]) -> [u8; 32] {
    VerifyingKey::from(&expand(password)).to_bytes()
}

fn expand(password: &[u8]) -> ExpandedSecretKey {
    let hash: Zeroizing<[u8; 64]> = Zeroizing::new(Sha512::digest(password).into());
    ExpandedSecretKey::from_bytes(&hash)
}
