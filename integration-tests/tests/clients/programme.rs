//! The clients of other languages, as processes.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use pointsman_integration_tests::{Failure, Flavour};
use tokio::process::Command;
use tokio::time::timeout;

use super::report::Report;
use super::{Contract, HOST, PASSWORD, USER};

/// The names that `run` lists.
///
/// # Panics
///
/// When the script cannot be run.
pub(crate) fn names() -> Vec<String> {
    let output = std::process::Command::new(script()).output().expect("integration-tests/clients/run");
    String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
}

/// Runs one to its end.
///
/// # Errors
///
/// When it cannot be started or takes too long.
pub(crate) async fn run(name: &str, contract: &Contract) -> Result<Report, Failure> {
    let flavour = match contract.flavour {
        Flavour::Mariadb => "mariadb",
        Flavour::Mysql => "mysql",
    };
    let running = Command::new(script())
        .arg(name)
        .env("CLIENT_HOST", HOST)
        .env("CLIENT_PORT", contract.port.to_string())
        .env("CLIENT_USER", USER)
        .env("CLIENT_PASSWORD", PASSWORD)
        .env("CLIENT_SCHEMA", &contract.schema)
        .env("CLIENT_TLS", if contract.tls { "on" } else { "off" })
        .env("CLIENT_FLAVOUR", flavour)
        .env("CLIENT_INFILE", &contract.infile)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output =
        timeout(LIMIT, running).await.map_err(|_| format!("expected {name} to end within {LIMIT:?}"))??;
    let mut remarks = String::from_utf8_lossy(&output.stderr).into_owned();
    if !output.status.success() {
        remarks += &format!(
            "{name} ended with {}; integration-tests/clients/install makes it available",
            output.status
        );
    }
    Ok(Report::parse(&String::from_utf8_lossy(&output.stdout), remarks))
}

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/run")
}

const LIMIT: Duration = Duration::from_secs(180);
