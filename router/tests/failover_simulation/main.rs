//! The failover controller against servers, proxies and a network that do what real ones do at their worst.
//!
//! Every schedule follows from its seed. `POINTSMAN_SCHEDULES` is how many are run, `POINTSMAN_SEED` replays one and
//! prints everything that happens in it.

#![allow(
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "a replay and the counters are there to be read"
)]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod check;
mod coordinator;
mod coverage;
mod execute;
mod proxy;
mod random;
mod replication;
mod scenario;
mod server;
mod trace;
mod world;

use std::io::Write;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use pointsman_router::failover::{Defect, Settings};

use crate::check::Violation;
use crate::random::Random;
use crate::scenario::Scenario;
use crate::world::World;

const SCHEDULES: u64 = 100_000;
const THREADS: u64 = 2;

static CHANGES: AtomicU64 = AtomicU64::new(0);
static GONE: AtomicU32 = AtomicU32::new(0);

fn run(seed: u64, base: &Settings, trace: bool) -> Result<(), Violation> {
    let mut random = Random::new(seed);
    let scenario = Scenario::random(&mut random, base);
    if trace {
        eprintln!("{scenario:?}");
    }
    let mut world = World::new(scenario, random);
    world.trace = trace;
    let result = world.run();
    CHANGES.fetch_add(u64::from(world.check.changes), Ordering::Relaxed);
    GONE.fetch_add(world.check.gone, Ordering::Relaxed);
    result
}

/// The first seed below `schedules` that ends badly, and how.
fn find(schedules: u64, base: &Settings) -> Option<(u64, Violation)> {
    let found: Mutex<Option<(u64, Violation)>> = Mutex::new(None);
    let next = AtomicU64::new(1);
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                while found.lock().unwrap().is_none() {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed > schedules {
                        return;
                    }
                    if let Err(violation) = run(seed, base, false) {
                        found.lock().unwrap().get_or_insert((seed, violation));
                    }
                }
            });
        }
    });
    found.into_inner().unwrap()
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name)
        .ok()
        .map(|text| text.parse().unwrap_or_else(|_| panic!("{name}: expected a number, got {text:?}")))
}

#[test]
fn no_schedule_loses_anything() {
    let base = Scenario::base_settings();
    if let Some(seed) = number("POINTSMAN_SEED") {
        if let Err(violation) = run(seed, &base, true) {
            panic!("seed {seed}: {}", violation.0);
        }
        return;
    }
    let schedules = number("POINTSMAN_SCHEDULES").unwrap_or(SCHEDULES);
    if let Some((seed, violation)) = find(schedules, &base) {
        panic!("POINTSMAN_SEED={seed} replays this: {}", violation.0);
    }
    let (table, never) = coverage::table();
    // Not through the macros, which a test that passes keeps to itself.
    let mut out = std::io::stderr();
    writeln!(out, "{table}").unwrap();
    writeln!(
        out,
        "{schedules} schedules, {} changes of the primary, {} rows of which crashes had destroyed every copy",
        CHANGES.load(Ordering::Relaxed),
        GONE.load(Ordering::Relaxed)
    )
    .unwrap();
    assert_eq!(never, 0, "some faults have not met some phases: see the table");
}

/// The mistakes that must be found, each within as many schedules as the true controller has to pass.
const DEFECTS: [Defect; 16] = [
    Defect::QuorumOneShort,
    Defect::ProveWithoutStopping,
    Defect::CountRestartedAcker,
    Defect::RestartedPrimaryStands,
    Defect::BelieveRestartedPrimary,
    Defect::PromoteUnapplied,
    Defect::StopReceiverFirst,
    Defect::StrayedStand,
    Defect::TrustWritablePrimary,
    Defect::IgnoreMarks,
    Defect::IgnoreLeases,
    Defect::OpenBeforeActive,
    Defect::KeepShortCandidate,
    Defect::CountUnlistedAcker,
    Defect::StalledStands,
    Defect::NeverTakeOver,
];

#[test]
fn every_defect_is_found() {
    let mut missed = Vec::new();
    for defect in DEFECTS {
        let mut base = Scenario::base_settings();
        base.defect = Some(defect);
        match find(SCHEDULES, &base) {
            Some((seed, violation)) => {
                let text: String = violation.0.chars().take(100).collect();
                writeln!(std::io::stderr(), "{defect:?}: seed {seed}: {text}").unwrap();
            }
            None => missed.push(defect),
        }
    }
    assert!(missed.is_empty(), "not found within {SCHEDULES} schedules: {missed:?}");
}
