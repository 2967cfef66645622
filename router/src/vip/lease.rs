//! Whose the virtual address is: a lease in a register that is changed by compare-and-swap only.
//!
//! No clock is compared with another one. The owner counts its lease from before it asked for it, everybody else from
//! when they first saw that it was prolonged, which is later: so the owner has given the address away before anybody
//! takes it. Who comes back does not get it back.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::failover::Revision;

/// One proxy's view of the lease. Times are since any moment of its own.
#[derive(Debug)]
pub struct Lease {
    name: String,
    length: Duration,
    seen: Option<Seen>,
    /// When the swap was asked for that gave us what we have.
    granted: Option<Duration>,
}

/// The newest value of the register that was heard of.
#[derive(Debug)]
struct Seen {
    revision: Revision,
    terms: Terms,
    since: Duration,
}

/// What is in the register.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Terms {
    /// Empty while it is nobody's.
    pub owner: String,
    /// Who gave it up, and lets others go first.
    from: String,
    lease_ms: u64,
    /// Makes another value of each prolongation.
    beat: u64,
}

impl Terms {
    /// Those of a version that is not known: they run out like any other.
    pub fn unknown() -> Self {
        Self { owner: "?".to_owned(), ..Self::default() }
    }
}

/// What to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Swap {
    pub expected: Revision,
    pub terms: Terms,
}

impl Lease {
    /// `name` is another one for each life of each proxy.
    pub fn new(name: String, length: Duration) -> Self {
        Self { name, length, seen: None, granted: None }
    }

    /// Takes what the register has, the default if it has nothing; older news changes nothing.
    pub fn hear(&mut self, revision: Revision, terms: Terms, now: Duration) {
        if self.seen.as_ref().is_some_and(|seen| seen.revision >= revision) {
            return;
        }
        if terms.owner != self.name {
            self.granted = None;
        }
        self.seen = Some(Seen { revision, terms, since: now });
    }

    /// What to write now: to take the address, which only somebody who is `able` to serve it may, or to keep it.
    pub fn swap(&self, able: bool, now: Duration) -> Option<Swap> {
        let seen = self.seen.as_ref()?;
        if self.due(able).is_none_or(|due| due > now) {
            return None;
        }
        let beat = seen.terms.beat.wrapping_add(1);
        Some(self.write(Terms { owner: self.name.clone(), beat, ..Terms::default() }))
    }

    /// When [`Lease::swap`] has something to write, unless something is heard before.
    pub fn due(&self, able: bool) -> Option<Duration> {
        let seen = self.seen.as_ref()?;
        if let Some(granted) = self.granted {
            return able.then(|| granted + self.length / RENEWALS);
        }
        if !able {
            return None;
        }
        let terms = &seen.terms;
        let is_free = terms.owner.is_empty() && terms.from != self.name;
        // Clocks that run at different speeds are allowed for.
        let length = Duration::from_millis(terms.lease_ms).max(self.length);
        Some(if is_free { seen.since } else { seen.since + length + length / DRIFT })
    }

    /// What to write to give the address up; none where it is not ours. It is not ours from now on, whatever becomes of
    /// the swap.
    pub fn give_up(&mut self) -> Option<Swap> {
        self.granted.take()?;
        let beat = self.seen.as_ref()?.terms.beat.wrapping_add(1);
        Some(self.write(Terms { from: self.name.clone(), beat, ..Terms::default() }))
    }

    /// What to write after [`Lease::give_up`] where the register still says that it is ours: a renewal that was done without
    /// our hearing of it came in between.
    pub fn still_ours(&self) -> Option<Swap> {
        let seen = self.seen.as_ref().filter(|seen| seen.terms.owner == self.name)?;
        if self.granted.is_some() {
            return None;
        }
        let beat = seen.terms.beat.wrapping_add(1);
        Some(self.write(Terms { from: self.name.clone(), beat, ..Terms::default() }))
    }

    fn write(&self, terms: Terms) -> Swap {
        let lease_ms = self.length.as_millis().try_into().unwrap_or(u64::MAX);
        let terms = Terms { lease_ms, ..terms };
        let expected = self.seen.as_ref().map_or(Revision(0), |seen| seen.revision);
        Swap { expected, terms }
    }

    /// The swap that was asked for at `asked` was done.
    pub fn won(&mut self, swap: Swap, revision: Revision, asked: Duration, now: Duration) {
        if self.seen.as_ref().is_some_and(|seen| seen.revision > revision) {
            return;
        }
        self.granted = (swap.terms.owner == self.name).then_some(asked);
        self.seen = Some(Seen { revision, terms: swap.terms, since: now });
    }

    /// Until when the address is ours, unless it is prolonged.
    pub fn until(&self) -> Option<Duration> {
        self.granted.map(|granted| granted + self.length)
    }

    /// Whose it is, as far as has been heard; none while it is nobody's.
    pub fn owner(&self) -> Option<&str> {
        self.seen.as_ref().map(|seen| seen.terms.owner.as_str()).filter(|owner| !owner.is_empty())
    }
}

/// How often a lease is prolonged within its length.
const RENEWALS: u32 = 3;
/// One part of this many that a clock may be slower than another one.
const DRIFT: u32 = 20;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LENGTH: Duration = Duration::from_millis(3000);

    /// The register, as linearizable as the real ones.
    #[derive(Debug, Default)]
    struct Register {
        revision: u64,
        terms: Terms,
    }

    /// A proxy whose answers take time, and which can stand still.
    #[derive(Debug)]
    struct Proxy {
        lease: Lease,
        /// Its clock is so much ahead.
        skew: Duration,
        /// A swap that was done, and when its answer comes.
        answer: Option<(Swap, u64, Duration, Duration)>,
        frozen_until: Duration,
        cut_off_until: Duration,
    }

    impl Proxy {
        fn new(number: u64) -> Self {
            Self {
                lease: Lease::new(format!("proxy-{number}"), LENGTH),
                skew: Duration::from_secs(number * 1000),
                answer: None,
                frozen_until: Duration::ZERO,
                cut_off_until: Duration::ZERO,
            }
        }

        fn step(&mut self, register: &mut Register, now: Duration, delay: Duration) {
            if now < self.frozen_until {
                return;
            }
            let own = now + self.skew;
            match self.answer.take() {
                Some((swap, revision, asked, due)) if due <= now => {
                    self.lease.won(swap, Revision(revision), asked, own);
                }
                waiting @ Some(_) => {
                    self.answer = waiting;
                    return;
                }
                None => {}
            }
            if now < self.cut_off_until {
                return;
            }
            self.lease.hear(Revision(register.revision), register.terms.clone(), own);
            let Some(swap) = self.lease.swap(true, own) else { return };
            if swap.expected.0 == register.revision {
                register.revision += 1;
                register.terms = swap.terms.clone();
                self.answer = Some((swap, register.revision, own, now + delay));
            }
        }

        fn holds(&self, now: Duration) -> bool {
            self.lease.until().is_some_and(|until| until > now + self.skew)
        }
    }

    proptest! {
        #[test]
        fn never_two_own_it_and_somebody_does_when_faults_stop(
            faults in prop::collection::vec((0_usize..3, 0_u64..400, 0_u64..9000, 0_u8..3), 0..40),
            delays in prop::collection::vec(0_u64..1500, 1..20),
        ) {
            let mut register = Register::default();
            let mut proxies: Vec<Proxy> = (0..3).map(Proxy::new).collect();
            let mut faults = faults.into_iter();
            let mut next_fault = Duration::ZERO;
            let mut quiet_since = Duration::ZERO;
            for tick in 0..6000_u64 {
                let now = Duration::from_millis(tick * 10);
                if now >= next_fault && let Some((who, pause, length, kind)) = faults.next() {
                    next_fault = now + Duration::from_millis(pause);
                    let end = now + Duration::from_millis(length);
                    quiet_since = quiet_since.max(end);
                    match kind {
                        0 => proxies[who].frozen_until = end,
                        1 => proxies[who].cut_off_until = end,
                        _ => {
                            let own = now + proxies[who].skew;
                            if let Some(swap) = proxies[who].lease.give_up().filter(|s| s.expected.0 == register.revision) {
                                register.revision += 1;
                                register.terms = swap.terms.clone();
                                proxies[who].lease.won(swap, Revision(register.revision), own, own);
                            }
                        }
                    }
                }
                for (at, proxy) in proxies.iter_mut().enumerate() {
                    let delay = delays[(tick as usize + at) % delays.len()];
                    proxy.step(&mut register, now, Duration::from_millis(delay));
                }
                let owners = proxies.iter().filter(|proxy| proxy.holds(now)).count();
                prop_assert!(owners <= 1, "{owners} own it at {now:?}: {proxies:?}");
                if now > quiet_since + LENGTH * 4 {
                    prop_assert_eq!(owners, 1, "nobody owns it at {:?}: {:?}", now, proxies);
                }
            }
        }
    }

    #[test]
    fn what_a_renewal_did_unheard_is_undone() {
        let second = Duration::from_secs;
        let mut one = Lease::new("one".into(), LENGTH);
        one.hear(Revision(0), Terms::default(), second(0));
        let swap = one.swap(true, second(0)).expect("nobody has it");
        one.won(swap, Revision(1), second(0), second(0));
        let renewed = one.swap(true, second(1)).expect("a renewal");
        assert_eq!(one.still_ours(), None);
        assert_eq!(one.give_up().expect("it is ours").expected, Revision(1));
        one.hear(Revision(2), renewed.terms, second(1));
        let again = one.still_ours().expect("the register says so");
        assert_eq!((again.expected, again.terms.owner.as_str()), (Revision(2), ""));
        one.won(again, Revision(3), second(1), second(1));
        assert_eq!((one.still_ours(), one.until(), one.owner()), (None, None, None));
    }

    #[test]
    fn whoever_gives_it_up_lets_others_go_first() {
        let second = Duration::from_secs;
        let (mut one, mut two) = (Lease::new("one".into(), LENGTH), Lease::new("two".into(), LENGTH));
        one.hear(Revision(0), Terms::default(), second(0));
        let swap = one.swap(true, second(0)).expect("nobody has it");
        one.won(swap.clone(), Revision(1), second(0), second(0));
        assert_eq!(one.until(), Some(LENGTH));
        two.hear(Revision(1), swap.terms, second(0));
        assert_eq!((two.swap(true, second(3)), two.owner()), (None, Some("one")));
        let swap = one.give_up().expect("it has it");
        one.won(swap.clone(), Revision(2), second(1), second(1));
        assert_eq!((one.until(), one.swap(true, second(3))), (None, None));
        two.hear(Revision(2), swap.terms, second(1));
        assert_eq!(two.swap(false, second(1)), None, "it could not serve it");
        assert!(two.swap(true, second(1)).is_some());
        assert!(one.swap(true, second(5)).is_some(), "nobody else wanted it");
    }
}
