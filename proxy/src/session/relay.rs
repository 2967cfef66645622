//! Streams one response from a server to the client.
//!
//! The bytes go on as they came. Only the packets that end a result are looked into, and rewritten only for a
//! client that did not ask for what they carry.

use std::future::poll_fn;
use std::io;
use std::task::Poll;

use pointsman_protocol::capability::{Capabilities, Status};
use pointsman_protocol::err::ErrPacket;
use pointsman_protocol::ok::{EofPacket, OkPacket, SessionChange};
use pointsman_protocol::packet::{HEADER_LEN, Header, MAX_PAYLOAD};
use pointsman_protocol::response::{EndKind, Grammar, PrepareOk, ResponseWalker, Stop};

use pointsman_router::gtid::GtidSet;
use pointsman_router::intent::Flavour;

use crate::backend::connection::ServerConnection;
use crate::backend::digest::AnswerDigest;
use crate::buffer::Lane;
use crate::error::ClientError;
use crate::fences::Fences;
use crate::shared::Acknowledged;
use crate::worker::{Order, Slot};

/// What a response has told about the session.
#[derive(Debug, Default)]
pub struct Reply {
    /// The error code, or none for success.
    pub error: Option<u16>,
    pub status: Status,
    pub warnings: u16,
    pub insert_id: u64,
    pub rows: u64,
    pub schema: Option<Vec<u8>>,
    pub variables: Vec<(Vec<u8>, Vec<u8>)>,
    /// The session's state was changed, by a trigger or function where the text does not tell.
    pub state_changed: bool,
    /// What ROW_COUNT() answers after this response.
    pub row_count: i64,
    /// Whether the answer carried status flags at all: errors and prepare answers do not.
    pub has_status: bool,
    /// The transactions that this response committed.
    pub gtid: GtidSet,
    /// The head of a COM_STMT_PREPARE answer.
    pub prepared: Option<PrepareOk>,
    pub bytes: u64,
    /// See [`Relay::digest`].
    pub digest: Option<u64>,
}

/// Why a response did not end.
#[derive(Debug)]
pub enum RelayError {
    /// The client is gone or stopped reading for too long.
    Client(io::Error),
    /// The server is gone. `answered`: bytes have reached the client.
    Server { error: io::Error, answered: bool },
    /// The server said what cannot be followed; another would most likely say the same.
    Malformed(io::Error),
    /// The first packet was an error that this relay was asked to hold back.
    HeldBack(ClientError),
    /// LOCAL INFILE was asked for by a statement that does not load a file.
    UnexpectedInfile,
    /// The command is longer than servers take; some of it has been sent.
    TooLarge { size: usize, limit: usize },
}

/// What a relay does besides copying.
#[derive(Clone, Copy, Debug, Default)]
pub struct RelayOptions {
    pub client: Capabilities,
    /// Keep back a first packet with one of these errors: the statement will run elsewhere.
    pub hold_back: HoldBack,
    /// The id that takes the place of the server's in a COM_STMT_PREPARE answer.
    pub statement_id: Option<u32>,
    pub infile_allowed: bool,
    /// The statement runs in a READ ONLY transaction on a replica. MariaDB looks at its own read_only first, of which
    /// the client knows nothing.
    pub read_only_transaction: bool,
}

/// Which errors mean that a read should run elsewhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HoldBack {
    #[default]
    Nothing,
    /// On the primary: only what says that the statement was not executed at all.
    NotExecuted,
    /// On a replica: read-only errors and a server that shuts down.
    Misrouted,
}

impl HoldBack {
    fn applies_to(self, code: u16) -> bool {
        match self {
            Self::Nothing => false,
            Self::NotExecuted => code == ER_SERVER_SHUTDOWN,
            Self::Misrouted => {
                matches!(code, ER_OPTION_PREVENTS | ER_READ_ONLY_TRANSACTION | ER_READ_ONLY_MODE)
                    || matches!(code, ER_SERVER_SHUTDOWN | ER_CONNECTION_KILLED)
            }
        }
    }
}

/// One response on its way.
#[derive(Debug)]
pub struct Relay<'a> {
    pub client: &'a mut Lane,
    pub slot: &'a Slot,
    pub options: RelayOptions,
    /// Unread bytes of the client that belong to the running command, kept for a re-run.
    pub command_bytes: usize,
    /// Where committed transactions are noted before the client hears of them.
    pub acknowledged: Option<(&'a Acknowledged, Flavour)>,
    /// What a server that has lost its place acknowledges must not reach the client.
    pub fences: Option<&'a Fences>,
    /// Takes in what the client is told, where the statement may have to be run again.
    pub digest: Option<AnswerDigest>,
    walker: ResponseWalker,
    reply: Reply,
    client_open: bool,
}

impl<'a> Relay<'a> {
    pub fn new(
        client: &'a mut Lane,
        slot: &'a Slot,
        grammar: Grammar,
        deprecate_eof: bool,
        options: RelayOptions,
    ) -> Self {
        Self {
            command_bytes: 0,
            acknowledged: None,
            fences: None,
            digest: None,
            client,
            slot,
            options,
            walker: ResponseWalker::new(grammar, deprecate_eof, false),
            reply: Reply::default(),
            client_open: true,
        }
    }

    /// Copies the whole response. Not cancel safe.
    ///
    /// # Errors
    ///
    /// See [`RelayError`]; after any error the server connection is in mid-answer and must be dropped.
    pub async fn run(mut self, connection: &mut ServerConnection) -> Result<Reply, RelayError> {
        loop {
            let walked = self.walker.walk(connection.lane.bytes());
            let (ahead, stop) = walked.map_err(malformed)?;
            match stop {
                Stop::NeedMore => {
                    if ahead > 0 {
                        if let Some(digest) = &mut self.digest {
                            digest.packets(&connection.lane.bytes()[..ahead]);
                        }
                        self.forward(&mut connection.lane, ahead).await?;
                    }
                    self.await_server(connection).await?;
                }
                Stop::End { len, kind, last } => {
                    self.on_end(connection, ahead, len, kind).await?;
                    if last {
                        self.reply.rows = self.walker.rows();
                        self.reply.digest = self.digest.map(|digest| digest.value());
                        return Ok(self.reply);
                    }
                }
                Stop::Done => {
                    self.forward(&mut connection.lane, ahead).await?;
                    return Ok(self.reply);
                }
                Stop::PrepareOk { len } => self.on_prepare_ok(connection, ahead, len).await?,
                Stop::LocalInfile { len } => {
                    if !self.options.infile_allowed {
                        return Err(RelayError::UnexpectedInfile);
                    }
                    let asked = connection.lane.bytes()[ahead + HEADER_LEN - 1];
                    self.forward(&mut connection.lane, ahead + len).await?;
                    self.relay_infile(connection, asked).await?;
                }
            }
        }
    }

    /// Writes the first `count` unread bytes of the server to the client.
    async fn forward(&mut self, server: &mut Lane, count: usize) -> Result<(), RelayError> {
        self.reply.bytes += count as u64;
        write_bounded(self.client, &server.bytes()[..count]).await.map_err(RelayError::Client)?;
        server.consume(count);
        Ok(())
    }

    async fn on_end(
        &mut self,
        connection: &mut ServerConnection,
        ahead: usize,
        len: usize,
        kind: EndKind,
    ) -> Result<(), RelayError> {
        if self.fences.is_some_and(|fences| fences.stops(connection.server, connection.epoch)) {
            return Err(self.server_error(fenced()));
        }
        let bytes = connection.lane.bytes();
        let packet = &bytes[ahead..ahead + len];
        let payload = &packet[HEADER_LEN..];
        let rewritten = match kind {
            EndKind::Err => self.on_err(packet, connection)?,
            EndKind::Eof => {
                let eof = EofPacket::parse(payload).map_err(malformed)?;
                self.reply.status = eof.status;
                self.reply.warnings = eof.warnings;
                self.reply.has_status = true;
                self.reply.row_count = -1;
                None
            }
            EndKind::Ok | EndKind::OkEof => {
                let rewritten = self.on_ok(packet, connection.capabilities)?;
                if kind == EndKind::OkEof {
                    self.reply.row_count = -1;
                }
                rewritten
            }
        };
        if let Some(digest) = &mut self.digest {
            digest.packets(&bytes[..ahead]);
            match self.reply.error {
                Some(code) => digest.failed(code),
                None => digest.end(self.reply.row_count, self.reply.insert_id, self.reply.warnings),
            }
        }
        if self.reply.has_status {
            connection.status = self.reply.status;
        }
        match rewritten {
            None => self.forward(&mut connection.lane, ahead + len).await,
            Some(replacement) => {
                if ahead > 0 {
                    self.forward(&mut connection.lane, ahead).await?;
                }
                self.reply.bytes += replacement.len() as u64;
                write_bounded(self.client, &replacement).await.map_err(RelayError::Client)?;
                connection.lane.consume(len);
                Ok(())
            }
        }
    }

    /// Takes what an ERR packet says; gives another one where that would name a replica's own state.
    fn on_err(
        &mut self,
        packet: &[u8],
        connection: &ServerConnection,
    ) -> Result<Option<Vec<u8>>, RelayError> {
        let err = ErrPacket::parse(&packet[HEADER_LEN..], connection.capabilities);
        let err = err.map_err(malformed)?;
        if self.reply.bytes == 0 && self.options.hold_back.applies_to(err.code) {
            return Err(RelayError::HeldBack(err.into()));
        }
        self.reply.error = Some(err.code);
        self.reply.row_count = -1;
        if !self.options.read_only_transaction || !matches!(err.code, ER_OPTION_PREVENTS | ER_READ_ONLY_MODE)
        {
            return Ok(None);
        }
        self.reply.error = Some(ER_READ_ONLY_TRANSACTION);
        let text = match connection.flavour {
            Flavour::Mariadb => "Cannot execute statement in a READ ONLY transaction",
            Flavour::Mysql => "Cannot execute statement in a READ ONLY transaction.",
        };
        let sequence = packet[HEADER_LEN - 1];
        Ok(Some(ClientError::new(ER_READ_ONLY_TRANSACTION, b"25006", text).packet(sequence)))
    }

    /// Takes what an OK packet says; gives the packet in another form when the client cannot read this one.
    fn on_ok(&mut self, packet: &[u8], server: Capabilities) -> Result<Option<Vec<u8>>, RelayError> {
        let payload = &packet[HEADER_LEN..];
        let ok = OkPacket::parse(payload, server).map_err(malformed)?;
        self.reply.status = ok.status;
        self.reply.warnings = ok.warnings;
        self.reply.has_status = true;
        self.reply.row_count = i64::try_from(ok.affected_rows).unwrap_or(i64::MAX);
        if ok.last_insert_id != 0 {
            self.reply.insert_id = ok.last_insert_id;
        }
        for change in ok.changes() {
            match change {
                SessionChange::Schema(name) => self.reply.schema = Some(name.to_vec()),
                SessionChange::Gtids(text) => note_gtid(&mut self.reply.gtid, self.acknowledged, text),
                SessionChange::SystemVariable { name, value } if name == b"last_gtid" => {
                    note_gtid(&mut self.reply.gtid, self.acknowledged, value);
                }
                SessionChange::SystemVariable { name, value } => {
                    self.reply.variables.push((name.to_vec(), value.to_vec()));
                }
                SessionChange::StateChange(changed) => self.reply.state_changed |= changed,
                SessionChange::TransactionCharacteristics(_)
                | SessionChange::TransactionState(_)
                | SessionChange::Unknown => {}
            }
        }
        let committed = ok.affected_rows > 0 && !ok.status.contains(Status::IN_TRANS);
        if committed
            && self.reply.gtid.is_empty()
            && let Some((acknowledged, _)) = self.acknowledged
        {
            acknowledged.saw_unnamed();
        }
        if self.options.client.contains(Capabilities::SESSION_TRACK) {
            return Ok(None);
        }
        let mut plain = Vec::with_capacity(packet.len());
        let status = ok.status - Status::SESSION_STATE_CHANGED;
        let stripped = OkPacket { status, session_state: &[], ..ok };
        stripped.write(&mut plain, payload[0], self.options.client);
        if plain == payload {
            return Ok(None);
        }
        let sequence = packet[HEADER_LEN - 1];
        let mut framed = Vec::with_capacity(plain.len() + HEADER_LEN);
        pointsman_protocol::packet::write_packet(&mut framed, sequence, &plain);
        Ok(Some(framed))
    }

    async fn on_prepare_ok(
        &mut self,
        connection: &mut ServerConnection,
        ahead: usize,
        len: usize,
    ) -> Result<(), RelayError> {
        let packet = &connection.lane.bytes()[ahead..ahead + len];
        let head = PrepareOk::parse(&packet[HEADER_LEN..]);
        let head = head.map_err(malformed)?;
        self.reply.prepared = Some(head);
        let Some(id) = self.options.statement_id else {
            return self.forward(&mut connection.lane, ahead + len).await;
        };
        let mut patched = packet.to_vec();
        let id_at = HEADER_LEN + PrepareOk::ID_AT;
        patched[id_at..id_at + 4].copy_from_slice(&id.to_le_bytes());
        write_bounded(self.client, &patched).await.map_err(RelayError::Client)?;
        self.reply.bytes += patched.len() as u64;
        connection.lane.consume(ahead + len);
        Ok(())
    }

    /// Waits for bytes of the server. A client that goes away meanwhile is noticed.
    async fn await_server(&mut self, connection: &mut ServerConnection) -> Result<(), RelayError> {
        let answered = self.reply.bytes > 0;
        poll_fn(|cx| {
            if let Poll::Ready(read) = connection.lane.poll_fill(cx) {
                return Poll::Ready(match read {
                    Ok(0) => Err(RelayError::Server { error: io::ErrorKind::UnexpectedEof.into(), answered }),
                    Ok(_) => Ok(()),
                    Err(error) => Err(RelayError::Server { error, answered }),
                });
            }
            self.slot.register(cx.waker());
            if self.slot.server_down.get() || self.slot.order.get() == Order::Stop {
                let error = io::ErrorKind::TimedOut.into();
                return Poll::Ready(Err(RelayError::Server { error, answered }));
            }
            while self.client_open && self.client.bytes().len() < self.command_bytes + PIPELINE_BYTES {
                match self.client.poll_fill(cx) {
                    Poll::Pending => break,
                    Poll::Ready(Ok(0)) => {
                        return Poll::Ready(Err(RelayError::Client(io::ErrorKind::UnexpectedEof.into())));
                    }
                    Poll::Ready(Ok(_)) => {}
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(RelayError::Client(error))),
                }
            }
            Poll::Pending
        })
        .await
    }

    /// Passes the client's file on to the server until the empty packet that ends it; `sequence` is the number of
    /// the packet that asked for it.
    async fn relay_infile(
        &mut self,
        connection: &mut ServerConnection,
        mut sequence: u8,
    ) -> Result<(), RelayError> {
        // The command itself lies before the file in the client's buffer and is no longer needed.
        self.client.consume(self.command_bytes);
        self.command_bytes = 0;
        let mut server_failed = None;
        let mut continued = false;
        loop {
            fill_in_time(self.client, HEADER_LEN).await.map_err(RelayError::Client)?;
            sequence = sequence.wrapping_add(1);
            self.client.renumber(sequence);
            let Some(header) = Header::parse(self.client.bytes()) else { continue };
            let ends = header.len == 0 && !continued;
            continued = header.len == MAX_PAYLOAD;
            let mut left = HEADER_LEN + header.len;
            while left > 0 {
                fill_in_time(self.client, 1).await.map_err(RelayError::Client)?;
                let piece = left.min(self.client.bytes().len());
                // A dead server's statement still has its client's packets drained, so that the error is read.
                if server_failed.is_none() {
                    let written = connection.lane.write_all(&self.client.bytes()[..piece]).await;
                    server_failed = written.err();
                }
                self.client.consume(piece);
                left -= piece;
            }
            if ends {
                break;
            }
        }
        server_failed.map_or(Ok(()), |error| Err(RelayError::Server { error, answered: false }))
    }

    fn server_error(&self, error: io::Error) -> RelayError {
        RelayError::Server { error, answered: self.reply.bytes > 0 }
    }
}

/// Notes a committed transaction before the client hears of it: another session may be told of it at once.
fn note_gtid(gtid: &mut GtidSet, acknowledged: Option<(&Acknowledged, Flavour)>, text: &[u8]) {
    let Some((acknowledged, flavour)) = acknowledged else { return };
    let parsed = std::str::from_utf8(text).ok().and_then(|text| GtidSet::parse(flavour, text).ok());
    match parsed {
        Some(set) if set.is_empty() => {}
        Some(set) => {
            acknowledged.merge(&set);
            gtid.merge(&set);
        }
        None => {
            tracing::warn!(text = %String::from_utf8_lossy(text), "server sent a GTID that cannot be read")
        }
    }
}

/// Reads of a packet that a client has begun until `count` bytes are unread: gives up after [`CLIENT_READ_TIMEOUT`],
/// because a server connection waits meanwhile.
pub(super) async fn fill_in_time(client: &mut Lane, count: usize) -> io::Result<()> {
    if client.bytes().len() >= count {
        return Ok(());
    }
    let filled = tokio::time::timeout(CLIENT_READ_TIMEOUT, client.fill_to(count)).await;
    filled.map_err(|_elapsed| io::Error::from(io::ErrorKind::TimedOut))?
}

/// Writes to a client that may have stopped reading: gives up after [`CLIENT_WRITE_TIMEOUT`] without progress.
///
/// # Errors
///
/// What the stream reports, or [`io::ErrorKind::TimedOut`].
pub async fn write_bounded(client: &mut Lane, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let piece = bytes.len().min(WRITE_PIECE_BYTES);
        let (now, later) = bytes.split_at(piece);
        let mut write = std::pin::pin!(client.write_all(now));
        // Most writes end at once: no timer for them.
        let first = poll_fn(|cx| Poll::Ready(write.as_mut().poll(cx))).await;
        match first {
            Poll::Ready(written) => written?,
            Poll::Pending => match tokio::time::timeout(CLIENT_WRITE_TIMEOUT, write).await {
                Ok(written) => written?,
                Err(_elapsed) => return Err(io::ErrorKind::TimedOut.into()),
            },
        }
        bytes = later;
    }
    Ok(())
}

/// The server has lost its place as the primary while it answered.
pub(super) fn fenced() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, "the server is not the primary any more")
}

fn malformed(error: impl ToString) -> RelayError {
    RelayError::Malformed(io::Error::new(io::ErrorKind::InvalidData, error.to_string()))
}

/// How long a client may pause within a command or a file that it sends, as net_read_timeout of servers allows for
/// each piece.
pub(super) const CLIENT_READ_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(120);
/// How long a client may refuse to take bytes, as net_write_timeout of servers.
const CLIENT_WRITE_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(60);
const WRITE_PIECE_BYTES: usize = 64 * 1024;
/// How much a client may send ahead while its statement runs.
const PIPELINE_BYTES: usize = 16 * 1024;

const ER_SERVER_SHUTDOWN: u16 = 1053;
pub(super) const ER_OPTION_PREVENTS: u16 = 1290;
pub(super) const ER_READ_ONLY_TRANSACTION: u16 = 1792;
pub(super) const ER_READ_ONLY_MODE: u16 = 1836;
const ER_CONNECTION_KILLED: u16 = 1927;

#[cfg(test)]
mod tests;
