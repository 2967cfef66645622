//! What commands print: tables for people, JSON and YAML for programs.

use std::io::{self, BufRead, IsTerminal, Write};

use clap::ValueEnum;
use serde_json::Value;

use super::exit::Failure;

/// The form of what a command prints.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// Aligned columns, for people.
    #[default]
    Table,
    Json,
    Yaml,
}

impl Format {
    /// Prints `value`, or as a table what `table` makes of it.
    ///
    /// # Errors
    ///
    /// When standard output cannot be written to; a reader that has gone away is none.
    pub(super) fn print(self, value: &Value, table: impl FnOnce() -> String) -> Result<(), Failure> {
        let text = match self {
            Self::Table => table(),
            Self::Json => serde_json::to_string_pretty(value).map_err(io::Error::other)?,
            Self::Yaml => serde_norway::to_string(value).map_err(io::Error::other)?,
        };
        print(text.trim_end_matches('\n'))
    }
}

/// `1 warning`, `2 warnings`.
pub(super) fn counted(count: usize, noun: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {noun}{plural}")
}

/// Prints a text and a line end.
///
/// # Errors
///
/// When standard output cannot be written to; a reader that has gone away is none.
pub(super) fn print(text: &str) -> Result<(), Failure> {
    forgive_closed_pipe(write_line(io::stdout().lock(), text))
}

/// Prints a message beside the result, on standard error.
pub(super) fn note(text: &str) {
    // There is nowhere to say that standard error is gone.
    drop(write_line(io::stderr().lock(), text));
}

/// Asks on standard error whether to go on.
///
/// # Errors
///
/// [`Failure`] where the answer is not yes, or where nobody can be asked.
pub(super) fn confirm(question: &str) -> Result<(), Failure> {
    if !io::stdin().is_terminal() {
        return Err(Failure::usage("a change needs a confirmation: give --yes where nobody can be asked"));
    }
    note(&format!("{question} [y/N]"));
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    match answer.trim() {
        "y" | "Y" | "yes" => Ok(()),
        _ => Err(Failure::usage("not confirmed; nothing was changed")),
    }
}

/// As [`print()`] for bytes that are written as they are.
///
/// # Errors
///
/// As [`print()`].
pub(super) fn print_bytes(bytes: &[u8]) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    forgive_closed_pipe(stdout.write_all(bytes).and_then(|()| stdout.flush()))
}

fn write_line(mut to: impl Write, text: &str) -> io::Result<()> {
    to.write_all(text.as_bytes())?;
    to.write_all(b"\n")?;
    to.flush()
}

/// `pointsman status | head -1` is a success.
fn forgive_closed_pipe(outcome: io::Result<()>) -> Result<(), Failure> {
    match outcome {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        outcome => Ok(outcome?),
    }
}

/// Rows as aligned columns, the first of which are the headings.
#[derive(Debug)]
pub(super) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(super) fn new(headings: &[&str]) -> Self {
        Self { rows: vec![headings.iter().map(|&heading| heading.to_owned()).collect()] }
    }

    pub(super) fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    /// The table as text, each line with its end.
    pub(super) fn render(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or_default();
        let width = |column: usize| {
            self.rows
                .iter()
                .filter_map(|row| row.get(column))
                .map(|cell| cell.chars().count())
                .max()
                .unwrap_or(0)
        };
        let widths: Vec<_> = (0..columns).map(width).collect();
        let mut text = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                let padding = width.saturating_sub(cell.chars().count()) + COLUMN_GAP;
                line.push_str(cell);
                line.extend(std::iter::repeat_n(' ', padding));
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

const COLUMN_GAP: usize = 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_align() {
        let mut table = Table::new(&["SERVER", "LAG"]);
        table.row(vec!["db-1".into(), "-".into()]);
        table.row(vec!["größer-2".into(), "12ms".into()]);
        assert_eq!(table.render(), "SERVER    LAG\ndb-1      -\ngrößer-2  12ms\n");
    }
}
