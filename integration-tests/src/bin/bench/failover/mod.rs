//! How long writes pause when the primary dies, freezes, or is replaced by plan, and whether anything is lost.
//!
//! One set of servers serves all runs: what was killed is started again and rejoins before the next run begins.

mod case;
mod figures;
mod report;
mod stage;

use clap::Args;
use pointsman_integration_tests::{Failure, Flavour, Load};
use std::time::Duration;

use self::case::{Case, Run};
use self::report::Report;
use self::stage::Stage;
use crate::say;

#[derive(Debug, Args)]
pub(crate) struct Settings {
    /// How often each case is run; by default 50 times on MariaDB and 20 times on MySQL
    #[arg(long)]
    runs: Option<usize>,
    /// Run the servers as MySQL instead of MariaDB
    #[arg(long)]
    mysql: bool,
    /// Only these cases: kill, freeze, switchover
    #[arg(long, value_delimiter = ',', default_value = "kill,freeze,switchover")]
    cases: Vec<Case>,
    /// Numbers of replicas to compare
    #[arg(long, value_delimiter = ',', default_values_t = [2, 16])]
    replicas: Vec<usize>,
    /// Tell every moment of runs that took longer than this, in milliseconds
    #[arg(long)]
    slow: Option<u128>,
    /// Kills for each number of replicas; 0 leaves the comparison out
    #[arg(long, default_value_t = 10)]
    kills: usize,
}

impl Settings {
    fn tell(&self, title: &str, run: &Run) {
        say(&format!("{title}: {run}"));
        if self.slow.is_some_and(|limit| run.time.as_millis() > limit) {
            say(&run.moments);
        }
    }
}

/// Prints the tables; an error when something was lost or did not come back.
pub(crate) async fn bench(settings: &Settings) -> Result<(), Failure> {
    let flavour = if settings.mysql { Flavour::Mysql } else { Flavour::Mariadb };
    let runs = settings.runs.unwrap_or(if settings.mysql { 20 } else { 50 });
    let mut report = Report::new(flavour);
    if runs > 0 && !settings.cases.is_empty() {
        let stage = Stage::start(flavour, 2, LOAD).await?;
        report.environment(&stage.version().await?);
        for case in &settings.cases {
            for number in 1..=runs {
                let run = case.run(&stage).await?;
                settings.tell(&format!("{case} {number}/{runs}"), &run);
                report.add(*case, run);
            }
        }
        report.total(stage.total().await?);
    }
    if settings.kills > 0 {
        for &replicas in &settings.replicas {
            let stage = Stage::start(flavour, replicas, SMALL_LOAD).await?;
            for number in 1..=settings.kills {
                let run = Case::Kill.run(&stage).await?;
                settings.tell(&format!("kill with {replicas} replicas {number}/{}", settings.kills), &run);
                report.add_size(replicas, run);
            }
            report.total(stage.total().await?);
        }
    }
    say(&report.markdown());
    report.verdict()
}

const LOAD: Load = Load { readers: 2, writers: 4, transactions: 0, pace: Duration::from_millis(2) };
/// So many servers on one machine have little to spare for clients.
const SMALL_LOAD: Load = Load { readers: 1, writers: 2, transactions: 0, pace: Duration::from_millis(20) };
