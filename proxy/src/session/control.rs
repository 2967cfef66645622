//! Commands about the session itself: ping, reset, change of user.

use super::Session;
use super::login;
use crate::backend::sync;
use crate::error::SessionError;

impl Session {
    /// Answered here: a driver's pool asks this at each checkout, and what any session of the application has been
    /// told is committed must be read from now on.
    pub(super) async fn ping(&mut self, len: usize) -> Result<(), SessionError> {
        self.consume(len);
        self.raise_floor_to_acknowledged();
        self.answer_ok().await
    }

    fn raise_floor_to_acknowledged(&mut self) {
        let acknowledged = self.worker.shared.acknowledged.current();
        self.state.raise_floor(&acknowledged);
    }

    pub(super) async fn reset_connection(&mut self, len: usize) -> Result<(), SessionError> {
        self.consume(len);
        self.insert_id = None;
        self.drop_server_state().await;
        self.state.reset();
        self.raise_floor_to_acknowledged();
        self.statements.forget();
        self.last = super::checkout::LastStatement::default();
        if !self.in_session_mode() {
            self.last_server = None;
        }
        self.show_pins();
        self.answer_ok().await
    }

    /// Ends transactions, locks and whatever else lies on the held connection.
    async fn drop_server_state(&mut self) {
        self.slot.holds.set(None);
        self.worker.pool.close_session(self.slot.id);
        if let Some(mut held) = self.held.take()
            && sync::reset(&mut held).await.is_ok()
        {
            self.worker.counters.resets.one();
            self.release(held);
        }
        for at in 0..self.kept.len() {
            let Some(mut kept) = self.kept.get_mut(at).and_then(Option::take) else { continue };
            if sync::reset(&mut kept).await.is_ok() {
                self.worker.counters.resets.one();
                self.release(kept);
            }
        }
    }

    /// A login of its own on the same socket; the connection id stays.
    pub(super) async fn change_user(&mut self, len: usize) -> Result<(), SessionError> {
        self.drop_server_state().await;
        self.kept.iter_mut().for_each(|kept| *kept = None);
        let standing = login::Standing {
            slot: &self.slot,
            current: &self.login,
            listener: self.listener,
            address: &self.address,
        };
        let changed = login::change_user(&self.worker, &mut self.client, len, standing).await;
        match changed {
            Ok(identity) => {
                self.login = identity;
                self.start_over();
                Ok(())
            }
            Err(error) => Err(error.into_session_error()),
        }
    }
}
