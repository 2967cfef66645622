//! What steps do to a server.

use pointsman_router::failover::{Outcome, Step, StepError};

use crate::server::NO_ROW;
use crate::world::{Millis, World};

/// None as long as the step waits.
type Progress = Option<Result<Outcome, StepError>>;

impl World {
    pub(crate) fn execute(&mut self, at: usize, step: &Step, arrived: Millis) -> Progress {
        let now = self.now;
        let relay: Vec<_> = self.servers[at].relay.iter().map(|entry| entry.row).collect();
        let server = &mut self.servers[at];
        let done = Some(Ok(Outcome::Done));
        let progress = match step {
            Step::StartApplier | Step::RemoveDelay => {
                server.start_applier();
                done
            }
            Step::StopReceiver => {
                server.stop_receiver();
                Some(Ok(self.report_of(at)))
            }
            Step::ReadPosition => Some(Ok(self.report_of(at))),
            Step::WaitApplied { position } => self.wait_applied(at, position, now, arrived),
            Step::Promote { .. } if server.full => Self::hangs(now, arrived),
            Step::Promote { lossless, wait_for } => {
                server.promote(*lossless, *wait_for);
                Some(Ok(self.report_of(at)))
            }
            Step::WriteEpoch { epoch, .. } => self.write_epoch(at, *epoch, now, arrived),
            Step::SetWritable { life, .. } if ![0, server.incarnation()].contains(life) => {
                Some(Err(StepError::NotDone("it has restarted".into())))
            }
            Step::SetWritable { lossless, wait_for, .. } => {
                server.open(*lossless, *wait_for);
                done
            }
            Step::SetReadOnly { deadline } => {
                if server.full || server.committed < server.log.len() && server.semi_source {
                    let over = now > arrived + deadline.as_millis() as Millis;
                    over.then(|| Err(StepError::NotDone("commits are waiting".into())))
                } else {
                    server.read_only = true;
                    Some(Ok(self.report_of(at)))
                }
            }
            Step::Repoint { source, acker } => {
                server.repoint(usize::from(source.0), *acker);
                done
            }
            Step::StartReplication => {
                server.start_receiver();
                server.start_applier();
                done
            }
            Step::Fence => {
                if self.scenario.direct {
                    server.kill_clients();
                    server.read_only |= !server.full;
                } else {
                    self.servers[at].crash();
                    let back = now + 200 + self.random.below(1000);
                    self.at(back, crate::world::Due::Start { server: at });
                }
                done
            }
        };
        let server = &self.servers[at];
        let dropped = relay.into_iter().filter(|row| Self::is_row(*row) && !server.has_row(*row));
        self.check.dropped_by_a_step(dropped);
        progress
    }

    /// What a server does that cannot write.
    fn hangs(now: Millis, arrived: Millis) -> Progress {
        (now > arrived + 1_900).then(|| Err(StepError::Unknown("no answer".into())))
    }

    fn wait_applied(
        &mut self,
        at: usize,
        position: &pointsman_router::gtid::GtidSet,
        now: Millis,
        arrived: Millis,
    ) -> Progress {
        let length = self.servers[at].log.len();
        if self.servers[at].position(length).contains(position) {
            return Some(Ok(self.report_of(at)));
        }
        (now > arrived + 4_000).then(|| Err(StepError::Unknown("timeout".into())))
    }

    fn write_epoch(&mut self, at: usize, epoch: u64, now: Millis, arrived: Millis) -> Progress {
        let server = &mut self.servers[at];
        if server.source.is_some() {
            return Some(Err(StepError::NotDone("it replicates".into())));
        }
        if server.full {
            return Self::hangs(now, arrived);
        }
        let place = server.log.iter().rposition(|entry| entry.epoch == epoch);
        let length = place.map_or_else(|| server.push(NO_ROW, epoch), |place| place + 1);
        if server.committed >= length {
            return Some(Ok(Outcome::Done));
        }
        (now > arrived + 1_900).then(|| Err(StepError::Unknown("no acknowledgement".into())))
    }
}
