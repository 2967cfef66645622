//! When a change of an option takes effect.

/// What has to happen for a changed option to take effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reload {
    /// At once.
    Live,
    /// For connections that are opened from then on.
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
    ("servers", Reload::Restart),
    ("user", Reload::NewConnections),
    ("password", Reload::NewConnections),
    ("listen", Reload::Restart),
    ("listen.rw.max_connections", Reload::Live),
    ("listen.ro.max_connections", Reload::Live),
    ("listen.rw.proxy_protocol", Reload::NewConnections),
    ("listen.ro.proxy_protocol", Reload::NewConnections),
    ("listen.rw.consistency", Reload::NewConnections),
    ("listen.ro.consistency", Reload::NewConnections),
    ("users", Reload::Live),
    ("user_list", Reload::NewConnections),
    ("tls", Reload::NewConnections),
    ("backend_tls", Reload::NewConnections),
    ("pool", Reload::Live),
    ("pool.mode", Reload::NewConnections),
    ("routing", Reload::Live),
    ("lag", Reload::Live),
    ("monitor", Reload::Live),
    ("failover", Reload::Live),
    ("switchover", Reload::Live),
    ("coordination", Reload::Restart),
    ("vip", Reload::Restart),
    ("admin", Reload::Restart),
    ("admin.token", Reload::Live),
    ("drain", Reload::Live),
    ("log", Reload::Live),
    ("log.format", Reload::Restart),
    ("replication", Reload::Live),
    ("runtime", Reload::Restart),
];

#[cfg(test)]
mod tests {
    use super::*;
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
        check("pool.max_connections", Reload::Live);
        check("pool.mode", Reload::NewConnections);
        check("users.refresh", Reload::Live);
        check("user", Reload::NewConnections);
        check("servers[2].weight", Reload::Restart);
        check("nonsense", Reload::Restart);
    }
}
