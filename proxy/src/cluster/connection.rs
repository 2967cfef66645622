//! Connections of the service account to servers: every call has a limit, and a connection that missed one is gone.
//!
//! An answer that comes after its limit would be taken for the answer to the next question, so a timed-out
//! connection is closed and never used again.

use std::collections::BTreeSet;
use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, DriverError, IoError, Opts, OptsBuilder, SslOpts};
use pointsman_config::{BackendTlsMode, Config, Secret};

/// What a session of the service account sets first: statements that it reads back must not depend on the
/// server's defaults. `max_statement_time` is MariaDB's alone and says so in its comment.
const SETUP: &str =
    "SET SESSION sql_mode = '', long_query_time = 31536000 /*M!100000 , max_statement_time = 0 */";

/// Who the program is at the servers, and how it reaches them.
#[derive(Debug)]
pub struct ServiceAccount {
    user: String,
    password: Secret,
    tls: Option<SslOpts>,
    /// TLS may be left out where a server does not offer it.
    optional_tls: bool,
    /// Addresses of servers that did not offer it.
    without_tls: Mutex<BTreeSet<String>>,
}

impl ServiceAccount {
    pub fn new(config: &Config) -> Self {
        Self {
            user: config.user.clone(),
            password: config.password.clone(),
            tls: tls_options(config),
            optional_tls: config.backend_tls.mode == BackendTlsMode::Preferred,
            without_tls: Mutex::default(),
        }
    }

    pub fn user(&self) -> &str {
        &self.user
    }

    /// Logs in to the server at `address` (`host:port`), which is resolved now.
    ///
    /// # Errors
    ///
    /// [`ConnectionError`], also when all this takes longer than `limit`.
    pub async fn connect(
        &self,
        address: &str,
        limit: Duration,
    ) -> Result<ServiceConnection, ConnectionError> {
        let deadline = tokio::time::Instant::now() + limit;
        let remaining = || deadline.saturating_duration_since(tokio::time::Instant::now());
        let tls = self.tls.clone().filter(|_| !self.known_without_tls(address));
        let conn = match connect(self.options(address, tls)?, limit).await {
            Err(ConnectionError::NoTls) if self.optional_tls => {
                self.remember(address, true);
                connect(self.options(address, None)?, remaining()).await
            }
            Err(refused @ ConnectionError::Refused(_)) => {
                self.remember(address, false);
                Err(refused)
            }
            other => other,
        }?;
        let mut connection = ServiceConnection { conn: Some(conn) };
        connection.run(SETUP, remaining()).await?;
        Ok(connection)
    }

    fn options(&self, address: &str, tls: Option<SslOpts>) -> Result<Opts, ConnectionError> {
        let (host, port) = split_address(address).ok_or(ConnectionError::Address)?;
        let options = OptsBuilder::default()
            .ip_or_hostname(host)
            .tcp_port(port)
            .user(Some(&self.user))
            .pass(Some(self.password.expose()))
            .ssl_opts(tls)
            .prefer_socket(false)
            .tcp_keepalive(Some(KEEPALIVE))
            .tcp_nodelay(true)
            .stmt_cache_size(0)
            .max_allowed_packet(Some(MAX_PACKET_BYTES))
            .wait_timeout(Some(NEVER_SECONDS))
            .connect_attribute("program_name", "pointsman");
        Ok(options.into())
    }

    fn known_without_tls(&self, address: &str) -> bool {
        self.without_tls.lock().unwrap_or_else(PoisonError::into_inner).contains(address)
    }

    /// A server that was restarted may offer what it did not before.
    fn remember(&self, address: &str, without_tls: bool) {
        let mut known = self.without_tls.lock().unwrap_or_else(PoisonError::into_inner);
        if without_tls {
            known.insert(address.to_owned());
        } else {
            known.remove(address);
        }
    }
}

const KEEPALIVE: Duration = Duration::from_secs(10);
/// What an answer may be long; account tables and GTID sets are far from it.
const MAX_PACKET_BYTES: usize = 64 * 1024 * 1024;
/// Read from nowhere: the connections are used too often to expire.
const NEVER_SECONDS: usize = 31_536_000;

fn tls_options(config: &Config) -> Option<SslOpts> {
    let tls = &config.backend_tls;
    let (any_certificate, any_name) = match tls.mode {
        BackendTlsMode::Disabled => return None,
        BackendTlsMode::Preferred | BackendTlsMode::Required => (true, true),
        BackendTlsMode::VerifyCa => (false, true),
        BackendTlsMode::VerifyIdentity => (false, false),
    };
    let authorities: Vec<_> = tls.ca_file.iter().map(|file| file.clone().into()).collect();
    let identity = tls.cert_file.as_ref().zip(tls.key_file.as_ref());
    let identity = identity.map(|(cert, key): (&PathBuf, &PathBuf)| {
        mysql_async::ClientIdentity::new(cert.clone().into(), key.clone().into())
    });
    Some(
        SslOpts::default()
            .with_disable_built_in_roots(!authorities.is_empty())
            .with_root_certs(authorities)
            .with_client_identity(identity)
            .with_danger_accept_invalid_certs(any_certificate)
            .with_danger_skip_domain_validation(any_name),
    )
}

/// Host and port of `host:port`; brackets around an IPv6 address are taken off.
pub(crate) fn split_address(address: &str) -> Option<(String, u16)> {
    let (host, port) = address.rsplit_once(':')?;
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    Some((host.to_owned(), port.parse().ok()?))
}

async fn connect(options: Opts, limit: Duration) -> Result<Conn, ConnectionError> {
    let mut connecting = Conn::new(options);
    match tokio::time::timeout(limit, &mut connecting).await {
        Ok(outcome) => outcome.map_err(ConnectionError::from),
        Err(_) => {
            abandon(connecting);
            Err(ConnectionError::TimedOut(limit))
        }
    }
}

/// A logged-in connection of the service account.
#[derive(Debug)]
pub struct ServiceConnection {
    /// None once a call was cut off.
    conn: Option<Conn>,
}

impl ServiceConnection {
    /// The server's number of this connection.
    pub fn thread_id(&self) -> u32 {
        self.conn.as_ref().map_or(0, Conn::id)
    }

    /// Runs one statement and reads its rows.
    ///
    /// # Errors
    ///
    /// [`ConnectionError`]; the connection is of no use any more unless that is [`ConnectionError::Server`].
    pub async fn rows(&mut self, sql: &str, limit: Duration) -> Result<Vec<Record>, ConnectionError> {
        Ok(self.results(sql, limit).await?.into_iter().next().unwrap_or_default())
    }

    /// Runs statements separated by semicolons in one round trip and reads the rows of each.
    ///
    /// # Errors
    ///
    /// As [`ServiceConnection::rows`]; an error in one statement is an error of all.
    pub async fn results(&mut self, sql: &str, limit: Duration) -> Result<Vec<Vec<Record>>, ConnectionError> {
        let conn = self.conn.as_mut().ok_or(ConnectionError::Closed)?;
        let outcome = within(limit, read_sets(conn, sql)).await;
        self.close_unless_usable(outcome)
    }

    /// Runs one statement and drops what it answers.
    ///
    /// # Errors
    ///
    /// As [`ServiceConnection::rows`].
    pub async fn run(&mut self, sql: &str, limit: Duration) -> Result<(), ConnectionError> {
        let conn = self.conn.as_mut().ok_or(ConnectionError::Closed)?;
        let outcome = within(limit, conn.query_drop(sql)).await;
        self.close_unless_usable(outcome)
    }

    /// A call that was cut off leaves an answer to come on the connection.
    fn close_unless_usable<T>(&mut self, outcome: Result<T, ConnectionError>) -> Result<T, ConnectionError> {
        if !matches!(outcome, Ok(_) | Err(ConnectionError::Server { .. })) {
            self.close();
        }
        outcome
    }

    fn close(&mut self) {
        if let Some(conn) = self.conn.take() {
            abandon(conn);
        }
    }
}

impl Drop for ServiceConnection {
    fn drop(&mut self) {
        self.close();
    }
}

async fn read_sets(conn: &mut Conn, sql: &str) -> mysql_async::Result<Vec<Vec<Record>>> {
    let mut result = conn.query_iter(sql).await?;
    let mut sets = Vec::new();
    while !result.is_empty() {
        let rows = result.collect::<mysql_async::Row>().await?;
        sets.push(rows.into_iter().map(Record).collect());
    }
    Ok(sets)
}

async fn within<T>(
    limit: Duration,
    call: impl Future<Output = mysql_async::Result<T>>,
) -> Result<T, ConnectionError> {
    let outcome = tokio::time::timeout(limit, call).await;
    outcome.map_err(|_| ConnectionError::TimedOut(limit))?.map_err(ConnectionError::from)
}

/// Drops a connection, or the making of one, where no runtime is at hand.
///
/// The driver takes leave of the server in a task of its own, which would wait for as long as a frozen server keeps
/// silent, and panics in the middle of a TLS handshake. Without a runtime it just closes the socket.
fn abandon(connection: impl Send + 'static) {
    // When no thread can be had, the connection is dropped here after all.
    drop(std::thread::Builder::new().name("abandon".into()).spawn(move || drop(connection)));
}

/// One row of an answer, by column name; all values as text.
#[derive(Debug)]
pub struct Record(mysql_async::Row);

impl Record {
    /// The value of the first of `names` that the answer has; none also for NULL.
    pub fn text(&self, names: &[&str]) -> Option<String> {
        let columns = self.0.columns_ref();
        let at = names.iter().find_map(|name| {
            columns.iter().position(|column| column.name_ref().eq_ignore_ascii_case(name.as_bytes()))
        })?;
        self.at(at)
    }

    /// The columns' names and values, without those that are NULL.
    pub fn pairs(&self) -> Vec<(String, String)> {
        let names = self.0.columns_ref().iter().map(|column| column.name_str().into_owned()).enumerate();
        names.filter_map(|(at, name)| Some((name, self.at(at)?))).collect()
    }

    /// The value of a column by its place.
    pub fn at(&self, index: usize) -> Option<String> {
        // Statements without parameters are answered as text: every value is bytes or NULL.
        let mysql_async::Value::Bytes(bytes) = self.0.as_ref(index)? else { return None };
        Some(String::from_utf8_lossy(bytes).into_owned())
    }

    /// As [`Record::text`], empty where there is no value.
    pub fn text_or_empty(&self, names: &[&str]) -> String {
        self.text(names).unwrap_or_default()
    }

    /// As [`Record::text`], where the text is a number.
    pub fn number<T: std::str::FromStr>(&self, names: &[&str]) -> Option<T> {
        self.text(names)?.trim().parse().ok()
    }

    /// Whether a value says yes: `1`, `ON` or `Yes`.
    pub fn is_on(&self, names: &[&str]) -> bool {
        self.text(names).is_some_and(|text| is_on(&text))
    }
}

/// Whether a server's text for a switch means on.
pub fn is_on(text: &str) -> bool {
    text == "1" || text.eq_ignore_ascii_case("on") || text.eq_ignore_ascii_case("yes")
}

/// Why a server could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum ConnectionError {
    #[error("no answer within {} ms", .0.as_millis())]
    TimedOut(Duration),
    /// Nothing listens on the address.
    #[error("connection refused")]
    Refused(#[source] io::Error),
    /// The server ended the connection, or the network did.
    #[error("connection lost: {0}")]
    Lost(#[source] io::Error),
    #[error("error {code}: {message}")]
    Server { code: u16, message: String },
    #[error("the server does not offer TLS")]
    NoTls,
    #[error("expected host:port as address")]
    Address,
    #[error("TLS handshake failed: {0}")]
    Tls(String),
    #[error("{0}")]
    Driver(#[source] Box<mysql_async::Error>),
    /// An earlier call was cut off.
    #[error("connection is closed")]
    Closed,
}

impl From<mysql_async::Error> for ConnectionError {
    fn from(error: mysql_async::Error) -> Self {
        match error {
            mysql_async::Error::Server(error) => Self::Server { code: error.code, message: error.message },
            mysql_async::Error::Io(IoError::Io(error)) => {
                if error.kind() == io::ErrorKind::ConnectionRefused {
                    Self::Refused(error)
                } else {
                    Self::Lost(error)
                }
            }
            mysql_async::Error::Io(IoError::Tls(error)) => Self::Tls(error.to_string()),
            mysql_async::Error::Driver(DriverError::NoClientSslFlagFromServer) => Self::NoTls,
            mysql_async::Error::Driver(DriverError::ConnectionClosed) => {
                Self::Lost(io::ErrorKind::UnexpectedEof.into())
            }
            error @ (mysql_async::Error::Driver(_)
            | mysql_async::Error::Other(_)
            | mysql_async::Error::Url(_)) => Self::Driver(Box::new(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_addresses() {
        let check = |address: &str, expected: Option<(&str, u16)>| {
            let expected = expected.map(|(host, port)| (host.to_owned(), port));
            assert_eq!(split_address(address), expected, "{address}");
        };
        check("db-1:3306", Some(("db-1", 3306)));
        check("[::1]:3307", Some(("::1", 3307)));
        check("10.0.0.1:65536", None);
        check("db-1", None);
    }
}
