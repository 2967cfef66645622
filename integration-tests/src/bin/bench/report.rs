//! The tables and ratios at the end.

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::connections::{Crowd, Held};
use crate::crowded::{Crowded, SERVER_CONNECTIONS};
use crate::sysbench::{Cell, Measured};
use crate::target::Kind;

#[derive(Default)]
pub(crate) struct Report {
    cells: BTreeMap<Cell, BTreeMap<Kind, Vec<Measured>>>,
    crowds: BTreeMap<usize, Vec<Crowded>>,
    idle: BTreeMap<Crowd, BTreeMap<Kind, Held>>,
}

impl Report {
    pub(crate) fn add(&mut self, cell: &Cell, kind: Kind, measured: Measured) {
        self.cells.entry(cell.clone()).or_default().entry(kind).or_default().push(measured);
    }

    pub(crate) fn add_crowd(&mut self, crowd: Crowded) {
        self.crowds.entry(crowd.clients).or_default().push(crowd);
    }

    pub(crate) fn add_idle(&mut self, crowd: Crowd, kind: Kind, held: Held) {
        self.idle.entry(crowd).or_default().insert(kind, held);
    }

    /// Markdown tables of medians, then Pointsman against the others.
    pub(crate) fn markdown(&self) -> String {
        let mut text = String::from(
            "\n| load | way | queries/s | p95 ms | p99 ms | proxy CPU us/query | errors |\n|---|---|---:|---:|---:|---:|---:|\n",
        );
        for (cell, kinds) in &self.cells {
            for (kind, rounds) in kinds {
                let micros = micros(rounds).map_or_else(|| "-".to_owned(), |micros| format!("{micros:.1}"));
                let errors: u64 = rounds.iter().map(|round| round.errors).sum();
                let _ = writeln!(
                    text,
                    "| {cell} | {kind} | {:.0} | {:.2} | {:.2} | {micros} | {errors} |",
                    throughput(rounds),
                    median(rounds.iter().map(|round| round.p95_ms)),
                    median(rounds.iter().map(|round| round.p99_ms)),
                );
            }
        }
        self.crowd_table(&mut text);
        self.idle_table(&mut text);
        self.ratios(&mut text);
        text
    }

    fn crowd_table(&self, text: &mut String) {
        let _ = writeln!(
            text,
            "\n| clients on {SERVER_CONNECTIONS} server connections | queries/s | p99 ms | queries per CPU second of proxy \
             and servers | errors |\n|---:|---:|---:|---:|---:|"
        );
        for (clients, rounds) in &self.crowds {
            let errors: u64 = rounds.iter().map(|round| round.measured.errors).sum();
            let _ = writeln!(
                text,
                "| {clients} | {:.0} | {:.2} | {:.0} | {errors} |",
                median(rounds.iter().map(|round| round.measured.queries_per_second)),
                median(rounds.iter().map(|round| round.measured.p99_ms)),
                median(rounds.iter().map(|round| round.queries_per_cpu_second)),
            );
        }
    }

    fn idle_table(&self, text: &mut String) {
        text.push_str("\n| idle clients | way | KiB each | MiB in all |\n|---:|---|---:|---:|\n");
        for (crowd, kinds) in &self.idle {
            for (kind, held) in kinds {
                let _ = writeln!(
                    text,
                    "| {crowd} | {kind} | {:.1} | {} |",
                    held.kib_per_client,
                    held.total_kib / 1024
                );
            }
        }
    }

    fn ratios(&self, text: &mut String) {
        text.push_str("\n| load | Pointsman against | throughput | CPU per query |\n|---|---|---:|---:|\n");
        for (cell, kinds) in &self.cells {
            let Some(ours) = kinds.get(&Kind::Pointsman) else { continue };
            for (kind, theirs) in kinds.iter().filter(|(kind, _)| **kind != Kind::Pointsman) {
                let cpu = micros(ours)
                    .zip(micros(theirs))
                    .map_or_else(|| "-".to_owned(), |(ours, theirs)| format!("{:.2}", ours / theirs));
                let speed = throughput(ours) / throughput(theirs);
                let _ = writeln!(text, "| {cell} | {kind} | {speed:.2} | {cpu} |");
            }
        }
    }
}

fn throughput(rounds: &[Measured]) -> f64 {
    median(rounds.iter().map(|round| round.queries_per_second))
}

fn micros(rounds: &[Measured]) -> Option<f64> {
    let figures: Option<Vec<f64>> = rounds.iter().map(|round| round.micros_per_query).collect();
    figures.map(|figures| median(figures.into_iter()))
}

fn median(figures: impl Iterator<Item = f64>) -> f64 {
    let mut figures: Vec<f64> = figures.collect();
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
}
