//! Answers that Pointsman gives itself.

use pointsman_protocol::capability::Status;
use pointsman_protocol::ok::OkPacket;
use pointsman_protocol::packet::write_packet;

use super::Session;
use super::relay::write_bounded;
use crate::error::{ClientError, SessionError};

impl Session {
    /// Drops the command that has been served from the client's buffer.
    pub(super) fn consume(&mut self, len: usize) {
        self.client.consume(len);
    }

    pub(super) async fn send(&mut self, packet: &[u8]) -> Result<(), SessionError> {
        write_bounded(&mut self.client, packet).await.map_err(SessionError::ClientIo)
    }

    /// An OK packet with the session's true status flags.
    pub(super) async fn answer_ok(&mut self) -> Result<(), SessionError> {
        let ok = OkPacket { status: self.status(), ..OkPacket::default() };
        let mut payload = Vec::new();
        ok.write(&mut payload, 0, self.login.capabilities);
        let mut packet = Vec::new();
        write_packet(&mut packet, 1, &payload);
        self.send(&packet).await
    }

    pub(super) async fn answer_error(&mut self, error: &ClientError) -> Result<(), SessionError> {
        self.send(&error.packet(1)).await
    }

    pub(super) fn status(&self) -> Status {
        let mut status = Status::empty();
        status.set(Status::AUTOCOMMIT, self.state.autocommit());
        status.set(Status::IN_TRANS, self.state.in_transaction());
        status.set(Status::NO_BACKSLASH_ESCAPES, self.state.mode().no_backslash_escapes);
        status
    }
}
