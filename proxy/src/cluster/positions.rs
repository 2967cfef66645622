//! What the primary has committed by now, asked once for all who wait: `consistency = "global"`.

use std::sync::Arc;
use std::time::Duration;

use pointsman_router::gtid::GtidSet;
use pointsman_router::intent::Flavour;
use pointsman_router::topology::Topology;
use tokio::sync::{mpsc, watch};

use super::{ServiceAccount, ServiceConnection};
use crate::shared::PositionQuestion;

/// Answers questions until nobody can ask any more. One question is in flight at a time; who asks meanwhile waits for
/// the next, because a position must be read after it was asked for.
pub async fn run(
    mut questions: mpsc::Receiver<PositionQuestion>,
    topology: watch::Receiver<Arc<Topology>>,
    account: Arc<ServiceAccount>,
) {
    let mut link = Link { connection: None, account };
    while let Some(first) = questions.recv().await {
        let mut waiting = vec![first];
        while let Ok(another) = questions.try_recv() {
            waiting.push(another);
        }
        let current = topology.borrow().clone();
        let position = link.ask(&current).await;
        for question in waiting {
            // Who has given up needs no answer.
            drop(question.send(position.clone()));
        }
    }
}

/// The held connection to the primary.
struct Link {
    connection: Option<(String, ServiceConnection)>,
    account: Arc<ServiceAccount>,
}

impl Link {
    async fn ask(&mut self, topology: &Topology) -> Option<GtidSet> {
        let primary = topology.primary()?;
        if self.connection.as_ref().is_some_and(|(address, _)| *address != primary.address) {
            self.connection = None;
        }
        for _ in 0..ATTEMPTS {
            if self.connection.is_none() {
                let connected = self.account.connect(&primary.address, LIMIT).await;
                self.connection = Some((primary.address.clone(), connected.ok()?));
            }
            let (_, connection) = self.connection.as_mut()?;
            match connection.rows(position_sql(topology.flavour), LIMIT).await {
                Ok(rows) => {
                    let text = rows.first()?.at(0).unwrap_or_default();
                    return GtidSet::parse(topology.flavour, &text).ok();
                }
                Err(error) => {
                    tracing::debug!(server = %primary.name, %error, "position not told");
                    self.connection = None;
                }
            }
        }
        None
    }
}

/// On a primary, what it wrote to its binary log is all that it has committed.
fn position_sql(flavour: Flavour) -> &'static str {
    match flavour {
        Flavour::Mariadb => "SELECT @@global.gtid_binlog_pos",
        Flavour::Mysql => "SELECT @@global.gtid_executed",
    }
}

/// A held connection may have died unnoticed: then a new one is tried, once.
const ATTEMPTS: usize = 2;
const LIMIT: Duration = Duration::from_secs(1);
