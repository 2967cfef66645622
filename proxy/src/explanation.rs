//! What a statement does as JSON: the contract of `pointsman explain -o json`.

use pointsman_router::classify::ExplainedToken;
use pointsman_router::intent::Intent;
use serde_json::{Value, json};

/// `intent`, `target` and `reason`, and how each of the tokens was read where these are given.
pub fn document(sql: &[u8], intent: &Intent, tokens: Option<&[ExplainedToken]>) -> Value {
    let mut value = json!({
        "intent": intent.kind.name(),
        "target": intent.target.name(),
        "reason": intent.reason.to_string(),
    });
    if let Some(tokens) = tokens {
        let one = |token: &ExplainedToken| {
            let text = String::from_utf8_lossy(sql.get(token.range.clone()).unwrap_or_default());
            json!({ "text": text, "class": token.class, "note": token.note })
        };
        value["tokens"] = tokens.iter().map(one).collect();
    }
    value
}
