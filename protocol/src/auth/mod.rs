//! Authentication from both sides, as states: bytes in, bytes or a verdict out.
//!
//! [`verify`] checks a client against what a server has stored for its account; [`login`] answers a server with what
//! was learnt from the client. Passwords and what stands for them live in zeroizing memory.

mod credential;
mod ed25519;
mod login;
mod message;
mod plugin;
mod proof;
mod rsa;
mod scramble;
mod sha256_crypt;
mod steps;
#[cfg(test)]
mod tests;
mod verifier;
mod verify;

pub use credential::Credential;
pub use login::{Answer, Login, LoginError, Reply};
pub use message::{AUTH_SWITCH, AuthSwitch, MORE_DATA, more_data};
pub use plugin::Plugin;
pub use proof::{PROOF_LEN, certificate_proof};
pub use rsa::{RsaKey, RsaKeyError};
pub use scramble::double_sha256;
pub use sha256_crypt::Sha256Crypt;
pub use steps::{Denial, Denied, Evidence, KeyWanted, Next, Verified, Waiting, Work};
pub use verifier::Verifier;
pub use verify::{Channel, LONG_NONCE_LEN, Learnt, Verification};
