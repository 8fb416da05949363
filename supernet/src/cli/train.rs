//! `supernet train`: progressive shrinking into a folder.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::Context;
use indicatif::ProgressBar;
use serde_json::json;
use supernet::eval::Accuracy;
use supernet::file;
use supernet::kernels::{Profile, ProfileRow};
use supernet::space::{self, Arch};
use supernet::timing::{Spread, peak_rss_mb, unix_seconds};
use supernet::train::{Observer, Outcome, PlannedPhase, Recipe, RunFolder, StepRecord, TrainConfig, Trainer};

use super::Ending;
use super::arguments::{Common, check_device, kernels, stop_flag};
use super::output::{duration, grouped};
use super::profile::{recorded, table};

/// Train the weights that all sub-networks of a space share
#[derive(clap::Args)]
#[command(after_help = "Example:
  supernet train --space fashion --data idx:/usr/share/datasets/fashion-mnist --out run --scale 0.05
  supernet train --space fashion --data idx:/usr/share/datasets/fashion-mnist --out run --scale 0.05 --resume")]
pub struct Arguments {
    /// A preset's name or a TOML file
    #[arg(long)]
    space: String,
    /// `digits`, `idx:FOLDER` (MNIST's format) or `folder:FOLDER` (images, a folder a class)
    #[arg(long)]
    data: String,
    /// Folder for plan, log, checkpoints and the finished supernet
    #[arg(long, value_name = "RUN")]
    out: PathBuf,
    /// `progressive` or a TOML file
    #[arg(long, default_value = "progressive")]
    recipe: String,
    /// Multiply the epochs of every phase
    #[arg(long, default_value_t = 1.0, value_name = "F", value_parser = scale)]
    scale: f64,
    /// Where to compute: `cpu`
    #[arg(long, default_value = "cpu")]
    device: String,
    /// Seed of weights, batches and sub-networks
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Save the state this often within a phase
    #[arg(long, default_value_t = 300, value_name = "N")]
    checkpoint_seconds: u64,
    /// Go on with the run in the folder
    #[arg(long)]
    resume: bool,
    /// Print, at the end, what each kind of layer took in each kernel
    #[arg(long)]
    profile: bool,
    #[command(flatten)]
    pub common: Common,
}

/// Beyond this an epoch's steps could no longer be counted.
const MOST_SCALE: f64 = 1e6;

fn scale(text: &str) -> Result<f64, String> {
    let scale = text.parse().ok().filter(|scale| *scale > 0.0 && *scale <= MOST_SCALE);
    scale.ok_or_else(|| format!("a number above 0, at most {MOST_SCALE}"))
}

impl Arguments {
    pub fn run(&self) -> anyhow::Result<Ending> {
        check_device(&self.device)?;
        let space = space::open(&self.space)?;
        let recipe = self.recipe()?;
        let dataset = Arc::new(self.common.open_data(&self.data)?);
        // only now: while images are looked through there is nothing to save, and Ctrl-C ends the process at once
        let stop = stop_flag()?;
        let folder = RunFolder::open(&self.out, self.resume)?;
        let (kernels, profile) = recorded(kernels()?, self.profile);
        let checkpoint_every = Duration::from_secs(self.checkpoint_seconds);
        let config = TrainConfig { seed: self.seed, checkpoint_every, kernels };
        let mut trainer = Trainer::new(space, dataset, &recipe, folder, config)?;
        self.announce(&trainer, &stop)?;
        let batch = trainer.plan().batch as f64;
        let mut progress =
            Progress { common: &self.common, bar: ProgressBar::hidden(), times: Vec::new(), batch };
        profile.into_iter().for_each(Profile::clear);
        let outcome = trainer.run(&stop, &mut progress)?;
        let times = progress.times;
        let profile = profile.map(Profile::rows);
        if let Some(rows) = &profile {
            self.common.tell(table(rows, times.len(), times.iter().sum()));
        }
        self.conclude(&trainer, outcome, batch, (&times, profile))
    }

    fn recipe(&self) -> anyhow::Result<Recipe> {
        let recipe = if self.recipe == "progressive" {
            Recipe::progressive()
        } else {
            let path = std::path::Path::new(&self.recipe);
            let text = file::read_text(path);
            let text = text.context("--recipe: give `progressive` or the path of a TOML file")?;
            Recipe::from_toml(&self.recipe, &text)?
        };
        Ok(recipe.scaled(self.scale))
    }

    /// Prints the plan with an estimate, and writes it down.
    fn announce(&self, trainer: &Trainer, stop: &AtomicBool) -> anyhow::Result<()> {
        let plan = trainer.plan();
        let done = trainer.resumed().map_or(0, |resumed| resumed.from_step);
        for difference in trainer.resumed().into_iter().flat_map(|resumed| &resumed.differences) {
            self.common.tell(format!(
                "warning: {difference}: the last bits of the weights may differ from an unbroken run's"
            ));
        }
        if done >= plan.steps() {
            return Ok(());
        }
        self.common.tell("timing one step of each phase ...");
        let times = trainer.time_phases(stop)?;
        if times.len() < plan.phases.len() {
            return Ok(());
        }
        let mut total = 0.0;
        self.common.tell(format!(
            "{:<10} {:>8} {:>14} {:>9} {:>9}",
            "phase", "steps", "sub-networks", "ms/step", "time"
        ));
        for (phase, ms) in plan.phases.iter().zip(&times) {
            let left = phase.end().saturating_sub(done.max(phase.first_step));
            let seconds = left as f64 * ms / 1e3;
            total += seconds;
            self.common.tell(format!(
                "{:<10} {:>8} {:>14} {:>9.1} {:>9}",
                phase.phase.name,
                left,
                phase.phase.subnetworks,
                ms,
                duration(seconds)
            ));
        }
        let memory = peak_rss_mb().map_or_else(String::new, |mb| format!(", about {mb:.0} MB of memory"));
        self.common.tell(format!(
            "{} steps, about {}{memory}",
            grouped(plan.steps() - done),
            duration(total)
        ));
        let run = json!({
            "started": unix_seconds(),
            "estimated_seconds": total,
            "step_ms": times,
            "peak_rss_mb": peak_rss_mb(),
        });
        trainer.folder().write_plan(plan, &run)?;
        Ok(())
    }

    fn conclude(
        &self,
        trainer: &Trainer,
        outcome: Outcome,
        batch: f64,
        (times, profile): (&[f64], Option<Vec<ProfileRow>>),
    ) -> anyhow::Result<Ending> {
        let step_ms = Spread::of(times);
        let images_per_second = if times.is_empty() { 0.0 } else { batch / step_ms.median * 1e3 };
        let supernet = trainer.folder().supernet();
        let interrupted = match outcome {
            Outcome::Finished => None,
            Outcome::Interrupted { step } => Some(step),
        };
        let document = json!({
            "finished": interrupted.is_none(),
            "interrupted_at_step": interrupted,
            "resumed_from_step": trainer.resumed().map(|resumed| resumed.from_step),
            "step_ms": step_ms,
            "images_per_second": images_per_second,
            "peak_rss_mb": peak_rss_mb(),
            "supernet": interrupted.is_none().then(|| supernet.display().to_string()),
            "profile": profile,
        });
        self.common.print(&document, || match interrupted {
            None => supernet.display().to_string(),
            Some(step) => format!(
                "interrupted; {step} of {} steps are saved, go on with --resume",
                trainer.plan().steps()
            ),
        })?;
        Ok(if interrupted.is_some() { Ending::Interrupted } else { Ending::Done })
    }
}

/// One bar a phase.
struct Progress<'a> {
    common: &'a Common,
    bar: ProgressBar,
    times: Vec<f64>,
    batch: f64,
}

impl Observer for Progress<'_> {
    fn phase(&mut self, phase: &PlannedPhase, step: u64) {
        self.bar.finish_and_clear();
        self.common.tell(format!("phase {}: {} steps", phase.phase.name, phase.steps));
        self.bar = self.common.bar(phase.steps, "{bar:30} {pos}/{len}  {msg}  ETA {eta}");
        self.bar.set_position(step - phase.first_step);
        self.bar.reset_eta();
    }

    fn step(&mut self, record: &StepRecord) {
        self.times.push(record.ms);
        let recent = &self.times[self.times.len().saturating_sub(20)..];
        let rate = self.batch * recent.len() as f64 / recent.iter().sum::<f64>() * 1e3;
        self.bar.set_message(format!("loss {:.3}  {rate:.0} images/s", record.loss));
        self.bar.inc(1);
    }

    fn evaluated(&mut self, arch: &Arch, accuracy: Accuracy) {
        self.bar.suspend(|| self.common.tell(format!("  val top-1 {accuracy}  {arch}")));
    }
}
