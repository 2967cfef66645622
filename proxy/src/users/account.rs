//! One account as a server's tables or the configuration describe it.

use std::sync::Arc;

use pointsman_config::{Consistency, ListenerName};
use pointsman_protocol::auth::Verifier;

/// A user at a host pattern.
#[derive(Debug)]
pub struct Account {
    /// Stable for a user and host while the process lives.
    pub id: u64,
    /// Rises when anything else here changes: what an older version proved does not count.
    pub version: u64,
    pub user: String,
    /// The host pattern as the server has it; empty where it is not known which account the server will choose.
    pub host: String,
    /// What a password is checked by.
    pub verifier: Arc<Verifier>,
    pub require: Require,
    /// ACCOUNT LOCK.
    pub locked: bool,
    /// The consistency of this user's sessions, where the configuration names one.
    pub consistency: Option<Consistency>,
    /// The only listener that this user may come through.
    pub listener: Option<ListenerName>,
    /// read_only stops this account's writes: it has none of the privileges that pass it.
    pub stopped_by_read_only: bool,
    /// May end other users' sessions.
    pub privileged: bool,
}

/// What an account asks of its connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Require {
    #[default]
    None,
    /// REQUIRE SSL.
    Tls,
    /// REQUIRE X509: any certificate of a trusted authority.
    Certificate,
    /// REQUIRE SUBJECT, ISSUER, CIPHER: those that are set must be equal.
    Specified { subject: Option<String>, issuer: Option<String>, cipher: Option<String> },
}
