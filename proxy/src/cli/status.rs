//! `pointsman status` and `pointsman sessions`.

use serde_json::Value;

use super::client::Client;
use super::exit::{Exit, Outcome};
use super::output::{Format, Table};

/// Shows the cluster as a running proxy sees it.
pub(super) async fn status(client: &Client, format: Format) -> Outcome {
    let status = client.get("/api/v1/status").await?;
    format.print(&status, || table(&status))?;
    Ok(judge(&status))
}

/// Healthy, degraded, or without a primary.
fn judge(status: &Value) -> Exit {
    let servers = status["servers"].as_array().map(Vec::as_slice).unwrap_or_default();
    if status["primary"].is_null() {
        Exit::NoPrimary
    } else if servers.iter().all(|server| server["state"] == "online") {
        Exit::Ok
    } else {
        Exit::Degraded
    }
}

fn table(status: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let mut lines = format!(
        "cluster  {}    primary  {} (epoch {})    durability  {}\n",
        text(&status["cluster"]),
        status["primary"].as_str().unwrap_or("none"),
        status["epoch"],
        text(&status["durability"]),
    );
    let mut table = Table::new(&["SERVER", "ADDRESS", "ROLE", "STATE", "LAG", "CONNS", "WEIGHT"]);
    let servers = status["servers"].as_array().map(Vec::as_slice).unwrap_or_default();
    for server in servers {
        let is_primary = server["role"] == "primary";
        table.row(vec![
            text(&server["name"]),
            text(&server["address"]),
            text(&server["role"]),
            text(&server["state"]),
            if is_primary { "-".into() } else { lag(&server["lag_ms"]) },
            server["connections"].to_string(),
            if is_primary { "-".into() } else { server["weight"].to_string() },
        ]);
    }
    lines.push_str(&table.render());
    if status["vip"].is_object() {
        lines.push_str(&super::vip::line(&status["vip"]));
    }
    lines.push_str(&failover(&status["failover"]));
    if let Some(reason) = status["no_primary_reason"].as_str() {
        lines.push_str(&format!("! no primary: {reason}\n"));
    }
    if let Some(fault) = status["config"]["fault"].as_str() {
        lines.push_str(&format!("! the configuration was refused, the one before stays in use: {fault}\n"));
    }
    let pending = status["config"]["restart_required"].as_array().map(Vec::as_slice).unwrap_or_default();
    if !pending.is_empty() {
        let keys: Vec<_> = pending.iter().filter_map(|change| change["key"].as_str()).collect();
        lines.push_str(&format!("! changed and waiting for a restart: {}\n", keys.join(", ")));
    }
    for server in servers {
        if let Some(reason) = server["reason"].as_str().filter(|reason| !reason.is_empty()) {
            lines.push_str(&format!("! {} is {}: {reason}\n", text(&server["name"]), text(&server["state"])));
        }
    }
    lines
}

/// Whether a replica would take the primary's place, and what is in the way.
fn failover(failover: &Value) -> String {
    let Some(mode) = failover["mode"].as_str() else { return String::new() };
    let mut lines = match (mode, failover["phase"].as_str()) {
        ("off", _) => format!("FAILOVER off: {}\n", failover["off_reason"].as_str().unwrap_or_default()),
        (mode, None) => format!("FAILOVER {mode}, not armed yet\n"),
        (mode, Some(phase)) => {
            let paused = if failover["paused"] == true { ", paused" } else { "" };
            format!(
                "FAILOVER {mode}{paused}, {phase}, primary {}\n",
                failover["verdict"].as_str().unwrap_or("-")
            )
        }
    };
    for key in ["verdict_reason", "held", "unready"] {
        if let Some(reason) = failover[key].as_str() {
            lines.push_str(&format!("! {reason}\n"));
        }
    }
    for server in failover["maintenance"].as_array().into_iter().flatten() {
        let text = |key: &str| server[key].as_str().unwrap_or_default().to_owned();
        lines.push_str(&format!("! {} is in maintenance: {}\n", text("server"), text("reason")));
    }
    for server in failover["fenced"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        lines.push_str(&format!("! {server} is fenced: unfence it when it may serve again\n"));
    }
    lines
}

/// `12ms`, `41.3s`, `-` where it is not known.
fn lag(millis: &Value) -> String {
    match millis.as_u64() {
        None => "-".into(),
        Some(millis @ ..1000) => format!("{millis}ms"),
        Some(millis) => format!("{}.{}s", millis / 1000, millis % 1000 / 100),
    }
}

/// Shows the sessions of a running proxy, and why they keep their server connections.
pub(super) async fn sessions(client: &Client, format: Format) -> Outcome {
    let answer = client.get("/api/v1/sessions").await?;
    format.print(&answer, || sessions_table(&answer))?;
    Ok(Exit::Ok)
}

fn sessions_table(answer: &Value) -> String {
    let mut table =
        Table::new(&["ID", "USER", "CLIENT", "SCHEMA", "STATE", "SERVER", "STATEMENTS", "IDLE", "PINS"]);
    let sessions = answer["sessions"].as_array().map(Vec::as_slice).unwrap_or_default();
    for session in sessions {
        let text = |key: &str| session[key].as_str().unwrap_or("-").to_owned();
        table.row(vec![
            session["id"].to_string() + if session["autocommit"] == false { "*" } else { "" },
            text("user"),
            text("client"),
            text("schema"),
            text("state"),
            text("server"),
            session["statements"].to_string(),
            format!("{:.1}s", session["idle_seconds"].as_f64().unwrap_or_default()),
            pins(session),
        ]);
    }
    let off = sessions.iter().filter(|session| session["autocommit"] == false).count();
    let note = match off {
        0 => String::new(),
        _ => format!("! {off} with autocommit off (marked *): all that they read is read on the primary\n"),
    };
    table.render() + &note
}

/// The reasons, for how long, and the digest of the statement that began it.
fn pins(session: &Value) -> String {
    let names: Vec<_> = session["pins"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    if names.is_empty() {
        return "-".into();
    }
    let since = session["pinned_seconds"].as_f64().unwrap_or_default();
    let digest = session["digest"].as_str().filter(|digest| !digest.is_empty());
    format!("{} {since:.1}s {}", names.join(","), digest.unwrap_or_default()).trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn marks_sessions_with_autocommit_off() {
        let session = |id: u32, autocommit: bool| {
            json!({"id": id, "user": "app", "client": "10.0.0.9", "state": "idle", "statements": 3, "idle_seconds": 1.5,
                   "pins": [], "autocommit": autocommit})
        };
        let expected = "\
ID  USER  CLIENT    SCHEMA  STATE  SERVER  STATEMENTS  IDLE  PINS
7   app   10.0.0.9  -       idle   -       3           1.5s  -
8*  app   10.0.0.9  -       idle   -       3           1.5s  -
! 1 with autocommit off (marked *): all that they read is read on the primary
";
        assert_eq!(sessions_table(&json!({"sessions": [session(7, true), session(8, false)]})), expected);
    }

    #[test]
    fn shows_a_cluster() {
        let status = json!({
            "apiVersion": "pointsman/v1", "cluster": "shop", "epoch": 14, "primary": "db-1", "durability": "async",
            "servers": [
                {"name": "db-1", "address": "10.0.0.11:3306", "role": "primary", "state": "online", "lag_ms": 0,
                 "weight": 100, "connections": 42, "reason": ""},
                {"name": "db-3", "address": "10.0.0.13:3306", "role": "replica", "state": "lagging", "lag_ms": 41_300,
                 "weight": 100, "connections": 0, "reason": "lag 41.3 s is over lag.maximum"},
            ],
        });
        let expected = "\
cluster  shop    primary  db-1 (epoch 14)    durability  async
SERVER  ADDRESS         ROLE     STATE    LAG    CONNS  WEIGHT
db-1    10.0.0.11:3306  primary  online   -      42     -
db-3    10.0.0.13:3306  replica  lagging  41.3s  0      100
! db-3 is lagging: lag 41.3 s is over lag.maximum
";
        assert_eq!(table(&status), expected);
        assert_eq!(judge(&status), Exit::Degraded);
        assert_eq!(judge(&json!({"primary": null, "servers": []})), Exit::NoPrimary);
        assert_eq!(judge(&json!({"primary": "a", "servers": [{"state": "online"}]})), Exit::Ok);
    }

    #[test]
    fn lags() {
        let check = |millis: Value, expected: &str| assert_eq!(lag(&millis), expected);
        check(Value::Null, "-");
        check(json!(12), "12ms");
        check(json!(41_399), "41.3s");
    }
}
