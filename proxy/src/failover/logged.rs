//! What a server's binary logs hold, which is not always what the server says.
//!
//! MariaDB 10.11.19 with `init_rpl_role=SLAVE`: where a crash comes between the first transactions of a binary log and
//! its checkpoint event (which a log flush brings, within a second), the recovery reads the file before it, too, and
//! takes the state at the beginning of that one for the state now. All data is there, and so are the files; but
//! `gtid_binlog_state` and the position lack everything since. A server that replicated from there would be given its
//! own transactions again.

use std::collections::BTreeMap;
use std::time::Duration;

use pointsman_router::intent::Flavour;

use super::words;
use crate::cluster::epoch::quote;
use crate::cluster::{ConnectionError, Record, ServiceConnection};

/// In the words of `gtid_binlog_state`, or as a set of MySQL.
#[derive(Debug, Default)]
pub(super) struct Logged {
    /// Everything that the logs have ever held: for each domain and server the last number. Elements may come twice.
    pub(super) state: String,
    /// What files held at their end that the next one does not begin with: empty, but after such a recovery.
    pub(super) forgotten: String,
}

/// Asks a server.
///
/// # Errors
///
/// Those of the connection, and of a server that does not show its binary logs.
pub(super) async fn logged(
    connection: &mut ServiceConnection,
    flavour: Flavour,
    limit: Duration,
) -> Result<Logged, ConnectionError> {
    let state = first(&connection.rows(words::logged(flavour), limit).await?);
    let mut logged = Logged { state, forgotten: String::new() };
    if flavour == Flavour::Mysql {
        return Ok(logged);
    }
    let mut files = Vec::new();
    for row in connection.rows("SHOW BINARY LOGS", limit).await? {
        files.extend(row.at(0).zip(row.at(1)));
    }
    let files = files.split_off(files.len().saturating_sub(RECENT_FILES));
    let mut before: Option<(String, String, Last)> = None;
    for (file, size) in files {
        let events =
            connection.rows(&format!("SHOW BINLOG EVENTS IN {} LIMIT 2", quote(&file)), limit).await?;
        let list = list_of(&events);
        let begins = last_by_writer(&list).unwrap_or_default();
        if let Some((file, size, began)) = before
            && !goes_on(&began, &begins)
        {
            let sql = format!("SELECT BINLOG_GTID_POS({}, {size})", quote(&file));
            append(&mut logged.forgotten, &first(&connection.rows(&sql, limit).await?));
        }
        append(&mut logged.state, &list);
        before = Some((file, size, begins));
    }
    append(&mut logged.state, &logged.forgotten);
    Ok(logged)
}

/// The list with which a file begins: `[0-1-5,0-2-7]`.
fn list_of(events: &[Record]) -> String {
    let infos = events.iter().filter(|event| event.at(2).as_deref() == Some("Gtid_list"));
    let info = infos.filter_map(|event| event.at(5)).next().unwrap_or_default();
    info.trim_matches(['[', ']']).to_owned()
}

fn append(list: &mut String, more: &str) {
    if !list.is_empty() && !more.is_empty() {
        list.push(',');
    }
    list.push_str(more);
}

fn first(rows: &[Record]) -> String {
    rows.first().and_then(|row| row.at(0)).unwrap_or_default()
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

/// A crash is looked for in these, and a server is asked soon after it.
const RECENT_FILES: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

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
    fn the_higher_number_counts() {
        assert_eq!(
            last_by_writer("0-1-5, 0-2-7,0-1-9,0-1-3").unwrap(),
            Last::from([((0, 1), 9), ((0, 2), 7)])
        );
        assert!(last_by_writer("0-1-5,0-1-x").is_err());
    }
}
