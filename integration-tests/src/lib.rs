//! The harness of the integration tests: real servers, the real program in front of them, real clients.
//!
//! Each file in `tests/` states one promise of the documentation. A missing prerequisite is a failure, and nothing
//! sleeps: a test waits for a condition with a deadline ([`eventually`]).

mod api_server;
mod cluster;
mod command;
pub mod contract;
pub mod directors;
mod etcd;
mod fleet;
mod ledger;
mod locks;
mod named_metrics;
mod proxy;
mod rounds;
mod stage;
mod suite;
mod traffic;

use std::time::Duration;

pub use pointsman::sandbox;
pub use pointsman_router::intent::Flavour;

pub use self::api_server::{ApiServer, Installed, client};
pub use self::cluster::Toll;
pub use self::command::{Ran, run};
pub use self::etcd::Etcd;
pub use self::fleet::{Fleet, Layout, Member};
pub use self::ledger::{Ledger, Proof};
pub use self::locks::Locks;
pub use self::named_metrics::{metric_families, named_metrics};
pub use self::proxy::{Proxy, program};
pub use self::rounds::Rounds;
pub use self::stage::{NO_OUTAGE, PATIENT, Plan, Stage};
pub use self::suite::Suite;
pub use self::traffic::{Load, Tally, Traffic, Write};

/// Why a test failed that did not panic.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;
/// What a test ends with.
pub type Outcome = Result<(), Failure>;

/// The flavours that most promises hold for.
pub const FLAVOURS: [Flavour; 2] = [Flavour::Mariadb, Flavour::Mysql];

/// Asks `question` again and again until the answer is yes.
///
/// # Panics
///
/// After `limit`, with what was waited for.
pub async fn eventually<F, A>(what: &str, limit: Duration, mut question: F)
where
    F: FnMut() -> A,
    A: Future<Output = bool>,
{
    let deadline = tokio::time::Instant::now() + limit;
    while !question().await {
        assert!(tokio::time::Instant::now() < deadline, "expected within {limit:?}: {what}");
        tokio::time::sleep(POLL).await;
    }
}

/// As [`eventually`], of something that is looked at; answers what it became.
///
/// # Panics
///
/// After `limit`, with what it was last.
pub async fn becomes<T, F, A>(what: &str, limit: Duration, mut look: F, wanted: impl Fn(&T) -> bool) -> T
where
    T: std::fmt::Debug,
    F: FnMut() -> A,
    A: Future<Output = T>,
{
    let deadline = tokio::time::Instant::now() + limit;
    loop {
        let seen = look().await;
        if wanted(&seen) {
            return seen;
        }
        assert!(tokio::time::Instant::now() < deadline, "expected within {limit:?}: {what}, got {seen:?}");
        tokio::time::sleep(POLL).await;
    }
}

/// Between two looks of a test that measures: looking must not be the load.
pub const LOOK_EVERY: Duration = Duration::from_millis(5);
const POLL: Duration = Duration::from_millis(10);
