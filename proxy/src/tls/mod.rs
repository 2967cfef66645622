//! TLS towards clients and towards servers: certificates, authorities and how much of the other side is verified.

mod client;
mod files;
mod names;
mod server;
mod watch;

use std::path::PathBuf;
use std::sync::Arc;

use thiserror::Error;
use tokio::sync::Semaphore;

pub use self::client::ClientTls;
pub use self::names::subject_and_issuer;
pub use self::server::{Reloaded, ServerTls};
pub use self::watch::watch;

/// Why TLS cannot be set up.
#[derive(Debug, Error)]
pub enum TlsError {
    #[error("{file}: {error}", file = file.display())]
    Pem { file: PathBuf, error: rustls_pki_types::pem::Error },
    #[error("{file}: expected at least one certificate", file = file.display())]
    NoCertificate { file: PathBuf },
    #[error("{file}: {error}", file = file.display())]
    Authority { file: PathBuf, error: rustls::Error },
    #[error("certificate and key do not work together: {0}")]
    Identity(#[source] rustls::Error),
    #[error("no certificate could be made: {0}")]
    SelfSigned(#[from] rcgen::Error),
    #[error(transparent)]
    Verifier(#[from] rustls::server::VerifierBuilderError),
    #[error(transparent)]
    Rustls(#[from] rustls::Error),
}

/// Handshakes that are computed at a time, over all workers: half the processors, so that a flood of logins leaves
/// the other half to the statements of those who are in.
fn handshake_limit() -> Arc<Semaphore> {
    let processors = std::thread::available_parallelism().map_or(2, usize::from);
    Arc::new(Semaphore::new((processors / 2).max(1)))
}

/// The cryptography: aws-lc, because it can also decrypt what clients encrypt for caching_sha2_password.
fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

#[cfg(test)]
mod tests;
