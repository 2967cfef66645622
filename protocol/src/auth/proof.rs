//! The proof by which MariaDB's clients trust a certificate that nobody has signed.

use sha2::{Digest, Sha256};

/// Length of the proof: a byte that says SHA256 and 64 hexadecimal digits.
pub const PROOF_LEN: usize = 65;

/// The text of the OK packet that proves to a client that the owner of the certificate knows its password.
///
/// MDEV-31855; `plugins/auth/my_auth.c` of MariaDB Connector/C checks it: SHA256 of what the plugin stores
/// (`stored`), the greeting's nonce and the SHA256 `fingerprint` of the certificate.
pub fn certificate_proof(stored: &[u8], nonce: &[u8; 20], fingerprint: &[u8; 32]) -> [u8; PROOF_LEN] {
    let hash = Sha256::new().chain_update(stored).chain_update(nonce).chain_update(fingerprint).finalize();
    let mut proof = [1; PROOF_LEN];
    for (digits, byte) in proof[1..].chunks_mut(2).zip(hash) {
        digits[0] = HEX[usize::from(byte >> 4)];
        digits[1] = HEX[usize::from(byte & 0xf)];
    }
    proof
}

const HEX: &[u8; 16] = b"0123456789ABCDEF";
