//! What a statement does, as a value.
//!
//! An [`Intent`] is made by [`crate::classify`] from the text alone and read by [`crate::route`] and by the
//! session's state. It must not know servers, health or the session that sent the statement.

use std::fmt;
use std::sync::Arc;

use bitflags::bitflags;
pub use pointsman_config::Consistency;

/// The two families of servers, which differ in syntax, functions and trackers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Flavour {
    #[default]
    Mariadb,
    Mysql,
}

/// What a statement does, as far as its text proves it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Intent {
    pub kind: Kind,
    pub target: Target,
    /// What holds for the session once the statement has succeeded.
    pub effects: Effects,
    /// What the statement needs of the connection it runs on.
    pub needs: Needs,
    /// Why the target is what it is.
    pub reason: Reason,
    /// What the session has to record, for the few statements that carry values: SET, USE, KILL.
    pub actions: Option<Arc<[Action]>>,
    /// What a `/* pointsman: ... */` comment asked for.
    pub hint: Option<Hint>,
}

/// The kind of a statement; also the `command` label of metrics and the `intent` of `explain`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Proven to be a pure read.
    Read,
    /// Returns rows but is not proven to be a pure read: locking reads, unknown functions, user variables.
    UnprovenRead,
    /// INSERT, UPDATE, DELETE, REPLACE, LOAD DATA (from the server's files) and their kin.
    Write,
    /// CREATE, ALTER, DROP, TRUNCATE, RENAME, GRANT and other statements that commit implicitly.
    Ddl,
    /// BEGIN, START TRANSACTION (read/write).
    Begin,
    /// START TRANSACTION READ ONLY.
    BeginReadOnly,
    Commit,
    Rollback,
    /// SAVEPOINT, RELEASE SAVEPOINT, ROLLBACK TO.
    Savepoint,
    Xa,
    /// SET of anything but a transaction's characteristics.
    Set,
    /// SET [SESSION|GLOBAL] TRANSACTION.
    SetTransaction,
    Use,
    /// SHOW WARNINGS, SHOW ERRORS, GET DIAGNOSTICS, FOUND_ROWS(), ROW_COUNT(): must follow the previous statement.
    Diagnostics,
    /// A question about the server itself: SHOW STATUS, PROCESSLIST, @@hostname and the like.
    ServerQuestion,
    /// LOCK TABLES, UNLOCK TABLES, FLUSH TABLES WITH READ LOCK, BACKUP STAGE, GET_LOCK and its kin.
    Lock,
    /// CREATE or DROP TEMPORARY TABLE.
    TemporaryTable,
    /// PREPARE, EXECUTE, DEALLOCATE as text.
    TextPrepare,
    Handler,
    Call,
    Kill,
    /// LOAD DATA LOCAL INFILE.
    LoadLocal,
    /// FLUSH, RESET, CHANGE REPLICATION, SHUTDOWN and other administration.
    Administration,
    /// More than one statement in one packet.
    Multi,
    /// No statement at all: white space and comments only.
    Empty,
    /// Not recognised.
    Unknown,
}

/// Where a statement may run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// Must go to the primary.
    Primary,
    /// May be served by a replica.
    Replica,
    /// Touches no data and is the same everywhere.
    Any,
    /// Bound to this session's state: tracked, pinned, or answered here.
    Session,
    /// The server of the open transaction, nothing without one.
    SameAsTransaction,
}

bitflags! {
    /// What holds for the session once a statement has succeeded. Bits that pin keep the session on its
    /// server connection until the opposite bit, a reset or the end of the session.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Effects: u32 {
        /// A temporary table may exist now (CREATE TEMPORARY TABLE).
        const TEMPORARY_TABLE = 1 << 0;
        const LOCK_TABLES = 1 << 1;
        /// UNLOCK TABLES: ends LOCK_TABLES and GLOBAL_READ_LOCK.
        const UNLOCK_TABLES = 1 << 2;
        /// FLUSH TABLES WITH READ LOCK, BACKUP STAGE, BACKUP LOCK, LOCK INSTANCE FOR BACKUP.
        const GLOBAL_READ_LOCK = 1 << 3;
        /// BACKUP STAGE END, BACKUP UNLOCK, UNLOCK INSTANCE.
        const GLOBAL_READ_UNLOCK = 1 << 4;
        /// GET_LOCK() was called. Released by RELEASE_ALL_LOCKS only, because names are not tracked.
        const USER_LOCK = 1 << 5;
        const USER_LOCKS_RELEASED = 1 << 6;
        const HANDLER_OPEN = 1 << 7;
        const HANDLER_CLOSE = 1 << 8;
        const TEXT_PREPARE = 1 << 9;
        const TEXT_DEALLOCATE = 1 << 10;
        /// A session variable was set to something that cannot be replayed.
        const UNTRACKED_SET = 1 << 11;
        /// A user variable was set to something that cannot be replayed (`@v := expr`, INTO @v).
        const UNTRACKED_USER_VARIABLE = 1 << 12;
        /// SQL_CALC_FOUND_ROWS: FOUND_ROWS() is asked next, on the same connection.
        const CALC_FOUND_ROWS = 1 << 13;
        /// CALL, EXECUTE, compound blocks: may have left any of the above behind.
        const UNKNOWN_STATE = 1 << 14;
        /// LAST_INSERT_ID(n) was called: changes what LAST_INSERT_ID() answers, without a tracker.
        const SETS_INSERT_ID = 1 << 15;
        /// Commits an open transaction implicitly.
        const IMPLICIT_COMMIT = 1 << 16;
        /// A one-shot value for the next statement or transaction: SET TRANSACTION, SET insert_id, timestamp.
        const ONE_SHOT = 1 << 17;
        /// Accounts, routines or views may have changed: refresh what was read of them.
        const CATALOGUE_CHANGED = 1 << 18;
        const ACCOUNTS_CHANGED = 1 << 19;
        /// SET autocommit = 0 or 1, whose value is in the actions or in the answer's status flags.
        const AUTOCOMMIT_CHANGED = 1 << 20;
        /// START TRANSACTION WITH CONSISTENT SNAPSHOT: may not be delayed.
        const CONSISTENT_SNAPSHOT = 1 << 21;
        /// The statement may commit whatever its text says: never replayed, never run twice.
        const MAY_COMMIT = 1 << 22;
        /// COMMIT RELEASE and ROLLBACK RELEASE: the server closes the connection after its answer.
        const CLOSES_CONNECTION = 1 << 23;
    }
}

bitflags! {
    /// What a statement needs of the connection it runs on, or of its text before it is sent.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Needs: u32 {
        /// The diagnostics of this session's previous statement: warnings, ROW_COUNT(), FOUND_ROWS().
        const DIAGNOSTICS = 1 << 0;
        /// LAST_INSERT_ID(), @@last_insert_id, @@identity.
        const INSERT_ID = 1 << 1;
        /// Reads user variables.
        const USER_VARIABLES = 1 << 2;
        /// CONNECTION_ID(): our id must take the place of the server's.
        const CONNECTION_ID = 1 << 3;
        /// Names connection ids in its answer or text: PROCESSLIST, IS_USED_LOCK(), performance_schema threads.
        const PROCESS_IDS = 1 << 4;
        /// @@socket: answered with our own socket or NULL.
        const SOCKET = 1 << 5;
        /// Calls a stored function or reads a view that reaches one: a replica only for an account that
        /// read_only stops.
        const STOPPED_BY_READ_ONLY = 1 << 6;
        /// Holds more than one statement.
        const MULTI_STATEMENTS = 1 << 7;
        /// Asks where the primary's binary log or its replication stands: no other server can answer for it.
        const PRIMARY_ITSELF = 1 << 8;
        /// May make another LAST_INSERT_ID() or leave the session's as it is: INSERT, REPLACE, LOAD DATA, CALL.
        const MAY_KEEP_INSERT_ID = 1 << 9;
    }
}

/// What the session has to record or do for a statement that carries values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// `SET [SESSION] name = value` of a variable that can be replayed; `value` is SQL text of a literal.
    SetVariable {
        name: Box<str>,
        value: Box<str>,
    },
    /// `SET NAMES charset [COLLATE collation]` and `SET CHARACTER SET`; `sql` is the text to replay, `charset` lower case.
    SetNames {
        sql: Box<str>,
        charset: Box<str>,
    },
    /// `SET @name = literal`; `name` without `@`, lower case; `value` is SQL text of a literal.
    SetUserVariable {
        name: Box<str>,
        value: Box<[u8]>,
    },
    /// `SET [SESSION] TRANSACTION ...`; `session` is false for the one-shot form. `sql` is the whole statement.
    SetTransaction {
        session: bool,
        sql: Box<str>,
    },
    SetAutocommit(bool),
    /// `SET [SESSION] name = expression`: only a tracker tells the value. Comes with [`Effects::UNTRACKED_SET`].
    SetFromExpression {
        name: Box<str>,
    },
    /// `SET ROLE ...`; `sql` is the whole statement.
    SetRole {
        sql: Box<str>,
    },
    /// `SET pointsman_consistency = ...`: for Pointsman, never for a server.
    SetConsistency(Option<Consistency>),
    /// The same with a value that is none: told to the client.
    RefuseConsistency(Box<str>),
    Use(Box<[u8]>),
    /// `KILL [CONNECTION|QUERY] id` with a literal id.
    Kill {
        query_only: bool,
        id: u64,
    },
}

/// What a `/* pointsman: ... */` comment asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hint {
    Primary,
    /// Honoured only where the statement is a proven read.
    Replica,
    Consistency(Consistency),
}

/// Why a statement has its target, as one lower-case phrase.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason(pub Arc<str>);

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Intent {
    /// Whether it has to run where the previous statement did. What may write goes to the primary all the same,
    /// even if it asks about the statement before: `UPDATE ...; SELECT ROW_COUNT()`.
    pub fn asks_back(&self) -> bool {
        self.target != Target::Primary
            && (self.kind == Kind::Diagnostics || self.needs.contains(Needs::DIAGNOSTICS))
    }
}

impl Kind {
    /// The name in metrics labels and in `explain`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::UnprovenRead => "unproven-read",
            Self::Write => "write",
            Self::Ddl => "ddl",
            Self::Begin => "begin",
            Self::BeginReadOnly => "begin-read-only",
            Self::Commit => "commit",
            Self::Rollback => "rollback",
            Self::Savepoint => "savepoint",
            Self::Xa => "xa",
            Self::Set => "set",
            Self::SetTransaction => "set-transaction",
            Self::Use => "use",
            Self::Diagnostics => "diagnostics",
            Self::ServerQuestion => "server-question",
            Self::Lock => "lock",
            Self::TemporaryTable => "temporary-table",
            Self::TextPrepare => "text-prepare",
            Self::Handler => "handler",
            Self::Call => "call",
            Self::Kill => "kill",
            Self::LoadLocal => "load-local",
            Self::Administration => "administration",
            Self::Multi => "multi",
            Self::Empty => "empty",
            Self::Unknown => "unknown",
        }
    }
}

impl Target {
    /// The name in `explain`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::Replica => "replica",
            Self::Any => "any",
            Self::Session => "session",
            Self::SameAsTransaction => "same-as-transaction",
        }
    }
}
