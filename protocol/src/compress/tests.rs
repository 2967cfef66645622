use proptest::prelude::*;

use super::*;

const ALGORITHMS: [Algorithm; 2] = [Algorithm::Zlib, Algorithm::Zstd { level: 3 }];

/// A `SELECT 1` as libmariadb sends it with compression on, and a body that it compressed.
#[test]
fn stored_and_compressed_bodies() {
    for algorithm in ALGORITHMS {
        check(
            algorithm,
            &[9, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 3, b'D', b'O', b' ', b'1'],
            Ok(b"\x05\0\0\0\x03DO 1"),
        );
        check(algorithm, &[0, 0, 0, 0, 0, 0, 0], Ok(b""));
        check(algorithm, &[0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 1, 0, 0, 0, b'x'], Ok(b"x"));
    }
    check(Algorithm::Zlib, &ZLIB_PACKET, Ok(&[b'a'; 60]));
}

#[test]
fn lengths_must_agree() {
    let error = Err(Malformed::Inflate("a zlib stream"));
    for (at, value) in [(4, 59), (4, 61), (0, 11), (0, 13), (7, 0), (10, 0)] {
        let mut packet = ZLIB_PACKET.to_vec();
        packet[at] = value;
        packet.push(0);
        check(Algorithm::Zlib, &packet, error);
    }
    check(Algorithm::Zstd { level: 3 }, &ZLIB_PACKET, Err(Malformed::Inflate("a zstd frame")));
    for algorithm in ALGORITHMS {
        for lie in [-1, 1] {
            let mut packet = compressed(algorithm, &[b'a'; 300]);
            let len = u16::from_le_bytes([packet[4], packet[5]]).wrapping_add_signed(lie);
            packet[4..6].copy_from_slice(&len.to_le_bytes());
            check(algorithm, &packet, Err(Malformed::Inflate(Decompressor::new(algorithm).inflater.what())));
        }
    }
}

#[test]
fn sequence_numbers() {
    let mut compressor = Compressor::new(Algorithm::Zlib);
    let mut out = Vec::new();
    compressor.restart(255);
    compressor.write(&[1], &mut out);
    compressor.write(&[2], &mut out);
    assert_eq!(out, [1, 0, 0, 255, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0, 0, 2]);
    let mut decompressor = Decompressor::new(Algorithm::Zlib);
    decompressor.read(&out[..8], &mut [0; 4]).expect("a stored packet");
    assert_eq!(decompressor.sequence(), 255);
}

#[test]
fn short_and_random_pieces_are_stored() {
    for algorithm in ALGORITHMS {
        assert_eq!(compressed(algorithm, &[b'a'; SHORTEST_COMPRESSED - 1]).len(), 56);
        assert!(compressed(algorithm, &[b'a'; SHORTEST_COMPRESSED]).len() < 50);
        let random: Vec<u8> = (0..100u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        assert_eq!(compressed(algorithm, &random).len(), COMPRESSED_HEADER_LEN + 100);
    }
}

/// What a peer declares costs nothing until it sends it.
#[test]
fn a_bomb_is_inflated_in_pieces() {
    for algorithm in ALGORITHMS {
        let plain = vec![0; 3 * PIECE_BYTES + 7];
        let packets = compressed(algorithm, &plain);
        let mut decompressor = Decompressor::new(algorithm);
        let (mut at, mut total) = (0, 0);
        let mut output = [1; 1000];
        while total < plain.len() {
            let moved = decompressor.read(&packets[at..], &mut output).expect("good packets");
            assert!(output[..moved.written].iter().all(|byte| *byte == 0));
            assert!(moved.written > 0, "stuck at {total}");
            at += moved.consumed;
            total += moved.written;
        }
        assert_eq!((at, total), (packets.len(), plain.len()));
    }
}

proptest! {
    #[test]
    fn what_goes_in_comes_out(
        plain in prop::collection::vec(prop::collection::vec(0u8..4, 0..400), 0..6),
        zstd: bool,
        piece in 1usize..300,
        room in 1usize..300,
    ) {
        let algorithm = ALGORITHMS[usize::from(zstd)];
        let mut compressor = Compressor::new(algorithm);
        let mut packets = Vec::new();
        for part in &plain {
            compressor.write(part, &mut packets);
        }
        prop_assert_eq!(inflate(algorithm, &packets, piece, room), Ok(plain.concat()));
    }

    #[test]
    fn junk_is_an_error_or_data(junk in prop::collection::vec(any::<u8>(), 0..400), zstd: bool) {
        let algorithm = ALGORITHMS[usize::from(zstd)];
        let _either = inflate(algorithm, &junk, 7, 50);
        let mut damaged = compressed(algorithm, &[b'a'; 400]);
        for (at, byte) in junk.iter().take(3).enumerate() {
            let at = (usize::from(*byte) + at * 100) % damaged.len();
            damaged[at] ^= byte;
        }
        let _either = inflate(algorithm, &damaged, 7, 50);
    }
}

#[track_caller]
fn check(algorithm: Algorithm, packets: &[u8], expected: Result<&[u8], Malformed>) {
    for piece in 1..=packets.len() {
        for room in [1, 3, 1000] {
            let inflated = inflate(algorithm, packets, piece, room);
            assert_eq!(inflated.as_deref().map_err(|error| *error), expected, "pieces of {piece}");
        }
    }
}

fn compressed(algorithm: Algorithm, plain: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    Compressor::new(algorithm).write(plain, &mut out);
    out
}

/// Feeds `packets` in pieces and takes the output in pieces.
fn inflate(algorithm: Algorithm, packets: &[u8], piece: usize, room: usize) -> Result<Vec<u8>, Malformed> {
    let mut decompressor = Decompressor::new(algorithm);
    let mut plain = Vec::new();
    let mut output = vec![0; room];
    for part in packets.chunks(piece) {
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

/// Sixty times the letter a.
const ZLIB_PACKET: [u8; 19] =
    [12, 0, 0, 0, 60, 0, 0, 0x78, 0x9c, 0x4b, 0x4c, 0x24, 0x1f, 0, 0, 0xb5, 0xc0, 0x16, 0xbd];
