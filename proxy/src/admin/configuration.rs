//! What came of the last change of the configuration, as document and as metrics.

use pointsman_config::Change;
use serde_json::{Value, json};

use super::exposition::{Exposition, Kind};
use crate::reload::Report;

pub(super) fn document(report: &Report) -> Value {
    json!({
        "hash": report.hash,
        "fault": report.fault,
        "applied": report.applied.iter().map(change).collect::<Vec<_>>(),
        "restart_required": report.pending.iter().map(change).collect::<Vec<_>>(),
    })
}

fn change(change: &Change) -> Value {
    json!({ "key": change.key, "old": change.old, "new": change.new, "reload": change.reload.name() })
}

pub(super) fn render(out: &mut Exposition, report: &Report) {
    out.family("pointsman_config_info", Kind::Gauge, "The configuration in use.")
        .sample(&[("hash", &report.hash)], 1);
    let help = "Whether the configuration that was read last is sound.";
    out.family("pointsman_config_last_reload_success", Kind::Gauge, help)
        .sample(&[], u8::from(report.fault.is_none()));
    out.family(
        "pointsman_config_last_reload_timestamp_seconds",
        Kind::Gauge,
        "When a changed configuration was read last.",
    )
    .sample(&[], report.seconds_since_epoch);
    let help = "Options whose new values wait for a restart.";
    out.family("pointsman_config_restart_required", Kind::Gauge, help).sample(&[], report.pending.len());
}
