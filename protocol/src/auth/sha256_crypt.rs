//! The hash that MySQL stores for caching_sha2_password and sha256_password.
//!
//! It is Ulrich Drepper's SHA-crypt ("Unix crypt using SHA-256", section 2) with a salt of up to 20 bytes that may
//! hold any byte, as in MySQL's `mysys/crypt_genhash_impl.cc`.

use std::fmt;

use sha2::{Digest, Sha256};
use zeroize::{ZeroizeOnDrop, Zeroizing};

use super::scramble::same;

/// A parsed `$A$005$...` or `$5$...`.
#[derive(Clone, PartialEq, Eq, ZeroizeOnDrop)]
pub struct Sha256Crypt {
    salt: Vec<u8>,
    rounds: u32,
    encoded: [u8; ENCODED_LEN],
}

/// Says no more than how slow it is: hashes can be attacked offline.
impl fmt::Debug for Sha256Crypt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sha256Crypt({} rounds)", self.rounds)
    }
}

impl Sha256Crypt {
    /// Reads what caching_sha2_password stores: `$A$`, rounds / 1000 in three hexadecimal digits, `$`, 20 bytes of
    /// salt, 43 characters of hash.
    pub fn parse_caching(stored: &[u8]) -> Option<Self> {
        let rest = stored.strip_prefix(b"$A$")?;
        let (digits, rest) = rest.split_first_chunk::<3>()?;
        let thousands = u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
        let rest = rest.strip_prefix(b"$")?;
        let (salt, encoded) = rest.split_at_checked(CACHING_SALT_LEN)?;
        Self::new(salt, thousands * 1000, encoded)
    }

    /// Reads what sha256_password stores: `$5$`, perhaps `rounds=N$`, 20 bytes of salt, `$`, 43 characters of hash.
    pub fn parse_plain(stored: &[u8]) -> Option<Self> {
        let rest = stored.strip_prefix(b"$5$")?;
        let (rounds, rest) = match rest.strip_prefix(b"rounds=") {
            Some(counted) => {
                let end = counted.iter().position(|byte| *byte == b'$')?;
                (std::str::from_utf8(&counted[..end]).ok()?.parse().ok()?, &counted[end + 1..])
            }
            None => (DEFAULT_ROUNDS, rest),
        };
        let salt_len = rest.len().checked_sub(ENCODED_LEN + 1)?;
        let (salt, encoded) = rest.split_at(salt_len);
        Self::new(salt, rounds, encoded.strip_prefix(b"$")?)
    }

    fn new(salt: &[u8], rounds: u32, encoded: &[u8]) -> Option<Self> {
        let sane = (MIN_ROUNDS..=MAX_ROUNDS).contains(&rounds) && salt.len() <= MAX_SALT_LEN;
        sane.then_some(Self { salt: salt.to_vec(), rounds, encoded: encoded.try_into().ok()? })
    }

    /// What no password fits, for accounts that do not exist: it takes as long to say so.
    pub fn decoy(salt: [u8; CACHING_SALT_LEN]) -> Self {
        Self { salt: salt.to_vec(), rounds: DEFAULT_ROUNDS, encoded: [b'!'; ENCODED_LEN] }
    }

    /// Whether this is the hash of `password`. Heavy: milliseconds of work.
    pub fn matches(&self, password: &[u8]) -> bool {
        let digest = digest(password, &self.salt, self.rounds);
        same(&encode(&digest), &self.encoded)
    }
}

/// The steps of the specification, under its names.
fn digest(password: &[u8], salt: &[u8], rounds: u32) -> Zeroizing<[u8; 32]> {
    let alternate = sha256(&[password, salt, password]);
    let mut first = Sha256::new_with_prefix(password).chain_update(salt);
    first.update(&*stretch(&alternate, password.len()));
    let mut bits = password.len();
    while bits > 0 {
        first.update(if bits & 1 == 1 { &alternate[..] } else { password });
        bits >>= 1;
    }
    let mut current: Zeroizing<[u8; 32]> = Zeroizing::new(first.finalize().into());

    let mut repeated = Sha256::new();
    for _ in 0..password.len() {
        repeated.update(password);
    }
    let p = stretch(&repeated.finalize().into(), password.len());
    let mut salted = Sha256::new();
    for _ in 0..16 + usize::from(current[0]) {
        salted.update(salt);
    }
    let s = stretch(&salted.finalize().into(), salt.len());

    for round in 0..rounds {
        let odd = round % 2 == 1;
        let salt_now: &[u8] = if round % 3 == 0 { &[] } else { &s };
        let password_now: &[u8] = if round % 7 == 0 { &[] } else { &p };
        let (left, right): (&[u8], &[u8]) = if odd { (&p, &current[..]) } else { (&current[..], &p) };
        current = sha256(&[left, salt_now, password_now, right]);
    }
    current
}

fn sha256(parts: &[&[u8]]) -> Zeroizing<[u8; 32]> {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part);
    }
    Zeroizing::new(hash.finalize().into())
}

/// The first `len` bytes of the digest repeated.
fn stretch(digest: &[u8; 32], len: usize) -> Zeroizing<Vec<u8>> {
    Zeroizing::new(digest.iter().copied().cycle().take(len).collect())
}

/// SHA-crypt's own base 64: its own alphabet, its own order of the bytes.
fn encode(digest: &[u8; 32]) -> [u8; ENCODED_LEN] {
    let mut out = [0; ENCODED_LEN];
    let mut at = 0;
    let mut put = |bytes: [u8; 3], count: usize| {
        let mut word = u32::from_be_bytes([0, bytes[0], bytes[1], bytes[2]]);
        for _ in 0..count {
            out[at] = ALPHABET[(word & 0x3f) as usize];
            word >>= 6;
            at += 1;
        }
    };
    // Each group of three is the last one turned by one place: (0, 10, 20), (21, 1, 11), (12, 22, 2), ...
    let mut group = [0, 10, 20];
    for _ in 0..10 {
        put(group.map(|index| digest[index]), 4);
        group = [group[2] + 1, group[0] + 1, group[1] + 1];
    }
    put([0, digest[31], digest[30]], 3);
    out
}

const ALPHABET: &[u8; 64] = b"./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const ENCODED_LEN: usize = 43;
const CACHING_SALT_LEN: usize = 20;
const MAX_SALT_LEN: usize = 20;
const DEFAULT_ROUNDS: u32 = 5000;
const MIN_ROUNDS: u32 = 1000;
/// What three hexadecimal digits of thousands can say.
const MAX_ROUNDS: u32 = 0xfff * 1000;

#[cfg(test)]
mod tests {
    use super::*;

    /// The inputs of the specification, section 5; the results are those of the C library's crypt(3).
    #[test]
    fn specification() {
        check_digest("Hello world!", "saltstring", 5000, "5B8vYYiY.CVt1RlTTf8KbXBH3hsxY/GNooZaBBGWEc5");
        check_digest(
            "Hello world!",
            "saltstringsaltst",
            10_000,
            "3xv.VbSHBb41AL9AvLeujZkZRBAwqFMz2.opqey6IcA",
        );
        check_digest(
            "a very much longer text to encrypt.  This one even stretches over morethan one line.",
            "anotherlongsalts",
            1400,
            "Rx.j8H.h8HjEDGomFU8bDkXm3XIUnzyxf12oP84Bnq1",
        );
        check_digest(
            "we have a short salt string but not a short password",
            "short",
            77_777,
            "JiO1O3ZpDAxGJeaDIuqCoEFysAe1mZNJRs3pw0KQRd/",
        );
        check_digest(
            "a short string",
            "asaltof16chars..",
            123_456,
            "gP3VQ/6X7UUEW3HkBn2w1/Ptq2jxPyzV/cZKmF/wJvD",
        );
    }

    #[track_caller]
    fn check_digest(password: &str, salt: &str, rounds: u32, expected: &str) {
        let found = encode(&digest(password.as_bytes(), salt.as_bytes(), rounds));
        assert_eq!(std::str::from_utf8(&found), Ok(expected));
    }

    /// What MySQL 9.7 has stored.
    #[test]
    fn stored_by_a_server() {
        let caching =
            b"$A$00A$\x7fpd\x17tf:(+\x04Q\x17Pn,\x1dE\x01:\x06hG56C80TTe1bLBXwUNc4YIFSTyPrwFgpOg0N/DtEAZ9";
        check_stored(Sha256Crypt::parse_caching(caching), b"pw-c1");
        let plain = b"$5$\x1c\x7f\\uZ94WN>zb_\x1br`u\x0eOh$L2MvXhhjH5Z9Pxistvp2sonURhXwExMV2v5GCHmrfD1";
        check_stored(Sha256Crypt::parse_plain(plain), b"pw-s2");
    }

    #[track_caller]
    fn check_stored(stored: Option<Sha256Crypt>, password: &[u8]) {
        let stored = stored.expect("a hash");
        assert!(stored.matches(password));
        assert!(!stored.matches(b"pw-c2"));
        assert!(!stored.matches(b""));
    }

    #[test]
    fn other_texts_are_refused() {
        for text in [
            &b""[..],
            b"$A$005$short",
            b"$A$zzz$aaaaaaaaaaaaaaaaaaaaddddddddddddddddddddddddddddddddddddddddddd",
            b"$A$000$aaaaaaaaaaaaaaaaaaaaddddddddddddddddddddddddddddddddddddddddddd",
            b"$A$005$aaaaaaaaaaaaaaaaaaaadddddddddddddddddddddddddddddddddddddddddddd",
            b"$A$005$aaaaaaaaaaaaaaaaaaaadddddddddddddddddddddddddddddddddddddddddd",
        ] {
            assert_eq!(Sha256Crypt::parse_caching(text), None);
            assert_eq!(Sha256Crypt::parse_plain(text), None);
        }
    }
}
