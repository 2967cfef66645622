//! Packet frames: three bytes of payload length, one sequence number, the payload.
//!
//! A payload of [`MAX_PAYLOAD`] bytes says that the next packet continues it, so an exact multiple ends with an
//! empty packet.

/// Length of a frame header.
pub const HEADER_LEN: usize = 4;
/// Longest payload of one frame; a payload of this length is continued by the next frame.
pub const MAX_PAYLOAD: usize = 0xff_ffff;

/// The header in front of every payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Payload length in bytes, at most [`MAX_PAYLOAD`].
    pub len: usize,
    pub sequence: u8,
}

impl Header {
    /// Reads the header at the start of `bytes`; none when fewer than [`HEADER_LEN`] are there.
    #[inline]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let &[low, middle, high, sequence] = bytes.first_chunk::<HEADER_LEN>()?;
        Some(Self { len: u32::from_le_bytes([low, middle, high, 0]) as usize, sequence })
    }

    /// The header as it goes over the wire. A length above [`MAX_PAYLOAD`] has no such form and is cut.
    pub fn to_bytes(self) -> [u8; HEADER_LEN] {
        debug_assert!(self.len <= MAX_PAYLOAD, "a frame holds at most {MAX_PAYLOAD} bytes, got {}", self.len);
        let [low, middle, high, ..] = self.len.to_le_bytes();
        [low, middle, high, self.sequence]
    }

    /// Header and payload together.
    pub fn frame_len(self) -> usize {
        HEADER_LEN + self.len
    }

    /// Whether the next frame goes on with this payload.
    pub fn continues(self) -> bool {
        self.len == MAX_PAYLOAD
    }
}

/// Appends `payload` in as many frames as it needs and returns the sequence number after the last.
pub fn write_packet(out: &mut Vec<u8>, sequence: u8, payload: &[u8]) -> u8 {
    let mut sequence = sequence;
    let mut rest = payload;
    loop {
        let (piece, later) = rest.split_at(rest.len().min(MAX_PAYLOAD));
        out.extend_from_slice(&Header { len: piece.len(), sequence }.to_bytes());
        out.extend_from_slice(piece);
        sequence = sequence.wrapping_add(1);
        rest = later;
        if piece.len() < MAX_PAYLOAD {
            return sequence;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers() {
        check(&[], None);
        check(&[1, 0, 0], None);
        check(&[1, 0, 0, 0], Some(Header { len: 1, sequence: 0 }));
        check(&[1, 2, 3, 4, 5], Some(Header { len: 0x03_0201, sequence: 4 }));
        check(&[0xff, 0xff, 0xff, 0xff], Some(Header { len: MAX_PAYLOAD, sequence: 255 }));
    }

    #[track_caller]
    fn check(bytes: &[u8], expected: Option<Header>) {
        assert_eq!(Header::parse(bytes), expected);
        if let Some(header) = expected {
            assert_eq!(header.to_bytes(), bytes[..HEADER_LEN]);
        }
    }

    #[test]
    fn long_payloads_are_split() {
        check_split(0, &[0]);
        check_split(5, &[5]);
        check_split(MAX_PAYLOAD - 1, &[MAX_PAYLOAD - 1]);
        check_split(MAX_PAYLOAD, &[MAX_PAYLOAD, 0]);
        check_split(MAX_PAYLOAD + 1, &[MAX_PAYLOAD, 1]);
        check_split(2 * MAX_PAYLOAD, &[MAX_PAYLOAD, MAX_PAYLOAD, 0]);
    }

    #[track_caller]
    fn check_split(len: usize, frames: &[usize]) {
        let mut out = Vec::new();
        let next = write_packet(&mut out, 254, &vec![7; len]);
        assert_eq!(next, 254u8.wrapping_add(frames.len() as u8));
        let mut at = 0;
        for (index, frame) in frames.iter().enumerate() {
            let header = Header::parse(&out[at..]).expect("a whole header");
            assert_eq!(header, Header { len: *frame, sequence: 254u8.wrapping_add(index as u8) });
            assert_eq!(header.continues(), index + 1 < frames.len());
            at += header.frame_len();
        }
        assert_eq!(at, out.len());
    }
}
