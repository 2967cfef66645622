//! Opens a server connection for a client that has logged in.

use std::io;
use std::time::{Duration, Instant};

use pointsman_protocol::capability::{Capabilities, Status};
use pointsman_router::intent::Flavour;
use pointsman_router::session::ConnectionState;
use pointsman_router::topology::ServerId;
use thiserror::Error;
use tokio::net::TcpStream;

pub use super::authenticate::towards_server;
use super::authenticate::{Admitted, Applicant, AuthenticateError, authenticate};
use super::base_session;
pub use super::base_session::{CharacterSet, base_set_sql};
use super::budget::Permit;
use super::connection::{LastInsertId, ServerConnection};
use super::prepared::PreparedStatements;
use crate::buffer::Lane;
use crate::error::ClientError;
use crate::net::{Side, Stream, tune};
use crate::session::login::Identity;
use crate::users::Account;
use crate::worker::Worker;

/// A connection to be opened.
#[derive(Debug)]
pub struct ConnectRequest<'a> {
    pub server: ServerId,
    /// `host:port`, resolved anew each time.
    pub address: &'a str,
    /// The client that it is for.
    pub login: &'a Identity,
    pub schema: Option<&'a [u8]>,
    pub epoch: u64,
    pub permit: Permit,
}

/// Why no connection was opened.
#[derive(Debug, Error)]
pub enum ConnectError {
    #[error("cannot connect: {0}")]
    Io(#[source] io::Error),
    #[error("no connection within {CONNECT_TIMEOUT:?}")]
    TimedOut,
    #[error(transparent)]
    Authenticate(AuthenticateError),
    /// The server does not want this client; the error is fit for its eyes.
    #[error("{} ({})", String::from_utf8_lossy(&.0.message), .0.code)]
    Refused(ClientError),
}

impl From<AuthenticateError> for ConnectError {
    fn from(error: AuthenticateError) -> Self {
        match error {
            AuthenticateError::Refused(error) => Self::Refused(error),
            AuthenticateError::Login(error) => {
                Self::Refused(ClientError::new(1045, b"28000", format!("Access denied: {error}")))
            }
            AuthenticateError::Exchange(_)
            | AuthenticateError::Malformed(_)
            | AuthenticateError::NoTls
            | AuthenticateError::Tls(_)
            | AuthenticateError::Lacks(..) => Self::Authenticate(error),
        }
    }
}

/// Connects, logs in, sets our trackers, and makes sure that the server took the login for the same account as we
/// did.
///
/// # Errors
///
/// See [`ConnectError`]. Not cancel safe: a call that is dropped closes what it has opened.
pub async fn connect(
    worker: &Worker,
    request: ConnectRequest<'_>,
) -> Result<Box<ServerConnection>, ConnectError> {
    let opened = tokio::time::timeout(CONNECT_TIMEOUT, open(worker, request)).await;
    opened.map_err(|_elapsed| ConnectError::TimedOut)?
}

async fn open(worker: &Worker, request: ConnectRequest<'_>) -> Result<Box<ServerConnection>, ConnectError> {
    let ConnectRequest { server, address, login, schema, epoch, permit } = request;
    let stream = dial(address).await.map_err(ConnectError::Io)?;
    let applicant = Applicant {
        user: &login.user,
        credential: &login.credential,
        client: login.capabilities,
        mariadb: login.mariadb,
        collation: login.collation,
        schema,
        attributes: &login.attributes,
    };
    let tls = worker.shared.client_tls.as_ref();
    let host = address.rsplit_once(':').map_or(address, |(host, _port)| host);
    let admitted = authenticate(Lane::new(stream), &applicant, tls, host).await?;
    let Admitted { mut lane, greeting, capabilities, status } = admitted;
    worker.shared.logins.heard(server, &greeting);
    let flavour = flavour_of(&greeting.version);
    let character_set = begin(&mut lane, flavour, capabilities, login).await?;
    // What only changes an expired password is this client's, and nobody else's.
    let epoch = if character_set.is_some() { epoch } else { NO_EPOCH };
    let character_set = character_set.unwrap_or_default();
    let now = Instant::now();
    Ok(Box::new(ServerConnection {
        lane,
        server,
        thread_id: greeting.connection_id,
        serial: worker.shared.next_serial(),
        key: login.key,
        epoch,
        worker: worker.index,
        capabilities,
        flavour,
        state: ConnectionState::new(schema, status.contains(Status::AUTOCOMMIT))
            .with_login_charset(&character_set.elements()),
        character_set,
        status,
        prepared: PreparedStatements::default(),
        owner: 0,
        insert_id: LastInsertId::Is(0),
        has_warnings: false,
        opened: now,
        idle_since: now,
        permit,
    }))
}

/// Begins the session that every connection has, and gives its character set; none for a connection that may do
/// nothing but change an expired password, as the client has said that it can.
async fn begin(
    lane: &mut Lane,
    flavour: Flavour,
    capabilities: Capabilities,
    login: &Identity,
) -> Result<Option<CharacterSet>, ConnectError> {
    match base_session::begin(lane, flavour, capabilities, login.collation).await {
        Ok(base) => {
            check_account(&login.account, &base.account)?;
            Ok(Some(base.character_set))
        }
        Err(AuthenticateError::Refused(error)) if error.code == ER_MUST_CHANGE_PASSWORD => Ok(None),
        Err(error) => Err(error.into()),
    }
}

async fn dial(address: &str) -> io::Result<Stream> {
    let socket = TcpStream::connect(address).await?;
    tune(&socket, Side::Server)?;
    Ok(Stream::tcp(socket))
}

fn flavour_of(version: &[u8]) -> Flavour {
    let is_mariadb = version.windows(MARIADB.len()).any(|window| window == MARIADB);
    if is_mariadb { Flavour::Mariadb } else { Flavour::Mysql }
}

/// Servers choose the account by our address, we by the client's: both must come to the same.
fn check_account(account: &Account, current_user: &[u8]) -> Result<(), ConnectError> {
    let expected = format!("{}@{}", account.user, account.host);
    let at = current_user.iter().rposition(|byte| *byte == b'@').unwrap_or(current_user.len());
    let (user, host) = current_user.split_at(at);
    // No host is known of accounts that are listed in the configuration.
    let host_fits = account.host.is_empty()
        || host.get(1..).is_some_and(|host| host.eq_ignore_ascii_case(account.host.as_bytes()));
    if user == account.user.as_bytes() && host_fits {
        return Ok(());
    }
    let found = String::from_utf8_lossy(current_user);
    let text = format!(
        "Access denied: the server takes a login through Pointsman for account '{found}', not for '{expected}'; \
         see pointsman check"
    );
    Err(ConnectError::Refused(ClientError::new(1045, b"28000", text)))
}

/// `ER_MUST_CHANGE_PASSWORD` of both flavours.
const ER_MUST_CHANGE_PASSWORD: u16 = 1820;
/// No topology has this epoch, so a connection with it is lent to nobody.
const NO_EPOCH: u64 = u64::MAX;
const MARIADB: &[u8] = b"MariaDB";
/// From the first packet to the end of the login.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use pointsman_protocol::auth::Verifier;

    use super::*;
    use crate::users::Require;

    #[test]
    fn the_server_must_mean_the_same_account() {
        check("app", "%", "app@%", true);
        check("app", "10.0.%.EXAMPLE", "app@10.0.%.example", true);
        check("", "%", "@%", true);
        check("app", "%", "app@localhost", false);
        check("app", "%", "@%", false);
        // Listed in the configuration: any account of that name will do.
        check("app", "", "app@10.0.0.1", true);
        check("app", "", "@localhost", false);
        check("app", "%", "APP@%", false);
        check("app", "%", "app", false);
    }

    #[track_caller]
    fn check(user: &str, host: &str, current_user: &str, same: bool) {
        let account = Account {
            id: 1,
            version: 1,
            user: user.into(),
            host: host.into(),
            verifier: Arc::new(Verifier::Empty),
            require: Require::None,
            locked: false,
            consistency: None,
            listener: None,
            stopped_by_read_only: true,
            privileged: false,
        };
        match check_account(&account, current_user.as_bytes()) {
            Ok(()) => assert!(same, "{current_user} was taken for {user}@{host}"),
            Err(ConnectError::Refused(error)) => {
                let text = String::from_utf8_lossy(&error.message).into_owned();
                assert!(!same && text.contains(current_user) && text.contains(&format!("'{user}@{host}'")));
            }
            Err(other) => panic!("expected a refusal, got {other}"),
        }
    }

    #[test]
    fn flavours() {
        assert_eq!(flavour_of(b"5.5.5-10.11.6-MariaDB-1"), Flavour::Mariadb);
        assert_eq!(flavour_of(b"11.4.2-MariaDB"), Flavour::Mariadb);
        assert_eq!(flavour_of(b"9.7.4-2"), Flavour::Mysql);
    }
}
