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
use network::eval::Calibration;
use serde::Deserialize;
use serde_json::{Value, json};
use space::{SearchSpace, arch_file};
use supernet::train::{Recipe, Start, TrainConfig};
use supernet::trial::{AloneTrials, SharedTrials, TrialRequest, TrialResult};

use super::arguments::{Compute, Data, Shown};
use super::{recipe, train};

/// Evaluate sub-networks one at a time: each trained alone, or with the shared weights of a supernet
#[derive(clap::Args)]
#[command(after_help = "Example:
  supernet trial --space tiny --data digits --scale 0.05 --out trials --arch random:1
  supernet trial --supernet run/supernet.safetensors --data digits --arch largest --fidelity 0.25
  extract search --space tiny --evaluator 'supernet trial --space tiny --data digits --scale 0.05 --out trials --serve' \\
    --workers 2 --evaluations 20 --log search.jsonl --out found.json

With --serve each line of stdin is a request {\"arch\", \"fidelity\", \"seed\"}, of which arch is needed, and each line of stdout
an answer {\"arch\", \"metrics\": {\"top1\", \"loss\"}, …} or {\"arch\", \"error\"}.")]
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
    /// Recipe of the training; the fidelity is the share of its steps [default: the first of `supernet recipe --list`]
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
    #[arg(long, value_name = "FOLDER", required_unless_present = "supernet", value_parser = result_path())]
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

fn share(text: &str) -> Result<f64, String> {
    let share = text.parse().ok().filter(|share| *share > 0.0 && *share <= 1.0);
    share.ok_or_else(|| "a share above 0, at most 1".to_string())
}

/// Either kind of trial.
enum Trials {
    Shared(Box<SharedTrials>),
    Alone(Box<AloneTrials>),
}

impl Trials {
    fn space(&self) -> &SearchSpace {
        match self {
            Self::Shared(trials) => &trials.supernet.space,
            Self::Alone(trials) => &trials.space,
        }
    }

    fn evaluate(&self, request: &TrialRequest, stop: &AtomicBool) -> supernet::Result<Option<TrialResult>> {
        match self {
            Self::Shared(trials) => trials.evaluate(request, stop),
            Self::Alone(trials) => trials.evaluate(request, stop),
        }
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
        let recipe = match &self.recipe {
            Some(given) => recipe::open("--recipe", given)?,
            None => Recipe::progressive(),
        };
        let recipe = recipe.scaled(self.scale);
        let recipe = recipe.with_batch(self.batch.unwrap_or(recipe.batch));
        let catalogue = self.data.list()?;
        let classes = catalogue.classes().len();
        let given = self.space.as_deref().map(space::open).transpose()?;
        let start = self.start.as_deref().map_or(Ok(Start::Fresh), Start::read)?;
        let space = start.space_for(given, classes)?;
        catalogue.check_fits(&space)?;
        let dataset = self.data.look(&self.common, catalogue)?;
        let folder = self.out.clone().expect("clap asks for a folder");
        let checkpoint_every = Duration::from_secs(self.checkpoint_seconds);
        let config = TrainConfig { seed: self.seed, checkpoint_every, backend };
        let resize = self.resize.map(Shown::resize);
        let start = self.start.clone();
        Ok(Trials::Alone(Box::new(AloneTrials { space, dataset, recipe, start, resize, config, folder })))
    }

    fn evaluate_one(&self, trials: &Trials, arch: &str, stop: &AtomicBool) -> anyhow::Result<Ending> {
        let arch = arch_file::read(trials.space(), arch).context("--arch")?;
        let request = TrialRequest { arch, fidelity: self.fidelity, seed: self.seed };
        let Some(result) = trials.evaluate(&request, stop)? else { return Ok(Ending::Interrupted) };
        self.common.print(&answer(trials, &request, &result), || {
            let TrialResult { top1, loss, n, .. } = result;
            format!("val top-1 {:.2} % of {n} images, loss {loss:.4}  {}", 100.0 * top1, request.arch)
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

fn answer(trials: &Trials, request: &TrialRequest, result: &TrialResult) -> Value {
    let TrialResult { fidelity, top1, loss, n, steps } = result;
    let mut answer = json!({
        "arch": request.arch, "fidelity": fidelity, "seed": request.seed, "n": n,
        "metrics": { "top1": top1, "loss": loss },
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
