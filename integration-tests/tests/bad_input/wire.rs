//! A client that is nothing but a socket, to send what no driver sends.

use std::sync::Arc;
use std::time::Duration;

use pointsman_integration_tests::Failure;
use pointsman_integration_tests::sandbox::APP;
use pointsman_protocol::auth::{Credential, Login, Reply};
use pointsman_protocol::capability::{Capabilities, MariadbCapabilities};
use pointsman_protocol::compress::{Algorithm, Decompressor};
use pointsman_protocol::err::ErrPacket;
use pointsman_protocol::handshake::{Greeting, HandshakeResponse};
use pointsman_protocol::packet::{HEADER_LEN, Header, write_packet};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// A connection, with what was read of it.
#[derive(Debug)]
pub(crate) struct Wire {
    socket: TcpStream,
    unread: Vec<u8>,
    sequence: u8,
    /// Once compression has been agreed on.
    inflater: Option<Decompressor>,
}

/// What an ERR packet says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) code: u16,
    pub(crate) message: String,
}

impl Wire {
    /// Connects and reads the greeting.
    pub(crate) async fn greeted(port: u16) -> Result<(Self, Greeting), Failure> {
        let socket = timeout(LIMIT, TcpStream::connect(("127.0.0.1", port))).await??;
        let mut wire = Self { socket, unread: Vec::new(), sequence: 0, inflater: None };
        let payload = wire.packet().await?.ok_or("expected a greeting, got the end")?;
        Ok((wire, Greeting::parse(&payload)?))
    }

    /// Logs in as the application, with some capabilities more than a client needs.
    pub(crate) async fn logged_in(port: u16, more: Capabilities) -> Result<Self, Failure> {
        let (mut wire, greeting) = Self::greeted(port).await?;
        let credential = Arc::new(Credential::from_password(APP.1.as_bytes()));
        let (mut login, answer) = Login::start(credential, &greeting.plugin, &greeting.nonce, false);
        let needed = Capabilities::PROTOCOL_41
            | Capabilities::SECURE_CONNECTION
            | Capabilities::PLUGIN_AUTH
            | Capabilities::CONNECT_WITH_DB;
        let response = HandshakeResponse {
            capabilities: (needed | more) & greeting.capabilities | Capabilities::LONG_PASSWORD,
            mariadb: MariadbCapabilities::empty(),
            max_packet: 1 << 24,
            collation: 45,
            user: APP.0.as_bytes(),
            answer: answer.payload(),
            schema: Some(b"app"),
            plugin: Some(login.plugin().name().as_bytes()),
            ..HandshakeResponse::default()
        };
        let mut payload = Vec::new();
        response.write(&mut payload);
        wire.reply(&payload).await?;
        loop {
            let payload = wire.packet().await?.ok_or("expected a verdict, got the end")?;
            login = match login.on_packet(&payload)? {
                Reply::Send(answer, login) => {
                    wire.reply(answer.payload()).await?;
                    login
                }
                Reply::Wait(login) => login,
                Reply::Accepted => break,
                Reply::Refused => return Err(String::from_utf8_lossy(&payload).into()),
            };
        }
        let compressed = response.capabilities.contains(Capabilities::COMPRESS);
        wire.inflater = compressed.then(|| Decompressor::new(Algorithm::Zlib));
        Ok(wire)
    }

    /// The client as the proxy's log names it.
    pub(crate) fn address(&self) -> Result<String, Failure> {
        Ok(self.socket.local_addr()?.to_string())
    }

    /// Sends a payload as the next packet of the exchange.
    async fn reply(&mut self, payload: &[u8]) -> Result<(), Failure> {
        let mut frame = Vec::new();
        write_packet(&mut frame, self.sequence.wrapping_add(1), payload);
        self.send(&frame).await;
        Ok(())
    }

    /// Sends bytes as they are. A peer that no longer takes them has ended the connection, which reading shows.
    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        let _gone = timeout(LIMIT, self.socket.write_all(bytes)).await;
    }

    /// Says that nothing more comes.
    pub(crate) async fn finish(&mut self) {
        let _gone = self.socket.shutdown().await;
    }

    /// The next payload; none at the end of the connection.
    pub(crate) async fn packet(&mut self) -> Result<Option<Vec<u8>>, Failure> {
        loop {
            if let Some(header) = Header::parse(&self.unread)
                && self.unread.len() >= header.frame_len()
            {
                let rest = self.unread.split_off(header.frame_len());
                let frame = std::mem::replace(&mut self.unread, rest);
                self.sequence = header.sequence;
                return Ok(Some(frame[HEADER_LEN..].to_vec()));
            }
            if !self.fill().await? {
                return Ok(None);
            }
        }
    }

    /// Reads to the end of the connection and gives the last ERR packet's code.
    pub(crate) async fn ended(&mut self) -> Result<Option<u16>, Failure> {
        let mut code = None;
        while let Some(payload) = self.packet().await? {
            code = error_code(&payload).or(code);
        }
        Ok(code)
    }

    /// Reads to the end of the connection, which says why or nothing at all, but never OK.
    pub(crate) async fn refused(&mut self) -> Result<Option<Refusal>, Failure> {
        let mut refusal = None;
        while let Some(payload) = self.packet().await? {
            match payload.first() {
                Some(0xff) if refusal.is_none() => refusal = Some(Refusal::parse(&payload)?),
                // A login is asked for more, which nobody has who does not know the password.
                Some(0xfe | 0x01) if refusal.is_none() => self.reply(b"no password").await?,
                _ => return Err(format!("expected ERR or the end, got {payload:02x?}").into()),
            }
        }
        Ok(refusal)
    }

    /// Waits until the connection has ended, whatever it says.
    pub(crate) async fn closed(&mut self) -> Result<(), Failure> {
        while self.fill().await? {
            self.unread.clear();
        }
        Ok(())
    }

    async fn fill(&mut self) -> Result<bool, Failure> {
        let mut piece = [0; 4096];
        let read = timeout(LIMIT, self.socket.read(&mut piece)).await;
        match read.map_err(|_elapsed| "expected an answer or the end, got neither")? {
            Ok(count) => {
                self.take(&piece[..count])?;
                Ok(count > 0)
            }
            // Bytes that the peer had not read when it closed.
            Err(_reset) => Ok(false),
        }
    }

    fn take(&mut self, mut input: &[u8]) -> Result<(), Failure> {
        let Some(inflater) = &mut self.inflater else {
            self.unread.extend_from_slice(input);
            return Ok(());
        };
        let mut output = [0; 4096];
        loop {
            let moved = inflater.read(input, &mut output)?;
            self.unread.extend_from_slice(&output[..moved.written]);
            input = &input[moved.consumed..];
            if input.is_empty() && moved.written < output.len() {
                return Ok(());
            }
        }
    }
}

impl Refusal {
    fn parse(payload: &[u8]) -> Result<Self, Failure> {
        let err = ErrPacket::parse(payload, Capabilities::PROTOCOL_41)?;
        Ok(Self { code: err.code, message: String::from_utf8_lossy(err.message).into_owned() })
    }
}

/// The code of an ERR packet.
pub(crate) fn error_code(payload: &[u8]) -> Option<u16> {
    ErrPacket::parse(payload, Capabilities::PROTOCOL_41).ok().map(|err| err.code)
}

/// Longer than the proxy waits for the rest of a login.
const LIMIT: Duration = Duration::from_secs(20);
