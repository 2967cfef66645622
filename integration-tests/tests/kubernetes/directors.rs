//! Whose the virtual address is, decided through a Lease, with the rights that the chart gives to directors.

use std::sync::Arc;
use std::time::Duration;

use pointsman::failover::coordinator::{Coordinator, Kubernetes};
use pointsman_integration_tests::Outcome;
use pointsman_integration_tests::directors::{Directors, LEASE};

use crate::chart::with_directors;

pub(crate) async fn agree() -> Outcome {
    let (_server, release) = with_directors().await?;
    let mut registers = Vec::new();
    for name in ["director-1", "director-2", "director-3"] {
        let register = Kubernetes::of_address(&release.coordination(), "shop", name).await?;
        registers.push((name.to_owned(), Arc::new(register) as Arc<dyn Coordinator>));
    }
    let directors = Directors::start(registers);
    let first = directors.owner().await;
    let answer = first.give_away().await?;
    let (second, _) = directors.next(first).await;
    assert_eq!(answer, Ok(second.name.clone()));
    second.kill();
    let (third, took) = directors.next(second).await;
    println!("another owner after {} ms, the lease is {} ms", took.as_millis(), LEASE.as_millis());
    assert!(took < LEASE + Duration::from_secs(1), "{took:?}");
    third.leave().await?;
    let (_, took) = directors.next(third).await;
    assert!(took < LEASE / 2, "{took:?}");
    directors.end()
}
