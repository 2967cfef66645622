//! COM_BINLOG_DUMP and its kin: a dedicated connection to the primary, bytes copied both ways until either ends.

use pointsman_protocol::packet::{HEADER_LEN, Header};
use tokio::io::copy_bidirectional;

use super::{Flow, Session};
use crate::backend::budget::Permit;
use crate::backend::connect::{self, ConnectError, ConnectRequest};
use crate::error::{ClientError, SessionError};

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
        let request = ConnectRequest {
            server: primary.id,
            address: &primary.address,
            login: &self.login,
            schema: None,
            epoch: topology.epoch,
            permit: Permit::unlimited(),
        };
        let mut connection = match connect::connect(&self.worker, request).await {
            Ok(connection) => connection,
            Err(error) => {
                self.consume(len);
                let told = if let ConnectError::Refused(error) = error {
                    error
                } else {
                    tracing::info!(server = %primary.name, %error, "no connection for the binary log");
                    ClientError::new(1158, b"08S01", "The primary cannot be reached")
                };
                self.answer_error(&told).await?;
                return Ok(Flow::Continue);
            }
        };
        let lost = |source| SessionError::StateLost { server: primary.id, source };
        connection.lane.write_all(self.client.bytes()).await.map_err(lost)?;
        let all = self.client.bytes().len();
        debug_assert!(Header::parse(self.client.bytes()).is_none_or(|header| header.len + HEADER_LEN <= all));
        self.client.consume(all);
        let client = self.client.stream_mut();
        copy_bidirectional(client, connection.lane.stream_mut()).await.map_err(SessionError::ClientIo)?;
        Ok(Flow::Quit)
    }
}
