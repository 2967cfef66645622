//! Logs: one line an event, on standard error.

use pointsman_config::{Log, LogFormat, LogLevel};
use tracing_subscriber::EnvFilter;

use crate::reload::SetLevel;

/// Starts logging, and answers with what changes the level; `RUST_LOG` goes before `log.level`. A second call changes
/// nothing.
pub(super) fn start(settings: &Log) -> SetLevel {
    let given = EnvFilter::try_from_default_env().ok();
    let fixed = given.is_some();
    let filter = given.unwrap_or_else(|| filter_of(settings.level));
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let (started, set): (_, SetLevel) = match settings.format {
        LogFormat::Json => {
            let subscriber = subscriber.json().flatten_event(true).with_filter_reloading();
            let handle = subscriber.reload_handle();
            (subscriber.try_init(), Box::new(move |level| drop(handle.reload(filter_of(level)))))
        }
        LogFormat::Text => {
            let subscriber = subscriber.with_ansi(false).with_filter_reloading();
            let handle = subscriber.reload_handle();
            (subscriber.try_init(), Box::new(move |level| drop(handle.reload(filter_of(level)))))
        }
    };
    // Already started: a test has done it.
    drop(started);
    std::panic::set_hook(Box::new(|panic| tracing::error!(%panic, "panic")));
    if fixed { Box::new(|_level| ()) } else { set }
}

fn filter_of(level: LogLevel) -> EnvFilter {
    let level = match level {
        LogLevel::Error => "error",
        LogLevel::Warn => "warn",
        LogLevel::Info => "info",
        LogLevel::Debug => "debug",
        LogLevel::Trace => "trace",
    };
    // What libraries say below a warning is of use to their authors only; and rustls warns of every client that names
    // an IP address as the server's name, as command lines do.
    EnvFilter::new(format!(
        "warn,rustls::msgs=error,pointsman={level},pointsman_router={level},pointsman_protocol={level}"
    ))
}
