//! Packets one by one, as they go back and forth before the first command.

use std::io;

use pointsman_protocol::packet::{HEADER_LEN, Header, write_packet};
use thiserror::Error;
use zeroize::{Zeroize, Zeroizing};

use crate::buffer::Lane;

/// A conversation with counted packets over a stream.
#[derive(Debug)]
pub struct Exchange<'a> {
    pub lane: &'a mut Lane,
    /// The number of the next packet, whoever sends it.
    pub sequence: u8,
    /// Longest payload that is read.
    pub limit: usize,
}

/// Why a packet could not be read or sent.
#[derive(Debug, Error)]
pub enum ExchangeError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("expected packet {wanted}, got {got}")]
    OutOfOrder { wanted: u8, got: u8 },
    #[error("a packet of {len} bytes, at most {limit} are allowed here")]
    TooLarge { len: usize, limit: usize },
}

impl Exchange<'_> {
    /// Reads the next packet. It may hold a password, so it is wiped when dropped.
    ///
    /// # Errors
    ///
    /// See [`ExchangeError`]; an answer that says so has the right number. Not cancel safe.
    pub async fn read(&mut self) -> Result<Zeroizing<Vec<u8>>, ExchangeError> {
        self.lane.fill_to(HEADER_LEN).await?;
        let Some(header) = Header::parse(self.lane.bytes()) else {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        };
        let wanted = std::mem::replace(&mut self.sequence, header.sequence.wrapping_add(1));
        if header.sequence != wanted {
            return Err(ExchangeError::OutOfOrder { wanted, got: header.sequence });
        }
        if header.len > self.limit {
            return Err(ExchangeError::TooLarge { len: header.len, limit: self.limit });
        }
        let total = header.frame_len();
        self.lane.fill_to(total).await?;
        let payload = Zeroizing::new(self.lane.bytes()[HEADER_LEN..total].to_vec());
        self.lane.bytes_mut()[..total].zeroize();
        self.lane.consume(total);
        Ok(payload)
    }

    /// Sends one packet. Not cancel safe.
    ///
    /// # Errors
    ///
    /// What the stream reports.
    pub async fn write(&mut self, payload: &[u8]) -> io::Result<()> {
        self.write_all(&[payload]).await
    }

    /// Sends packets in one piece. Not cancel safe.
    ///
    /// # Errors
    ///
    /// What the stream reports.
    pub async fn write_all(&mut self, payloads: &[&[u8]]) -> io::Result<()> {
        let size = payloads.iter().map(|payload| payload.len() + HEADER_LEN).sum();
        let mut packets = Zeroizing::new(Vec::with_capacity(size));
        for payload in payloads {
            self.sequence = write_packet(&mut packets, self.sequence, payload);
        }
        self.lane.write_all(&packets).await
    }
}
