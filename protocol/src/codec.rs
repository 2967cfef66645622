//! Checked reading and plain writing of the protocol's basic types.

use thiserror::Error;

/// Bytes that are not what the protocol says they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Malformed {
    #[error("expected {wanted} more bytes, got {left}")]
    Short { wanted: usize, left: usize },
    #[error("expected a length-encoded integer, got 0x{0:02x}")]
    LengthPrefix(u8),
    #[error("expected a string that ends with a zero byte")]
    Unterminated,
    /// The first byte of a packet is not one that may stand there.
    #[error("expected {expected}, got 0x{got:02x}")]
    Header { expected: &'static str, got: u8 },
    /// A field with a value that the protocol does not allow.
    #[error("expected {expected}, got {got}")]
    Field { expected: &'static str, got: u64 },
    #[error("{what} of {len} bytes is longer than {limit}")]
    TooLong { what: &'static str, len: u64, limit: usize },
    #[error("expected {0} that can be inflated to its declared length")]
    Inflate(&'static str),
    #[error("{len} bytes too many after {what}")]
    Trailing { what: &'static str, len: usize },
}

/// Reads from the front of a byte slice; never beyond its end.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    /// How many bytes are left.
    pub fn remaining(&self) -> usize {
        self.bytes.len()
    }

    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Looks at the next byte without taking it.
    pub fn peek(&self) -> Option<u8> {
        self.bytes.first().copied()
    }

    /// Takes the next `count` bytes.
    ///
    /// # Errors
    ///
    /// [`Malformed::Short`] when fewer are left; nothing is taken then.
    pub fn take(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let split = self.bytes.split_at_checked(count);
        let (taken, rest) = split.ok_or(Malformed::Short { wanted: count, left: self.bytes.len() })?;
        self.bytes = rest;
        Ok(taken)
    }

    /// Takes the next `N` bytes as an array.
    ///
    /// # Errors
    ///
    /// [`Malformed::Short`] when fewer are left; nothing is taken then.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let split = self.bytes.split_first_chunk();
        let (taken, rest) = split.ok_or(Malformed::Short { wanted: N, left: self.bytes.len() })?;
        self.bytes = rest;
        Ok(*taken)
    }

    /// Takes everything that is left.
    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.bytes)
    }

    /// # Errors
    ///
    /// [`Malformed::Short`] at the end of the bytes.
    pub fn u8(&mut self) -> Result<u8, Malformed> {
        self.array::<1>().map(|[byte]| byte)
    }

    /// # Errors
    ///
    /// [`Malformed::Short`] when fewer than two bytes are left.
    pub fn u16(&mut self) -> Result<u16, Malformed> {
        self.array().map(u16::from_le_bytes)
    }

    /// # Errors
    ///
    /// [`Malformed::Short`] when fewer than three bytes are left.
    pub fn u24(&mut self) -> Result<u32, Malformed> {
        self.array().map(|[low, middle, high]| u32::from_le_bytes([low, middle, high, 0]))
    }

    /// # Errors
    ///
    /// [`Malformed::Short`] when fewer than four bytes are left.
    pub fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_le_bytes)
    }

    /// # Errors
    ///
    /// [`Malformed::Short`] when fewer than eight bytes are left.
    pub fn u64(&mut self) -> Result<u64, Malformed> {
        self.array().map(u64::from_le_bytes)
    }

    /// Takes a length-encoded integer; 0xfb (NULL) and 0xff are not integers.
    ///
    /// # Errors
    ///
    /// [`Malformed::Short`] or [`Malformed::LengthPrefix`].
    pub fn lenenc(&mut self) -> Result<u64, Malformed> {
        match self.u8()? {
            LENENC_U16 => self.u16().map(u64::from),
            LENENC_U24 => self.u24().map(u64::from),
            LENENC_U64 => self.u64(),
            prefix @ (LENENC_NULL | LENENC_ERROR) => Err(Malformed::LengthPrefix(prefix)),
            byte => Ok(u64::from(byte)),
        }
    }

    /// Takes a length-encoded integer and as many bytes.
    ///
    /// # Errors
    ///
    /// [`Malformed::Short`] or [`Malformed::LengthPrefix`].
    pub fn lenenc_bytes(&mut self) -> Result<&'a [u8], Malformed> {
        let len = self.lenenc()?;
        self.take(usize::try_from(len).unwrap_or(usize::MAX))
    }

    /// Takes the bytes up to the next zero byte, and that byte.
    ///
    /// # Errors
    ///
    /// [`Malformed::Unterminated`] when there is no zero byte; nothing is taken then.
    pub fn nul_terminated(&mut self) -> Result<&'a [u8], Malformed> {
        let end = self.bytes.iter().position(|byte| *byte == 0).ok_or(Malformed::Unterminated)?;
        let text = &self.bytes[..end];
        self.bytes = &self.bytes[end + 1..];
        Ok(text)
    }
}

pub fn put_u16(out: &mut Vec<u8>, value: u16) {
    out.extend_from_slice(&value.to_le_bytes());
}

pub fn put_u32(out: &mut Vec<u8>, value: u32) {
    out.extend_from_slice(&value.to_le_bytes());
}

/// Writes a length-encoded integer in its shortest form.
pub fn put_lenenc(out: &mut Vec<u8>, value: u64) {
    let bytes = value.to_le_bytes();
    match value {
        0..=0xfa => out.push(bytes[0]),
        0xfb..=0xffff => {
            out.push(LENENC_U16);
            out.extend_from_slice(&bytes[..2]);
        }
        0x1_0000..=0xff_ffff => {
            out.push(LENENC_U24);
            out.extend_from_slice(&bytes[..3]);
        }
        0x100_0000..=u64::MAX => {
            out.push(LENENC_U64);
            out.extend_from_slice(&bytes);
        }
    }
}

/// Writes the length of `bytes` as a length-encoded integer, and the bytes.
pub fn put_lenenc_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_lenenc(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Writes `bytes` and a zero byte; a zero byte inside ends the string early for the reader.
pub fn put_nul_terminated(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(bytes);
    out.push(0);
}

const LENENC_NULL: u8 = 0xfb;
const LENENC_U16: u8 = 0xfc;
const LENENC_U24: u8 = 0xfd;
const LENENC_U64: u8 = 0xfe;
const LENENC_ERROR: u8 = 0xff;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn length_encoded_integers() {
        check_lenenc(&[0], Ok(0));
        check_lenenc(&[0xfa], Ok(0xfa));
        check_lenenc(&[0xfc, 0xfb, 0], Ok(0xfb));
        check_lenenc(&[0xfc, 0xff, 0xff], Ok(0xffff));
        check_lenenc(&[0xfd, 0, 0, 1], Ok(0x1_0000));
        check_lenenc(&[0xfd, 0xff, 0xff, 0xff], Ok(0xff_ffff));
        check_lenenc(&[0xfe, 0, 0, 0, 1, 0, 0, 0, 0], Ok(0x100_0000));
        check_lenenc(&[0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], Ok(u64::MAX));
        check_lenenc(&[0xfb], Err(Malformed::LengthPrefix(0xfb)));
        check_lenenc(&[0xff, 0, 0], Err(Malformed::LengthPrefix(0xff)));
        check_lenenc(&[], Err(Malformed::Short { wanted: 1, left: 0 }));
        check_lenenc(&[0xfc, 1], Err(Malformed::Short { wanted: 2, left: 1 }));
        check_lenenc(&[0xfd, 1, 2], Err(Malformed::Short { wanted: 3, left: 2 }));
        check_lenenc(&[0xfe, 1, 2, 3, 4, 5, 6, 7], Err(Malformed::Short { wanted: 8, left: 7 }));
    }

    #[track_caller]
    fn check_lenenc(bytes: &[u8], expected: Result<u64, Malformed>) {
        assert_eq!(Reader::new(bytes).lenenc(), expected, "{bytes:02x?}");
        if let Ok(value) = expected {
            let mut out = Vec::new();
            put_lenenc(&mut out, value);
            assert_eq!(out, bytes);
        }
    }

    #[test]
    fn strings() {
        let mut reader = Reader::new(b"\x02abcd\0e");
        assert_eq!(reader.lenenc_bytes(), Ok(&b"ab"[..]));
        assert_eq!(reader.nul_terminated(), Ok(&b"cd"[..]));
        assert_eq!(reader.nul_terminated(), Err(Malformed::Unterminated));
        assert_eq!(reader.take(2), Err(Malformed::Short { wanted: 2, left: 1 }));
        assert_eq!(reader.rest(), b"e");
        assert!(reader.is_empty());
        // A length that no memory holds is only a length.
        let mut reader = Reader::new(&[0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]);
        assert!(reader.lenenc_bytes().is_err());
    }

    proptest! {
        #[test]
        fn what_is_put_is_read(a: u16, b in 0u32..0x100_0000, c: u32, d: u64, e: u64, f: Vec<u8>, g in "[^\0]*") {
            let mut out = Vec::new();
            put_u16(&mut out, a);
            out.extend_from_slice(&b.to_le_bytes()[..3]);
            put_u32(&mut out, c);
            out.extend_from_slice(&d.to_le_bytes());
            put_lenenc(&mut out, e);
            put_lenenc_bytes(&mut out, &f);
            put_nul_terminated(&mut out, g.as_bytes());
            let read = |mut reader: Reader<'_>| {
                let numbers = (reader.u16()?, reader.u24()?, reader.u32()?, reader.u64()?, reader.lenenc()?);
                Ok((numbers, reader.lenenc_bytes()?.to_vec(), reader.nul_terminated()?.to_vec()))
            };
            prop_assert_eq!(read(Reader::new(&out)), Ok(((a, b, c, d, e), f, g.into_bytes())));
            for len in 0..out.len() {
                let cut: Result<_, Malformed> = read(Reader::new(&out[..len]));
                prop_assert!(cut.is_err());
            }
        }
    }
}
