//! What logins have in common over all workers: the key pair, what was learnt of passwords, how much may be hashed
//! at once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use pointsman_protocol::auth::{Credential, Learnt, Next, RsaKey, RsaKeyError, Work, double_sha256};
use pointsman_protocol::handshake::Greeting;
use pointsman_router::topology::ServerId;
use tokio::sync::{OnceCell, Semaphore};
use zeroize::Zeroizing;

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
    doubled: Zeroizing<[u8; 32]>,
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
        Some(Learnt { doubled: known.doubled.clone(), credential: known.credential.upgrade() })
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

#[cfg(test)]
mod tests {
    use pointsman_protocol::auth::Verifier;

    use super::*;
    use crate::users::Require;

    fn account(id: u64, version: u64) -> Account {
        Account {
            id,
            version,
            user: String::from("app"),
            host: String::from("%"),
            verifier: Arc::new(Verifier::Empty),
            require: Require::None,
            locked: false,
            consistency: None,
            listener: None,
            stopped_by_read_only: true,
            privileged: false,
        }
    }

    fn clear(password: &str) -> Arc<Credential> {
        Arc::new(Credential::from_password(password.as_bytes()))
    }

    /// The password lives as long as a session has it; its double hash as long as the account is what it was.
    #[test]
    fn a_password_is_kept_no_longer_than_its_sessions() {
        let memory = LoginMemory::new(1);
        let (app, changed, other) = (account(1, 1), account(1, 2), account(2, 1));
        assert!(memory.recall(&app).is_none());
        let session = memory.remember(&app, clear("pw"));
        let learnt = memory.recall(&app).expect("a password that was learnt");
        assert_eq!(learnt.doubled, double_sha256(b"pw"));
        assert!(learnt.credential.is_some_and(|known| Arc::ptr_eq(&known, &session)));
        assert!(memory.recall(&changed).is_none());
        assert!(memory.recall(&other).is_none());
        drop(session);
        assert!(memory.recall(&app).is_some_and(|learnt| learnt.credential.is_none()));
    }

    #[test]
    fn sessions_share_one_copy() {
        let memory = LoginMemory::new(1);
        let first = memory.remember(&account(1, 1), clear("pw"));
        assert!(Arc::ptr_eq(&memory.remember(&account(1, 1), clear("pw")), &first));
        let second = memory.remember(&account(1, 2), clear("new"));
        assert!(!Arc::ptr_eq(&second, &first));
        // The older session's password is not handed to those who know the newer one.
        let known = memory.recall(&account(1, 2)).and_then(|learnt| learnt.credential);
        assert!(known.is_some_and(|known| Arc::ptr_eq(&known, &second)));
    }

    #[test]
    fn hashes_are_not_kept() {
        let memory = LoginMemory::new(1);
        let sha1 = Arc::new(Credential::Sha1([7; 20].into()));
        let kept = memory.remember(&account(1, 1), sha1.clone());
        assert!(Arc::ptr_eq(&kept, &sha1) && memory.recall(&account(1, 1)).is_none());
    }
}
