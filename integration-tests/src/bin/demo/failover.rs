//! The acts in which the primary's place moves.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pointsman_integration_tests::sandbox::Server;
use pointsman_integration_tests::{Failure, Toll, eventually, run};
use serde_json::Value;
use tokio::time::Instant;

use crate::SETTLE_LIMIT;
use crate::show::{Show, say};

impl Show {
    /// Kills the primary under live traffic; answers who took its place.
    pub(crate) async fn primary_dies(&mut self, primary: &Server) -> Result<Arc<Server>, Failure> {
        self.open(&format!(
            "{}, the primary, is killed (SIGKILL). A replica takes its place.",
            primary.name()
        ))?;
        let (killed, wall) = (Instant::now(), SystemTime::now());
        primary.kill().await?;
        let seen = self.watch(4).await;
        let successor = self.proxy.primary(&self.sandbox).await?;
        let toll = Toll::of(&self.traffic, killed, &successor).await?;
        timeline(&self.proxy.last_change().await?, wall, &toll);
        self.expect(successor.name() != primary.name(), &format!("{} is the primary now", successor.name()));
        self.expect(
            toll.first.is_some_and(|first| first < PROMISED),
            "acknowledged writes again within three seconds",
        );
        self.count(&toll, &successor);
        self.expect(seen.tally.reads > 0 && seen.tally.failed_reads == 0, "reads went on the whole time");
        Ok(successor)
    }

    fn count(&mut self, toll: &Toll, successor: &Server) {
        let (acknowledged, lost, failed) = (toll.acknowledged, toll.lost.len(), toll.failed.len());
        say(&format!(
            "  since then {acknowledged} writes were acknowledged; {failed} were answered that nobody knows, of which {} \
             are there",
            toll.failed_but_there
        ));
        self.expect(lost == 0, &format!("{lost} acknowledged rows are missing on {}", successor.name()));
        self.expect(
            toll.not_unknown().next().is_none(),
            "every error says that the outcome is unknown (1158)",
        );
        self.expect(failed <= self.traffic.writers(), "at most one error for each write in flight");
    }

    pub(crate) async fn old_primary_returns(&mut self, old: &Server) -> Result<(), Failure> {
        self.open(&format!("{} is started again. It becomes a replica by itself.", old.name()))?;
        let started = Instant::now();
        old.start().await?;
        say(&format!("  it accepts connections after {} ms", started.elapsed().as_millis()));
        self.proxy.settled(&self.sandbox, SETTLE_LIMIT).await;
        say(&format!(
            "  it has caught up, serves reads and acknowledges after {} ms",
            started.elapsed().as_millis()
        ));
        let seen = self.watch(3).await;
        self.serves_new_clients(old).await?;
        self.no_failures(&seen);
        Ok(())
    }

    /// The planned way, by the command that operators use.
    pub(crate) async fn promote_back(&mut self, target: &Server) -> Result<(), Failure> {
        let command = format!("pointsman promote {} --yes", target.name());
        self.open(&format!("{} gets its place back in an orderly way: {command}", target.name()))?;
        let began = Instant::now();
        let ran = run(&["promote", target.name(), "--yes", "--endpoint", &self.proxy.endpoint()], "").await?;
        for text in ran.err.lines().chain(ran.out.lines()) {
            say(&format!("  | {text}"));
        }
        self.expect(ran.code == 0, "the command has succeeded");
        let enough = self.traffic.tally().writes + 50;
        eventually("writes go on", SETTLE_LIMIT, async || self.traffic.tally().writes > enough).await;
        let toll = Toll::of(&self.traffic, began, target).await?;
        say(&format!("  the longest time without an acknowledged write was {} ms", toll.pause.as_millis()));
        self.expect(toll.lost.is_empty() && toll.failed.is_empty(), "no failed and no lost write");
        self.proxy.settled(&self.sandbox, SETTLE_LIMIT).await;
        Ok(())
    }
}

/// The moments of a change in milliseconds since the kill, which is when clients noticed.
fn timeline(change: &Value, killed: SystemTime, toll: &Toll) {
    let killed = killed.duration_since(UNIX_EPOCH).unwrap_or_default();
    let killed = u64::try_from(killed.as_millis()).unwrap_or(0);
    say("  milliseconds since the kill:");
    for moment in change["phases"].as_array().into_iter().flatten() {
        let at = moment["at_ms"].as_u64().unwrap_or(0).saturating_sub(killed);
        say(&format!("  {at:>6}  {}", moment["text"].as_str().unwrap_or_default()));
    }
    if let Some(first) = toll.first {
        say(&format!("  {:>6}  a client has the first acknowledged write", first.as_millis()));
    }
}

/// A machine that has nothing else to do takes a quarter of a second.
const PROMISED: Duration = Duration::from_secs(3);
