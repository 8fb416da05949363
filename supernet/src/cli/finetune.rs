//! `supernet finetune`: an exported network trained further.

use std::path::PathBuf;
use std::time::Duration;

use base::timing::{peak_rss_mb, unix_seconds};
use command::{Common, Ending, duration, grouped, result_path, stop_flag, within};
use kernels::Backend;
use network::checkpoint::Supernet;
use network::data::{Sampling, Split};
use network::eval::Accuracy;
use network::model_folder::ModelFolder;
use serde_json::{Value, json};
use supernet::train::{
    FineTuneSettings, FineTuneTask, FineTuner, LogLine, MemoryEstimate, RunFolder, RunOutcome, TrainConfig,
    WeightRule, open_fine_tune_folder,
};
use tracing::{info, warn};

use super::arguments::{Compute, Data, smaller_batch};
use super::memory::{self, Room};
use super::progress::{StepBar, interrupted, report_beginning, report_differences};

/// Train an exported network further, into a folder of the same kind
#[derive(clap::Args)]
#[command(after_help = "Example:
  supernet finetune model --data digits --out tuned --epochs 10
  supernet finetune model --data digits --out tuned --epochs 10 --resume
  extract predict tuned digit.png
  supernet finetune model --new-head --data folder:images --out mine

The learning rate rises over the first twenty-fifth of the steps and then falls along a cosine to 0.
At the end, batch norms are recalibrated on training images, and top-1 is measured on val.")]
pub struct Arguments {
    /// The exported network, written by `extract export` or `supernet finetune`
    #[arg(value_name = "FOLDER")]
    model: PathBuf,
    #[command(flatten)]
    data: Data,
    /// Folder for plan, log and checkpoints, and at the end for the fine-tuned network
    #[arg(long, value_name = "FOLDER2", value_parser = result_path())]
    out: PathBuf,
    /// A supernet or teacher file whose largest network teaches in addition to the labels
    #[arg(long, value_name = "FILE")]
    teacher: Option<PathBuf>,
    /// Make a new classifier for the classes of the images; the first tenth of the steps trains it alone
    #[arg(long)]
    new_head: bool,
    /// Passes over the training images
    #[arg(long, default_value_t = FineTuneSettings::default().epochs, value_name = "F")]
    epochs: f64,
    /// Learning rate after warm-up [default: 0.24 for 2,048 images per step, in proportion to the batch]
    #[arg(long, value_name = "F")]
    lr: Option<f64>,
    /// Images per step
    #[arg(long, default_value_t = FineTuneSettings::default().batch, value_name = "N", value_parser = within(1..=1_000_000))]
    batch: usize,
    /// Show each image once per epoch (`shuffled`), or images of each class equally often (`balanced`)
    #[arg(long, default_value = "shuffled", value_name = "shuffled|balanced")]
    sampling: Sampled,
    /// Weigh images in the loss so that all classes count equally
    #[arg(long, value_name = "balanced")]
    class_weights: Option<Weighed>,
    /// Seed of batches, augmentation and dropout
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Save the state this often
    #[arg(long, default_value_t = 300, value_name = "N")]
    checkpoint_seconds: u64,
    /// Continue the run in the folder
    #[arg(long)]
    resume: bool,
    /// Also write losses, rates and accuracies for TensorBoard, into the folder `tensorboard` of --out
    #[arg(long)]
    tensorboard: bool,
    #[command(flatten)]
    room: Room,
    #[command(flatten)]
    compute: Compute,
    #[command(flatten)]
    pub common: Common,
}

/// Sampling of the images in an epoch.
#[derive(Clone, Copy, clap::ValueEnum)]
enum Sampled {
    Shuffled,
    Balanced,
}

impl Sampled {
    fn sampling(self) -> Sampling {
        match self {
            Self::Shuffled => Sampling::Shuffled,
            Self::Balanced => Sampling::Balanced,
        }
    }
}

/// A rule for the weights of classes.
#[derive(Clone, Copy, clap::ValueEnum)]
enum Weighed {
    Balanced,
}

impl Weighed {
    fn rule(self) -> WeightRule {
        match self {
            Self::Balanced => WeightRule::Balanced,
        }
    }
}

/// The inputs of a fine-tuning.
struct Begun {
    task: FineTuneTask,
    folder: RunFolder,
    /// Expected memory in bytes.
    expected: u64,
}

impl Arguments {
    pub fn run(&self) -> anyhow::Result<Ending> {
        let backend = self.compute.backend()?;
        let Begun { task, folder, expected } = self.begin(&backend)?;
        let batch = smaller_batch(self.batch, &task.dataset);
        let settings = FineTuneSettings {
            epochs: self.epochs,
            batch,
            lr: self.lr,
            new_head: self.new_head,
            sampling: self.sampling.sampling(),
            class_weights: self.class_weights.map(Weighed::rule),
            ..FineTuneSettings::default()
        };
        let config = TrainConfig {
            seed: self.seed,
            checkpoint_every: Duration::from_secs(self.checkpoint_seconds),
            backend,
        };
        // only now: while images are looked through there is nothing to save, and Ctrl-C ends the process at once
        let stop = stop_flag()?;
        let mut tuner = FineTuner::new(task, &settings, folder, config)?;
        report_beginning(&self.out, self.resume, tuner.resumed());
        self.announce(&tuner, expected)?;
        if self.tensorboard {
            tuner.write_events();
        }
        let mut progress = StepBar::new(&self.common, batch);
        let done = tuner.resumed().map_or(0, |resumed| resumed.from_step);
        let steps = tuner.plan().steps;
        progress.begin(steps, done);
        let outcome = tuner.run(&stop, &mut |line| match line {
            LogLine::Step(record) => progress.step(record),
            LogLine::Evaluation { step, accuracy, .. } => {
                let when = if *step == 0 { "before" } else { "after" };
                info!("val top-1 {when} {accuracy}");
            }
            _ => {}
        })?;
        self.conclude(&tuner, outcome, &progress)
    }

    /// Reads all inputs, and opens the folder before images are looked through.
    fn begin(&self, backend: &Backend) -> anyhow::Result<Begun> {
        let model = ModelFolder::read(&self.model)?;
        let teacher = self.teacher.as_deref().map(Supernet::read).transpose()?;
        let catalogue = self.data.list()?;
        if !self.new_head {
            catalogue.check_classes(&model.config.classes)?;
        }
        self.check_out()?;
        let space = &model.config.space;
        let arch = &model.config.arch;
        let taught_by = teacher.as_ref().map(|teacher| &teacher.space);
        let counts = catalogue.counts();
        let estimate = MemoryEstimate::of_fine_tuning(space, arch, taught_by, self.batch, counts)?;
        let expected = self.room.check(&estimate, backend)?;
        let folder = open_fine_tune_folder(&self.out, self.resume)?;
        let dataset = self.data.look(&self.common, catalogue)?;
        if teacher.as_ref().is_some_and(|teacher| teacher.trained_on(&dataset) == Some(false)) {
            warn!("the teacher was trained on other images than {}", dataset.name());
        }
        Ok(Begun { task: FineTuneTask { model, dataset, teacher }, folder, expected })
    }

    /// Refuses to overwrite the network itself.
    fn check_out(&self) -> anyhow::Result<()> {
        if std::fs::canonicalize(&self.out).ok() == Some(std::fs::canonicalize(&self.model)?) {
            anyhow::bail!("--out {}: expected another folder than the network's", self.out.display());
        }
        Ok(())
    }

    /// Prints the plan with an estimate of time and memory, and writes it to plan.json.
    fn announce(&self, tuner: &FineTuner, expected: u64) -> anyhow::Result<()> {
        let plan = tuner.plan();
        let resumed = tuner.resumed();
        report_differences(resumed);
        let left = plan.steps - resumed.map_or(0, |resumed| resumed.from_step);
        if left == 0 {
            return Ok(());
        }
        let step_ms = tuner.time_step()?;
        let seconds = left as f64 * step_ms / 1e3;
        info!(
            "{} steps of {} images, {step_ms:.1} ms each, about {}, {}",
            grouped(left),
            plan.batch,
            duration(seconds),
            memory::in_words(expected)
        );
        let run = json!({
            "started": unix_seconds(),
            "estimated_memory_mb": expected / 1_000_000,
            "estimated_seconds": seconds,
            "step_ms": step_ms,
            "peak_rss_mb": peak_rss_mb(),
        });
        Ok(tuner.folder().write_plan(plan, &run)?)
    }

    fn conclude(&self, tuner: &FineTuner, outcome: RunOutcome, progress: &StepBar) -> anyhow::Result<Ending> {
        let stopped = match outcome {
            RunOutcome::Finished => None,
            RunOutcome::Interrupted { step } => Some(step),
        };
        let folder = self.out.display().to_string();
        let before = tuner.before();
        let after = tuner.after();
        let mut document = progress.document(stopped, tuner.resumed());
        document.insert("folder".to_string(), json!(stopped.is_none().then_some(&folder)));
        document.insert("before".to_string(), json!(before.map(counted)));
        document.insert("after".to_string(), json!(after.map(counted)));
        self.common.print(&Value::Object(document), || match (stopped, before, after) {
            (Some(step), ..) => interrupted(step, tuner.plan().steps),
            (None, Some(before), Some(after)) => {
                format!("before   val top-1 {before}\nafter    val top-1 {after}\nfolder   {folder}")
            }
            _ => folder.clone(),
        })?;
        Ok(if stopped.is_some() { Ending::Interrupted } else { Ending::Done })
    }
}

/// An accuracy in the form of `supernet eval`.
fn counted(accuracy: Accuracy) -> Value {
    json!({
        "split": Split::Val,
        "n": accuracy.n,
        "top1": accuracy.top1(),
        "interval": accuracy.interval(),
    })
}
