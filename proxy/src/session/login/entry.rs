//! The way in, the same for a login and a change of user.

use std::sync::Arc;

use pointsman_config::ListenerName;
use pointsman_protocol::auth::{Credential, Denial, Plugin, Verified, certificate_proof};
use pointsman_protocol::capability::{Capabilities, MariadbCapabilities, Status};
use pointsman_protocol::codec::put_lenenc_bytes;
use pointsman_protocol::handshake::{HandshakeResponse, NONCE_LEN};
use pointsman_protocol::ok::OkPacket;

use super::{Door, Identity, LoginError, Offer, proof};
use crate::backend::connect::towards_server;
use crate::error::ClientError;
use crate::exchange::Exchange;
use crate::net::{ListenerKind, Stream, TlsStream};
use crate::shared::KeyParts;
use crate::tls::{ServerTls, subject_and_issuer};
use crate::users::{Account, Require};

/// What a client has said of itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry<'a> {
    pub(super) user: &'a [u8],
    pub(super) answer: &'a [u8],
    pub(super) plugin: Option<&'a [u8]>,
    pub(super) schema: Option<&'a [u8]>,
    pub(super) collation: u16,
    pub(super) attributes: &'a [u8],
    /// What the client and we can do.
    pub(super) capabilities: Capabilities,
    pub(super) mariadb: MariadbCapabilities,
    pub(super) nonce: [u8; NONCE_LEN],
    /// The plugin that the nonce was sent for.
    pub(super) greeted: Plugin,
    /// On a connection that is open already.
    pub(super) again: bool,
}

impl<'a> Entry<'a> {
    pub(super) fn of_response(
        response: &HandshakeResponse<'a>,
        offer: &Offer,
        nonce: [u8; NONCE_LEN],
    ) -> Self {
        Self {
            user: response.user,
            answer: response.answer,
            plugin: response.plugin,
            schema: response.schema,
            collation: u16::from(response.collation),
            attributes: response.attributes,
            capabilities: response.capabilities & offer.capabilities,
            mariadb: response.mariadb & offer.mariadb,
            nonce,
            greeted: offer.plugin,
            again: false,
        }
    }
}

impl Door<'_> {
    /// Verifies the client, has a server confirm it, and says OK.
    pub(super) async fn enter(
        self,
        exchange: &mut Exchange<'_>,
        entry: &Entry<'_>,
    ) -> Result<Identity, LoginError> {
        self.check_transport(exchange.lane.stream())?;
        let users = &self.worker.shared.users;
        if users.is_shut_out(self.address) {
            let text = format!("Host '{}' is blocked because of too many wrong passwords", self.host());
            return Err(LoginError::Refused(ClientError::new(1129, b"HY000", text)));
        }
        if !users.are_known() {
            let text = "The accounts are not known yet: no server that tells them can be reached";
            return Err(LoginError::Refused(ClientError::new(1290, b"HY000", text)));
        }
        let verified = self.verify(exchange, entry).await;
        if matches!(verified, Err(LoginError::Denied { denial: Denial::Password { given: true }, .. })) {
            users.wrong_password(self.address);
        }
        let (account, verified) = verified?;
        if !self.admits(&account, exchange.lane.stream()) {
            let denial = Denial::Password { given: !matches!(*verified.credential, Credential::Empty) };
            return Err(self.denied(entry, true, denial));
        }
        let Verified { credential, prelude, stored } = verified;
        let credential = self.worker.shared.logins.remember(&account, credential);
        let identity = Identity {
            key: self.worker.shared.keys.id(key_parts(&account, entry)),
            account,
            credential,
            user: entry.user.to_vec(),
            capabilities: entry.capabilities,
            mariadb: entry.mariadb,
            collation: entry.collation,
            schema: entry.schema.map(<[u8]>::to_vec),
            attributes: entry.attributes.to_vec(),
            nonce: entry.nonce,
        };
        proof::prove(self, &identity).await?;
        let ok = self.ok(entry, self.certificate_proof(exchange, entry, stored.as_deref()).as_deref());
        let packets = [prelude.as_deref(), Some(&ok)];
        let packets: Vec<&[u8]> = packets.into_iter().flatten().collect();
        exchange.write_all(&packets).await.map_err(LoginError::io)?;
        Ok(identity)
    }

    /// `tls.mode = "required"`, and the end of the process.
    fn check_transport(self, stream: &Stream) -> Result<(), LoginError> {
        let shared = &self.worker.shared;
        if shared.is_draining() {
            return Err(LoginError::Refused(ClientError::new(1053, b"08S01", "Server shutdown in progress")));
        }
        let required = shared.server_tls.as_ref().is_some_and(ServerTls::is_required);
        if required && !stream.is_confidential() {
            let text =
                "Connections using insecure transport are prohibited while --require_secure_transport=ON.";
            return Err(LoginError::Refused(ClientError::new(3159, b"HY000", text)));
        }
        Ok(())
    }

    /// What the account asks of its connection besides the password.
    fn admits(self, account: &Account, stream: &Stream) -> bool {
        let listener_fits = match account.listener {
            None => true,
            Some(ListenerName::Rw) => self.listener == ListenerKind::ReadWrite,
            Some(ListenerName::Ro) => self.listener == ListenerKind::ReadOnly,
        };
        let certificate = || stream.tls().and_then(TlsStream::peer_certificate);
        let stream_fits = match &account.require {
            Require::None => true,
            Require::Tls => stream.is_tls(),
            Require::Certificate => certificate().is_some(),
            Require::Specified { subject, issuer, cipher } => {
                let names = || certificate().and_then(|certificate| subject_and_issuer(certificate));
                let named = |wanted: &Option<String>, shown: &str| wanted.as_ref().is_none_or(|w| w == shown);
                let cipher_fits = stream.tls().is_some_and(|tls| named(cipher, &tls.cipher()));
                let names_fit = (subject.is_none() && issuer.is_none())
                    || names().is_some_and(|(s, i)| named(subject, &s) && named(issuer, &i));
                cipher_fits && names_fit
            }
        };
        listener_fits && stream_fits
    }

    /// The OK packet of a login, in which servers name the schema to those who track it.
    fn ok(self, entry: &Entry<'_>, proof: Option<&[u8]>) -> Vec<u8> {
        let mut status = Status::empty();
        status.set(Status::AUTOCOMMIT, self.worker.shared.defaults.get().autocommit);
        let mut tracker = Vec::new();
        if let Some(schema) = entry.schema {
            status |= Status::SESSION_STATE_CHANGED;
            let mut name = Vec::new();
            put_lenenc_bytes(&mut name, schema);
            tracker.push(SESSION_TRACK_SCHEMA);
            put_lenenc_bytes(&mut tracker, &name);
        }
        let ok = OkPacket {
            status,
            info: proof.unwrap_or_default(),
            session_state: &tracker,
            ..OkPacket::default()
        };
        let mut payload = Vec::new();
        ok.write(&mut payload, OkPacket::HEADER, entry.capabilities);
        payload
    }

    /// For MariaDB's clients, which trust a certificate of unknown origin only if its owner knows their password.
    fn certificate_proof(
        self,
        exchange: &Exchange<'_>,
        entry: &Entry<'_>,
        stored: Option<&[u8]>,
    ) -> Option<Vec<u8>> {
        let speaks_mariadb = !entry.capabilities.contains(Capabilities::LONG_PASSWORD);
        let tls = exchange.lane.stream().tls().filter(|_| speaks_mariadb)?;
        Some(certificate_proof(stored?, &entry.nonce, tls.fingerprint()).to_vec())
    }
}

fn key_parts(account: &Arc<Account>, entry: &Entry<'_>) -> KeyParts {
    KeyParts {
        account: account.id,
        version: account.version,
        capabilities: towards_server(entry.capabilities).bits(),
        mariadb_capabilities: entry.mariadb.bits(),
        collation: entry.collation,
    }
}

/// `SESSION_TRACK_SCHEMA` in MySQL's `include/mysql_com.h`.
const SESSION_TRACK_SCHEMA: u8 = 1;
