//! Faults on real servers under load: what was acknowledged is on the new primary, one server acknowledges per epoch, and
//! nothing ends in an error but what was in flight.
//!
//! The numbers are those of the fault scenarios in docs/failover.md.

#![allow(clippy::print_stdout, reason = "what was measured is part of the report")]

mod applying;
mod choice;
mod disk;
mod limits;
mod planned;
mod proof;
mod returning;
mod scene;
mod unusable;

use std::pin::Pin;
use std::sync::Arc;

use pointsman_integration_tests::{FLAVOURS, Flavour, Outcome, Plan, Stage, Suite};

use crate::scene::lossless;

fn main() {
    let mut suite = Suite::new();
    for flavour in FLAVOURS {
        proof::add(&mut suite, flavour);
        choice::add(&mut suite, flavour);
        applying::add(&mut suite, flavour);
        returning::add(&mut suite, flavour);
        disk::add(&mut suite, flavour);
        unusable::add(&mut suite, flavour);
        limits::add(&mut suite, flavour);
        planned::add(&mut suite, flavour);
    }
    suite.run()
}

type Running = Pin<Box<dyn Future<Output = Outcome> + Send>>;
/// What a module adds: a name, servers, and what is done to them.
type Test = (&'static str, Plan, fn(Arc<Stage>) -> Running);

fn add_all(suite: &mut Suite, tests: Vec<Test>) {
    for (name, plan, test) in tests {
        suite.test_alone(plan, name, test);
    }
}

/// Servers of which none was started yet.
fn plain(name: &'static str, flavour: Flavour, test: fn(Arc<Stage>) -> Running) -> Test {
    (name, lossless(flavour), test)
}
