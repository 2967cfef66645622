//! Logs in to a server over a fresh connection: greeting, TLS, authentication.

use std::io;
use std::sync::Arc;

use pointsman_protocol::auth::{self, Credential, Login, Reply};
use pointsman_protocol::capability::{Capabilities, MariadbCapabilities, Status};
use pointsman_protocol::codec::Malformed;
use pointsman_protocol::err::ErrPacket;
use pointsman_protocol::handshake::{Greeting, HandshakeResponse};
use pointsman_protocol::ok::OkPacket;
use thiserror::Error;

use crate::buffer::Lane;
use crate::error::ClientError;
use crate::exchange::{Exchange, ExchangeError};
use crate::tls::ClientTls;

/// Who logs in, and as what kind of client.
#[derive(Debug)]
pub struct Applicant<'a> {
    pub user: &'a [u8],
    pub credential: &'a Arc<Credential>,
    /// What the client that this is for has agreed with us.
    pub client: Capabilities,
    pub mariadb: MariadbCapabilities,
    pub collation: u16,
    pub schema: Option<&'a [u8]>,
    pub attributes: &'a [u8],
}

/// A connection that the server has let in.
#[derive(Debug)]
pub struct Admitted {
    pub lane: Lane,
    pub greeting: Greeting,
    pub capabilities: Capabilities,
    pub status: Status,
}

/// Why a server could not be logged in to.
#[derive(Debug, Error)]
pub enum AuthenticateError {
    #[error(transparent)]
    Exchange(#[from] ExchangeError),
    #[error("malformed packet from the server: {0}")]
    Malformed(#[from] Malformed),
    #[error(transparent)]
    Login(#[from] auth::LoginError),
    #[error("the server offers no TLS")]
    NoTls,
    #[error("TLS failed: {0}")]
    Tls(#[source] io::Error),
    #[error("the server lacks {0:?} {1:?}, which the client was offered")]
    Lacks(Capabilities, MariadbCapabilities),
    #[error("the server refused the login: {} ({})", String::from_utf8_lossy(&.0.message), .0.code)]
    Refused(ClientError),
}

impl From<io::Error> for AuthenticateError {
    fn from(error: io::Error) -> Self {
        Self::Exchange(error.into())
    }
}

/// What the client has a say in: passed on as the client agreed it, because the server acts on it or answers in
/// another form.
pub const RELAYED: Capabilities = Capabilities::FOUND_ROWS
    .union(Capabilities::NO_SCHEMA)
    .union(Capabilities::ODBC)
    .union(Capabilities::LOCAL_FILES)
    .union(Capabilities::IGNORE_SPACE)
    .union(Capabilities::INTERACTIVE)
    .union(Capabilities::MULTI_STATEMENTS)
    .union(Capabilities::MULTI_RESULTS)
    .union(Capabilities::PS_MULTI_RESULTS)
    .union(Capabilities::CAN_HANDLE_EXPIRED_PASSWORDS)
    .union(Capabilities::DEPRECATE_EOF)
    .union(Capabilities::QUERY_ATTRIBUTES);

/// What every connection to a server has, where the server has it.
const OWN: Capabilities = Capabilities::LONG_FLAG
    .union(Capabilities::PROTOCOL_41)
    .union(Capabilities::TRANSACTIONS)
    .union(Capabilities::RESERVED)
    .union(Capabilities::SECURE_CONNECTION)
    .union(Capabilities::PLUGIN_AUTH)
    .union(Capabilities::PLUGIN_AUTH_LENENC_CLIENT_DATA)
    .union(Capabilities::CONNECT_ATTRS)
    .union(Capabilities::SESSION_TRACK);

/// Logs in over `lane`, which must be fresh. `host` is what the server's certificate must name.
///
/// # Errors
///
/// See [`AuthenticateError`]. Not cancel safe.
pub async fn authenticate(
    mut lane: Lane,
    applicant: &Applicant<'_>,
    tls: Option<&ClientTls>,
    host: &str,
) -> Result<Admitted, AuthenticateError> {
    let greeting = read_greeting(&mut lane).await?;
    let mut capabilities = agree(applicant, &greeting)?;
    let mut sequence = 1;
    if let Some(tls) = tls {
        if greeting.capabilities.contains(Capabilities::SSL) {
            capabilities |= Capabilities::SSL;
            let head = applicant.response_head(capabilities);
            (lane, sequence) = encrypt(lane, &head, tls, host).await?;
        } else if tls.is_required() {
            return Err(AuthenticateError::NoTls);
        }
    }
    let mut exchange = Exchange { lane: &mut lane, sequence, limit: MAX_PAYLOAD_BYTES };
    let ok = log_in(&mut exchange, applicant, &greeting, capabilities).await?;
    let status = OkPacket::parse(&ok, capabilities)?.status;
    Ok(Admitted { lane, greeting, capabilities, status })
}

/// Asks for TLS and goes on through it; gives the number of the next packet, too.
async fn encrypt(
    mut lane: Lane,
    head: &HandshakeResponse<'_>,
    tls: &ClientTls,
    host: &str,
) -> Result<(Lane, u8), AuthenticateError> {
    let mut payload = Vec::new();
    head.ssl_request().write(&mut payload);
    let mut exchange = Exchange { lane: &mut lane, sequence: 1, limit: MAX_PAYLOAD_BYTES };
    exchange.write(&payload).await?;
    let sequence = exchange.sequence;
    // What a server sends in clear before TLS has begun is nobody's word.
    let (stream, _unread) = lane.into_parts();
    let stream = tls.connect(stream, host).await.map_err(AuthenticateError::Tls)?;
    Ok((Lane::new(stream), sequence))
}

/// Reads the server's first packet: its greeting, or why it does not want to be talked to.
///
/// # Errors
///
/// See [`AuthenticateError`].
pub async fn read_greeting(lane: &mut Lane) -> Result<Greeting, AuthenticateError> {
    let payload = Exchange { lane, sequence: 0, limit: MAX_PAYLOAD_BYTES }.read().await?;
    if payload.first() == Some(&ErrPacket::HEADER) {
        return Err(refused(&payload, Capabilities::empty()));
    }
    Ok(Greeting::parse(&payload)?)
}

/// Sends the response and follows the authentication to its verdict; gives the OK packet.
async fn log_in(
    exchange: &mut Exchange<'_>,
    applicant: &Applicant<'_>,
    greeting: &Greeting,
    capabilities: Capabilities,
) -> Result<Vec<u8>, AuthenticateError> {
    let secure = exchange.lane.stream().is_confidential();
    let (mut login, answer) =
        Login::start(applicant.credential.clone(), &greeting.plugin, &greeting.nonce, secure);
    let response = HandshakeResponse {
        user: applicant.user,
        answer: answer.payload(),
        schema: applicant.schema,
        plugin: Some(login.plugin().name().as_bytes()),
        attributes: applicant.attributes,
        ..applicant.response_head(capabilities)
    };
    let mut payload = Vec::new();
    response.write(&mut payload);
    exchange.write(&payload).await?;
    loop {
        let payload = exchange.read().await?;
        login = match login.on_packet(&payload)? {
            Reply::Send(answer, login) => {
                exchange.write(answer.payload()).await?;
                login
            }
            Reply::Wait(login) => login,
            Reply::Accepted => return Ok(payload.to_vec()),
            Reply::Refused => return Err(refused(&payload, capabilities)),
        };
    }
}

/// The error that an ERR packet stands for.
pub(super) fn refused(payload: &[u8], capabilities: Capabilities) -> AuthenticateError {
    match ErrPacket::parse(payload, capabilities) {
        Ok(err) => AuthenticateError::Refused(err.into()),
        Err(malformed) => malformed.into(),
    }
}

impl Applicant<'_> {
    /// The part of the response that comes before the user's name.
    fn response_head(&self, capabilities: Capabilities) -> HandshakeResponse<'static> {
        HandshakeResponse {
            capabilities,
            mariadb: self.mariadb,
            max_packet: MAX_PACKET_BYTES,
            collation: u8::try_from(self.collation).unwrap_or(UTF8MB4_GENERAL_CI),
            ..HandshakeResponse::default()
        }
    }
}

/// What a client's flags come to on a connection to a server: part of what makes connections interchangeable.
pub fn towards_server(client: Capabilities) -> Capabilities {
    client & RELAYED
}

/// The flags for the server: the client's where they change what the server does, ours otherwise.
fn agree(applicant: &Applicant<'_>, greeting: &Greeting) -> Result<Capabilities, AuthenticateError> {
    let relayed = towards_server(applicant.client);
    let missing = relayed - greeting.capabilities;
    let missing_mariadb = applicant.mariadb - greeting.mariadb;
    if !missing.is_empty() || !missing_mariadb.is_empty() {
        return Err(AuthenticateError::Lacks(missing, missing_mariadb));
    }
    let mut capabilities = relayed | (OWN & greeting.capabilities);
    // MariaDB reads its own flags only where this one is missing.
    capabilities.set(Capabilities::LONG_PASSWORD, applicant.mariadb.is_empty());
    capabilities.set(Capabilities::CONNECT_WITH_DB, applicant.schema.is_some());
    Ok(capabilities)
}

/// What we say the largest packet is; servers take no notice of it.
const MAX_PACKET_BYTES: u32 = 1 << 30;
/// No packet of a login is longer.
const MAX_PAYLOAD_BYTES: usize = 64 * 1024;
/// Where the client's collation does not fit into the login's one byte: set right by the first statement.
const UTF8MB4_GENERAL_CI: u8 = 45;

#[cfg(test)]
mod tests {
    use pointsman_protocol::auth::{AuthSwitch, more_data};
    use pointsman_protocol::handshake::ClientHello;
    use tokio::net::UnixStream;

    use super::*;
    use crate::net::Stream;

    const NATIVE: &str = "mysql_native_password";
    const CACHING: &str = "caching_sha2_password";
    const MODERN: Capabilities =
        RELAYED.union(OWN).union(Capabilities::LONG_PASSWORD).union(Capabilities::CONNECT_WITH_DB);

    fn greeting(capabilities: Capabilities, plugin: &str) -> Vec<u8> {
        let greeting = Greeting {
            version: b"9.7.4".to_vec(),
            connection_id: 7,
            nonce: [b'n'; 20],
            capabilities,
            mariadb: MariadbCapabilities::empty(),
            collation: 255,
            status: Status::AUTOCOMMIT,
            plugin: plugin.as_bytes().to_vec(),
        };
        let mut payload = Vec::new();
        greeting.write(&mut payload);
        payload
    }

    fn ok() -> Vec<u8> {
        let mut payload = Vec::new();
        let ok = OkPacket { status: Status::AUTOCOMMIT, ..OkPacket::default() };
        ok.write(&mut payload, OkPacket::HEADER, MODERN);
        payload
    }

    fn error(code: u16, capabilities: Capabilities) -> Vec<u8> {
        let mut payload = Vec::new();
        ErrPacket::new(code, *b"28000", b"no").write(&mut payload, capabilities);
        payload
    }

    /// Plays a server that says `lines`, hears a packet after each of the first `answers`, and hangs up. Gives what the
    /// client has sent, and what came of it.
    async fn play(
        lines: Vec<Vec<u8>>,
        answers: usize,
        client: Capabilities,
    ) -> (Vec<Vec<u8>>, Result<Admitted, AuthenticateError>) {
        let (here, there) = UnixStream::pair().expect("a pair of sockets");
        let server = async move {
            let mut lane = Lane::new(Stream::unix(there));
            let mut exchange = Exchange { lane: &mut lane, sequence: 0, limit: MAX_PAYLOAD_BYTES };
            let mut heard = Vec::new();
            for (at, line) in lines.into_iter().enumerate() {
                exchange.write(&line).await.expect("a client that listens");
                if at < answers {
                    let Ok(answer) = exchange.read().await else { break };
                    heard.push(answer.to_vec());
                }
            }
            heard
        };
        let credential = Arc::new(Credential::from_password(b"pw"));
        let applicant = Applicant {
            user: b"app",
            credential: &credential,
            client,
            mariadb: MariadbCapabilities::empty(),
            collation: 300,
            schema: Some(b"shop"),
            attributes: b"\x01a\x01b",
        };
        let client = authenticate(Lane::new(Stream::unix(here)), &applicant, None, "db-1");
        tokio::join!(server, client)
    }

    /// Every set of flags that a client can have comes out at the server, with ours added.
    #[tokio::test]
    async fn the_clients_flags_reach_the_server() {
        let flags: Vec<Capabilities> = RELAYED.iter().collect();
        for bits in 0..1_u32 << flags.len() {
            let chosen = flags.iter().enumerate().filter(|(at, _)| bits >> at & 1 == 1);
            let client =
                chosen.fold(Capabilities::SSL | Capabilities::COMPRESS, |all, (_, flag)| all | *flag);
            let (heard, admitted) = play(vec![greeting(MODERN, NATIVE), ok()], 1, client).await;
            let admitted = admitted.expect("a login");
            let Ok(ClientHello::Response(response)) = ClientHello::parse(&heard[0], false) else {
                panic!("expected a response");
            };
            assert_eq!(response.capabilities, admitted.capabilities);
            assert_eq!(response.capabilities & RELAYED, client & RELAYED);
            assert_eq!(
                response.capabilities - RELAYED,
                OWN | Capabilities::LONG_PASSWORD | Capabilities::CONNECT_WITH_DB
            );
            assert_eq!((response.user, response.schema), (&b"app"[..], Some(&b"shop"[..])));
            assert_eq!((response.collation, response.attributes), (UTF8MB4_GENERAL_CI, &b"\x01a\x01b"[..]));
            assert_eq!(response.answer.len(), 20);
        }
    }

    #[tokio::test]
    async fn a_server_that_lacks_what_was_offered_is_not_used() {
        for flag in RELAYED.iter() {
            let (_, admitted) = play(vec![greeting(MODERN - flag, NATIVE), ok()], 1, flag).await;
            assert!(matches!(admitted, Err(AuthenticateError::Lacks(lacking, _)) if lacking == flag));
            let (_, admitted) = play(vec![greeting(MODERN - flag, NATIVE), ok()], 1, RELAYED - flag).await;
            assert!(admitted.is_ok());
        }
        // What is ours alone may be missing.
        let old = Capabilities::PROTOCOL_41 | Capabilities::SECURE_CONNECTION;
        let (_, admitted) = play(vec![greeting(old, NATIVE), ok()], 1, Capabilities::empty()).await;
        assert_eq!(
            admitted.expect("a login").capabilities,
            old | Capabilities::LONG_PASSWORD | Capabilities::CONNECT_WITH_DB
        );
    }

    #[tokio::test]
    async fn conversations() {
        let nonce = [&[b'm'; 20][..], &[0]].concat();
        let switch = |plugin: &str| AuthSwitch { plugin: plugin.as_bytes(), data: &nonce }.to_payload();
        let hello = || greeting(MODERN, CACHING);
        check(vec![hello(), more_data(&[3])], 1, "cut off").await;
        check(vec![hello(), more_data(&[4]), ok()], 2, "in").await;
        check(vec![hello(), switch(NATIVE), ok()], 2, "in").await;
        check(vec![hello(), switch("dialog")], 1, "unfit").await;
        check(vec![hello(), error(1045, MODERN)], 1, "refused with 1045").await;
        check(vec![error(1040, Capabilities::empty())], 0, "refused with 1040").await;
        check(vec![b"\x0a9.7".to_vec()], 0, "malformed").await;
        check(vec![vec![0x09]], 0, "malformed").await;
        check(vec![vec![0; MAX_PAYLOAD_BYTES + 1]], 0, "too large").await;
        check(vec![], 0, "cut off").await;
    }

    async fn check(lines: Vec<Vec<u8>>, packets: usize, expected: &str) {
        let (heard, admitted) = play(lines, packets, Capabilities::empty()).await;
        let found = match admitted {
            Ok(_) => String::from("in"),
            Err(AuthenticateError::Refused(error)) => format!("refused with {}", error.code),
            Err(AuthenticateError::Login(_)) => String::from("unfit"),
            Err(AuthenticateError::Malformed(_)) => String::from("malformed"),
            Err(AuthenticateError::Exchange(ExchangeError::TooLarge { .. })) => String::from("too large"),
            Err(AuthenticateError::Exchange(ExchangeError::Io(_))) => String::from("cut off"),
            Err(other) => other.to_string(),
        };
        assert_eq!((found.as_str(), heard.len()), (expected, packets));
    }
}
