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
#[derive(Clone, Copy, Debug, Default)]
struct Load {
    outstanding: u32,
    /// Moving average of the latency in microseconds; none before the first answer.
    latency: Option<f64>,
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
            load.latency = Some(load.latency.map_or(micros, |known| known + (micros - known) * LATENCY_GAIN));
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
    fn adaptive(&self, choice: &Choice<'_>) -> Option<ServerId> {
        // A server that was never measured is taken to be as fast as the fastest.
        let fastest = choice.among().filter_map(|c| self.load(c.id).latency).fold(f64::INFINITY, f64::min);
        let unknown = if fastest.is_finite() { fastest } else { 1.0 };
        choice.draw(|candidate, share| {
            let load = self.load(candidate.id);
            let finish = load.latency.unwrap_or(unknown).max(1.0) * f64::from(load.outstanding + 1);
            share / (finish * finish)
        })
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
/// The share of its weight with which a server starts after it came back.
const FIRST_SHARE: f64 = 0.05;
