//! The compressed protocol.

use pointsman_protocol::codec::Malformed;
use pointsman_protocol::compress::{Algorithm, Compressor, Decompressor};

use crate::option;

/// Packets inflate to the same bytes however they are cut, and what was compressed comes out again.
pub fn check(data: &[u8]) {
    let (chosen, rest) = option(data);
    let (piece, bytes) = option(rest);
    let algorithm = if chosen & 1 == 0 { Algorithm::Zlib } else { Algorithm::Zstd { level: 1 } };
    let piece = usize::from(piece).max(1);
    if chosen & 2 == 0 {
        // Damaged packets may differ in how far they are read before the damage shows.
        let (whole, pieces) =
            (inflate(algorithm, bytes, bytes.len(), 4096), inflate(algorithm, bytes, piece, 100));
        assert_eq!(whole.is_ok(), pieces.is_ok());
        if let (Ok(whole), Ok(pieces)) = (whole, pieces) {
            assert_eq!(whole, pieces);
        }
    } else {
        let mut packets = Vec::new();
        let mut compressor = Compressor::new(algorithm);
        for part in bytes.chunks(piece * 8) {
            compressor.write(part, &mut packets);
        }
        assert_eq!(inflate(algorithm, &packets, piece, 512), Ok(bytes.to_vec()));
    }
}

fn inflate(algorithm: Algorithm, packets: &[u8], piece: usize, room: usize) -> Result<Vec<u8>, Malformed> {
    let mut decompressor = Decompressor::new(algorithm);
    let (mut plain, mut output) = (Vec::new(), vec![0; room]);
    for part in packets.chunks(piece.max(1)) {
        let mut rest = part;
        loop {
            let moved = decompressor.read(rest, &mut output)?;
            plain.extend_from_slice(&output[..moved.written]);
            rest = &rest[moved.consumed..];
            if moved.written < room {
                break;
            }
        }
        assert!(rest.is_empty(), "input is left although there was room");
    }
    Ok(plain)
}
