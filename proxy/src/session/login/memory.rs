//! What logins have in common over all workers: the key pair, what was learnt of passwords, how much may be hashed
//! at once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use pointsman_protocol::auth::{Credential, Learnt, Next, RsaKey, RsaKeyError, Work, double_sha256};
use pointsman_protocol::handshake::Greeting;
use pointsman_router::topology::ServerId;
use tokio::sync::{OnceCell, Semaphore};

use super::offer::ServerOffers;
use crate::users::Account;

/// See the module.
#[derive(Debug)]
pub struct LoginMemory {
    key: OnceCell<Arc<RsaKey>>,
    hashing: Semaphore,
    passwords: Mutex<HashMap<u64, Remembered>>,
    pub(super) offers: ServerOffers,
}

/// What is known of an account's password.
#[derive(Debug)]
struct Remembered {
    version: u64,
    doubled: [u8; 32],
    /// Alive while a session of the account is.
    credential: Weak<Credential>,
}

impl LoginMemory {
    /// `servers`: how many the configuration has.
    pub fn new(servers: usize) -> Self {
        Self {
            key: OnceCell::new(),
            hashing: Semaphore::new(MAX_HASHING),
            passwords: Mutex::default(),
            offers: ServerOffers::new(servers),
        }
    }

    /// Takes note of what a server has greeted with: clients are offered no more.
    pub fn heard(&self, server: ServerId, greeting: &Greeting) {
        self.offers.heard(server, greeting);
    }

    /// The key pair by which passwords cross connections without TLS; made when first asked for.
    pub(super) async fn key(&self) -> Result<Arc<RsaKey>, RsaKeyError> {
        let made = self.key.get_or_try_init(async || {
            let generated = tokio::task::spawn_blocking(RsaKey::generate).await;
            generated.unwrap_or(Err(RsaKeyError::Generation)).map(Arc::new)
        });
        made.await.cloned()
    }

    /// Runs heavy work on the blocking pool, a bounded number at a time; none when the runtime ends meanwhile.
    pub(super) async fn run(&self, work: Work) -> Option<Next> {
        let _permit = self.hashing.acquire().await.ok()?;
        tokio::task::spawn_blocking(move || work.run()).await.ok()
    }

    /// What an earlier login of the account as it is now has taught.
    pub(super) fn recall(&self, account: &Account) -> Option<Learnt> {
        let passwords = self.passwords.lock().unwrap_or_else(PoisonError::into_inner);
        let known = passwords.get(&account.id).filter(|known| known.version == account.version)?;
        Some(Learnt { doubled: known.doubled, credential: known.credential.upgrade() })
    }

    /// Keeps what a login has taught; sessions with the same password share one copy of it.
    pub(super) fn remember(&self, account: &Account, credential: Arc<Credential>) -> Arc<Credential> {
        let Credential::Clear(password) = &*credential else { return credential };
        let doubled = double_sha256(password);
        let mut passwords = self.passwords.lock().unwrap_or_else(PoisonError::into_inner);
        let known = passwords.get(&account.id);
        let shared = known
            .filter(|known| known.version == account.version && known.doubled == doubled)
            .and_then(|known| known.credential.upgrade());
        let kept = shared.unwrap_or(credential);
        let remembered = Remembered { version: account.version, doubled, credential: Arc::downgrade(&kept) };
        passwords.insert(account.id, remembered);
        kept
    }
}

/// More would not be faster: each takes a core for milliseconds.
const MAX_HASHING: usize = 4;
