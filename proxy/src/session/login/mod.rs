//! Lets clients in: greeting, TLS, authentication, and the proof by a server that the login is good there, too.
//!
//! The same steps serve COM_CHANGE_USER, on a connection that is open already.

mod change_user;
mod entry;
mod error;
mod memory;
mod offer;
mod proof;
mod verify;

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use pointsman_protocol::auth::{Channel, Credential};
use pointsman_protocol::capability::{Capabilities, MariadbCapabilities, Status};
use pointsman_protocol::compress::Algorithm;
use pointsman_protocol::handshake::{ClientHello, Greeting, MAX_LOGIN_PAYLOAD_BYTES, NONCE_LEN};
use zeroize::Zeroizing;

pub use change_user::{Standing, change_user};
pub use error::LoginError;
pub use memory::LoginMemory;
pub use offer::Offer;
pub(super) use proof::fresh_state;

use self::entry::Entry;
use crate::backend::pool::KeyId;
use crate::buffer::Lane;
use crate::exchange::Exchange;
use crate::net::{ClientAddress, ListenerKind};
use crate::users::Account;
use crate::worker::{Slot, Worker};

/// A client that is in.
#[derive(Debug)]
pub struct LoggedIn {
    pub lane: Lane,
    pub identity: Identity,
}

/// What a login has settled; replaced whole by COM_CHANGE_USER.
#[derive(Debug)]
pub struct Identity {
    pub account: Arc<Account>,
    pub credential: Arc<Credential>,
    /// The name that the client gave; the account's is empty for anonymous accounts.
    pub user: Vec<u8>,
    /// What the client and we can do.
    pub capabilities: Capabilities,
    pub mariadb: MariadbCapabilities,
    pub collation: u16,
    pub schema: Option<Vec<u8>>,
    /// The client's connection attributes, as they go to servers.
    pub attributes: Vec<u8>,
    /// Server connections with this key are interchangeable for this client.
    pub key: KeyId,
    /// The nonce of the greeting, from which COM_CHANGE_USER goes on.
    pub nonce: [u8; NONCE_LEN],
}

/// Where a client stands while it is being let in.
#[derive(Clone, Copy, Debug)]
struct Door<'a> {
    worker: &'a Rc<Worker>,
    slot: &'a Slot,
    listener: ListenerKind,
    address: &'a ClientAddress,
}

/// Greets a client and lets it in; a client that is not let in has been told why.
///
/// # Errors
///
/// See [`LoginError`]. Not cancel safe.
pub async fn login(
    worker: &Rc<Worker>,
    slot: &Rc<Slot>,
    lane: Lane,
    listener: ListenerKind,
    address: &ClientAddress,
) -> Result<LoggedIn, LoginError> {
    let door = Door { worker, slot, listener, address };
    let offer = offer::current(worker).await;
    let nonce = fresh_nonce();
    let received = tokio::time::timeout(HELLO_DEADLINE, door.receive(lane, &offer, nonce)).await;
    let (mut lane, sequence, hello) = received.map_err(|_elapsed| LoginError::Deadline)??;
    let mut exchange = Exchange { lane: &mut lane, sequence, limit: MAX_LOGIN_PAYLOAD_BYTES };
    let (identity, compression) = door.answer_hello(&mut exchange, &hello, &offer, nonce).await?;
    if let Some(algorithm) = compression {
        lane = lane.map_stream(|stream| stream.compressed(algorithm));
    }
    Ok(LoggedIn { lane, identity })
}

impl Door<'_> {
    /// Sends the greeting and waits for the client's response, through TLS where it asks for that.
    async fn receive(
        self,
        mut lane: Lane,
        offer: &Offer,
        nonce: [u8; NONCE_LEN],
    ) -> Result<(Lane, u8, Zeroizing<Vec<u8>>), LoginError> {
        let greeting = Greeting {
            version: offer.version.clone(),
            connection_id: self.slot.id,
            nonce,
            capabilities: offer.capabilities,
            mariadb: offer.mariadb,
            collation: offer.collation,
            status: Status::AUTOCOMMIT,
            plugin: offer.plugin.name().as_bytes().to_vec(),
        };
        let mut payload = Vec::new();
        greeting.write(&mut payload);
        let mut exchange = Exchange { lane: &mut lane, sequence: 0, limit: MAX_LOGIN_PAYLOAD_BYTES };
        exchange.write(&payload).await.map_err(LoginError::io)?;
        let hello = hear(&mut exchange).await?;
        let sequence = exchange.sequence;
        if !matches!(ClientHello::parse(&hello, false), Ok(ClientHello::Ssl(_))) {
            return Ok((lane, sequence, hello));
        }
        let Some(tls) = &self.worker.shared.server_tls else { return Err(LoginError::NoTls) };
        let (stream, early) = lane.into_parts();
        let stream = tls.accept(stream, &early).await.map_err(LoginError::Tls)?;
        let mut lane = Lane::new(stream);
        let mut exchange = Exchange { lane: &mut lane, sequence, limit: MAX_LOGIN_PAYLOAD_BYTES };
        let hello = hear(&mut exchange).await?;
        let sequence = exchange.sequence;
        Ok((lane, sequence, hello))
    }

    /// Takes the response apart and says OK or ERR.
    async fn answer_hello(
        self,
        exchange: &mut Exchange<'_>,
        hello: &[u8],
        offer: &Offer,
        nonce: [u8; NONCE_LEN],
    ) -> Result<(Identity, Option<Algorithm>), LoginError> {
        let over_tls = exchange.lane.stream().is_tls();
        let entered = match ClientHello::parse(hello, over_tls) {
            Ok(ClientHello::Response(response)) => {
                let entry = Entry::of_response(&response, offer, nonce);
                let compression = offer::compression(entry.capabilities, response.zstd_level);
                self.enter(exchange, &entry).await.map(|identity| (identity, compression))
            }
            Ok(ClientHello::TooOld | ClientHello::Ssl(_)) => Err(LoginError::OldProtocol),
            Err(malformed) => Err(LoginError::Malformed(malformed)),
        };
        if let Err(error) = &entered {
            error.tell(exchange).await;
        }
        entered
    }

    fn channel(self, lane: &Lane) -> Channel {
        if lane.stream().is_tls() {
            Channel::Tls
        } else if lane.stream().is_confidential() {
            Channel::Local
        } else {
            Channel::Plain
        }
    }

    /// The client's host as servers name it in their messages.
    fn host(self) -> String {
        match self.address.ip() {
            Some(ip) if !ip.is_loopback() => ip.to_string(),
            Some(_) | None => String::from("localhost"),
        }
    }
}

/// Reads a packet; a client that sends none that can be read is told so.
async fn hear(exchange: &mut Exchange<'_>) -> Result<Zeroizing<Vec<u8>>, LoginError> {
    match exchange.read().await {
        Ok(payload) => Ok(payload),
        Err(error) => {
            let error = LoginError::from(error);
            error.tell(exchange).await;
            Err(error)
        }
    }
}

/// Printable, as servers make theirs: some clients take the nonce for a string.
fn fresh_nonce() -> [u8; NONCE_LEN] {
    rand::random::<[u8; NONCE_LEN]>().map(|byte| FIRST_NONCE_BYTE + byte % NONCE_ALPHABET)
}

/// How long a client may take to answer the greeting, as `connect_timeout` of servers.
const HELLO_DEADLINE: Duration = Duration::from_secs(10);
const FIRST_NONCE_BYTE: u8 = b'%';
const NONCE_ALPHABET: u8 = b'~' - b'%' + 1;
