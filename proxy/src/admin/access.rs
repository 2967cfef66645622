//! Who may change something through the admin listener.

use std::io;
use std::time::Duration;

use axum::extract::connect_info::Connected;
use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use axum::serve::{IncomingStream, Listener};
use pointsman_config::Secret;
use tokio::net::unix::SocketAddr;
use tokio::net::{TcpListener, UnixStream};

use crate::net::UnixSocket;

/// Through which door a request came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Door {
    Tcp,
    /// The Unix socket, with the user id of the process at the other end, where the system tells it.
    Unix {
        uid: Option<u32>,
    },
}

impl Connected<IncomingStream<'_, TcpListener>> for Door {
    fn connect_info(_: IncomingStream<'_, TcpListener>) -> Self {
        Self::Tcp
    }
}

impl Connected<IncomingStream<'_, AdminSocket>> for Door {
    fn connect_info(stream: IncomingStream<'_, AdminSocket>) -> Self {
        Self::Unix { uid: stream.io().peer_cred().ok().map(|peer| peer.uid()) }
    }
}

/// The Unix socket as the HTTP server takes it.
#[derive(Debug)]
pub(super) struct AdminSocket(pub(super) UnixSocket);

impl Listener for AdminSocket {
    type Io = UnixStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            match self.0.listener.accept().await {
                Ok(accepted) => return accepted,
                Err(error) => {
                    tracing::debug!(%error, "a connection to the admin socket failed");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.0.listener.local_addr()
    }
}

/// The pause after the system had nothing left for one more connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Whether a request may change something: through the Unix socket from our own user or root, elsewhere with the
/// token.
///
/// # Errors
///
/// What is missing, for the caller.
pub(super) fn may_change(door: Door, headers: &HeaderMap, token: Option<&Secret>) -> Result<(), Denied> {
    if let Door::Unix { uid: Some(uid) } = door
        && (uid == 0 || uid == nix::unistd::geteuid().as_raw())
    {
        return Ok(());
    }
    let Some(token) = token else { return Err(Denied::NoToken) };
    let shown = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let shown = shown.and_then(|value| value.strip_prefix("Bearer ")).map(str::trim);
    match shown {
        None => Err(Denied::Missing),
        Some(shown) if same(shown.as_bytes(), token.expose().as_bytes()) => Ok(()),
        Some(_) => Err(Denied::Wrong),
    }
}

/// Compares without telling by its duration how much is equal.
fn same(shown: &[u8], expected: &[u8]) -> bool {
    aws_lc_rs::constant_time::verify_slices_are_equal(shown, expected).is_ok()
}

/// Why a change was not allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Denied {
    #[error(
        "this listener takes no changes without admin.token_file: set that, or set admin.socket and use it \
         (--endpoint unix:PATH or POINTSMAN_ENDPOINT) as the proxy's own user or root"
    )]
    NoToken,
    #[error("a change needs the admin token; give its file by --token-file or POINTSMAN_TOKEN_FILE")]
    Missing,
    #[error("the admin token is wrong")]
    Wrong,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_need_the_socket_or_the_token() {
        let check = |door, header: Option<&str>, token: Option<&str>, expected| {
            let mut headers = HeaderMap::new();
            if let Some(header) = header {
                headers.insert(AUTHORIZATION, header.parse().unwrap());
            }
            let token = token.map(Secret::new);
            assert_eq!(may_change(door, &headers, token.as_ref()), expected, "{door:?} {header:?}");
        };
        let own = nix::unistd::geteuid().as_raw();
        check(Door::Unix { uid: Some(own) }, None, None, Ok(()));
        check(Door::Unix { uid: Some(0) }, None, Some("secret"), Ok(()));
        check(Door::Unix { uid: Some(own + 12_345) }, None, None, Err(Denied::NoToken));
        check(Door::Unix { uid: None }, None, None, Err(Denied::NoToken));
        check(Door::Tcp, None, None, Err(Denied::NoToken));
        check(Door::Tcp, Some("Bearer secret"), None, Err(Denied::NoToken));
        check(Door::Tcp, None, Some("secret"), Err(Denied::Missing));
        check(Door::Tcp, Some("Basic secret"), Some("secret"), Err(Denied::Missing));
        check(Door::Tcp, Some("Bearer wrong"), Some("secret"), Err(Denied::Wrong));
        check(Door::Tcp, Some("Bearer secret"), Some("secret"), Ok(()));
    }
}
