//! The compressed protocol: ordinary frames as a byte stream, cut into compressed packets.
//!
//! A compressed packet has a header of seven bytes (length of the body, sequence number, length of the inflated
//! body) and a body that is one complete zlib stream or zstd frame. An inflated length of 0 means that the body is
//! stored as it is. The sequence numbers are their own and restart with each command, as those of the frames do.

use std::fmt;

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};
use zstd::stream::raw::{DParameter, Decoder, InBuffer, Operation, OutBuffer};

use crate::codec::Malformed;

/// Length of a compressed packet's header.
pub const COMPRESSED_HEADER_LEN: usize = 7;

/// How bodies are compressed; agreed by capability flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    Zlib,
    /// The level is the client's choice, from 1 to 22.
    Zstd {
        level: i32,
    },
}

/// How far one call to [`Decompressor::read`] got.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moved {
    /// Bytes used up of the input.
    pub consumed: usize,
    /// Bytes written to the start of the output.
    pub written: usize,
}

/// Turns the peer's compressed packets into the stream of frames.
///
/// Works in pieces, so that memory does not follow the lengths that a peer declares.
#[derive(Debug)]
pub struct Decompressor {
    inflater: Inflater,
    state: State,
    sequence: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Header {
        bytes: [u8; COMPRESSED_HEADER_LEN],
        have: usize,
    },
    Stored {
        left: usize,
    },
    /// Bytes still to come of the body, and of what it inflates to.
    Compressed {
        body_left: usize,
        plain_left: usize,
    },
}

impl Decompressor {
    pub fn new(algorithm: Algorithm) -> Self {
        let inflater = match algorithm {
            Algorithm::Zlib => Inflater::Zlib(Decompress::new(true)),
            Algorithm::Zstd { .. } => Inflater::Zstd(None),
        };
        Self { inflater, state: State::START, sequence: 0 }
    }

    /// The sequence number of the last header; the answer to a command goes on with the next.
    pub fn sequence(&self) -> u8 {
        self.sequence
    }

    /// Inflates from `input` into `output` until one of them is used up.
    ///
    /// When `output` has been filled, more may be held back: call again, with an empty `input` if need be, before
    /// waiting for the peer.
    ///
    /// # Errors
    ///
    /// [`Malformed::Inflate`] when a body is damaged or not as long as its header says. The stream is lost then.
    pub fn read(&mut self, input: &[u8], output: &mut [u8]) -> Result<Moved, Malformed> {
        let mut total = Moved::default();
        loop {
            let before = self.state;
            let moved = self.step(&input[total.consumed..], &mut output[total.written..])?;
            total.consumed += moved.consumed;
            total.written += moved.written;
            if moved == Moved::default() && before == self.state {
                return Ok(total);
            }
        }
    }

    fn step(&mut self, input: &[u8], output: &mut [u8]) -> Result<Moved, Malformed> {
        match self.state {
            State::Header { bytes, have } => Ok(self.take_header(bytes, have, input)),
            State::Stored { left } => {
                let count = left.min(input.len()).min(output.len());
                output[..count].copy_from_slice(&input[..count]);
                self.state = if count == left { State::START } else { State::Stored { left: left - count } };
                Ok(Moved { consumed: count, written: count })
            }
            State::Compressed { body_left, plain_left } => self.inflate(body_left, plain_left, input, output),
        }
    }

    fn take_header(&mut self, mut bytes: [u8; COMPRESSED_HEADER_LEN], have: usize, input: &[u8]) -> Moved {
        let count = input.len().min(COMPRESSED_HEADER_LEN - have);
        bytes[have..have + count].copy_from_slice(&input[..count]);
        self.state = State::Header { bytes, have: have + count };
        if have + count == COMPRESSED_HEADER_LEN {
            let [body0, body1, body2, sequence, plain0, plain1, plain2] = bytes;
            let body_left = u32::from_le_bytes([body0, body1, body2, 0]) as usize;
            let plain_left = u32::from_le_bytes([plain0, plain1, plain2, 0]) as usize;
            self.sequence = sequence;
            self.state = if plain_left == 0 {
                State::Stored { left: body_left }
            } else {
                State::Compressed { body_left, plain_left }
            };
        }
        Moved { consumed: count, written: 0 }
    }

    fn inflate(
        &mut self,
        body_left: usize,
        plain_left: usize,
        input: &[u8],
        output: &mut [u8],
    ) -> Result<Moved, Malformed> {
        let what = self.inflater.what();
        let body = &input[..input.len().min(body_left)];
        // With all bytes there, the stream has still to show its end; a byte more is one too many.
        let mut surplus = [0];
        let room = if plain_left == 0 { &mut surplus[..] } else { output };
        let room_len = room.len().min(plain_left.max(1));
        if room_len == 0 {
            return Ok(Moved::default());
        }
        let (moved, ended) = self.inflater.run(body, &mut room[..room_len])?;
        let body_left = body_left - moved.consumed;
        let Some(plain_left) = plain_left.checked_sub(moved.written) else {
            return Err(Malformed::Inflate(what));
        };
        if ended {
            if body_left > 0 || plain_left > 0 {
                return Err(Malformed::Inflate(what));
            }
            self.inflater.restart();
            self.state = State::START;
            return Ok(moved);
        }
        let stuck = moved == Moved::default() && (body_left == 0 || !body.is_empty());
        if stuck {
            return Err(Malformed::Inflate(what));
        }
        self.state = State::Compressed { body_left, plain_left };
        Ok(moved)
    }
}

impl State {
    const START: Self = Self::Header { bytes: [0; COMPRESSED_HEADER_LEN], have: 0 };
}

enum Inflater {
    Zlib(Decompress),
    /// Made at the first compressed body.
    Zstd(Option<Box<Decoder<'static>>>),
}

impl Inflater {
    fn what(&self) -> &'static str {
        match self {
            Self::Zlib(_) => "a zlib stream",
            Self::Zstd(_) => "a zstd frame",
        }
    }

    /// One step over the body; true when its end was reached.
    fn run(&mut self, body: &[u8], room: &mut [u8]) -> Result<(Moved, bool), Malformed> {
        let what = self.what();
        match self {
            Self::Zlib(zlib) => {
                let (read, written) = (zlib.total_in(), zlib.total_out());
                let status = zlib.decompress(body, room, FlushDecompress::None);
                let ended = status.map_err(|_| Malformed::Inflate(what))? == Status::StreamEnd;
                let consumed = (zlib.total_in() - read) as usize;
                Ok((Moved { consumed, written: (zlib.total_out() - written) as usize }, ended))
            }
            Self::Zstd(decoder) => {
                let decoder = match decoder {
                    Some(decoder) => decoder,
                    None => decoder.insert(zstd_decoder()?),
                };
                let (mut from, mut to) = (InBuffer::around(body), OutBuffer::around(room));
                let hint = decoder.run(&mut from, &mut to).map_err(|_| Malformed::Inflate(what))?;
                let moved = Moved { consumed: from.pos(), written: to.pos() };
                Ok((moved, hint == 0))
            }
        }
    }

    fn restart(&mut self) {
        match self {
            Self::Zlib(zlib) => zlib.reset(true),
            Self::Zstd(Some(decoder)) => {
                // A decoder that cannot start again is replaced.
                if decoder.reinit().is_err() {
                    *self = Self::Zstd(None);
                }
            }
            Self::Zstd(None) => {}
        }
    }
}

impl fmt::Debug for Inflater {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.what())
    }
}

fn zstd_decoder() -> Result<Box<Decoder<'static>>, Malformed> {
    let made = Decoder::new().and_then(|mut decoder| {
        decoder.set_parameter(DParameter::WindowLogMax(ZSTD_WINDOW_LOG_MAX))?;
        Ok(Box::new(decoder))
    });
    made.map_err(|_| Malformed::Inflate("a zstd frame"))
}

/// Turns a stream of frames into compressed packets.
pub struct Compressor {
    deflater: Deflater,
    sequence: u8,
    /// Reused for each body.
    body: Vec<u8>,
}

enum Deflater {
    Zlib(Compress),
    Zstd(Option<zstd::bulk::Compressor<'static>>),
}

impl Compressor {
    pub fn new(algorithm: Algorithm) -> Self {
        let deflater = match algorithm {
            Algorithm::Zlib => Deflater::Zlib(Compress::new(Compression::default(), true)),
            Algorithm::Zstd { level } => Deflater::Zstd(zstd::bulk::Compressor::new(level).ok()),
        };
        Self { deflater, sequence: 0, body: Vec::new() }
    }

    /// Sets the sequence number of the next packet: 0 for a command, one more than the last one read for an answer.
    pub fn restart(&mut self, sequence: u8) {
        self.sequence = sequence;
    }

    /// Appends `bytes` to `out` in as many compressed packets as they need. Short or incompressible pieces are
    /// stored.
    pub fn write(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        for plain in bytes.chunks(PIECE_BYTES) {
            let shorter = plain.len() >= SHORTEST_COMPRESSED && self.deflate(plain);
            let (body, plain_len) = if shorter { (&self.body[..], plain.len()) } else { (plain, 0) };
            out.extend_from_slice(&body.len().to_le_bytes()[..3]);
            out.push(self.sequence);
            out.extend_from_slice(&plain_len.to_le_bytes()[..3]);
            out.extend_from_slice(body);
            self.sequence = self.sequence.wrapping_add(1);
        }
    }

    /// Compresses one piece into the buffer; false when that does not make it shorter.
    fn deflate(&mut self, plain: &[u8]) -> bool {
        self.body.resize(plain.len() - 1, 0);
        match &mut self.deflater {
            Deflater::Zlib(zlib) => {
                zlib.reset();
                let ended = zlib.compress(plain, &mut self.body, FlushCompress::Finish);
                self.body.truncate(zlib.total_out() as usize);
                matches!(ended, Ok(Status::StreamEnd))
            }
            Deflater::Zstd(Some(zstd)) => match zstd.compress_to_buffer(plain, &mut self.body[..]) {
                Ok(len) => {
                    self.body.truncate(len);
                    true
                }
                Err(_does_not_fit) => false,
            },
            Deflater::Zstd(None) => false,
        }
    }
}

impl fmt::Debug for Compressor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Compressor").field("sequence", &self.sequence).finish_non_exhaustive()
    }
}

/// What goes into one compressed packet.
const PIECE_BYTES: usize = 128 * 1024;
/// Shorter pieces are stored (`MIN_COMPRESS_LENGTH` of servers).
const SHORTEST_COMPRESSED: usize = 50;
/// No body is longer than 16 MiB, so no frame needs a larger window.
const ZSTD_WINDOW_LOG_MAX: u32 = 24;

#[cfg(test)]
mod tests;
