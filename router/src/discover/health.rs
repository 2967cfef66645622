//! Whether a server answers, and how steadily.

use super::observation::News;

/// Reports in a row that bring a replica back into the pool.
const STEADY_REPORTS: u32 = 3;

/// What the probes of one server add up to.
#[derive(Clone, Debug, Default)]
pub(super) struct Health {
    reach: Reach,
    /// Failed probes in a row.
    misses: u32,
    /// Reports since the server was last down.
    reports: u32,
    /// The last trouble, for people.
    trouble: String,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Reach {
    /// No probe has ended yet.
    #[default]
    Unknown,
    Up,
    Down,
}

impl Health {
    /// Takes one probe's outcome; `limit` failed ones in a row make a server down, a refusal does at once.
    pub(super) fn observe(&mut self, news: &News, limit: u32) {
        match news {
            News::Report(_) => {
                self.reach = Reach::Up;
                self.misses = 0;
                self.reports = self.reports.saturating_add(1);
                self.trouble.clear();
            }
            // It answers: whatever is wrong with the account, the server is not dead.
            News::Rejected { code, message } => {
                self.misses = 0;
                self.trouble = format!("refuses the service account: error {code}: {message}");
                if *code == SHUTTING_DOWN {
                    self.fall();
                } else {
                    self.reach = Reach::Up;
                }
            }
            News::Silence => self.miss(limit, "no answer".to_owned()),
            News::Failed(reason) => self.miss(limit, reason.clone()),
            News::Refused(reason) => self.miss(self.misses, reason.clone()),
        }
    }

    fn miss(&mut self, limit: u32, trouble: String) {
        self.misses = self.misses.saturating_add(1);
        if self.misses >= limit {
            self.fall();
            self.trouble = trouble;
        }
    }

    fn fall(&mut self) {
        self.reach = Reach::Down;
        self.reports = 0;
    }

    /// Whether any verdict has been reached.
    pub(super) fn known(&self) -> bool {
        self.reach != Reach::Unknown
    }

    pub(super) fn up(&self) -> bool {
        self.reach == Reach::Up
    }

    /// Why the server is down, or does not let the service account in.
    pub(super) fn trouble(&self) -> &str {
        &self.trouble
    }

    /// Whether enough reports have come in a row to trust the server with reads again.
    pub(super) fn steady(&self) -> bool {
        self.reports >= STEADY_REPORTS
    }
}

/// ER_SERVER_SHUTDOWN.
const SHUTTING_DOWN: u16 = 1053;

#[cfg(test)]
mod tests {
    use super::*;

    fn check(news: &str, expected: &str) {
        let mut health = Health::default();
        let states: String = news
            .chars()
            .map(|letter| {
                let news = match letter {
                    'r' => News::Report(Box::default()),
                    's' => News::Silence,
                    'f' => News::Failed("no route".into()),
                    'x' => News::Refused("connection refused".into()),
                    '4' => News::Rejected { code: 1040, message: "too many connections".into() },
                    _ => News::Rejected { code: SHUTTING_DOWN, message: "shutdown".into() },
                };
                health.observe(&news, 3);
                match health.reach {
                    Reach::Unknown => '?',
                    Reach::Up if health.steady() => 'U',
                    Reach::Up => 'u',
                    Reach::Down => 'd',
                }
            })
            .collect();
        assert_eq!(states, expected, "{news}");
    }

    #[test]
    fn verdicts() {
        check("rrr", "uuU");
        check("rrrss", "uuUUU");
        check("rrrsss", "uuUUUd");
        check("rrrsfsr", "uuUUUdu");
        check("rrrssrss", "uuUUUUUU");
        check("rrrx", "uuUd");
        check("rrrxrrr", "uuUduuU");
        check("x", "d");
        check("ss", "??");
        check("sss", "??d");
        // Too many connections is not death, a shutdown is.
        check("rrr4444", "uuUUUUU");
        check("rrr5", "uuUd");
        check("rrrssss4", "uuUUUddu");
    }
}
