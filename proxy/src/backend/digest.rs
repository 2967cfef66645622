//! What two answers to a statement must have in common for the second to take the place of the first.

use std::hash::Hasher;

use twox_hash::XxHash64;

/// Takes in an answer piece by piece: columns and rows as bytes, and of each end what the client can see of it.
///
/// Left out are status flags and trackers, which tell of the server and not of the statement.
#[derive(Clone, Debug, Default)]
pub struct AnswerDigest(XxHash64);

impl AnswerDigest {
    /// Packets of columns and rows, cut anywhere.
    pub fn packets(&mut self, bytes: &[u8]) {
        self.0.write(bytes);
    }

    /// A result that ended well; `row_count` is -1 after rows.
    pub fn end(&mut self, row_count: i64, insert_id: u64, warnings: u16) {
        self.0.write(&row_count.to_le_bytes());
        self.0.write(&insert_id.to_le_bytes());
        self.0.write(&warnings.to_le_bytes());
    }

    /// A result that ended in an error.
    pub fn failed(&mut self, code: u16) {
        self.0.write(&code.to_le_bytes());
    }

    pub fn value(&self) -> u64 {
        self.0.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_however_it_is_cut_and_different_in_what_counts() {
        let value = |pieces: &[&[u8]], (rows, id, warnings)| {
            let mut digest = AnswerDigest::default();
            pieces.iter().for_each(|piece| digest.packets(piece));
            digest.end(rows, id, warnings);
            digest.value()
        };
        let whole = value(&[b"\x01\0\0\x01\x03abc, a longer row of some bytes"], (1, 2, 0));
        assert_eq!(whole, value(&[b"\x01\0", b"\0\x01\x03abc, a longer r", b"ow of some bytes"], (1, 2, 0)));
        assert_ne!(whole, value(&[b"\x01\0\0\x01\x03abd, a longer row of some bytes"], (1, 2, 0)));
        for end in [(2, 2, 0), (1, 3, 0), (1, 2, 1)] {
            assert_ne!(whole, value(&[b"\x01\0\0\x01\x03abc, a longer row of some bytes"], end));
        }
        let mut failed = AnswerDigest::default();
        failed.failed(1062);
        assert_ne!(failed.value(), AnswerDigest::default().value());
    }
}
