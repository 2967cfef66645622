//! What can only be judged once all values are known.

mod address;

use std::collections::BTreeMap;
use std::time::Duration;

pub use address::HostPort;

use crate::choices::{BackendTlsMode, CoordinationBackend, TlsMode, UserSource};
use crate::fault::{Fault, Notice, Problem, Warning};
use crate::load::Origins;
use crate::model::Config;
use crate::units::format_duration;

/// Fills in what depends on other values: names, ports, the state directory.
pub(crate) fn complete(config: &mut Config, origins: &Origins, environment: &[(String, String)]) {
    for server in &mut config.servers {
        if let Some(address) = HostPort::parse(&server.address) {
            server.address = address.to_string();
        }
    }
    let hosts: Vec<String> = config.servers.iter().map(|server| host(&server.address)).collect();
    for (at, server) in config.servers.iter_mut().enumerate() {
        if server.name.is_empty() {
            let repeats = hosts.iter().filter(|host| **host == hosts[at]).count() > 1;
            server.name = if repeats { server.address.clone() } else { hosts[at].clone() };
        }
    }
    for (at, rule) in config.routing.rules.iter_mut().enumerate() {
        if rule.name.is_empty() {
            rule.name = format!("rule-{}", at + 1);
        }
    }
    let state_directory = environment.iter().find(|(name, _)| name == "STATE_DIRECTORY");
    if let Some((_, directories)) = state_directory
        && !origins.is_set("coordination.state_dir")
        && let Some(first) = directories.split(':').find(|directory| !directory.is_empty())
    {
        config.coordination.state_dir = first.into();
    }
}

fn host(address: &str) -> String {
    HostPort::parse(address).map_or_else(|| address.to_owned(), |address| address.host)
}

/// What was found wrong or odd.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    pub(crate) faults: Vec<Fault>,
    pub(crate) warnings: Vec<Warning>,
}

/// Checks what concerns several keys, and what no schema says.
pub(crate) fn validate(config: &Config, origins: &Origins) -> Findings {
    let mut check = Check { config, origins, found: Findings::default() };
    check.servers();
    check.account();
    check.listeners();
    check.tls();
    check.users();
    check.rules();
    check.coordination();
    check.vip();
    check.durations();
    check.limits();
    check.found
}

struct Check<'a> {
    config: &'a Config,
    origins: &'a Origins,
    found: Findings,
}

/// Names of servers, users and the like are shown in one line and used as metric labels.
const MAX_NAME_BYTES: usize = 64;
/// `GET_LOCK('pointsman/<cluster>')` takes 64 characters.
const MAX_CLUSTER_BYTES: usize = 54;
/// IFNAMSIZ of Linux, less the terminating zero.
const MAX_INTERFACE_BYTES: usize = 15;
/// RFC 1123's limit for a name in DNS, less what the coordinator adds.
const MAX_OBJECT_NAME_BYTES: usize = 240;

fn is_object_name(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let is_label = |label: &str| {
        let bytes = label.as_bytes();
        let ends = bytes.first().zip(bytes.last());
        ends.is_some_and(|(first, last)| plain(*first) && plain(*last))
            && bytes.iter().all(|&b| plain(b) || b == b'-')
    };
    name.len() <= MAX_OBJECT_NAME_BYTES && name.split('.').all(is_label)
}

impl Check<'_> {
    fn fault(&mut self, key: &str, problem: Problem) {
        let (place, key) = self.origins.locate(key);
        self.found.faults.push(Fault { place, key, problem });
    }

    fn warn(&mut self, key: &str, notice: Notice) {
        let (place, key) = self.origins.locate(key);
        self.found.warnings.push(Warning { place, key, notice });
    }

    fn servers(&mut self) {
        if self.config.servers.is_empty() {
            return self.fault("servers", Problem::NoServer);
        }
        let mut names = BTreeMap::new();
        let mut addresses = BTreeMap::new();
        for (at, server) in self.config.servers.iter().enumerate() {
            let key = |name: &str| format!("servers[{at}].{name}");
            if HostPort::parse(&server.address).is_none() {
                self.fault(&key("address"), Problem::Address { got: server.address.clone() });
                continue;
            }
            if let Some(first) = addresses.insert(server.address.to_ascii_lowercase(), at) {
                let what = "the address";
                self.duplicate(what, &server.address, &key("address"), &format!("servers[{first}].address"));
                continue;
            }
            self.name(&key("name"), &server.name, MAX_NAME_BYTES);
            if let Some(first) = names.insert(server.name.clone(), at) {
                self.duplicate("the name", &server.name, &key("name"), &format!("servers[{first}].name"));
            }
        }
        if self.config.servers.iter().all(|server| server.weight == 0) {
            self.warn("servers[0].weight", Notice::NoWeight);
        }
    }

    fn duplicate(&mut self, what: &'static str, value: &str, key: &str, first: &str) {
        let other = self.origins.locate(first).0;
        self.fault(key, Problem::Duplicate { what, value: value.to_owned(), other });
    }

    fn name(&mut self, key: &str, name: &str, limit: usize) {
        let sound = !name.is_empty() && name.len() <= limit && name.bytes().all(|b| b.is_ascii_graphic());
        if !sound {
            let rule = "a name of 1 to 64 printable ASCII characters without spaces";
            self.fault(key, Problem::Name { rule, got: name.to_owned() });
        }
    }

    fn account(&mut self) {
        if self.config.user.is_empty() {
            self.fault("user", Problem::NoUser);
        }
        let cluster = &self.config.cluster;
        let sound = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
        if cluster.is_empty() || cluster.len() > MAX_CLUSTER_BYTES || !cluster.bytes().all(sound) {
            let rule = "a name of 1 to 54 letters, digits, \"-\", \"_\" and \".\"";
            self.fault("cluster", Problem::Name { rule, got: cluster.clone() });
        }
        let replication = &self.config.replication;
        if replication.password.is_some() && replication.user.is_none() {
            self.fault("replication.password", Problem::Needs { needs: "replication.user" });
        }
        if self.config.admin.token.as_ref().is_some_and(crate::Secret::is_empty) {
            let rule = "a token that is not empty";
            self.fault("admin.token", Problem::Name { rule, got: String::new() });
        }
        let command = &self.config.failover.fence_command;
        if command.first().is_some_and(String::is_empty) {
            let rule = "the path of a program";
            self.fault("failover.fence_command[0]", Problem::Name { rule, got: String::new() });
        }
    }

    fn listeners(&mut self) {
        let Config { listen, admin, vip, .. } = self.config;
        let addresses = [
            ("listen.rw.address", listen.rw.address.as_str()),
            ("listen.ro.address", listen.ro.address.as_str()),
            ("admin.address", admin.address.as_str()),
        ];
        let mut taken: Vec<(&'static str, HostPort)> = Vec::new();
        if let Some(address) = vip.address {
            taken.push(("vip.address", HostPort { host: address.to_string(), port: vip.port }));
        }
        for (key, address) in addresses {
            if address.is_empty() {
                continue;
            }
            let Some(parsed) = HostPort::parse_with(address, None) else {
                self.fault(key, Problem::Address { got: address.to_owned() });
                continue;
            };
            if let Some((other, _)) = taken.iter().find(|(other, used)| {
                // Wildcard listeners leave the virtual address alone: the kernel takes its packets first.
                if *other == "vip.address" { *used == parsed } else { used.clashes(&parsed) }
            }) {
                self.fault(key, Problem::Taken { key: other });
            }
            taken.push((key, parsed));
        }
        self.sockets();
        let off = |listener: &crate::Listener| listener.address.is_empty() && listener.socket.is_none();
        if off(&listen.rw) && off(&listen.ro) {
            self.fault("listen.rw.address", Problem::NoListener);
        }
    }

    fn sockets(&mut self) {
        let Config { listen, admin, .. } = self.config;
        let sockets = [
            ("listen.rw.socket", &listen.rw.socket),
            ("listen.ro.socket", &listen.ro.socket),
            ("admin.socket", &admin.socket),
        ];
        for (at, (key, socket)) in sockets.iter().enumerate() {
            let same = sockets[..at].iter().find(|(_, other)| socket.is_some() && other == socket);
            if let Some((other, _)) = same {
                self.fault(key, Problem::Taken { key: other });
            }
        }
    }

    fn tls(&mut self) {
        let Config { tls, backend_tls, .. } = self.config;
        let pairs = [
            ("tls.cert_file", tls.cert_file.is_some(), tls.key_file.is_some(), "tls.key_file"),
            ("tls.key_file", tls.key_file.is_some(), tls.cert_file.is_some(), "tls.cert_file"),
            (
                "backend_tls.cert_file",
                backend_tls.cert_file.is_some(),
                backend_tls.key_file.is_some(),
                "backend_tls.key_file",
            ),
            (
                "backend_tls.key_file",
                backend_tls.key_file.is_some(),
                backend_tls.cert_file.is_some(),
                "backend_tls.cert_file",
            ),
        ];
        for (key, is_set, has_other, needs) in pairs {
            if is_set && !has_other {
                self.fault(key, Problem::Needs { needs });
            }
        }
        let verifies = matches!(backend_tls.mode, BackendTlsMode::VerifyCa | BackendTlsMode::VerifyIdentity);
        if verifies && backend_tls.ca_file.is_none() {
            self.fault("backend_tls.mode", Problem::Needs { needs: "backend_tls.ca_file" });
        }
        if backend_tls.ca_file.is_some() && !verifies {
            let because = "backend_tls.mode verifies nothing; verify-ca and verify-identity do";
            self.warn("backend_tls.ca_file", Notice::NoEffect { because });
        }
        if tls.mode == TlsMode::Disabled && (tls.cert_file.is_some() || tls.client_ca_file.is_some()) {
            self.warn(
                "tls.mode",
                Notice::NoEffect { because: "TLS is disabled, so the certificate is not used" },
            );
        }
    }

    fn users(&mut self) {
        let mirror = self.config.users.source == UserSource::Mirror;
        let mut names = BTreeMap::new();
        for (at, user) in self.config.user_list.iter().enumerate() {
            let key = |name: &str| format!("user_list[{at}].{name}");
            if user.name.is_empty() {
                let rule = "the name of a user";
                self.fault(&key("name"), Problem::Name { rule, got: String::new() });
            } else if let Some(first) = names.insert(user.name.clone(), at) {
                self.duplicate("the user", &user.name, &key("name"), &format!("user_list[{first}].name"));
            }
        }
        if !mirror && self.config.user_list.is_empty() {
            self.fault("users.source", Problem::Needs { needs: "at least one [[user]]" });
        }
    }

    fn rules(&mut self) {
        let mut names = BTreeMap::new();
        for (at, rule) in self.config.routing.rules.iter().enumerate() {
            let key = |name: &str| format!("routing.rule[{at}].{name}");
            if let Some(first) = names.insert(rule.name.clone(), at) {
                self.duplicate("the rule", &rule.name, &key("name"), &format!("routing.rule[{first}].name"));
            }
            let no_condition = rule.digest.is_none()
                && rule.user.is_none()
                && rule.schema.is_none()
                && rule.listener.is_none();
            if no_condition {
                let needs = "a condition: digest, user, schema or listener";
                self.fault(&format!("routing.rule[{at}]"), Problem::Needs { needs });
            }
        }
    }

    fn coordination(&mut self) {
        let coordination = &self.config.coordination;
        let etcd = coordination.backend == CoordinationBackend::Etcd;
        if etcd && coordination.endpoints.is_empty() {
            self.fault("coordination.backend", Problem::Needs { needs: "coordination.endpoints" });
        }
        for (at, endpoint) in coordination.endpoints.iter().enumerate() {
            let host = endpoint.strip_prefix("http://").or_else(|| endpoint.strip_prefix("https://"));
            if host.is_none_or(str::is_empty) {
                let rule = "a URL as in \"http://etcd-1:2379\"";
                let got = endpoint.clone();
                self.fault(&format!("coordination.endpoints[{at}]"), Problem::Name { rule, got });
            }
        }
        if !etcd && !coordination.endpoints.is_empty() {
            let because = "coordination.backend is not \"etcd\"";
            self.warn("coordination.endpoints", Notice::NoEffect { because });
        }
        if coordination.backend == CoordinationBackend::Kubernetes {
            self.kubernetes();
        }
    }

    /// The names of objects are checked before an API server refuses them.
    fn kubernetes(&mut self) {
        let coordination = &self.config.coordination;
        let rule = "a name of lower-case letters, digits, \"-\" and \".\", as objects of Kubernetes have";
        for (key, name) in
            [("coordination.name", &coordination.name), ("coordination.namespace", &coordination.namespace)]
        {
            if let Some(name) = name.as_ref().filter(|name| !is_object_name(name)) {
                self.fault(key, Problem::Name { rule, got: name.clone() });
            }
        }
        if coordination.name.is_none() && !is_object_name(&coordination.record_name(&self.config.cluster)) {
            let needs =
                "coordination.name, because the name of the cluster cannot be part of an object's name";
            self.fault("coordination.backend", Problem::Needs { needs });
        }
    }

    fn vip(&mut self) {
        let vip = &self.config.vip;
        if vip.address.is_none()
            && let Some(key) = self.origins.first_of("vip.")
        {
            self.warn(&key, Notice::NoEffect { because: "vip.address is not set" });
        }
        for (key, name) in [("vip.link", Some(&vip.link)), ("vip.interface", vip.interface.as_ref())] {
            let Some(name) = name else { continue };
            let sound = |b: u8| b.is_ascii_graphic() && b != b'/' && b != b':';
            if name.is_empty() || name.len() > MAX_INTERFACE_BYTES || !name.bytes().all(sound) {
                let rule = "the name of a network interface, 1 to 15 characters";
                self.fault(key, Problem::Name { rule, got: name.clone() });
            }
        }
        if vip.address.is_some_and(|address| address.is_unspecified() || address.is_multicast()) {
            let rule = "an address of one host";
            let got = vip.address.map(|address| address.to_string()).unwrap_or_default();
            self.fault("vip.address", Problem::Name { rule, got });
        }
    }

    fn durations(&mut self) {
        let config = self.config;
        let positive = [
            ("users.refresh", config.users.refresh),
            ("pool.idle_timeout", config.pool.idle_timeout),
            ("pool.max_lifetime", config.pool.max_lifetime),
            ("pool.acquire_timeout", config.pool.acquire_timeout),
            ("lag.maximum", config.lag.maximum),
            ("monitor.interval", config.monitor.interval),
            ("monitor.timeout", config.monitor.timeout),
            ("failover.async_silence", config.failover.async_silence),
            ("switchover.transaction_timeout", config.switchover.transaction_timeout),
            ("switchover.timeout", config.switchover.timeout),
            ("coordination.lease", config.coordination.lease),
        ];
        for (key, value) in positive {
            if value == Duration::ZERO {
                self.fault(key, Problem::ZeroDuration);
            }
        }
    }

    fn limits(&mut self) {
        let Config { lag, pool, .. } = self.config;
        if lag.preferred > lag.maximum && lag.maximum > Duration::ZERO {
            let (limit, got) = (format_duration(lag.maximum), format_duration(lag.preferred));
            self.fault("lag.preferred", Problem::OverLimit { key: "lag.maximum", limit, got });
        }
        if pool.min_idle > pool.max_connections {
            let (limit, got) = (pool.max_connections.to_string(), pool.min_idle.to_string());
            self.fault("pool.min_idle", Problem::OverLimit { key: "pool.max_connections", limit, got });
        }
    }
}
