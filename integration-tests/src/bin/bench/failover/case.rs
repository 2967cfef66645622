//! What is done to the primary, and what is measured.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::ValueEnum;
use pointsman_integration_tests::sandbox::Server;
use pointsman_integration_tests::{Failure, Toll, run};
use serde_json::Value;
use tokio::time::Instant;

use super::stage::Stage;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Case {
    Kill,
    Freeze,
    Switchover,
}

/// What one run brought.
#[derive(Debug)]
pub(crate) struct Run {
    /// To the first acknowledged write of the new primary; of a switchover the longest pause between two writes.
    pub(crate) time: Duration,
    pub(crate) acknowledged: usize,
    pub(crate) lost: usize,
    /// Writes that ended in an error.
    pub(crate) failed: usize,
    /// Of those, whose outcome was not said to be unknown.
    pub(crate) wrong: usize,
    pub(crate) failed_reads: u64,
    /// When each phase was over, since the beginning.
    pub(crate) phases: Vec<(&'static str, Duration)>,
    /// Everything that the proxy tells of it, since it noticed.
    pub(crate) moments: String,
}

impl Case {
    pub(crate) async fn run(self, stage: &Stage) -> Result<Run, Failure> {
        let primary = stage.ready().await?;
        let reads = stage.traffic.tally();
        let (began, wall) = (Instant::now(), SystemTime::now());
        let successor = match self {
            Self::Kill => {
                primary.kill().await?;
                stage.replaced(&primary).await?
            }
            Self::Freeze => {
                primary.freeze().await?;
                stage.replaced(&primary).await?
            }
            Self::Switchover => Self::switch_over(stage, &primary).await?,
        };
        let toll = Toll::of(&stage.traffic, began, &successor).await?;
        let change = stage.proxy.last_change().await?;
        let failed_reads = stage.traffic.tally().since(&reads).failed_reads;
        // A small machine writes faster than a server that is set up anew catches up.
        let _at_rest = stage.traffic.pause().await;
        match self {
            Self::Kill => stage.proxy.bring_back(&stage.sandbox, &primary).await?,
            Self::Freeze => {
                primary.kill().await?;
                stage.proxy.bring_back(&stage.sandbox, &primary).await?;
            }
            Self::Switchover => {}
        }
        let first = toll.first.ok_or("nothing was written to the new primary")?;
        Ok(Run {
            time: if self == Self::Switchover { toll.pause } else { first },
            acknowledged: toll.acknowledged,
            lost: toll.lost.len(),
            failed: toll.failed.len(),
            wrong: toll.not_unknown().count(),
            failed_reads,
            phases: phases(&change, wall),
            moments: moments(&change),
        })
    }

    async fn switch_over(stage: &Stage, primary: &Server) -> Result<Arc<Server>, Failure> {
        let servers = stage.sandbox.servers();
        let at = servers.iter().position(|server| server.name() == primary.name()).unwrap_or(0);
        let target = servers[(at + 1) % servers.len()].name();
        let ran = run(&["promote", target, "--yes", "--endpoint", &stage.proxy.endpoint()], "").await?;
        if ran.code != 0 {
            return Err(format!("promote {target} ended with {}:\n{}{}", ran.code, ran.err, ran.out).into());
        }
        stage.replaced(primary).await
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kill => "kill",
            Self::Freeze => "freeze",
            Self::Switchover => "switchover",
        })
    }
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} ms, {} rows acknowledged, {} lost, {} unknown;",
            self.time.as_millis(),
            self.acknowledged,
            self.lost,
            self.failed
        )?;
        for (phase, at) in &self.phases {
            write!(f, " {phase} {}", at.as_millis())?;
        }
        Ok(())
    }
}

/// The last moment of each phase, on the wall clock, which proxy and clients share here.
fn phases(change: &Value, began: SystemTime) -> Vec<(&'static str, Duration)> {
    let began = began.duration_since(UNIX_EPOCH).unwrap_or_default();
    let moments = || change["phases"].as_array().into_iter().flatten();
    let at = |moment: &Value| {
        Duration::from_millis(moment["at_ms"].as_u64().unwrap_or_default()).saturating_sub(began)
    };
    let of_kind = |kind: &str| moments().find(|moment| moment["kind"] == kind).map(at);
    let step = |name: &str| {
        let is_it = |moment: &&Value| {
            moment["kind"] == "step" && moment["text"].as_str().is_some_and(|text| text.starts_with(name))
        };
        let chosen = of_kind("chosen").filter(|_| name == STOP_RECEIVER);
        moments().filter(is_it).map(at).filter(|at| chosen.is_none_or(|chosen| *at <= chosen)).max()
    };
    let all = [
        ("detected", of_kind("verdict")),
        ("claimed", of_kind("fencing")),
        ("fenced", of_kind("fenced")),
        ("stopped", step(STOP_RECEIVER)),
        ("chosen", of_kind("chosen")),
        ("promoted", step("promote on")),
        ("proven", step("write epoch on")),
        ("recorded", of_kind("active")),
        ("writable", of_kind("open")),
    ];
    all.into_iter().filter_map(|(phase, at)| Some((phase, at?))).collect()
}

fn moments(change: &Value) -> String {
    let all = change["phases"].as_array().into_iter().flatten();
    let lines =
        all.map(|moment| format!("    {:>5} {}", moment["ms"], moment["text"].as_str().unwrap_or_default()));
    lines.collect::<Vec<_>>().join("\n")
}

const STOP_RECEIVER: &str = "stop receiver on";
