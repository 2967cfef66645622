//! When a change of an option takes effect, and what of a new configuration a running process takes up.

use crate::model::{Config, Server};

/// What has to happen for a changed option to take effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reload {
    /// At once.
    Live,
    /// For clients that connect from then on.
    NewConnections,
    /// With the next start of the process.
    Restart,
}

impl Reload {
    /// The name in the schema and in `config diff`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::NewConnections => "new-connections",
            Self::Restart => "restart",
        }
    }

    /// When a change of this key takes effect; list indices and names do not count.
    ///
    /// The entry that names the longest part of the key decides.
    pub fn of(key: &str) -> Self {
        let of_a_server = ["servers", "server"]
            .iter()
            .any(|list| key.strip_prefix(list).is_some_and(|rest| rest.starts_with(['.', '['])));
        if of_a_server {
            // A server's own name may contain dots.
            let live = [".weight", ".name", ".address"].iter().any(|end| key.ends_with(end));
            return if live { Self::Live } else { Self::Restart };
        }
        let covers = |prefix: &str| {
            key.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        };
        TABLE
            .iter()
            .filter(|(prefix, _)| covers(prefix))
            .max_by_key(|(prefix, _)| prefix.len())
            .map_or(Self::Restart, |(_, reload)| *reload)
    }
}

const TABLE: &[(&str, Reload)] = &[
    ("cluster", Reload::Restart),
    ("servers", Reload::Live),
    ("user", Reload::Restart),
    ("password", Reload::Restart),
    ("listen", Reload::Restart),
    ("users", Reload::Restart),
    ("user_list", Reload::NewConnections),
    ("tls", Reload::Restart),
    ("backend_tls", Reload::Restart),
    ("pool", Reload::Restart),
    ("pool.min_idle", Reload::Live),
    ("pool.idle_timeout", Reload::Live),
    ("pool.max_lifetime", Reload::Live),
    ("pool.acquire_timeout", Reload::Live),
    ("routing", Reload::Restart),
    ("routing.consistency", Reload::Live),
    ("routing.no_replica", Reload::Live),
    ("routing.read_wait", Reload::Live),
    ("routing.hold_timeout", Reload::Live),
    ("routing.zone", Reload::Live),
    ("lag", Reload::Live),
    ("monitor", Reload::Restart),
    ("failover", Reload::Restart),
    ("switchover", Reload::Restart),
    ("coordination", Reload::Restart),
    ("vip", Reload::Restart),
    ("admin", Reload::Restart),
    ("admin.token", Reload::Live),
    ("drain", Reload::Live),
    ("log", Reload::Restart),
    ("log.level", Reload::Live),
    ("log.slow_query", Reload::Live),
    ("replication", Reload::Restart),
    ("runtime", Reload::Restart),
];

/// What runs after `new` was read: `running`, with everything of `new` that needs no restart.
///
/// The server named `primary` stays where it is, in the list or not: its place is moved first.
/// What is taken here and what [`Reload::of`] promises are held together by a test.
pub fn take_up(running: &Config, new: &Config, primary: Option<&str>) -> Config {
    let mut next = running.clone();
    next.servers = servers(running, new, primary);
    next.user_list = new.user_list.clone();
    next.pool.min_idle = new.pool.min_idle;
    next.pool.idle_timeout = new.pool.idle_timeout;
    next.pool.max_lifetime = new.pool.max_lifetime;
    next.pool.acquire_timeout = new.pool.acquire_timeout;
    next.routing.consistency = new.routing.consistency;
    next.routing.no_replica = new.routing.no_replica;
    next.routing.read_wait = new.routing.read_wait;
    next.routing.hold_timeout = new.routing.hold_timeout;
    next.routing.zone = new.routing.zone.clone();
    next.lag = new.lag.clone();
    next.admin.token = new.admin.token.clone();
    next.drain = new.drain.clone();
    next.log.level = new.log.level;
    next.log.slow_query = new.log.slow_query;
    next
}

/// Servers come and go by name and address; of one that stays, the weight may change.
fn servers(running: &Config, new: &Config, primary: Option<&str>) -> Vec<Server> {
    let is_primary = |server: &Server| primary == Some(server.name.as_str());
    let stays = |server: &Server| {
        running
            .servers
            .iter()
            .find(|old| old.name == server.name && (old.address == server.address || is_primary(old)))
            .map(|old| Server { weight: server.weight, ..old.clone() })
    };
    let named = |old: &Server| new.servers.iter().any(|server| server.name == old.name);
    let kept = running.servers.iter().filter(|old| is_primary(old) && !named(old)).cloned();
    new.servers.iter().map(|server| stays(server).unwrap_or_else(|| server.clone())).chain(kept).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diff::diff;
    use crate::shape::Shape;

    #[test]
    fn every_section_is_in_the_table() {
        let Shape::Table(sections) = Shape::of_config() else { panic!("no table") };
        for section in sections.keys() {
            assert!(TABLE.iter().any(|(prefix, _)| prefix == section), "{section}");
        }
        for (prefix, _) in TABLE {
            assert!(Shape::of_config().find(prefix).is_some(), "{prefix}");
        }
    }

    #[test]
    fn the_longest_entry_decides() {
        let check = |key: &str, expected: Reload| assert_eq!(Reload::of(key), expected, "{key}");
        check("pool.max_connections", Reload::Restart);
        check("pool.idle_timeout", Reload::Live);
        check("users.refresh", Reload::Restart);
        check("user", Reload::Restart);
        check("user_list.app.password", Reload::NewConnections);
        check("servers[2].weight", Reload::Live);
        check("servers.db-0.db.weight", Reload::Live);
        check("servers.db-0.db.zone", Reload::Restart);
        check("servers.db-0.db.address", Reload::Live);
        check("nonsense", Reload::Restart);
    }

    #[test]
    fn what_is_promised_is_taken_up_and_nothing_else() {
        let running = load("servers = [\"a\", \"b\"]\nuser = \"u\"\npassword = \"p\"\n");
        let new = load(EVERYTHING_CHANGED);
        let next = take_up(&running, &new, None);
        let pending = diff(&next, &new);
        let taken = diff(&running, &next);
        assert!(pending.iter().all(|change| change.reload == Reload::Restart), "{pending:#?}");
        assert!(taken.iter().all(|change| change.reload != Reload::Restart), "{taken:#?}");
        let keys: Vec<_> = taken.iter().map(|change| change.key.as_str()).collect();
        let promised: Vec<_> = TABLE.iter().filter(|(_, reload)| *reload != Reload::Restart).collect();
        for (promise, _) in promised {
            assert!(keys.iter().any(|key| key.starts_with(promise)), "{promise} is not in {keys:?}");
        }
        assert!(keys.contains(&"servers.a.weight"), "{keys:?}");
        assert!(keys.contains(&"servers.b.address") && keys.contains(&"servers.c.address"), "{keys:?}");
        assert_eq!(take_up(&next, &new, None), next);
    }

    #[test]
    fn the_primary_stays() {
        let running = load("servers = [\"a\", \"b\"]\nuser = \"u\"\npassword = \"p\"\n");
        let new = load("servers = [\"c\"]\nuser = \"u\"\npassword = \"p\"\n");
        let names = |primary: Option<&str>| {
            let next = take_up(&running, &new, primary);
            next.servers.into_iter().map(|server| server.name).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(names(None), "c");
        assert_eq!(names(Some("b")), "c b");
        let mut moved = running.clone();
        moved.servers[0].address = "elsewhere:3306".to_owned();
        assert_eq!(take_up(&running, &moved, Some("a")), running);
        assert_eq!(take_up(&running, &moved, Some("b")), moved);
    }

    fn load(text: &str) -> Config {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("pointsman.toml");
        std::fs::write(&file, text).unwrap();
        let sources = crate::Sources { file: Some(file), environment: Vec::new(), flags: Vec::new() };
        crate::load(&sources).unwrap_or_else(|faults| panic!("{faults}")).config
    }

    const EVERYTHING_CHANGED: &str = r#"
        cluster = "other"
        user = "v"
        password = "q"
        user_list = [{ name = "app", password = "x" }]
        [[server]]
        address = "a"
        weight = 7
        zone = "z"
        [[server]]
        address = "c"
        [listen.rw]
        address = "[::]:3316"
        [listen.ro]
        address = "[::]:3317"
        [users]
        refresh = "7s"
        [tls]
        mode = "required"
        [backend_tls]
        mode = "required"
        [pool]
        mode = "session"
        max_connections = 7
        min_idle = 1
        idle_timeout = "7s"
        max_lifetime = "7m"
        acquire_timeout = "7s"
        [routing]
        consistency = "eventual"
        balance = "random"
        no_replica = "wait"
        read_wait = "7ms"
        hold_timeout = "7s"
        zone = "z"
        slow_start = "7s"
        rule = [{ name = "r", target = "primary", user = "app" }]
        [lag]
        preferred = "2s"
        maximum = "7s"
        [monitor]
        interval = "70ms"
        timeout = "700ms"
        failures = 7
        [failover]
        mode = "manual"
        [switchover]
        timeout = "7s"
        [replication]
        user = "r"
        [coordination]
        lease = "7s"
        [vip]
        link = "other"
        [admin]
        address = "127.0.0.1:9097"
        token = "t"
        [drain]
        delay = "7s"
        timeout = "7m"
        [log]
        level = "debug"
        format = "json"
        slow_query = "7s"
        [runtime]
        workers = 7
    "#;
}
