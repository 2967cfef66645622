//! The primary is killed again and again under reads and writes through two proxies, and no replica acknowledges.

use std::env;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use pointsman_integration_tests::sandbox::Server;
use pointsman_integration_tests::{Failure, Fleet, Load, Outcome, PATIENT, Stage, Toll, Traffic, eventually};
use tokio::time::Instant;

use crate::asynchronous::LACKS;
use crate::{LIMIT, TWO};

pub(crate) async fn in_a_row(stage: Arc<Stage>) -> Outcome {
    let sandbox = stage.sandbox().await?;
    let tables = format!("{PATIENT}[failover]\nmin_interval = \"0s\"\nmax_per_hour = 0\n");
    let fleet = Fleet::start(sandbox.clone(), TWO, &tables).await?;
    let load = Load { readers: 4, writers: 2, transactions: 2, pace: Duration::from_millis(4) };
    let traffic = Traffic::start_through(&fleet.options(), load).await?;
    let kills = env::var("POINTSMAN_KILLS").map_or(Ok(DEFAULT_KILLS), |kills| kills.parse())?;
    let began = Instant::now();
    let (mut replaced, mut anew) = (0, 0);
    for kill in 1..=kills {
        traffic.goes_on().await;
        let primary = fleet.primary()?;
        primary.kill().await?;
        replaced += usize::from(is_replaced_or_waited_for(&fleet, &primary).await);
        primary.start().await?;
        traffic.goes_on().await;
        anew += usize::from(comes_back(&fleet, &traffic, &primary).await?);
        println!("kill {kill} of {kills}: {:?}", traffic.tally());
    }
    // With nothing on the primary alone another one has to take its place.
    let at_rest = traffic.pause().await;
    let primary = fleet.primary()?;
    let position = primary.position().await?;
    for replica in sandbox.servers().iter().filter(|server| server.name() != primary.name()) {
        replica.reach(&position, LIMIT).await?;
    }
    primary.kill().await?;
    eventually("another primary: all have everything", LIMIT, async || is_replaced(&fleet, &primary)).await;
    drop(at_rest);
    traffic.goes_on().await;

    let _at_rest = traffic.pause().await;
    let toll = Toll::of(&traffic, began, &*fleet.primary()?).await?;
    let tally = traffic.tally();
    println!(
        "{kills} kills, {replaced} replaced and the others waited for, {anew} set up anew: {} rows acknowledged, {} \
         lost, {} unknown, {} reads, {} failed",
        toll.acknowledged,
        toll.lost.len(),
        toll.failed.len(),
        tally.reads,
        tally.failed_reads
    );
    assert!(toll.lost.is_empty(), "lost {:?}", toll.lost);
    assert_eq!(tally.failed_reads, 0, "{:?}", traffic.read_errors());
    assert!(toll.failed.len() <= kills * traffic.writers(), "{:?}", toll.failed);
    assert_eq!(toll.not_unknown().next(), None);
    Ok(())
}

/// Whether another server has taken the place of a dead primary; else it is said what only the dead one has.
async fn is_replaced_or_waited_for(fleet: &Fleet, dead: &Server) -> bool {
    eventually("another primary, or it is said what only the dead one has", LIMIT, async || {
        is_replaced(fleet, dead) || waits_for_the_dead(fleet).await
    })
    .await;
    is_replaced(fleet, dead)
}

fn is_replaced(fleet: &Fleet, dead: &Server) -> bool {
    fleet.primary().is_ok_and(|now| now.name() != dead.name())
}

async fn waits_for_the_dead(fleet: &Fleet) -> bool {
    for member in &fleet.members {
        let status = member.proxy.status().await.unwrap_or_default();
        if status["failover"]["held"].as_str().is_some_and(|reason| reason.contains(LACKS)) {
            return true;
        }
    }
    false
}

/// Waits until a server is in its place; whether it had to be set up anew.
async fn comes_back(fleet: &Fleet, traffic: &Traffic, server: &Server) -> Result<bool, Failure> {
    let proxy = &fleet.members[0].proxy;
    let kept_out = AtomicBool::new(false);
    eventually("it replicates again or has its place again, or is kept out", LIMIT, async || {
        kept_out.store(proxy.keeps_out(server).await, Ordering::Relaxed);
        kept_out.load(Ordering::Relaxed) || in_place(fleet).await
    })
    .await;
    if !kept_out.into_inner() {
        return Ok(false);
    }
    // It had what no client was told and no replica received: it must not come back as it is.
    // A small machine writes faster than it catches up.
    let _at_rest = traffic.pause().await;
    proxy.set_up_anew(&fleet.sandbox, server).await?;
    eventually("the one that was set up anew replicates", LIMIT, async || in_place(fleet).await).await;
    Ok(true)
}

/// Whether all proxies see one primary, and all other servers online.
async fn in_place(fleet: &Fleet) -> bool {
    for member in &fleet.members {
        let status = member.proxy.status().await.unwrap_or_default();
        let servers = status["servers"].as_array().map(Vec::as_slice).unwrap_or_default();
        let all_online = servers.iter().all(|server| server["state"] == "online");
        if !all_online || status["failover"]["phase"] != "STABLE" || status["primary"].is_null() {
            return false;
        }
    }
    true
}

const DEFAULT_KILLS: usize = 3;
