//! The configuration as the rest of the program sees it: every value present, checked and in its own type.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::choices::{
    BackendTlsMode, Balance, Consistency, CoordinationBackend, DataLoss, Durability, FailoverMode,
    Forwarding, ListenerName, LogFormat, LogLevel, NoReplica, PoolMode, Promotion, RuleTarget, Scheduler,
    TlsMode, UnknownOutcome, UserSource, VipFallback,
};
use crate::secret::Secret;
use crate::units;

/// The whole configuration of one process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The name of the cluster, in status, metrics and the coordinator.
    pub cluster: String,
    /// The servers, in the order of the configuration: `servers = ["host:port"]` and `[[server]]` together.
    pub servers: Vec<Server>,
    /// The service account: monitors, promotes, reads accounts.
    pub user: String,
    /// The service account's password.
    pub password: Secret,
    pub listen: Listen,
    pub users: Users,
    /// `[[user]]`: the accounts of `users.source = "static"`, and settings of mirrored ones. There, a password opens
    /// accounts whose plugin proves one in a way that cannot be passed on to servers.
    pub user_list: Vec<StaticUser>,
    pub tls: Tls,
    pub backend_tls: BackendTls,
    pub pool: Pool,
    pub routing: Routing,
    pub lag: Lag,
    pub monitor: Monitor,
    pub failover: Failover,
    pub switchover: Switchover,
    pub coordination: Coordination,
    pub vip: Vip,
    pub admin: Admin,
    pub drain: Drain,
    pub log: Log,
    pub replication: Replication,
    pub runtime: Runtime,
}

/// One server.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Server {
    /// Defaults to the host, or host:port where hosts repeat.
    pub name: String,
    /// `host:port`; the port defaults to 3306.
    pub address: String,
    /// The share of reads; 0 takes the server out of the read pool.
    #[schemars(range(max = 65535))]
    pub weight: u32,
    /// For `routing.zone`: reads prefer servers of their own zone.
    pub zone: String,
    /// No automatic promotion crosses regions.
    pub region: String,
    pub promotion: Promotion,
    /// Connections to this server; defaults to `pool.max_connections`.
    #[schemars(range(min = 1))]
    pub max_connections: Option<u32>,
}

/// Where clients connect.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Listen {
    /// Writes to the primary, reads to replicas.
    pub rw: Listener,
    /// Replicas only.
    pub ro: Listener,
}

/// One listener.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Listener {
    /// `host:port`; empty is off.
    pub address: String,
    /// The path of a Unix socket.
    #[schemars(with = "Option<units::PathText>")]
    pub socket: Option<PathBuf>,
    /// Clients at a time; the next one gets error 1040.
    #[schemars(range(min = 1))]
    pub max_connections: u32,
    /// Networks whose connections begin with a PROXY protocol header.
    #[serde(with = "units::networks")]
    #[schemars(with = "Vec<units::Network>")]
    pub proxy_protocol: Vec<IpNet>,
    /// The consistency of this listener's sessions, where their user has none.
    pub consistency: Option<Consistency>,
}

/// Where accounts come from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Users {
    pub source: UserSource,
    /// How often the accounts are read again.
    #[serde(with = "units::duration")]
    #[schemars(with = "units::DurationText")]
    pub refresh: Duration,
}

/// One account of the configuration.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct StaticUser {
    pub name: String,
    pub password: Secret,
    pub consistency: Option<Consistency>,
    /// The only listener that this user may come through.
    pub listener: Option<ListenerName>,
}

/// TLS towards clients.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Tls {
    pub mode: TlsMode,
    /// PEM certificate chain; without one, a self-signed certificate is made at start.
    #[schemars(with = "Option<units::FileText>")]
    pub cert_file: Option<PathBuf>,
    #[schemars(with = "Option<units::FileText>")]
    pub key_file: Option<PathBuf>,
    /// Authorities of client certificates.
    #[schemars(with = "Option<units::FileText>")]
    pub client_ca_file: Option<PathBuf>,
}

/// TLS towards servers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct BackendTls {
    pub mode: BackendTlsMode,
    #[schemars(with = "Option<units::FileText>")]
    pub ca_file: Option<PathBuf>,
    /// A client certificate for servers that ask for one.
    #[schemars(with = "Option<units::FileText>")]
    pub cert_file: Option<PathBuf>,
    #[schemars(with = "Option<units::FileText>")]
    pub key_file: Option<PathBuf>,
}

/// Connections to servers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Pool {
    pub mode: PoolMode,
    /// Connections to each server, over all users; limits transaction mode only.
    #[schemars(range(min = 1))]
    pub max_connections: u32,
    /// Idle connections to each server, over all workers, that `idle_timeout` leaves open.
    pub min_idle: u32,
    #[serde(with = "units::duration")]
    #[schemars(with = "units::DurationText")]
    pub idle_timeout: Duration,
    #[serde(with = "units::duration")]
    #[schemars(with = "units::DurationText")]
    pub max_lifetime: Duration,
    /// How long a statement waits for a connection at the limit.
    #[serde(with = "units::duration")]
    #[schemars(with = "units::DurationText")]
    pub acquire_timeout: Duration,
}

/// Where statements go.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Routing {
    pub consistency: Consistency,
    pub balance: Balance,
    pub no_replica: NoReplica,
    /// How long a read may wait on a replica for what its session has seen.
    #[serde(with = "units::duration")]
    #[schemars(with = "units::DurationText")]
    pub read_wait: Duration,
    /// How long a statement is held while there is no primary.
    #[serde(with = "units::duration")]
    #[schemars(with = "units::DurationText")]
    pub hold_timeout: Duration,
    /// The zone of this proxy; replicas of the same zone are preferred.
    pub zone: String,
    /// How long a replica that comes back takes to reach its full share.
    #[serde(with = "units::duration")]
    #[schemars(with = "units::DurationText")]
    pub slow_start: Duration,
    /// `[[routing.rule]]`: exceptions, the first that matches wins.
    #[serde(rename = "rule")]
    pub rules: Vec<Rule>,
}

/// An exception from routing; all conditions that are set must hold.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Rule {
    /// Shown where the rule decided.
    pub name: String,
    pub target: RuleTarget,
    /// A statement whose normalised form is meant: literals may differ.
    pub digest: Option<String>,
    pub user: Option<String>,
    pub schema: Option<String>,
    pub listener: Option<ListenerName>,
}

/// How far behind a replica may be.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Lag {
    /// Replicas under this are preferred.
    #[serde(with = "units::duration")]
    #[schemars(with = "units::DurationText")]
    pub preferred: Duration,
    /// Replicas over this get no reads.
    #[serde(with = "units::duration")]
    #[schemars(with = "units::DurationText")]
    pub maximum: Duration,
}

/// Health checks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Monitor {
    #[serde(with = "units::duration")]
    #[schemars(with = "units::DurationText")]
    pub interval: Duration,
    #[serde(with = "units::duration")]
    #[schemars(with = "units::DurationText")]
    pub timeout: Duration,
    /// Failed checks in a row after which a server is down.
    #[schemars(range(min = 1))]
    pub failures: u32,
}

/// What happens when the primary dies.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Failover {
    pub mode: FailoverMode,
    pub durability: Durability,
    pub data_loss: DataLoss,
    /// The least time between two automatic failovers.
    #[serde(with = "units::duration")]
    #[schemars(with = "units::DurationText")]
    pub min_interval: Duration,
    /// Automatic failovers an hour; 0 is no limit.
    pub max_per_hour: u32,
    /// Transactions up to this size are replayed on the new primary.
    #[serde(with = "units::size")]
    #[schemars(with = "units::SizeText")]
    pub replay_limit: u64,
    /// Silence of the primary after which it counts as dead without lossless replication.
    #[serde(with = "units::duration")]
    #[schemars(with = "units::DurationText")]
    pub async_silence: Duration,
    /// Program and arguments that kill or isolate the old primary.
    pub fence_command: Vec<String>,
    pub unknown_outcome: UnknownOutcome,
}

/// Planned change of the primary.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Switchover {
    /// How long open transactions may take to end.
    #[serde(with = "units::duration")]
    #[schemars(with = "units::DurationText")]
    pub transaction_timeout: Duration,
    #[serde(with = "units::duration")]
    #[schemars(with = "units::DurationText")]
    pub timeout: Duration,
}

/// What several proxies agree through.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Coordination {
    pub backend: CoordinationBackend,
    #[serde(with = "units::duration")]
    #[schemars(with = "units::DurationText")]
    pub lease: Duration,
    /// Where the record is kept; defaults to `$STATE_DIRECTORY`, else `/var/lib/pointsman`.
    #[schemars(with = "units::PathText")]
    pub state_dir: PathBuf,
    /// URLs of etcd.
    pub endpoints: Vec<String>,
    /// The prefix of keys in etcd.
    pub prefix: String,
    /// The namespace of the Kubernetes Lease; defaults to the pod's own.
    pub namespace: Option<String>,
    /// The name of the Kubernetes Lease; defaults to `pointsman-<cluster>`.
    pub name: Option<String>,
    /// How a proxy outside of Kubernetes reaches it; a pod has the token of its service account.
    #[schemars(with = "Option<units::PathText>")]
    pub kubeconfig_file: Option<PathBuf>,
}

impl Coordination {
    /// The name of the Lease that holds the record of `cluster`.
    pub fn record_name(&self, cluster: &str) -> String {
        self.name.clone().unwrap_or_else(|| format!("pointsman-{cluster}"))
    }
}

/// The virtual address of the read pool.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Vip {
    /// None is off.
    #[schemars(with = "Option<units::Address>")]
    pub address: Option<IpAddr>,
    #[schemars(range(min = 1))]
    pub port: u16,
    pub scheduler: Scheduler,
    pub forwarding: Forwarding,
    /// The interface that answers for the address; defaults to the one of the route.
    pub interface: Option<String>,
    /// The dummy link that holds the address.
    pub link: String,
    /// Who serves when no replica can.
    pub fallback: VipFallback,
    /// How long connections to a server that is taken out may last.
    #[serde(with = "units::duration")]
    #[schemars(with = "units::DurationText")]
    pub drain: Duration,
    /// The kernel's time-out of idle connections, for every IPVS service of the host; 0s leaves it as it is.
    #[serde(with = "units::duration")]
    #[schemars(with = "units::DurationText")]
    pub idle_timeout: Duration,
}

/// The admin listener.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Admin {
    /// `host:port`; empty is off.
    pub address: String,
    #[schemars(with = "Option<units::PathText>")]
    pub socket: Option<PathBuf>,
    /// The bearer token of changes; without one, changes are accepted on the Unix socket only.
    pub token: Option<Secret>,
}

/// The end of the process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Drain {
    /// How long clients are still accepted after the process has stopped being ready.
    #[serde(with = "units::duration")]
    #[schemars(with = "units::DurationText")]
    pub delay: Duration,
    /// When the rest is cut off.
    #[serde(with = "units::duration")]
    #[schemars(with = "units::DurationText")]
    pub timeout: Duration,
}

/// What is logged.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    pub level: LogLevel,
    pub format: LogFormat,
    /// Statements that take longer are logged; 0s is off.
    #[serde(with = "units::duration")]
    #[schemars(with = "units::DurationText")]
    pub slow_query: Duration,
}

/// The account with which a server replicates that did not before; defaults to the service account.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Replication {
    pub user: Option<String>,
    pub password: Option<Secret>,
}

/// The process itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Runtime {
    /// Threads that serve clients; 0 is one per usable CPU.
    #[schemars(range(max = 1024))]
    pub workers: u32,
}
