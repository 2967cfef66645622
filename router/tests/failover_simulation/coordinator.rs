//! The coordinator: a record, its revision, and who is registered.

use std::collections::BTreeMap;

use pointsman_router::failover::{Event, ProxyId, ReadRecord, Record, Revision, Swap, SwapId};

use crate::trace;
use crate::world::{Due, ForProxy, LEASE, Millis, World, duration};

/// The coordinator.
#[derive(Debug)]
pub(crate) struct Coordinator {
    pub(crate) up: bool,
    pub(crate) revision: u64,
    pub(crate) record: Option<Record>,
    pub(crate) registered: BTreeMap<ProxyId, Millis>,
}

impl World {
    pub(crate) fn ask_record(&mut self, proxy: usize) {
        let (at, life, asked) = (self.now + self.latency(), self.proxies[proxy].life, self.now);
        self.at(at, Due::Read { proxy, life, asked });
    }

    pub(crate) fn coordinator_reachable(&self, proxy: usize) -> bool {
        self.coordinator.up && self.connected(self.proxy_end(proxy), self.coordinator_end())
    }

    pub(crate) fn read(&mut self, proxy: usize, life: u32, asked: Millis) {
        let what = if self.coordinator_reachable(proxy) {
            let id = ProxyId(format!("x{proxy}-{life}"));
            let now = self.now;
            self.coordinator.registered.retain(|_, until| *until > now);
            self.coordinator.registered.insert(id, now + LEASE);
            let wall = (1_000_000_000 + now as i64 + self.wall_skew[proxy]).max(0) as u64;
            Event::Read(Box::new(ReadRecord {
                asked: duration(asked),
                revision: Revision(self.coordinator.revision),
                record: self.coordinator.record.clone(),
                proxies: self.coordinator.registered.keys().cloned().collect(),
                barred: None,
                wall: duration(wall),
            }))
        } else {
            let at = self.now + 300;
            let lost = Event::CoordinatorLost { reason: "no answer".into() };
            self.at(at, Due::Proxy { proxy, life, what: ForProxy::Event(Box::new(lost)) });
            return;
        };
        let at = self.now + self.latency();
        self.at(at, Due::Proxy { proxy, life, what: ForProxy::Event(Box::new(what)) });
    }

    pub(crate) fn swap(
        &mut self,
        proxy: usize,
        life: u32,
        id: SwapId,
        expected: Revision,
        record: Box<Record>,
    ) {
        let failed = Swap::Failed { reason: "no answer".into() };
        let lost_answer = self.random.below(30) == 0;
        let outcome = if !self.coordinator_reachable(proxy) {
            failed
        } else if self.coordinator.revision != expected.0 {
            Swap::Lost {
                revision: Revision(self.coordinator.revision),
                record: self.coordinator.record.clone().map(Box::new),
            }
        } else {
            let revision = self.set_record(*record);
            if lost_answer { failed } else { Swap::Won { revision } }
        };
        let slow = if matches!(outcome, Swap::Failed { .. }) { 300 } else { 0 };
        let at = self.now + self.latency() + slow;
        let event = Event::Swapped { id, outcome };
        self.at(at, Due::Proxy { proxy, life, what: ForProxy::Event(Box::new(event)) });
    }

    pub(crate) fn set_record(&mut self, record: Record) -> Revision {
        self.coordinator.revision += 1;
        let revision = Revision(self.coordinator.revision);
        if self.trace {
            eprintln!("{:6} record {}", self.now, trace::record(&record));
        }
        self.check.record(self.coordinator.record.as_ref(), &record, &self.servers);
        self.fault_at_phase(record.phase);
        self.coordinator.record = Some(record.clone());
        for proxy in 0..self.proxies.len() {
            if self.coordinator_reachable(proxy) && self.random.below(10) != 0 {
                let at = self.now + self.latency();
                let event = Event::Changed { revision, record: Box::new(record.clone()) };
                self.for_proxy(at, proxy, ForProxy::Event(Box::new(event)));
            }
        }
        revision
    }
}
