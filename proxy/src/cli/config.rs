//! `pointsman config`: everything about the configuration that needs no running proxy.

use std::path::PathBuf;

use clap::Subcommand;
use pointsman_config::{Change, diff, json_schema, to_json, to_toml};
use serde_json::{Value, json};

use super::client::Client;
use super::exit::{Exit, Outcome};
use super::output::{Format, Table, counted, note};
use super::settings::SettingsArgs;
use super::{Remote, wait_for};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Read and check the configuration; exit code 2 with every fault and its place.
    Check(SettingsArgs),
    /// Print the configuration in effect, with where each value comes from and secrets masked.
    Show(SettingsArgs),
    /// Compare the configuration with another one, and say when each change would take effect.
    Diff {
        #[command(flatten)]
        settings: SettingsArgs,
        /// The other configuration.
        #[arg(value_name = "OTHER")]
        other: PathBuf,
    },
    /// Print the JSON schema of the configuration.
    Schema,
    /// Have a running proxy read its configuration again; a faulty one is refused and changes nothing.
    Reload(Remote),
}

pub(super) fn run(command: Command, format: Format) -> Outcome {
    match command {
        Command::Check(settings) => check(&settings, format),
        Command::Show(settings) => {
            let loaded = settings.load()?;
            format.print(&to_json(&loaded.config), || to_toml(&loaded.config, &loaded.origins))?;
            Ok(Exit::Ok)
        }
        Command::Diff { settings, other } => {
            let old = settings.load()?;
            let new = SettingsArgs::of_file(other).load()?;
            let changes = diff(&old.config, &new.config);
            let value = json!({ "changes": changes.iter().map(change_value).collect::<Vec<_>>() });
            format.print(&value, || changes_table(&changes))?;
            Ok(Exit::Ok)
        }
        Command::Reload(remote) => wait_for(reload(&remote.client()?, format)),
        Command::Schema => {
            match format {
                Format::Table | Format::Json => Format::Json.print(&json_schema(), String::new)?,
                Format::Yaml => format.print(&json_schema(), String::new)?,
            }
            Ok(Exit::Ok)
        }
    }
}

async fn reload(client: &Client, format: Format) -> Outcome {
    let answer = client.post("/api/v1/config/reload", &json!({})).await?;
    format.print(&answer, || {
        let list = |key: &str| {
            let changes = answer[key].as_array().map(Vec::as_slice).unwrap_or_default();
            let keys: Vec<_> = changes.iter().filter_map(|change| change["key"].as_str()).collect();
            if keys.is_empty() { "nothing".to_owned() } else { keys.join(", ") }
        };
        format!("taken up: {}\nwaits for a restart: {}", list("applied"), list("restart_required"))
    })?;
    Ok(Exit::Ok)
}

/// Files that options name may be on another machine: their absence is a warning here.
fn check(settings: &SettingsArgs, format: Format) -> Outcome {
    let loaded = settings.load()?;
    for absent in &loaded.absent {
        note(&format!("warning: {absent}"));
    }
    let warnings: Vec<_> = loaded
        .warnings
        .iter()
        .map(ToString::to_string)
        .chain(loaded.absent.iter().map(ToString::to_string))
        .collect();
    let servers = loaded.config.servers.len();
    let value = json!({ "valid": true, "servers": servers, "warnings": warnings });
    format.print(&value, || {
        format!("valid: {}, {}", counted(servers, "server"), counted(warnings.len(), "warning"))
    })?;
    Ok(Exit::Ok)
}

fn change_value(change: &Change) -> Value {
    json!({ "key": change.key, "old": change.old, "new": change.new, "reload": change.reload.name() })
}

fn changes_table(changes: &[Change]) -> String {
    if changes.is_empty() {
        return "no difference".to_owned();
    }
    let mut table = Table::new(&["KEY", "OLD", "NEW", "TAKES EFFECT"]);
    for change in changes {
        let text = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".to_owned());
        table.row(vec![
            change.key.clone(),
            text(&change.old),
            text(&change.new),
            change.reload.name().to_owned(),
        ]);
    }
    table.render()
}
