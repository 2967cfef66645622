//! Commands of the program, run as an operator does.

use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::time::timeout;

use crate::{Failure, program};

/// A command's exit code, standard output and standard error.
#[derive(Clone, Debug)]
pub struct Ran {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Ran {
    /// What it printed, as JSON.
    ///
    /// # Errors
    ///
    /// When it is none; with all that was printed.
    pub fn json(&self) -> Result<Value, Failure> {
        serde_json::from_str(&self.out).map_err(|error| format!("{error}: {}{}", self.out, self.err).into())
    }
}

/// Runs `pointsman` with these arguments to its end; `input` is its standard input.
///
/// # Errors
///
/// When it cannot be run, or does not end in time.
pub async fn run(arguments: &[&str], input: &str) -> Result<Ran, Failure> {
    let mut child = Command::new(program()?)
        .args(arguments)
        .env_remove("POINTSMAN_ENDPOINT")
        .env_remove("POINTSMAN_CONFIG")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes()).await?;
    }
    let output = timeout(LIMIT, child.wait_with_output()).await??;
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    Ok(Ran { code: output.status.code().unwrap_or(-1), out: text(&output.stdout), err: text(&output.stderr) })
}

const LIMIT: Duration = Duration::from_secs(60);
