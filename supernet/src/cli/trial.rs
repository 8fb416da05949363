//! `supernet trial`: evaluates candidates one after the other.

use std::io::{BufRead, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::Duration;

use anyhow::Context;
use command::{Common, Ending, result_path, stop_flag, within};
use network::checkpoint::Supernet;
use network::eval::{Accuracy, Calibration};
use serde::Deserialize;
use serde_json::{Value, json};
use space::{SearchSpace, arch_file};
use supernet::train::{Recipe, Start, TrainConfig};
use supernet::trial::{
    AloneTrials, FidelityOf, SharedTrials, TrialRequest, TrialResult, ZeroCostScores, ZeroCostTrials,
};

use super::arguments::{Compute, Data, Shown};
use super::{recipe, train};

/// Evaluate sub-networks one at a time: each trained alone, with the shared weights of a supernet, or scored untrained
#[derive(clap::Args)]
#[command(after_help = "Example:
  supernet trial --space tiny --data digits --scale 0.05 --out trials --arch random:1
  supernet trial --supernet run/supernet.safetensors --data digits --arch largest --fidelity 0.25
  extract search --space tiny --evaluator 'supernet trial --space tiny --data digits --scale 0.05 --out trials --serve' \\
    --workers 2 --evaluations 20 --log search.jsonl --out found.json
  extract search --space tiny --evaluator 'supernet trial --space tiny --data digits --zero-cost --serve' \\
    --maximize nwot --evaluations 200 --out found.json

With --serve each line of stdin is a request {\"arch\", \"fidelity\", \"seed\"}, of which arch is needed, and each line of stdout
an answer {\"arch\", \"metrics\": {\"top1\", \"loss\"}, \"intervals\": {\"top1\"}, …} or {\"arch\", \"error\"}.

With --zero-cost the metrics are scores of an untrained sub-network by one batch of training images, of each more is better:
grad-norm, jacov, nwot, the logarithm of synflow, and params and macs beside them.")]
pub struct Arguments {
    /// A preset's name or a TOML file; optional with --supernet or --start
    #[arg(long, required_unless_present_any = ["supernet", "start"], conflicts_with = "supernet")]
    space: Option<String>,
    #[command(flatten)]
    data: Data,
    /// Evaluate with these shared weights instead of training; the fidelity is then the share of validation images
    #[arg(long, value_name = "FILE", conflicts_with_all = ["start", "recipe", "scale", "batch", "out"])]
    supernet: Option<PathBuf>,
    /// Train each sub-network from its part of these shared weights instead of fresh ones
    #[arg(long, value_name = "FILE")]
    start: Option<PathBuf>,
    /// Score each sub-network without training it, by one batch of --batch training images [default: 64]
    #[arg(long, conflicts_with_all = ["supernet", "recipe", "scale", "out", "fidelity", "checkpoint_seconds"])]
    zero_cost: bool,
    /// Recipe of the training [default: as that of `supernet train`]
    #[arg(long)]
    recipe: Option<String>,
    /// Multiply the epochs of every phase
    #[arg(long, default_value_t = 1.0, value_name = "F", value_parser = train::scale)]
    scale: f64,
    /// Images per step, instead of the recipe's; its learning rates scale in proportion
    #[arg(long, value_name = "N", value_parser = within(1..=1_000_000))]
    batch: Option<usize>,
    /// Part of an image used in evaluation: its `middle` square, or all of it (`stretch`)
    #[arg(long, value_name = "middle|stretch", conflicts_with = "supernet")]
    resize: Option<Shown>,
    /// Folder of all trials; what it holds already is not computed again
    #[arg(long, value_name = "FOLDER", required_unless_present_any = ["supernet", "zero_cost"], value_parser = result_path())]
    out: Option<PathBuf>,
    /// Evaluate what each line of stdin requests, until it ends
    #[arg(long, conflicts_with = "arch", required_unless_present = "arch")]
    serve: bool,
    /// The sub-network to evaluate
    #[arg(long, value_name = "ARCH")]
    arch: Option<String>,
    /// Share of full fidelity
    #[arg(long, value_name = "SHARE", default_value_t = 1.0, value_parser = share, conflicts_with = "serve")]
    fidelity: f64,
    /// What a lower fidelity of a training has less of: `steps`, which a higher one goes on from, training `images`, or their
    /// `resolution`
    #[arg(long, value_name = "WHAT", default_value = "steps", value_parser = fidelity_of, conflicts_with_all = ["supernet", "zero_cost"])]
    fidelity_of: FidelityOf,
    /// Seed of weights and batches, where a request has none
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Save the state of a training this often
    #[arg(long, default_value_t = 60, value_name = "N")]
    checkpoint_seconds: u64,
    #[command(flatten)]
    compute: Compute,
    #[command(flatten)]
    pub common: Common,
}

/// Images by which untrained sub-networks are scored.
const SCORED: usize = 64;

fn share(text: &str) -> Result<f64, String> {
    let share = text.parse().ok().filter(|share| *share > 0.0 && *share <= 1.0);
    share.ok_or_else(|| "a share above 0, at most 1".to_string())
}

fn fidelity_of(text: &str) -> Result<FidelityOf, String> {
    FidelityOf::ALL
        .into_iter()
        .find(|of| of.name() == text)
        .ok_or_else(|| "steps, images or resolution".to_string())
}

/// Any kind of trial.
enum Trials {
    Shared(Box<SharedTrials>),
    Alone(Box<AloneTrials>),
    ZeroCost(Box<ZeroCostTrials>),
}

/// What a trial knows of a sub-network.
enum Outcome {
    Result(TrialResult),
    Scores(ZeroCostScores),
}

impl Trials {
    fn space(&self) -> &SearchSpace {
        match self {
            Self::Shared(trials) => &trials.supernet.space,
            Self::Alone(trials) => &trials.space,
            Self::ZeroCost(trials) => &trials.space,
        }
    }

    fn evaluate(&self, request: &TrialRequest, stop: &AtomicBool) -> supernet::Result<Option<Outcome>> {
        let result = match self {
            Self::Shared(trials) => trials.evaluate(request, stop)?,
            Self::Alone(trials) => trials.evaluate(request, stop)?,
            Self::ZeroCost(trials) => return Ok(Some(Outcome::Scores(trials.evaluate(request)?))),
        };
        Ok(result.map(Outcome::Result))
    }
}

/// A line of stdin; a search may send more than this.
#[derive(Deserialize)]
struct Line {
    arch: String,
    #[serde(default = "whole")]
    fidelity: f64,
    #[serde(default)]
    seed: Option<u64>,
}

fn whole() -> f64 {
    1.0
}

impl Arguments {
    pub fn run(&self) -> anyhow::Result<Ending> {
        let stop = stop_flag()?;
        if self.serve {
            end_with_reader(stop.clone());
        }
        let trials = self.trials()?;
        match &self.arch {
            Some(arch) => self.evaluate_one(&trials, arch, &stop),
            None => self.serve(&trials, &stop),
        }
    }

    fn trials(&self) -> anyhow::Result<Trials> {
        let backend = self.compute.backend()?;
        if let Some(path) = &self.supernet {
            let supernet = Supernet::read(path)?.on(&backend)?;
            let catalogue = self.data.list_for(&supernet)?;
            let dataset = self.data.look_for(&self.common, catalogue, &supernet, false)?;
            let calibration = Calibration::default();
            return Ok(Trials::Shared(Box::new(SharedTrials { supernet, dataset, calibration, backend })));
        }
        let catalogue = self.data.list()?;
        let classes = catalogue.classes().len();
        let given = self.space.as_deref().map(space::open).transpose()?;
        let start = self.start.as_deref().map_or(Ok(Start::Fresh), Start::read)?;
        let space = start.space_for(given, classes)?;
        catalogue.check_fits(&space)?;
        let dataset = self.data.look(&self.common, catalogue)?;
        let resize = self.resize.map(Shown::resize);
        let start = self.start.clone();
        if self.zero_cost {
            let images = self.batch.unwrap_or(SCORED);
            let trials = ZeroCostTrials { space, dataset, start, resize, images, backend };
            return Ok(Trials::ZeroCost(Box::new(trials)));
        }
        let recipe = match &self.recipe {
            Some(given) => recipe::open("--recipe", given)?,
            None => Recipe::default_for(&space),
        };
        let recipe = recipe.scaled(self.scale);
        let recipe = recipe.with_batch(self.batch.unwrap_or(recipe.batch));
        let folder = self.out.clone().expect("clap asks for a folder");
        let checkpoint_every = Duration::from_secs(self.checkpoint_seconds);
        let config = TrainConfig { seed: self.seed, checkpoint_every, backend };
        let fidelity_of = self.fidelity_of;
        let trials = AloneTrials { space, dataset, recipe, start, resize, fidelity_of, config, folder };
        Ok(Trials::Alone(Box::new(trials)))
    }

    fn evaluate_one(&self, trials: &Trials, arch: &str, stop: &AtomicBool) -> anyhow::Result<Ending> {
        let arch = arch_file::read(trials.space(), arch).context("--arch")?;
        let request = TrialRequest { arch, fidelity: self.fidelity, seed: self.seed };
        let Some(outcome) = trials.evaluate(&request, stop)? else { return Ok(Ending::Interrupted) };
        self.common.print(&answer(trials, &request, &outcome), || match &outcome {
            Outcome::Result(TrialResult { top1, loss, n, .. }) => {
                format!("val top-1 {:.2} % of {n} images, loss {loss:.4}  {}", 100.0 * top1, request.arch)
            }
            Outcome::Scores(ZeroCostScores { metrics, n }) => {
                let lines = metrics.iter().map(|(name, value)| format!("{name:<13} {value}"));
                let of = format!("{}, not trained, by {n} images", request.arch);
                lines.chain([of]).collect::<Vec<_>>().join("\n")
            }
        })?;
        Ok(Ending::Done)
    }

    /// Answers each line until stdin ends, `stop` is set, or nobody reads the answers any more.
    fn serve(&self, trials: &Trials, stop: &Arc<AtomicBool>) -> anyhow::Result<Ending> {
        let lines = lines();
        loop {
            if stop.load(Ordering::Relaxed) {
                return Ok(Ending::Interrupted);
            }
            let line = match lines.recv_timeout(Duration::from_millis(100)) {
                Ok(line) => line.context("stdin")?,
                Err(RecvTimeoutError::Disconnected) => return Ok(Ending::Done),
                Err(RecvTimeoutError::Timeout) => continue,
            };
            if line.trim().is_empty() {
                continue;
            }
            let Some(answer) = self.answered(trials, &line, stop) else { return Ok(Ending::Interrupted) };
            let mut stdout = std::io::stdout().lock();
            if writeln!(stdout, "{}", answer).and_then(|()| stdout.flush()).is_err() {
                return Ok(Ending::Done);
            }
        }
    }

    /// The answer to a request; `None` if it was stopped.
    fn answered(&self, trials: &Trials, line: &str, stop: &AtomicBool) -> Option<Value> {
        let request = match self.request(trials, line) {
            Ok(request) => request,
            Err(error) => {
                let given = serde_json::from_str::<Value>(line).ok();
                let arch = given.as_ref().and_then(|given| given.get("arch")).cloned().unwrap_or_default();
                return Some(json!({ "arch": arch, "error": format!("{error:#}") }));
            }
        };
        match trials.evaluate(&request, stop) {
            Ok(result) => result.map(|result| answer(trials, &request, &result)),
            Err(error) => Some(json!({ "arch": request.arch, "error": error.to_string() })),
        }
    }

    fn request(&self, trials: &Trials, line: &str) -> anyhow::Result<TrialRequest> {
        let form = "request: expected {\"arch\", \"fidelity\", \"seed\"} in JSON, of which arch is needed";
        let line: Line = serde_json::from_str(line).context(form)?;
        let fidelity = share(&line.fidelity.to_string());
        let fidelity = fidelity.map_err(|expected| anyhow::anyhow!("fidelity: expected {expected}"))?;
        let arch = arch_file::read(trials.space(), &line.arch)?;
        Ok(TrialRequest { arch, fidelity, seed: line.seed.unwrap_or(self.seed) })
    }
}

fn answer(trials: &Trials, request: &TrialRequest, outcome: &Outcome) -> Value {
    let TrialResult { fidelity, top1, loss, n, steps } = match outcome {
        Outcome::Result(result) => result,
        Outcome::Scores(ZeroCostScores { metrics, n }) => {
            return json!({ "arch": request.arch, "seed": request.seed, "n": n, "metrics": metrics });
        }
    };
    let accuracy = Accuracy { correct: (top1 * *n as f64).round() as usize, n: *n };
    let mut answer = json!({
        "arch": request.arch, "fidelity": fidelity, "seed": request.seed, "n": n,
        "metrics": { "top1": top1, "loss": loss },
        "intervals": { "top1": accuracy.interval() },
    });
    if let Trials::Alone(trials) = trials {
        answer["steps"] = json!(steps);
        answer["folder"] = json!(trials.folder_of(request).display().to_string());
    }
    answer
}

/// The lines of stdin, read by a thread of their own so that a signal is noticed while nothing comes.
fn lines() -> Receiver<std::io::Result<String>> {
    let (sender, lines) = sync_channel(1);
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines() {
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    lines
}

/// Sets the flag when nobody can read the answers any more, as when a search was killed: what is trained is saved, and
/// its folder is free.
fn end_with_reader(stop: Arc<AtomicBool>) {
    #[cfg(target_os = "linux")]
    std::thread::spawn(move || {
        let stdout = std::io::stdout();
        let pause = rustix::event::Timespec { tv_sec: 0, tv_nsec: 500_000_000 };
        loop {
            // errors are reported without being asked for
            let mut end = [rustix::event::PollFd::new(&stdout, rustix::event::PollFlags::empty())];
            match rustix::event::poll(&mut end, Some(&pause)) {
                Ok(0) | Err(rustix::io::Errno::INTR) => {}
                Ok(_) if end[0].revents().contains(rustix::event::PollFlags::ERR) => break,
                Ok(_) | Err(_) => std::thread::sleep(Duration::from_millis(500)),
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    #[cfg(not(target_os = "linux"))]
    drop(stop);
}
