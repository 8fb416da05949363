//! `supernet plan`: what a training will cost here, from a few steps of each phase.

use std::fmt::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context;
use base::timing::peak_rss_mb;
use command::{Common, Ending, duration, grouped, read_archs, stop_flag, within};
use kernels::{Backend, Profile};
use latency::LatencyTable;
use network::data::Dataset;
use serde_json::json;
use space::SearchSpace;
use supernet::train::{
    MemoryEstimate, PhaseTrial, Recipe, RunFolder, SpaceTraining, Start, TeacherFile, TrainConfig, TrainTask,
    Trainer, readable,
};
use tracing::info;

use super::arguments::{Compute, Data, smaller_batch};
use super::memory::{self, Room};
use super::recipe;

/// Show what training by a recipe takes on this machine: phases, time and memory, from a few steps of each phase
#[derive(clap::Args)]
#[command(after_help = "Example:
  supernet plan sandwich --space tiny --data digits
  supernet plan progressive --space fashion --data idx:/usr/share/datasets/fashion-mnist --scale 0.25")]
pub struct Arguments {
    #[arg(value_name = "RECIPE", help = recipe::forms("a TOML file"))]
    recipe: String,
    /// A preset's name or a TOML file
    #[arg(long)]
    space: String,
    /// One sub-network alone, as `train --arch`
    #[arg(long, value_name = "ARCH")]
    arch: Option<String>,
    #[command(flatten)]
    data: Data,
    /// Images per step, instead of the recipe's
    #[arg(long, value_name = "N", value_parser = within(1..=1_000_000))]
    batch: Option<usize>,
    /// Multiply the epochs of every phase
    #[arg(long, default_value_t = 1.0, value_name = "F", value_parser = super::train::scale)]
    scale: f64,
    /// Teacher for the recipe's phases with `teacher = "file"`
    #[arg(long, value_name = "FILE")]
    teacher: Option<PathBuf>,
    /// Latency table for recipes with `by = "latency"`
    #[arg(long, value_name = "FILE")]
    latency_table: Option<PathBuf>,
    /// Steps of each phase that are timed
    #[arg(long, default_value_t = 10, value_name = "N", value_parser = within(1..=10_000))]
    steps: usize,
    #[command(flatten)]
    compute: Compute,
    #[command(flatten)]
    room: Room,
    #[command(flatten)]
    pub common: Common,
}

/// A run that is tried: its space, images and recipe, and files that it needs.
pub struct Tried {
    pub space: SearchSpace,
    pub dataset: Dataset,
    pub recipe: Recipe,
    pub teacher: Option<TeacherFile>,
    pub latency_table: Option<Arc<LatencyTable>>,
}

impl Tried {
    /// Takes a few steps of each phase, in a folder of its own that is removed afterwards.
    pub fn trial(
        self,
        backend: &Backend,
        steps: usize,
        stop: &AtomicBool,
        profile: Option<&Profile>,
    ) -> anyhow::Result<Vec<PhaseTrial>> {
        let Self { space, dataset, recipe, teacher, latency_table } = self;
        let scratch = tempfile::tempdir().context("a folder for the trial")?;
        let folder = RunFolder::open(scratch.path(), false)?;
        let config = TrainConfig {
            seed: 0,
            checkpoint_every: Duration::from_secs(u64::from(u32::MAX)),
            backend: backend.clone(),
        };
        let seen = Start::Fresh.see(&dataset, &space, None)?;
        let task = TrainTask { teacher, latency_table, ..TrainTask::fresh(space, Arc::new(seen), &recipe) };
        Ok(Trainer::of(task, folder, config)?.trial(steps as u64, stop, profile)?)
    }
}

impl Arguments {
    pub fn run(&self) -> anyhow::Result<Ending> {
        let backend = self.compute.backend()?;
        let mut space = space::open(&self.space)?;
        if let Some(text) = &self.arch {
            let arch = read_archs(&space, std::slice::from_ref(text)).context("--arch")?.remove(0);
            space = space.only(&arch)?;
        }
        let recipe = recipe::open("RECIPE", &self.recipe)?.scaled(self.scale);
        let teacher = TeacherFile::for_recipe(self.teacher.as_deref(), &recipe).context("--teacher")?;
        let latency_table = self.latency_table.as_deref().map(LatencyTable::read).transpose()?.map(Arc::new);
        let catalogue = self.data.list()?;
        catalogue.check_fits(&space)?;
        let counts = catalogue.counts();
        let dataset = self.data.look(&self.common, catalogue)?;
        let batch = smaller_batch(self.batch.unwrap_or(recipe.batch), &dataset);
        let recipe = recipe.with_batch(batch);
        let training = SpaceTraining {
            space: &space,
            recipe: &recipe,
            teacher: teacher.as_ref(),
            batch,
            resumed: false,
        };
        let estimate = self.room.check(&MemoryEstimate::of_training(&training, counts)?, &backend)?;
        let stop = stop_flag()?;
        let phases = recipe.suited_to(&space).phases.len();
        info!("{}; {} steps of each phase ...", memory::in_words(estimate), self.steps);
        let trials = Tried { space, dataset, recipe, teacher, latency_table }
            .trial(&backend, self.steps, &stop, None)?;
        if trials.len() < phases && stop.load(Ordering::Relaxed) {
            return Ok(Ending::Interrupted);
        }
        self.print(&trials, &backend, estimate)?;
        Ok(Ending::Done)
    }

    fn print(&self, trials: &[PhaseTrial], backend: &Backend, estimate: u64) -> anyhow::Result<()> {
        let seconds: f64 = trials.iter().map(PhaseTrial::seconds).sum();
        let cpu_seconds: Option<f64> = trials.iter().map(PhaseTrial::phase_cpu_seconds).sum();
        let document = json!({
            "phases": trials,
            "seconds": seconds,
            "cpu_hours": cpu_seconds.map(|seconds| seconds / 3600.0),
            "gpu_hours": backend.gpu().map(|_| seconds / 3600.0),
            "estimated_memory_mb": estimate as f64 / 1e6,
            "peak_rss_mb": peak_rss_mb(),
            "gpu_memory_mb": backend.gpu_memory_mb(),
            "kernels": backend.name(),
            "threads": rayon::current_num_threads(),
            "gpu": backend.gpu(),
        });
        self.common.print(&document, || {
            let mut text = format!(
                "{:<14} {:>9} {:>14} {:>9} {:>17} {:>9}\n",
                "phase", "steps", "sub-networks", "ms/step", "10 % to 90 %", "time"
            );
            for trial in trials {
                let phase = &trial.phase;
                let spread = format!("{:.1} to {:.1}", trial.step_ms.p10, trial.step_ms.p90);
                let _ = writeln!(
                    text,
                    "{:<14} {:>9} {:>14} {:>9.1} {spread:>17} {:>9}",
                    phase.phase.name,
                    grouped(phase.steps),
                    phase.subnetworks(),
                    trial.mean_ms + trial.lesson_ms,
                    duration(trial.seconds())
                );
            }
            let hours = match (backend.gpu(), cpu_seconds) {
                (Some(gpu), _) => format!(", {:.2} GPU-hours of {gpu}", seconds / 3600.0),
                (None, Some(cpu)) => format!(", {:.2} CPU-hours", cpu / 3600.0),
                (None, None) => String::new(),
            };
            let steps: u64 = trials.iter().map(|trial| trial.phase.steps).sum();
            let peak = peak_rss_mb().map_or_else(String::new, |mb| format!(" ({mb:.0} MB in the trial)"));
            let _ = write!(
                text,
                "{} steps, about {}{hours}, about {} of memory{peak}; evaluations, and validations within phases, are not counted",
                grouped(steps),
                duration(seconds),
                readable(estimate)
            );
            text
        })
    }
}
