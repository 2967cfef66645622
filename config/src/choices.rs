//! Options whose value is one word of a few.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

macro_rules! choice {
    ($(#[$doc:meta])* $name:ident as $case:literal { $($(#[$variant_doc:meta])* $variant:ident,)+ }) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
        )]
        #[serde(rename_all = $case)]
        #[schemars(inline)]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)+
        }
    };
}

choice! {
    /// How much a read must have seen.
    Consistency as "kebab-case" {
        /// Reads see this session's writes and never go backwards.
        #[default]
        Session,
        /// Reads may be as old as the lag limits allow.
        Eventual,
        /// Reads see everything that any client had committed before.
        Global,
    }
}

choice! {
    /// How reads are spread over replicas.
    Balance as "snake_case" {
        /// By the weighted finish time expected from each replica's latency and outstanding statements.
        #[default]
        Adaptive,
        /// In turn.
        RoundRobin,
        /// In turn, by weight.
        WeightedRoundRobin,
        /// Fewest outstanding statements for its weight.
        LeastConnections,
        /// Random by weight.
        Random,
    }
}

choice! {
    /// What happens to a read while no replica may serve it.
    NoReplica as "kebab-case" {
        /// The primary serves it.
        #[default]
        Primary,
        /// It is refused.
        Error,
        /// It waits for a replica up to `routing.hold_timeout`.
        Wait,
    }
}

choice! {
    /// Whether a server may become the primary.
    Promotion as "kebab-case" {
        Prefer,
        #[default]
        Neutral,
        Never,
    }
}

choice! {
    /// Where accounts come from.
    UserSource as "kebab-case" {
        /// Read from the primary.
        #[default]
        Mirror,
        /// Listed in the configuration.
        Static,
    }
}

choice! {
    /// One of the two listeners.
    ListenerName as "kebab-case" {
        #[default]
        Rw,
        Ro,
    }
}

choice! {
    /// TLS towards clients.
    TlsMode as "kebab-case" {
        /// Not offered.
        Disabled,
        /// Offered; clients without it are served too.
        #[default]
        Preferred,
        /// Clients without it are refused.
        Required,
    }
}

choice! {
    /// TLS towards servers.
    BackendTlsMode as "kebab-case" {
        /// Never used.
        Disabled,
        /// Used where the server offers it; the certificate is not verified.
        #[default]
        Preferred,
        /// Always used; the certificate is not verified.
        Required,
        /// The certificate must be signed by an authority of `backend_tls.ca_file`.
        VerifyCa,
        /// As `verify-ca`, and the certificate must name the server's host.
        VerifyIdentity,
    }
}

choice! {
    /// How long a session keeps a server connection.
    PoolMode as "kebab-case" {
        /// While a statement or transaction runs, or its state needs it.
        #[default]
        Transaction,
        /// From the first statement to the end of the client.
        Session,
    }
}

choice! {
    /// Where a rule sends a statement.
    RuleTarget as "kebab-case" {
        #[default]
        Primary,
        Replica,
    }
}

choice! {
    /// Who decides that a dead primary is replaced.
    FailoverMode as "kebab-case" {
        #[default]
        Automatic,
        Manual,
        Off,
    }
}

choice! {
    /// What an acknowledged transaction survives.
    Durability as "kebab-case" {
        /// Lossless where the servers are set up for it.
        #[default]
        Auto,
        /// Semi-synchronous replication before the acknowledgement.
        Lossless,
        /// Replicas may miss what was acknowledged last.
        Async,
    }
}

choice! {
    /// What is done when the best candidate misses acknowledged transactions.
    DataLoss as "kebab-case" {
        #[default]
        Refuse,
        Accept,
    }
}

choice! {
    /// What a client gets when the outcome of its statement is not known.
    UnknownOutcome as "kebab-case" {
        /// Error 1158.
        #[default]
        Error,
        /// The connection is closed without an answer.
        Close,
    }
}

choice! {
    /// What the proxies agree through.
    CoordinationBackend as "kebab-case" {
        /// A file of this proxy alone, and locks held on a majority of the servers.
        #[default]
        Local,
        /// Records in etcd.
        Etcd,
        /// A Kubernetes Lease.
        Kubernetes,
    }
}

choice! {
    /// How the kernel spreads connections to the virtual address.
    Scheduler as "kebab-case" {
        /// Weighted round robin.
        #[default]
        Wrr,
        /// Round robin.
        Rr,
        /// Least connections.
        Lc,
        /// Weighted least connections.
        Wlc,
        /// By a hash of the client's address.
        Sh,
        /// By a consistent hash of the client's address.
        Mh,
    }
}

choice! {
    /// How the kernel forwards connections to the virtual address.
    Forwarding as "kebab-case" {
        #[default]
        Masquerade,
        Direct,
        Tunnel,
    }
}

choice! {
    /// Who serves the virtual address when no replica can.
    VipFallback as "kebab-case" {
        /// Nobody: clients are refused at once.
        #[default]
        None,
        /// The primary.
        Primary,
    }
}

choice! {
    /// The least important messages that are logged.
    LogLevel as "kebab-case" {
        Error,
        Warn,
        #[default]
        Info,
        Debug,
        Trace,
    }
}

choice! {
    /// The form of log lines.
    LogFormat as "kebab-case" {
        #[default]
        Text,
        Json,
    }
}
