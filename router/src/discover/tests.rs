use pointsman_config::Server;

use super::*;
use crate::intent::Flavour;

/// Runs the steps on three servers and compares roles, states and the primary at the end.
///
/// A step is `+MS` or `SERVER WHAT...`, for example `0 w 7` (accepts writes, position 7), `1 r0 7` (follows server 0,
/// has applied 7), `1 r0 7 sql` (SQL thread stopped), `io` (IO thread stopped), `1236` (its error), `con`
/// (connecting), `0 x` (refuses connects), `0 s` (silent), `0 40` (refuses the account), `d` (drained).
/// `only 0 2` is the configuration from then on.
/// `up` brings all three up with position 10.
fn check(steps: &str, expected: &str) {
    let (summary, topology) = run(steps);
    assert_eq!(summary, expected, "{steps}\n{topology:#?}");
}

fn run(steps: &str) -> (String, Topology) {
    let mut bench = Bench::new();
    for step in steps.split(',').map(str::trim) {
        if step == "up" {
            for _ in 0..4 {
                bench.round(&["0 w 10", "1 r0 10", "2 r0 10"]);
            }
        } else if let Some(millis) = step.strip_prefix('+') {
            bench.now += Duration::from_millis(millis.parse().unwrap());
        } else if let Some((times, round)) = step.split_once('*') {
            let round: Vec<_> = round.trim().split('/').map(str::trim).collect();
            for _ in 0..times.trim().parse().unwrap() {
                bench.round(&round);
            }
        } else {
            bench.step(step);
        }
    }
    let topology = bench.discovery.topology();
    (summary(&topology), topology)
}

/// `epoch:primary states`, one letter a server: Online, Lagging, Draining, eXcluded, Gone (down), ?, - (not configured).
fn summary(topology: &Topology) -> String {
    let letters: String = topology
        .servers
        .iter()
        .map(|server| match server.state {
            State::Online => 'O',
            State::Lagging => 'L',
            State::Draining => 'D',
            State::Excluded => 'X',
            State::Down => 'G',
            State::Unknown => '?',
            State::Gone => '-',
        })
        .collect();
    let primary = topology.primary.map_or("none".into(), |id| id.0.to_string());
    format!("{}:{primary} {letters}", topology.epoch)
}

struct Bench {
    discovery: Discovery,
    roster: Roster,
    now: Duration,
}

impl Bench {
    fn new() -> Self {
        let config = configuration(&["0", "1", "2"]);
        let roster = Roster::new(&config.servers);
        Self { discovery: Discovery::new(&config), roster, now: Duration::from_millis(10) }
    }

    /// One step of each server, and a probe interval.
    fn round(&mut self, steps: &[&str]) {
        for step in steps {
            self.step(step);
        }
        self.now += Duration::from_millis(100);
    }

    fn step(&mut self, step: &str) {
        let words: Vec<_> = step.split_whitespace().collect();
        if words[0] == "only" {
            let config = configuration(&words[1..]);
            self.roster = self.roster.followed_by(&config.servers);
            return self.discovery.reconfigure(&config, &self.roster, self.now);
        }
        let id = words[0].parse().unwrap();
        let server = ServerId(id);
        let news = match words[1] {
            "x" => News::Refused("connection refused".into()),
            "s" => News::Silence,
            "40" => News::Rejected { code: 1040, message: "too many connections".into() },
            "d" => return self.discovery.set_draining(server, true, self.now),
            "u" => return self.discovery.set_draining(server, false, self.now),
            "m" => {
                let withdrawn = Withdrawn { maintenance: vec![server], ..Withdrawn::default() };
                return self.discovery.withdraw(&withdrawn, self.now);
            }
            "appointed" => {
                let appointment = Appointment::Primary { server, epoch: words[2].parse().unwrap() };
                return self.discovery.appoint(appointment, self.now);
            }
            "moves" => {
                let (epoch, reason) = (words[2].parse().unwrap(), "being moved".into());
                return self.discovery.appoint(Appointment::Nobody { epoch, reason }, self.now);
            }
            what => News::Report(Box::new(report(u32::from(id), what, &words[2..]))),
        };
        let asked = self.now;
        self.now += Duration::from_millis(1);
        self.discovery.observe(Observation { server, asked, noticed: self.now, news });
    }
}

/// Servers by their numbers.
fn configuration(servers: &[&str]) -> Config {
    let server = |number: &&str| Server {
        name: format!("db-{number}"),
        address: format!("10.0.0.{number}:3306"),
        ..Server::default()
    };
    Config { servers: servers.iter().map(server).collect(), ..Config::default() }
}

fn report(id: u32, what: &str, rest: &[&str]) -> Report {
    let position = |text: &str| GtidSet::parse(Flavour::Mariadb, &format!("0-1-{text}")).unwrap();
    let position = rest.first().map(|text| position(text)).unwrap_or_default();
    let has = |word: &str| rest.contains(&word);
    let source = what.strip_prefix('r').and_then(|source| source.parse::<u32>().ok());
    let channel = source.map(|source| Channel {
        source_server_id: source + 100,
        source_host: format!("source-{source}"),
        receiver: match (has("io"), has("con")) {
            (true, _) => Receiver::Stopped,
            (false, true) => Receiver::Connecting,
            (false, false) => Receiver::Running,
        },
        receiver_error: if has("1236") {
            ThreadError { code: 1236, message: "purged".into() }
        } else {
            ThreadError::default()
        },
        applies: !has("sql"),
        ..Channel::default()
    });
    Report {
        server_id: id + 100,
        version: "10.11.19-MariaDB".into(),
        read_only: what != "w",
        applied: position.clone(),
        executed: position,
        gtids: !has("nogtid"),
        replication: Replication::Channels(channel.into_iter().collect()),
        ..Report::default()
    }
}

#[test]
fn starts() {
    check("0 w 10", "1:0 O??");
    check("0 w 10, 1 r0 10, 2 r0 10", "1:0 O??");
    check("up", "1:0 OOO");
    check("2* 0 w 10 / 1 x / 2 x, 3* 0 w 10 / 1 r0 10 / 2 x", "1:0 OOG");
    let (_, topology) = run("0 w 10, 1 r0 10");
    assert!(!topology.ready);
    let (_, topology) = run("0 w 10, 1 r0 10, 2 s, 2 s, 2 s");
    assert!(topology.ready);
    // Nobody has seen the primary: the replicas serve reads.
    check("4* 0 x / 1 r0 10 / 2 r0 10", "0:none GOO");
}

#[test]
fn a_dead_server_leaves() {
    check("up, 1 x", "1:0 OGO");
    check("up, 1 s, 1 s", "1:0 OOO");
    check("up, 1 s, 1 s, 1 s", "1:0 OGO");
    check("up, 0 x", "1:none GOO");
    // It comes back, steadily.
    check("up, 1 x, 1 r0 10", "1:0 OXO");
    check("up, 1 x, 1 r0 10, 1 r0 10, 1 r0 10", "1:0 OOO");
    check("up, 0 x, 0 w 10", "1:0 OOO");
    // Too many connections is not death.
    check("up, 0 40, 1 40, 0 40, 0 40, 0 40", "1:0 OOO");
}

#[test]
fn a_stopped_replica_leaves() {
    check("up, 1 r0 10 sql", "1:0 OXO");
    check("up, 1 r0 10 io", "1:0 OXO");
    check("up, 1 r0 10 con", "1:0 OOO");
    check("up, 1 r0 10 nogtid", "1:0 OXO");
    // The receiver gives up on a dead primary: the data are as good as before.
    check("up, 0 x, 1 r0 10 io", "1:none GOO");
    check("up, 0 x, 1 r0 10 io 1236", "1:none GXO");
    check("up, 1 r0 10 io, 0 x, 1 r0 10 io", "1:none GXO");
    check("up, 1 r0 10 sql, 1 r0 10", "1:0 OOO");
    let (_, topology) = run("up, 1 r0 10 io 1236");
    assert_eq!(topology.servers[1].reason, "the receiving (IO) thread is stopped: error 1236: purged");
}

#[test]
fn roles_follow_the_servers() {
    check("up, 0 r 10", "1:0 OOO");
    // Promoted by hand: the old primary must be off first.
    check("up, 1 w 10", "1:none XXO");
    check("up, 0 r 10, 1 w 10", "2:1 XOX");
    check("up, 0 r1 10, 1 w 10, 2 r1 10", "2:1 OOO");
    check("up, 0 x, 1 w 10, 2 r0 10", "2:1 GOX");
    // A server that comes back empty is no primary.
    check("up, 0 x, 1 w 3", "1:none GXO");
    check("up, 0 x, 2 w 3, 2 w 10", "2:2 GXO");
    // A chain of replicas.
    check("4* 0 w 10 / 1 r0 10 / 2 r1 10", "1:0 OOO");
    check("up, 2 r7 10", "1:0 OOX");
    check("up, 2 r 10", "1:0 OOX");
}

#[test]
fn an_appointment_decides() {
    check("0 appointed 7, up", "7:0 OOO");
    // A former primary that comes back writable is no rival.
    check("up, 1 appointed 8, 4* 0 w 11/1 w 11/2 r1 11", "8:1 XOO");
    check("up, 0 appointed 7, 4* 0 x", "7:none GOO");
    // Replicas serve reads while they are stopped and pointed elsewhere, or promoted.
    check("up, 0 x, 0 moves 8, 4* 1 r0 10 io/2 r1 10", "8:none GOO");
    check("up, 0 x, 0 moves 8, 4* 1 r 10/2 r1 10", "8:none GOO");
    check("up, 0 x, 0 moves 8, 1 x", "8:none GGO");
    check("up, 0 x, 0 moves 8, 1 appointed 8, 4* 1 w 11/2 r1 11", "8:1 GOO");
}

#[test]
fn lag_is_judged_twice() {
    // Server 1 stays at 10 while the primary goes on.
    check("up, 90* 0 w 20 / 1 r0 10 / 2 r0 20", "1:0 OOO");
    check("up, 120* 0 w 20 / 1 r0 10 / 2 r0 20", "1:0 OLO");
    check("up, 120* 0 w 20 / 1 r0 10 / 2 r0 20, 1* 1 r0 20", "1:0 OLO");
    let reason = |script| run(script).1.servers[1].reason.clone();
    let over = reason("up, 120* 0 w 20 / 1 r0 10 / 2 r0 20");
    assert!(over.ends_with(" s is over lag.maximum"), "{over}");
    let once = reason("up, 120* 0 w 20 / 1 r0 10 / 2 r0 20, 1* 1 r0 20");
    assert_eq!(once, "lag 0.0 s: was over lag.maximum, not well within it yet");
    check("up, 120* 0 w 20 / 1 r0 10 / 2 r0 20, 2* 1 r0 20", "1:0 OOO");
    // Nothing is written: no lag, however long.
    check("up, 200* 0 w 10 / 1 r0 10 / 2 r0 10", "1:0 OOO");
    // Far behind from the start.
    check("6* 0 w 20 / 1 r0 10 / 2 r0 20", "1:0 OLO");
    // The lag stands still while the primary is away.
    check("up, 5* 0 w 20 / 1 r0 10 / 2 r0 20, 0 x, 200* 1 r0 10 / 2 r0 20", "1:none GOO");
    // It answers, but nothing is known of it any more.
    check("up, 130* 0 w 20 / 1 40 / 2 r0 20", "1:0 OLO");
    check("up, 130* 0 w 10 / 1 40 / 2 r0 10", "1:0 OOO");
}

#[test]
fn a_reset_primary_strands_its_replicas() {
    check("up, 0 w 2", "1:0 OXX");
    // Also after the numbers have caught up with the old ones.
    check("up, 0 w 2, 3* 0 w 15 / 1 r0 10 / 2 r0 15", "1:0 OXX");
    check("up, 0 w 2, 3* 0 w 15 / 1 r0 2 / 2 r0 10, 4* 0 w 15 / 1 r0 15 / 2 r0 10", "1:0 OOX");
}

#[test]
fn a_replica_ahead_is_diverged() {
    check("up, 5* 1 r0 12 / 0 w 10 / 2 r0 10", "1:0 OOO");
    check("up, 15* 1 r0 12 / 0 w 10 / 2 r0 10", "1:0 OXO");
    // The primary shows it a little later, as MySQL does.
    check("up, 5* 1 r0 12 / 0 w 10 / 2 r0 10, 15* 1 r0 14 / 0 w 12 / 2 r0 10", "1:0 OXO");
    check("up, 5* 1 r0 12 / 0 w 10 / 2 r0 10, 5* 1 r0 14 / 0 w 12 / 2 r0 10", "1:0 OOO");
    // One that does not replicate any more: what bars it from doing so is named.
    let (_, topology) = run("up, 15* 1 r 12 / 0 w 10 / 2 r0 10");
    let reason = &topology.servers[1].reason;
    assert!(reason.contains("holds transactions that the primary does not have: "), "{reason}");
}

#[test]
fn an_operator_drains() {
    check("up, 1 d", "1:0 ODO");
    check("up, 1 d, 1 u", "1:0 OOO");
    check("up, 1 d, 1 x", "1:0 OGO");
    check("up, 1 m", "1:0 ODO");
    check("up, 1 m, 2 m", "1:0 OOD");
    // A primary serves until it is moved.
    check("up, 0 m", "1:0 OOO");
}

#[test]
fn servers_come_and_go() {
    check("up, only 0 1", "1:0 OO-");
    check("up, only 0 1, 2 r0 10", "1:0 OO-");
    check("up, only 0 1, 2 w 10", "1:0 OO-");
    check("up, only 0 1 2 3", "1:0 OOO?");
    check("up, only 0 1 2 3, 4*0 w 10/1 r0 10/2 r0 10/3 r0 10", "1:0 OOOO");
    check("up, only 0 1, only 0 1 2", "1:0 OO?");
    check("up, only 0 1, only 0 1 2, 4*0 w 10/1 r0 10/2 r0 10", "1:0 OOO");
    // The first round stays over.
    assert!(run("up, only 0 1 2 3").1.ready);
    // A dead primary may go; another server is promoted by hand.
    check("up, 0 x, only 1 2, 1 w 11, 2 r1 11", "2:1 -OO");
}
