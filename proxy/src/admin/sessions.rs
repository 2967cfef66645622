//! The sessions as JSON: the contract of `pointsman sessions -o json`.

use pointsman_router::topology::{ServerId, Topology};
use serde_json::{Value, json};

use super::status::API_VERSION;
use crate::worker::SessionView;

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
