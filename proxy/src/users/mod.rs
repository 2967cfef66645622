//! The accounts by which clients are let in.

mod account;

use std::sync::{Arc, PoisonError, RwLock};

pub use account::{Account, Require};

use crate::net::ClientAddress;

/// The accounts as last read; shared by all workers.
#[derive(Debug, Default)]
pub struct Users {
    accounts: RwLock<Arc<Vec<Arc<Account>>>>,
}

impl Users {
    /// The account that a server would choose for this user and address, or none.
    pub fn find(&self, user: &[u8], address: &ClientAddress) -> Option<Arc<Account>> {
        let _ = address;
        let accounts = self.accounts.read().unwrap_or_else(PoisonError::into_inner).clone();
        accounts.iter().find(|account| account.user.as_bytes() == user).cloned()
    }

    /// Has the accounts read again, because a client from `address` could not be let in by those at hand; true when
    /// that was done, false where it was done too lately for this address.
    #[expect(clippy::unused_async, reason = "the reader is under construction")]
    pub async fn refresh_for(&self, address: &ClientAddress) -> bool {
        let _ = address;
        false
    }
}
