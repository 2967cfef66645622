//! Accounts of MariaDB: `mysql.global_priv`, where each row is a JSON document (from 10.4 on).

use std::collections::BTreeSet;

use serde_json::Value;

use super::account::Require;
use super::row::{Method, Row};

/// Reads all accounts: host, user, document.
pub(super) const ACCOUNTS: &str = "SELECT Host, User, Priv FROM mysql.global_priv";
/// Who has which role; roles are users without a host there.
pub(super) const ROLES: &str = "SELECT User, Host, Role FROM mysql.roles_mapping";

/// A row of [`ACCOUNTS`].
#[derive(Clone, Debug)]
pub(super) struct Account {
    pub(super) host: String,
    pub(super) user: String,
    pub(super) document: String,
}

/// A row of [`ROLES`]; `host` is empty where a role has the role.
#[derive(Clone, Debug)]
pub(super) struct Grant {
    pub(super) user: String,
    pub(super) host: String,
    pub(super) role: String,
}

/// Privilege bits of MariaDB's `sql/privilege.h`.
const SUPER: u64 = 1 << 15;
const CONNECTION_ADMIN: u64 = 1 << 32;
const READ_ONLY_ADMIN: u64 = 1 << 33;
/// From this version on SUPER does not pass read_only (MDEV-29596).
const SUPER_WITHOUT_READ_ONLY_ADMIN: u64 = 101_100;
/// The role that everybody has.
const PUBLIC: &str = "PUBLIC";

/// Makes rows of the tables. `grants` is none where the service account may not read them: then nobody is taken to
/// be stopped by read_only as long as any role passes it.
pub(super) fn rows(accounts: &[Account], grants: Option<&[Grant]>) -> Vec<Row> {
    let parsed: Vec<(&Account, Value)> = accounts
        .iter()
        .map(|account| (account, serde_json::from_str(&account.document).unwrap_or_default()))
        .collect();
    let passing = passing_roles(&parsed, grants.unwrap_or_default());
    parsed
        .iter()
        .filter(|(_, document)| document["is_role"] != true)
        .map(|(account, document)| {
            let by_role = !passing.is_empty()
                && (passing.contains(PUBLIC)
                    || grants.is_none_or(|grants| {
                        grants.iter().any(|grant| {
                            grant.user == account.user
                                && grant.host == account.host
                                && passing.contains(grant.role.as_str())
                        })
                    }));
            row(account, document, by_role)
        })
        .collect()
}

fn row(account: &Account, document: &Value, passes_by_role: bool) -> Row {
    let access = document["access"].as_u64().unwrap_or(0);
    Row {
        user: account.user.clone(),
        host: Some(account.host.clone()),
        methods: methods(document),
        require: require(document),
        locked: document["account_locked"] == true,
        stopped_by_read_only: !passes_read_only(document) && !passes_by_role,
        privileged: access & (SUPER | CONNECTION_ADMIN) != 0,
    }
}

fn passes_read_only(document: &Value) -> bool {
    let access = document["access"].as_u64().unwrap_or(0);
    let version = document["version_id"].as_u64().unwrap_or(0);
    access & READ_ONLY_ADMIN != 0 || (access & SUPER != 0 && version < SUPER_WITHOUT_READ_ONLY_ADMIN)
}

/// The roles that pass read_only, themselves or through roles that they have.
fn passing_roles<'a>(parsed: &'a [(&Account, Value)], grants: &'a [Grant]) -> BTreeSet<&'a str> {
    let mut passing: BTreeSet<&str> = parsed
        .iter()
        .filter(|(_, document)| document["is_role"] == true && passes_read_only(document))
        .map(|(account, _)| account.user.as_str())
        .collect();
    loop {
        let inherited = grants.iter().find(|grant| {
            grant.host.is_empty()
                && passing.contains(grant.role.as_str())
                && !passing.contains(grant.user.as_str())
        });
        match inherited {
            Some(grant) => passing.insert(&grant.user),
            None => return passing,
        };
    }
}

/// The plugin at the top, or those of `auth_or`, where `{}` stands for the one at the top.
fn methods(document: &Value) -> Vec<Method> {
    let method = |value: &Value| {
        let plugin = value["plugin"].as_str().unwrap_or("mysql_native_password");
        Method::stored(plugin, value["authentication_string"].as_str().unwrap_or_default())
    };
    let top = || method(document);
    match document["auth_or"].as_array() {
        Some(alternatives) => alternatives
            .iter()
            .map(|value| if value.get("plugin").is_some() { method(value) } else { top() })
            .collect(),
        None => vec![top()],
    }
}

fn require(document: &Value) -> Require {
    let given = |name: &str| document[name].as_str().filter(|text| !text.is_empty()).map(ToOwned::to_owned);
    match document["ssl_type"].as_u64() {
        Some(1) => Require::Tls,
        Some(2) => Require::Certificate,
        Some(3) => Require::Specified {
            subject: given("x509_subject"),
            issuer: given("x509_issuer"),
            cipher: given("ssl_cipher"),
        },
        Some(_) | None => Require::None,
    }
}

#[cfg(test)]
mod tests {
    use pointsman_protocol::auth::Verifier;

    use super::*;

    const HASH: &str = "*D821809F681A40A6E379B50D0463EFAE20BDD122";

    fn account(user: &str, host: &str, document: &str) -> Account {
        Account { user: user.to_owned(), host: host.to_owned(), document: document.replace("HASH", HASH) }
    }

    fn one(document: &str) -> Row {
        let mut rows = rows(&[account("u", "%", document)], Some(&[]));
        rows.remove(0)
    }

    #[test]
    fn methods_are_read() {
        let check = |document: &str, expected: &str| {
            assert_eq!(format!("{:?}", one(document).verifier()), expected, "{document}");
        };
        check("{}", "Empty");
        check(r#"{"access":0}"#, "Empty");
        check(r#"{"plugin":"mysql_native_password","authentication_string":"HASH"}"#, "Native(..)");
        check(
            r#"{"plugin":"mysql_native_password","authentication_string":"invalid"}"#,
            "Unusable(mysql_native_password)",
        );
        check(r#"{"plugin":"unix_socket"}"#, "Unusable(unix_socket)");
        check(r#"{"plugin":"parsec","authentication_string":"P0:x"}"#, "Unusable(parsec)");
        check(r#"{"authentication_string":"HASH","auth_or":[{"plugin":"unix_socket"},{}]}"#, "Native(..)");
        check(
            r#"{"plugin":"unix_socket","auth_or":[{},{"plugin":"mysql_native_password","authentication_string":"HASH"}]}"#,
            "Native(..)",
        );
        let key = "ZIgUREUg5PVgQ6LskhXmO+eZLS0nC8be6HPjYWR4YJY";
        check(&format!(r#"{{"plugin":"ed25519","authentication_string":"{key}"}}"#), "Ed25519(..)");
        check(
            &format!(
                r#"{{"authentication_string":"HASH","auth_or":[{{"plugin":"ed25519","authentication_string":"{key}"}},{{}}]}}"#
            ),
            "Native(..)",
        );
        check("not json", "Empty");
    }

    #[test]
    fn what_an_account_asks_of_its_connection_is_read() {
        let check = |document: &str, require: Require, locked: bool| {
            let row = one(document);
            assert_eq!((&row.require, row.locked), (&require, locked), "{document}");
        };
        check("{}", Require::None, false);
        check(r#"{"ssl_type":0,"account_locked":false}"#, Require::None, false);
        check(r#"{"ssl_type":1,"ssl_cipher":"","x509_issuer":"","x509_subject":""}"#, Require::Tls, false);
        check(r#"{"ssl_type":2,"account_locked":true}"#, Require::Certificate, true);
        check(
            r#"{"ssl_type":3,"ssl_cipher":"AES","x509_issuer":"/CN=ca","x509_subject":""}"#,
            Require::Specified {
                subject: None,
                issuer: Some("/CN=ca".to_owned()),
                cipher: Some("AES".to_owned()),
            },
            false,
        );
    }

    #[test]
    fn who_passes_read_only_is_known() {
        let check = |document: &str, stopped: bool, privileged: bool| {
            let row = one(document);
            assert_eq!((row.stopped_by_read_only, row.privileged), (stopped, privileged), "{document}");
        };
        check(r#"{"access":0,"version_id":101119}"#, true, false);
        check(r#"{"access":18446744073709551615}"#, false, true);
        check(r#"{"access":32768,"version_id":101119}"#, true, true);
        check(r#"{"access":32768,"version_id":100522}"#, false, true);
        check(r#"{"access":32768}"#, false, true);
        check(r#"{"access":8589934592,"version_id":101119}"#, false, false);
        check(r#"{"access":4294967296,"version_id":101119}"#, true, true);
    }

    #[test]
    fn roles_count_but_are_no_accounts() {
        let accounts = [
            account("a", "%", "{}"),
            account("b", "%", "{}"),
            account("direct", "", r#"{"access":8589934592,"is_role":true}"#),
            account("outer", "", r#"{"access":0,"is_role":true}"#),
        ];
        let grant = |user: &str, host: &str, role: &str| Grant {
            user: user.to_owned(),
            host: host.to_owned(),
            role: role.to_owned(),
        };
        let grants = [grant("outer", "", "direct"), grant("a", "%", "outer")];
        let stopped = |accounts: &[Account], grants: Option<&[Grant]>| {
            rows(accounts, grants)
                .iter()
                .map(|row| (row.user.clone(), row.stopped_by_read_only))
                .collect::<Vec<_>>()
        };
        let expect = |a: bool, b: bool| vec![("a".to_owned(), a), ("b".to_owned(), b)];
        assert_eq!(stopped(&accounts, Some(&grants)), expect(false, true));
        assert_eq!(stopped(&accounts, Some(&grants[1..])), expect(true, true));
        assert_eq!(stopped(&accounts, None), expect(false, false));
        assert_eq!(stopped(&accounts[..2], None), expect(true, true));
        let mut public = accounts.to_vec();
        public.push(account("PUBLIC", "", r#"{"access":8589934592,"is_role":true}"#));
        assert_eq!(stopped(&public, Some(&[])), expect(false, false));
    }

    #[test]
    fn rows_tell_changes_apart() {
        assert!(
            one(r#"{"authentication_string":"HASH"}"#) == one(r#"{"authentication_string":"HASH","x":1}"#)
        );
        assert!(one(r#"{"authentication_string":"HASH"}"#) != one("{}"));
        assert!(matches!(one("{}").verifier(), Verifier::Empty));
    }
}
