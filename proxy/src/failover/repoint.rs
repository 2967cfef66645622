//! Makes a server follow another one.

use std::time::Duration;

use pointsman_router::discover::{Receiver, Report};
use pointsman_router::gtid::GtidSet;
use pointsman_router::intent::Flavour;
use pointsman_router::topology::ServerId;
use tokio::time::Instant;

use super::logged::{Forgotten, append, forgotten, last_by_writer};
use super::steps::{StepFailure, Work};
use super::words::{self, Login, SemiSyncRole, Source};
use crate::cluster::connection::split_address;
use crate::cluster::{Record, ServiceConnection};

/// Stops, points and starts the server; nothing is done where all is as it should be.
pub(super) async fn repoint(work: &mut Work<'_>, source: ServerId, acker: bool) -> Result<(), StepFailure> {
    let flavour = work.flavour();
    let address = work.realm.address(source);
    let (host, port) = split_address(&address)
        .ok_or_else(|| StepFailure::refused(format!("expected host:port as address, got \"{address}\"")))?;
    work.subject.forget();
    let report = work.report().await?;
    if report.channels().len() > 1 {
        return Err(work.stopped("replicates over several channels"));
    }
    let role = if acker { SemiSyncRole::Acker } else { SemiSyncRole::None };
    if follows(&report, &host, port) && report.semi_sync.replica == acker && !report.semi_sync.source {
        return Ok(());
    }
    if points_to(&report, &host, port) && report.channels().iter().all(|channel| channel.applies) {
        // The applier goes on: one that starts anew has to prove again that it has lost nothing.
        work.stop_receiver(report.channels()).await?;
        work.take_role(role).await?;
        return work.change(words::start_receiver(flavour)).await;
    }
    if !report.replicates() {
        return begin(work, source, &report, (&host, port), acker).await;
    }
    work.stop_receiver(report.channels()).await?;
    work.free_applier(&report).await?;
    let mut statements = vec![words::stop_replication(flavour).to_owned()];
    match role {
        SemiSyncRole::None => {
            work.change_all(&statements).await?;
            statements.clear();
            work.take_role(role).await?;
        }
        SemiSyncRole::Acker | SemiSyncRole::Source { .. } => {
            statements.extend(words::take_role(flavour, role))
        }
    }
    if !points_to(&report, &host, port) {
        statements.push(change_source(flavour, &report, (&host, port), None));
    }
    statements.push(words::start_replication(flavour).to_owned());
    work.change_all(&statements).await
}

/// Makes a replica of a server that is none.
async fn begin(
    work: &mut Work<'_>,
    source: ServerId,
    report: &Report,
    place: (&str, u16),
    acker: bool,
) -> Result<(), StepFailure> {
    let flavour = work.flavour();
    let forgotten = compare_logs(work, source, report, acker).await?;
    work.change(words::read_only(flavour)).await?;
    let position = position(report, &forgotten).map_err(|reason| work.stopped(reason))?;
    if let Some(sql) = words::continue_from(flavour, &position) {
        work.change(&sql).await?;
    }
    work.take_role(if acker { SemiSyncRole::Acker } else { SemiSyncRole::None }).await?;
    let login = Login {
        user: &work.realm.replication_user,
        password: &work.realm.replication_password,
        tls: work.realm.replication_tls,
    };
    let sql = change_source(flavour, report, place, Some(login));
    work.change(&sql).await?;
    work.change(words::start_replication(flavour)).await
}

/// Where a server goes on that has not replicated before.
fn position(report: &Report, forgotten: &Forgotten) -> Result<GtidSet, String> {
    let mut position = report.executed.clone();
    position.merge_text(report.flavour, forgotten.ends.as_bytes()).map_err(|error| error.to_string())?;
    if position != report.executed {
        tracing::warn!(
            said = %report.executed,
            holds = %position,
            "a recovery has forgotten what the binary log holds; replication goes on behind that"
        );
    }
    Ok(position)
}

fn change_source(
    flavour: Flavour,
    report: &Report,
    (host, port): (&str, u16),
    login: Option<Login<'_>>,
) -> String {
    let channel = report.channels().first();
    let source = Source {
        host,
        port,
        login,
        heartbeat: channel.and_then(|channel| channel.pulse).map_or(HEARTBEAT, |pulse| pulse.period),
        channel: channel.map_or("", |channel| channel.name.as_str()),
    };
    words::change_source(flavour, &source)
}

fn points_to(report: &Report, host: &str, port: u16) -> bool {
    let same = |name: &str| name.eq_ignore_ascii_case(host);
    report.channels().iter().any(|channel| same(&channel.source_host) && channel.source_port == port)
}

fn follows(report: &Report, host: &str, port: u16) -> bool {
    let runs =
        report.channels().iter().all(|channel| channel.receiver != Receiver::Stopped && channel.applies);
    points_to(report, host, port) && runs
}

/// A server that has been a primary may hold what its successor does not; MySQL would replicate all the same. And it may
/// lack what it wrote and lost again in its crash: replicas pass over what carries their own number.
async fn compare_logs(
    work: &mut Work<'_>,
    source: ServerId,
    report: &Report,
    acker: bool,
) -> Result<Forgotten, StepFailure> {
    let (flavour, deadline) = (work.flavour(), work.deadline);
    let asked = logged(&mut work.subject.connection, flavour, deadline).await;
    let (own, forgotten) =
        asked.map_err(|reason| StepFailure::refused(format!("what it holds is not known: {reason}")))?;
    if let Some(end) = &forgotten.counted_anew {
        return Err(StepFailure::refused(format!(
            "it was written to after a crash that had made it forget that it had come to {end}: numbers up to there are \
             used twice"
        )));
    }
    let address = work.realm.address(source);
    let name = work.realm.name(source);
    let failed = |reason| StepFailure::refused(format!("{name} cannot be compared with: {reason}"));
    let other = work.realm.account.connect(&address, work.left()).await;
    let mut other = other.map_err(|error| failed(error.to_string()))?;
    // It may have forgotten, too.
    let (theirs, _) = logged(&mut other, flavour, deadline).await.map_err(failed)?;
    let errant = errant(flavour, &own, &theirs).map_err(StepFailure::refused)?;
    if !errant.is_empty() {
        return Err(StepFailure::refused(format!("holds transactions that {name} does not have: {errant}")));
    }
    let lacking = lacking_own(flavour, &own, &theirs, report).map_err(StepFailure::refused)?;
    if lacking.is_empty() {
        return Ok(forgotten);
    }
    let gets_them_back = flavour == Flavour::Mariadb && is_strict(work).await?;
    if gets_them_back && acker {
        return Ok(forgotten);
    }
    let reason = format!("lacks transactions that it wrote itself and {name} has: {lacking}");
    Err(StepFailure { lacks_own: gets_them_back, ..StepFailure::refused(reason) })
}

/// Everything that a server's binary logs have ever held, in the words of either flavour, and what of that it has
/// forgotten.
async fn logged(
    connection: &mut ServiceConnection,
    flavour: Flavour,
    deadline: Instant,
) -> Result<(String, Forgotten), String> {
    let left = deadline.saturating_duration_since(Instant::now());
    let rows = connection.rows(words::logged(flavour), left).await.map_err(|error| error.to_string())?;
    let mut all = text(&rows);
    let forgotten = match flavour {
        Flavour::Mysql => Forgotten::default(),
        Flavour::Mariadb => forgotten(connection, deadline).await?,
    };
    append(&mut all, &forgotten.lists);
    append(&mut all, &forgotten.ends);
    Ok((all, forgotten))
}

/// Only so does MariaDB take what carries the server's own number (`do_accept_own_server_id` in `sql/slave.cc`).
async fn is_strict(work: &mut Work<'_>) -> Result<bool, StepFailure> {
    Ok(text(&work.ask("SELECT @@global.gtid_strict_mode").await?) == "1")
}

fn text(rows: &[Record]) -> String {
    rows.first().and_then(|row| row.at(0)).unwrap_or_default()
}

/// What one server has logged that the other has not.
///
/// MariaDB's numbers run on over all servers, so a number alone proves nothing: the state of the binary log names
/// the last one of each server.
pub(super) fn errant(flavour: Flavour, own: &str, theirs: &str) -> Result<String, String> {
    match flavour {
        Flavour::Mysql => {
            let parse = |text| GtidSet::parse(flavour, text).map_err(|error| error.to_string());
            Ok(parse(own)?.subtract(&parse(theirs)?).to_string())
        }
        Flavour::Mariadb => {
            let (own, theirs) = (last_by_writer(own)?, last_by_writer(theirs)?);
            let missing =
                own.into_iter().filter(|(writer, last)| theirs.get(writer).is_none_or(|known| known < last));
            let missing: Vec<_> =
                missing.map(|((domain, server), last)| format!("{domain}-{server}-{last}")).collect();
            Ok(missing.join(","))
        }
    }
}

/// What a server wrote, lost, and would not get back by ordinary replication.
fn lacking_own(flavour: Flavour, own: &str, theirs: &str, report: &Report) -> Result<String, String> {
    match flavour {
        Flavour::Mysql => {
            let parse = |text| GtidSet::parse(flavour, text).map_err(|error| error.to_string());
            let missing = parse(theirs)?.subtract(&parse(own)?);
            let is_own = missing.names_author(report.server_id, &report.uuid);
            Ok(if is_own { missing.to_string() } else { String::new() })
        }
        Flavour::Mariadb => {
            let (own, theirs) = (last_by_writer(own)?, last_by_writer(theirs)?);
            let written_here = theirs.into_iter().filter(|((_, server), _)| *server == report.server_id);
            let missing =
                written_here.filter(|(writer, last)| own.get(writer).is_none_or(|known| known < last));
            let missing: Vec<_> =
                missing.map(|((domain, server), last)| format!("{domain}-{server}-{last}")).collect();
            Ok(missing.join(","))
        }
    }
}

/// Of a server that has not replicated before.
const HEARTBEAT: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errant_transactions() {
        let check = |flavour, own: &str, theirs: &str, expected: &str| {
            assert_eq!(errant(flavour, own, theirs).as_deref(), Ok(expected), "{own} against {theirs}");
        };
        check(Flavour::Mariadb, "0-1-100", "0-1-100,0-2-110", "");
        // A tail that nobody received: the number alone would look old.
        check(Flavour::Mariadb, "0-1-105", "0-1-100,0-2-110", "0-1-105");
        check(Flavour::Mariadb, "0-1-100,0-3-7", "0-1-100,0-2-110", "0-3-7");
        check(Flavour::Mariadb, "", "0-1-100", "");
        let uuid = "3e11fa47-71ca-11e1-9e33-c80aa9429562";
        check(Flavour::Mysql, &format!("{uuid}:1-5"), &format!("{uuid}:1-9"), "");
        check(Flavour::Mysql, &format!("{uuid}:1-9"), &format!("{uuid}:1-5"), &format!("{uuid}:6-9"));
        assert!(errant(Flavour::Mariadb, "0-1-x", "").is_err());
    }

    #[test]
    fn own_transactions_that_are_gone() {
        let uuid = "3e11fa47-71ca-11e1-9e33-c80aa9429562";
        let report = Report { server_id: 1, uuid: uuid.into(), ..Report::default() };
        let check = |flavour, own: &str, theirs: &str, expected: &str| {
            let lacking = lacking_own(flavour, own, theirs, &report);
            assert_eq!(lacking.as_deref(), Ok(expected), "{own} against {theirs}");
        };
        check(Flavour::Mariadb, "0-1-100", "0-1-100,0-2-110", "");
        check(Flavour::Mariadb, "0-1-100", "0-1-103,0-2-110", "0-1-103");
        check(Flavour::Mariadb, "", "0-1-3", "0-1-3");
        let theirs = format!("{uuid}:1-9,{}:1-3", uuid.replace('3', "4"));
        check(Flavour::Mysql, &format!("{uuid}:1-9"), &theirs, "");
        check(Flavour::Mysql, &format!("{uuid}:1-7"), &format!("{uuid}:1-9"), &format!("{uuid}:8-9"));
    }
}
