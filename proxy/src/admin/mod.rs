//! The admin listener: probes, metrics, the API of the command line, and the status page.
//!
//! Everybody who reaches it may look; a change needs the Unix socket or the token.

mod access;
mod configuration;
mod events;
mod exposition;
mod health;
mod metrics;
mod operations;
mod process;
mod sessions;
mod status;
mod workers;

use std::collections::HashMap;
use std::sync::Arc;

use axum::extract::{ConnectInfo, Path, Query, State};
use axum::http::header::{ACCEPT, CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use metrics_exporter_prometheus::PrometheusHandle;
use pointsman_router::topology::ServerId;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tracing::info;

use self::access::{AdminSocket, Door};
use self::exposition::Format;
use self::health::Wanted;
pub use self::status::API_VERSION;
use crate::cluster::{Handle, Refusal, Request};
use crate::failover;
use crate::lifecycle::Lifecycle;
use crate::net::{BindError, Inherited, UnixSocket, bind_tcp};
use crate::reload;
use crate::shared::Shared;
use crate::vip;

/// What the handlers work with.
#[derive(Clone, Debug)]
pub struct Admin {
    pub shared: Arc<Shared>,
    pub cluster: Handle,
    pub failover: failover::Handle,
    pub lifecycle: Arc<Lifecycle>,
    pub reload: reload::Handle,
    /// None without `vip.address`.
    pub vip: Option<vip::Handle>,
    /// What the control plane has counted.
    pub counted: PrometheusHandle,
}

impl Admin {
    /// Starts answering on all of the listeners; they end with the runtime.
    pub fn serve(&self, listeners: Listeners) {
        for listener in listeners.tcp {
            let service = routes(self.clone()).into_make_service_with_connect_info::<Door>();
            tokio::spawn(async { log_end(axum::serve(listener, service).await) });
        }
        if let Some(socket) = listeners.unix {
            let service = routes(self.clone()).into_make_service_with_connect_info::<Door>();
            tokio::spawn(async { log_end(axum::serve(AdminSocket(socket), service).await) });
        }
    }

    fn may_change(&self, door: Door, headers: &HeaderMap) -> Result<(), Failed> {
        let settings = self.shared.settings();
        access::may_change(door, headers, settings.admin.token.as_ref())
            .map_err(|denied| Failed { status: StatusCode::FORBIDDEN, message: denied.to_string() })
    }
}

/// The sockets of the admin listener.
#[derive(Debug, Default)]
pub struct Listeners {
    tcp: Vec<TcpListener>,
    unix: Option<UnixSocket>,
}

impl Listeners {
    /// Opens what is configured. Must be called on a runtime.
    ///
    /// # Errors
    ///
    /// When an address cannot be listened on.
    pub fn bind(settings: &pointsman_config::Admin, inherited: &mut Inherited) -> Result<Self, BindError> {
        let tcp = match settings.address.as_str() {
            "" => Vec::new(),
            address => bind_tcp(address, inherited)?,
        };
        let socket = settings.socket.as_deref().map(|path| UnixSocket::bind(path, SOCKET_MODE, inherited));
        let unix = socket.transpose()?;
        Ok(Self { tcp, unix })
    }
}

/// Our own user and group; who may change what is decided by the peer's user.
const SOCKET_MODE: u32 = 0o660;

fn log_end(outcome: std::io::Result<()>) {
    if let Err(error) = outcome {
        tracing::error!(%error, "the admin listener has failed");
    }
}

fn routes(admin: Admin) -> Router {
    Router::new()
        .route("/", get(page("text/html; charset=utf-8", include_str!("page/index.html"))))
        .route("/app.js", get(page("text/javascript; charset=utf-8", include_str!("page/app.js"))))
        .route("/app.css", get(page("text/css; charset=utf-8", include_str!("page/app.css"))))
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/startupz", get(startupz))
        .route("/metrics", get(metrics_text))
        .route("/api/v1/status", get(status_document))
        .route("/api/v1/sessions", get(session_list))
        .route("/api/v1/sessions/{id}/explain", post(sessions::explain))
        .route("/api/v1/events", get(event_stream))
        .route("/api/v1/vip", get(vip_document))
        .route("/api/v1/vip/move", post(move_vip))
        .route("/api/v1/operations", get(operations::list))
        .route("/api/v1/operations/{what}", get(operations::show).post(operations::begin))
        .route("/api/v1/history", get(operations::history))
        .route("/api/v1/drain", post(drain))
        .route("/api/v1/config/reload", post(reload_configuration))
        .route("/api/v1/servers/{name}/drain", post(drain_server))
        .route("/api/v1/servers/{name}/undrain", post(undrain_server))
        .fallback(unknown_path)
        .with_state(admin)
}

/// A request that cannot be answered as asked.
#[derive(Debug)]
struct Failed {
    status: StatusCode,
    message: String,
}

impl IntoResponse for Failed {
    fn into_response(self) -> Response {
        (self.status, Json(json!({ "error": self.message }))).into_response()
    }
}

impl From<workers::Stuck> for Failed {
    fn from(stuck: workers::Stuck) -> Self {
        Self { status: StatusCode::SERVICE_UNAVAILABLE, message: stuck.to_string() }
    }
}

/// A part of the status page, which loads nothing from elsewhere.
fn page(kind: &'static str, text: &'static str) -> impl IntoResponse + Clone {
    ([(CONTENT_TYPE, kind), (CONTENT_SECURITY_POLICY, "default-src 'self'")], text)
}

fn probe(verdict: Result<(), String>) -> Response {
    match verdict {
        Ok(()) => (StatusCode::OK, "ok\n").into_response(),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")).into_response(),
    }
}

async fn livez(State(admin): State<Admin>) -> Response {
    probe(health::live(&admin).await)
}

async fn readyz(State(admin): State<Admin>, Query(query): Query<HashMap<String, String>>) -> Response {
    match Wanted::from_role(query.get("role").map(String::as_str)) {
        Ok(wanted) => probe(health::ready(&admin, wanted)),
        Err(unknown) => (StatusCode::BAD_REQUEST, format!("{unknown}\n")).into_response(),
    }
}

async fn startupz(State(admin): State<Admin>) -> Response {
    probe(health::started(&admin))
}

async fn metrics_text(State(admin): State<Admin>, headers: HeaderMap) -> Result<Response, Failed> {
    let accept = headers.get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let format = Format::accepted(accept);
    let pins = workers::pins(&admin.shared).await?;
    let view = admin.cluster.view.borrow().clone();
    let report = admin.reload.report.borrow().clone();
    let text = metrics::render(&admin.shared, &view, &pins, &report, &admin.counted.render(), format);
    Ok(([(CONTENT_TYPE, format.content_type())], text).into_response())
}

async fn status_document(State(admin): State<Admin>) -> Response {
    let mut document = status::document(&admin);
    document["config"] = configuration::document(&admin.reload.report.borrow());
    if let Some(vip) = &admin.vip {
        document["vip"] = vip.view().document();
    }
    Json(document).into_response()
}

fn vip_of(admin: &Admin) -> Result<&vip::Handle, Failed> {
    let message = "there is no virtual address: vip.address is not set".to_owned();
    admin.vip.as_ref().ok_or(Failed { status: StatusCode::NOT_FOUND, message })
}

async fn vip_document(State(admin): State<Admin>) -> Result<Response, Failed> {
    let mut document = vip_of(&admin)?.view().document();
    document["apiVersion"] = json!(API_VERSION);
    Ok(Json(document).into_response())
}

/// Gives the address to another director, and says to which.
async fn move_vip(
    State(admin): State<Admin>,
    ConnectInfo(door): ConnectInfo<Door>,
    headers: HeaderMap,
) -> Result<Response, Failed> {
    admin.may_change(door, &headers)?;
    let refused =
        |reason: String| Failed { status: StatusCode::CONFLICT, message: format!("refused: {reason}") };
    match vip_of(&admin)?.give_away().await {
        Some(Ok(owner)) => Ok(Json(json!({ "apiVersion": API_VERSION, "owner": owner })).into_response()),
        Some(Err(reason)) => Err(refused(reason.to_string())),
        None => {
            let reason = "this proxy is the only director of the virtual address; nothing was changed";
            Err(refused(reason.to_owned()))
        }
    }
}

async fn session_list(State(admin): State<Admin>) -> Result<Response, Failed> {
    let sessions = workers::sessions(&admin.shared).await?;
    let view = admin.cluster.view.borrow().clone();
    Ok(Json(sessions::document(&sessions, &view.topology)).into_response())
}

async fn event_stream(State(admin): State<Admin>) -> Response {
    events::stream(admin)
}

async fn drain(
    State(admin): State<Admin>,
    ConnectInfo(door): ConnectInfo<Door>,
    headers: HeaderMap,
) -> Result<Response, Failed> {
    admin.may_change(door, &headers)?;
    info!(?door, "asked to drain");
    admin.lifecycle.ask_to_end();
    Ok(Json(json!({ "draining": true })).into_response())
}

async fn reload_configuration(
    State(admin): State<Admin>,
    ConnectInfo(door): ConnectInfo<Door>,
    headers: HeaderMap,
) -> Result<Response, Failed> {
    admin.may_change(door, &headers)?;
    info!(?door, "asked to read the configuration");
    let Some(report) = admin.reload.reload().await else { return Err(ending()) };
    match report.fault {
        Some(fault) => {
            let message = format!("refused: {fault}\nNothing was changed.");
            Err(Failed { status: StatusCode::CONFLICT, message })
        }
        None => Ok(Json(configuration::document(&report)).into_response()),
    }
}

fn ending() -> Failed {
    Failed { status: StatusCode::SERVICE_UNAVAILABLE, message: "the process is ending".into() }
}

async fn drain_server(
    state: State<Admin>,
    name: Path<String>,
    door: ConnectInfo<Door>,
    headers: HeaderMap,
) -> Result<Response, Failed> {
    set_draining(state, name, door, headers, true).await
}

async fn undrain_server(
    state: State<Admin>,
    name: Path<String>,
    door: ConnectInfo<Door>,
    headers: HeaderMap,
) -> Result<Response, Failed> {
    set_draining(state, name, door, headers, false).await
}

async fn set_draining(
    State(admin): State<Admin>,
    Path(name): Path<String>,
    ConnectInfo(door): ConnectInfo<Door>,
    headers: HeaderMap,
    draining: bool,
) -> Result<Response, Failed> {
    admin.may_change(door, &headers)?;
    let topology = admin.cluster.view.borrow().topology.clone();
    let known = topology.members().find(|server| server.name == name);
    // An id beyond the table makes the cluster task name the servers that there are.
    let server = known.map_or(ServerId(u16::MAX), |server| server.id);
    let (answer, answered) = oneshot::channel();
    let request = Request::SetDraining { server, draining, answer };
    admin.cluster.requests.send(request).await.map_err(|_| ending())?;
    answered.await.map_err(|_| ending())?.map_err(|refusal| {
        let status = match refusal {
            Refusal::IsPrimary { .. } => StatusCode::CONFLICT,
            Refusal::UnknownServer { .. } => StatusCode::NOT_FOUND,
        };
        Failed { status, message: format!("refused: {refusal}; nothing was changed") }
    })?;
    info!(server = name, draining, ?door, "drain changed");
    Ok(Json(json!({ "server": name, "draining": draining })).into_response())
}

async fn unknown_path() -> Failed {
    Failed { status: StatusCode::NOT_FOUND, message: "there is nothing at this path".into() }
}
