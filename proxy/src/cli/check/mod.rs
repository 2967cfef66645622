//! `pointsman check`: a look at every server before anybody relies on it, each finding with what to do.

mod accounts;
mod finding;
pub(crate) mod grants;
mod inspect;
mod replication;
mod settings;

use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use pointsman_config::Config;
use pointsman_router::topology::Topology;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use self::finding::{Finding, Fix, Level};
use self::inspect::{Inspected, inspect};
use super::exit::{Exit, Failure, Outcome};
use super::output::{Format, confirm, counted, note};
use super::settings::SettingsArgs;
use crate::admin::API_VERSION;
use crate::cluster::subject::ProbeError;
use crate::cluster::{ConnectionError, ServiceAccount};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    settings: SettingsArgs,
    /// Show the findings of one server only.
    name: Option<String>,
    /// Run the statements that lose nothing and can be taken back.
    #[arg(long)]
    fix: bool,
    /// Do not ask before `--fix` changes anything.
    #[arg(long)]
    yes: bool,
}

/// Looks at all servers and says what it found.
pub(super) async fn run(arguments: &Arguments, format: Format) -> Outcome {
    let config = arguments.settings.load_complete()?.config;
    let account = Arc::new(ServiceAccount::new(&config));
    let picture = Picture::take(&config, &account).await;
    let mut findings = picture.findings(&config);
    if let Some(name) = &arguments.name {
        if !config.servers.iter().any(|server| server.name == *name) {
            return Err(Failure::usage(format!("there is no server {name} in the configuration")));
        }
        findings.retain(|finding| finding.server == *name);
    }
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.level));
    format.print(&picture.value(&findings), || picture.text(&config, &findings))?;
    if arguments.fix {
        fix(&config, &account, &findings, arguments.yes).await?;
    }
    Ok(picture.exit(&findings))
}

/// What the servers said, in the order of the configuration; none of those that did not answer.
struct Picture {
    servers: Vec<Option<Inspected>>,
    topology: Topology,
    silent: Vec<Finding>,
}

impl Picture {
    async fn take(config: &Config, account: &Arc<ServiceAccount>) -> Self {
        let mut tasks = JoinSet::new();
        for (at, server) in config.servers.iter().enumerate() {
            let (account, name, address) = (account.clone(), server.name.clone(), server.address.clone());
            tasks.spawn(async move { (at, inspect(&account, &name, &address).await) });
        }
        let mut servers: Vec<_> = config.servers.iter().map(|_| None).collect();
        let mut silent = Vec::new();
        while let Some(done) = tasks.join_next().await {
            match done {
                Ok((at, Ok(inspected))) => servers[at] = Some(inspected),
                Ok((at, Err(error))) => {
                    silent.push(unreachable(&config.servers[at].name, &config.user, &error))
                }
                Err(error) => silent.push(Finding::new("cluster", Level::Error, "check", error.to_string())),
            }
        }
        silent.sort_by(|a, b| a.server.cmp(&b.server));
        let topology = replication::topology(config, &mut servers).await;
        Self { servers, topology, silent }
    }

    fn findings(&self, config: &Config) -> Vec<Finding> {
        let mut findings = self.silent.clone();
        findings.extend(replication::judge(&self.topology, &self.servers));
        for (server, view) in self.servers.iter().zip(&self.topology.servers) {
            let Some(server) = server else { continue };
            let is_primary = self.topology.primary == Some(view.id);
            findings.extend(grants::judge(server));
            findings.extend(settings::judge(server));
            findings.extend(settings::judge_semi_sync(server, is_primary, config.failover.durability));
            findings.extend(room(server, config));
            if is_primary {
                findings.extend(non_transactional(server));
                findings.extend(accounts::judge(server, config.backend_tls.cert_file.is_some()));
            }
        }
        findings
    }

    fn exit(&self, findings: &[Finding]) -> Exit {
        if self.topology.primary.is_none() {
            Exit::NoPrimary
        } else if findings.iter().any(|finding| finding.level == Level::Error) {
            Exit::Degraded
        } else {
            Exit::Ok
        }
    }

    fn value(&self, findings: &[Finding]) -> Value {
        json!({
            "apiVersion": API_VERSION,
            "primary": self.topology.primary().map(|primary| primary.name.as_str()),
            "findings": findings.iter().map(Finding::value).collect::<Vec<_>>(),
        })
    }

    fn text(&self, config: &Config, findings: &[Finding]) -> String {
        let mut text = String::new();
        for (server, view) in config.servers.iter().zip(&self.topology.servers) {
            let version = if view.version.is_empty() { "not looked at" } else { &view.version };
            text.push_str(&format!("{}  {}  {}  {version}\n", server.name, server.address, view.role.name()));
        }
        text.push_str(&finding::text(findings));
        let count = |level| findings.iter().filter(|finding| finding.level == level).count();
        text.push_str(&format!(
            "{}, {}, {}",
            counted(count(Level::Error), "error"),
            counted(count(Level::Warning), "warning"),
            counted(count(Level::Note), "note")
        ));
        text
    }
}

fn unreachable(name: &str, account: &str, error: &ProbeError) -> Finding {
    let finding = Finding::new(name, Level::Error, "connect", error.to_string());
    let code = match error {
        ProbeError::Connection(ConnectionError::Server { code, .. }) => *code,
        ProbeError::Connection(_) | ProbeError::NoAnswer | ProbeError::Position(_) => 0,
    };
    if !REFUSED_LOGINS.contains(&code) {
        return finding;
    }
    finding.with(Fix::advice(format!(
        "the account {account} is not there, may not come from here, or has another password than password or \
         password_file says; docs/operations.md has its CREATE USER and GRANT"
    )))
}

/// ER_ACCESS_DENIED_ERROR, ER_HOST_NOT_PRIVILEGED, ER_ACCESS_DENIED_NO_PASSWORD_ERROR.
const REFUSED_LOGINS: [u16; 3] = [1045, 1130, 1698];

/// Pointsman must not be the reason for "too many connections".
fn room(server: &Inspected, config: &Config) -> Option<Finding> {
    let limit: u32 = server.variables.get("max_connections")?.parse().ok()?;
    let wanted = config.pool.max_connections;
    (limit < wanted).then(|| {
        let message =
            format!("max_connections is {limit}, less than pool.max_connections of one proxy ({wanted})");
        Finding::new(&server.name, Level::Warning, "connections", message).with(Fix::advice(format!(
            "set pool.max_connections below {limit}, or the server's limit above it"
        )))
    })
}

fn non_transactional(server: &Inspected) -> Option<Finding> {
    let (tables, count) = &server.non_transactional;
    if *count == 0 {
        return None;
    }
    let more = count.saturating_sub(tables.len());
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let message = format!(
        "tables without transactions: {}{more}; what is written to them is not lossless and never replayed",
        tables.join(", ")
    );
    let fix = Fix::advice("ALTER TABLE ... ENGINE=InnoDB");
    Some(Finding::new(&server.name, Level::Warning, "tables", message).with(fix))
}

/// Runs what is safe to run, after asking; what a server refuses keeps nothing else from being run.
async fn fix(
    config: &Config,
    account: &ServiceAccount,
    findings: &[Finding],
    yes: bool,
) -> Result<(), Failure> {
    let safe: Vec<_> = findings.iter().filter(|finding| finding.fix.safe).collect();
    if safe.is_empty() {
        note("nothing that --fix could do");
        return Ok(());
    }
    if !yes {
        for finding in &safe {
            finding.fix.sql.iter().for_each(|statement| note(&format!("{}: {statement}", finding.server)));
        }
        confirm("run these statements?")?;
    }
    let (mut done, mut refused) = (0, 0);
    for server in &config.servers {
        let of_server = safe.iter().filter(|finding| finding.server == server.name);
        let statements: Vec<_> = of_server.flat_map(|finding| &finding.fix.sql).collect();
        if statements.is_empty() {
            continue;
        }
        let lost = |error| Failure::new(Exit::HalfWay, format!("{}: {error}", server.name));
        let mut connection = account.connect(&server.address, LIMIT).await.map_err(lost)?;
        for statement in statements {
            match connection.run(statement, LIMIT).await {
                Ok(()) => {
                    done += 1;
                    note(&format!("{}: done: {statement}", server.name));
                }
                Err(error @ ConnectionError::Server { .. }) => {
                    refused += 1;
                    note(&format!("{}: refused: {statement}: {error}", server.name));
                }
                Err(error) => return Err(lost(error)),
            }
        }
    }
    match (done, refused) {
        (_, 0) => Ok(()),
        (0, _) => {
            let text = "nothing was changed: all of it was refused, see above; where rights are missing, run it as an administrator";
            Err(Failure::new(Exit::Refused, text))
        }
        (done, refused) => {
            let all = done + refused;
            let text =
                format!("{done} of {all} done; where rights are missing, run the others as an administrator");
            Err(Failure::new(Exit::HalfWay, text))
        }
    }
}

const LIMIT: Duration = Duration::from_secs(10);
