//! What status tells of failover.

use std::collections::VecDeque;
use std::sync::Arc;

use pointsman_router::failover::{Controller, Maintenance, Past, Service};
use serde::Serialize;

use super::timeline::{Change, Timeline};

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct View {
    /// `automatic`, `manual` or `off`.
    pub mode: &'static str,
    /// Why there is no failover although it is configured; empty otherwise.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub off_reason: String,
    /// What is thought of the primary.
    pub verdict: &'static str,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub verdict_reason: String,
    /// Why writes are held; empty while they are served.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub held: String,
    /// Why a primary that died now could not be replaced; empty while it could.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub unready: String,
    /// Why the coordinator does not answer; empty while it does.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub coordinator_lost: String,
    /// `STABLE`, `FENCING`, `CHOSEN`, `ACTIVE`; none before the coordinator was read.
    pub phase: Option<&'static str>,
    pub durability: Option<&'static str>,
    pub ackers: Vec<String>,
    pub paused: bool,
    pub maintenance: Vec<InMaintenance>,
    /// By an operator.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub fenced: Vec<String>,
    #[serde(skip)]
    pub history: Vec<Past>,
    /// What this proxy has seen of those.
    #[serde(skip)]
    pub changes: VecDeque<Arc<Change>>,
}

/// A server in maintenance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct InMaintenance {
    pub server: String,
    #[serde(flatten)]
    pub maintenance: Maintenance,
}

impl View {
    /// Without a controller.
    pub fn off(reason: impl Into<String>) -> Self {
        Self { mode: "off", off_reason: reason.into(), verdict: "UNKNOWN", ..Self::default() }
    }

    pub(super) fn of(controller: &Controller, mode: &'static str, timeline: &Timeline) -> Self {
        let record = controller.record().map(|(record, _)| record);
        let maintenance = record.into_iter().flat_map(|record| &record.maintenance);
        Self {
            mode,
            off_reason: String::new(),
            verdict: controller.verdict().name(),
            verdict_reason: controller.verdict().reason().to_owned(),
            held: match controller.service() {
                Service::Writes { .. } => String::new(),
                Service::Hold { reason, .. } | Service::ReadsOnly { reason, .. } => reason.clone(),
            },
            unready: controller.unready().unwrap_or_default(),
            coordinator_lost: controller.coordinator_lost().unwrap_or_default().to_owned(),
            phase: record.map(|record| record.phase.name()),
            durability: record.map(|record| record.durability.name()),
            ackers: record.map(|record| record.ackers.iter().cloned().collect()).unwrap_or_default(),
            paused: record.is_some_and(|record| record.paused),
            maintenance: maintenance
                .map(|(server, maintenance)| InMaintenance {
                    server: server.clone(),
                    maintenance: maintenance.clone(),
                })
                .collect(),
            fenced: record.map(|record| record.fenced.iter().cloned().collect()).unwrap_or_default(),
            history: record.map(|record| record.history.clone()).unwrap_or_default(),
            changes: timeline.past().clone(),
        }
    }
}
