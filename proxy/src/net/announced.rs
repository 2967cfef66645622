//! Reads the PROXY header by which a trusted load balancer announces a client.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use ipnet::IpNet;
use pointsman_protocol::proxy_protocol::{ProxyHeader, ProxyHeaderError, ProxyParse};
use thiserror::Error;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

/// How long a balancer may take to send its header, which comes first of all.
const HEADER_DEADLINE: Duration = Duration::from_secs(5);
/// No header of either version is shorter: `PROXY UNKNOWN\r\n`.
const SHORTEST_HEADER: usize = 15;

/// Why a client was not announced.
#[derive(Debug, Error)]
pub(super) enum AnnounceError {
    #[error("no PROXY header within {} s", HEADER_DEADLINE.as_secs())]
    Deadline,
    #[error("expected a PROXY header, as listen.*.proxy_protocol trusts this network to send")]
    NoHeader,
    #[error(transparent)]
    Malformed(#[from] ProxyHeaderError),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Whether connections from here begin with a header.
pub(super) fn is_trusted(networks: &[IpNet], peer: SocketAddr) -> bool {
    let ip = peer.ip().to_canonical();
    networks.iter().any(|network| network.contains(&ip))
}

/// Takes the header off the socket and not a byte more; gives the client's address, or that of the balancer where
/// it speaks for itself.
pub(super) async fn client_of(socket: &mut TcpStream, peer: SocketAddr) -> Result<SocketAddr, AnnounceError> {
    let header = tokio::time::timeout(HEADER_DEADLINE, read_header(socket));
    Ok(header.await.map_err(|_elapsed| AnnounceError::Deadline)??.source.unwrap_or(peer))
}

async fn read_header(socket: &mut TcpStream) -> Result<ProxyHeader, AnnounceError> {
    let mut bytes = vec![0; SHORTEST_HEADER];
    socket.read_exact(&mut bytes).await?;
    loop {
        match ProxyHeader::parse(&bytes)? {
            ProxyParse::Header(header) => return Ok(header),
            ProxyParse::Absent => return Err(AnnounceError::NoHeader),
            // The length is known to the parser alone, and what follows is the client's.
            ProxyParse::Incomplete => bytes.push(socket.read_u8().await?),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    use super::*;

    /// What is sent, the client's address, and what is left for the client to say.
    async fn check(sent: &[u8], expected: Option<&str>, left: &[u8]) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut balancer = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut socket, peer) = listener.accept().await.unwrap();
        let sent = sent.to_vec();
        let sending = tokio::spawn(async move {
            for part in sent.chunks(7) {
                // The other side hangs up as soon as it has seen enough.
                drop(balancer.write_all(part).await);
                tokio::task::yield_now().await;
            }
        });
        let found = client_of(&mut socket, peer).await;
        let expected = expected.map(|text| if text == "peer" { peer.to_string() } else { text.to_owned() });
        assert_eq!(found.ok().map(|address| address.to_string()), expected);
        if expected.is_some() {
            sending.await.unwrap();
            let mut rest = Vec::new();
            socket.read_to_end(&mut rest).await.unwrap();
            assert_eq!(rest, left);
        }
    }

    #[tokio::test]
    async fn headers_are_taken_off_exactly() {
        check(b"PROXY TCP4 10.0.0.7 10.0.0.1 5000 3306\r\nhello", Some("10.0.0.7:5000"), b"hello").await;
        check(b"PROXY TCP6 fd00::1 fd00::2 5000 3306\r\n", Some("[fd00::1]:5000"), b"").await;
        check(b"PROXY UNKNOWN\r\nx", Some("peer"), b"x").await;
        let mut binary = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
        binary.extend_from_slice(&[10, 0, 0, 9, 10, 0, 0, 1, 0x13, 0x88, 0x0c, 0xea]);
        binary.extend_from_slice(b"more");
        check(&binary, Some("10.0.0.9:5000"), b"more").await;
        let mut health = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0".to_vec();
        health.push(b'x');
        check(&health, Some("peer"), b"x").await;
        check(b"GET / HTTP/1.0\r\n\r\n", None, b"").await;
        check(b"PROXY TCP4 nonsense 10.0.0.1 1 2\r\n", None, b"").await;
        check(b"short", None, b"").await;
    }

    #[test]
    fn only_trusted_networks_announce() {
        let networks = ["10.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()];
        let check = |peer: &str, expected: bool| {
            assert_eq!(is_trusted(&networks, peer.parse().unwrap()), expected, "{peer}");
        };
        check("10.1.1.1:1", true);
        check("[::ffff:10.1.1.1]:1", true);
        check("[::1]:1", true);
        check("11.1.1.1:1", false);
    }
}
