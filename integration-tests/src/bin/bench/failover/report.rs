//! The tables at the end.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;

use pointsman_integration_tests::{Failure, Flavour};

use super::case::{Case, Run};
use super::figures::Figures;

pub(crate) struct Report {
    flavour: Flavour,
    cases: BTreeMap<Case, Vec<Run>>,
    sizes: BTreeMap<usize, Vec<Run>>,
    environment: String,
    acknowledged: usize,
    lost: usize,
}

impl Report {
    pub(crate) fn new(flavour: Flavour) -> Self {
        Self {
            flavour,
            cases: BTreeMap::new(),
            sizes: BTreeMap::new(),
            environment: String::new(),
            acknowledged: 0,
            lost: 0,
        }
    }

    pub(crate) fn add(&mut self, case: Case, run: Run) {
        self.cases.entry(case).or_default().push(run);
    }

    pub(crate) fn add_size(&mut self, replicas: usize, run: Run) {
        self.sizes.entry(replicas).or_default().push(run);
    }

    /// Of one stage, at its end.
    pub(crate) fn total(&mut self, (acknowledged, lost): (usize, usize)) {
        self.acknowledged += acknowledged;
        self.lost += lost;
    }

    /// What the figures were measured on.
    pub(crate) fn environment(&mut self, version: &str) {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
        let processors = std::thread::available_parallelism().map_or(0, usize::from);
        let model = read("/proc/cpuinfo");
        let model = model.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        self.environment = format!(
            "{:?} {version}; {processors} processors ({}), Linux {}, load average at the start {}",
            self.flavour,
            model.map_or("unknown", |(_, model)| model),
            read("/proc/sys/kernel/osrelease"),
            read("/proc/loadavg")
        );
    }

    pub(crate) fn markdown(&self) -> String {
        let mut text = format!("\n{}\n", self.environment);
        self.case_table(&mut text);
        self.phase_table(&mut text);
        self.size_table(&mut text);
        let _ = writeln!(
            text,
            "\n{} rows acknowledged in all, {} of them missing at the end.",
            self.acknowledged, self.lost
        );
        text
    }

    fn case_table(&self, text: &mut String) {
        text.push_str(
            "\n| case | runs | min ms | median ms | max ms | rows acknowledged | lost | writes with unknown outcome | \
             other errors | failed reads |\n|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|\n",
        );
        for (case, runs) in &self.cases {
            let _ = writeln!(text, "| {case} {}", row(runs));
        }
    }

    /// Medians and maxima of when each phase was over.
    fn phase_table(&self, text: &mut String) {
        text.push_str(
            "\n| case | phase is over after | min ms | median ms | max ms |\n|---|---|---:|---:|---:|\n",
        );
        for (case, runs) in &self.cases {
            for phase in PHASES {
                let all = runs.iter().flat_map(|run| &run.phases).filter(|(name, _)| *name == phase);
                if let Some(figures) = Figures::of(all.map(|(_, at)| *at)) {
                    let _ = writeln!(text, "| {case} | {phase} | {figures} |");
                }
            }
        }
    }

    fn size_table(&self, text: &mut String) {
        if self.sizes.is_empty() {
            return;
        }
        text.push_str(
            "\n| replicas | runs | min ms | median ms | max ms | rows acknowledged | lost | writes with unknown outcome | \
             other errors | failed reads |\n|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|\n",
        );
        for (replicas, runs) in &self.sizes {
            let _ = writeln!(text, "| {replicas} {}", row(runs));
        }
        let median = |runs: &Vec<Run>| Figures::of(runs.iter().map(|run| run.time)).map(|all| all.median);
        let (few, many) = (self.sizes.first_key_value(), self.sizes.last_key_value());
        if let (Some((few, of_few)), Some((many, of_many))) = (few, many)
            && let (Some(of_few), Some(of_many)) = (median(of_few), median(of_many))
        {
            let _ = writeln!(
                text,
                "\nRatio of the medians, {many} replicas against {few}: {:.2}",
                of_many / of_few
            );
        }
    }

    /// An error when a promise was broken.
    pub(crate) fn verdict(&self) -> Result<(), Failure> {
        let runs = || self.cases.values().chain(self.sizes.values()).flatten();
        let lost = self.lost + runs().map(|run| run.lost).sum::<usize>();
        let wrong: usize = runs().map(|run| run.wrong).sum();
        let failed_reads: u64 = runs().map(|run| run.failed_reads).sum();
        let planned = self.cases.get(&Case::Switchover).into_iter().flatten();
        let failed: usize = planned.map(|run| run.failed).sum();
        if lost + wrong + failed == 0 && failed_reads == 0 {
            return Ok(());
        }
        Err(format!(
            "{lost} rows lost, {wrong} errors that are not \"unknown\", {failed} errors in switchovers, {failed_reads} \
             failed reads"
        )
        .into())
    }
}

fn row(runs: &[Run]) -> String {
    let figures = Figures::of(runs.iter().map(|run| run.time));
    let sum = |count: fn(&Run) -> usize| runs.iter().map(count).sum::<usize>();
    format!(
        "| {} | {} | {} | {} | {} | {} | {} |",
        runs.len(),
        figures.map_or_else(|| "- | - | -".to_owned(), |figures| figures.to_string()),
        sum(|run| run.acknowledged),
        sum(|run| run.lost),
        sum(|run| run.failed - run.wrong),
        sum(|run| run.wrong),
        runs.iter().map(|run| run.failed_reads).sum::<u64>()
    )
}

const PHASES: [&str; 9] =
    ["detected", "claimed", "fenced", "stopped", "chosen", "promoted", "proven", "recorded", "writable"];
