//! The accounts of one reading, in the order in which servers try them.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use pointsman_config::StaticUser;
use pointsman_router::intent::Flavour;

use super::account::Account;
use super::pattern::HostPattern;
use super::row::{Method, Row};
use crate::net::ClientAddress;

/// Accounts by user; each list has the most specific host first.
#[derive(Default)]
pub(super) struct Table {
    by_user: HashMap<String, Vec<Entry>>,
    server: ServerRules,
}

/// What differs from server to server in the choice of an account.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ServerRules {
    pub(super) flavour: Flavour,
    /// The server looks names up, so that loopback is `localhost`.
    pub(super) names: bool,
}

struct Entry {
    /// None for users of the configuration.
    pattern: Option<HostPattern>,
    row: Row,
    account: Arc<Account>,
}

/// Gives out numbers for accounts and for their versions; none is ever given twice.
#[derive(Debug, Default)]
pub(super) struct Numbers(AtomicU64);

impl Numbers {
    fn next(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed) + 1
    }
}

impl Table {
    /// Accounts of `rows`; those that `before` has unchanged keep their identity.
    pub(super) fn new(
        rows: Vec<Row>,
        server: ServerRules,
        settings: &[StaticUser],
        before: &Self,
        numbers: &Numbers,
    ) -> Self {
        let mut by_user: HashMap<String, Vec<Entry>> = HashMap::new();
        for mut row in rows {
            let own = settings.iter().find(|user| user.name == row.user);
            lend_password(&mut row, own);
            let known = before.entry(&row.user, row.host.as_deref());
            let account = match known {
                Some(known) if known.row == row => known.account.clone(),
                known => {
                    let id = known.map_or_else(|| numbers.next(), |known| known.account.id);
                    Arc::new(account(&row, own, id, numbers.next()))
                }
            };
            let pattern = row.host.as_deref().map(HostPattern::new);
            by_user.entry(row.user.clone()).or_default().push(Entry { pattern, row, account });
        }
        for entries in by_user.values_mut() {
            entries.sort_by(|one, other| match (&one.pattern, &other.pattern) {
                (Some(one), Some(other)) => one.compare(other, server.flavour),
                (None, _) | (_, None) => std::cmp::Ordering::Equal,
            });
        }
        Self { by_user, server }
    }

    fn entry(&self, user: &str, host: Option<&str>) -> Option<&Entry> {
        self.by_user.get(user)?.iter().find(|entry| entry.row.host.as_deref() == host)
    }

    /// The account that a server would choose: the most specific host decides, and at the same host a named user
    /// comes before the anonymous one.
    pub(super) fn find(&self, user: &[u8], client: &ClientAddress) -> Option<&Arc<Account>> {
        let named = std::str::from_utf8(user).ok().and_then(|user| self.best(user, client));
        let anonymous = self.best("", client);
        let chosen = match (named, anonymous) {
            (Some(named), Some(anonymous)) => {
                let later = match (&named.pattern, &anonymous.pattern) {
                    (Some(named), Some(anonymous)) => is_better(anonymous, named, self.server.flavour),
                    (None, _) | (_, None) => false,
                };
                if later { anonymous } else { named }
            }
            (one, other) => one.or(other)?,
        };
        Some(&chosen.account)
    }

    fn best(&self, user: &str, client: &ClientAddress) -> Option<&Entry> {
        self.by_user.get(user)?.iter().find(|entry| {
            entry.pattern.as_ref().is_none_or(|pattern| pattern.matches(client, self.server.names))
        })
    }

    pub(super) fn accounts(&self) -> impl Iterator<Item = &Arc<Account>> {
        self.by_user.values().flatten().map(|entry| &entry.account)
    }
}

/// Whether the anonymous account is tried before the named one; at the same host the named one is.
fn is_better(anonymous: &HostPattern, named: &HostPattern, flavour: Flavour) -> bool {
    anonymous.as_str() != named.as_str() && anonymous.compare(named, flavour).is_lt()
}

/// A password in the configuration opens accounts whose own way of proving one cannot be passed on to servers.
fn lend_password(row: &mut Row, own: Option<&StaticUser>) {
    use pointsman_protocol::auth::Verifier;
    let Some(password) = own.map(|user| &user.password).filter(|password| !password.is_empty()) else {
        return;
    };
    if matches!(row.verifier(), Verifier::Unusable { .. } | Verifier::Ed25519(_)) {
        row.methods = vec![Method::Clear(password.expose().to_owned().into())];
    }
}

/// The rows of users of the configuration.
pub(super) fn static_rows(users: &[StaticUser]) -> Vec<Row> {
    let row = |user: &StaticUser| Row {
        user: user.name.clone(),
        host: None,
        methods: vec![Method::Clear(user.password.expose().to_owned().into())],
        require: super::Require::None,
        locked: false,
        // Not known: their privileges are not read.
        stopped_by_read_only: false,
        privileged: false,
    };
    users.iter().map(row).collect()
}

fn account(row: &Row, own: Option<&StaticUser>, id: u64, version: u64) -> Account {
    Account {
        id,
        version,
        user: row.user.clone(),
        host: row.host.as_deref().map(|host| HostPattern::new(host).as_str().to_owned()).unwrap_or_default(),
        verifier: Arc::new(row.verifier()),
        require: row.require.clone(),
        locked: row.locked,
        consistency: own.and_then(|user| user.consistency),
        listener: own.and_then(|user| user.listener),
        stopped_by_read_only: row.stopped_by_read_only,
        privileged: row.privileged,
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use pointsman_config::{Consistency, Secret};
    use pointsman_protocol::auth::Verifier;

    use super::super::Require;
    use super::*;

    const NAMES: ServerRules = ServerRules { flavour: Flavour::Mariadb, names: true };

    fn row(user: &str, host: &str) -> Row {
        Row {
            user: user.to_owned(),
            host: Some(host.to_owned()),
            methods: vec![Method::stored("mysql_native_password", "")],
            require: Require::None,
            locked: false,
            stopped_by_read_only: true,
            privileged: false,
        }
    }

    fn table(rows: Vec<Row>, before: &Table, numbers: &Numbers) -> Table {
        Table::new(rows, NAMES, &[], before, numbers)
    }

    fn client(ip: &str) -> ClientAddress {
        ClientAddress::Ip(SocketAddr::new(ip.parse().unwrap(), 1))
    }

    #[test]
    fn the_account_is_the_one_that_servers_choose() {
        let rows = vec![
            row("app", "%"),
            row("app", "10.0.0.%"),
            row("app", "10.0.0.1"),
            row("", "localhost"),
            row("", "10.9.%"),
            row("root", "localhost"),
            row("b", "10.9.%"),
        ];
        let table = table(rows, &Table::default(), &Numbers::default());
        let check = |user: &str, ip: &str, expected: Option<&str>| {
            let found = table.find(user.as_bytes(), &client(ip)).map(|a| format!("{}@{}", a.user, a.host));
            assert_eq!(found.as_deref(), expected, "{user} {ip}");
        };
        check("app", "10.0.0.1", Some("app@10.0.0.1"));
        check("app", "10.0.0.2", Some("app@10.0.0.%"));
        check("app", "192.168.0.1", Some("app@%"));
        // The well-known trap of anonymous accounts.
        check("app", "127.0.0.1", Some("@localhost"));
        check("app", "10.9.0.1", Some("@10.9.%"));
        check("b", "10.9.0.1", Some("b@10.9.%"));
        check("root", "::1", Some("root@localhost"));
        check("root", "10.0.0.1", None);
        check("App", "10.0.0.1", None);
        check("nobody", "127.0.0.1", Some("@localhost"));
        assert!(table.find(b"\xff", &client("10.0.0.1")).is_none());
    }

    #[test]
    fn only_what_changes_gets_a_new_version() {
        let numbers = Numbers::default();
        let first = table(vec![row("a", "%"), row("b", "%")], &Table::default(), &numbers);
        let mut changed = row("b", "%");
        changed.locked = true;
        let second = table(vec![changed, row("a", "%")], &first, &numbers);
        let of = |table: &Table, user: &str| {
            let account = table.find(user.as_bytes(), &client("10.0.0.1")).unwrap().clone();
            (account.id, account.version)
        };
        assert_eq!(of(&first, "a"), of(&second, "a"));
        assert_eq!(of(&first, "b").0, of(&second, "b").0);
        assert!(of(&first, "b").1 < of(&second, "b").1);
        // Dropped and made again, it is another account.
        let third = table(vec![row("a", "%")], &second, &numbers);
        let fourth = table(vec![row("a", "%"), row("b", "%")], &third, &numbers);
        assert!(of(&fourth, "b").0 > of(&second, "b").0);
    }

    #[test]
    fn the_configuration_adds_to_accounts() {
        let user = |name: &str, password: &str| StaticUser {
            name: name.to_owned(),
            password: Secret::new(password),
            consistency: Some(Consistency::Eventual),
            listener: None,
        };
        let settings = [user("native", "pw"), user("socket", "pw"), user("plain", "")];
        let mut socket = row("socket", "%");
        socket.methods = vec![Method::stored("unix_socket", "")];
        let mut plain = row("plain", "%");
        plain.methods = socket.methods.clone();
        let rows = vec![row("native", "%"), socket, plain];
        let table = Table::new(rows, NAMES, &settings, &Table::default(), &Numbers::default());
        let find = |user: &str| table.find(user.as_bytes(), &client("10.0.0.1")).unwrap();
        assert!(matches!(*find("native").verifier, Verifier::Empty));
        assert!(matches!(*find("socket").verifier, Verifier::Clear(_)));
        assert!(matches!(*find("plain").verifier, Verifier::Unusable { .. }));
        assert_eq!(find("native").consistency, Some(Consistency::Eventual));
    }

    #[test]
    fn users_of_the_configuration_may_come_from_anywhere() {
        let users = [StaticUser { name: "app".to_owned(), ..StaticUser::default() }];
        let table = Table::new(static_rows(&users), NAMES, &users, &Table::default(), &Numbers::default());
        assert_eq!(table.find(b"app", &client("fd00::1")).unwrap().host, "");
        assert!(table.find(b"app", &ClientAddress::Local).is_some());
        assert!(table.find(b"other", &ClientAddress::Local).is_none());
    }
}
