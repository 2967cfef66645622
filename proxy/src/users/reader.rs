//! The task that reads the accounts of the servers: at the start, from time to time, and when asked.

use std::sync::Arc;
use std::time::Duration;

use pointsman_config::UserSource;
use pointsman_router::intent::Flavour;
use pointsman_router::topology::{ServerView, State, Topology};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use tracing::{info, warn};

use super::row::Row;
use super::table::ServerRules;
use super::{Users, mariadb, mysql};
use crate::cluster::{ConnectionError, Record, ServiceAccount, ServiceConnection};

/// How long one server may take to answer.
const LIMIT: Duration = Duration::from_secs(2);
/// How soon a reading that failed is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// Readings do not follow each other faster, however often they are asked for.
const LEAST_INTERVAL: Duration = Duration::from_millis(50);
/// "SELECT command denied": the service account may not read a table.
const ER_TABLEACCESS_DENIED: u16 = 1142;

/// What the task needs.
#[derive(Debug)]
pub struct Reader {
    pub users: Arc<Users>,
    pub account: Arc<ServiceAccount>,
    pub topology: watch::Receiver<Arc<Topology>>,
    /// The time between two readings that nobody asked for.
    pub period: Duration,
}

impl Reader {
    /// Runs until the topology is published no more. Does nothing where users come from the configuration.
    pub async fn run(mut self) {
        if self.users.source == UserSource::Static {
            return;
        }
        let mut timer = interval(self.period);
        timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let users = self.users.clone();
        let mut told = None;
        let mut source = None;
        let (mut next, mut retry) = (Instant::now(), None);
        loop {
            tokio::select! {
                _ = timer.tick() => {}
                () = users.wanted.notified() => {}
                () = sleep_until(retry.unwrap_or(next)), if retry.is_some() => {}
                changed = self.topology.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    // Only a change of the server that is read from is of interest.
                    let now = sources(&self.topology.borrow_and_update()).first().map(|server| server.id);
                    if now == source {
                        continue;
                    }
                    source = now;
                }
            }
            sleep_until(next).await;
            next = Instant::now() + LEAST_INTERVAL;
            let succeeded = self.read(&mut told).await;
            retry = (!succeeded).then(|| Instant::now() + RETRY);
        }
    }

    /// One reading, of the first server that answers; whether there was one.
    async fn read(&self, told: &mut Option<String>) -> bool {
        let number = self.users.start();
        let topology = self.topology.borrow().clone();
        let mut failure = Failure::NoServer;
        for server in sources(&topology) {
            match read_server(&self.account, &server.address, topology.flavour).await {
                Ok(reading) => {
                    tell(told, &server.name, reading.rows.len(), reading.restricted);
                    self.users.replace(reading.rows, reading.server);
                    self.users.finish(number, true);
                    return true;
                }
                Err(error) => failure = Failure::Server { name: server.name.clone(), error },
            }
        }
        let message = failure.to_string();
        // Before the first look at the servers nothing can be read, which is no news.
        if topology.ready && told.as_deref() != Some(&message) {
            warn!(reason = message, "accounts cannot be read");
            *told = Some(message);
        }
        self.users.finish(number, false);
        false
    }
}

/// Why a reading came to nothing.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("no server is up")]
    NoServer,
    #[error("{name}: {error}{}", grant(error))]
    Server { name: String, error: ConnectionError },
}

/// What to do about a server that refuses.
fn grant(error: &ConnectionError) -> &'static str {
    match error {
        ConnectionError::Server { code: ER_TABLEACCESS_DENIED, .. } => {
            "; the service account needs SELECT on mysql.global_priv (MariaDB) or mysql.user (MySQL)"
        }
        ConnectionError::Server { .. }
        | ConnectionError::TimedOut(_)
        | ConnectionError::Refused(_)
        | ConnectionError::Lost(_)
        | ConnectionError::NoTls
        | ConnectionError::Address
        | ConnectionError::Tls(_)
        | ConnectionError::Driver(_)
        | ConnectionError::Closed => "",
    }
}

/// Says once what was read, and again after it had failed.
fn tell(told: &mut Option<String>, server: &str, accounts: usize, restricted: bool) {
    let message = if restricted { "restricted" } else { "read" };
    if told.as_deref() == Some(message) {
        return;
    }
    info!(server, accounts, "accounts are read");
    if restricted {
        let reason = "the service account may not read who has which role or dynamic privilege";
        info!(reason, "statements with stored functions stay on the primary");
    }
    *told = Some(message.to_owned());
}

/// The primary, and then what else answers.
fn sources(topology: &Topology) -> Vec<&ServerView> {
    let answers = |server: &&ServerView| !matches!(server.state, State::Down | State::Unknown);
    let primary = topology.primary.and_then(|id| topology.server(id));
    let others = topology.servers.iter().filter(|server| Some(server.id) != topology.primary);
    primary.into_iter().chain(others).filter(answers).collect()
}

/// What a server's tables say.
struct Reading {
    rows: Vec<Row>,
    server: ServerRules,
    /// Some table could not be read.
    restricted: bool,
}

async fn read_server(
    account: &ServiceAccount,
    address: &str,
    flavour: Flavour,
) -> Result<Reading, ConnectionError> {
    let mut connection = account.connect(address, LIMIT).await?;
    let names = connection.rows("SELECT @@global.skip_name_resolve", LIMIT).await?;
    let names = names.first().and_then(|row| row.at(0)).is_none_or(|value| value == "0");
    let (rows, restricted) = match flavour {
        Flavour::Mariadb => read_mariadb(&mut connection).await?,
        Flavour::Mysql => read_mysql(&mut connection).await?,
    };
    Ok(Reading { rows, server: ServerRules { flavour, names }, restricted })
}

async fn read_mariadb(connection: &mut ServiceConnection) -> Result<(Vec<Row>, bool), ConnectionError> {
    let accounts: Vec<_> = connection
        .rows(mariadb::ACCOUNTS, LIMIT)
        .await?
        .iter()
        .map(|row| mariadb::Account { host: text(row, 0), user: text(row, 1), document: text(row, 2) })
        .collect();
    let grants = permitted(connection, mariadb::ROLES).await?;
    let grants: Option<Vec<_>> = grants.map(|rows| {
        let grant =
            |row: &Record| mariadb::Grant { user: text(row, 0), host: text(row, 1), role: text(row, 2) };
        rows.iter().map(grant).collect()
    });
    Ok((mariadb::rows(&accounts, grants.as_deref()), grants.is_none()))
}

async fn read_mysql(connection: &mut ServiceConnection) -> Result<(Vec<Row>, bool), ConnectionError> {
    let accounts: Vec<_> = connection.rows(mysql::ACCOUNTS, LIMIT).await?.iter().map(mysql_account).collect();
    let name = |row: &Record, at: usize| (text(row, at), text(row, at + 1));
    let admins = permitted(connection, mysql::ADMINS).await?;
    let roles = permitted(connection, mysql::ROLES).await?;
    let mandatory = connection.rows(mysql::MANDATORY_ROLES, LIMIT).await?;
    let beside = mysql::Beside {
        admins: admins.map(|rows| rows.iter().map(|row| name(row, 0)).collect()),
        roles: roles.map(|rows| rows.iter().map(|row| (name(row, 0), name(row, 2))).collect()),
        has_mandatory_roles: mandatory.iter().any(|row| !text(row, 0).is_empty()),
    };
    let restricted = beside.admins.is_none() || beside.roles.is_none();
    Ok((mysql::rows(&accounts, &beside), restricted))
}

fn mysql_account(row: &Record) -> mysql::Account {
    let column = |name: &str| row.text_or_empty(&[name]);
    mysql::Account {
        user: column("User"),
        host: column("Host"),
        plugin: column("plugin"),
        stored: column("authentication_string"),
        locked: column("account_locked") == "Y",
        ssl_type: column("ssl_type"),
        subject: column("x509_subject"),
        issuer: column("x509_issuer"),
        cipher: column("ssl_cipher"),
        is_super: column("Super_priv") == "Y",
        attributes: column("User_attributes"),
    }
}

/// The rows of a table that the service account may not have a right to.
async fn permitted(
    connection: &mut ServiceConnection,
    sql: &str,
) -> Result<Option<Vec<Record>>, ConnectionError> {
    match connection.rows(sql, LIMIT).await {
        Ok(rows) => Ok(Some(rows)),
        Err(ConnectionError::Server { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

fn text(row: &Record, at: usize) -> String {
    row.at(at).unwrap_or_default()
}
