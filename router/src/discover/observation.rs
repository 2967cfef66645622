//! What a probe of a server brings, as a value.
//!
//! The monitor tasks make these from the servers' answers; [`super::Discovery`] alone judges them.

use std::time::Duration;

use crate::gtid::GtidSet;
use crate::intent::Flavour;
use crate::topology::ServerId;

/// What one probe of one server brought.
#[derive(Clone, Debug)]
pub struct Observation {
    pub server: ServerId,
    /// When the question was sent, on the process's clock.
    pub asked: Duration,
    /// When the answer, or the lack of one, was noticed.
    pub noticed: Duration,
    pub news: News,
}

/// See [`Observation`].
#[derive(Clone, Debug)]
pub enum News {
    Report(Box<Report>),
    /// One of the `monitor.failures` shares of `monitor.timeout` passed without an answer.
    Silence,
    /// A probe failed, though not by a plain refusal: name resolution, routing, a connection cut in the login.
    Failed(String),
    /// The held connection ended or there was none, and nothing listens on the address.
    Refused(String),
    /// The server lives but does not let the service account in, or not now.
    Rejected {
        code: u16,
        message: String,
    },
}

/// What a server says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    pub flavour: Flavour,
    /// Without the `5.5.5-` prefix.
    pub version: String,
    pub server_id: u32,
    /// MySQL's `server_uuid`; empty on MariaDB.
    pub uuid: String,
    pub read_only: bool,
    /// MySQL's `super_read_only`; always false on MariaDB, which has none.
    pub super_read_only: bool,
    /// What the server's wait function compares with: `gtid_executed`, or `gtid_slave_pos` of a MariaDB replica.
    pub applied: GtidSet,
    /// Everything the server holds, its own writes included.
    pub executed: GtidSet,
    /// Whether transactions carry GTIDs, so that positions can be compared.
    pub gtids: bool,
    pub replication: Replication,
    pub semi_sync: SemiSync,
    /// The life of the server and of its applying thread: another number after either was restarted, because
    /// relay logs that were not applied may be gone then; the receiving thread plays no part in it. Every proxy
    /// must find the same number for the same life. Zero: the same as in the report before.
    pub incarnation: u64,
    /// The newest row of the epoch table, if there is one.
    pub epoch: Option<EpochRow>,
}

/// Pointsman's own row, the first transaction of each primary.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EpochRow {
    pub epoch: u64,
    /// The name of the primary of that epoch.
    pub primary: String,
}

/// Where a server gets its transactions from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Replication {
    /// One entry per configured channel; none on a server that does not replicate.
    Channels(Vec<Channel>),
    /// The service account may not see it.
    Hidden { code: u16, message: String },
}

/// One replication channel of a replica.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Channel {
    pub name: String,
    pub source_host: String,
    pub source_port: u16,
    /// Zero until the replica has once reached its source.
    pub source_server_id: u32,
    /// MySQL only.
    pub source_uuid: String,
    pub receiver: Receiver,
    /// The receiving thread's last error.
    pub receiver_error: ThreadError,
    /// Whether the applying thread runs.
    pub applies: bool,
    pub applier_error: ThreadError,
    /// What has arrived in the relay log, applied or not.
    pub received: GtidSet,
    /// A delay that was configured on purpose.
    pub delay: Duration,
    /// Whether some tables or schemas are left out by filters.
    pub filtered: bool,
    /// Signs of life from the source while it writes nothing.
    pub pulse: Option<Pulse>,
}

/// What a replica hears from its source in idle times.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pulse {
    /// Changes with every heartbeat: MariaDB's counter, or MySQL's time of the last one.
    pub beat: u64,
    /// How often there should be one.
    pub period: Duration,
}

/// The receiving (IO) thread of a channel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Receiver {
    #[default]
    Stopped,
    Connecting,
    Running,
}

/// A replication thread's last error; code zero is none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ThreadError {
    pub code: u16,
    pub message: String,
}

/// The semi-synchronous replication roles of a server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SemiSync {
    /// Waits for replicas before it acknowledges.
    pub source: bool,
    /// Acknowledges to its source when it attaches to it.
    pub replica: bool,
    /// Is attached to its source as one that acknowledges.
    pub acknowledges: bool,
    /// Has not fallen back to asynchronous replication.
    pub active: bool,
    /// Waits before the engine commits, so that nobody reads what may be lost.
    pub after_sync: bool,
    /// Goes on waiting when no replica is attached that could acknowledge.
    pub waits_alone: bool,
    /// How long it waits before it falls back.
    pub timeout: Duration,
    /// Replicas attached as acknowledgers.
    pub ackers: u32,
    /// Acknowledgements that it waits for.
    pub wait_for: u32,
}

impl SemiSync {
    /// Nothing but an acknowledgement ends a wait.
    pub fn waits_for_ever(&self) -> bool {
        self.source
            && self.active
            && self.after_sync
            && self.waits_alone
            && self.timeout >= PRACTICALLY_FOREVER
    }
}

/// The longest timeout that servers take is 49 days.
const PRACTICALLY_FOREVER: Duration = Duration::from_secs(24 * 3600);

impl Report {
    /// The channels that are configured; none also where they are hidden.
    pub fn channels(&self) -> &[Channel] {
        match &self.replication {
            Replication::Channels(channels) => channels,
            Replication::Hidden { .. } => &[],
        }
    }

    /// Whether a replication source is configured, running or not.
    pub fn replicates(&self) -> bool {
        !self.channels().is_empty()
    }
}

impl Default for Replication {
    fn default() -> Self {
        Self::Channels(Vec::new())
    }
}

impl Channel {
    pub fn source(&self) -> String {
        join_host_port(&self.source_host, self.source_port)
    }
}

impl ThreadError {
    /// Whether the error says that the source cannot be reached, not that the data do not fit.
    ///
    /// Client errors 2000 to 2999 and the server's network, login and shutdown errors.
    pub fn is_connection_trouble(&self) -> bool {
        matches!(
            self.code,
            2000..=2999 | 1040 | 1043 | 1045 | 1053 | 1129 | 1130 | 1152 | 1158..=1161 | 1184 | 1189 | 1190
        )
    }
}

/// `host:port`, with brackets around an IPv6 address.
pub fn join_host_port(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_acknowledgement_ends_a_wait_for_ever() {
        let well = SemiSync {
            source: true,
            active: true,
            after_sync: true,
            waits_alone: true,
            timeout: Duration::from_millis(4_294_967_295),
            ..SemiSync::default()
        };
        assert!(well.waits_for_ever());
        for other in [
            SemiSync { source: false, ..well },
            SemiSync { active: false, ..well },
            SemiSync { after_sync: false, ..well },
            SemiSync { waits_alone: false, ..well },
            SemiSync { timeout: Duration::from_secs(10), ..well },
        ] {
            assert!(!other.waits_for_ever(), "{other:?}");
        }
    }
}
