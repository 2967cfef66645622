//! Operators' requests over HTTP: begin one, follow it, list them, and what changed the primary in the past.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{ConnectInfo, Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use pointsman_router::failover::{Past, Request, RequestId};
use pointsman_router::topology::ServerId;
use serde::Deserialize;
use serde_json::json;
use tracing::info;

use super::access::Door;
use super::status::API_VERSION;
use super::{Admin, Failed};
use crate::failover::Operations;

/// What a request may say; which of it counts depends on the verb.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Wish {
    /// The server meant, or the one that shall become the primary.
    server: Option<String>,
    dry_run: bool,
    accept_loss: bool,
    /// How long a maintenance lasts; none ends it.
    seconds: Option<u64>,
    paused: bool,
    /// Which one to undo.
    operation: Option<u64>,
    reason: String,
}

/// Begins an operation, and answers as soon as it is planned, running, done or refused.
pub(super) async fn begin(
    State(admin): State<Admin>,
    Path(verb): Path<String>,
    ConnectInfo(door): ConnectInfo<Door>,
    headers: HeaderMap,
    Json(wish): Json<Wish>,
) -> Result<Response, Failed> {
    if !wish.dry_run {
        admin.may_change(door, &headers)?;
    }
    let (verb, request) = request(&admin, &verb, &wish)?;
    let operations = operations(&admin)?;
    info!(verb, ?wish, ?door, "asked by an operator");
    let ended = || unavailable("the process is ending");
    let id = operations.ask(verb, request).await.ok_or_else(ended)?;
    let document = operations.wait(id, false, ANSWER_WITHIN).await.ok_or_else(ended)?;
    let status = match document["state"].as_str() {
        Some("refused") => StatusCode::CONFLICT,
        _ => StatusCode::OK,
    };
    let mut document = document;
    if status == StatusCode::CONFLICT {
        let text = |key: &str| document[key].as_str().unwrap_or_default().to_owned();
        document["error"] = json!(refusal(&text("text"), &text("alternative")));
    }
    Ok((status, Json(document)).into_response())
}

/// Every refusal names the reason, the best alternative, and that nothing was changed.
fn refusal(reason: &str, alternative: &str) -> String {
    let alternative =
        if alternative.is_empty() { String::new() } else { format!(" Instead: {alternative}.") };
    format!("refused: {reason}.{alternative} Nothing was changed.")
}

fn request(admin: &Admin, verb: &str, wish: &Wish) -> Result<(&'static str, Request), Failed> {
    let server = wish.server.as_deref().map(|name| find(admin, name)).transpose()?;
    let named = || server.ok_or_else(|| bad("name a server"));
    let (to, dry_run) = (server, wish.dry_run);
    Ok(match verb {
        "switchover" => ("switchover", Request::Switchover { to, dry_run }),
        "failover" => ("failover", Request::Failover { to, accept_loss: wish.accept_loss, dry_run }),
        "rejoin" => ("rejoin", Request::Rejoin { server: named()?, dry_run }),
        "fence" => ("fence", Request::Fence { server: named()?, fenced: true, dry_run }),
        "unfence" => ("unfence", Request::Fence { server: named()?, fenced: false, dry_run }),
        "cancel" => {
            let operation = wish.operation.ok_or_else(|| bad("name an operation"))?;
            ("cancel", Request::Cancel { operation: RequestId(operation) })
        }
        "maintenance" => {
            let length = wish.seconds.map(Duration::from_secs);
            let reason = wish.reason.clone();
            ("maintenance", Request::Maintenance { server: named()?, length, reason })
        }
        "pause" => ("pause", Request::Pause { paused: wish.paused, reason: wish.reason.clone() }),
        other => return Err(bad(&format!("there is no operation \"{other}\""))),
    })
}

fn find(admin: &Admin, name: &str) -> Result<ServerId, Failed> {
    let roster = admin.shared.roster.borrow().clone();
    roster.find(name).ok_or_else(|| {
        let known: Vec<_> = roster.servers().map(|(_, server)| server.name.as_str()).collect();
        let message =
            refusal(&format!("there is no server {name}"), &format!("known are {}", known.join(", ")));
        Failed { status: StatusCode::NOT_FOUND, message }
    })
}

/// The requests of a proxy that moves the primary's place.
fn operations(admin: &Admin) -> Result<Arc<Operations>, Failed> {
    let view = admin.failover.view.borrow().clone();
    let off = || {
        let reason = format!("failover is off: {}", view.off_reason);
        let alternative = match view.off_reason.contains("another proxy") {
            true => "ask that proxy; several that act need coordination.backend etcd or kubernetes",
            false => "pointsman check says what is missing",
        };
        Failed { status: StatusCode::CONFLICT, message: refusal(&reason, alternative) }
    };
    match &admin.failover.operations {
        Some(operations) if view.mode != "off" => Ok(operations.clone()),
        Some(_) | None => Err(off()),
    }
}

/// All operations that are remembered.
pub(super) async fn list(State(admin): State<Admin>) -> Response {
    let operations = admin.failover.operations.map(|operations| operations.list()).unwrap_or_default();
    Json(json!({ "apiVersion": API_VERSION, "operations": operations })).into_response()
}

/// One operation; with `?wait=SECONDS` after its end, or after that time.
pub(super) async fn show(
    State(admin): State<Admin>,
    Path(id): Path<u64>,
    Query(query): Query<HashMap<String, String>>,
) -> Result<Response, Failed> {
    let unknown = || Failed { status: StatusCode::NOT_FOUND, message: format!("there is no operation {id}") };
    let operations = admin.failover.operations.ok_or_else(unknown)?;
    let wait: f64 = query.get("wait").and_then(|text| text.parse().ok()).unwrap_or_default();
    let wait = Duration::try_from_secs_f64(wait).unwrap_or_default().min(LONGEST_WAIT);
    let document = operations.wait(id, true, wait).await.ok_or_else(unknown)?;
    Ok(Json(document).into_response())
}

/// Past changes of the primary, the newest first; with the phases of those that this proxy has seen.
pub(super) async fn history(State(admin): State<Admin>) -> Response {
    let view = admin.failover.view.borrow().clone();
    let document = |past: &Past| {
        let mut document = json!(past);
        if let Some(change) = view.changes.iter().find(|change| change.epoch == past.epoch) {
            document["pause_ms"] = json!(change.pause_ms);
            document["phases"] = json!(change.phases);
        }
        document
    };
    let past: Vec<_> = view.history.iter().rev().map(document).collect();
    Json(json!({ "apiVersion": API_VERSION, "history": past })).into_response()
}

fn bad(message: &str) -> Failed {
    Failed { status: StatusCode::BAD_REQUEST, message: message.to_owned() }
}

fn unavailable(message: &str) -> Failed {
    Failed { status: StatusCode::SERVICE_UNAVAILABLE, message: message.to_owned() }
}

/// The controller plans at once; what waits this long is told as it is.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// Clients give up after ten seconds.
const LONGEST_WAIT: Duration = Duration::from_secs(5);
