//! Accounts of applications that cannot come through a proxy, and why.

use std::net::SocketAddr;
use std::time::Duration;

use pointsman_router::intent::Flavour;
use serde_json::Value;

use super::finding::{Finding, Fix, Level};
use super::inspect::Inspected;
use crate::cluster::ServiceConnection;
use crate::cluster::connection::ConnectionError;
use crate::net::ClientAddress;
use crate::users::HostPattern;

/// One account of a server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Account {
    pub(super) user: String,
    pub(super) host: String,
    /// The ways in which it may prove itself; one is enough.
    pub(super) plugins: Vec<String>,
    pub(super) locked: bool,
    /// REQUIRE X509, SUBJECT, ISSUER or CIPHER.
    pub(super) wants_certificate: bool,
}

/// Makes an account of a row's columns.
type Parse = fn(&[Option<String>]) -> Option<Account>;

/// Reads the accounts; none where the service account may not.
///
/// # Errors
///
/// When the connection is lost.
pub(super) async fn read(
    connection: &mut ServiceConnection,
    flavour: Flavour,
    limit: Duration,
) -> Result<Option<Vec<Account>>, ConnectionError> {
    let (sql, parse): (_, Parse) = match flavour {
        Flavour::Mariadb => ("SELECT User, Host, Priv FROM mysql.global_priv", from_document),
        Flavour::Mysql => {
            ("SELECT User, Host, plugin, account_locked, ssl_type FROM mysql.user", from_columns)
        }
    };
    match connection.rows(sql, limit).await {
        Ok(rows) => {
            let columns = |row: &crate::cluster::Record| (0..5).map(|at| row.at(at)).collect::<Vec<_>>();
            Ok(Some(rows.iter().filter_map(|row| parse(&columns(row))).collect()))
        }
        Err(ConnectionError::Server { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// A row of MariaDB's table; none for a role.
fn from_document(columns: &[Option<String>]) -> Option<Account> {
    let document: Value = serde_json::from_str(columns.get(2)?.as_deref()?).ok()?;
    if document["is_role"] == true {
        return None;
    }
    let plugin = |value: &Value| value["plugin"].as_str().map(str::to_owned);
    let own = plugin(&document).unwrap_or_else(|| "mysql_native_password".to_owned());
    let plugins = match document["auth_or"].as_array() {
        Some(ways) => ways.iter().map(|way| plugin(way).unwrap_or_else(|| own.clone())).collect(),
        None => vec![own],
    };
    Some(Account {
        user: columns.first()?.clone()?,
        host: columns.get(1)?.clone()?,
        plugins,
        locked: document["account_locked"] == true,
        wants_certificate: document["ssl_type"].as_u64().is_some_and(|kind| kind > 1),
    })
}

fn from_columns(columns: &[Option<String>]) -> Option<Account> {
    let text = |at: usize| columns.get(at).cloned().flatten().unwrap_or_default();
    Some(Account {
        user: text(0),
        host: text(1),
        plugins: vec![text(2)],
        locked: text(3) == "Y",
        wants_certificate: matches!(text(4).as_str(), "X509" | "SPECIFIED"),
    })
}

/// Judges the accounts of the primary; `shows_certificate`: the proxy has one for servers.
pub(super) fn judge(server: &Inspected, shows_certificate: bool) -> Vec<Finding> {
    let Some(accounts) = &server.accounts else { return Vec::new() };
    let mut findings = Vec::new();
    let own_name = server.variables.get("hostname").map_or("", String::as_str);
    let from_elsewhere = |account: &&Account| !account.locked && !is_internal(account, own_name);
    for account in accounts.iter().filter(from_elsewhere) {
        let name = format!("'{}'@'{}'", account.user, account.host);
        let reason = if let Some(reason) = impossible(&account.plugins) {
            reason
        } else if account.wants_certificate && !shows_certificate {
            (
                "asks for a client certificate, and none is configured for servers".to_owned(),
                Fix::advice("set backend_tls.cert_file and key_file, or ALTER USER ... REQUIRE SSL"),
            )
        } else if !admits(&account.host, &server.seen_from) {
            let fix =
                format!("CREATE USER or RENAME USER so that the host pattern admits {}", server.seen_from);
            (format!("excludes this proxy, which the server sees as {}", server.seen_from), Fix::advice(fix))
        } else {
            continue;
        };
        let message = format!("{name} cannot come through the proxy: it {}", reason.0);
        findings.push(Finding::new(&server.name, Level::Warning, "accounts", message).with(reason.1));
    }
    findings
}

/// Accounts that nobody logs in with from elsewhere.
fn is_internal(account: &Account, own_name: &str) -> bool {
    let system = ["mysql.sys", "mysql.session", "mysql.infoschema", "mariadb.sys"];
    let host = account.host.as_str();
    let only_here = matches!(host, "localhost" | "127.0.0.1" | "::1") || host == own_name;
    system.contains(&account.user.as_str()) || only_here || account.user == "PUBLIC"
}

/// Why none of the ways can be passed on by a proxy.
fn impossible(plugins: &[String]) -> Option<(String, Fix)> {
    let passable =
        ["mysql_native_password", "caching_sha2_password", "sha256_password", "mysql_clear_password", ""];
    if plugins.iter().any(|plugin| passable.contains(&plugin.as_str())) {
        return None;
    }
    let names = plugins.join(", ");
    let signing = ["ed25519", "client_ed25519", "parsec"];
    if plugins.iter().any(|plugin| signing.contains(&plugin.as_str())) {
        return Some((
            format!("proves itself by {names}, which only works over TLS with the password in clear"),
            Fix::advice("clients need TLS and the clear-text plugin, or a [[user]] entry with the password"),
        ));
    }
    Some((
        format!("proves itself by {names}, which cannot be passed on"),
        Fix::advice("ALTER USER ... to a password that can: mysql_native_password or caching_sha2_password"),
    ))
}

/// Whether a host pattern admits the address or name that the server sees.
fn admits(pattern: &str, seen_from: &str) -> bool {
    let pattern = HostPattern::new(pattern);
    match seen_from.parse() {
        Ok(ip) => pattern.matches(&ClientAddress::Ip(SocketAddr::new(ip, 0)), true),
        Err(_) if seen_from == "localhost" => pattern.matches(&ClientAddress::Local, true),
        // A name: only the server can say which patterns it meets.
        Err(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(host: &str, plugin: &str) -> Account {
        Account { user: "app".into(), host: host.into(), plugins: vec![plugin.into()], ..Account::default() }
    }

    #[test]
    fn says_who_cannot_come_through() {
        let check = |account: Account, expected: Option<&str>| {
            let server = Inspected {
                name: "db-1".into(),
                seen_from: "10.1.2.3".into(),
                accounts: Some(vec![account.clone()]),
                ..Inspected::default()
            };
            let found = judge(&server, false);
            match expected {
                None => assert_eq!(found, [], "{account:?}"),
                Some(expected) => assert!(found[0].message.contains(expected), "{account:?} {found:?}"),
            }
        };
        check(account("%", "mysql_native_password"), None);
        check(account("10.1.%", "caching_sha2_password"), None);
        check(account("10.2.%", "caching_sha2_password"), Some("excludes this proxy"));
        check(account("localhost", "unix_socket"), None);
        check(account("%", "unix_socket"), Some("cannot be passed on"));
        check(account("%", "ed25519"), Some("only works over TLS"));
        check(Account { locked: true, ..account("%", "unix_socket") }, None);
        check(Account { wants_certificate: true, ..account("%", "") }, Some("client certificate"));
    }

    #[test]
    fn reads_documents() {
        let row = |document: &str| [Some("u".into()), Some("%".into()), Some(document.into())];
        let two = from_document(&row(
            r#"{"plugin":"mysql_native_password","auth_or":[{"plugin":"unix_socket"},{}]}"#,
        ));
        assert_eq!(two.unwrap().plugins, ["unix_socket", "mysql_native_password"]);
        assert_eq!(from_document(&row(r#"{"is_role":true}"#)), None);
        assert!(from_document(&row(r#"{"ssl_type":2}"#)).unwrap().wants_certificate);
    }
}
