//! Learning again out of the lake: at the start, where no snapshot of the model can be used, and every few hours as a
//! candidate beside the model in use, on a thread of its own.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use foretide_flow::Timestamp;
use foretide_model::{Config, Model, ModelError, Relearned};
use tokio::task::JoinHandle;

/// Between two candidates. One costs some seconds of one core for each million accesses of the lake.
const CANDIDATE_EVERY: Duration = Duration::from_secs(6 * 3600);

type Candidate = Result<(Model, Relearned), ModelError>;

/// See the module.
pub struct Relearning {
    lake: PathBuf,
    config: Config,
    task: Option<JoinHandle<Candidate>>,
    began: Instant,
}

impl Relearning {
    /// From the lake in this folder.
    pub fn new(lake: PathBuf, config: Config) -> Self {
        Self { lake, config, task: None, began: Instant::now() }
    }

    /// A model that knows what the lake tells.
    ///
    /// # Errors
    /// [`ModelError::Setting`] for settings that cannot be meant.
    pub async fn anew(&self) -> Result<Model, ModelError> {
        let mut model = Model::new(self.config.clone())?;
        let lake = files(&self.lake);
        if lake.is_empty() {
            return Ok(model);
        }
        let learning = tokio::task::spawn_blocking(move || {
            let learned = model.learn_from_lake(&lake);
            (model, learned)
        });
        match learning.await {
            Ok((model, learned)) => {
                tell(&learned);
                Ok(model)
            }
            Err(error) => {
                tracing::error!(%error, "learning from the lake ended before its time; the model starts anew");
                Model::new(self.config.clone())
            }
        }
    }

    /// Begins a candidate beside the model if it is time, and lets the model take over what the last one tells better.
    pub async fn turn(&mut self, model: &mut Model) {
        if self.task.as_ref().is_some_and(JoinHandle::is_finished)
            && let Some(task) = self.task.take()
        {
            match task.await {
                Ok(Ok((candidate, learned))) => {
                    tell(&learned);
                    for trial in model.adopt(&candidate) {
                        tracing::info!(workload = %trial.workload, runs = ?trial.runs, worth = ?trial.worth,
                            adopted = trial.adopted, "a candidate was tried on the newest run");
                    }
                }
                Ok(Err(error)) => tracing::error!(%error, "no candidate could be learned from the lake"),
                Err(error) => tracing::error!(%error, "learning a candidate from the lake ended before its time"),
            }
        }
        if self.task.is_none() && self.began.elapsed() > CANDIDATE_EVERY {
            self.began = Instant::now();
            match model.snapshot() {
                Ok(snapshot) => {
                    let (config, lake) = (self.config.clone(), files(&self.lake));
                    let learning = move || Model::candidate(config, &snapshot, &lake, Timestamp::now());
                    self.task = Some(tokio::task::spawn_blocking(learning));
                }
                Err(error) => tracing::error!(%error, "no candidate is learned: the model cannot be copied"),
            }
        }
    }
}

fn tell(learned: &Relearned) {
    tracing::info!(files = learned.files, accesses = learned.accesses, "learned from the lake");
    for (file, error) in &learned.unusable {
        tracing::warn!(file = %file.display(), %error, "a file of the lake was left out");
    }
}

/// The batches of the lake; none where it cannot be read, and that is told.
fn files(lake: &std::path::Path) -> Vec<PathBuf> {
    let entries = match std::fs::read_dir(lake) {
        Ok(entries) => entries,
        Err(error) => {
            tracing::warn!(lake = %lake.display(), %error, "the lake cannot be read");
            return Vec::new();
        }
    };
    let paths = entries.flatten().map(|entry| entry.path());
    paths.filter(|path| path.extension().is_some_and(|e| e == "parquet")).collect()
}
