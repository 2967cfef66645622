//! The packets before the first command, and COM_CHANGE_USER, which repeats them.

mod change_user;
mod greeting;
mod response;

pub use change_user::ChangeUser;
pub use greeting::Greeting;
pub use response::{ClientHello, HandshakeResponse, SslRequest};

/// Length of the nonce in a greeting.
pub const NONCE_LEN: usize = 20;
/// Longest block of connection attributes that is taken, as in servers (`performance_schema` in MySQL).
pub const MAX_ATTRIBUTES_BYTES: usize = 64 * 1024;
/// Longest payload of a packet before login: a few names and answers, and the attributes.
pub const MAX_LOGIN_PAYLOAD_BYTES: usize = MAX_ATTRIBUTES_BYTES + 4 * 1024;
