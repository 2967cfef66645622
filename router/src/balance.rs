//! Which of several replicas gets the next read.
//!
//! A [`Balancer`] belongs to one worker and sees only what that worker sends and gets back. Who may serve a
//! read at all is decided by [`crate::route`]; here it is only a choice among those.

use std::time::Duration;

use pointsman_config::{Balance, Routing};

use crate::topology::ServerId;

/// One worker's view of the load of each server, and whose turn it is.
#[derive(Debug)]
pub struct Balancer {
    algorithm: Balance,
    slow_start: Duration,
    /// Indexed by [`ServerId`].
    loads: Vec<Load>,
    /// The server that round robin chose last.
    last: Option<ServerId>,
    /// Room for the candidates of one decision, kept so that a decision does not allocate.
    pub(crate) scratch: Vec<Candidate>,
}

/// A server that may serve the read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    pub id: ServerId,
    /// Its share of reads; a candidate with 0 is never picked.
    pub weight: u32,
    /// Its lag is under `lag.preferred`.
    pub fresh: bool,
    /// It is in the zone of this proxy.
    pub near: bool,
    /// When it last came into the pool.
    pub online_since: Duration,
}

/// What is under way on one server and how fast it has been.
#[derive(Clone, Copy, Debug)]
struct Load {
    outstanding: u32,
    /// Moving average of the latency in microseconds; none before the first answer.
    latency: Option<f64>,
    /// How much of `latency` still counts: one slow answer must not keep a server idle, and so unmeasured, for
    /// long. All of it after an answer, less with every read that went elsewhere.
    memory: f64,
    /// How far smooth weighted round robin owes this server turns.
    credit: i64,
}

impl Balancer {
    pub fn new(routing: &Routing, servers: usize) -> Self {
        Self {
            algorithm: routing.balance,
            slow_start: routing.slow_start,
            loads: vec![Load::default(); servers],
            last: None,
            scratch: Vec::with_capacity(servers),
        }
    }

    /// Chooses among the best of the candidates: fresh ones before others, then near ones before others, then by
    /// the algorithm. None when there is no candidate with a weight. `random` is any number.
    pub fn pick(&mut self, candidates: &[Candidate], now: Duration, random: u64) -> Option<ServerId> {
        let best = candidates.iter().filter(|c| c.weight > 0).map(Candidate::grade).max()?;
        let choice = Choice { candidates, best, now, slow_start: self.slow_start, random };
        match self.algorithm {
            Balance::Adaptive => self.adaptive(&choice),
            Balance::RoundRobin => self.round_robin(&choice),
            Balance::WeightedRoundRobin => self.weighted_round_robin(&choice),
            Balance::LeastConnections => self.least_connections(&choice),
            Balance::Random => choice.draw(|_, share| share),
        }
    }

    /// A statement was sent to the server.
    pub fn started(&mut self, id: ServerId) {
        if let Some(load) = self.load_mut(id) {
            load.outstanding += 1;
        }
    }

    /// The statement's answer came.
    pub fn finished(&mut self, id: ServerId, latency: Duration) {
        self.abandoned(id);
        if let Some(load) = self.load_mut(id) {
            let micros = latency.as_secs_f64() * 1e6;
            let gain = LATENCY_GAIN.max(1.0 - load.memory);
            load.latency = Some(load.latency.map_or(micros, |known| known + (micros - known) * gain));
            load.memory = 1.0;
        }
    }

    /// The statement ended without an answer that says how fast the server is.
    pub fn abandoned(&mut self, id: ServerId) {
        if let Some(load) = self.load_mut(id) {
            load.outstanding = load.outstanding.saturating_sub(1);
        }
    }

    /// Statements under way on the server, of this worker.
    pub fn outstanding(&self, id: ServerId) -> u32 {
        self.load(id).outstanding
    }

    /// Draws with a probability that falls with the square of the expected finish time, so that a slow or stuck
    /// server is left with a trickle that tells when it has recovered.
    fn adaptive(&mut self, choice: &Choice<'_>) -> Option<ServerId> {
        // A server that was never measured is taken to be as fast as the fastest.
        let fastest = choice.among().filter_map(|c| self.load(c.id).latency).fold(f64::INFINITY, f64::min);
        let unknown = if fastest.is_finite() { fastest } else { 1.0 };
        let picked = choice.draw(|candidate, share| {
            let load = self.load(candidate.id);
            let latency = load.latency.map_or(unknown, |known| (known * load.memory).max(unknown));
            let finish = latency.max(1.0) * f64::from(load.outstanding + 1);
            share / (finish * finish)
        });
        for candidate in choice.among().filter(|c| Some(c.id) != picked) {
            if let Some(load) = self.load_mut(candidate.id) {
                load.memory *= KEPT_EACH_READ;
            }
        }
        picked
    }

    /// The next one in the order of the configuration.
    fn round_robin(&mut self, choice: &Choice<'_>) -> Option<ServerId> {
        let ready = || choice.among().filter(|c| choice.ramp(c) >= choice.chance());
        let after = |last: ServerId| ready().filter(|c| c.id > last).map(|c| c.id).min();
        let first = || ready().map(|c| c.id).min();
        let picked = self.last.and_then(after).or_else(first).or_else(|| choice.among().map(|c| c.id).min());
        self.last = picked;
        picked
    }

    /// Each turn every candidate earns its weight, the richest is picked and pays what all have earned.
    fn weighted_round_robin(&mut self, choice: &Choice<'_>) -> Option<ServerId> {
        let mut total = 0;
        let mut richest: Option<(i64, ServerId)> = None;
        for candidate in choice.among() {
            let earned = choice.share(candidate).ceil() as i64;
            total += earned;
            let Some(load) = self.load_mut(candidate.id) else { continue };
            load.credit += earned;
            if richest.is_none_or(|(credit, _)| load.credit > credit) {
                richest = Some((load.credit, candidate.id));
            }
        }
        let (_, picked) = richest?;
        if let Some(load) = self.load_mut(picked) {
            load.credit -= total;
        }
        Some(picked)
    }

    /// The fewest outstanding statements for its weight; equals are drawn by weight.
    fn least_connections(&self, choice: &Choice<'_>) -> Option<ServerId> {
        let burden = |c: &Candidate| f64::from(self.load(c.id).outstanding + 1) / choice.share(c);
        let least = choice.among().map(burden).fold(f64::INFINITY, f64::min);
        choice.draw(|candidate, share| if burden(candidate) <= least { share } else { 0.0 })
    }

    fn load(&self, id: ServerId) -> Load {
        self.loads.get(usize::from(id.0)).copied().unwrap_or_default()
    }

    fn load_mut(&mut self, id: ServerId) -> Option<&mut Load> {
        self.loads.get_mut(usize::from(id.0))
    }
}

impl Default for Load {
    fn default() -> Self {
        Self { outstanding: 0, latency: None, memory: 1.0, credit: 0 }
    }
}

impl Candidate {
    /// Higher is better; algorithms choose within one grade only.
    fn grade(&self) -> u8 {
        u8::from(self.fresh) << 1 | u8::from(self.near)
    }
}

/// One decision.
struct Choice<'a> {
    candidates: &'a [Candidate],
    best: u8,
    now: Duration,
    slow_start: Duration,
    random: u64,
}

impl<'a> Choice<'a> {
    /// The candidates of the best grade.
    fn among(&self) -> impl Iterator<Item = &'a Candidate> {
        self.candidates.iter().filter(|c| c.weight > 0 && c.grade() == self.best)
    }

    /// The weight as it is now.
    fn share(&self, candidate: &Candidate) -> f64 {
        f64::from(candidate.weight) * self.ramp(candidate)
    }

    /// How far a server has come in its slow start: from [`FIRST_SHARE`] to 1.
    fn ramp(&self, candidate: &Candidate) -> f64 {
        let online = self.now.saturating_sub(candidate.online_since);
        if online >= self.slow_start {
            return 1.0;
        }
        (online.as_secs_f64() / self.slow_start.as_secs_f64()).max(FIRST_SHARE)
    }

    /// A number from 0 up to 1.
    fn chance(&self) -> f64 {
        // The upper 53 bits fill a double's mantissa.
        (self.random >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Draws one of the best grade with a probability in proportion to `score(candidate, share)`.
    fn draw(&self, score: impl Fn(&Candidate, f64) -> f64) -> Option<ServerId> {
        let total: f64 = self.among().map(|c| score(c, self.share(c))).sum();
        let mut left = self.chance() * total;
        let mut picked = None;
        for candidate in self.among() {
            let part = score(candidate, self.share(candidate));
            if part > 0.0 {
                picked = Some(candidate.id);
            }
            left -= part;
            if left < 0.0 {
                break;
            }
        }
        picked
    }
}

/// How much one answer moves the moving average.
const LATENCY_GAIN: f64 = 0.125;
/// What is left of a server's latency after a read that went elsewhere: half of it after 32 of them.
const KEPT_EACH_READ: f64 = 0.978_572;
/// The share of its weight with which a server starts after it came back.
const FIRST_SHARE: f64 = 0.05;

#[cfg(test)]
mod tests {
    use super::*;

    const SLOW_START: Duration = Duration::from_secs(10);
    const LONG_AFTER: Duration = Duration::from_secs(1000);

    fn balancer(algorithm: Balance) -> Balancer {
        let routing = Routing { balance: algorithm, slow_start: SLOW_START, ..Routing::default() };
        Balancer::new(&routing, 4)
    }

    fn candidate(id: u16, weight: u32) -> Candidate {
        Candidate { id: ServerId(id), weight, fresh: true, near: true, online_since: Duration::ZERO }
    }

    /// The first numbers of a fixed sequence that is spread evenly.
    fn numbers() -> impl Iterator<Item = u64> {
        (1..).map(|step: u64| step.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    /// How often each of four servers is picked in 1,000 decisions, with one statement after the other.
    fn shares(balancer: &mut Balancer, candidates: &[Candidate], now: Duration) -> [usize; 4] {
        let mut shares = [0; 4];
        for random in numbers().take(1000) {
            if let Some(id) = balancer.pick(candidates, now, random) {
                shares[usize::from(id.0)] += 1;
            }
        }
        shares
    }

    const ALL: [Balance; 5] = [
        Balance::Adaptive,
        Balance::RoundRobin,
        Balance::WeightedRoundRobin,
        Balance::LeastConnections,
        Balance::Random,
    ];

    /// Each share may be off by 2 % of all decisions.
    fn check(algorithm: Balance, candidates: &[Candidate], expected: [usize; 4]) {
        let shares = shares(&mut balancer(algorithm), candidates, LONG_AFTER);
        let close = shares.iter().zip(expected).all(|(share, expected)| share.abs_diff(expected) <= 20);
        assert!(close, "{algorithm:?} {candidates:?}: {shares:?}, expected {expected:?}");
    }

    #[test]
    fn equal_servers_get_equal_shares() {
        for algorithm in ALL {
            check(algorithm, &[candidate(1, 100), candidate(2, 100)], [0, 500, 500, 0]);
            check(algorithm, &[candidate(3, 1)], [0, 0, 0, 1000]);
        }
    }

    #[test]
    fn shares_follow_weights() {
        let weighted = [candidate(1, 300), candidate(2, 100), candidate(3, 0)];
        for algorithm in [Balance::Adaptive, Balance::WeightedRoundRobin, Balance::Random] {
            check(algorithm, &weighted, [0, 750, 250, 0]);
        }
        check(Balance::RoundRobin, &weighted, [0, 500, 500, 0]);
        // Idle servers: the one with the most capacity for one statement.
        check(Balance::LeastConnections, &weighted, [0, 1000, 0, 0]);
    }

    #[test]
    fn nobody_is_picked_without_weight() {
        for algorithm in ALL {
            check(algorithm, &[], [0; 4]);
            check(algorithm, &[candidate(1, 0), candidate(2, 0)], [0; 4]);
            // A server that joined after the start of the worker.
            let unknown = balancer(algorithm).pick(&[candidate(9, 1)], LONG_AFTER, 7);
            assert!(unknown.is_none_or(|id| id == ServerId(9)));
        }
    }

    #[test]
    fn fresh_comes_before_near_and_near_before_far() {
        let stale_near = Candidate { fresh: false, ..candidate(0, 100) };
        let fresh_far = Candidate { near: false, ..candidate(1, 100) };
        let fresh_near = candidate(2, 100);
        let stale_far = Candidate { fresh: false, near: false, ..candidate(3, 100) };
        for algorithm in ALL {
            check(algorithm, &[stale_near, fresh_far, fresh_near, stale_far], [0, 0, 1000, 0]);
            check(algorithm, &[stale_near, fresh_far, stale_far], [0, 1000, 0, 0]);
            check(algorithm, &[stale_near, stale_far], [1000, 0, 0, 0]);
            check(algorithm, &[Candidate { weight: 0, ..fresh_near }, stale_far], [0, 0, 0, 1000]);
        }
    }

    #[test]
    fn a_server_that_comes_back_starts_slowly() {
        let check = |algorithm, online: u64, least: usize, most: usize| {
            let back = Candidate { online_since: Duration::from_secs(1000 - online), ..candidate(2, 100) };
            let shares = shares(&mut balancer(algorithm), &[candidate(1, 100), back], LONG_AFTER);
            let share = shares[2];
            assert!((least..=most).contains(&share), "{algorithm:?} after {online} s: {share}");
        };
        for algorithm in [Balance::Adaptive, Balance::WeightedRoundRobin, Balance::Random] {
            check(algorithm, 0, 25, 70);
            check(algorithm, 5, 300, 360);
            check(algorithm, 10, 480, 520);
            check(algorithm, 900, 480, 520);
        }
        check(Balance::RoundRobin, 0, 10, 70);
        check(Balance::RoundRobin, 10, 480, 520);
        check(Balance::LeastConnections, 0, 0, 0);
    }

    #[test]
    fn round_robin_goes_on_where_it_was() {
        let mut balancer = balancer(Balance::RoundRobin);
        let all = [candidate(0, 1), candidate(1, 1), candidate(2, 1)];
        let mut next = |candidates: &[Candidate]| balancer.pick(candidates, LONG_AFTER, 0).unwrap().0;
        assert_eq!([next(&all), next(&all), next(&all), next(&all)], [0, 1, 2, 0]);
        assert_eq!([next(&all[2..]), next(&all), next(&all[1..]), next(&all[..1])], [2, 0, 1, 0]);
    }

    #[test]
    fn smooth_round_robin_does_not_come_in_bursts() {
        let mut balancer = balancer(Balance::WeightedRoundRobin);
        let candidates = [candidate(0, 5), candidate(1, 1), candidate(2, 1)];
        let turns: Vec<u16> = (0..7).map(|_| balancer.pick(&candidates, LONG_AFTER, 0).unwrap().0).collect();
        assert_eq!(turns, [0, 0, 1, 0, 2, 0, 0]);
    }

    #[test]
    fn least_connections_weighs_what_is_outstanding() {
        let mut balancer = balancer(Balance::LeastConnections);
        let candidates = [candidate(0, 200), candidate(1, 100)];
        let mut begun = [0; 2];
        for random in numbers().take(30) {
            let id = balancer.pick(&candidates, LONG_AFTER, random).unwrap();
            balancer.started(id);
            begun[usize::from(id.0)] += 1;
        }
        assert_eq!(begun, [20, 10]);
        for _ in 0..15 {
            balancer.finished(ServerId(0), Duration::from_millis(1));
        }
        assert_eq!(balancer.outstanding(ServerId(0)), 5);
        assert_eq!(balancer.pick(&candidates, LONG_AFTER, 7), Some(ServerId(0)));
    }

    #[test]
    fn a_stuck_server_gets_nearly_nothing() {
        let candidates = [candidate(0, 100), candidate(1, 100)];
        let mut stuck = balancer(Balance::Adaptive);
        for _ in 0..20 {
            stuck.started(ServerId(1));
        }
        let share = shares(&mut stuck, &candidates, LONG_AFTER)[1];
        assert!(share <= 10, "twenty outstanding: {share}");
        for _ in 0..20 {
            stuck.abandoned(ServerId(1));
        }
        let share = shares(&mut stuck, &candidates, LONG_AFTER)[1];
        assert!((480..=520).contains(&share), "none outstanding any more: {share}");
    }

    #[test]
    fn one_slow_answer_does_not_keep_a_server_idle() {
        let candidates = [candidate(0, 100), candidate(1, 100)];
        let mut balancer = balancer(Balance::Adaptive);
        balancer.finished(ServerId(0), Duration::from_micros(300));
        balancer.finished(ServerId(1), Duration::from_millis(10));
        let mut answered = 0;
        for random in numbers().take(400) {
            let id = balancer.pick(&candidates, LONG_AFTER, random).unwrap();
            balancer.finished(id, Duration::from_micros(300));
            answered += u32::from(id == ServerId(1));
        }
        assert!((100..=200).contains(&answered), "{answered}");
    }

    #[test]
    fn a_slow_server_stays_at_a_trickle() {
        let candidates = [candidate(0, 100), candidate(1, 100)];
        let mut balancer = balancer(Balance::Adaptive);
        let mut answered = 0;
        for random in numbers().take(10_000) {
            let id = balancer.pick(&candidates, LONG_AFTER, random).unwrap();
            let slow = id == ServerId(1);
            balancer.finished(id, Duration::from_micros(if slow { 3000 } else { 300 }));
            answered += u32::from(slow);
        }
        assert!((100..=500).contains(&answered), "{answered}");
    }

    #[test]
    fn an_unmeasured_server_counts_as_fast() {
        let mut balancer = balancer(Balance::Adaptive);
        balancer.finished(ServerId(0), Duration::from_millis(5));
        let shares = shares(&mut balancer, &[candidate(0, 100), candidate(1, 100)], LONG_AFTER);
        assert!((480..=520).contains(&shares[1]), "{shares:?}");
    }

    #[test]
    fn outstanding_never_goes_below_zero() {
        let mut balancer = balancer(Balance::Adaptive);
        balancer.abandoned(ServerId(1));
        balancer.finished(ServerId(1), Duration::ZERO);
        balancer.started(ServerId(99));
        assert_eq!(balancer.outstanding(ServerId(1)), 0);
    }
}
