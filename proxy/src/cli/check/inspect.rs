//! Asks one server everything that `check` judges.

use std::collections::BTreeMap;
use std::time::Duration;

use pointsman_router::discover::{Replication, Report};

use super::accounts::Account;
use super::grants::Grants;
use crate::cluster::connection::ConnectionError;
use crate::cluster::flavour::{self, Flavour, SEMI_SYNC_SQL, VERSION_SQL};
use crate::cluster::subject::ProbeError;
use crate::cluster::{Record, ServiceAccount, ServiceConnection};

/// How long one question may take.
const LIMIT: Duration = Duration::from_secs(10);
/// Tables that are named at most.
const MAX_TABLES: usize = 20;

/// What a server says of itself.
#[derive(Debug, Default)]
pub(super) struct Inspected {
    pub(super) name: String,
    pub(super) report: Report,
    /// The account that the server took the service account for.
    pub(super) current_user: String,
    /// The address that the server sees.
    pub(super) seen_from: String,
    pub(super) grants: Grants,
    /// Global variables, by their names.
    pub(super) variables: BTreeMap<String, String>,
    /// Tables whose changes no transaction can take back, at most [`MAX_TABLES`], and how many there are.
    pub(super) non_transactional: (Vec<String>, usize),
    /// None where the service account may not read them.
    pub(super) accounts: Option<Vec<Account>>,
    /// To look again.
    pub(super) way: Option<(ServiceConnection, &'static dyn Flavour)>,
}

impl Inspected {
    /// Takes a newer report.
    pub(super) async fn look(&mut self) -> Result<(), ProbeError> {
        let (connection, words) = self.way.as_mut().ok_or(ProbeError::NoAnswer)?;
        self.report = report(connection, *words).await?;
        Ok(())
    }
}

/// Asks the server at `address`.
///
/// # Errors
///
/// When it cannot be reached or does not let the service account in.
pub(super) async fn inspect(
    account: &ServiceAccount,
    name: &str,
    address: &str,
) -> Result<Inspected, ProbeError> {
    let mut connection = account.connect(address, LIMIT).await?;
    let version = connection.rows(VERSION_SQL, LIMIT).await?;
    let words = flavour::of(version.first().ok_or(ProbeError::NoAnswer)?);
    let mut inspected = Inspected {
        name: name.to_owned(),
        report: report(&mut connection, words).await?,
        variables: pairs(&connection.rows("SHOW GLOBAL VARIABLES", LIMIT).await?),
        ..Inspected::default()
    };
    let who = connection.rows("SELECT CURRENT_USER(), USER()", LIMIT).await?;
    let who = who.first().ok_or(ProbeError::NoAnswer)?;
    inspected.current_user = who.at(0).unwrap_or_default();
    inspected.seen_from =
        who.at(1).and_then(|user| Some(user.rsplit_once('@')?.1.to_owned())).unwrap_or_default();
    let grants = connection.rows("SHOW GRANTS", LIMIT).await?;
    inspected.grants = Grants::parse(&grants.iter().filter_map(|row| row.at(0)).collect::<Vec<_>>());
    inspected.non_transactional = non_transactional(&mut connection).await?;
    inspected.accounts = super::accounts::read(&mut connection, words.flavour(), LIMIT).await?;
    inspected.way = Some((connection, words));
    Ok(inspected)
}

async fn report(connection: &mut ServiceConnection, words: &dyn Flavour) -> Result<Report, ProbeError> {
    let channels = match connection.rows(words.replication_sql(), LIMIT).await {
        Ok(rows) => Ok(rows),
        Err(ConnectionError::Server { code, message }) => Err(Replication::Hidden { code, message }),
        Err(error) => return Err(error.into()),
    };
    let identity = connection.rows(words.identity_sql(), LIMIT).await?;
    let identity = identity.first().ok_or(ProbeError::NoAnswer)?;
    let mut report = words.report(identity, channels.as_deref().ok())?;
    if let Err(hidden) = channels {
        report.replication = hidden;
    }
    report.semi_sync = flavour::semi_sync(&connection.results(SEMI_SYNC_SQL, LIMIT).await?);
    Ok(report)
}

fn pairs(rows: &[Record]) -> BTreeMap<String, String> {
    rows.iter().filter_map(|row| Some((row.at(0)?.to_lowercase(), row.at(1)?))).collect()
}

async fn non_transactional(connection: &mut ServiceConnection) -> Result<(Vec<String>, usize), ProbeError> {
    let sql = "SELECT CONCAT(TABLE_SCHEMA, '.', TABLE_NAME, ' (', ENGINE, ')') FROM information_schema.TABLES \
               WHERE TABLE_TYPE = 'BASE TABLE' AND ENGINE NOT IN ('InnoDB', 'ROCKSDB', 'TokuDB', 'ndbcluster') \
               AND TABLE_SCHEMA NOT IN ('mysql', 'sys', 'information_schema', 'performance_schema') ORDER BY 1";
    let rows = connection.rows(sql, LIMIT).await?;
    Ok((rows.iter().take(MAX_TABLES).filter_map(|row| row.at(0)).collect(), rows.len()))
}
