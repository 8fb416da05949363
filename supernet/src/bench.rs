//! Timing of whole steps of training or inference on this machine.

use std::sync::Arc;

use base::random::rng_for;
use base::timing::{Spread, Stopwatch, peak_rss_mb};
use candle_core::{Device, Tensor};
use kernels::{Backend, Profile, ProfileRow};
use network::data::{
    Augmentation, AugmentationSettings, Batch, Dataset, LoaderConfig, Sampling, Targets, TrainLoader,
};
use network::elastic::{Gradients, SharedWeights, SubnetWeights};
use network::eval::calibrate;
use network::nn::{FoldedNetwork, Network, Pass, Statistics};
use rand::Rng;
use serde::Serialize;
use space::{Arch, Extent, SearchSpace, sampler};

use crate::error::Result;
use crate::train::{Nesterov, Optimizer, Prefetcher, Student, Target, dropout_mask};

/// Kind of step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// One sub-network: forward, loss, backward, optimizer, gradients back to zero.
    Train,
    /// A teacher's forward, then four random sub-networks as in [`Mode::Train`] with one optimizer step.
    Shrink,
    /// Forward as deployed: batch norms folded into the weights.
    Infer,
    /// Forward with the batch's statistics gathered.
    Calibrate,
}

/// The sub-networks of the steps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BenchSubject {
    /// These, in turn.
    Fixed(Vec<Arch>),
    /// A new one in each step, each gene drawn independently.
    Uniform,
}

/// Settings of a benchmark.
#[derive(Clone, Debug)]
pub struct Bench {
    /// The space.
    pub space: SearchSpace,
    /// The sub-networks.
    pub subject: BenchSubject,
    /// Side of the images.
    pub resolution: Extent,
    /// Images per step.
    pub batch: usize,
    /// Timed steps.
    pub steps: usize,
    /// Steps before them, not timed.
    pub warmup: usize,
    /// Kind of step.
    pub mode: Mode,
    /// The backend that computes.
    pub backend: Backend,
    /// The record of kernel times, if any.
    pub profile: Option<Profile>,
}

/// Results of a benchmark.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BenchReport {
    /// Milliseconds per step.
    pub step_ms: Spread,
    /// Images per second at the median; in [`Mode::Shrink`] each image counts once per sub-network.
    pub images_per_second: f64,
    /// Peak memory of the process in megabytes, if the system reports it.
    pub peak_rss_mb: Option<f64>,
    /// Total milliseconds of the timed steps.
    pub total_ms: f64,
    /// Kernels and products launched on a GPU per step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub launches_per_step: Option<[f64; 2]>,
    /// Used memory of the GPU after the steps, in megabytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gpu_memory_mb: Option<f64>,
    /// Time of each kernel, if the steps were recorded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub profile: Option<Vec<ProfileRow>>,
}

/// Sub-networks of a [`Mode::Shrink`] step, as in the last phase of progressive shrinking.
const SHRINK_SUBNETWORKS: usize = 4;

/// Times whole steps on random images.
///
/// # Errors
/// If the sub-network is not in the space, or a step fails.
pub fn bench(setup: &Bench, mut report: impl FnMut(usize)) -> Result<BenchReport> {
    let mut runner = Runner::new(setup)?;
    let mut times = Vec::with_capacity(setup.steps);
    let mut launched = None;
    for step in 0..setup.warmup + setup.steps {
        if let (Some(profile), true) = (setup.profile.clone(), step == setup.warmup) {
            profile.clear();
        }
        if step == setup.warmup {
            launched = setup.backend.launches();
        }
        let watch = Stopwatch::start();
        runner.step(step as u64)?;
        if step >= setup.warmup {
            times.push(watch.elapsed_ms());
        }
        report(step);
    }
    let counts = launched.zip(setup.backend.launches());
    let per_step = |index: usize| {
        counts
            .map_or(0.0, |(before, after)| (after[index] - before[index]) as f64 / setup.steps.max(1) as f64)
    };
    let launches_per_step = counts.map(|_| [per_step(0), per_step(1)]);
    let step_ms = Spread::of(&times);
    let images_per_second = runner.images_per_step() as f64 / step_ms.median * 1e3;
    let profile = setup.profile.as_ref().map(Profile::rows);
    let total_ms = times.iter().sum();
    let gpu_memory_mb = setup.backend.gpu_memory_mb();
    let peak_rss_mb = peak_rss_mb();
    Ok(BenchReport {
        step_ms,
        images_per_second,
        peak_rss_mb,
        total_ms,
        launches_per_step,
        gpu_memory_mb,
        profile,
    })
}

/// Settings of a benchmark of the loader.
#[derive(Clone, Debug)]
pub struct LoadBench {
    /// The images.
    pub dataset: Arc<Dataset>,
    /// Side of the images after augmentation.
    pub resolution: Extent,
    /// Images per batch.
    pub batch: usize,
    /// Timed batches.
    pub steps: usize,
    /// Batches before them, not timed.
    pub warmup: usize,
}

impl LoadBench {
    fn config(&self) -> Result<LoaderConfig> {
        Ok(LoaderConfig {
            batch: self.batch,
            seed: 0,
            augmentation: Augmentation::for_dataset(&self.dataset, AugmentationSettings::default())?,
            sampling: Sampling::default(),
        })
    }
}

/// Times the loader of training batches alone, with as many workers as in training.
///
/// # Errors
/// If the batch is larger than the set, or an image cannot be read.
pub fn bench_loader(setup: &LoadBench, mut report: impl FnMut(usize)) -> Result<BenchReport> {
    let LoadBench { dataset, resolution, batch, steps, warmup } = setup;
    let config = setup.config()?;
    let resolution = *resolution;
    let mut loader = TrainLoader::new(dataset.clone(), config, 0, move |_| resolution)?;
    let mut times = Vec::with_capacity(*steps);
    for step in 0..warmup + steps {
        let watch = Stopwatch::start();
        loader.next()?;
        if step >= *warmup {
            times.push(watch.elapsed_ms());
        }
        report(step);
    }
    // batches of several workers come in bursts: only the sum gives images per second
    let total_ms: f64 = times.iter().sum();
    let images_per_second = (batch * steps) as f64 / total_ms * 1e3;
    let step_ms = Spread::of(&times);
    let peak_rss_mb = peak_rss_mb();
    Ok(BenchReport {
        step_ms,
        images_per_second,
        peak_rss_mb,
        total_ms,
        launches_per_step: None,
        gpu_memory_mb: None,
        profile: None,
    })
}

/// Times steps on real images as in training, which are loaded and copied to the device meanwhile.
///
/// # Errors
/// If data and space do not fit, or a step fails.
pub fn bench_fed(setup: &Bench, load: &LoadBench, mut report: impl FnMut(usize)) -> Result<BenchReport> {
    let LoadBench { dataset, resolution, batch, .. } = load;
    dataset.check_fits(&setup.space)?;
    let config = load.config()?;
    let side = *resolution;
    let loader = TrainLoader::new(dataset.clone(), config, 0, move |_| side)?;
    let values = batch * setup.space.input_channels() * side.plane();
    let mut batches = Prefetcher::new(loader, &setup.backend, values)?;
    let mut runner = Runner::new(setup)?;
    let mut times = Vec::with_capacity(setup.steps);
    for step in 0..setup.warmup + setup.steps {
        let watch = Stopwatch::start();
        runner.batch = batches.next()?;
        runner.step(step as u64)?;
        if step >= setup.warmup {
            times.push(watch.elapsed_ms());
        }
        report(step);
    }
    let total_ms: f64 = times.iter().sum();
    let images_per_second = (runner.images_per_step() * setup.steps) as f64 / total_ms * 1e3;
    Ok(BenchReport {
        step_ms: Spread::of(&times),
        images_per_second,
        peak_rss_mb: peak_rss_mb(),
        total_ms,
        launches_per_step: None,
        gpu_memory_mb: setup.backend.gpu_memory_mb(),
        profile: None,
    })
}

/// Takes steps, one after the other.
pub struct Runner<'a> {
    setup: &'a Bench,
    weights: SharedWeights,
    gradients: Gradients,
    optimizer: Nesterov,
    batch: Batch,
    deployed: Option<FoldedNetwork>,
}

impl<'a> Runner<'a> {
    /// Random weights and images for a setup.
    ///
    /// # Errors
    /// If the sub-network is not in the space.
    pub fn new(setup: &'a Bench) -> Result<Self> {
        let Bench { space, batch, resolution, .. } = setup;
        let weights = SharedWeights::new(space, &mut rng_for("weights", 0, &[]))?.on(&setup.backend)?;
        let mut rng = rng_for("bench", 0, &[]);
        let shape = (*batch, space.input_channels(), resolution.height, resolution.width);
        let length = shape.0 * shape.1 * shape.2 * shape.3;
        let images: Vec<f32> = (0..length).map(|_| rng.random_range(-2.0..2.0)).collect();
        let images = Tensor::from_vec(images, shape, &Device::Cpu)?.to_device(&setup.backend.device())?;
        let classes = (0..*batch).map(|_| rng.random_range(0..space.classes() as u32)).collect();
        let batch = Batch { inputs: images, targets: Targets::Classes(classes) };
        let gradients = Gradients::new(&weights)?;
        let optimizer = Nesterov::new(weights.arena(), 0.9, 3e-5, &setup.backend)?;
        let mut runner = Self { setup, weights, gradients, optimizer, batch, deployed: None };
        if setup.mode == Mode::Infer {
            runner.deployed = Some(runner.deployed_network()?);
        }
        Ok(runner)
    }

    /// The sub-network as deployed: its statistics fixed and folded into its weights.
    fn deployed_network(&self) -> Result<FoldedNetwork> {
        let Bench { space, backend, .. } = self.setup;
        let layers = space.lower(&self.arch(0, 0))?;
        let subnet = SubnetWeights::new(space, &self.weights, &layers, backend)?;
        let mut statistics = Statistics::new();
        let network = Network::new(&layers, &subnet.values()?)?;
        network.forward(&self.batch.inputs, Pass::Calibration(&mut statistics))?;
        Ok(FoldedNetwork::from_source(&layers, subnet.calibrated(&statistics)?)?)
    }

    fn arch(&self, step: u64, index: u64) -> Arch {
        match &self.setup.subject {
            BenchSubject::Fixed(archs) => {
                let index = (step * self.subnetworks() + index) as usize % archs.len().max(1);
                archs[index].at(self.setup.resolution)
            }
            BenchSubject::Uniform => {
                let mut rng = rng_for("bench sub-networks", 0, &[step, index]);
                sampler::random(&self.setup.space, &mut rng).at(self.setup.resolution)
            }
        }
    }

    /// Number of sub-networks that a step trains.
    fn subnetworks(&self) -> u64 {
        if self.setup.mode == Mode::Shrink { SHRINK_SUBNETWORKS as u64 } else { 1 }
    }

    /// Images of a step; each counts once per sub-network.
    pub fn images_per_step(&self) -> usize {
        self.setup.batch * self.subnetworks() as usize
    }

    /// Takes a step; its number picks the sub-networks.
    ///
    /// # Errors
    /// If the sub-network is not in the space.
    pub fn step(&mut self, step: u64) -> Result<()> {
        match self.setup.mode {
            Mode::Train => self.learn(step, None),
            Mode::Shrink => {
                let largest = sampler::largest(&self.setup.space).at(self.setup.resolution);
                let teacher = self.student().teach(&largest, &self.batch.inputs)?;
                self.learn(step, Some(&teacher))
            }
            Mode::Infer => match &self.deployed {
                Some(network) => {
                    network.forward(&self.batch.inputs)?;
                    Ok(self.setup.backend.synchronize()?)
                }
                None => Ok(()),
            },
            Mode::Calibrate => {
                let layers = self.setup.space.lower(&self.arch(step, 0))?;
                let subnet =
                    SubnetWeights::new(&self.setup.space, &self.weights, &layers, &self.setup.backend)?;
                let network = Network::new(&layers, &subnet.values()?)?;
                calibrate(&network, std::iter::once(Ok(self.batch.clone())))?;
                Ok(())
            }
        }
    }

    fn student(&self) -> Student<'_> {
        Student { space: &self.setup.space, weights: &self.weights, backend: self.setup.backend.clone() }
    }

    fn learn(&mut self, step: u64, teacher: Option<&Tensor>) -> Result<()> {
        let targets = &self.batch.targets;
        let labels = targets.classes();
        let target =
            Target { labels, partners: targets.partners(), smoothing: 0.1, teacher, ..Default::default() };
        let mut losses = Vec::new();
        for index in 0..self.subnetworks() {
            let arch = self.arch(step, index);
            let dropout = dropout_mask(&self.setup.space, &arch, self.setup.batch, 0, [step, index])?;
            let images = &self.batch.inputs;
            let learned = self.student().learn(&arch, images, &target, dropout, &self.gradients)?;
            losses.push(learned.loss);
        }
        self.optimizer.step(&self.weights, &self.gradients, 1e-3)?;
        // losses are read after the whole step is launched, as in training
        losses.iter().try_for_each(|loss| loss.read().map(drop))?;
        Ok(self.setup.backend.synchronize()?)
    }
}
