//! The values that hold where the configuration says nothing.

use std::path::PathBuf;
use std::time::Duration;

use crate::choices::{
    Balance, Consistency, CoordinationBackend, DataLoss, Durability, FailoverMode, Forwarding, LogFormat,
    LogLevel, NoReplica, PoolMode, Promotion, Scheduler, UnknownOutcome, UserSource, VipFallback,
};
use crate::model::{
    Admin, BackendTls, Config, Coordination, Drain, Failover, Lag, Listen, Listener, Log, Monitor, Pool,
    Replication, Routing, Runtime, Server, Switchover, Tls, Users, Vip,
};
use crate::secret::Secret;

/// Where the coordinator's record is kept unless the service manager names a directory.
pub const STATE_DIR: &str = "/var/lib/pointsman";

impl Default for Config {
    fn default() -> Self {
        Self {
            cluster: "default".to_owned(),
            servers: Vec::new(),
            user: String::new(),
            password: Secret::default(),
            listen: Listen::default(),
            users: Users::default(),
            user_list: Vec::new(),
            tls: Tls::default(),
            backend_tls: BackendTls::default(),
            pool: Pool::default(),
            routing: Routing::default(),
            lag: Lag::default(),
            monitor: Monitor::default(),
            failover: Failover::default(),
            switchover: Switchover::default(),
            coordination: Coordination::default(),
            vip: Vip::default(),
            admin: Admin::default(),
            drain: Drain::default(),
            log: Log::default(),
            replication: Replication::default(),
            runtime: Runtime::default(),
        }
    }
}

impl Default for Server {
    fn default() -> Self {
        Self {
            name: String::new(),
            address: String::new(),
            weight: 100,
            zone: String::new(),
            region: String::new(),
            promotion: Promotion::default(),
            max_connections: None,
        }
    }
}

impl Default for Listen {
    fn default() -> Self {
        let off = Listener::default();
        Self { rw: Listener { address: "[::]:3306".to_owned(), ..off.clone() }, ro: off }
    }
}

impl Default for Listener {
    fn default() -> Self {
        Self {
            address: String::new(),
            socket: None,
            max_connections: 10_000,
            proxy_protocol: Vec::new(),
            consistency: None,
        }
    }
}

impl Default for Users {
    fn default() -> Self {
        Self { source: UserSource::default(), refresh: Duration::from_secs(30) }
    }
}

impl Default for Pool {
    fn default() -> Self {
        Self {
            mode: PoolMode::default(),
            max_connections: 100,
            min_idle: 0,
            idle_timeout: Duration::from_secs(300),
            max_lifetime: Duration::from_secs(3600),
            acquire_timeout: Duration::from_secs(5),
        }
    }
}

impl Default for Routing {
    fn default() -> Self {
        Self {
            consistency: Consistency::default(),
            balance: Balance::default(),
            no_replica: NoReplica::default(),
            read_wait: Duration::from_millis(200),
            hold_timeout: Duration::from_secs(10),
            zone: String::new(),
            slow_start: Duration::from_secs(10),
            rules: Vec::new(),
        }
    }
}

impl Default for Lag {
    fn default() -> Self {
        Self { preferred: Duration::from_secs(1), maximum: Duration::from_secs(10) }
    }
}

impl Default for Monitor {
    fn default() -> Self {
        Self { interval: Duration::from_millis(100), timeout: Duration::from_millis(300), failures: 3 }
    }
}

impl Default for Failover {
    fn default() -> Self {
        Self {
            mode: FailoverMode::default(),
            durability: Durability::default(),
            data_loss: DataLoss::default(),
            min_interval: Duration::from_secs(60),
            max_per_hour: 3,
            replay_limit: 1 << 20,
            async_silence: Duration::from_secs(5),
            fence_command: Vec::new(),
            unknown_outcome: UnknownOutcome::default(),
        }
    }
}

impl Default for Switchover {
    fn default() -> Self {
        Self { transaction_timeout: Duration::from_millis(500), timeout: Duration::from_secs(10) }
    }
}

impl Default for Coordination {
    fn default() -> Self {
        Self {
            backend: CoordinationBackend::default(),
            lease: Duration::from_secs(3),
            state_dir: PathBuf::from(STATE_DIR),
            endpoints: Vec::new(),
            prefix: "/pointsman".to_owned(),
            namespace: None,
            name: None,
            kubeconfig_file: None,
        }
    }
}

impl Default for Vip {
    fn default() -> Self {
        Self {
            address: None,
            port: 3306,
            scheduler: Scheduler::default(),
            forwarding: Forwarding::default(),
            interface: None,
            link: "pointsman0".to_owned(),
            fallback: VipFallback::default(),
            drain: Duration::from_secs(60),
            idle_timeout: Duration::ZERO,
        }
    }
}

impl Default for Admin {
    fn default() -> Self {
        Self { address: "127.0.0.1:9090".to_owned(), socket: None, token: None }
    }
}

impl Default for Drain {
    fn default() -> Self {
        Self { delay: Duration::from_secs(5), timeout: Duration::from_secs(60) }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self { level: LogLevel::default(), format: LogFormat::default(), slow_query: Duration::from_secs(1) }
    }
}
