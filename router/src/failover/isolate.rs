//! Servers that an operator has fenced: no client gets to them, whatever proxy it comes through.

use super::action::{Level, Step};
use super::controller::Controller;
use super::plan::{Answer, Refusal};
use super::request::refusal;
use crate::discover::Withdrawn;
use crate::topology::ServerId;

impl Controller {
    /// The servers that operators keep from clients.
    pub fn withdrawn(&self) -> Withdrawn {
        let Some(record) = &self.coordination.record else { return Withdrawn::default() };
        Withdrawn {
            fenced: record.fenced.iter().filter_map(|name| self.find(name)).collect(),
            maintenance: record.maintenance.keys().filter_map(|name| self.find(name)).collect(),
        }
    }

    pub(super) fn ask_fence(&mut self, server: ServerId, dry_run: bool) -> Result<Answer, Refusal> {
        let mut record = self.check_free()?.clone();
        let name = self.name(server);
        if self.primary() == Some(server) {
            return Err(refusal(format!("{name} is the primary"), "promote another server first"));
        }
        let text = format!("{name} gets no clients, is set read-only, and loses those that it has");
        if !dry_run {
            self.isolated.remove(&server);
            record.fenced.insert(name);
            self.note(Level::Warning, text.clone());
            self.swap(record);
        }
        Ok(Answer::Done { text })
    }

    pub(super) fn ask_unfence(&mut self, server: ServerId, dry_run: bool) -> Result<Answer, Refusal> {
        let mut record = self.check_free()?.clone();
        let name = self.name(server);
        if !record.fenced.contains(&name) {
            return Err(refusal(
                format!("{name} is not fenced"),
                "`pointsman status` says what keeps a server out",
            ));
        }
        let text = format!("{name} serves again as soon as it is a replica in order");
        if !dry_run {
            record.fenced.remove(&name);
            // Where it does not replicate any more, it is made to.
            record.strayed.insert(name);
            self.note(Level::Info, text.clone());
            self.swap(record);
        }
        Ok(Answer::Done { text })
    }

    /// Makes a fenced server read-only and ends its clients: once, and again whenever it accepts writes.
    pub(super) fn keep_isolated(&mut self, id: ServerId, read_only: bool) {
        if !read_only || !self.isolated.contains(&id) {
            self.upkeep_order(id, Step::Fence);
        }
    }
}
