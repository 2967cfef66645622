//! What changes from one configuration to another.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::model::Config;
use crate::reload::Reload;
use crate::secret::Secret;
use crate::show::to_json;

/// One option whose value differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The key; items of lists are named, as in `servers.db-1.weight`.
    pub key: String,
    /// None where it was not set.
    pub old: Option<String>,
    pub new: Option<String>,
    pub reload: Reload,
}

/// The options that differ, in the order of their keys. Secrets are compared but not shown.
pub fn diff(old: &Config, new: &Config) -> Vec<Change> {
    let (before, after) = (flat(old), flat(new));
    let keys: std::collections::BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let (before_secrets, after_secrets) = (secrets(old), secrets(new));
    keys.into_iter()
        .filter(|key| {
            let secret_differs = before_secrets.get(*key) != after_secrets.get(*key);
            before.get(*key) != after.get(*key) || secret_differs
        })
        .map(|key| {
            let (old, new) = (before.get(key).cloned(), after.get(key).cloned());
            let comes_or_goes = key.starts_with("servers.") && (old.is_none() || new.is_none());
            let reload = if comes_or_goes { Reload::Live } else { Reload::of(key) };
            Change { key: key.clone(), old, new, reload }
        })
        .collect()
}

/// Every plain value by its key.
fn flat(config: &Config) -> BTreeMap<String, String> {
    let mut values = BTreeMap::new();
    flatten(&mut values, "", &to_json(config));
    values
}

fn flatten(values: &mut BTreeMap<String, String>, path: &str, value: &Value) {
    let join = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
    match value {
        Value::Null => {}
        Value::Object(fields) => fields.iter().for_each(|(key, value)| flatten(values, &join(key), value)),
        Value::Array(items) if items.first().is_some_and(Value::is_object) => {
            for item in items {
                let name = item["name"].as_str().unwrap_or_default();
                flatten(values, &join(name), item);
            }
        }
        Value::Array(_) | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            values.insert(path.to_owned(), value.to_string());
        }
    }
}

/// The secrets by the keys under which [`flat`] has their masks.
fn secrets(config: &Config) -> BTreeMap<String, &Secret> {
    let optional = [
        ("admin.token", config.admin.token.as_ref()),
        ("replication.password", config.replication.password.as_ref()),
        ("password", Some(&config.password)),
    ];
    let single = optional.into_iter().filter_map(|(key, secret)| Some((key.to_owned(), secret?)));
    let users =
        config.user_list.iter().map(|user| (format!("user_list.{}.password", user.name), &user.password));
    single.chain(users).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::{Server, StaticUser};
    use crate::secret::MASK;

    fn check(change: impl Fn(&mut Config), expected: &[(&str, Option<&str>, Option<&str>, Reload)]) {
        let mut old = Config::default();
        old.servers.push(Server { name: "a".to_owned(), address: "a:1".to_owned(), ..Server::default() });
        old.user_list.push(StaticUser { name: "u".to_owned(), ..StaticUser::default() });
        old.user_list[0].password = Secret::new("one");
        let mut new = old.clone();
        change(&mut new);
        let found = diff(&old, &new);
        let found: Vec<_> =
            found.iter().map(|c| (c.key.as_str(), c.old.as_deref(), c.new.as_deref(), c.reload)).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn changes_are_named() {
        let hidden = format!("\"{MASK}\"");
        let hidden = Some(hidden.as_str());
        check(|_| {}, &[]);
        check(|c| c.pool.min_idle = 3, &[("pool.min_idle", Some("0"), Some("3"), Reload::Live)]);
        check(
            |c| c.lag.maximum = Duration::from_secs(3),
            &[("lag.maximum", Some("\"10s\""), Some("\"3s\""), Reload::Live)],
        );
        check(|c| c.servers[0].weight = 1, &[("servers.a.weight", Some("100"), Some("1"), Reload::Live)]);
        check(
            |c| c.listen.rw.proxy_protocol.push("10.0.0.0/8".parse().unwrap()),
            &[("listen.rw.proxy_protocol", Some("[]"), Some("[\"10.0.0.0/8\"]"), Reload::Restart)],
        );
        check(
            |c| c.user_list[0].password = Secret::new("two"),
            &[("user_list.u.password", hidden, hidden, Reload::NewConnections)],
        );
        check(|c| c.password = Secret::new("x"), &[("password", Some("\"\""), hidden, Reload::Restart)]);
        check(|c| c.admin.token = Some(Secret::new("x")), &[("admin.token", None, hidden, Reload::Live)]);
    }

    #[test]
    fn servers_come_and_go_by_name() {
        let old = Config::default();
        let mut new = Config::default();
        new.servers.push(Server { name: "a".to_owned(), ..Server::default() });
        assert!(diff(&old, &new).iter().all(|change| change.old.is_none() || change.key == "servers"));
    }
}
