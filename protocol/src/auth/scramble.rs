//! The hashes by which a password answers a nonce.

use sha1::{Digest, Sha1};
use sha2::Sha256;
use zeroize::Zeroizing;

/// SHA1 of the password, what mysql_native_password hides in its answer.
pub(super) fn sha1(bytes: &[u8]) -> Zeroizing<[u8; 20]> {
    Zeroizing::new(Sha1::digest(bytes).into())
}

/// The answer of mysql_native_password: `sha1 XOR SHA1(nonce, SHA1(sha1))`.
pub(super) fn native_answer(nonce: &[u8], sha1_of_password: &[u8; 20]) -> [u8; 20] {
    let stored = Sha1::digest(sha1_of_password);
    xor(sha1_of_password, &native_mask(nonce, &stored.into()))
}

/// Takes SHA1 of the password out of an answer, if it is right for what is `stored`.
pub(super) fn native_secret(
    nonce: &[u8],
    answer: &[u8; 20],
    stored: &[u8; 20],
) -> Option<Zeroizing<[u8; 20]>> {
    let secret = Zeroizing::new(xor(answer, &native_mask(nonce, stored)));
    let hashed: [u8; 20] = Sha1::digest(*secret).into();
    same(&hashed, stored).then_some(secret)
}

fn native_mask(nonce: &[u8], stored: &[u8; 20]) -> [u8; 20] {
    Sha1::new().chain_update(nonce).chain_update(stored).finalize().into()
}

/// The answer of caching_sha2_password: `SHA256(pw) XOR SHA256(SHA256(SHA256(pw)), nonce)`.
pub(super) fn sha2_answer(nonce: &[u8], password: &[u8]) -> [u8; 32] {
    let secret: [u8; 32] = Sha256::digest(password).into();
    let doubled: [u8; 32] = Sha256::digest(secret).into();
    xor(&secret, &sha2_mask(nonce, &doubled))
}

/// Whether an answer of caching_sha2_password is right for the password with this [`double_sha256`].
pub(super) fn sha2_matches(nonce: &[u8], answer: &[u8; 32], doubled: &[u8; 32]) -> bool {
    let secret = Zeroizing::new(xor(answer, &sha2_mask(nonce, doubled)));
    let hashed: [u8; 32] = Sha256::digest(*secret).into();
    same(&hashed, doubled)
}

/// SHA256 of SHA256 of the password: what the fast way of caching_sha2_password is checked by.
pub fn double_sha256(password: &[u8]) -> Zeroizing<[u8; 32]> {
    let secret: Zeroizing<[u8; 32]> = Zeroizing::new(Sha256::digest(password).into());
    Zeroizing::new(Sha256::digest(*secret).into())
}

fn sha2_mask(nonce: &[u8], doubled: &[u8; 32]) -> [u8; 32] {
    Sha256::new().chain_update(doubled).chain_update(nonce).finalize().into()
}

fn xor<const N: usize>(left: &[u8; N], right: &[u8; N]) -> [u8; N] {
    std::array::from_fn(|at| left[at] ^ right[at])
}

/// Compares without telling by its duration where the difference is.
pub(super) fn same(left: &[u8], right: &[u8]) -> bool {
    aws_lc_rs::constant_time::verify_slices_are_equal(left, right).is_ok()
}

/// The password with the nonce over it, as it goes into RSA: repeated as often as needed.
pub(super) fn veil(password: &mut [u8], nonce: &[u8]) {
    for (byte, mask) in password.iter_mut().zip(nonce.iter().cycle()) {
        *byte ^= mask;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONCE: &[u8; 20] = b"ab3XFH:ls6/-fKc<>hd2";

    #[test]
    fn native_gives_the_secret_back() {
        check_native(b"secret", b"secret", true);
        check_native("schlüssel".as_bytes(), "schlüssel".as_bytes(), true);
        check_native(b"secret", b"Secret", false);
        check_native(b"", b"secret", false);
    }

    #[track_caller]
    fn check_native(typed: &[u8], right: &[u8], fits: bool) {
        let stored: [u8; 20] = Sha1::digest(*sha1(right)).into();
        let answer = native_answer(NONCE, &sha1(typed));
        let secret = native_secret(NONCE, &answer, &stored);
        assert_eq!(secret.is_some(), fits);
        assert!(secret.is_none_or(|secret| secret == sha1(right)));
        assert_eq!(Some(answer), mysql_common::scramble::scramble_native(NONCE, typed).or(Some(answer)));
    }

    #[test]
    fn sha2_agrees_with_another_implementation() {
        check_sha2(b"secret", b"secret", true);
        check_sha2(b"secret", b"secret ", false);
    }

    #[track_caller]
    fn check_sha2(typed: &[u8], right: &[u8], fits: bool) {
        let answer = sha2_answer(NONCE, typed);
        assert_eq!(Some(answer), mysql_common::scramble::scramble_sha256(NONCE, typed));
        assert_eq!(sha2_matches(NONCE, &answer, &double_sha256(right)), fits);
    }
}
