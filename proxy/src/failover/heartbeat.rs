//! A small write on the primary, again and again while clients write: pings do not tell that writes have stopped.
//!
//! One proxy does it, and only while the primary's position moves and a little after, or while a commit hangs, so the
//! binary log of an idle server stays silent. The statement writes nothing on a server that is read-only or of another
//! epoch. A lock that a client took is waited for in silence.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use pointsman_router::failover::{Event, Heartbeat, Stall};
use pointsman_router::topology::ServerId;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until};

use super::hand::Realm;
use super::stall::{self, Waits, Watcher};
use super::words;
use crate::cluster::connection::ConnectionError;
use crate::cluster::subject::{ProbeError, Subject};
use crate::cluster::{Record, epoch};

/// On which server, and in which epoch; none where another proxy does it, or nobody.
pub(super) type Target = Option<(ServerId, u64)>;

/// See the module.
#[derive(Debug)]
pub(super) struct Heart {
    realm: Arc<Realm>,
    target: watch::Receiver<Target>,
    events: mpsc::Sender<Event>,
}

impl Heart {
    /// Starts the task, which follows what is sent here and tells `events` how the writes went.
    pub(super) fn start(realm: &Arc<Realm>, events: &mpsc::Sender<Event>) -> watch::Sender<Target> {
        let (sender, target) = watch::channel(None);
        let heart = Self { realm: realm.clone(), target, events: events.clone() };
        tokio::spawn(heart.run());
        sender
    }

    async fn run(mut self) {
        loop {
            let target = *self.target.borrow_and_update();
            let mut changes = self.target.clone();
            let changed = tokio::select! {
                changed = changes.changed() => changed,
                () = self.beat(target) => Ok(()),
            };
            if changed.is_err() {
                return;
            }
        }
    }

    /// Until a connection fails, of which the probes know more than a heartbeat.
    async fn beat(&self, target: Target) {
        let Some((server, epoch)) = target else { return std::future::pending().await };
        if let Err(error) = self.beat_on(server, epoch).await {
            tracing::debug!(server = self.realm.name(server), %error, "no heartbeat");
        }
        sleep(AGAIN).await;
    }

    async fn beat_on(&self, server: ServerId, epoch: u64) -> Result<(), ProbeError> {
        let address = self.realm.address(server);
        let mut writer = Subject::meet(&self.realm.account, &address, LIMIT).await?;
        let mut watcher = Watcher::new(&self.realm.account, address, writer.flavour.flavour());
        let mut pace = Pace::new(words::logged(writer.flavour.flavour()));
        let mut due = Instant::now();
        let mut failing = None;
        loop {
            due = Instant::now().max(due + EVERY);
            sleep_until(due).await;
            if failing.is_none() && !pace.is_due(&mut watcher).await? {
                continue;
            }
            let written = self.write(server, epoch, &mut writer, &mut watcher).await?;
            failing = (written == Written::NoRoom).then(|| failing.unwrap_or_else(Instant::now));
            let outcome = match (written, failing) {
                (Written::Done, _) => Heartbeat::Written,
                (Written::Refused(reason), _) => Heartbeat::Refused { reason },
                (Written::NoColumn, _) => {
                    epoch::add_beat(&mut writer.connection, LIMIT).await?;
                    continue;
                }
                (Written::NoRoom, since) => Heartbeat::Stalled {
                    since: since.map_or(Duration::ZERO, |since| since.elapsed()),
                    cause: Stall::DiskFull,
                },
            };
            self.tell(server, epoch, outcome).await;
            pace.wrote(&mut watcher).await?;
        }
    }

    /// Writes once; says meanwhile that it is still waiting.
    async fn write(
        &self,
        server: ServerId,
        epoch: u64,
        writer: &mut Subject,
        watcher: &mut Watcher<'_>,
    ) -> Result<Written, ConnectionError> {
        let (thread, began) = (writer.connection.thread_id(), Instant::now());
        let sql = epoch::beat(epoch);
        let mut writing = pin!(writer.connection.results(&sql, FOREVER));
        loop {
            let look = async {
                sleep((began.elapsed() / LOOKS_EACH_TIME).clamp(LOOK_EVERY, LOOK_SLOWLY)).await;
                (began.elapsed(), watcher.cause(thread, began.elapsed()).await)
            };
            let done = tokio::select! {
                // What has ended does not wait any more, whatever was seen of it before.
                biased;
                done = &mut writing => done,
                (since, waits) = look => {
                    let outcome = match waits {
                        Waits::For(cause) => Heartbeat::Stalled { since, cause },
                        Waits::ForALock => Heartbeat::Refused { reason: "a client holds a lock".into() },
                        Waits::Unseen(reason) => Heartbeat::Refused { reason },
                    };
                    self.tell(server, epoch, outcome).await;
                    continue;
                }
            };
            return match done {
                Ok(answers) if changed_one(&answers) => Ok(Written::Done),
                Ok(_) => {
                    let reason = format!("the server is read-only, or has no row of epoch {epoch}");
                    Ok(Written::Refused(reason))
                }
                Err(ConnectionError::Server { code: BAD_FIELD, .. }) => Ok(Written::NoColumn),
                Err(ConnectionError::Server { message, .. }) if stall::is_full(&message) => {
                    Ok(Written::NoRoom)
                }
                Err(ConnectionError::Server { message, .. }) => Ok(Written::Refused(message)),
                Err(error) => Err(error),
            };
        }
    }

    async fn tell(&self, server: ServerId, epoch: u64, outcome: Heartbeat) {
        drop(self.events.send(Event::Heartbeat { server, epoch, outcome }).await);
    }
}

/// How a heartbeat was answered.
#[derive(Debug, PartialEq, Eq)]
enum Written {
    Done,
    Refused(String),
    /// The disk is full, and the server says so instead of waiting.
    NoRoom,
    /// The table was made before there were heartbeats.
    NoColumn,
}

/// When to write.
#[derive(Debug)]
struct Pace {
    position_sql: &'static str,
    /// After our own last write.
    position: String,
    /// When somebody else wrote, or seemed about to.
    moved: Instant,
    looked: Instant,
}

impl Pace {
    /// It begins with writes: whoever did this before may have been waiting for one.
    fn new(position_sql: &'static str) -> Self {
        Self { position_sql, position: String::new(), moved: Instant::now(), looked: Instant::now() }
    }

    async fn is_due(&mut self, watcher: &mut Watcher<'_>) -> Result<bool, ConnectionError> {
        let position = position(watcher, self.position_sql).await?;
        if position != self.position {
            self.position = position;
            self.moved = Instant::now();
        } else if self.moved.elapsed() > GOES_ON_FOR && self.looked.elapsed() > LOOK_AT_REST_EVERY {
            // Of a write that came when the server could not take it no more is to be seen than this.
            self.looked = Instant::now();
            if watcher.a_commit_hangs().await? {
                self.moved = Instant::now();
            }
        }
        Ok(self.moved.elapsed() <= GOES_ON_FOR)
    }

    /// What moves from here on was not the heartbeat.
    async fn wrote(&mut self, watcher: &mut Watcher<'_>) -> Result<(), ConnectionError> {
        self.position = position(watcher, self.position_sql).await?;
        Ok(())
    }
}

async fn position(watcher: &mut Watcher<'_>, sql: &str) -> Result<String, ConnectionError> {
    let rows = watcher.rows(sql).await?;
    Ok(rows.first().and_then(|row| row.at(0)).unwrap_or_default())
}

/// The last answer is how many rows the statement before it has changed.
fn changed_one(answers: &[Vec<Record>]) -> bool {
    let count = answers.last().and_then(|rows| rows.first()).and_then(|row| row.at(0));
    count.is_some_and(|count| count == "1")
}

/// What is written last may be the one thing that a killed primary has alone, so it is not written more often than needed.
const EVERY: Duration = Duration::from_millis(500);
/// How long it goes on after the last write of anybody else.
const GOES_ON_FOR: Duration = Duration::from_secs(2);
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// The longer it takes, the less often it is looked at.
const LOOKS_EACH_TIME: u32 = 10;
const LOOK_SLOWLY: Duration = Duration::from_millis(500);
/// ER_BAD_FIELD_ERROR.
const BAD_FIELD: u16 = 1054;
const LOOK_AT_REST_EVERY: Duration = Duration::from_secs(1);
/// A login, and a question before it is asked.
const LIMIT: Duration = Duration::from_secs(1);
/// The write itself is waited for until its epoch ends.
const FOREVER: Duration = Duration::from_secs(365 * 24 * 3600);
const AGAIN: Duration = Duration::from_secs(1);
