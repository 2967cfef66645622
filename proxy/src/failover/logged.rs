//! What a server's binary logs hold, which is not always what the server says.
//!
//! MariaDB 10.11.19 with `init_rpl_role=SLAVE`: where a crash comes between the first transactions of a binary log and
//! its checkpoint event (which a log flush brings, within a second), the recovery reads the file before it, too, and
//! takes the state at the beginning of that one for the state now. All data is there, and so are the files; but
//! `gtid_binlog_state` and the position lack everything since. A server that replicated from there would be given its
//! own transactions again.

use std::collections::BTreeMap;

use tokio::time::Instant;

use crate::cluster::epoch::quote;
use crate::cluster::{ConnectionError, Record, ServiceConnection};

/// What the files of MariaDB's binary logs tell beside `gtid_binlog_state`, in its words.
#[derive(Debug, Default)]
pub(super) struct Forgotten {
    /// What files held at their end that the next one does not begin with. It goes beyond what the server says only after
    /// such a recovery.
    pub(super) ends: String,
    /// With what these files began, which names other writers, too.
    pub(super) lists: String,
    /// Up to there numbers have been used twice: it was written to when it had forgotten them.
    pub(super) counted_anew: Option<String>,
}

/// A file of a binary log.
#[derive(Debug)]
struct File {
    name: String,
    size: String,
    /// The list with which it begins.
    list: String,
    begins: Last,
    /// Its first transaction.
    first: Last,
}

/// Asks a server of MariaDB.
///
/// # Errors
///
/// The reason: the connection's, or that a file does not tell what it has to.
pub(super) async fn forgotten(
    connection: &mut ServiceConnection,
    deadline: Instant,
) -> Result<Forgotten, String> {
    let left = || deadline.saturating_duration_since(Instant::now());
    let rows = match connection.rows("SHOW BINARY LOGS", left()).await {
        Err(ConnectionError::Server { code: NO_BINARY_LOGS, .. }) => return Ok(Forgotten::default()),
        rows => rows.map_err(|error| error.to_string())?,
    };
    let named: Vec<_> = rows.iter().filter_map(|row| row.at(0).zip(row.at(1))).collect();
    let mut files = Vec::new();
    for (name, size) in named.into_iter().rev().take(RECENT_FILES).rev() {
        let sql = format!("SHOW BINLOG EVENTS IN {} LIMIT {FIRST_EVENTS}", quote(&name));
        let events = connection.rows(&sql, left()).await.map_err(|error| format!("{name}: {error}"))?;
        let list = list_of(&events).ok_or_else(|| format!("{name} has no list of GTIDs at its beginning"))?;
        let begins = last_by_writer(&list).map_err(|error| format!("{name}: {error}"))?;
        files.push(File { name, size, list, begins, first: first_of(&events) });
    }
    let mut forgotten = Forgotten::default();
    for (file, after) in not_gone_on(&files) {
        let sql = format!("SELECT BINLOG_GTID_POS({}, {})", quote(&file.name), file.size);
        let rows = connection.rows(&sql, left()).await.map_err(|error| format!("{}: {error}", file.name))?;
        // NULL: it could not be read, and may hold more than anybody says.
        let end = rows.first().and_then(|row| row.at(0));
        let end = end.ok_or_else(|| format!("BINLOG_GTID_POS does not tell where {} ends", file.name))?;
        let ends = last_by_writer(&end).map_err(|error| format!("{}: {error}", file.name))?;
        if counted_anew(&ends, after) {
            forgotten.counted_anew = Some(end.clone());
        }
        append(&mut forgotten.ends, &end);
        append(&mut forgotten.lists, &file.list);
    }
    Ok(forgotten)
}

/// The files whose end the next one may not know of, each with those after it.
fn not_gone_on(files: &[File]) -> impl Iterator<Item = (&File, &[File])> {
    (1..files.len()).map(|at| files.split_at(at)).filter_map(|(until, after)| {
        let (before, next) = (until.last()?, after.first()?);
        (!goes_on(&before.begins, &next.begins)).then_some((before, after))
    })
}

/// Whether something was logged after that end under a number that had been used before it. What a replica of another
/// server gets has higher ones.
fn counted_anew(ends: &Last, after: &[File]) -> bool {
    let Some(next) = after.first() else { return false };
    let is_new = |(writer, number): (&(u32, u32), &u64)| {
        ends.iter().any(|((domain, _), end)| *domain == writer.0 && number <= end)
            && next.begins.get(writer).is_none_or(|known| known < number)
    };
    after.iter().any(|file| file.first.iter().any(is_new) || file.begins.iter().any(is_new))
}

/// The first transaction of a file, if it is among the events that were asked for.
fn first_of(events: &[Record]) -> Last {
    let infos = events.iter().filter(|event| event.at(2).as_deref() == Some("Gtid")).filter_map(|e| e.at(5));
    let gtids = infos.filter_map(|info| Some(info.split_once("GTID ")?.1.split(' ').next()?.to_owned()));
    gtids.take(1).filter_map(|gtid| last_by_writer(&gtid).ok()).collect::<Vec<_>>().pop().unwrap_or_default()
}

/// The list with which a file begins: `[0-1-5,0-2-7]`.
fn list_of(events: &[Record]) -> Option<String> {
    let list = events.iter().find(|event| event.at(2).as_deref() == Some("Gtid_list"))?;
    Some(list.at(5)?.trim_matches(['[', ']']).to_owned())
}

pub(super) fn append(list: &mut String, more: &str) {
    if !list.is_empty() && !more.is_empty() {
        list.push(',');
    }
    list.push_str(more);
}

/// The last number of each domain and server.
pub(super) type Last = BTreeMap<(u32, u32), u64>;

/// Whether a file begins with all that the one before it began with, and more; else the end of that one is not known
/// to be in it.
fn goes_on(before: &Last, next: &Last) -> bool {
    before != next && before.iter().all(|(writer, last)| next.get(writer).is_some_and(|now| now >= last))
}

pub(super) fn last_by_writer(state: &str) -> Result<Last, String> {
    let parse = |element: &str| -> Option<((u32, u32), u64)> {
        let mut parts = element.splitn(3, '-');
        let domain = parts.next()?.parse().ok()?;
        let server = parts.next()?.parse().ok()?;
        Some(((domain, server), parts.next()?.parse().ok()?))
    };
    let mut last = Last::new();
    for element in state.split(',').map(str::trim).filter(|element| !element.is_empty()) {
        let (writer, number) = parse(element).ok_or_else(|| format!("expected a GTID, got \"{element}\""))?;
        let known = last.entry(writer).or_default();
        *known = number.max(*known);
    }
    Ok(last)
}

/// ER_NO_BINARY_LOGGING
const NO_BINARY_LOGS: u16 = 1381;
/// A crash is looked for in these: each start of a server makes one, and each promotion.
const RECENT_FILES: usize = 100;
/// The list is the second one, the third where the logs are encrypted; then come checkpoints, and the first transaction.
const FIRST_EVENTS: u32 = 8;

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str, list: &str, first: &str) -> File {
        File {
            name: name.to_owned(),
            size: "4".to_owned(),
            list: list.to_owned(),
            begins: last_by_writer(list).unwrap(),
            first: last_by_writer(first).unwrap(),
        }
    }

    #[test]
    fn a_file_that_does_not_go_on_is_found() {
        let check = |before: &str, next: &str, expected: bool| {
            let last = |text| last_by_writer(text).unwrap();
            assert_eq!(goes_on(&last(before), &last(next)), expected, "{before} then {next}");
        };
        check("", "0-1-5", true);
        check("0-1-5", "0-1-5,0-2-6", true);
        check("0-1-5,0-2-6", "0-1-9,0-2-6", true);
        // As seen after a crash: what the file before the crashed one began with.
        check("0-2-13812,0-3-19240,0-1-22573", "0-3-5474,0-1-12307,0-2-13810", false);
        check("0-2-22", "", false);
        // Nothing was logged between the two, or it was forgotten.
        check("0-1-5", "0-1-5", false);
        check("", "", false);
    }

    #[test]
    fn the_file_before_the_gap_is_asked() {
        let check = |lists: &[&str], expected: &[&str]| {
            let files = lists.iter().enumerate().map(|(at, list)| file(&format!("b.{at}"), list, ""));
            let files: Vec<_> = files.collect();
            let asked: Vec<_> = not_gone_on(&files).map(|(file, _)| file.name.as_str()).collect();
            assert_eq!(asked, expected, "{lists:?}");
        };
        check(&[], &[]);
        check(&["0-1-5"], &[]);
        check(&["", "0-1-5", "0-1-9,1-1-3", "0-1-9,1-1-4,0-2-10"], &[]);
        check(&["", "0-1-5", ""], &["b.1"]);
        check(&["0-2-3", "0-2-3,0-1-5", "0-2-3", "0-2-9"], &["b.1"]);
    }

    #[test]
    fn what_is_written_after_it_was_forgotten_is_found() {
        // Of each file: with what it begins, and its first transaction.
        let check = |end: &str, files: &[(&str, &str)], expected: bool| {
            let files: Vec<_> = files.iter().map(|(list, first)| file("b.1", list, first)).collect();
            let end = last_by_writer(end).unwrap();
            assert_eq!(counted_anew(&end, &files), expected, "{end:?} then {files:?}");
        };
        // Nothing came after it.
        check("0-1-20", &[("0-1-5", "")], false);
        check("0-1-20", &[("", ""), ("", "")], false);
        // It wrote by itself, may have passed the end since, or have forgotten that, too.
        check("0-1-20", &[("0-1-5", "0-1-6")], true);
        check("0-1-20", &[("0-1-5", ""), ("0-1-5", "0-1-6"), ("0-1-40", "")], true);
        check("0-1-20", &[("", "0-1-1")], true);
        check("0-1-20", &[("0-1-5", "1-1-1"), ("0-1-9,1-1-1", "")], true);
        // It rejoined, got back what it had written and lost, and was promoted later.
        check("0-1-20", &[("0-1-5", "0-2-21"), ("0-1-5,0-2-21", "0-1-22")], false);
        check("0-1-20", &[("0-1-5", "0-1-21"), ("0-1-23,0-2-30", "0-2-31")], false);
        // It had not forgotten anything: nothing was logged in that file.
        check("0-1-5", &[("0-1-5", "0-1-6"), ("0-1-9", "0-1-10")], false);
        // Another domain goes on by itself.
        check("0-1-20,1-1-3", &[("0-1-5,1-1-3", "1-1-4"), ("0-1-5,1-1-9", "0-2-21")], false);
    }

    #[test]
    fn the_higher_number_counts() {
        assert_eq!(
            last_by_writer("0-1-5, 0-2-7,0-1-9,0-1-3").unwrap(),
            Last::from([((0, 1), 9), ((0, 2), 7)])
        );
        assert!(last_by_writer("0-1-5,0-1-x").is_err());
    }
}
