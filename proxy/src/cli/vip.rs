//! `pointsman vip status`, `move` and `check`.

use clap::Subcommand;
use serde_json::{Value, json};

use super::Remote;
use super::exit::{Exit, Outcome};
use super::output::{Format, Table};
use super::settings::SettingsArgs;
use crate::admin::API_VERSION;
use crate::vip::check::{Verdict, findings};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Show the virtual service as the kernel has it.
    Status(Remote),
    /// Give the address to another proxy.
    Move(Remote),
    /// Look at what this host lacks for the virtual address; changes nothing.
    Check(SettingsArgs),
}

pub(super) async fn run(command: &Command, format: Format) -> Outcome {
    match command {
        Command::Status(remote) => {
            let vip = remote.client()?.get("/api/v1/vip").await?;
            format.print(&vip, || line(&vip) + &servers(&vip))?;
            Ok(if matches!(vip["state"].as_str(), Some("serving" | "standby")) {
                Exit::Ok
            } else {
                Exit::Degraded
            })
        }
        Command::Move(remote) => {
            let answer = remote.client()?.post("/api/v1/vip/move", &json!({})).await?;
            let owner = answer["owner"].as_str().unwrap_or("?");
            format.print(&answer, || format!("the virtual address has moved to {owner}"))?;
            Ok(Exit::Ok)
        }
        Command::Check(settings) => check(settings, format),
    }
}

fn check(settings: &SettingsArgs, format: Format) -> Outcome {
    // What the kernel lacks does not depend on the files with passwords and keys.
    let findings = findings(&settings.load()?.config);
    let rows: Vec<_> = findings
        .iter()
        .map(|finding| {
            json!({"check": finding.what, "verdict": finding.verdict.name(), "message": finding.message})
        })
        .collect();
    let value = json!({"apiVersion": API_VERSION, "findings": rows});
    format.print(&value, || {
        let line = |finding: &crate::vip::check::Finding| {
            format!("{:7}  {}: {}\n", finding.verdict.name(), finding.what, finding.message)
        };
        findings.iter().map(line).collect()
    })?;
    let is_bad = findings.iter().any(|finding| finding.verdict == Verdict::Bad);
    Ok(if is_bad { Exit::Degraded } else { Exit::Ok })
}

/// One line for the virtual service, and one more where there is something to say.
pub(super) fn line(vip: &Value) -> String {
    let text = |key: &str| vip[key].as_str().unwrap_or("-").to_owned();
    let serving = vip["servers"].as_array().into_iter().flatten();
    let serving = serving.filter(|server| server["weight"].as_u64().unwrap_or(0) > 0).count();
    let mut line = format!(
        "vip      {}    {}    {} {}    {serving} servers\n",
        text("address"),
        text("state"),
        text("scheduler"),
        text("forwarding"),
    );
    if let Some(reason) = vip["reason"].as_str().filter(|reason| !reason.is_empty()) {
        line.push_str(&format!("! vip: {reason}\n"));
    }
    line
}

fn servers(vip: &Value) -> String {
    let mut table =
        Table::new(&["SERVER", "ADDRESS", "WEIGHT", "ACTIVE", "INACTIVE", "CONNECTIONS", "CAUSE"]);
    for server in vip["servers"].as_array().map(Vec::as_slice).unwrap_or_default() {
        let text = |key: &str| server[key].as_str().unwrap_or("-").to_owned();
        let number = |key: &str| server[key].to_string();
        table.row(vec![
            text("name"),
            text("address"),
            number("weight"),
            number("active"),
            number("inactive"),
            number("connections"),
            text("cause"),
        ]);
    }
    table.render()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_the_service() {
        let vip = json!({
            "address": "10.0.0.100:3306", "state": "serving", "reason": "", "scheduler": "wrr",
            "forwarding": "masquerade", "interface": "eth0", "generation": 4,
            "servers": [
                {"name": "db-2", "address": "10.0.0.12:3306", "weight": 100, "active": 3, "inactive": 1,
                 "connections": 70, "cause": "serving"},
                {"name": "db-3", "address": "10.0.0.13:3306", "weight": 0, "active": 1, "inactive": 0,
                 "connections": 9, "cause": "lagging"},
            ],
        });
        let expected = "\
vip      10.0.0.100:3306    serving    wrr masquerade    1 servers
SERVER  ADDRESS         WEIGHT  ACTIVE  INACTIVE  CONNECTIONS  CAUSE
db-2    10.0.0.12:3306  100     3       1         70           serving
db-3    10.0.0.13:3306  0       1       0         9            lagging
";
        assert_eq!(line(&vip) + &servers(&vip), expected);
        let lacking =
            json!({"address": "10.0.0.100:3306", "state": "unavailable", "reason": "the kernel has no IPVS"});
        assert!(line(&lacking).ends_with("! vip: the kernel has no IPVS\n"));
    }
}
