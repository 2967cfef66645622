//! The stream that the status page lives on: the whole state, again and again.

use std::time::Duration;

use axum::body::Body;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http_body_util::channel::Channel;
use serde_json::{Value, json};

use super::{Admin, status};

/// How often the state is sent.
const INTERVAL: Duration = Duration::from_secs(1);
/// States that may wait for a slow reader.
const BACKLOG: usize = 4;

/// Server-sent events, one a second, until the reader goes away.
pub(super) fn stream(admin: Admin) -> Response {
    let (mut sender, body) = Channel::<Bytes>::new(BACKLOG);
    tokio::spawn(async move {
        let mut ticks = tokio::time::interval(INTERVAL);
        loop {
            ticks.tick().await;
            let event = format!("data: {}\n\n", state(&admin));
            if sender.send_data(event.into()).await.is_err() {
                return;
            }
        }
    });
    let headers = [(CONTENT_TYPE, "text/event-stream"), (CACHE_CONTROL, "no-store")];
    (headers, Body::new(body)).into_response()
}

/// The status document with what changes by the second.
fn state(admin: &Admin) -> Value {
    let view = admin.cluster.view.borrow().clone();
    let mut document = status::document(admin);
    document["phase"] = json!(admin.lifecycle.phase().name());
    document["clients"] = json!(admin.shared.clients.load(std::sync::atomic::Ordering::Relaxed));
    let servers = document["servers"].as_array_mut().into_iter().flatten();
    for (server, known) in servers.zip(view.topology.members()) {
        let of_server = admin.shared.counters.iter().filter_map(|counters| counters.server(known.id));
        let statements: u64 =
            of_server.map(|counters| counters.reads.value() + counters.writes.value()).sum();
        server["statements"] = json!(statements);
    }
    document
}
