//! COM_BINLOG_DUMP and its kin: a dedicated connection to the primary, bytes copied both ways until either ends.

use std::future::poll_fn;
use std::task::Poll;

use pointsman_protocol::packet::{HEADER_LEN, Header};
use pointsman_router::topology::ServerView;
use tokio::io::copy_bidirectional;

use super::{Flow, Session};
use crate::backend::budget::Permit;
use crate::backend::connect::{self, ConnectError, ConnectRequest};
use crate::backend::connection::ServerConnection;
use crate::backend::sync::{self, SyncError};
use crate::error::{ClientError, SessionError};
use crate::worker::{Order, Slot};

impl Session {
    pub(super) async fn tunnel(&mut self, len: usize) -> Result<Flow, SessionError> {
        let topology = self.worker.topology();
        let Some(primary) = topology.primary() else {
            self.consume(len);
            let text =
                format!("The binary log needs the primary and there is none: {}", topology.no_primary_reason);
            self.answer_error(&ClientError::new(1290, b"HY000", text)).await?;
            return Ok(Flow::Continue);
        };
        let mut connection = match self.dedicated(primary, topology.epoch).await {
            Ok(connection) => connection,
            Err(error) => {
                self.consume(len);
                self.answer_error(&error).await?;
                return Ok(Flow::Continue);
            }
        };
        let lost = |source| SessionError::StateLost { server: primary.id, source };
        connection.lane.write_all(self.client.bytes()).await.map_err(lost)?;
        let all = self.client.bytes().len();
        debug_assert!(Header::parse(self.client.bytes()).is_none_or(|header| header.len + HEADER_LEN <= all));
        self.client.consume(all);
        let slot = self.slot.clone();
        slot.server_down.set(false);
        // Not held: no transaction is open that a change of the primary would have to wait for.
        slot.running.set(Some((connection.server, connection.thread_id)));
        let copying = copy_bidirectional(self.client.stream_mut(), connection.lane.stream_mut());
        let copied = tokio::select! {
            copied = copying => copied.map(drop).map_err(SessionError::ClientIo),
            () = interrupted(&slot) => Ok(()),
        };
        slot.running.set(None);
        copied.map(|()| Flow::Quit)
    }

    /// A connection to the primary that takes no place of those that statements share. It has the variables of the
    /// session, by which replicas and their kin say what they understand.
    async fn dedicated(
        &mut self,
        primary: &ServerView,
        epoch: u64,
    ) -> Result<Box<ServerConnection>, ClientError> {
        if let Some(mut held) = self.held.take().filter(|held| held.server == primary.id) {
            held.permit = Permit::unlimited();
            return Ok(held);
        }
        let request = ConnectRequest {
            server: primary.id,
            address: &primary.address,
            login: &self.login,
            schema: self.state.schema(),
            epoch,
            permit: Permit::unlimited(),
        };
        let unreachable = || ClientError::new(1158, b"08S01", "The primary cannot be reached");
        let opened = connect::connect(&self.worker, request).await;
        let mut connection = opened.map_err(|error| match error {
            ConnectError::Refused(error) => error,
            ConnectError::Io(_) | ConnectError::TimedOut | ConnectError::Authenticate(_) => {
                tracing::info!(server = %primary.name, %error, "no connection for the binary log");
                unreachable()
            }
        })?;
        match sync::bring_to(&mut connection, &self.state).await {
            Ok(_) => Ok(connection),
            Err(SyncError::Refused(error)) => Err(error),
            Err(SyncError::Io(_) | SyncError::Unusable) => Err(unreachable()),
        }
    }
}

/// Waits until the session is ordered to end, or until its server is dead or has lost its place. The client is told
/// nothing then: it would take any packet for an event.
async fn interrupted(slot: &Slot) {
    poll_fn(|cx| {
        let is_ordered = !matches!(slot.order.get(), Order::None | Order::IdleTimeout);
        if is_ordered || slot.server_down.get() {
            return Poll::Ready(());
        }
        slot.register(cx.waker());
        Poll::Pending
    })
    .await;
}
