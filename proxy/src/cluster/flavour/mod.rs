//! What the two families of servers call the same things.

mod channel;
mod mariadb;
mod mysql;
mod semi_sync;

use std::fmt::Debug;
use std::time::Duration;

use pointsman_router::discover::{Channel, Pulse, Report, SemiSync};
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

    /// Reads the answer to [`Flavour::replication_sql`].
    ///
    /// # Errors
    ///
    /// When a position in it is no position.
    fn channels(&self, rows: &[Record]) -> Result<Vec<Channel>, GtidError>;

    /// Reads both answers; `channels` is none where the service account may not see them.
    ///
    /// # Errors
    ///
    /// When a position in them is no position.
    fn report(&self, identity: &Record, channels: Option<&[Record]>) -> Result<Report, GtidError>;

    /// A statement that tells the applying thread, and where the replication status does not, what is heard from the
    /// sources.
    fn life_sql(&self) -> &'static str;

    /// Adds to `report` what the answer to [`Flavour::life_sql`] says; the number of the applying thread, if there is one.
    fn add_life(&self, answer: &[Record], report: &mut Report) -> Option<u64>;

    /// Asks for everything about semi-synchronous replication by its names in the flavour, which not every version knows
    /// (error 1193); two answers.
    fn semi_sync_sql(&self) -> &'static str;

    /// What to grant so that the replication status can be seen.
    fn monitor_grant(&self) -> &'static str;

    /// The name of the variable that holds the isolation level.
    fn isolation_variable(&self) -> &'static str;

    /// The variable that limits how long a statement may take.
    fn statement_limit_variable(&self) -> &'static str;
}

/// As [`Flavour::semi_sync_sql`], whatever the names, in three times the time.
pub const SEMI_SYNC_SQL: &str =
    "SHOW GLOBAL VARIABLES LIKE 'rpl_semi_sync%'; SHOW GLOBAL STATUS LIKE 'Rpl_semi_sync%'";

/// Three statements that tell when the server was started, the first and the last by its clock. That is the same as long as
/// a connection lives, and takes the server as long as all the rest.
pub const START_SQL: &str =
    "SELECT UNIX_TIMESTAMP() AS now; SHOW GLOBAL STATUS LIKE 'Uptime'; SELECT UNIX_TIMESTAMP() AS now";

/// Asks who the server is, in words that all of them understand.
pub const VERSION_SQL: &str = "SELECT @@version AS version, @@version_comment AS comment";

/// The flavour of a server from its answer to [`VERSION_SQL`].
pub fn of(version: &Record) -> &'static dyn Flavour {
    let says = |name: &str| version.text_or_empty(&[name]).to_lowercase().contains("mariadb");
    if says("version") || says("comment") { &Mariadb } else { &Mysql }
}

/// Reads the answers to [`Flavour::semi_sync_sql`] and [`SEMI_SYNC_SQL`].
pub fn semi_sync(answers: &[Vec<Record>]) -> SemiSync {
    semi_sync::read(answers)
}

/// The seconds of the server's clock in the answer to a statement that calls them `now`.
fn clock(answer: &[Record]) -> Option<u64> {
    answer.first()?.number(&["now"])
}

/// When the server was started, by its own clock, from the answers to [`START_SQL`]. Where the clock's second has
/// changed between the first and the last, the uptime is of one or of the other.
pub fn started(answers: &[Vec<Record>]) -> Option<u64> {
    let [before, uptime, after] = answers else { return None };
    let (before, after) = (clock(before), clock(after));
    let uptime: u64 = uptime.first()?.number(&["Value"])?;
    Some(before.filter(|_| before == after)?.saturating_sub(uptime))
}

/// The life of server and applier: the same number for whoever asks.
pub fn incarnation(started: u64, applier: Option<u64>) -> u64 {
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
