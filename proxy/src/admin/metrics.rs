//! The figures of this process: the workers' tallies added up, and what is known of the servers.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use pointsman_router::session::Pins;
use pointsman_router::topology::{Role, ServerView, State};

use super::configuration;
use super::exposition::{Exposition, Format, Kind, Labels};
use super::process;
use crate::cluster::View;
use crate::counters::{Counters, DURATION_BUCKETS, ServerCounters, Tally, bucket_bound_seconds};
use crate::reload::Report;
use crate::shared::Shared;

/// Chooses one tally of a worker.
type TallyOf = fn(&Counters) -> &Tally;

/// Everything, as text. `others` are families that were counted elsewhere, in Prometheus' format.
pub(super) fn render(
    shared: &Shared,
    view: &View,
    pins: &BTreeMap<&'static str, u64>,
    report: &Report,
    others: &str,
    format: Format,
) -> String {
    let mut out = Exposition::default();
    let version = env!("CARGO_PKG_VERSION");
    out.family("pointsman_build_info", Kind::Gauge, "The program that runs.")
        .sample(&[("version", version)], 1);
    clients(&mut out, shared, pins);
    statements(&mut out, shared);
    servers(&mut out, shared, view);
    traffic(&mut out, shared, view);
    configuration::render(&mut out, report);
    process::render(&mut out);
    out.append(others);
    out.finish(format)
}

fn clients(out: &mut Exposition, shared: &Shared, pins: &BTreeMap<&'static str, u64>) {
    out.family("pointsman_client_connections", Kind::Gauge, "Clients that are connected.")
        .sample(&[], shared.clients.load(Ordering::Relaxed));
    let total = |tally: TallyOf| sum(shared, tally);
    out.family("pointsman_client_logins_total", Kind::Counter, "Logins of clients.")
        .sample(&[("outcome", "accepted")], total(|c| &c.logins))
        .sample(&[("outcome", "refused")], total(|c| &c.failed_logins));
    out.family(
        "pointsman_errors_total",
        Kind::Counter,
        "Sessions or statements that failed, by whose fault it was.",
    )
    .sample(&[("source", "client")], total(|c| &c.client_errors))
    .sample(&[("source", "proxy")], total(|c| &c.proxy_errors));
    out.family(
        "pointsman_client_bytes_total",
        Kind::Counter,
        "Bytes exchanged with clients after their login.",
    )
    .sample(&[("direction", "in")], total(|c| &c.bytes_from_clients))
    .sample(&[("direction", "out")], total(|c| &c.bytes_to_clients));
    let help = "Sessions that keep their server connection, by reason.";
    out.family("pointsman_sessions_pinned", Kind::Gauge, help);
    for (reason, count) in pins {
        out.sample(&[("reason", reason)], count);
    }
    let help = "How often sessions were pinned to their server connection, by reason.";
    out.family("pointsman_pins_total", Kind::Counter, help);
    for (place, reason) in Pins::all_names().enumerate() {
        let times = shared.counters.iter().map(|worker| worker.pins[place].value());
        out.sample(&[("reason", reason)], times.sum::<u64>());
    }
}

fn statements(out: &mut Exposition, shared: &Shared) {
    let total = |tally: TallyOf| sum(shared, tally);
    let waits = total(|c| &c.position_waits);
    let failed = total(|c| &c.failed_position_waits);
    out.family(
        "pointsman_position_waits_total",
        Kind::Counter,
        "Reads that waited for what their session had seen.",
    )
    .sample(&[("outcome", "reached")], waits.saturating_sub(failed))
    .sample(&[("outcome", "not_reached")], failed);
    let counters: [(&str, TallyOf, &str); 10] = [
        (
            "pointsman_held_statements_total",
            |c| &c.held_statements,
            "Statements held because there was no primary.",
        ),
        (
            "pointsman_replayed_transactions_total",
            |c| &c.replayed_transactions,
            "Open transactions that were done again on a new primary.",
        ),
        (
            "pointsman_lost_transactions_total",
            |c| &c.lost_transactions,
            "Open transactions whose clients were told that they are rolled back, their server being gone.",
        ),
        ("pointsman_rerun_reads_total", |c| &c.rerun_reads, "Reads that were run again on another server."),
        ("pointsman_misrouted_total", |c| &c.misrouted, "Statements that a replica refused as writes."),
        ("pointsman_pool_waits_total", |c| &c.pool_waits, "Statements that waited for a server connection."),
        ("pointsman_pool_acquire_timeouts_total", |c| &c.pool_timeouts, "Statements that waited in vain."),
        (
            "pointsman_connection_resets_total",
            |c| &c.resets,
            "Server connections reset, for another session or on a client's wish.",
        ),
        (
            "pointsman_state_applications_total",
            |c| &c.state_applications,
            "Session states applied to connections.",
        ),
        ("pointsman_prepares_total", |c| &c.prepares, "Statements prepared on servers."),
    ];
    for (name, tally, help) in counters {
        out.family(name, Kind::Counter, help).sample(&[], total(tally));
    }
}

fn servers(out: &mut Exposition, shared: &Shared, view: &View) {
    let topology = &view.topology;
    out.family("pointsman_topology_epoch", Kind::Gauge, "Rises with every change of the primary.")
        .sample(&[], topology.epoch);
    out.family("pointsman_primary_known", Kind::Gauge, "Whether there is a primary.")
        .sample(&[], u8::from(topology.primary.is_some()));
    gauge(out, view, "pointsman_server_up", "Whether the server answers.", |server| {
        let up = !matches!(server.state, State::Down | State::Unknown);
        Some(f64::from(u8::from(up)))
    });
    gauge(out, view, "pointsman_replication_lag_seconds", "How far the server is behind.", |server| {
        server.lag.map(|lag| lag.as_secs_f64())
    });
    gauge(out, view, "pointsman_server_weight", "The configured share of reads.", |server| {
        Some(f64::from(server.weight))
    });
    let budget = |server: &ServerView| shared.budgets.get(usize::from(server.id.0));
    gauge(out, view, "pointsman_pool_connections", "Open connections to the server.", |server| {
        budget(server).map(|budget| budget.used() as f64)
    });
    gauge(out, view, "pointsman_pool_waiting", "Statements that wait for a connection now.", |server| {
        budget(server).map(|budget| budget.waiters() as f64)
    });
    out.family("pointsman_server_state", Kind::Gauge, "The server's state: 1 for the one it is in.");
    for server in topology.members() {
        for state in STATES {
            let labels: Labels<'_> = &[("server", &server.name), ("state", state.name())];
            out.sample(labels, u8::from(server.state == state));
        }
    }
    out.family("pointsman_server_role", Kind::Gauge, "The server's role: 1 for the one it has.");
    for server in topology.members() {
        for role in [Role::Primary, Role::Replica, Role::Unknown] {
            let labels: Labels<'_> = &[("server", &server.name), ("role", role.name())];
            out.sample(labels, u8::from(server.role == role));
        }
    }
}

const STATES: [State; 6] =
    [State::Online, State::Lagging, State::Draining, State::Excluded, State::Down, State::Unknown];

/// A number for each server that has one.
fn gauge(
    out: &mut Exposition,
    view: &View,
    name: &str,
    help: &str,
    value: impl Fn(&ServerView) -> Option<f64>,
) {
    out.family(name, Kind::Gauge, help);
    for server in view.topology.members() {
        if let Some(value) = value(server) {
            out.sample(&[("server", &server.name)], value);
        }
    }
}

/// What went to the servers, from the tallies of all workers.
fn traffic(out: &mut Exposition, shared: &Shared, view: &View) {
    let total = |server: &ServerView, tally: fn(&ServerCounters) -> &Tally| -> u64 {
        let of_worker = |counters: &Counters| counters.server(server.id).map_or(0, |of| tally(of).value());
        shared.counters.iter().map(|counters| of_worker(counters)).sum()
    };
    let servers: Vec<_> = view.topology.members().collect();
    out.family("pointsman_queries_total", Kind::Counter, "Statements sent to the server.");
    for server in &servers {
        out.sample(&[("server", &server.name), ("kind", "read")], total(server, |c| &c.reads));
        out.sample(&[("server", &server.name), ("kind", "write")], total(server, |c| &c.writes));
    }
    out.family("pointsman_server_errors_total", Kind::Counter, "Errors on the way to the server and back.");
    for server in &servers {
        out.sample(&[("server", &server.name)], total(server, |c| &c.errors));
    }
    out.family(
        "pointsman_server_connects_total",
        Kind::Counter,
        "Connections made to the server for clients.",
    );
    for server in &servers {
        out.sample(&[("server", &server.name), ("outcome", "opened")], total(server, |c| &c.connects));
        out.sample(&[("server", &server.name), ("outcome", "failed")], total(server, |c| &c.failed_connects));
    }
    let help = "From the first byte sent to the server to the last byte sent to the client.";
    out.family("pointsman_query_duration_seconds", Kind::Histogram, help);
    for server in &servers {
        let mut buckets = [0; DURATION_BUCKETS + 1];
        for of_server in shared.counters.iter().filter_map(|counters| counters.server(server.id)) {
            for (bucket, tally) in buckets.iter_mut().zip(&of_server.durations) {
                *bucket += tally.value();
            }
        }
        let buckets: Vec<_> =
            buckets.iter().enumerate().map(|(at, &count)| (bucket_bound_seconds(at), count)).collect();
        let sum = total(server, |c| &c.duration_sum_micros) as f64 / 1e6;
        out.histogram(&[("server", &server.name)], &buckets, sum);
    }
}

fn sum(shared: &Shared, tally: TallyOf) -> u64 {
    shared.counters.iter().map(|counters| tally(counters).value()).sum()
}
