//! On a real API server: the coordinator keeps its contract with the rights that the chart gives it, these reach nothing
//! else, the chart can be installed, and proxies that agree through it promote.
//!
//! Outside of `scripts/test`, because the API server is built from source once: `scripts/test api-server`.

#![allow(clippy::print_stdout, reason = "what was measured is part of the report")]

mod chart;
mod directors;
mod failover;
mod register;
mod rights;

use std::pin::Pin;
use std::sync::Arc;

use pointsman_integration_tests::sandbox::Options;
use pointsman_integration_tests::{Flavour, Outcome, Plan, Stage, Suite};

fn main() {
    let mut suite = Suite::new();
    let stage = suite.stage(Plan::new(Flavour::Mariadb));
    let mut add = |name: &str, test: fn() -> Running| suite.test(&stage, name, move |_| test());
    add("the contract of coordinators", || Box::pin(register::contract_holds()));
    add("a session runs out, and comes back", || Box::pin(register::sessions()));
    add("what others wrote on the Lease stays", || Box::pin(register::shared()));
    add("news is heard again after the API server was away", || Box::pin(register::comes_back()));
    add("the service account reaches its own Leases only", || Box::pin(rights::own_only()));
    add("a missing right is named", || Box::pin(rights::named_rights()));
    add("directors agree whose the virtual address is", || Box::pin(directors::agree()));
    add("the chart with Helm 3", || Box::pin(chart::life(3)));
    add("the chart with Helm 4", || Box::pin(chart::life(4)));
    let mut add = |name: &str, test: fn(Arc<Stage>) -> Running| {
        let sandbox = Options { replicas: 2, lossless: true, ..Options::default() };
        let stage = suite.stage(Plan { sandbox, configuration: String::new() });
        suite.test(&stage, name, test);
    };
    add("two proxies, the primary is killed", |stage| Box::pin(failover::primary_killed(stage)));
    add("the API server is killed, and comes back", |stage| Box::pin(failover::server_away(stage)));
    suite.run()
}

type Running = Pin<Box<dyn Future<Output = Outcome> + Send>>;
