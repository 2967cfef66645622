//! Accounts of MySQL: `mysql.user`, with the dynamic privileges and roles of the tables beside it.

use std::collections::BTreeSet;

use super::account::Require;
use super::row::{Method, Row};

/// Reads all accounts.
pub(super) const ACCOUNTS: &str = "SELECT * FROM mysql.user";
/// Who has a privilege that passes read_only besides SUPER: user and host.
pub(super) const ADMINS: &str = "SELECT USER, HOST FROM mysql.global_grants WHERE PRIV = 'CONNECTION_ADMIN'";
/// Who has which role: the role's user and host, then the owner's.
pub(super) const ROLES: &str = "SELECT FROM_USER, FROM_HOST, TO_USER, TO_HOST FROM mysql.role_edges";
/// Roles that everybody has.
pub(super) const MANDATORY_ROLES: &str = "SELECT @@global.mandatory_roles";

/// What is used of a row of [`ACCOUNTS`].
#[derive(Clone, Debug, Default)]
pub(super) struct Account {
    pub(super) user: String,
    pub(super) host: String,
    pub(super) plugin: String,
    pub(super) stored: String,
    pub(super) locked: bool,
    /// `ANY`, `X509`, `SPECIFIED` or nothing.
    pub(super) ssl_type: String,
    pub(super) subject: String,
    pub(super) issuer: String,
    pub(super) cipher: String,
    pub(super) is_super: bool,
    /// The JSON document `User_attributes`.
    pub(super) attributes: String,
}

/// User and host.
pub(super) type Name = (String, String);

/// The tables beside `mysql.user`; none of what the service account may not read.
#[derive(Clone, Debug, Default)]
pub(super) struct Beside {
    pub(super) admins: Option<Vec<Name>>,
    /// Role, then owner.
    pub(super) roles: Option<Vec<(Name, Name)>>,
    pub(super) has_mandatory_roles: bool,
}

/// Makes rows of the tables. Where it is not known who passes read_only, nobody is taken to be stopped by it.
pub(super) fn rows(accounts: &[Account], beside: &Beside) -> Vec<Row> {
    let admins = beside.admins.as_deref().unwrap_or_default();
    let mut passing: BTreeSet<&Name> = admins.iter().collect();
    let names: Vec<Name> =
        accounts.iter().map(|account| (account.user.clone(), account.host.clone())).collect();
    passing.extend(names.iter().zip(accounts).filter(|(_, account)| account.is_super).map(|(name, _)| name));
    let direct = passing.clone();
    inherit(&mut passing, beside.roles.as_deref().unwrap_or_default());
    let known = beside.admins.is_some() && beside.roles.is_some() && !beside.has_mandatory_roles;
    names
        .iter()
        .zip(accounts)
        .map(|(name, account)| Row {
            user: account.user.clone(),
            host: Some(account.host.clone()),
            methods: methods(account),
            require: require(account),
            locked: account.locked,
            stopped_by_read_only: known && !passing.contains(name),
            privileged: direct.contains(name),
        })
        .collect()
}

/// Who has a role that passes, passes.
fn inherit<'a>(passing: &mut BTreeSet<&'a Name>, roles: &'a [(Name, Name)]) {
    loop {
        let heir = roles.iter().find(|(role, owner)| passing.contains(role) && !passing.contains(owner));
        match heir {
            Some((_, owner)) => passing.insert(owner),
            None => return,
        };
    }
}

fn methods(account: &Account) -> Vec<Method> {
    // A second factor cannot be passed on.
    let factors = serde_json::from_str::<serde_json::Value>(&account.attributes).unwrap_or_default();
    if factors.get("multi_factor_authentication").is_some_and(|factors| !factors.is_null()) {
        return vec![Method::stored("multi-factor authentication", "")];
    }
    vec![Method::stored(&account.plugin, &account.stored)]
}

fn require(account: &Account) -> Require {
    let given = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
    match account.ssl_type.as_str() {
        "ANY" => Require::Tls,
        "X509" => Require::Certificate,
        "SPECIFIED" => Require::Specified {
            subject: given(&account.subject),
            issuer: given(&account.issuer),
            cipher: given(&account.cipher),
        },
        _ => Require::None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(user: &str) -> Account {
        Account {
            user: user.to_owned(),
            host: "%".to_owned(),
            plugin: "caching_sha2_password".to_owned(),
            ..Account::default()
        }
    }

    fn name(user: &str) -> Name {
        (user.to_owned(), "%".to_owned())
    }

    fn stopped(accounts: &[Account], beside: &Beside) -> Vec<bool> {
        rows(accounts, beside).iter().map(|row| row.stopped_by_read_only).collect()
    }

    #[test]
    fn who_passes_read_only_is_known() {
        let root = Account { is_super: true, ..account("root") };
        let accounts = [root, account("admin"), account("app"), account("role"), account("member")];
        let beside = Beside {
            admins: Some(vec![name("admin"), name("role")]),
            roles: Some(vec![(name("role"), name("outer")), (name("outer"), name("member"))]),
            has_mandatory_roles: false,
        };
        assert_eq!(stopped(&accounts, &beside), [false, false, true, false, false]);
        let privileged: Vec<_> = rows(&accounts, &beside).iter().map(|row| row.privileged).collect();
        assert_eq!(privileged, [true, true, false, true, false]);
        for unknown in [
            Beside { admins: None, ..beside.clone() },
            Beside { roles: None, ..beside.clone() },
            Beside { has_mandatory_roles: true, ..beside },
        ] {
            assert_eq!(stopped(&accounts, &unknown), [false; 5]);
        }
    }

    #[test]
    fn what_an_account_asks_of_its_connection_is_read() {
        let check = |ssl_type: &str, expected: Require| {
            let account =
                Account { ssl_type: ssl_type.to_owned(), subject: "/CN=x".to_owned(), ..account("u") };
            assert!(rows(&[account], &Beside::default())[0].require == expected, "{ssl_type}");
        };
        check("", Require::None);
        check("ANY", Require::Tls);
        check("X509", Require::Certificate);
        check(
            "SPECIFIED",
            Require::Specified { subject: Some("/CN=x".to_owned()), issuer: None, cipher: None },
        );
    }

    #[test]
    fn methods_are_read() {
        let check = |plugin: &str, stored: &str, attributes: &str, expected: &str| {
            let account = Account {
                plugin: plugin.to_owned(),
                stored: stored.to_owned(),
                attributes: attributes.to_owned(),
                ..account("u")
            };
            let row = &rows(&[account], &Beside::default())[0];
            assert_eq!(format!("{:?}", row.verifier()), expected, "{plugin} {stored}");
        };
        let stored =
            "$A$00A$\t\u{1}z n\u{1}5ewzE.\u{c}\u{5}p2H:\u{1}\u{5}cUK6qglBfkMmthTB0WdKPl5zH1nzQ87OMZHFaqu6r/9";
        check("caching_sha2_password", "", "", "Empty");
        check("caching_sha2_password", stored, "{\"metadata\": {}}", "CachingSha2(..)");
        check(
            "caching_sha2_password",
            stored,
            "{\"multi_factor_authentication\": [{}]}",
            "Unusable(multi-factor authentication)",
        );
        check("auth_socket", "", "", "Unusable(auth_socket)");
    }
}
