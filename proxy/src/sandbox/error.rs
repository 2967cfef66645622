//! What can keep a sandbox from doing what it is asked.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use pointsman_router::intent::Flavour;

/// Why a throw-away topology could not do what was asked of it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("expected the programs of a {flavour:?} server, found none: {advice}")]
    NoPrograms { flavour: Flavour, advice: &'static str },
    #[error("expected to run {program}, got {source}")]
    Spawn { program: PathBuf, source: io::Error },
    #[error("expected {program} to succeed, got {status}: {output}")]
    Failed { program: PathBuf, status: std::process::ExitStatus, output: String },
    #[error("expected {path} to be writable, got {source}")]
    File { path: PathBuf, source: io::Error },
    #[error("expected server {name} to start within {limit:?}: {log}")]
    NotStarted { name: String, limit: Duration, log: String },
    #[error("expected server {name} to run")]
    NotRunning { name: String },
    #[error("expected server {name} to have a disk of its own")]
    NoDisk { name: String },
    #[error("expected server {name} to answer, got {source}")]
    Query { name: String, source: mysql_async::Error },
    #[error("expected server {name} to reach {position} within {limit:?}")]
    NotReached { name: String, position: String, limit: Duration },
    #[error("expected a free loopback port, found none")]
    NoPort,
}
