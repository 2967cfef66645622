//! Why a client was not let in, and what it is told of that.

use std::io;

use pointsman_protocol::auth::{Denial, RsaKeyError};
use pointsman_protocol::capability::Capabilities;
use pointsman_protocol::codec::Malformed;
use pointsman_protocol::err::ErrPacket;
use thiserror::Error;

use crate::error::{ClientError, SessionError};
use crate::exchange::{Exchange, ExchangeError};

/// Why a client was not let in.
#[derive(Debug, Error)]
pub enum LoginError {
    #[error(transparent)]
    Exchange(#[from] ExchangeError),
    #[error("malformed login: {0}")]
    Malformed(#[from] Malformed),
    #[error("the client speaks a protocol from before MySQL 4.1")]
    OldProtocol,
    #[error("the client asked for TLS, which was not offered")]
    NoTls,
    #[error("TLS failed: {0}")]
    Tls(#[source] io::Error),
    #[error(transparent)]
    Key(RsaKeyError),
    #[error("the client did not log in in time")]
    Deadline,
    /// The client is not told whether there is such an account.
    #[error("access denied for {user:?}@{host:?}: {}", reason(*known, denial))]
    Denied { user: String, host: String, known: bool, denial: Denial },
    #[error("{} ({})", String::from_utf8_lossy(&.0.message), .0.code)]
    Refused(ClientError),
}

impl LoginError {
    pub(super) fn io(error: io::Error) -> Self {
        Self::Exchange(error.into())
    }

    /// What the client is told; none where it is gone or cannot be reached.
    fn client_error(&self) -> Option<ClientError> {
        Some(match self {
            Self::Exchange(ExchangeError::Io(_)) | Self::Tls(_) | Self::Deadline => return None,
            Self::Exchange(ExchangeError::OutOfOrder { .. }) => {
                ClientError::new(1156, b"08S01", "Got packets out of order")
            }
            Self::Exchange(ExchangeError::TooLarge { .. }) => {
                ClientError::new(1153, b"08S01", "Got a packet bigger than 'max_allowed_packet' bytes")
            }
            Self::Malformed(_) | Self::OldProtocol | Self::NoTls => {
                ClientError::new(1043, b"08S01", "Bad handshake")
            }
            Self::Key(_) => ClientError::new(1105, b"HY000", "Unknown error"),
            Self::Denied { user, host, denial, .. } => denial_error(user, host, denial),
            Self::Refused(error) => error.clone(),
        })
    }

    /// Sends it. The client may be gone; there is nothing more to do for it then.
    pub(super) async fn tell(&self, exchange: &mut Exchange<'_>) {
        let Some(error) = self.client_error() else { return };
        let agreed =
            if matches!(self, Self::OldProtocol) { Capabilities::empty() } else { Capabilities::PROTOCOL_41 };
        let mut payload = Vec::new();
        ErrPacket::new(error.code, error.sqlstate, &error.message).write(&mut payload, agreed);
        drop(tokio::time::timeout(TELL_TIMEOUT, exchange.write(&payload)).await);
    }

    /// How a session ends whose client has been told.
    pub fn into_session_error(self) -> SessionError {
        match self {
            Self::Exchange(ExchangeError::Io(error)) if error.kind() != io::ErrorKind::UnexpectedEof => {
                SessionError::ClientIo(error)
            }
            Self::Exchange(_)
            | Self::Malformed(_)
            | Self::OldProtocol
            | Self::NoTls
            | Self::Tls(_)
            | Self::Key(_)
            | Self::Deadline
            | Self::Denied { .. }
            | Self::Refused(_) => SessionError::ClientClosed,
        }
    }
}

fn reason(known: bool, denial: &Denial) -> String {
    if known { denial.to_string() } else { "there is no account for this user and address".to_owned() }
}

/// The words of servers, where they have words for it.
fn denial_error(user: &str, host: &str, denial: &Denial) -> ClientError {
    let denied = |tail: &str| {
        ClientError::new(1045, b"28000", format!("Access denied for user '{user}'@'{host}'{tail}"))
    };
    match denial {
        Denial::Password { given } => {
            denied(&format!(" (using password: {})", if *given { "YES" } else { "NO" }))
        }
        Denial::OldClient(_) => {
            let text = "Client does not support authentication protocol requested by server; consider upgrading MySQL client";
            ClientError::new(1251, b"08004", text)
        }
        Denial::NeedsTls => denied(
            ": through Pointsman an account of this plugin logs in with TLS and mysql_clear_password, or from a [[user]] entry",
        ),
        Denial::Unusable(plugin) => denied(&format!(
            ": an account of plugin '{plugin}' logs in through Pointsman from a [[user]] entry only"
        )),
        Denial::Malformed { .. } => ClientError::new(1043, b"08S01", "Bad handshake"),
    }
}

const TELL_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_servers() {
        check(
            Denial::Password { given: true },
            1045,
            "Access denied for user 'app'@'10.0.0.1' (using password: YES)",
        );
        check(
            Denial::Password { given: false },
            1045,
            "Access denied for user 'app'@'10.0.0.1' (using password: NO)",
        );
        check(
            Denial::OldClient(pointsman_protocol::auth::Plugin::CachingSha2),
            1251,
            "Client does not support authentication protocol requested by server; consider upgrading MySQL client",
        );
        check(
            Denial::Unusable("auth_gssapi".into()),
            1045,
            "Access denied for user 'app'@'10.0.0.1': an account of plugin 'auth_gssapi' logs in through Pointsman \
             from a [[user]] entry only",
        );
    }

    #[track_caller]
    fn check(denial: Denial, code: u16, message: &str) {
        let (user, host) = (String::from("app"), String::from("10.0.0.1"));
        let error = LoginError::Denied { user, host, known: true, denial };
        let told = error.client_error().expect("an error for the client");
        assert_eq!((told.code, String::from_utf8_lossy(&told.message).as_ref()), (code, message));
    }

    #[test]
    fn who_is_gone_is_not_told() {
        let gone = || LoginError::io(io::ErrorKind::UnexpectedEof.into());
        assert_eq!(gone().client_error(), None);
        assert!(matches!(gone().into_session_error(), SessionError::ClientClosed));
        let reset = LoginError::io(io::ErrorKind::ConnectionReset.into());
        assert!(matches!(reset.into_session_error(), SessionError::ClientIo(_)));
        let told = ExchangeError::TooLarge { len: 1 << 20, limit: 1 << 16 };
        assert_eq!(LoginError::from(told).client_error().map(|error| error.code), Some(1153));
    }
}
