//! What a proxy has seen of one server, as far as failover needs it.

use std::time::Duration;

use super::FED_WITHIN;
use crate::discover::{Channel, Divergence, News, Observation, Receiver, Report};
use crate::gtid::GtidSet;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Watch {
    pub(super) report: Option<Report>,
    /// When the last report was asked for.
    pub(super) asked: Duration,
    /// When the last report was asked for that told the life.
    pub(super) life_asked: Duration,
    /// When it came.
    pub(super) noticed: Duration,
    /// When the first of the reports came that tell the same position as the last.
    pub(super) executed_since: Duration,
    /// When the server last answered anything.
    pub(super) answered: Option<Duration>,
    pub(super) misses: u32,
    pub(super) missing_since: Option<Duration>,
    /// Nothing has listened on the address since.
    pub(super) refused: Option<Duration>,
    pub(super) trouble: String,
    /// When the first report of this life came.
    born: Duration,
    /// In this life it has held a position that the primary had after its beginning: its relay log is whole.
    pub(super) whole: bool,
    /// We are starting its applying thread while it receives, which leaves the relay log whole: until when, as far as
    /// is known. A report that was asked for before may tell any mixture of before and after.
    pub(super) starting_applier: Option<Duration>,
    /// The last sign of life from its source.
    sign: Option<Sign>,
    pub(super) divergence: Divergence,
    /// It was down, and has not been seen replicating since.
    pub(super) returned: bool,
}

/// A change that only a living source can have made.
#[derive(Clone, Copy, Debug)]
struct Sign {
    /// It was certainly made after this.
    after: Duration,
    /// And seen at this time.
    seen: Duration,
}

impl Watch {
    /// Takes the outcome of a probe; `primary` is the newest position of the primary and when it was asked for.
    pub(super) fn observe(&mut self, observation: Observation, primary: Option<(&GtidSet, Duration)>) {
        let Observation { asked, noticed, news, .. } = observation;
        match news {
            News::Report(report) => {
                self.answer(noticed);
                self.take_report(*report, asked, noticed);
                if let Some((position, at)) = primary {
                    self.compare(position, at);
                }
            }
            News::Rejected { code: SHUTTING_DOWN, message } => self.refuse(noticed, message),
            // It lives, whatever is wrong with the account.
            News::Rejected { .. } => self.answer(noticed),
            News::Silence => self.miss(noticed, "no answer".into()),
            News::Failed(reason) => self.miss(noticed, reason),
            News::Refused(reason) => self.refuse(noticed, reason),
        }
    }

    /// Takes a report that a step brought.
    pub(super) fn learn(&mut self, report: Report, asked: Duration, noticed: Duration) {
        self.answer(noticed);
        self.take_report(report, asked, noticed);
    }

    /// Holds the relay log against a position that the primary had at `at`.
    pub(super) fn compare(&mut self, position: &GtidSet, at: Duration) {
        if at > self.born && self.report.as_ref().is_some_and(|report| report.holds(position)) {
            self.whole = true;
        }
    }

    pub(super) fn up(&self) -> bool {
        self.answered.is_some() && self.misses == 0
    }

    /// Whether it does not answer, as far as its own probes say.
    pub(super) fn down(&self, failures: u32) -> bool {
        self.refused.is_some() || self.misses >= failures
    }

    pub(super) fn channel(&self) -> Option<&Channel> {
        self.report.as_ref().and_then(|report| report.channels().first())
    }

    pub(super) fn incarnation(&self) -> u64 {
        self.report.as_ref().map_or(0, |report| report.incarnation)
    }

    /// Whether its source seems to live: `since` is when we ourselves lost sight of that.
    pub(super) fn fed(&self, since: Duration, now: Duration) -> bool {
        let Some(channel) = self.channel().filter(|_| self.up()) else { return false };
        if self.sign.is_some_and(|sign| sign.after >= since && now.saturating_sub(sign.seen) < FED_WITHIN) {
            return true;
        }
        if channel.receiver != Receiver::Running {
            return false;
        }
        // It says that it is connected, and is asked again and again: its source has some time to show itself.
        let seen = self.sign.map_or(since, |sign| sign.seen);
        match channel.pulse {
            Some(pulse) => self.asked.saturating_sub(seen) < FED_WITHIN.max(pulse.period * 3),
            None => now.saturating_sub(seen.max(since)) < UNKNOWN_PULSE,
        }
    }

    fn answer(&mut self, noticed: Duration) {
        self.answered = Some(noticed);
        self.misses = 0;
        self.missing_since = None;
        self.refused = None;
        self.trouble.clear();
    }

    fn miss(&mut self, noticed: Duration, trouble: String) {
        self.misses = self.misses.saturating_add(1);
        self.missing_since.get_or_insert(noticed);
        self.trouble = trouble;
    }

    fn refuse(&mut self, noticed: Duration, trouble: String) {
        self.miss(noticed, trouble);
        self.refused.get_or_insert(noticed);
        self.returned = true;
    }

    /// One that was asked for before the newest, and came later, tells nothing but that the server answers.
    fn take_report(&mut self, mut report: Report, asked: Duration, noticed: Duration) {
        if asked < self.asked {
            return;
        }
        if report.incarnation != 0 {
            self.life_asked = asked;
        }
        self.divergence.note(&report.executed, noticed);
        let before = self.report.take();
        if before.as_ref().is_none_or(|before| before.executed != report.executed) {
            self.executed_since = noticed;
        }
        if let Some(before) = &before {
            if report.incarnation == 0 {
                report.incarnation = before.incarnation;
            }
            let lost = !report.holds(&before.held());
            let renewed = report.incarnation != before.incarnation;
            // As long as it receives, an applier that stops and starts throws nothing away; it is seen in between, too.
            let channel = report.channels().first();
            let receives = channel.is_some_and(|channel| channel.receiver != Receiver::Stopped);
            let by_us = renewed && self.starting_applier.is_some() && receives;
            let is_later = self.life_asked == asked && self.starting_applier.is_some_and(|end| asked > end);
            if is_later || renewed && !by_us {
                self.starting_applier = None;
            }
            if (renewed && !by_us) || lost {
                self.whole = false;
                self.born = noticed;
            }
            if let (Some(old), Some(new)) = (before.channels().first(), report.channels().first())
                && (old.received != new.received || old.pulse != new.pulse)
                && new.receiver == Receiver::Running
            {
                self.sign = Some(Sign { after: self.asked, seen: noticed });
            }
        } else {
            self.born = noticed;
        }
        if report.channels().first().is_some_and(|c| c.receiver == Receiver::Running && c.applies) {
            self.returned = false;
        }
        self.report = Some(report);
        self.asked = asked;
        self.noticed = noticed;
    }
}

impl Report {
    /// Everything that the server has, executed or only in its relay log.
    pub fn held(&self) -> GtidSet {
        let mut held = self.executed.clone();
        for channel in self.channels() {
            held.merge(&channel.received);
        }
        held
    }

    /// Whether the server has all of `position`, executed or only in its relay log.
    pub fn holds(&self, position: &GtidSet) -> bool {
        self.executed.contains(position) || self.held().contains(position)
    }

    /// Whether everything that was received is executed.
    pub fn has_applied_all(&self) -> bool {
        self.channels().iter().all(|channel| self.executed.contains(&channel.received))
    }
}

/// ER_SERVER_SHUTDOWN.
const SHUTTING_DOWN: u16 = 1053;
/// How long a connected replica that shows no heartbeats is believed.
const UNKNOWN_PULSE: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::discover::Replication;
    use crate::intent::Flavour;
    use crate::topology::ServerId;

    /// Of a replica that has received and not applied up to 9.
    fn report(life: u64, receiver: Receiver, applies: bool) -> Report {
        let position = |text| GtidSet::parse(Flavour::Mariadb, text).expect("a position");
        let channel = Channel { receiver, applies, received: position("0-1-9"), ..Channel::default() };
        Report {
            executed: position("0-1-5"),
            replication: Replication::Channels(vec![channel]),
            incarnation: life,
            ..Report::default()
        }
    }

    /// Whether a whole relay log stays so over these reports, where we start the applying thread and have done so
    /// after so many of them.
    fn check(reports: &[(u64, Receiver, bool)], before_end: usize, stays: bool) {
        let mut watch = Watch::default();
        let mut seen = Duration::from_secs(1);
        let see = |watch: &mut Watch, asked, report| {
            let news = News::Report(Box::new(report));
            let observation = Observation { server: ServerId(1), asked, noticed: asked, news };
            watch.observe(observation, None);
        };
        see(&mut watch, seen, report(1, Receiver::Running, false));
        watch.compare(&report(1, Receiver::Running, false).held(), seen * 2);
        assert!(watch.whole);
        watch.starting_applier = Some(Duration::MAX);
        for (at, &(life, receiver, applies)) in reports.iter().enumerate() {
            if at == before_end {
                watch.starting_applier = watch.starting_applier.map(|_| seen);
            }
            seen += Duration::from_millis(1);
            see(&mut watch, seen, report(life, receiver, applies));
        }
        assert_eq!(watch.whole, stays, "{reports:?}");
    }

    #[test]
    fn an_applier_that_we_start_leaves_the_relay_log_whole() {
        check(&[(2, Receiver::Running, true)], 0, true);
        check(&[(2, Receiver::Running, true)], 1, true);
        // It was stopped first, for its delay to be changed, and is seen in between.
        check(&[(2, Receiver::Connecting, false), (3, Receiver::Connecting, true)], 1, true);
        // The same, by a report that was begun before.
        check(&[(2, Receiver::Running, true), (3, Receiver::Running, true)], 1, true);
        check(&[(2, Receiver::Running, true), (3, Receiver::Running, true)], 2, true);
        // Once.
        check(&[(2, Receiver::Running, true), (3, Receiver::Running, true)], 0, false);
        check(&[(1, Receiver::Running, true), (2, Receiver::Running, true)], 0, false);
        check(&[(2, Receiver::Stopped, true)], 0, false);
        check(&[(2, Receiver::Connecting, false), (3, Receiver::Stopped, true)], 1, false);
    }
}
