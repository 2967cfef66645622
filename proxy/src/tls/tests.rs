//! Handshakes between our two sides over real sockets.

use std::io;
use std::path::PathBuf;

use pointsman_config::{BackendTls, BackendTlsMode, Tls, TlsMode};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::net::Stream;

/// An authority and files that it has signed.
struct Authority {
    directory: TempDir,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let directory = TempDir::new().unwrap();
        std::fs::write(directory.path().join("ca.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
        Self { directory, issuer: Issuer::new(params, key) }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Writes `name.pem` and `name.key` for a host.
    fn sign(&self, name: &str, host: &str) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![host.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        std::fs::write(self.path(&format!("{name}.pem")), certificate.pem()).unwrap();
        std::fs::write(self.path(&format!("{name}.key")), key.serialize_pem()).unwrap();
    }

    fn server(&self, name: &str) -> Tls {
        Tls {
            mode: TlsMode::Preferred,
            cert_file: Some(self.path(&format!("{name}.pem"))),
            key_file: Some(self.path(&format!("{name}.key"))),
            client_ca_file: None,
        }
    }

    fn client(&self, mode: BackendTlsMode) -> BackendTls {
        BackendTls { mode, ca_file: Some(self.path("ca.pem")), ..BackendTls::default() }
    }
}

async fn pair() -> (Stream, Stream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (server, _) = listener.accept().await.unwrap();
    (Stream::tcp(client), Stream::tcp(server))
}

fn server_tls(settings: &Tls) -> ServerTls {
    ServerTls::new(settings).unwrap().unwrap()
}

fn client_tls(settings: &BackendTls) -> ClientTls {
    ClientTls::new(settings).unwrap().unwrap()
}

async fn shake(
    server: &ServerTls,
    client: &ClientTls,
    host: &str,
) -> (io::Result<Stream>, io::Result<Stream>) {
    let (near, far) = pair().await;
    tokio::join!(client.connect(near, host), server.accept(far, &[]))
}

async fn check_echo(near: &mut Stream, far: &mut Stream, len: usize) {
    let sent: Vec<u8> = (0..len).map(|at| (at / 7 % 251) as u8).collect();
    let write = async {
        near.write_all(&sent).await.unwrap();
        near.flush().await.unwrap();
    };
    let mut received = vec![0; len];
    let ((), read) = tokio::join!(write, far.read_exact(&mut received));
    read.unwrap();
    assert!(received == sent, "{len} bytes came out differently");
}

#[tokio::test]
async fn bytes_of_any_number_cross() {
    let (near, far) = shake(&server_tls(&Tls::default()), &client_tls(&BackendTls::default()), "db-1").await;
    let (mut near, mut far) = (near.unwrap(), far.unwrap());
    assert!(near.is_tls() && far.is_confidential());
    for len in [0, 1, 100, 16 * 1024, 16 * 1024 + 1, 3_000_000] {
        check_echo(&mut near, &mut far, len).await;
        check_echo(&mut far, &mut near, len).await;
    }
    let cipher = far.tls().unwrap().cipher();
    assert!(cipher.starts_with("TLS_"), "{cipher}");
    near.shutdown().await.unwrap();
    assert_eq!(far.read(&mut [0; 10]).await.unwrap(), 0);
    // Many peers just go.
    drop(near);
    assert_eq!(far.read(&mut [0; 10]).await.unwrap(), 0);
}

#[tokio::test]
async fn a_peer_that_just_goes_is_an_end() {
    let (near, far) = shake(&server_tls(&Tls::default()), &client_tls(&BackendTls::default()), "db-1").await;
    let mut far = far.unwrap();
    drop(near.unwrap());
    let outcome = far.read(&mut [0; 10]).await;
    assert!(matches!(&outcome, Ok(0)) || outcome.is_err_and(|e| e.kind() == io::ErrorKind::ConnectionReset));
}

#[tokio::test]
async fn what_came_with_the_request_is_part_of_the_handshake() {
    let server = server_tls(&Tls::default());
    let (near, mut far) = pair().await;
    let client = client_tls(&BackendTls::default());
    let connecting = tokio::spawn(async move { client.connect(near, "db-1").await });
    let mut hello = vec![0; 100];
    far.read_exact(&mut hello).await.unwrap();
    let mut far = server.accept(far, &hello).await.unwrap();
    let mut near = connecting.await.unwrap().unwrap();
    check_echo(&mut near, &mut far, 1000).await;
}

#[tokio::test]
async fn certificates_are_verified_as_far_as_asked() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    authority.sign("db", "db-1");
    stranger.sign("db", "db-1");
    let good = server_tls(&authority.server("db"));
    let bad = server_tls(&stranger.server("db"));
    let accepted = async |server: &ServerTls, mode: BackendTlsMode, host: &str| {
        let (near, far) = shake(server, &client_tls(&authority.client(mode)), host).await;
        assert_eq!(near.is_ok(), far.is_ok() || near.is_ok());
        near.is_ok()
    };
    for (mode, right_name, wrong_name, stranger) in [
        (BackendTlsMode::Preferred, true, true, true),
        (BackendTlsMode::Required, true, true, true),
        (BackendTlsMode::VerifyCa, true, true, false),
        (BackendTlsMode::VerifyIdentity, true, false, false),
    ] {
        assert_eq!(accepted(&good, mode, "db-1").await, right_name, "{mode:?}");
        assert_eq!(accepted(&good, mode, "db-2").await, wrong_name, "{mode:?}");
        assert_eq!(accepted(&good, mode, "127.0.0.1").await, wrong_name, "{mode:?}");
        assert_eq!(accepted(&bad, mode, "db-1").await, stranger, "{mode:?}");
    }
}

#[tokio::test]
async fn clients_may_show_certificates() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    authority.sign("db", "db-1");
    authority.sign("app", "app");
    stranger.sign("app", "app");
    let settings = Tls { client_ca_file: Some(authority.path("ca.pem")), ..authority.server("db") };
    let server = server_tls(&settings);
    let shown = async |from: Option<&Authority>| {
        let client = BackendTls {
            cert_file: from.map(|from| from.path("app.pem")),
            key_file: from.map(|from| from.path("app.key")),
            ..authority.client(BackendTlsMode::VerifyCa)
        };
        let (_near, far) = shake(&server, &client_tls(&client), "db-1").await;
        far.map(|far| far.tls().unwrap().peer_certificate().is_some())
    };
    assert!(!shown(None).await.unwrap());
    assert!(shown(Some(&authority)).await.unwrap());
    assert!(shown(Some(&stranger)).await.is_err());
}

#[tokio::test]
async fn a_new_certificate_is_taken_up_without_restart() {
    let authority = Authority::new();
    authority.sign("db", "db-1");
    let server = server_tls(&authority.server("db"));
    let client = client_tls(&authority.client(BackendTlsMode::VerifyIdentity));
    let fingerprint = async || {
        let (near, far) = shake(&server, &client, "db-1").await;
        near.unwrap();
        *far.unwrap().tls().unwrap().fingerprint()
    };
    let of_file =
        || -> [u8; 32] { Sha256::digest(&files::certificates(&authority.path("db.pem")).unwrap()[0]).into() };
    let first = of_file();
    assert_eq!(fingerprint().await, first);
    assert_eq!(server.reload().unwrap(), Reloaded::SameCertificate);
    authority.sign("db", "db-1");
    assert_eq!(server.reload().unwrap(), Reloaded::NewCertificate);
    assert_ne!(of_file(), first);
    assert_eq!(fingerprint().await, of_file());
    std::fs::write(authority.path("db.key"), "junk").unwrap();
    assert!(server.reload().is_err());
    assert_eq!(fingerprint().await, of_file());
}

#[tokio::test]
async fn junk_is_refused() {
    let server = server_tls(&Tls::default());
    for junk in [&b"GET / HTTP/1.0\r\n\r\n"[..], &[0x16, 3, 1, 0xff, 0xff], &[0; 200], &[0xff; 70_000]] {
        let (mut near, far) = pair().await;
        let send = async {
            // The other side may have hung up by the end.
            drop(near.write_all(junk).await);
            drop(near.shutdown().await);
        };
        let ((), outcome) = tokio::join!(send, server.accept(far, &[]));
        assert!(outcome.is_err());
    }
}

#[test]
fn a_connection_can_move_to_another_runtime() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (first, second) = (runtime(), runtime());
    let (mut near, mut far) = first.block_on(async {
        let client = client_tls(&BackendTls::default());
        let (near, far) = shake(&server_tls(&Tls::default()), &client, "db-1").await;
        (near.unwrap(), far.unwrap())
    });
    first.block_on(check_echo(&mut near, &mut far, 100));
    let moved = second.block_on(async {
        let (mut near, mut far) = (near.rebind().unwrap(), far.rebind().unwrap());
        check_echo(&mut near, &mut far, 100_000).await;
        (near, far)
    });
    drop(first);
    let (mut near, mut far) = moved;
    second.block_on(check_echo(&mut near, &mut far, 100));
}

#[test]
fn wrong_files_are_named() {
    let authority = Authority::new();
    authority.sign("a", "a");
    authority.sign("b", "b");
    let check = |settings: Tls, expected: &str| {
        let error = ServerTls::new(&settings).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    };
    let mixed = Tls { key_file: Some(authority.path("b.key")), ..authority.server("a") };
    check(mixed, "certificate and key do not work together");
    check(Tls { key_file: Some(authority.path("a.pem")), ..authority.server("a") }, "a.pem: no items found");
    check(
        Tls { cert_file: Some(authority.path("a.key")), ..authority.server("a") },
        "at least one certificate",
    );
    check(authority.server("none"), "none.pem: I/O error");
    let ca = Tls { client_ca_file: Some(authority.path("a.key")), ..authority.server("a") };
    check(ca, "a.key: expected at least one certificate");
}
