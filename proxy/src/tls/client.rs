//! TLS towards servers.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

use pointsman_config::{BackendTls, BackendTlsMode};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::{
    CertificateError, ClientConfig, ClientConnection, DigitallySignedStruct, Error, SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::sync::Semaphore;

use super::server::{Reloaded, plain};
use super::{TlsError, files, handshake_limit, provider};
use crate::net::{Stream, TlsStream};

/// How servers are talked to; shared by all workers.
#[derive(Debug)]
pub struct ClientTls {
    settings: BackendTls,
    config: RwLock<Arc<ClientConfig>>,
    handshakes: Arc<Semaphore>,
}

impl ClientTls {
    /// Reads the files; none where TLS is disabled.
    ///
    /// # Errors
    ///
    /// [`TlsError`] when a file is no use.
    pub fn new(settings: &BackendTls) -> Result<Option<Self>, TlsError> {
        if settings.mode == BackendTlsMode::Disabled {
            return Ok(None);
        }
        let config = RwLock::new(Arc::new(client_config(settings)?));
        Ok(Some(Self { settings: settings.clone(), config, handshakes: handshake_limit() }))
    }

    /// Reads the files again, for handshakes from now on; what is no use changes nothing.
    ///
    /// # Errors
    ///
    /// [`TlsError`] when a file is no use.
    pub fn reload(&self) -> Result<Reloaded, TlsError> {
        let config = Arc::new(client_config(&self.settings)?);
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = config;
        Ok(Reloaded::NewCertificate)
    }

    /// The files that [`ClientTls::reload`] reads.
    pub(super) fn files(&self) -> Vec<PathBuf> {
        let BackendTls { ca_file, cert_file, key_file, .. } = &self.settings;
        [ca_file, cert_file, key_file].into_iter().flatten().cloned().collect()
    }

    /// Whether a server that offers no TLS is not talked to.
    pub fn is_required(&self) -> bool {
        self.settings.mode != BackendTlsMode::Preferred
    }

    /// Shakes hands with a server that was asked to. `host` is what its certificate must name, where names are
    /// verified.
    ///
    /// # Errors
    ///
    /// As [`TlsStream::handshake`]; [`io::ErrorKind::InvalidInput`] for a host that no certificate can name.
    pub async fn connect(&self, stream: Stream, host: &str) -> io::Result<Stream> {
        let socket = plain(stream)?;
        // An IPv6 address may come in the brackets that keep it apart from its port.
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let name = match ServerName::try_from(bare.trim_end_matches('.').to_owned()) {
            Ok(name) => name,
            Err(_) if self.settings.mode != BackendTlsMode::VerifyIdentity => unverified(),
            Err(error) => return Err(io::Error::new(io::ErrorKind::InvalidInput, error)),
        };
        let config = self.config.read().unwrap_or_else(PoisonError::into_inner).clone();
        let connection = ClientConnection::new(config, name).map_err(io::Error::other)?;
        let tls = TlsStream::handshake(socket, connection.into(), &[], &self.handshakes).await?;
        Ok(Stream::Tls(Box::new(tls)))
    }
}

/// Stands for hosts that are no DNS names, where names are not verified.
fn unverified() -> ServerName<'static> {
    ServerName::from(IpAddr::V4(Ipv4Addr::UNSPECIFIED))
}

fn client_config(settings: &BackendTls) -> Result<ClientConfig, TlsError> {
    let provider = provider();
    let verifier = verifier(settings, &provider)?;
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    match (&settings.cert_file, &settings.key_file) {
        (Some(cert), Some(key)) => builder
            .with_client_auth_cert(files::certificates(cert)?, files::private_key(key)?)
            .map_err(TlsError::Identity),
        (None, _) | (_, None) => Ok(builder.with_no_client_auth()),
    }
}

fn verifier(
    settings: &BackendTls,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ServerCertVerifier>, TlsError> {
    let inner = match &settings.ca_file {
        Some(file) => {
            let roots = Arc::new(files::authorities(file)?);
            Some(WebPkiServerVerifier::builder_with_provider(roots, provider.clone()).build()?)
        }
        None => None,
    };
    Ok(match (settings.mode, inner) {
        (BackendTlsMode::VerifyIdentity, Some(inner)) => inner,
        (BackendTlsMode::VerifyCa, Some(inner)) => {
            Arc::new(AnyName { authorities: Some(inner), provider: provider.clone() })
        }
        // The configuration refuses to verify without authorities.
        (BackendTlsMode::VerifyIdentity | BackendTlsMode::VerifyCa, None) => {
            return Err(TlsError::Identity(Error::NoCertificatesPresented));
        }
        (BackendTlsMode::Disabled | BackendTlsMode::Preferred | BackendTlsMode::Required, _) => {
            Arc::new(AnyName { authorities: None, provider: provider.clone() })
        }
    })
}

/// The server must hold its certificate's key, whatever host the certificate names.
#[derive(Debug)]
struct AnyName {
    /// One of these must have signed it; none is encryption alone: any certificate will do.
    authorities: Option<Arc<WebPkiServerVerifier>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for AnyName {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(authorities) = &self.authorities else { return Ok(ServerCertVerified::assertion()) };
        let verified =
            authorities.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        match verified {
            // The chain is verified before the name.
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
