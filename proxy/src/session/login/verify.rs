//! Finds the account and drives the authentication.

use std::sync::Arc;

use pointsman_protocol::auth::{AUTH_SWITCH, Denial, Denied, Next, Verification, Verified, Verifier};

use super::entry::Entry;
use super::{Door, LoginError};
use crate::exchange::Exchange;
use crate::users::Account;

impl Door<'_> {
    /// Checks the client against its account. An account that is not known or does not fit is read again first: it
    /// may be a moment old.
    pub(super) async fn verify(
        self,
        exchange: &mut Exchange<'_>,
        entry: &Entry<'_>,
    ) -> Result<(Arc<Account>, Verified), LoginError> {
        let mut account = self.find(entry);
        let unusable = |account: &Arc<Account>| matches!(*account.verifier, Verifier::Unusable { .. });
        if account.as_ref().is_none_or(unusable) && self.refresh().await {
            account = self.find(entry);
        }
        let verification = self.verification(entry, account.as_deref(), exchange);
        let first = if entry.again {
            verification.begin_again(entry.plugin, entry.answer)
        } else {
            verification.begin(entry.plugin, entry.answer)
        };
        let mut switched = false;
        let is_known = account.is_some();
        let denied = match (self.drive(exchange, first, &mut switched).await?, account) {
            (Ok(verified), Some(account)) => return Ok((account, verified)),
            // A decoy fits nothing, so this is a denial in every case.
            (Ok(_), None) => Denied { reason: Denial::Password { given: true }, evidence: None },
            (Err(denied), None) => denied,
            (Err(denied), Some(known)) => {
                let entry = Entry { plugin: entry.plugin.filter(|_| !switched), ..*entry };
                match self.look_again(exchange, &entry, &known, denied).await? {
                    Ok(entered) => return Ok(entered),
                    Err(denied) => denied,
                }
            }
        };
        Err(self.denied(entry, is_known, denied.reason))
    }

    fn find(self, entry: &Entry<'_>) -> Option<Arc<Account>> {
        self.worker.shared.users.find(entry.user, self.address)
    }

    /// Has the accounts read again; false where that was done too lately for this address.
    async fn refresh(self) -> bool {
        self.worker.shared.users.refresh_for(self.address).await
    }

    /// Reads the accounts anew, and holds what the client has shown against one that has changed.
    async fn look_again(
        self,
        exchange: &mut Exchange<'_>,
        entry: &Entry<'_>,
        known: &Account,
        denied: Denied,
    ) -> Result<Result<(Arc<Account>, Verified), Denied>, LoginError> {
        let Some(evidence) = denied.evidence else { return Ok(Err(denied)) };
        let reason = denied.reason;
        let unchanged = Denied { reason, evidence: None };
        if !self.refresh().await {
            return Ok(Err(unchanged));
        }
        let Some(account) = self.find(entry) else { return Ok(Err(unchanged)) };
        if (account.id, account.version) == (known.id, known.version) {
            return Ok(Err(unchanged));
        }
        let next = evidence.against(self.verification(entry, Some(&account), exchange), entry.plugin);
        Ok(self.drive(exchange, next, &mut false).await?.map(|verified| (account, verified)))
    }

    fn verification(
        self,
        entry: &Entry<'_>,
        account: Option<&Account>,
        exchange: &Exchange<'_>,
    ) -> Verification {
        let verifier = account.map_or_else(
            || Arc::new(Verifier::decoy(entry.greeted, rand::random())),
            |account| account.verifier.clone(),
        );
        Verification {
            verifier,
            nonce: entry.nonce,
            long_nonce: rand::random(),
            greeted: entry.greeted,
            channel: self.channel(exchange.lane),
            learnt: account.and_then(|account| self.worker.shared.logins.recall(account)),
        }
    }

    /// Sends, receives and computes until there is a verdict; notes whether the client was switched to a plugin.
    async fn drive(
        self,
        exchange: &mut Exchange<'_>,
        first: Next,
        switched: &mut bool,
    ) -> Result<Result<Verified, Denied>, LoginError> {
        let logins = &self.worker.shared.logins;
        let mut next = first;
        loop {
            next = match next {
                Next::Ask { payload, then } => {
                    *switched |= payload.first() == Some(&AUTH_SWITCH);
                    exchange.write(&payload).await.map_err(LoginError::io)?;
                    let answer = tokio::time::timeout(ANSWER_DEADLINE, exchange.read()).await;
                    then.answer(&answer.map_err(|_elapsed| LoginError::Deadline)??)
                }
                Next::Key(wanted) => wanted.with(&logins.key().await.map_err(LoginError::Key)?),
                Next::Work(work) => logins.run(work).await.ok_or(LoginError::Deadline)?,
                Next::Verified(verified) => return Ok(Ok(verified)),
                Next::Denied(denied) => return Ok(Err(denied)),
            };
        }
    }

    pub(super) fn denied(self, entry: &Entry<'_>, known: bool, denial: Denial) -> LoginError {
        let user = String::from_utf8_lossy(entry.user).into_owned();
        LoginError::Denied { user, host: self.host(), known, denial }
    }
}

/// How long a client may take for one answer.
const ANSWER_DEADLINE: std::time::Duration = std::time::Duration::from_secs(10);
