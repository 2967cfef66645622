//! What can end a statement or a session, where it came from, and what the client is told of it.

use std::io;

use pointsman_protocol::capability::Capabilities;
use pointsman_protocol::err::ErrPacket;
use pointsman_protocol::packet::write_packet;
use pointsman_router::topology::ServerId;

use crate::worker::Order;

/// An error as the client sees it; internal addresses never stand in one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientError {
    pub code: u16,
    pub sqlstate: [u8; 5],
    pub message: Vec<u8>,
}

impl ClientError {
    pub fn new(code: u16, sqlstate: &[u8; 5], message: impl Into<Vec<u8>>) -> Self {
        Self { code, sqlstate: *sqlstate, message: message.into() }
    }

    /// Every connection that may be open to a server stayed in use for `pool.acquire_timeout`.
    pub fn pool_exhausted() -> Self {
        let text = "Too many connections: no server connection became free in time \
                    (pool.max_connections, pool.acquire_timeout)";
        Self::new(1040, b"08004", text)
    }

    /// The ERR packet with its header, ready for the wire.
    pub fn packet(&self, sequence: u8) -> Vec<u8> {
        let mut payload = Vec::with_capacity(self.message.len() + 9);
        let err = ErrPacket::new(self.code, self.sqlstate, &self.message);
        // Clients without the 4.1 protocol are refused before any of these.
        err.write(&mut payload, Capabilities::PROTOCOL_41);
        let mut framed = Vec::with_capacity(payload.len() + 4);
        write_packet(&mut framed, sequence, &payload);
        framed
    }
}

/// A server's own error, for its client or for ours.
impl From<ErrPacket<'_>> for ClientError {
    fn from(err: ErrPacket<'_>) -> Self {
        Self {
            code: err.code,
            sqlstate: err.sqlstate.unwrap_or(UNSPECIFIED_SQLSTATE),
            message: err.message.to_vec(),
        }
    }
}

/// Servers leave the SQLSTATE out before capabilities are agreed.
const UNSPECIFIED_SQLSTATE: [u8; 5] = *b"HY000";

/// Whose doing an error is: the log level and the metric follow from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    Client,
    Server(ServerId),
    Proxy,
}

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    #[error("client closed the connection")]
    ClientClosed,
    #[error("client connection failed: {0}")]
    ClientIo(#[source] io::Error),
    #[error("expected packet sequence 0, got {0}")]
    OutOfOrder(u8),
    #[error("malformed command packet: {0}")]
    Malformed(&'static str),
    #[error("packet of {size} bytes, at most {limit} are allowed")]
    TooLarge { size: usize, limit: usize },
    #[error("server connection lost, outcome of the statement unknown: {source}")]
    OutcomeUnknown { server: ServerId, commit: bool, source: io::Error },
    #[error("server connection lost with the session's state on it: {source}")]
    StateLost { server: ServerId, source: io::Error },
    #[error("server answered a read with what cannot be followed: {source}")]
    MalformedAnswer { server: ServerId, source: io::Error },
    #[error("server asked for a file that the statement does not load")]
    UnexpectedInfile(ServerId),
    #[error("ended on order: {0:?}")]
    Ordered(Order),
    #[error("the user was refused: {}", String::from_utf8_lossy(&.0.message))]
    Refused(ClientError),
}

impl SessionError {
    pub fn origin(&self) -> Origin {
        match self {
            Self::ClientClosed
            | Self::ClientIo(_)
            | Self::OutOfOrder(_)
            | Self::Malformed(_)
            | Self::TooLarge { .. }
            | Self::Refused(_) => Origin::Client,
            Self::OutcomeUnknown { server, .. }
            | Self::StateLost { server, .. }
            | Self::MalformedAnswer { server, .. }
            | Self::UnexpectedInfile(server) => Origin::Server(*server),
            Self::Ordered(_) => Origin::Proxy,
        }
    }

    /// The last packet for the client, or none where it cannot or need not be told.
    pub fn client_error(&self) -> Option<ClientError> {
        Some(match self {
            Self::ClientClosed | Self::ClientIo(_) => return None,
            Self::OutOfOrder(_) => ClientError::new(1156, b"08S01", "Got packets out of order"),
            Self::Malformed(_) => ClientError::new(1835, b"HY000", "Malformed communication packet"),
            Self::TooLarge { .. } => {
                ClientError::new(1153, b"08S01", "Got a packet bigger than 'max_allowed_packet' bytes")
            }
            Self::OutcomeUnknown { commit, .. } => {
                let state = if *commit { b"08007" } else { b"08S01" };
                let text = "Server connection lost; whether the statement was executed is unknown";
                ClientError::new(1158, state, text)
            }
            Self::StateLost { .. } => {
                let text = "Server connection lost; the session's transaction or state is gone";
                ClientError::new(1158, b"08S01", text)
            }
            Self::MalformedAnswer { .. } => {
                ClientError::new(1835, b"HY000", "Malformed communication packet from the server")
            }
            Self::UnexpectedInfile(_) => {
                ClientError::new(1835, b"HY000", "Server asked for a file out of turn")
            }
            Self::Ordered(Order::Kill) => ClientError::new(1317, b"70100", "Query execution was interrupted"),
            Self::Ordered(Order::IdleTimeout) => {
                let text = "The client was disconnected by the server because of inactivity.";
                ClientError::new(4031, b"HY000", text)
            }
            Self::Ordered(Order::None | Order::Drain | Order::Stop) => {
                ClientError::new(1053, b"08S01", "Server shutdown in progress")
            }
            Self::Refused(error) => error.clone(),
        })
    }
}
