//! `supernet train`: progressive shrinking into a folder.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::Context;
use base::timing::{peak_rss_mb, unix_seconds};
use command::{Common, Ending, duration, grouped, read_archs, result_path, stop_flag, within};
use kernels::{Backend, Profile, ProfileRow};
use latency::LatencyTable;
use network::data::{Catalogue, Dataset};
use network::eval::Accuracy;
use serde_json::{Value, json};
use space::{Arch, LayerSpec, Operator, SearchSpace};
use supernet::train::{
    ArchitectureRecord, ConflictRecord, ControllerRecord, CostAxis, DerivedRecord, EarlyEnd, MemoryEstimate,
    Observer, PlannedPhase, Recipe, RunFolder, RunOutcome, SpaceTraining, Start, StepRecord, TeacherFile,
    TrainConfig, TrainTask, Trainer, ValidationRecord,
};
use tracing::{info, warn};

use super::arguments::{Compute, Data, Shown, smaller_batch};
use super::memory::{self, Room};
use super::profile::{recorded, table};
use super::progress::{StepBar, interrupted, report_beginning, report_differences};
use super::recipe;

/// Train the weights that all sub-networks of a space share
#[derive(clap::Args)]
#[command(after_help = "Example:
  supernet train --space fashion --data idx:/usr/share/datasets/fashion-mnist --out run --scale 0.05
  supernet train --space fashion --data idx:/usr/share/datasets/fashion-mnist --out run --scale 0.05 --resume
  supernet train --space tiny --data folder:images --out mine --batch 32 --lr 0.02
  supernet train --start imported.safetensors --data folder:images --out mine --scale 0.1")]
pub struct Arguments {
    /// A preset's name or a TOML file; optional with --start
    #[arg(long, required_unless_present = "start")]
    space: Option<String>,
    /// Start from these weights: an imported supernet, a teacher, an earlier run's file or folder. If the classes
    /// differ from theirs, a new classifier is made, and trained first with all else frozen
    #[arg(long, value_name = "FILE")]
    start: Option<PathBuf>,
    /// Train one sub-network alone: the resulting supernet contains only this network. With --start, its
    /// initial weights come from there
    #[arg(long, value_name = "ARCH")]
    arch: Option<String>,
    #[command(flatten)]
    data: Data,
    /// Part of an image used in evaluation: its `middle` square, or all of it (`stretch`) [default: middle for image
    /// files and the ofa spaces]
    #[arg(long, value_name = "middle|stretch")]
    resize: Option<Shown>,
    /// Folder for plan, log, checkpoints and the finished supernet
    #[arg(long, value_name = "RUN", value_parser = result_path())]
    out: PathBuf,
    // its help comes from the table of recipes
    #[arg(long, help = recipe_help())]
    recipe: Option<String>,
    /// Teacher for the recipe's phases with `teacher = "file"`: an exported folder, or a supernet whose
    /// largest network teaches; same classes
    #[arg(long, value_name = "FILE")]
    teacher: Option<PathBuf>,
    /// Latency table of the device that recipes with `by = "latency"` train for (`extract measure`)
    #[arg(long, value_name = "FILE")]
    latency_table: Option<PathBuf>,
    /// Images per step, instead of the recipe's; its learning rates scale in proportion
    #[arg(long, value_name = "N", value_parser = within(1..=1_000_000))]
    batch: Option<usize>,
    /// Learning rate of the first phase that trains the whole network, after warm-up, at the batch size used; it
    /// replaces the recipe's, and those of the other phases scale in proportion
    #[arg(long, value_name = "F", value_parser = rate)]
    lr: Option<f64>,
    /// Multiply the epochs of every phase
    #[arg(long, default_value_t = 1.0, value_name = "F", value_parser = scale)]
    scale: f64,
    #[command(flatten)]
    compute: Compute,
    /// Seed of weights, batches and sub-networks
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Save the state this often within a phase
    #[arg(long, default_value_t = 300, value_name = "N")]
    checkpoint_seconds: u64,
    /// Keep the checkpoint at the end of each phase, in RUN/checkpoints. To go back to one, copy it over
    /// RUN/checkpoint.safetensors and use --resume
    #[arg(long)]
    keep_checkpoints: bool,
    /// Continue the run in the folder. Rates, epochs and phases after the checkpoint may be changed; earlier
    /// ones may not
    #[arg(long)]
    resume: bool,
    /// Also write losses, rates and accuracies for TensorBoard, into the folder `tensorboard` of --out
    #[arg(long)]
    tensorboard: bool,
    /// Report, this often and at the end of each phase, on conflicts between sub-networks over their shared weights: the
    /// cosine of the gradients of the largest and the smallest one, and the accuracy of both and of 12 between them
    #[arg(long, value_name = "EPOCHS", value_parser = scale)]
    report_conflicts: Option<f64>,
    /// Print, at the end, the time of each kind of layer in each kernel
    #[arg(long)]
    profile: bool,
    #[command(flatten)]
    room: Room,
    #[command(flatten)]
    pub common: Common,
}

fn recipe_help() -> String {
    let forms = recipe::forms("a TOML file");
    let name = Recipe::names().next().unwrap_or_default();
    format!(
        "{forms} (`supernet recipe {name} --toml` prints one to start from) [default: {name}, or uniform where edges or layers choose operators; with --resume the run's own]"
    )
}

/// Largest factor; with more, the steps could no longer be counted.
const MOST_SCALE: f64 = 1e6;

pub fn scale(text: &str) -> Result<f64, String> {
    let scale = text.parse().ok().filter(|scale| *scale > 0.0 && *scale <= MOST_SCALE);
    scale.ok_or_else(|| format!("a number above 0, at most {MOST_SCALE}"))
}

fn rate(text: &str) -> Result<f64, String> {
    let rate = text.parse().ok().filter(|rate: &f64| *rate > 0.0 && rate.is_finite());
    rate.ok_or_else(|| "a number above 0".to_string())
}

impl Arguments {
    pub fn run(&self) -> anyhow::Result<Ending> {
        let backend = self.compute.backend()?;
        let (space, start) = self.space_and_start(&backend)?;
        let recipe = self.recipe()?;
        let catalogue = self.data.list()?;
        let space = start.space_for(space, catalogue.classes().len())?;
        catalogue.check_fits(&space)?;
        let recipe = recipe.unwrap_or_else(|| Recipe::default_for(&space)).scaled(self.scale);
        // an impossible rate is refused before anything is created
        self.rated(recipe.with_batch(self.batch.unwrap_or(recipe.batch)))?;
        let teacher = TeacherFile::for_recipe(self.teacher.as_deref(), &recipe).context("--teacher")?;
        teacher.iter().try_for_each(|teacher| teacher.check_fits(&space))?;
        let latency_table = self.latency_table(&recipe, &space)?;
        let expected = self.check_room(&space, &recipe, &catalogue, teacher.as_ref(), &backend)?;
        // before images are looked through, which may take minutes
        let folder = RunFolder::open(&self.out, self.resume)?;
        let dataset = self.data.look(&self.common, catalogue)?;
        let recipe = self.suited(recipe, &dataset)?;
        // only now: while images are looked through there is nothing to save, and Ctrl-C ends the process at once
        let stop = stop_flag()?;
        let (backend, profile) = recorded(&backend, self.profile);
        let checkpoint_every = Duration::from_secs(self.checkpoint_seconds);
        let config = TrainConfig { seed: self.seed, checkpoint_every, backend };
        let seen = start.see(&dataset, &space, self.resize.map(Shown::resize))?;
        let task = TrainTask {
            space,
            dataset: Arc::new(seen),
            recipe: &recipe,
            start: &start,
            teacher,
            latency_table,
        };
        let mut trainer = Trainer::of(task, folder, config)?;
        drop(start);
        self.check_recipe(&trainer)?;
        if self.keep_checkpoints {
            trainer = trainer.keeping_checkpoints();
        }
        if let Some(epochs) = self.report_conflicts {
            trainer = trainer.reporting_conflicts(epochs);
        }
        match trainer.went_back() {
            Some(message) => info!("{message}"),
            None => report_beginning(&self.out, self.resume, trainer.resumed()),
        }
        self.announce(&trainer, &stop, expected)?;
        if self.tensorboard {
            trainer.write_events();
        }
        let steps = StepBar::new(&self.common, trainer.plan().batch);
        let mut progress = Progress { steps, validations: Vec::new(), derived: None };
        profile.iter().for_each(Profile::clear);
        let outcome = trainer.run(&stop, &mut progress)?;
        let profile = profile.as_ref().map(Profile::rows);
        if let Some(rows) = &profile {
            let times = &progress.steps.times;
            info!("{}", table(rows, times.len(), times.iter().sum()));
        }
        self.conclude(&trainer, outcome, &progress, profile)
    }

    /// The space that is given, and the weights to begin with; with --arch both hold that sub-network alone.
    fn space_and_start(&self, backend: &Backend) -> anyhow::Result<(Option<SearchSpace>, Start)> {
        let space = self.space.as_deref().map(space::open).transpose()?;
        let start = self.start.as_deref().map_or(Ok(Start::Fresh), Start::read)?;
        let Some(text) = &self.arch else { return Ok((space, start)) };
        let of = space.as_ref().or(start.given().map(|supernet| &supernet.space));
        let of = of.expect("clap asks for a space or a start").clone();
        let arch = read_archs(&of, std::slice::from_ref(text)).context("--arch")?.remove(0);
        let space = space.map(|space| space.only(&arch)).transpose()?;
        Ok((space, start.only(&of, &arch, backend)?))
    }

    /// Refuses to continue by a built-in recipe that is another than the run's of that name: its file must be given. With --lr a
    /// difference is intended.
    fn check_recipe(&self, trainer: &Trainer) -> anyhow::Result<()> {
        match trainer.resumed().and_then(|resumed| resumed.other_plan.as_ref()) {
            Some(change) if self.recipe.is_none() && self.lr.is_none() => anyhow::bail!(
                "--recipe: expected the run's recipe, because the plan is another now ({change}); give the name or the file \
                 that the run was started with"
            ),
            _ => Ok(()),
        }
    }

    /// The latency table, after a check that the recipe needs it and that it fits the space.
    fn latency_table(
        &self,
        recipe: &Recipe,
        space: &SearchSpace,
    ) -> anyhow::Result<Option<Arc<LatencyTable>>> {
        let table = self.latency_table.as_deref().map(LatencyTable::read).transpose()?.map(Arc::new);
        let cost = CostAxis::for_kind(recipe.suited_to(space).cost(), table.clone(), space);
        match &self.latency_table {
            Some(path) => cost.with_context(|| format!("--latency-table {}", path.display()))?,
            None => cost?,
        };
        Ok(table)
    }

    /// Refuses a run that does not fit into memory; returns its bytes.
    fn check_room(
        &self,
        space: &SearchSpace,
        recipe: &Recipe,
        catalogue: &Catalogue,
        teacher: Option<&TeacherFile>,
        backend: &Backend,
    ) -> anyhow::Result<u64> {
        let batch = self.batch.unwrap_or(recipe.batch);
        let resumed = self.resume && self.out.join("checkpoint.safetensors").exists();
        let training = SpaceTraining { space, recipe, teacher, batch, resumed };
        let estimate = MemoryEstimate::of_training(&training, catalogue.counts())?;
        self.room.check(&estimate, backend)
    }

    /// The recipe of --recipe, or that of the run to resume.
    fn recipe(&self) -> anyhow::Result<Option<Recipe>> {
        let of_run = RunFolder::recipe_of(&self.out).filter(|_| self.resume);
        Ok(match (&self.recipe, of_run) {
            (Some(given), _) => Some(recipe::open("--recipe", given)?),
            (None, None) => None,
            (None, Some(of_run)) if Recipe::names().any(|name| name == of_run) => {
                Some(Recipe::open(&of_run)?)
            }
            (None, Some(of_run)) => anyhow::bail!(
                "--recipe: expected the file of the recipe {of_run}, which the run in {} follows",
                self.out.display()
            ),
        })
    }

    /// The recipe with the batch and learning rate of the flags; the batch has at most all images.
    fn suited(&self, recipe: Recipe, dataset: &Dataset) -> anyhow::Result<Recipe> {
        let batch = self.batch.unwrap_or(recipe.batch);
        self.rated(recipe.with_batch(smaller_batch(batch, dataset)))
    }

    fn rated(&self, recipe: Recipe) -> anyhow::Result<Recipe> {
        let Some(lr) = self.lr else { return Ok(recipe) };
        // adapted as by the trainer, so that the rate is that of the trained phases
        let recipe = if self.start.is_some() { recipe.starting(true) } else { recipe.from_scratch() };
        recipe.with_lr(lr).context("--lr")
    }

    /// Prints the plan with an estimate of time and memory, and writes it to plan.json.
    fn announce(&self, trainer: &Trainer, stop: &AtomicBool, expected: u64) -> anyhow::Result<()> {
        let plan = trainer.plan();
        let done = trainer.resumed().map_or(0, |resumed| resumed.from_step);
        report_differences(trainer.resumed());
        if done >= plan.steps() {
            return Ok(());
        }
        info!("timing one step of each phase ...");
        let times = trainer.time_phases(stop)?;
        if times.len() < plan.phases.len() {
            return Ok(());
        }
        let mut total = 0.0;
        info!("{:<10} {:>8} {:>14} {:>9} {:>9}", "phase", "steps", "sub-networks", "ms/step", "time");
        for (phase, ms) in plan.phases.iter().zip(&times) {
            let left = phase.end().saturating_sub(done.max(phase.first_step));
            let seconds = left as f64 * ms / 1e3;
            total += seconds;
            info!(
                "{:<10} {:>8} {:>14} {:>9.1} {:>9}",
                phase.phase.name,
                left,
                phase.subnetworks(),
                ms,
                duration(seconds)
            );
        }
        info!(
            "{} steps, about {}, {}",
            grouped(plan.steps() - done),
            duration(total),
            memory::in_words(expected)
        );
        let run = json!({
            "started": unix_seconds(),
            "estimated_memory_mb": expected / 1_000_000,
            "estimated_seconds": total,
            "step_ms": times,
            "peak_rss_mb": peak_rss_mb(),
        });
        trainer.write_plan(&run)?;
        Ok(())
    }

    fn conclude(
        &self,
        trainer: &Trainer,
        outcome: RunOutcome,
        progress: &Progress,
        profile: Option<Vec<ProfileRow>>,
    ) -> anyhow::Result<Ending> {
        let supernet = trainer.folder().supernet();
        let stopped = match outcome {
            RunOutcome::Finished => None,
            RunOutcome::Interrupted { step } => Some(step),
        };
        let mut document = progress.steps.document(stopped, trainer.resumed());
        if trainer.plan().validation.is_some() {
            document.insert("validations".to_string(), json!(progress.validations));
        }
        let written = stopped.is_none().then(|| supernet.display().to_string());
        document.insert("supernet".to_string(), json!(written));
        if let Some(derived) = &progress.derived {
            if !sees_image(&trainer.space().lower(&derived.arch)?) {
                warn!(
                    "nothing leads from the input of the derived network to its output, so that it sees no image; train for \
                     longer, or raise the lr of what learns in the recipe"
                );
            }
            document.insert("derived".to_string(), json!(derived));
        }
        document.insert("profile".to_string(), json!(profile));
        self.common.print(&Value::Object(document), || match stopped {
            None => supernet.display().to_string(),
            Some(step) => interrupted(step, trainer.plan().steps()),
        })?;
        Ok(if stopped.is_some() { Ending::Interrupted } else { Ending::Done })
    }
}

/// Whether the output of a network depends on its input: no node of zeros lies on every path.
fn sees_image(layers: &[LayerSpec]) -> bool {
    let mut sees: Vec<bool> = Vec::with_capacity(layers.len());
    for layer in layers {
        let reads = layer.inputs.iter().any(|input| input.is_none_or(|input| sees[input]));
        sees.push(reads && layer.operator != Operator::Zero);
    }
    sees.last().copied().unwrap_or(true)
}

/// One bar per phase.
struct Progress<'a> {
    steps: StepBar<'a>,
    validations: Vec<ValidationRecord>,
    derived: Option<DerivedRecord>,
}

impl Observer for Progress<'_> {
    fn phase(&mut self, phase: &PlannedPhase, step: u64) {
        info!("phase {}: {} steps", phase.phase.name, phase.steps);
        self.steps.begin(phase.steps, step - phase.first_step);
    }

    fn step(&mut self, record: &StepRecord) {
        self.steps.step(record);
    }

    fn evaluated(&mut self, arch: &Arch, accuracy: Accuracy) {
        info!("  val top-1 {accuracy}  {arch}");
    }

    fn validated(&mut self, record: &ValidationRecord) {
        let best = if record.is_best { ", the best so far" } else { "" };
        let step = record.step;
        let top1 = 100.0 * record.top1;
        info!("  after {step} steps val top-1 {top1:.2} %{best}");
        self.validations.push(record.clone());
    }

    fn conflict(&mut self, record: &ConflictRecord) {
        let by_stage = record.stages.iter().map(|part| format!("{} {:.2}", part.stage, part.cosine));
        let by_stage = by_stage.collect::<Vec<_>>().join(", ");
        let accuracies = record.subnetworks.iter().map(|of| format!("{:.2}", 100.0 * of.top1));
        let accuracies = accuracies.collect::<Vec<_>>().join(" ");
        let ConflictRecord { step, cosine, .. } = record;
        info!(
            "  after {step} steps cosine of the gradients of largest and smallest {cosine:.2} ({by_stage})"
        );
        info!("  val top-1 from the smallest to the largest, %: {accuracies}");
    }

    fn taught(&mut self, record: &ControllerRecord) {
        let ControllerRecord { step, reward, baseline, entropy, links, .. } = record;
        let top1 = 100.0 * record.top1;
        let links = links.map_or_else(String::new, |share| format!(", {:.0} % of links", 100.0 * share));
        info!(
            "  after {step} steps the controller: top-1 {top1:.1} %, reward {reward:.4}, baseline {baseline:.4}, entropy \
             {entropy:.2}{links}"
        );
    }

    fn searched(&mut self, record: &ArchitectureRecord) {
        let ArchitectureRecord { step, entropy, derived_skips, arch, .. } = record;
        let skips = 100.0 * record.skips;
        info!(
            "  after {step} steps entropy {entropy:.3}, {skips:.0} % of skips, {derived_skips} chosen  {arch}"
        );
        if record.collapsed {
            warn!(
                "the search collapses: skips have {skips:.0} % of the probability; raise warmup_epochs, or set most_skips in the \
                 recipe"
            );
        }
    }

    fn derived(&mut self, record: &DerivedRecord) {
        let DerivedRecord { arch, candidates, accuracy, .. } = record;
        let of = if *candidates > 1 { format!(" of {candidates} candidates") } else { String::new() };
        info!("derived{of}, val top-1 {accuracy}  {arch}");
        self.derived = Some(record.clone());
    }

    fn ended_early(&mut self, end: &EarlyEnd) {
        let EarlyEnd { step, phase, best_step, next_step } = end;
        info!(
            "phase {phase} ends early, after step {step}: no validation since step {best_step} was better; its weights are \
             taken, and the run continues at step {next_step}"
        );
    }
}
