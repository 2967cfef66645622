//! TLS towards clients.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

use pointsman_config::{Tls, TlsMode};
use rcgen::{CertificateParams, DnType, KeyPair};
use rustls::server::WebPkiClientVerifier;
use rustls::{ServerConfig, ServerConnection};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;

use super::{TlsError, files, handshake_limit, provider};
use crate::net::{Socket, Stream, TlsStream};

/// What clients are offered; shared by all workers.
#[derive(Debug)]
pub struct ServerTls {
    settings: Tls,
    /// Made once at start, where no certificate is configured: clients that pinned it keep knowing it.
    self_signed: Option<(CertificateDer<'static>, Vec<u8>)>,
    current: RwLock<Arc<Identity>>,
    handshakes: Arc<Semaphore>,
}

/// A certificate in use.
#[derive(Debug)]
struct Identity {
    config: Arc<ServerConfig>,
    /// SHA256 of the certificate.
    fingerprint: [u8; 32],
}

impl ServerTls {
    /// Reads the files, or makes a certificate; none where TLS is disabled.
    ///
    /// # Errors
    ///
    /// [`TlsError`] when a file is no use.
    pub fn new(settings: &Tls) -> Result<Option<Self>, TlsError> {
        if settings.mode == TlsMode::Disabled {
            return Ok(None);
        }
        let self_signed = match settings.cert_file {
            Some(_) => None,
            None => Some(make_certificate()?),
        };
        let identity = Identity::load(settings, self_signed.as_ref())?;
        Ok(Some(Self {
            settings: settings.clone(),
            self_signed,
            current: RwLock::new(Arc::new(identity)),
            handshakes: handshake_limit(),
        }))
    }

    /// Reads the files again, for handshakes from now on; what is no use changes nothing.
    ///
    /// # Errors
    ///
    /// [`TlsError`] when a file is no use.
    pub fn reload(&self) -> Result<Reloaded, TlsError> {
        let identity = Arc::new(Identity::load(&self.settings, self.self_signed.as_ref())?);
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        let same = current.fingerprint == identity.fingerprint;
        *current = identity;
        Ok(if same { Reloaded::SameCertificate } else { Reloaded::NewCertificate })
    }

    /// The files that [`ServerTls::reload`] reads.
    pub(super) fn files(&self) -> Vec<PathBuf> {
        let Tls { cert_file, key_file, client_ca_file, .. } = &self.settings;
        [cert_file, key_file, client_ca_file].into_iter().flatten().cloned().collect()
    }

    /// Whether clients without TLS are refused.
    pub fn is_required(&self) -> bool {
        self.settings.mode == TlsMode::Required
    }

    /// Shakes hands with a client that has asked for it. `unread` is what it has sent after asking.
    ///
    /// # Errors
    ///
    /// As [`TlsStream::handshake`]; [`io::ErrorKind::Unsupported`] on a stream that has a layer already.
    pub async fn accept(&self, stream: Stream, unread: &[u8]) -> io::Result<Stream> {
        let socket = plain(stream)?;
        let identity = self.current.read().unwrap_or_else(PoisonError::into_inner).clone();
        let connection = ServerConnection::new(identity.config.clone()).map_err(io::Error::other)?;
        let tls = TlsStream::handshake(socket, connection.into(), unread, &self.handshakes).await?;
        Ok(Stream::Tls(Box::new(tls.with_fingerprint(identity.fingerprint))))
    }
}

/// What came of [`ServerTls::reload`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reloaded {
    SameCertificate,
    NewCertificate,
}

pub(super) fn plain(stream: Stream) -> io::Result<Socket> {
    match stream {
        Stream::Plain(socket) => Ok(socket),
        Stream::Tls(_) | Stream::Compressed(_) => Err(io::ErrorKind::Unsupported.into()),
    }
}

impl Identity {
    fn load(
        settings: &Tls,
        self_signed: Option<&(CertificateDer<'static>, Vec<u8>)>,
    ) -> Result<Self, TlsError> {
        let (chain, key) = match (&settings.cert_file, &settings.key_file, self_signed) {
            (Some(cert), Some(key), _) => (files::certificates(cert)?, files::private_key(key)?),
            (_, _, Some((cert, key))) => (vec![cert.clone()], PrivatePkcs8KeyDer::from(key.clone()).into()),
            // The configuration has either both files or none.
            _ => return Err(TlsError::Identity(rustls::Error::NoCertificatesPresented)),
        };
        let fingerprint = chain.first().map_or([0; 32], |certificate| Sha256::digest(certificate).into());
        Ok(Self { config: Arc::new(server_config(settings, chain, key)?), fingerprint })
    }
}

fn server_config(
    settings: &Tls,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<ServerConfig, TlsError> {
    let builder = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
    let builder = match &settings.client_ca_file {
        Some(file) => {
            let roots = Arc::new(files::authorities(file)?);
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider());
            builder.with_client_cert_verifier(verifier.allow_unauthenticated().build()?)
        }
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_single_cert(chain, key).map_err(TlsError::Identity)?;
    // Resumption without memory of ours; one ticket is what a client that reconnects needs.
    config.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new()?;
    config.send_tls13_tickets = 1;
    Ok(config)
}

/// A certificate that nobody has signed, for encryption alone.
fn make_certificate() -> Result<(CertificateDer<'static>, Vec<u8>), TlsError> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(vec!["pointsman".to_owned(), "localhost".to_owned()])?;
    params.distinguished_name.push(DnType::CommonName, "Pointsman self-signed certificate");
    let certificate = params.self_signed(&key)?;
    Ok((certificate.der().clone(), key.serialize_der()))
}
