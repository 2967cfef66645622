//! What sessions do with writes: follows the controller's word, and proves it to it.

use std::sync::Arc;
use std::time::Duration;

use pointsman_router::discover::Appointment;
use pointsman_router::failover::{Event, Mark, Service};
use pointsman_router::topology::ServerId;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use crate::cluster;
use crate::shared::Shared;
use crate::worker::Message;

/// The sessions of this process, as far as failover is concerned with them.
#[derive(Debug)]
pub(super) struct Sessions {
    shared: Arc<Shared>,
    cluster: cluster::Handle,
    /// The server that takes writes, or took them last, and since which epoch.
    primary: Option<(ServerId, u64)>,
    /// Carries out the last word; a new one comes in its place.
    at_work: Option<JoinHandle<()>>,
}

impl Sessions {
    pub(super) fn new(shared: Arc<Shared>, cluster: cluster::Handle) -> Self {
        Self { shared, cluster, primary: None, at_work: None }
    }

    /// Follows the controller. A hold ends in [`Event::Held`] on `back`.
    pub(super) fn serve(&mut self, service: Service, back: &mpsc::Sender<Event>) {
        match service {
            Service::Writes { primary, epoch, until } => {
                self.shared.fences.lease(primary, until);
                // A prolonged lease changes nothing else.
                if self.primary == Some((primary, epoch)) && self.at_work.is_none() {
                    return;
                }
                self.primary = Some((primary, epoch));
                self.replace_work(None);
                self.shared.fences.admit(primary, epoch);
                drop(self.cluster.appoint(Appointment::Primary { server: primary, epoch }));
                // The replicas' last reports are from before they were pointed elsewhere.
                self.cluster.hurry.send_replace(());
            }
            Service::Hold { epoch, grace, reason } => self.hold(epoch, grace, reason, back),
            Service::ReadsOnly { epoch, reason } => self.hold(epoch, Duration::ZERO, reason, back),
        }
    }

    fn hold(&mut self, epoch: u64, grace: Duration, reason: String, back: &mpsc::Sender<Event>) {
        let appointed = self.cluster.appoint(Appointment::Nobody { epoch, reason });
        let hold = Hold {
            shared: self.shared.clone(),
            // The same epoch as that of its connections: the primary keeps its place and is only waited for.
            fenced: self.primary.filter(|(_, since)| *since < epoch).map(|(server, _)| server),
            epoch,
            back: back.clone(),
        };
        self.replace_work(Some(tokio::spawn(hold.run(grace, appointed))));
    }

    fn replace_work(&mut self, work: Option<JoinHandle<()>>) {
        if let Some(former) = std::mem::replace(&mut self.at_work, work) {
            former.abort();
        }
    }
}

struct Hold {
    shared: Arc<Shared>,
    fenced: Option<ServerId>,
    epoch: u64,
    back: mpsc::Sender<Event>,
}

impl Hold {
    async fn run(self, grace: Duration, appointed: oneshot::Receiver<()>) {
        // It fails only while the process ends.
        drop(appointed.await);
        if let Some(server) = self.fenced {
            self.let_end(server, grace).await;
            self.shared.fences.raise(server, self.epoch);
            self.ask_workers(|answer| Message::Fence(server, answer)).await;
        }
        // Taken after the last OK that can have been passed on.
        let mark = self.shared.acknowledged.mark().map_or(Mark::Unknown, Mark::Known);
        drop(self.back.send(Event::Held { epoch: self.epoch, mark }).await);
    }

    /// Gives transactions that run the time to end.
    async fn let_end(&self, server: ServerId, grace: Duration) {
        let deadline = Instant::now() + grace;
        while Instant::now() < deadline {
            let holding = self.ask_workers(|answer| Message::Holding(server, answer)).await;
            if holding.into_iter().sum::<usize>() == 0 {
                return;
            }
            sleep(LOOK_EVERY).await;
        }
    }

    /// The answers of all workers; one that has ended gives none.
    async fn ask_workers<T>(&self, message: impl Fn(mpsc::UnboundedSender<T>) -> Message) -> Vec<T> {
        let (answer, mut answers) = mpsc::unbounded_channel();
        self.shared.broadcast(|| message(answer.clone()));
        drop(answer);
        let mut all = Vec::new();
        while let Some(one) = answers.recv().await {
            all.push(one);
        }
        all
    }
}

const LOOK_EVERY: Duration = Duration::from_millis(2);
