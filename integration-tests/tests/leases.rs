//! Whose the virtual address is, decided through a real etcd.

#![allow(clippy::print_stdout, reason = "what was measured is part of the report")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use pointsman::failover::coordinator::{Coordinator, Etcd as Client};
use pointsman::vip::lease::Refused;
use pointsman_integration_tests::directors::{Directors, LEASE};
use pointsman_integration_tests::{Etcd, Failure, Flavour, Outcome, Plan, Rounds, Suite};
use tokio::time::sleep;

fn main() {
    let mut suite = Suite::new();
    let stage = suite.stage(Plan::new(Flavour::Mariadb));
    suite.test(&stage, "an owner that stands still: another one within lease and a second", |_| {
        stands_still()
    });
    suite.test(&stage, "moved as asked, and at the end of the process", |_| moved());
    suite.test(&stage, "moved although etcd stands still for a moment", |_| moved_late());
    suite.test(&stage, "only who can serve it has it", |_| able());
    suite.test(&stage, "without etcd the owner lets go", |_| without_etcd());
    suite.run()
}

async fn start(count: usize) -> Result<(Etcd, Directors), Failure> {
    let etcd = Etcd::start(1).await?;
    let mut registers = Vec::new();
    for number in 0..count {
        let name = format!("proxy-{number}");
        let client = Client::new(&etcd.endpoints(), "/pointsman", "shop/vip/10.0.0.1", &name, LEASE)?;
        registers.push((name, Arc::new(client) as Arc<dyn Coordinator>));
    }
    Ok((etcd, Directors::start(registers)))
}

async fn stands_still() -> Outcome {
    let mut rounds = Rounds::within(LEASE + Duration::from_secs(1));
    while rounds.go_on() {
        let (_etcd, directors) = start(3).await?;
        let owner = directors.owner().await;
        owner.kill();
        let (_next, took) = directors.next(owner).await;
        println!("another owner after {} ms, the lease is {} ms", took.as_millis(), LEASE.as_millis());
        rounds.took(took);
        directors.end()?;
    }
    rounds.outcome()
}

async fn moved() -> Outcome {
    let (_etcd, directors) = start(3).await?;
    let first = directors.owner().await;
    let standby = directors.all.iter().find(|one| one.name != first.name).ok_or("no other one")?;
    assert_eq!(standby.give_away().await?, Err(Refused::Elsewhere(first.name.clone())));
    let answer = first.give_away().await?;
    let (second, _) = directors.next(first).await;
    assert_eq!(answer, Ok(second.name.clone()));
    // Who leaves does not make the others wait for the end of its lease.
    second.leave().await?;
    let (_third, took) = directors.next(second).await;
    assert!(took < LEASE * 3 / 5, "{took:?}");
    directors.end()
}

/// Longer than one answer is waited for.
async fn moved_late() -> Outcome {
    let (etcd, directors) = start(2).await?;
    let first = directors.owner().await;
    etcd.signal(0, Signal::SIGSTOP).await?;
    let goes_on = async {
        sleep(Duration::from_millis(700)).await;
        etcd.signal(0, Signal::SIGCONT).await
    };
    let (answer, outcome) = tokio::join!(first.give_away(), goes_on);
    outcome?;
    let (second, _) = directors.next(first).await;
    assert_eq!(answer?, Ok(second.name.clone()));
    directors.end()
}

async fn able() -> Outcome {
    let (_etcd, directors) = start(2).await?;
    let owner = directors.owner().await;
    owner.enable(false);
    let (second, _) = directors.next(owner).await;
    second.enable(false);
    directors.nobody().await;
    owner.enable(true);
    assert_eq!(directors.owner().await.name, owner.name);
    directors.end()
}

async fn without_etcd() -> Outcome {
    let mut rounds = Rounds::within(LEASE + Duration::from_millis(100));
    while rounds.go_on() {
        let (etcd, directors) = start(2).await?;
        directors.owner().await;
        etcd.kill(0).await?;
        let began = Instant::now();
        directors.nobody().await;
        rounds.took(began.elapsed());
        directors.end()?;
    }
    rounds.outcome()
}
