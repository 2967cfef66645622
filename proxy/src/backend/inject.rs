//! Statements of our own on a server connection: sent, and their answers read and dropped.
//!
//! None of these is cancel safe: a call that is dropped or fails leaves the connection in mid-answer, and it must
//! be closed.

use std::io;
use std::time::Duration;

use pointsman_protocol::capability::{Capabilities, Status};
use pointsman_protocol::codec::Reader;
use pointsman_protocol::command::code;
use pointsman_protocol::err::ErrPacket;
use pointsman_protocol::ok::{EofPacket, OkPacket};
use pointsman_protocol::packet::{HEADER_LEN, Header, write_packet};
use pointsman_protocol::response::{EndKind, Grammar, PrepareOk, ResponseWalker, Stop};

use super::connection::ServerConnection;
use super::digest::AnswerDigest;
use crate::error::ClientError;

/// What a server said to a statement of ours.
#[derive(Debug)]
pub enum Answer {
    Ok(Option<PrepareOk>),
    Err(ClientError),
}

/// Sends one command and reads its whole answer.
///
/// # Errors
///
/// When the connection fails or the answer takes longer than `limit`.
pub async fn command(
    connection: &mut ServerConnection,
    payload: &[u8],
    grammar: Grammar,
    limit: Duration,
) -> io::Result<Answer> {
    tokio::time::timeout(limit, exchange(connection, payload, grammar, &mut Taken::default()))
        .await
        .map_err(|_elapsed| io::Error::from(io::ErrorKind::TimedOut))?
}

/// Runs SQL and reads its whole answer.
///
/// # Errors
///
/// As [`command`].
pub async fn query(connection: &mut ServerConnection, sql: &[u8], limit: Duration) -> io::Result<Answer> {
    command(connection, &query_payload(sql, connection.capabilities), Grammar::Query, limit).await
}

/// Runs SQL that gives one row, and gives its first value; none for an error, NULL or no row.
///
/// # Errors
///
/// As [`command`].
pub async fn scalar(
    connection: &mut ServerConnection,
    sql: &[u8],
    limit: Duration,
) -> io::Result<Option<Vec<u8>>> {
    let mut taken = Taken::up_to(MAX_SCALAR_BYTES);
    let payload = query_payload(sql, connection.capabilities);
    let answered = exchange(connection, &payload, Grammar::Query, &mut taken);
    let answer = tokio::time::timeout(limit, answered)
        .await
        .map_err(|_elapsed| io::Error::from(io::ErrorKind::TimedOut))??;
    Ok(match answer {
        Answer::Ok(_) => first_value(&taken.packets, connection.capabilities),
        Answer::Err(_) => None,
    })
}

/// A COM_QUERY payload in the form that these capabilities ask for.
pub(super) fn query_payload(sql: &[u8], capabilities: Capabilities) -> Vec<u8> {
    let mut payload = Vec::with_capacity(sql.len() + 3);
    payload.push(code::QUERY);
    if capabilities.contains(Capabilities::QUERY_ATTRIBUTES) {
        // No attributes, in one set.
        payload.extend_from_slice(&[0, 1]);
    }
    payload.extend_from_slice(sql);
    payload
}

/// The first result of a statement that has been sent.
#[derive(Debug)]
pub struct Collected {
    /// All packets but the last.
    pub packets: Vec<u8>,
    pub last: Vec<u8>,
    pub error: Option<u16>,
}

/// Reads one whole result, for answers that are small by their nature.
///
/// # Errors
///
/// When the connection fails, the result is larger than 16 MiB or not the last of its statement.
pub async fn collect(connection: &mut ServerConnection) -> io::Result<Collected> {
    let mut taken = Taken::up_to(MAX_COLLECTED_BYTES);
    let answer = read_answer(connection, Grammar::Query, &mut taken).await?;
    if taken.packets.len() >= MAX_COLLECTED_BYTES {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let error = match answer {
        Answer::Ok(_) => None,
        Answer::Err(error) => Some(error.code),
    };
    Ok(Collected { packets: taken.packets, last: taken.last, error })
}

/// Sends a client's packet as it is, and reads its answer only to compare it.
///
/// # Errors
///
/// When the connection fails.
pub async fn digest(connection: &mut ServerConnection, packet: &[u8]) -> io::Result<u64> {
    let closes = connection.prepared.take_pending_closes();
    connection.lane.write_all(&closes).await?;
    connection.lane.write_all(packet).await?;
    let mut taken = Taken { digest: Some(AnswerDigest::default()), ..Taken::default() };
    read_answer(connection, Grammar::Query, &mut taken).await?;
    Ok(taken.digest.map_or(0, |digest| digest.value()))
}

/// What is taken of an answer while it is read.
#[derive(Debug, Default)]
struct Taken {
    /// The first bytes of all packets but those that end results.
    packets: Vec<u8>,
    /// How many of them.
    limit: usize,
    /// The packet that ended the last result.
    last: Vec<u8>,
    digest: Option<AnswerDigest>,
}

impl Taken {
    fn up_to(limit: usize) -> Self {
        Self { limit, ..Self::default() }
    }

    fn take(&mut self, packets: &[u8]) {
        let room = self.limit.saturating_sub(self.packets.len());
        self.packets.extend_from_slice(&packets[..packets.len().min(room)]);
        if let Some(digest) = &mut self.digest {
            digest.packets(packets);
        }
    }
}

async fn exchange(
    connection: &mut ServerConnection,
    payload: &[u8],
    grammar: Grammar,
    taken: &mut Taken,
) -> io::Result<Answer> {
    let mut packet = connection.prepared.take_pending_closes();
    write_packet(&mut packet, 0, payload);
    connection.lane.write_all(&packet).await?;
    read_answer(connection, grammar, taken).await
}

async fn read_answer(
    connection: &mut ServerConnection,
    grammar: Grammar,
    taken: &mut Taken,
) -> io::Result<Answer> {
    let deprecate_eof = connection.capabilities.contains(Capabilities::DEPRECATE_EOF);
    let mut walker = ResponseWalker::new(grammar, deprecate_eof, false);
    let mut answer = Answer::Ok(None);
    loop {
        let (ahead, stop) = walker.walk(connection.lane.bytes()).map_err(invalid)?;
        taken.take(&connection.lane.bytes()[..ahead]);
        match stop {
            Stop::NeedMore => {
                connection.lane.consume(ahead);
                if connection.lane.fill().await? == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
            }
            Stop::End { len, kind, last } => {
                let packet = &connection.lane.bytes()[ahead..ahead + len];
                let end = ResultEnd::parse(packet, kind, connection.capabilities)?;
                taken.last.clear();
                taken.last.extend_from_slice(packet);
                if let Some(digest) = &mut taken.digest {
                    end.enter(digest);
                }
                connection.lane.consume(ahead + len);
                match end {
                    ResultEnd::Failed(error) => answer = Answer::Err(error),
                    ResultEnd::Well { status, .. } => connection.status = status,
                }
                if last {
                    return Ok(answer);
                }
            }
            Stop::PrepareOk { len } => {
                let head = PrepareOk::parse(&connection.lane.bytes()[ahead + HEADER_LEN..ahead + len]);
                answer = Answer::Ok(Some(head.map_err(invalid)?));
                connection.lane.consume(ahead + len);
            }
            Stop::Done => {
                connection.lane.consume(ahead);
                return Ok(answer);
            }
            Stop::LocalInfile { .. } => return Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

/// How one result of an answer ended.
#[derive(Debug)]
enum ResultEnd {
    Well { status: Status, row_count: i64, insert_id: u64, warnings: u16 },
    Failed(ClientError),
}

impl ResultEnd {
    fn parse(packet: &[u8], kind: EndKind, capabilities: Capabilities) -> io::Result<Self> {
        let payload = &packet[HEADER_LEN..];
        Ok(match kind {
            EndKind::Err => Self::Failed(ErrPacket::parse(payload, capabilities).map_err(invalid)?.into()),
            EndKind::Eof => {
                let EofPacket { status, warnings, .. } = EofPacket::parse(payload).map_err(invalid)?;
                Self::Well { status, row_count: -1, insert_id: 0, warnings }
            }
            EndKind::Ok | EndKind::OkEof => {
                let ok = OkPacket::parse(payload, capabilities).map_err(invalid)?;
                let row_count = match kind {
                    EndKind::Ok => i64::try_from(ok.affected_rows).unwrap_or(i64::MAX),
                    EndKind::OkEof | EndKind::Eof | EndKind::Err => -1,
                };
                let (insert_id, warnings) = (ok.last_insert_id, ok.warnings);
                Self::Well { status: ok.status, row_count, insert_id, warnings }
            }
        })
    }

    fn enter(&self, digest: &mut AnswerDigest) {
        match self {
            Self::Well { row_count, insert_id, warnings, .. } => {
                digest.end(*row_count, *insert_id, *warnings);
            }
            Self::Failed(error) => digest.failed(error.code),
        }
    }
}

/// The first column of the first row in the packets of a text result: column count, columns, row.
fn first_value(packets: &[u8], capabilities: Capabilities) -> Option<Vec<u8>> {
    let mut rest = packets;
    let columns = Reader::new(next_payload(&mut rest)?).lenenc().ok()?;
    let ends = u64::from(!capabilities.contains(Capabilities::DEPRECATE_EOF));
    for _ in 0..columns + ends {
        next_payload(&mut rest)?;
    }
    let row = next_payload(&mut rest)?;
    if row.first() == Some(&NULL_VALUE) {
        return None;
    }
    Reader::new(row).lenenc_bytes().ok().map(<[u8]>::to_vec)
}

fn next_payload<'a>(packets: &mut &'a [u8]) -> Option<&'a [u8]> {
    let header = Header::parse(packets)?;
    let payload = packets.get(HEADER_LEN..header.frame_len())?;
    *packets = &packets[header.frame_len()..];
    Some(payload)
}

fn invalid(error: impl std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error.to_string())
}

const NULL_VALUE: u8 = 0xfb;
const MAX_SCALAR_BYTES: usize = 64 * 1024;
const MAX_COLLECTED_BYTES: usize = 16 * 1024 * 1024;
