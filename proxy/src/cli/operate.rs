//! Commands that change the cluster: plan, confirmation, live phases, result.

use std::time::{Duration, Instant};

use clap::Args;
use pointsman_config::units::parse_duration;
use serde_json::{Value, json};

use super::client::Client;
use super::exit::{Exit, Failure, Outcome};
use super::output::{Format, Table, confirm, note};

/// How a change is run.
#[derive(Debug, Args)]
pub(super) struct Manner {
    /// Print the plan and change nothing.
    #[arg(long)]
    dry_run: bool,
    /// Ask nothing; no safety check is left out.
    #[arg(short, long)]
    yes: bool,
    /// How long to wait for the end, with a unit; the operation goes on without us after that.
    #[arg(long, default_value = "60s", value_parser = parse_duration, value_name = "DURATION")]
    timeout: Duration,
}

/// `pointsman promote`: in an orderly way while the primary lives, else as a failover that loses nothing.
pub(super) async fn promote(client: &Client, server: &str, manner: &Manner, format: Format) -> Outcome {
    let status = client.get("/api/v1/status").await?;
    let is_dead = status["primary"].is_null() || status["failover"]["verdict"] == "DEAD";
    let verb = if is_dead { "failover" } else { "switchover" };
    run(client, verb, json!({ "server": server }), manner, format).await
}

/// `pointsman switchover`.
pub(super) async fn switchover(
    client: &Client,
    to: Option<&str>,
    manner: &Manner,
    format: Format,
) -> Outcome {
    run(client, "switchover", json!({ "server": to }), manner, format).await
}

/// `pointsman failover --primary-is-dead`.
pub(super) async fn failover(
    client: &Client,
    to: Option<&str>,
    accept_loss: bool,
    manner: &Manner,
    format: Format,
) -> Outcome {
    run(client, "failover", json!({ "server": to, "accept_loss": accept_loss }), manner, format).await
}

/// `pointsman rejoin`: the proxy goes on with it by itself; waits until the server is a replica.
pub(super) async fn rejoin(client: &Client, server: &str, manner: &Manner, format: Format) -> Outcome {
    let exit = run(client, "rejoin", json!({ "server": server }), manner, format).await?;
    if manner.dry_run || exit != Exit::Ok {
        return Ok(exit);
    }
    let deadline = Instant::now() + manner.timeout;
    loop {
        let status = client.get("/api/v1/status").await?;
        let servers = status["servers"].as_array().map(Vec::as_slice).unwrap_or_default();
        let own = servers.iter().find(|one| one["name"] == server).unwrap_or(&Value::Null);
        let text = |key: &str| own[key].as_str().unwrap_or("unknown").to_owned();
        if own["role"] == "replica" && own["state"] == "online" {
            note(&format!("{server} is a replica and online"));
            return Ok(Exit::Ok);
        }
        if Instant::now() >= deadline {
            note(&format!("{server} is not back yet: {} {}", text("state"), text("reason")));
            return Ok(Exit::StillRunning);
        }
        tokio::time::sleep(REJOIN_LOOK).await;
    }
}

/// `pointsman fence` and `pointsman unfence`; waits until status shows it.
pub(super) async fn fence(
    client: &Client,
    server: &str,
    fenced: bool,
    manner: &Manner,
    format: Format,
) -> Outcome {
    let verb = if fenced { "fence" } else { "unfence" };
    let exit = run(client, verb, json!({ "server": server }), manner, format).await?;
    if manner.dry_run || exit != Exit::Ok {
        return Ok(exit);
    }
    let deadline = Instant::now() + manner.timeout;
    loop {
        let status = client.get("/api/v1/status").await?;
        let all = status["failover"]["fenced"].as_array().map(Vec::as_slice).unwrap_or_default();
        if all.contains(&json!(server)) == fenced {
            return Ok(Exit::Ok);
        }
        if Instant::now() >= deadline {
            return Ok(Exit::StillRunning);
        }
        tokio::time::sleep(SHOW_LOOK).await;
    }
}

/// `pointsman maintenance on|off`, `pointsman ops cancel`: done at once.
pub(super) async fn at_once(client: &Client, verb: &str, wish: Value, format: Format) -> Outcome {
    let answer = client.post(&format!("/api/v1/operations/{verb}"), &wish).await?;
    format.print(&answer, || answer["text"].as_str().unwrap_or_default().to_owned())?;
    Ok(Exit::Ok)
}

async fn run(client: &Client, verb: &str, mut wish: Value, manner: &Manner, format: Format) -> Outcome {
    let path = format!("/api/v1/operations/{verb}");
    if manner.dry_run || !manner.yes {
        wish["dry_run"] = json!(true);
        let planned = client.post(&path, &wish).await?;
        if manner.dry_run {
            format.print(&planned, || format!("{}\ndry run: nothing was changed", outline(&planned)))?;
            return Ok(Exit::Ok);
        }
        note(&outline(&planned));
        confirm("continue?")?;
    }
    wish["dry_run"] = json!(false);
    let begun = client.post(&path, &wish).await?;
    if format == Format::Table && manner.yes {
        note(&outline(&begun));
    }
    let end = follow(client, begun, manner.timeout, format).await?;
    if end["state"] == "done" {
        shown(client, &end["plan"]["to"]).await?;
    }
    finish(&end, format)
}

/// Waits until what comes next finds the new primary in its place: status, other commands.
async fn shown(client: &Client, primary: &Value) -> Result<(), Failure> {
    let deadline = Instant::now() + SHOW_LIMIT;
    while Instant::now() < deadline && !primary.is_null() {
        let status = client.get("/api/v1/status").await?;
        if status["primary"] == *primary && status["failover"]["phase"] == "STABLE" {
            break;
        }
        tokio::time::sleep(SHOW_LOOK).await;
    }
    Ok(())
}

/// Shows each phase when it comes, until the end or until the time is over.
async fn follow(client: &Client, begun: Value, limit: Duration, format: Format) -> Result<Value, Failure> {
    let deadline = Instant::now() + limit;
    let mut shown = 0;
    let mut now = begun;
    loop {
        let phases = now["phases"].as_array().map(Vec::as_slice).unwrap_or_default();
        if format == Format::Table {
            phases.iter().skip(shown).for_each(|phase| note(&phase_line(phase)));
        }
        shown = phases.len();
        let over = Instant::now() >= deadline;
        if !is_under_way(&now) || over {
            return Ok(now);
        }
        now = client.get(&format!("/api/v1/operations/{}?wait={FOLLOW_SECONDS}", now["id"])).await?;
    }
}

/// Begun, or waiting for its begin.
fn is_under_way(operation: &Value) -> bool {
    operation["state"] == "running" || operation["state"] == "asked"
}

fn finish(end: &Value, format: Format) -> Outcome {
    let text = end["text"].as_str().unwrap_or_default();
    let seconds = end["duration_ms"].as_f64().unwrap_or_default() / 1000.0;
    format.print(end, || match end["state"].as_str() {
        Some("done") => format!("done in {seconds:.2}s: {text}    operation {}", end["id"]),
        _ if is_under_way(end) => {
            format!("still running; follow it with: pointsman ops wait {}", end["id"])
        }
        _ => format!("rolled back: {text}    operation {}", end["id"]),
    })?;
    Ok(match end["state"].as_str() {
        Some("done" | "planned") => Exit::Ok,
        _ if is_under_way(end) => Exit::StillRunning,
        Some("undone") => Exit::RolledBack,
        Some("refused") => Exit::Refused,
        _ => Exit::HalfWay,
    })
}

fn phase_line(phase: &Value) -> String {
    let ms = phase["ms"].as_f64().unwrap_or_default();
    format!("  {:>7.3}  {}", ms / 1000.0, phase["text"].as_str().unwrap_or_default())
}

/// What is going to be done, for people.
fn outline(operation: &Value) -> String {
    if operation["plan"].is_null() {
        let text = |key: &str| operation[key].as_str().unwrap_or_default();
        return format!("plan  {}  {}", text("operation"), text("text")).trim_end().to_owned();
    }
    plan(operation)
}

fn plan(operation: &Value) -> String {
    let plan = &operation["plan"];
    let name = |value: &Value| value.as_str().unwrap_or("none").to_owned();
    let verb = operation["operation"].as_str().unwrap_or_default();
    let mut lines = vec![format!("plan  {verb}  {} -> {}", name(&plan["from"]), name(&plan["to"]))];
    for step in plan["steps"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        lines.push(format!("  {step}"));
    }
    for other in plan["passed_over"].as_array().into_iter().flatten() {
        lines.push(format!("  not {}: {}", name(&other["server"]), name(&other["reason"])));
    }
    if let Some(lost) = plan["lost"].as_str().filter(|lost| !lost.is_empty()) {
        lines.push(format!("  WOULD BE LOST: {lost}"));
    }
    lines.join("\n")
}

/// `pointsman ops list`.
pub(super) async fn list(client: &Client, format: Format) -> Outcome {
    let answer = client.get("/api/v1/operations").await?;
    format.print(&answer, || {
        let mut table = Table::new(&["ID", "OPERATION", "FROM", "TO", "STATE", "DURATION", "RESULT"]);
        for operation in answer["operations"].as_array().into_iter().flatten() {
            let text =
                |value: &Value| value.as_str().filter(|text| !text.is_empty()).unwrap_or("-").to_owned();
            table.row(vec![
                operation["id"].to_string(),
                text(&operation["operation"]),
                text(&operation["plan"]["from"]),
                text(&operation["plan"]["to"]),
                text(&operation["state"]),
                format!("{}ms", operation["duration_ms"]),
                text(&operation["text"]),
            ]);
        }
        table.render()
    })?;
    Ok(Exit::Ok)
}

/// `pointsman ops show` and `pointsman ops wait`.
pub(super) async fn show(client: &Client, id: u64, wait: Option<Duration>, format: Format) -> Outcome {
    let now = client.get(&format!("/api/v1/operations/{id}")).await?;
    let Some(limit) = wait else {
        format.print(&now, || {
            let phases = now["phases"].as_array().into_iter().flatten().map(phase_line);
            let mut lines = vec![outline(&now)];
            lines.extend(phases);
            lines.push(format!(
                "{}  {}",
                now["state"].as_str().unwrap_or_default(),
                now["text"].as_str().unwrap_or_default()
            ));
            lines.join("\n")
        })?;
        return Ok(Exit::Ok);
    };
    let end = follow(client, now, limit, format).await?;
    finish(&end, format)
}

/// `pointsman history`.
pub(super) async fn history(client: &Client, count: usize, phases: bool, format: Format) -> Outcome {
    let mut answer = client.get("/api/v1/history").await?;
    if let Some(past) = answer["history"].as_array_mut() {
        past.truncate(count);
    }
    format.print(&answer, || {
        let mut table = Table::new(&["EPOCH", "WHEN", "KIND", "FROM", "TO", "PAUSE", "REASON"]);
        for past in answer["history"].as_array().into_iter().flatten() {
            let text = |key: &str| past[key].as_str().unwrap_or("-").to_owned();
            table.row(vec![
                past["epoch"].to_string(),
                when(past["at_ms"].as_u64().unwrap_or_default()),
                text("kind"),
                text("from"),
                text("to"),
                past["pause_ms"].as_u64().map_or_else(|| "-".to_owned(), |ms| format!("{ms}ms")),
                text("reason"),
            ]);
        }
        let mut lines = table.render();
        let with_phases = answer["history"].as_array().into_iter().flatten().filter(|_| phases);
        for past in with_phases {
            lines.push_str(&format!("epoch {}\n", past["epoch"]));
            for phase in past["phases"].as_array().into_iter().flatten() {
                lines.push_str(&format!("{}\n", phase_line(phase)));
            }
        }
        lines
    })?;
    Ok(Exit::Ok)
}

/// `2026-11-25 02:13:09Z` from milliseconds since 1970.
fn when(at_ms: u64) -> String {
    let (days, seconds) = (at_ms / 86_400_000, at_ms / 1000 % 86_400);
    let (year, month, day) = date(days);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}Z")
}

/// Year, month and day of a number of days since 1970, by counting whole eras of 400 years from March of year 0.
fn date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

const FOLLOW_SECONDS: f64 = 0.2;
const REJOIN_LOOK: Duration = Duration::from_millis(200);
const SHOW_LOOK: Duration = Duration::from_millis(10);
const SHOW_LIMIT: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        assert_eq!(when(0), "1970-01-01 00:00:00Z");
        assert_eq!(when(1_764_036_789_000), "2025-11-25 02:13:09Z");
        assert_eq!(when(1_709_164_800_000), "2024-02-29 00:00:00Z");
    }

    #[test]
    fn plans() {
        let operation = json!({
            "operation": "switchover",
            "plan": {
                "from": "db-1", "to": "db-2", "steps": ["hold new writes", "read_only on db-1"],
                "lost": "", "passed_over": [{ "server": "db-3", "reason": "lags" }],
            },
        });
        assert_eq!(
            plan(&operation),
            "plan  switchover  db-1 -> db-2\n  hold new writes\n  read_only on db-1\n  not db-3: lags"
        );
    }
}
