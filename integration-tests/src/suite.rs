//! The main function of a file of promises.

use std::sync::Arc;
use std::time::Duration;

use libtest_mimic::{Arguments, Failed, Trial};
use tokio::runtime::Runtime;
use tokio::time::timeout;

use crate::{Outcome, Plan, Stage};

/// Collects the tests of one file, runs them one after the other, and takes the stages down.
pub struct Suite {
    runtime: Arc<Runtime>,
    stages: Vec<Arc<Stage>>,
    trials: Vec<Trial>,
}

impl Suite {
    /// # Panics
    ///
    /// When the operating system refuses a runtime.
    #[expect(clippy::new_without_default, reason = "starts threads, which a default value should not")]
    pub fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
        let runtime = Arc::new(runtime.expect("a runtime"));
        Self { runtime, stages: Vec::new(), trials: Vec::new() }
    }

    /// Servers that the tests added with it share; started when the first of them runs, ended after the last.
    pub fn stage(&mut self, plan: Plan) -> Arc<Stage> {
        let stage = Arc::new(Stage::new(plan));
        self.stages.push(stage.clone());
        stage
    }

    /// Adds a test on a stage. Its name gets the flavour of the stage in front.
    pub fn test<F, T>(&mut self, stage: &Arc<Stage>, name: &str, test: F)
    where
        F: FnOnce(Arc<Stage>) -> T + Send + 'static,
        T: Future<Output = Outcome> + Send + 'static,
    {
        let name = format!("{:?}: {name}", stage.flavour()).to_lowercase();
        let (runtime, stage) = (self.runtime.clone(), stage.clone());
        stage.enter();
        self.trials.push(Trial::test(name, move || {
            let shown = stage.clone();
            runtime.block_on(async {
                let answer = match within_limit(&shown, test(stage)).await {
                    Ok(()) => Ok(()),
                    Err(reason) => Err(Failed::from(format!("{reason}\n{}", shown.story().await))),
                };
                shown.leave().await;
                answer
            })
        }));
    }

    /// Adds a test on a stage of its own.
    pub fn test_alone<F, T>(&mut self, plan: Plan, name: &str, test: F)
    where
        F: FnOnce(Arc<Stage>) -> T + Send + 'static,
        T: Future<Output = Outcome> + Send + 'static,
    {
        let stage = self.stage(plan);
        self.test(&stage, name, test);
    }

    /// Runs what the command line selects and ends the process.
    pub fn run(self) -> ! {
        let mut arguments = Arguments::from_args();
        // Tests of one file share servers and stop them.
        arguments.test_threads.get_or_insert(1);
        let conclusion = libtest_mimic::run(&arguments, self.trials);
        self.runtime.block_on(async {
            for stage in &self.stages {
                stage.end().await;
            }
        });
        conclusion.exit()
    }
}

/// Runs a test as a task of its own, so that a panic is an answer like others.
///
/// One that does not end tells what its servers did, and those after it on the same servers fail at once.
async fn within_limit(
    stage: &Stage,
    test: impl Future<Output = Outcome> + Send + 'static,
) -> Result<(), String> {
    if stage.is_given_up() {
        return Err("not run: a test before it on these servers did not end".to_owned());
    }
    let mut task = tokio::spawn(test);
    match timeout(TEST_LIMIT, &mut task).await {
        Ok(Ok(Ok(()))) => Ok(()),
        Ok(Ok(Err(failure))) => Err(failure.to_string()),
        Ok(Err(panicked)) => Err(panic_text(panicked)),
        Err(_) => {
            let standstill = stage.give_up(task).await;
            Err(format!("expected an end within {TEST_LIMIT:?}\n{standstill}"))
        }
    }
}

fn panic_text(error: tokio::task::JoinError) -> String {
    let Ok(payload) = error.try_into_panic() else { return "cancelled".to_owned() };
    payload
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| payload.downcast_ref::<&str>().map(|text| (*text).to_owned()))
        .unwrap_or_else(|| "panicked".to_owned())
}

/// Several times what the longest test takes where processors are scarce.
const TEST_LIMIT: Duration = Duration::from_secs(600);
