//! What several proxies agree through: one register per cluster, changed by compare-and-swap only.
//!
//! A back end knows nothing of what it stores. All of them pass the same tests (`contract` of the integration tests).

mod etcd;
mod kubernetes;
mod local;
mod locks;
mod news;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::future::Future;
use std::pin::Pin;

use pointsman_router::failover::Revision;
use tokio::sync::watch;

use self::news::News;

pub use self::etcd::Etcd;
pub use self::kubernetes::Kubernetes;
pub use self::local::Local;
pub use self::locks::{Entitlement, Locks};

/// The answer of a back end, later.
pub type Reply<'a, T> = Pin<Box<dyn Future<Output = Result<T, CoordinatorError>> + Send + 'a>>;

/// A register with a revision, and the sessions of the proxies that use it.
pub trait Coordinator: Debug + Send + Sync {
    /// What is there now: a linearizable read.
    fn get(&self) -> Reply<'_, Found>;

    /// Stores `value` if the register still has `expected`; zero means that there is nothing yet.
    fn cas(&self, expected: Revision, value: String) -> Reply<'_, Cas>;

    /// The newest value that has been heard of. It may be late; only [`Coordinator::get`] is certain.
    fn watch(&self) -> watch::Receiver<Heard>;

    /// What the sessions say, as far as has been heard. It may be late; only [`Coordinator::get`] is certain.
    fn sessions(&self) -> watch::Receiver<Sessions>;

    /// Begins this proxy's session or prolongs it by the lease, and stores what it has to say.
    fn session(&self, says: String) -> Reply<'_, ()>;
}

/// What each proxy says in its session.
pub type Sessions = BTreeMap<String, String>;

/// A value and its revision.
pub type Heard = Option<(Revision, String)>;

/// See [`Coordinator::get`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Zero where there is no value yet.
    pub revision: Revision,
    pub value: Option<String>,
    /// The sessions that have not run out, by proxy, with what each says.
    pub sessions: Sessions,
}

/// See [`Coordinator::cas`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cas {
    Won { revision: Revision },
    Lost { revision: Revision, value: Option<String> },
}

/// Why a back end has no answer. Whether a swap was done is unknown then.
#[derive(Debug, thiserror::Error)]
pub enum CoordinatorError {
    #[error("coordination.state_dir: {path}: {source}")]
    File {
        path: String,
        #[source]
        source: std::io::Error,
    },
    #[error("coordination.state_dir: {path}: expected what was written there, got {what}")]
    Content { path: String, what: String },
    #[error("coordination.endpoints: expected http://host:port, got \"{0}\"")]
    Endpoint(String),
    #[error("etcd: {0}")]
    Etcd(String),
    #[error(
        "coordination.kubeconfig_file is not set, and this is no pod with the token of a service account: {0}"
    )]
    NoPod(String),
    #[error("coordination.kubeconfig_file: {path}: {what}")]
    Kubeconfig { path: String, what: String },
    #[error(
        "kubernetes: the service account may not {verb} lease.coordination.k8s.io \"{name}\" in namespace \
         \"{namespace}\"; give it a Role with the verb \"{verb}\" on that Lease (the chart does with rbac.create=true)"
    )]
    Forbidden { verb: &'static str, name: String, namespace: String },
    #[error(
        "kubernetes: the API server does not accept the token; expected one of a service account that still exists"
    )]
    Unauthorized,
    #[error("kubernetes: expected a number for resourceVersion, got \"{0}\"")]
    Version(String),
    #[error("kubernetes: {what}")]
    Kubernetes { what: String },
    #[error("the coordinator did not answer within {} ms", .0.as_millis())]
    TimedOut(std::time::Duration),
}
