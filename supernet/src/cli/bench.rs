//! `supernet bench`: the time of a step on this machine.

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use base::timing::Spread;
use command::{Common, Ending, data_form, data_help, read_archs, stop_flag, within};
use kernels::Backend;
use serde_json::json;
use space::{Extent, SearchSpace};
use supernet::bench::{Bench, BenchReport, BenchSubject, LoadBench, Mode, bench, bench_fed, bench_loader};
use supernet::train::{CostKind, Recipe, Teacher};

use super::arguments::{Compute, Data, smaller_batch};
use super::plan::Tried;
use super::profile::{recorded, table};
use super::recipe;

fn timed_help() -> String {
    let timed = data_help("Time the loading of training images, decoded and augmented");
    format!(
        "{timed}. With --space also time steps on random images and steps on these, and name the bottleneck"
    )
}

/// Time whole steps on random images, or the loading of real ones
#[derive(clap::Args)]
#[command(after_help = "Example:
  supernet bench --space ofa-mbv3-w1.0 --arch largest --resolution 64 --batch 32
  supernet bench --space ofa-mbv3-w1.0 --arch uniform --resolution 64 --batch 32 --mode shrink
  supernet bench --space ofa-mbv3-w1.0 --arch largest --resolution 64 --batch 32 --profile
  supernet bench --space fashion --data idx:/usr/share/datasets/fashion-mnist --recipe sandwich
  supernet bench --data folder:images --resolution 224 --batch 64
  supernet bench --space ofa-mbv3-w1.0 --data folder:images --resolution 224 --batch 256 --device cuda:0")]
pub struct Arguments {
    /// A preset's name or a TOML file
    #[arg(long, required_unless_present = "data")]
    space: Option<String>,
    // its help comes from the table of formats
    #[arg(long, conflicts_with = "profile", value_parser = data_form(), help = timed_help(), hide_possible_values = true)]
    data: Option<String>,
    /// Sub-networks as for `eval`, used in turn; or `uniform` for a new random sub-network in each step
    #[arg(long, default_value = "largest", num_args = 1..)]
    arch: Vec<String>,
    /// Side of the images, or height and width such as 40x101
    #[arg(long, value_name = "R", value_parser = resolution, required_unless_present = "recipe")]
    resolution: Option<Extent>,
    /// Images per step
    #[arg(long, value_name = "N", value_parser = within(1..=65_536), required_unless_present = "recipe")]
    batch: Option<usize>,
    /// Time the steps of each phase of this recipe on the images of --data, and the share of a step that is neither forward nor
    /// backward: waiting for images, drawing, losses, the optimizer
    #[arg(long, value_name = "RECIPE", requires = "space", requires = "data", conflicts_with_all = ["arch", "mode", "warmup", "profile"])]
    recipe: Option<String>,
    /// Timed steps
    #[arg(long, default_value_t = 20, value_name = "N", value_parser = within(1..=1_000_000))]
    steps: usize,
    /// Untimed steps first
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = within(0..=1_000_000))]
    warmup: usize,
    /// Kind of step: train (one sub-network), shrink (teacher and four), infer, or calibrate
    #[arg(long, default_value = "train")]
    mode: ModeName,
    #[command(flatten)]
    compute: Compute,
    /// Print the time of each kind of layer in each kernel
    #[arg(long)]
    profile: bool,
    #[command(flatten)]
    pub common: Common,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum ModeName {
    Train,
    Shrink,
    Infer,
    Calibrate,
}

/// Most pixels of a step's images: more are a typing error, and no memory holds their activations.
const MOST_PIXELS: usize = 1 << 30;

/// Greatest side of the images.
const MOST_SIDE: usize = 4096;

/// A reader of a resolution within bounds.
fn resolution(text: &str) -> Result<Extent, String> {
    let resolution: Extent = text.parse().map_err(|error: base::Error| error.to_string())?;
    let sides = [resolution.height, resolution.width];
    if sides.iter().all(|side| (1..=MOST_SIDE).contains(side)) {
        return Ok(resolution);
    }
    Err(format!("sides are from 1 to {MOST_SIDE}"))
}

/// Images per step, and their size.
#[derive(Clone, Copy)]
struct Images {
    batch: usize,
    resolution: Extent,
}

/// Refuses a step of too many pixels.
fn check_pixels(batch: usize, resolution: Extent) -> anyhow::Result<()> {
    if batch * resolution.plane() > MOST_PIXELS {
        anyhow::bail!("--batch and --resolution: expected at most {MOST_PIXELS} pixels per step");
    }
    Ok(())
}

impl Arguments {
    pub fn run(&self) -> anyhow::Result<Ending> {
        let backend = self.compute.backend()?;
        if let (Some(recipe), Some(space)) = (&self.recipe, &self.space) {
            return self.phases(&space::open(space)?, &recipe::open("--recipe", recipe)?, &backend);
        }
        check_pixels(self.images().batch, self.images().resolution)?;
        let Some(space) = &self.space else {
            let report = self.load()?;
            return self.print_loaded(&report);
        };
        let space = space::open(space)?;
        let subject = match self.arch.as_slice() {
            [uniform] if uniform == "uniform" => BenchSubject::Uniform,
            texts => BenchSubject::Fixed(read_archs(&space, texts)?),
        };
        let mode = match self.mode {
            ModeName::Train => Mode::Train,
            ModeName::Shrink => Mode::Shrink,
            ModeName::Infer => Mode::Infer,
            ModeName::Calibrate => Mode::Calibrate,
        };
        let (backend, profile) = recorded(&backend, self.profile);
        let Self { steps, warmup, .. } = *self;
        let Images { batch, resolution } = self.images();
        let setup = Bench {
            space,
            subject,
            resolution,
            batch,
            steps,
            warmup,
            mode,
            backend: backend.clone(),
            profile,
        };
        if self.data.is_some() {
            return self.compare(&setup);
        }
        let bar = self.common.bar((steps + warmup) as u64, "{bar:30} {pos}/{len} steps");
        let report = bench(&setup, |_| bar.inc(1))?;
        bar.finish_and_clear();
        let mut document = json!(report);
        document["kernels"] = json!(backend.name());
        document["threads"] = json!(rayon::current_num_threads());
        document["gpu"] = json!(backend.gpu());
        self.common.print(&document, || {
            let profile = report
                .profile
                .as_ref()
                .map_or_else(String::new, |rows| format!("{}\n", table(rows, steps, report.total_ms)));
            format!("{profile}{}, {}", in_words(&report), computed_by(&backend))
        })?;
        Ok(Ending::Done)
    }

    /// Images per step, and their size.
    fn images(&self) -> Images {
        let batch = self.batch.expect("required without a recipe");
        let resolution = self.resolution.expect("required without a recipe");
        Images { batch, resolution }
    }

    /// Times the steps of each phase of a recipe.
    fn phases(&self, space: &SearchSpace, recipe: &Recipe, backend: &Backend) -> anyhow::Result<Ending> {
        let space = match self.resolution {
            Some(resolution) => space.at_resolutions(&[resolution])?,
            None => space.clone(),
        };
        let data = self.data();
        let catalogue = data.list()?;
        catalogue.check_fits(&space)?;
        let dataset = data.look(&self.common, catalogue)?;
        let batch = smaller_batch(self.batch.unwrap_or(recipe.batch), &dataset);
        let recipe = recipe.with_batch(batch);
        check_pixels(batch, space.greatest_resolution())?;
        if recipe.cost() == Some(CostKind::Latency)
            || recipe.phases.iter().any(|phase| phase.teacher == Teacher::File)
        {
            anyhow::bail!(
                "--recipe {}: expected a recipe that needs no other files; try `supernet plan`",
                recipe.name
            );
        }
        let (backend, profile) = recorded(backend, true);
        let tried = Tried { space, dataset, recipe, teacher: None, latency_table: None };
        let stop = stop_flag()?;
        let trials = tried.trial(&backend, self.steps, &stop, profile.as_ref())?;
        if stop.load(Ordering::Relaxed) {
            return Ok(Ending::Interrupted);
        }
        let document = json!({
            "phases": trials, "kernels": backend.name(), "gpu": backend.gpu(), "threads": rayon::current_num_threads(),
        });
        self.common.print(&document, || {
            let mut text = format!(
                "{:<14} {:>14} {:>9} {:>17} {:>9} {:>20}\n",
                "phase", "sub-networks", "ms/step", "10 % to 90 %", "images/s", "not passes (waiting)"
            );
            for trial in &trials {
                let phase = &trial.phase;
                let spread = format!("{:.1} to {:.1}", trial.step_ms.p10, trial.step_ms.p90);
                let beside = 100.0 * trial.share_beside().unwrap_or_default();
                let waiting = 100.0 * trial.waiting_ms / trial.mean_ms;
                let images = (phase.subnetworks() * batch) as f64 / trial.mean_ms * 1e3;
                let _ = writeln!(
                    text,
                    "{:<14} {:>14} {:>9.1} {spread:>17} {images:>9.1} {:>20}",
                    phase.phase.name,
                    phase.subnetworks(),
                    trial.mean_ms,
                    format!("{beside:.1} % ({waiting:.1} %)")
                );
            }
            format!("{text}{}", computed_by(&backend))
        })?;
        Ok(Ending::Done)
    }

    fn data(&self) -> Data {
        Data { data: self.data.clone().unwrap_or_default(), dataset_toml: None }
    }

    fn load_setup(&self) -> anyhow::Result<LoadBench> {
        let data = self.data();
        let dataset = Arc::new(data.look(&self.common, data.list()?)?);
        let Self { steps, warmup, .. } = *self;
        let Images { batch, resolution } = self.images();
        Ok(LoadBench { dataset, resolution, batch, steps, warmup })
    }

    /// Times the loader by itself.
    fn load(&self) -> anyhow::Result<BenchReport> {
        let setup = self.load_setup()?;
        let bar = self.common.bar((self.steps + self.warmup) as u64, "{bar:30} {pos}/{len} batches");
        let report = bench_loader(&setup, |_| bar.inc(1))?;
        bar.finish_and_clear();
        Ok(report)
    }

    fn print_loaded(&self, report: &BenchReport) -> anyhow::Result<Ending> {
        let mut document = json!(report);
        document["threads"] = json!(rayon::current_num_threads());
        self.common.print(&document, || {
            let rate = report.images_per_second;
            format!("{rate:.1} images/s loaded, {} threads", rayon::current_num_threads())
        })?;
        Ok(Ending::Done)
    }

    /// Times the loader by itself, steps by themselves, and steps fed by the loader as in a training.
    fn compare(&self, setup: &Bench) -> anyhow::Result<Ending> {
        let load = self.load_setup()?;
        let bar =
            self.common.bar(3 * (self.steps + self.warmup) as u64, "{bar:30} {pos}/{len} batches and steps");
        let loaded = bench_loader(&load, |_| bar.inc(1))?;
        let computed = bench(setup, |_| bar.inc(1))?;
        let fed = bench_fed(setup, &load, |_| bar.inc(1))?;
        bar.finish_and_clear();
        let of_batch = |report: &BenchReport| report.total_ms / self.steps as f64;
        let loading = of_batch(&loaded);
        let computing = of_batch(&computed);
        let both = of_batch(&fed);
        let limit = if loading > computing { "loader" } else { "computing" };
        let document = json!({
            "loading": loaded, "computing": computed, "both": fed, "limit": limit,
            "kernels": setup.backend.name(), "gpu": setup.backend.gpu(), "threads": rayon::current_num_threads(),
        });
        self.common.print(&document, || {
            let by = computed_by(&setup.backend);
            format!(
                "{loading:.1} ms per batch loaded, {computing:.1} ms per step computed, {both:.1} ms both at once: \
                 the bottleneck is {limit}, {by}",
                limit = if limit == "loader" { "the loader" } else { "the computation" }
            )
        })?;
        Ok(Ending::Done)
    }
}

fn in_words(report: &BenchReport) -> String {
    let Spread { median, p10, p90 } = report.step_ms;
    let rate = report.images_per_second;
    let memory = report.peak_rss_mb.map_or_else(String::new, |mb| format!(", peak memory {mb:.0} MB"));
    let of_gpu = report.gpu_memory_mb.map_or_else(String::new, |mb| format!(", {mb:.0} MB of the GPU's"));
    let launches = report.launches_per_step.map_or_else(String::new, |[kernels, products]| {
        format!(", {kernels:.0} kernels and {products:.0} products per step")
    });
    format!(
        "{median:.1} ms per step (10 % to 90 %: {p10:.1} to {p90:.1}), {rate:.1} images/s{memory}{of_gpu}{launches}"
    )
}

fn computed_by(backend: &Backend) -> String {
    let name = backend.name();
    match backend.gpu() {
        Some(gpu) => format!("{name} kernels on {gpu}"),
        None => format!("{name} kernels, {} threads", rayon::current_num_threads()),
    }
}
