//! What proxies say of themselves in their sessions at the coordinator.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use pointsman_router::failover::{Alive, Mark, Message, ProxyId};
use pointsman_router::gtid::GtidSet;
use pointsman_router::intent::Flavour;
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use super::coordinator::{Coordinator, CoordinatorError, Sessions};

/// Says in this proxy's session what the others should know.
#[derive(Debug)]
pub(super) struct Voice {
    coordinator: Arc<dyn Coordinator>,
    /// How long one saying may take.
    limit: Duration,
    says: Mutex<Says>,
    /// One saying at a time, so that none overtakes a later one.
    turn: tokio::sync::Mutex<()>,
    /// Somebody waits for the turn and will say what is the newest then.
    waits: AtomicBool,
}

impl Voice {
    pub(super) fn new(coordinator: Arc<dyn Coordinator>, limit: Duration) -> Self {
        Self {
            coordinator,
            limit,
            says: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
            waits: AtomicBool::new(false),
        }
    }

    /// Says it soon. Whether it arrives is not known: it is said again with each renewal of the session.
    pub(super) fn tell(self: &Arc<Self>, message: &Message) {
        let is_news = self.says.lock().unwrap_or_else(PoisonError::into_inner).take(message);
        if !is_news || self.waits.swap(true, Ordering::SeqCst) {
            return;
        }
        let voice = self.clone();
        tokio::spawn(async move {
            // A coordinator that does not answer is noticed by whoever reads the record.
            drop(timeout(voice.limit, voice.say()).await);
            voice.waits.store(false, Ordering::SeqCst);
        });
    }

    /// Renews the session with what there is to say by now.
    ///
    /// # Errors
    ///
    /// When the coordinator does not answer.
    pub(super) async fn say(&self) -> Result<(), CoordinatorError> {
        let _turn = self.turn.lock().await;
        self.waits.store(false, Ordering::SeqCst);
        let text = self.says.lock().unwrap_or_else(PoisonError::into_inner).next();
        self.coordinator.session(text).await
    }
}

/// Everything that this proxy has to say; its session always carries all of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Says {
    /// Rises each time that it is said: what was read before is no sign of life.
    beat: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    fenced: Option<SaysFenced>,
    #[serde(skip_serializing_if = "Option::is_none")]
    alive: Option<SaysAlive>,
}

/// See [`Message::Fenced`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct SaysFenced {
    epoch: u64,
    /// None where it is not known.
    mark: Option<String>,
}

/// See [`Alive`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct SaysAlive {
    epoch: u64,
    reaches_primary: bool,
    reaches_all: bool,
    coordinator_lost: bool,
    mark: Option<String>,
}

impl Says {
    /// Takes a message in place of the one of its kind before; false for what has no place in a session.
    pub(super) fn take(&mut self, message: &Message) -> bool {
        match message {
            Message::Fenced { epoch, mark } => {
                let fenced = Some(SaysFenced { epoch: *epoch, mark: written(mark) });
                std::mem::replace(&mut self.fenced, fenced.clone()) != fenced
            }
            Message::Alive(alive) => {
                self.alive = Some(SaysAlive {
                    epoch: alive.epoch,
                    reaches_primary: alive.reaches_primary,
                    reaches_all: alive.reaches_all,
                    coordinator_lost: alive.coordinator_lost,
                    mark: written(&alive.mark),
                });
                true
            }
            // It is in the register already.
            Message::Record { .. } => false,
        }
    }

    /// The text of the next time that it is said.
    pub(super) fn next(&mut self) -> String {
        self.beat += 1;
        // Plain fields can always be written.
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// What has been heard from others, as far as it was passed on.
#[derive(Debug, Default)]
pub(super) struct Heard {
    beats: std::collections::BTreeMap<String, u64>,
}

impl Heard {
    /// What the sessions say that was not heard before. A session that has run out is forgotten.
    pub(super) fn news(&mut self, sessions: &Sessions, own: &ProxyId) -> Vec<(ProxyId, Message)> {
        self.beats.retain(|proxy, _| sessions.contains_key(proxy));
        let mut news = Vec::new();
        for (proxy, text) in sessions.iter().filter(|(proxy, _)| **proxy != own.0) {
            let Ok(says) = serde_json::from_str::<Says>(text) else { continue };
            let beat = self.beats.entry(proxy.clone()).or_default();
            if says.beat <= *beat {
                continue;
            }
            *beat = says.beat;
            let messages = messages(says).into_iter();
            news.extend(messages.map(|message| (ProxyId(proxy.clone()), message)));
        }
        news
    }
}

fn messages(says: Says) -> Vec<Message> {
    let alive = says.alive.map(|alive| {
        Message::Alive(Box::new(Alive {
            epoch: alive.epoch,
            reaches_primary: alive.reaches_primary,
            reaches_all: alive.reaches_all,
            coordinator_lost: alive.coordinator_lost,
            mark: read(alive.mark),
        }))
    });
    let fenced = says.fenced.map(|fenced| Message::Fenced { epoch: fenced.epoch, mark: read(fenced.mark) });
    alive.into_iter().chain(fenced).collect()
}

fn written(mark: &Mark) -> Option<String> {
    mark.known().map(ToString::to_string)
}

/// A mark that cannot be read is none that is known.
fn read(text: Option<String>) -> Mark {
    let Some(text) = text else { return Mark::Unknown };
    // Only MySQL's sets have colons.
    let flavour = if text.contains(':') { Flavour::Mysql } else { Flavour::Mariadb };
    GtidSet::parse(flavour, &text).map_or(Mark::Unknown, Mark::Known)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(says: &mut Says) -> Sessions {
        [("other".to_owned(), says.next()), ("own".to_owned(), says.next())].into()
    }

    #[test]
    fn what_is_said_is_understood() {
        let own = ProxyId("own".into());
        let position = GtidSet::parse(Flavour::Mariadb, "0-1-7").unwrap();
        for mark in [Mark::Unknown, Mark::Known(position), Mark::Known(GtidSet::default())] {
            let fenced = Message::Fenced { epoch: 7, mark: mark.clone() };
            let alive = Alive { epoch: 6, reaches_primary: true, mark, ..Alive::default() };
            let alive = Message::Alive(Box::new(alive));
            let mut says = Says::default();
            assert!(says.take(&fenced) && says.take(&alive));
            let news = Heard::default().news(&session(&mut says), &own);
            let other = ProxyId("other".into());
            assert_eq!(news, [(other.clone(), alive), (other, fenced)]);
        }
        let silent = [("other".to_owned(), String::new())].into();
        assert_eq!(Heard::default().news(&silent, &own), []);
    }

    #[test]
    fn only_what_is_said_anew_is_a_sign_of_life() {
        let (own, mut heard, mut says) = (ProxyId("own".into()), Heard::default(), Says::default());
        assert!(says.take(&Message::Alive(Box::default())));
        let first = session(&mut says);
        let second = session(&mut says);
        assert_eq!(heard.news(&first, &own).len(), 1);
        assert_eq!(heard.news(&first, &own).len(), 0);
        assert_eq!(heard.news(&second, &own).len(), 1);
        // An answer that was overtaken.
        assert_eq!(heard.news(&first, &own).len(), 0);
        // A process that starts again has another name; one that is gone leaves nothing behind.
        heard.news(&Sessions::new(), &own);
        assert!(heard.beats.is_empty());
    }
}
