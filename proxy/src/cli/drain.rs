//! `pointsman drain` and `pointsman undrain`.

use clap::Args;
use serde_json::{Value, json};

use super::client::Client;
use super::exit::{Exit, Failure, Outcome};
use super::output::Format;

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(super) struct Arguments {
    /// The server that gets no more reads.
    server: Option<String>,
    /// The proxy itself: not ready, then no new clients, then sessions end at their transaction's end.
    #[arg(long)]
    local: bool,
}

pub(super) async fn drain(client: &Client, what: &Arguments, format: Format) -> Outcome {
    match &what.server {
        Some(server) => change(client, server, true, format).await,
        None => {
            let answer = client.post("/api/v1/drain", &json!({})).await?;
            format.print(&answer, || "the proxy drains and ends".to_owned())?;
            Ok(Exit::Ok)
        }
    }
}

pub(super) async fn undrain(client: &Client, server: &str, format: Format) -> Outcome {
    change(client, server, false, format).await
}

async fn change(client: &Client, server: &str, draining: bool, format: Format) -> Outcome {
    if server.is_empty() || server.contains(['/', '?', '#', '%', ' ']) {
        return Err(Failure::usage(format!("expected the name of a server, got \"{server}\"")));
    }
    let verb = if draining { "drain" } else { "undrain" };
    let answer: Value = client.post(&format!("/api/v1/servers/{server}/{verb}"), &json!({})).await?;
    format.print(&answer, || match draining {
        true => format!("{server} gets no more reads; what runs there ends by itself"),
        false => format!("{server} serves reads again once it is online"),
    })?;
    Ok(Exit::Ok)
}
