//! COM_CHANGE_USER: the way in on a connection that is open already.

use std::rc::Rc;

use pointsman_protocol::handshake::{ChangeUser, MAX_LOGIN_PAYLOAD_BYTES};
use pointsman_protocol::packet::HEADER_LEN;
use zeroize::{Zeroize, Zeroizing};

use super::entry::Entry;
use super::{Door, Identity, LoginError, offer};
use crate::buffer::Lane;
use crate::exchange::Exchange;
use crate::net::{ClientAddress, ListenerKind};
use crate::worker::{Slot, Worker};

/// What of the session stays when its user changes.
#[derive(Clone, Copy, Debug)]
pub struct Standing<'a> {
    pub slot: &'a Slot,
    pub current: &'a Identity,
    pub listener: ListenerKind,
    pub address: &'a ClientAddress,
}

/// Serves the COM_CHANGE_USER whose packet is the first `len` bytes of `client`; a client that is not let in has been
/// told why and must be hung up on.
///
/// # Errors
///
/// See [`LoginError`]. Not cancel safe.
pub async fn change_user(
    worker: &Rc<Worker>,
    client: &mut Lane,
    len: usize,
    standing: Standing<'_>,
) -> Result<Identity, LoginError> {
    let Standing { slot, current, listener, address } = standing;
    let door = Door { worker, slot, listener, address };
    let command = Zeroizing::new(client.bytes()[..len].to_vec());
    client.bytes_mut()[..len].zeroize();
    client.consume(len);
    let greeted = offer::current(worker).await.plugin;
    let mut exchange = Exchange { lane: client, sequence: 1, limit: MAX_LOGIN_PAYLOAD_BYTES };
    let body = command.get(HEADER_LEN + 1..).unwrap_or_default();
    let entered = match ChangeUser::parse(body, current.capabilities) {
        Ok(change) => {
            let entry = Entry {
                user: change.user,
                answer: change.answer,
                plugin: change.plugin,
                schema: change.schema,
                collation: change.collation.unwrap_or(current.collation),
                attributes: if change.attributes.is_empty() {
                    &current.attributes
                } else {
                    change.attributes
                },
                capabilities: current.capabilities,
                mariadb: current.mariadb,
                nonce: current.nonce,
                greeted,
                again: true,
            };
            door.enter(&mut exchange, &entry).await
        }
        Err(malformed) => Err(LoginError::Malformed(malformed)),
    };
    if let Err(error) = &entered {
        tracing::info!(client = %address, %error, "change of user refused");
        error.tell(&mut exchange).await;
    }
    entered
}
