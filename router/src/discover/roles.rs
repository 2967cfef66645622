//! Who is the primary, and along which channel each replica hangs off it.

use std::collections::{BTreeMap, BTreeSet};

use super::observation::{Channel, Replication, Report};
use crate::topology::ServerId;

/// A server as role discovery sees it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen<'a> {
    pub(super) id: ServerId,
    pub(super) name: &'a str,
    /// `host:port` as configured.
    pub(super) address: &'a str,
    /// Answers, as far as is known.
    pub(super) up: bool,
    /// The last report, also of a server that is down now.
    pub(super) report: Option<&'a Report>,
    /// Why the server may not become the primary although it looks like one.
    pub(super) barred: Option<&'a str>,
}

/// The primary, or why there is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Primary {
    Is(ServerId),
    None {
        reason: String,
        /// Several servers accept writes: all of them must be left alone.
        rivals: Vec<ServerId>,
    },
}

/// Addresses by which replicas name their sources, learnt while their identity was seen.
///
/// A replica may know its source by another name than the configuration does, and forgets its identity when it
/// restarts while the source is away.
#[derive(Clone, Debug, Default)]
pub(super) struct Sources {
    by_address: BTreeMap<String, ServerId>,
}

impl Sources {
    /// Notes what the servers' reports say of each other.
    pub(super) fn learn(&mut self, servers: &[Seen<'_>]) {
        for channel in servers.iter().filter_map(|s| s.report).flat_map(Report::channels) {
            if let Some(id) = by_identity(channel, servers) {
                self.by_address.insert(channel.source().to_lowercase(), id);
            }
        }
    }

    /// Its address may become another server's.
    pub(super) fn forget(&mut self, server: ServerId) {
        self.by_address.retain(|_, id| *id != server);
    }

    /// The configured server that a channel replicates from.
    fn resolve(&self, channel: &Channel, servers: &[Seen<'_>]) -> Option<ServerId> {
        let address = channel.source().to_lowercase();
        by_identity(channel, servers)
            .or_else(|| self.by_address.get(&address).copied())
            .or_else(|| servers.iter().find(|s| s.address.to_lowercase() == address).map(|s| s.id))
    }

    fn follows_configured(&self, report: &Report, servers: &[Seen<'_>]) -> bool {
        report.channels().iter().any(|channel| self.resolve(channel, servers).is_some())
    }

    /// The channel of `server` that leads to `anchor`, directly or through other servers.
    pub(super) fn channel_to<'a>(
        &self,
        server: ServerId,
        anchor: ServerId,
        servers: &[Seen<'a>],
    ) -> Option<&'a Channel> {
        let report = servers.get(usize::from(server.0))?.report?;
        report.channels().iter().find(|channel| {
            let mut seen = BTreeSet::from([server]);
            self.resolve(channel, servers).is_some_and(|next| self.reaches(next, anchor, servers, &mut seen))
        })
    }

    fn reaches(
        &self,
        from: ServerId,
        anchor: ServerId,
        servers: &[Seen<'_>],
        seen: &mut BTreeSet<ServerId>,
    ) -> bool {
        if from == anchor {
            return true;
        }
        if !seen.insert(from) {
            return false;
        }
        let report = servers.get(usize::from(from.0)).and_then(|s| s.report);
        report.into_iter().flat_map(Report::channels).any(|channel| {
            self.resolve(channel, servers).is_some_and(|next| self.reaches(next, anchor, servers, seen))
        })
    }

    fn has_replica(&self, source: ServerId, servers: &[Seen<'_>]) -> bool {
        servers.iter().filter(|s| s.id != source).any(|s| self.channel_to(s.id, source, servers).is_some())
    }
}

/// The server with the identity that a channel last saw, if exactly one has it.
fn by_identity(channel: &Channel, servers: &[Seen<'_>]) -> Option<ServerId> {
    let same = |report: &Report| {
        if channel.source_uuid.is_empty() || report.uuid.is_empty() {
            channel.source_server_id != 0 && channel.source_server_id == report.server_id
        } else {
            channel.source_uuid.eq_ignore_ascii_case(&report.uuid)
        }
    };
    let mut matches = servers.iter().filter(|s| s.report.is_some_and(same));
    let first = matches.next()?;
    matches.next().is_none().then_some(first.id)
}

/// Decides who the primary is; `last` is who it was.
///
/// One server that accepts writes and does not replicate is the primary. A primary that was set read-only by hand
/// stays it while nobody else accepts writes. Two servers that accept writes leave none.
pub(super) fn decide(servers: &[Seen<'_>], sources: &Sources, last: Option<ServerId>) -> Primary {
    let writable: Vec<_> = servers.iter().filter(|s| s.writable() && s.is_source()).collect();
    match writable.as_slice() {
        [only] => return accept(only, last),
        [] => {}
        several => return rivals(several),
    }
    if let Some(kept) = last.and_then(|id| servers.get(usize::from(id.0))).filter(|s| s.up && s.is_source()) {
        return Primary::Is(kept.id);
    }
    let relays: Vec<_> =
        servers.iter().filter(|s| s.writable() && s.relays_from_outside(sources, servers)).collect();
    match relays.as_slice() {
        [only] => return accept(only, last),
        [] => {}
        several => return rivals(several),
    }
    if last.is_none() {
        let candidates: Vec<_> = servers
            .iter()
            .filter(|s| s.up && s.is_source())
            .filter(|s| servers.len() == 1 || sources.has_replica(s.id, servers))
            .collect();
        if let [only] = candidates.as_slice() {
            return Primary::Is(only.id);
        }
    }
    Primary::None { reason: why_none(servers, last), rivals: Vec::new() }
}

/// The appointed primary, while it answers.
pub(super) fn appointed(servers: &[Seen<'_>], appointed: ServerId) -> Primary {
    match servers.get(usize::from(appointed.0)) {
        Some(server) if server.up => Primary::Is(server.id),
        Some(_) | None => Primary::None { reason: why_none(servers, Some(appointed)), rivals: Vec::new() },
    }
}

fn accept(candidate: &Seen<'_>, last: Option<ServerId>) -> Primary {
    match candidate.barred {
        Some(reason) if last != Some(candidate.id) => Primary::None {
            reason: format!("{} accepts writes but is not accepted as primary: {reason}", candidate.name),
            rivals: vec![candidate.id],
        },
        Some(_) | None => Primary::Is(candidate.id),
    }
}

fn rivals(servers: &[&Seen<'_>]) -> Primary {
    let names: Vec<_> = servers.iter().map(|s| s.name).collect();
    Primary::None {
        reason: format!(
            "{} accept writes and none of them replicates: nothing is written until all but one are read_only",
            names.join(" and ")
        ),
        rivals: servers.iter().map(|s| s.id).collect(),
    }
}

fn why_none(servers: &[Seen<'_>], last: Option<ServerId>) -> String {
    let last = last.and_then(|id| servers.get(usize::from(id.0)));
    match last {
        Some(server) if !server.up => format!("the primary {} is down", server.name),
        Some(server) => format!("{} replicates now and no other server accepts writes", server.name),
        None if servers.iter().all(|s| !s.up) => "no server answers".into(),
        None => "no server accepts writes without replicating".into(),
    }
}

impl Seen<'_> {
    fn writable(&self) -> bool {
        self.up && self.report.is_some_and(|report| !report.read_only)
    }

    /// Does not replicate. Where the service account may not see that, a server that accepts writes is taken for one.
    fn is_source(&self) -> bool {
        self.report.is_some_and(|report| match &report.replication {
            Replication::Channels(channels) => channels.is_empty(),
            Replication::Hidden { .. } => !report.read_only,
        })
    }

    /// Replicates from servers outside of the configuration only, and others replicate from it.
    fn relays_from_outside(&self, sources: &Sources, servers: &[Seen<'_>]) -> bool {
        self.report.is_some_and(|report| {
            report.replicates()
                && !sources.follows_configured(report, servers)
                && sources.has_replica(self.id, servers)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One letter a property: `w` accepts writes, `r` read-only, `d` down, `-` never seen; then the source's name.
    fn check(servers: &[&str], last: Option<u16>, expected: &str) {
        let reports: Vec<_> = servers.iter().enumerate().map(|(at, text)| report(at, text)).collect();
        let names: Vec<_> = (0..servers.len()).map(|at| format!("db-{at}")).collect();
        let seen: Vec<_> = servers
            .iter()
            .enumerate()
            .map(|(at, text)| Seen {
                id: ServerId(at as u16),
                name: &names[at],
                address: &names[at],
                up: !text.starts_with('d') && !text.starts_with('-'),
                report: reports[at].as_ref(),
                barred: text.contains('!').then_some("it lost its data"),
            })
            .collect();
        let mut sources = Sources::default();
        sources.learn(&seen);
        let actual = match decide(&seen, &sources, last.map(ServerId)) {
            Primary::Is(id) => names[usize::from(id.0)].clone(),
            Primary::None { reason, .. } => reason,
        };
        assert_eq!(actual, expected, "{servers:?} last {last:?}");
    }

    fn report(at: usize, text: &str) -> Option<Report> {
        let mut letters = text.chars();
        if letters.next() == Some('-') {
            return None;
        }
        let source = letters.next().and_then(|letter| letter.to_digit(10));
        let channels = source.map(|source| Channel {
            source_host: format!("other-name-{source}"),
            source_port: 3306,
            source_server_id: 100 + source,
            ..Channel::default()
        });
        Some(Report {
            server_id: 100 + at as u32,
            read_only: !text.contains('w'),
            replication: Replication::Channels(channels.into_iter().collect()),
            ..Report::default()
        })
    }

    #[test]
    fn finds_the_primary() {
        check(&["w", "r0", "r0"], None, "db-0");
        check(&["r1", "w", "r1"], None, "db-1");
        check(&["r1", "w", "r0"], None, "db-1");
        // A replica that was left writable is still a replica.
        check(&["w", "w0", "r0"], None, "db-0");
        check(&["w"], None, "db-0");
        check(&["r"], None, "db-0");
        // The source of the others, read-only since before the start.
        check(&["r", "r0", "r0"], None, "db-0");
        check(&["-", "w", "-"], None, "db-1");
        // Feeds the others and follows a server outside of the configuration.
        check(&["w9", "r0", "r0"], None, "db-0");
    }

    #[test]
    fn keeps_a_primary_that_was_set_read_only() {
        check(&["r", "r0", "r0"], Some(0), "db-0");
        check(&["r", "r", "r"], Some(0), "db-0");
        // Unless somebody else accepts writes.
        check(&["r", "w", "r0"], Some(0), "db-1");
        check(&["r1", "w", "r1"], Some(0), "db-1");
    }

    #[test]
    fn leaves_none_in_doubt() {
        check(
            &["w", "w", "r0"],
            Some(0),
            "db-0 and db-1 accept writes and none of them replicates: \
             nothing is written until all but one are read_only",
        );
        check(&["d", "r0", "r0"], Some(0), "the primary db-0 is down");
        check(&["dw", "r0", "r0"], Some(0), "the primary db-0 is down");
        check(&["r1", "r0", "r0"], Some(0), "db-0 replicates now and no other server accepts writes");
        check(&["-", "r0", "r0"], None, "no server accepts writes without replicating");
        check(&["-", "-"], None, "no server answers");
        check(&["r", "r", "r"], None, "no server accepts writes without replicating");
        check(
            &["d", "r0", "w!"],
            Some(0),
            "db-2 accepts writes but is not accepted as primary: it lost its data",
        );
        check(&["w!", "r0"], Some(0), "db-0");
    }

    #[test]
    fn follows_a_promotion_by_hand() {
        check(&["d", "w", "r0"], Some(0), "db-1");
        check(&["d", "w", "r1"], Some(0), "db-1");
    }

    #[test]
    fn chains_end() {
        let report_of = |source: u32, at: u32| Report {
            server_id: at,
            replication: Replication::Channels(vec![Channel {
                source_server_id: source,
                ..Channel::default()
            }]),
            ..Report::default()
        };
        let reports = [report_of(2, 1), report_of(1, 2), report_of(2, 3)];
        let seen: Vec<_> = reports
            .iter()
            .enumerate()
            .map(|(at, report)| Seen {
                id: ServerId(at as u16),
                name: "db",
                address: "db",
                up: true,
                report: Some(report),
                barred: None,
            })
            .collect();
        let sources = Sources::default();
        assert!(sources.channel_to(ServerId(2), ServerId(0), &seen).is_some());
        assert!(sources.channel_to(ServerId(0), ServerId(2), &seen).is_none());
    }
}
