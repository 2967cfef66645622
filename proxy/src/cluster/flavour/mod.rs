//! What the two families of servers call the same things.

mod channel;
mod mariadb;
mod mysql;
mod semi_sync;

use std::fmt::Debug;
use std::time::Duration;

use pointsman_router::discover::{Pulse, Report, SemiSync};
use pointsman_router::gtid::GtidError;
use pointsman_router::intent;

use super::connection::Record;

pub use mariadb::Mariadb;
pub use mysql::Mysql;

/// The questions of one family of servers, and how to read the answers.
pub trait Flavour: Debug + Send + Sync {
    fn flavour(&self) -> intent::Flavour;

    /// A statement that answers with one row about the server itself.
    fn identity_sql(&self) -> &'static str;

    /// A statement that answers with one row per replication channel.
    fn replication_sql(&self) -> &'static str;

    /// Reads both answers; `channels` is none where the service account may not see them.
    ///
    /// # Errors
    ///
    /// When a position in them is no position.
    fn report(&self, identity: &Record, channels: Option<&[Record]>) -> Result<Report, GtidError>;

    /// Statements that tell when the server and its applying thread were started, and what is heard from the sources.
    fn life_sql(&self) -> &'static str;

    /// Adds to `report` what the answers to [`Flavour::life_sql`] say.
    fn add_life(&self, answers: &[Vec<Record>], report: &mut Report);

    /// Reads the answers to [`SEMI_SYNC_SQL`].
    fn semi_sync(&self, answers: &[Vec<Record>]) -> SemiSync {
        semi_sync::read(answers)
    }

    /// What to grant so that the replication status can be seen.
    fn monitor_grant(&self) -> &'static str;

    /// The name of the variable that holds the isolation level.
    fn isolation_variable(&self) -> &'static str;

    /// The variable that limits how long a statement may take.
    fn statement_limit_variable(&self) -> &'static str;
}

/// Asks for everything about semi-synchronous replication; two answers.
pub const SEMI_SYNC_SQL: &str =
    "SHOW GLOBAL VARIABLES LIKE 'rpl_semi_sync%'; SHOW GLOBAL STATUS LIKE 'Rpl_semi_sync%'";

/// Asks who the server is, in words that all of them understand.
pub const VERSION_SQL: &str = "SELECT @@version AS version, @@version_comment AS comment";

/// The flavour of a server from its answer to [`VERSION_SQL`].
pub fn of(version: &Record) -> &'static dyn Flavour {
    let says = |name: &str| version.text_or_empty(&[name]).to_lowercase().contains("mariadb");
    if says("version") || says("comment") { &Mariadb } else { &Mysql }
}

/// The seconds of the server's clock in the answer to a statement that calls them `now`.
fn clock(answer: &[Record]) -> Option<u64> {
    answer.first()?.number(&["now"])
}

/// The life of server and applier: the same number for whoever asks; 0, "as before", where it cannot be told. The clock
/// is asked before and after `uptime`: where its second has changed, `uptime` is of one or of the other.
fn incarnation(before: Option<u64>, after: Option<u64>, uptime: Option<u64>, applier: Option<u64>) -> u64 {
    let (Some(now), Some(uptime)) = (before.filter(|_| before == after), uptime) else { return 0 };
    let started = now.saturating_sub(uptime);
    (started << APPLIER_BITS) | (applier.unwrap_or_default() & ((1 << APPLIER_BITS) - 1))
}

/// Ids of threads have as many.
const APPLIER_BITS: u32 = 32;

/// What is heard of a source: the number of its last heartbeat, and the seconds between two; none where there are none.
fn pulse(beat: Option<u64>, period_seconds: Option<f64>) -> Option<Pulse> {
    let period = period_seconds.filter(|period| *period > 0.0)?;
    Some(Pulse { beat: beat?, period: Duration::try_from_secs_f64(period).unwrap_or_default() })
}

/// The words for a flavour that is known already.
pub fn named(flavour: intent::Flavour) -> &'static dyn Flavour {
    match flavour {
        intent::Flavour::Mariadb => &Mariadb,
        intent::Flavour::Mysql => &Mysql,
    }
}
