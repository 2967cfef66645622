//! Figures that the statement path counts, one set per worker, added up when somebody asks.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use pointsman_router::session::Pins;
use pointsman_router::topology::ServerId;

/// Upper bounds of the duration histogram: 50 us doubled 20 times, about 26 s.
pub const DURATION_BUCKETS: usize = 20;
const FIRST_BUCKET_MICROS: u64 = 50;

/// A number that only one thread adds to and any thread reads: no locked instruction on the statement path.
#[derive(Debug, Default)]
pub struct Tally(AtomicU64);

impl Tally {
    pub fn add(&self, count: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(count), Ordering::Relaxed);
    }

    pub fn one(&self) {
        self.add(1);
    }

    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// One worker's figures.
#[derive(Debug)]
pub struct Counters {
    /// Indexed by [`ServerId`].
    pub servers: Vec<ServerCounters>,
    pub logins: Tally,
    pub failed_logins: Tally,
    pub client_errors: Tally,
    pub proxy_errors: Tally,
    pub pool_waits: Tally,
    pub pool_timeouts: Tally,
    pub held_statements: Tally,
    /// Done again on another primary, unnoticed.
    pub replayed_transactions: Tally,
    /// Told to be rolled back because their server was gone.
    pub lost_transactions: Tally,
    pub rerun_reads: Tally,
    pub misrouted: Tally,
    pub position_waits: Tally,
    pub failed_position_waits: Tally,
    pub bytes_from_clients: Tally,
    pub bytes_to_clients: Tally,
    pub resets: Tally,
    pub state_applications: Tally,
    pub prepares: Tally,
    /// How often a session was pinned, by the place of the reason.
    pub pins: [Tally; Pins::KINDS],
}

/// One worker's figures of one server.
#[derive(Debug, Default)]
pub struct ServerCounters {
    pub reads: Tally,
    pub writes: Tally,
    pub errors: Tally,
    pub connects: Tally,
    pub failed_connects: Tally,
    pub durations: [Tally; DURATION_BUCKETS + 1],
    pub duration_sum_micros: Tally,
}

impl Counters {
    pub fn new(servers: usize) -> Self {
        Self {
            servers: (0..servers).map(|_| ServerCounters::default()).collect(),
            logins: Tally::default(),
            failed_logins: Tally::default(),
            client_errors: Tally::default(),
            proxy_errors: Tally::default(),
            pool_waits: Tally::default(),
            pool_timeouts: Tally::default(),
            held_statements: Tally::default(),
            replayed_transactions: Tally::default(),
            lost_transactions: Tally::default(),
            rerun_reads: Tally::default(),
            misrouted: Tally::default(),
            position_waits: Tally::default(),
            failed_position_waits: Tally::default(),
            bytes_from_clients: Tally::default(),
            bytes_to_clients: Tally::default(),
            resets: Tally::default(),
            state_applications: Tally::default(),
            prepares: Tally::default(),
            pins: std::array::from_fn(|_| Tally::default()),
        }
    }

    pub fn server(&self, id: ServerId) -> Option<&ServerCounters> {
        self.servers.get(usize::from(id.0))
    }
}

impl ServerCounters {
    pub fn observe(&self, elapsed: Duration) {
        let micros = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX);
        let steps = micros.div_ceil(FIRST_BUCKET_MICROS).max(1).next_power_of_two().trailing_zeros();
        self.durations[(steps as usize).min(DURATION_BUCKETS)].one();
        self.duration_sum_micros.add(micros);
    }
}

/// The upper bound of a histogram bucket in seconds; infinite for the last.
pub fn bucket_bound_seconds(bucket: usize) -> f64 {
    if bucket >= DURATION_BUCKETS {
        f64::INFINITY
    } else {
        FIRST_BUCKET_MICROS as f64 / 1e6 * f64::powi(2.0, bucket as i32)
    }
}
