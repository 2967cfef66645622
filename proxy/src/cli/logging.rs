//! Logs: one line an event, on standard error.

use pointsman_config::{Log, LogFormat, LogLevel};
use tracing_subscriber::EnvFilter;

/// Starts logging; `RUST_LOG` goes before `log.level`. A second call changes nothing.
pub(super) fn start(settings: &Log) {
    let level = match settings.level {
        LogLevel::Error => "error",
        LogLevel::Warn => "warn",
        LogLevel::Info => "info",
        LogLevel::Debug => "debug",
        LogLevel::Trace => "trace",
    };
    // What libraries say below a warning is of use to their authors only; and rustls warns of every client that names
    // an IP address as the server's name, as command lines do.
    let ours = format!(
        "warn,rustls::msgs=error,pointsman={level},pointsman_router={level},pointsman_protocol={level}"
    );
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_unset| EnvFilter::new(ours));
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started = match settings.format {
        LogFormat::Json => subscriber.json().flatten_event(true).try_init(),
        LogFormat::Text => subscriber.with_ansi(false).try_init(),
    };
    // Already started: a test has done it.
    drop(started);
    std::panic::set_hook(Box::new(|panic| tracing::error!(%panic, "panic")));
}
