//! What is counted, and what goes which way.

use libtest_mimic::Failed;
use pointsman_integration_tests::sandbox::APP;
use pointsman_integration_tests::{metric_families, named_metrics};

use crate::bed::{Bed, PORT, SERVERS, VIP, eventually, hide, inside, on, show};
use crate::stand::{ALONE, Proxy, RO, START_LIMIT, Servers, log_in, until_weight};

const OURS: &str = "pointsman_vip_";

fn serving(servers: &Servers) -> Proxy {
    let proxy = Proxy::start("d1", servers, &ALONE);
    proxy.until("serving");
    for replica in servers.replicas() {
        until_weight(replica, Some(100));
    }
    proxy
}

/// Each metric of the address that is named anywhere exists, each that exists is named, and what others do is counted.
pub(crate) fn metrics(_: &Bed) -> Result<(), Failed> {
    let servers = Servers::get();
    // As a server set up for direct routing without its ARP settings.
    on("p", &format!("ip addr add {VIP}/32 dev lo"));
    let proxy = serving(servers);
    let counted = |name: &str, label: &str| {
        eventually(&format!("{name} {label}"), START_LIMIT, || {
            proxy.metric(name, label).is_some_and(|count| count > 0.0)
        });
    };
    counted("pointsman_vip_duplicates_total", "");
    assert!(proxy.log().contains("another host answers for the virtual address"), "{}", proxy.log());
    on("p", &format!("ip addr del {VIP}/32 dev lo"));
    on("d1", &format!("ipvsadm -d -t {VIP}:{PORT} -r {SERVERS}:{}", servers.replicas()[0].port()));
    counted("pointsman_vip_repairs_total", "what=\"table\"");
    on("d1", "sysctl -qw net.ipv4.vs.conntrack=0");
    counted("pointsman_vip_repairs_total", "what=\"settings\"");

    let is_ours = |name: &String| name.starts_with(OURS);
    let named: Vec<_> = named_metrics()?.into_keys().filter(is_ours).collect();
    let text = proxy.get("/metrics").ok_or("no metrics")?;
    let there: Vec<_> = metric_families(&text).into_iter().filter(is_ours).collect();
    assert!(named.len() > 5, "{named:?}");
    assert_eq!(there, named);
    proxy.leave();
    Ok(())
}

/// Reads through the address never pass through the proxy. Prints how fast they are, and through the proxy's own listener.
pub(crate) fn sysbench(_: &Bed) -> Result<(), Failed> {
    let servers = Servers::get();
    let proxy = serving(servers);
    let at_servers = |port: u16| format!("{SERVERS} --mysql-port={port}");
    on("c", &command(&at_servers(servers.primary().port()), "prepare"));
    servers.runtime.block_on(servers.sandbox.caught_up(START_LIMIT))?;
    let passed = || proxy.metric("pointsman_queries_total", "").unwrap_or_default();
    let mut rates = Vec::new();
    for (name, way, through_proxy) in [
        ("one replica", at_servers(servers.replicas()[0].port()), false),
        ("the proxy", format!("10.0.0.11 --mysql-port={RO}"), true),
        ("the address", format!("{VIP} --mysql-port={PORT}"), false),
    ] {
        let before = passed();
        let report = on("c", &command(&way, "--time=20 run"));
        let queries = figure(&report, "queries:")?;
        assert!(queries > 100.0 && figure(&report, "ignored errors:")? == 0.0, "{report}");
        assert_eq!(passed() > before, through_proxy, "{name}");
        println!("sysbench oltp_point_select through {name}: {:.0} queries/s", queries / 20.0);
        rates.push(queries);
    }
    println!(
        "ratios: address to proxy {:.2}, address to one replica {:.2}, proxy to one replica {:.2}",
        rates[2] / rates[1],
        rates[2] / rates[0],
        rates[1] / rates[0]
    );
    proxy.leave();
    Ok(())
}

fn command(to: &str, what: &str) -> String {
    format!(
        "sysbench oltp_point_select --db-driver=mysql --db-ps-mode=disable --tables=1 --table-size=1000 --threads=4 \
         --mysql-user={} --mysql-password={} --mysql-db=sbtest --mysql-host={to} {what}",
        APP.0, APP.1
    )
}

/// The number behind some words of sysbench's report.
fn figure(report: &str, what: &str) -> Result<f64, Failed> {
    let line = report.lines().find_map(|line| line.trim().strip_prefix(what));
    let number = line.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
    number.ok_or_else(|| format!("no {what} in {report}").into())
}

/// Without IPVS the proxy's own listeners go on, and it is said.
pub(crate) fn without_ipvs(_: &Bed) -> Result<(), Failed> {
    let servers = Servers::get();
    hide(IPVS);
    let proxy = Proxy::start("d1", servers, &ALONE);
    proxy.until("unavailable");
    assert_eq!(proxy.metric("pointsman_vip_up", ""), Some(0.0));
    assert!(proxy.metric("pointsman_vip_errors_total", "").is_some_and(|count| count > 0.0));
    let check = proxy.command(&["vip", "check", "--config", "/run/d1.toml"]);
    let said = String::from_utf8_lossy(&check.stdout);
    assert!(!check.status.success() && said.contains("modprobe ip_vs"), "{said}");
    let replicas = servers.replicas().map(pointsman_integration_tests::sandbox::Server::id);
    eventually("reads through the proxy", START_LIMIT, || {
        inside("c", || log_in(([10, 0, 0, 11], RO).into()).is_ok_and(|server| replicas.contains(&server)))
    });
    show(IPVS);
    // It is tried again each 30 s.
    proxy.until("serving");
    proxy.leave();
    Ok(())
}

/// In the order in which they can be taken out.
const IPVS: &str = "ip_vs_rr ip_vs_wrr ip_vs_lc ip_vs_wlc ip_vs_sh ip_vs_mh ip_vs";
