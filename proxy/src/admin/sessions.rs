//! The sessions as JSON, and where one of them would send a statement: the contract of `pointsman sessions -o json`
//! and of `pointsman explain --session`.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use pointsman_router::classify;
use pointsman_router::topology::{ServerId, Topology};
use serde::Deserialize;
use serde_json::{Value, json};

use super::status::API_VERSION;
use super::workers::{self, Unasked};
use super::{Admin, Failed};
use crate::explanation;
use crate::worker::{Explained, SessionView};

/// A statement that a session is asked about; nothing runs.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Asked {
    sql: String,
    #[serde(default)]
    tokens: bool,
}

pub(super) async fn explain(
    State(admin): State<Admin>,
    Path(session): Path<u32>,
    Json(asked): Json<Asked>,
) -> Result<Json<Value>, Failed> {
    let sql = asked.sql.as_bytes();
    if sql.len() > MAX_SQL_BYTES {
        let message = format!("expected a statement of {MAX_SQL_BYTES} bytes at most, got {}", sql.len());
        return Err(Failed { status: StatusCode::BAD_REQUEST, message });
    }
    let Explained { intent, mode, catalogue, server, route } =
        workers::explain(&admin.shared, session, sql).await.map_err(|unasked| Failed {
            status: match unasked {
                Unasked::Unknown(_) => StatusCode::NOT_FOUND,
                Unasked::Busy(_) | Unasked::Crowded(_) => StatusCode::CONFLICT,
            },
            message: unasked.to_string(),
        })?;
    let view = admin.cluster.view.borrow().clone();
    let server = server.and_then(|id| view.topology.server(id)).map(|server| server.name.as_str());
    // Here and not by the session: its thread has other clients, too.
    let tokens = asked.tokens.then(|| classify::explain(sql, &mode, &catalogue).tokens);
    let mut document = explanation::document(sql, &intent, tokens.as_deref());
    document["server"] = json!(server);
    document["route"] = json!(route);
    Ok(Json(document))
}

/// Of a statement that is asked about.
const MAX_SQL_BYTES: usize = 64 * 1024;

/// The whole document; servers by their names.
pub(super) fn document(sessions: &[SessionView], topology: &Topology) -> Value {
    let name = |id: u16| topology.server(ServerId(id)).map(|server| server.name.as_str());
    let one = |view: &SessionView| {
        let mut session = json!(view);
        session["server"] = json!(view.server.and_then(name));
        session
    };
    json!({ "apiVersion": API_VERSION, "sessions": sessions.iter().map(one).collect::<Vec<_>>() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_servers() {
        let view = SessionView { id: 7, user: "app".to_owned(), server: Some(3), ..SessionView::default() };
        let document = document(&[view], &Topology::default());
        assert_eq!(document["sessions"][0]["id"], 7);
        assert_eq!(document["sessions"][0]["server"], Value::Null);
    }
}
