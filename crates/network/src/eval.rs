//! Evaluation of a sub-network: the statistics of its batch norms, then its accuracy.

mod evaluation;

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};

use candle_core::{Device, Tensor};
use kernels::Backend;
use serde::{Deserialize, Serialize};
use space::{Arch, Extent, SearchSpace};

pub use evaluation::{Confusion, Evaluation, Judged};

use crate::checkpoint::Supernet;
use crate::data::{Batch, Dataset, Split, calibration_batches, eval_batches};
use crate::elastic::{SharedWeights, SubnetWeights};
use crate::error::{Error, Result};
use crate::nn::{Network, Pass, Source, Statistics};

/// Images and batch that statistics are gathered with; OFA's are 2,000 in batches of 200.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Calibration {
    /// Training images seen, at most.
    pub images: usize,
    /// Images that are normalized together.
    pub batch: usize,
    /// Seed that picks the images.
    pub seed: u64,
}

impl Default for Calibration {
    fn default() -> Self {
        Self { images: 2000, batch: 200, seed: 0 }
    }
}

/// Share of images that were classified correctly.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Accuracy {
    /// Images whose class scored highest.
    pub correct: usize,
    /// Images in all.
    pub n: usize,
}

impl Accuracy {
    /// The share, 0 to 1.
    pub fn top1(&self) -> f64 {
        self.correct as f64 / self.n.max(1) as f64
    }

    /// The 95 % interval of the share that the images are a sample of (Wilson 1927).
    pub fn interval(&self) -> [f64; 2] {
        let n = self.n.max(1) as f64;
        let z = 1.959_964;
        let center = self.top1() + z * z / (2.0 * n);
        let half = z * (self.top1() * (1.0 - self.top1()) / n + z * z / (4.0 * n * n)).sqrt();
        let scale = 1.0 + z * z / n;
        [((center - half) / scale).max(0.0), ((center + half) / scale).min(1.0)]
    }
}

/// `91.2 % (n = 6000, 95 % interval 90.5 to 91.9 %)`.
impl fmt::Display for Accuracy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [low, high] = self.interval().map(|share| 100.0 * share);
        write!(f, "{:.2} % (n = {}, 95 % interval {low:.2} to {high:.2} %)", 100.0 * self.top1(), self.n)
    }
}

/// Statistics of every batch norm of a network on the given images: per-batch means and biased variances,
/// averaged with the images as weights, each batch norm normalizing with the batch's own on the way (as OFA).
///
/// # Errors
/// If there are no images, or they do not fit the network.
pub fn calibrate(
    network: &Network,
    batches: impl Iterator<Item = Result<Batch>> + Send,
) -> Result<Statistics> {
    let mut sums: std::collections::BTreeMap<String, Vec<f64>> = Default::default();
    let mut images = 0.0;
    each_batch(network, batches, |batch| {
        let mut seen = Statistics::new();
        network.forward(&batch.inputs, Pass::Calibration(&mut seen))?;
        let weight = batch.len() as f64;
        images += weight;
        for (name, statistics) in seen {
            let values = statistics.flatten_all()?.to_vec1::<f32>()?;
            let sum = sums.entry(name).or_insert_with(|| vec![0.0; values.len()]);
            sum.iter_mut().zip(values).for_each(|(sum, value)| *sum += weight * f64::from(value));
        }
        Ok(())
    })?;
    let mut means = Statistics::new();
    for (name, sum) in sums {
        let values: Vec<f32> = sum.iter().map(|sum| (sum / images) as f32).collect();
        if let Some(value) = values.iter().find(|value| !value.is_finite()) {
            return Err(spoiled(format!("statistics of {name}"), value));
        }
        let channels = values.len() / 2;
        means.insert(name, Tensor::from_vec(values, (2, channels), &Device::Cpu)?);
    }
    Ok(means)
}

/// The error of a network that has no accuracy, since its numbers have left the range of f32.
fn spoiled(field: String, value: &f32) -> Error {
    Error::NoAccuracy { place: "network".to_string(), field, got: *value }
}

/// Accuracy of a network at inference.
///
/// # Errors
/// If it is not calibrated, the images do not fit, or a logit is not finite.
pub fn accuracy(network: &Network, batches: impl Iterator<Item = Result<Batch>> + Send) -> Result<Accuracy> {
    Ok(share(&hits(network, batches)?))
}

/// The share of hits.
fn share(hits: &[bool]) -> Accuracy {
    Accuracy { correct: hits.iter().filter(|hit| **hit).count(), n: hits.len() }
}

/// Whether a network at inference finds the class of each image, in order.
///
/// # Errors
/// As [`accuracy`].
pub fn hits(network: &Network, batches: impl Iterator<Item = Result<Batch>> + Send) -> Result<Vec<bool>> {
    Ok(judged(network, batches)?.iter().map(|image| image.rank == 0).collect())
}

/// A network's result for each image at inference, in order.
///
/// # Errors
/// As [`accuracy`], or if the label of an image is no class of the network.
pub fn judged(network: &Network, batches: impl Iterator<Item = Result<Batch>> + Send) -> Result<Vec<Judged>> {
    let mut judged = Vec::new();
    each_batch(network, batches, |batch| {
        let logits = network.forward(&batch.inputs, Pass::Inference)?.to_vec2::<f32>()?;
        for (row, label) in logits.iter().zip(batch.targets.classes()) {
            if let Some(value) = row.iter().find(|value| !value.is_finite()) {
                return Err(spoiled(format!("logits of image {}", judged.len() + 1), value));
            }
            judged.push(Judged::new(row, *label as usize)?);
        }
        Ok(())
    })?;
    Ok(judged)
}

/// Visits the batches in order. While a GPU computes with one, a thread makes the next; a CPU's cores make it themselves.
fn each_batch(
    network: &Network,
    mut batches: impl Iterator<Item = Result<Batch>> + Send,
    mut visit: impl FnMut(&Batch) -> Result<()>,
) -> Result<()> {
    if network.backend().gpu().is_none() {
        return batches.try_for_each(|batch| visit(&batch?));
    }
    let (sender, made) = std::sync::mpsc::sync_channel(1);
    std::thread::scope(|scope| {
        scope.spawn(move || {
            for batch in batches {
                // nobody waits for another: one before has failed
                if sender.send(batch).is_err() {
                    break;
                }
            }
        });
        // taken by value, so that the thread ends where a visit fails
        made.into_iter().try_for_each(|batch| visit(&batch?))
    })
}

/// Index of the highest score; of equal ones the first. `None` if there is none or one is not a number: no class is the
/// best then.
pub fn best(scores: &[f32]) -> Option<usize> {
    let mut best = None;
    for (index, &score) in scores.iter().enumerate() {
        if score.is_nan() {
            return None;
        }
        if best.is_none_or(|best: usize| score > scores[best]) {
            best = Some(index);
        }
    }
    best
}

/// Everything that judging sub-networks of one supernet needs.
#[derive(Clone)]
pub struct Evaluator<'a> {
    /// The space that the weights are of.
    pub space: &'a SearchSpace,
    /// The shared weights.
    pub weights: &'a SharedWeights,
    /// Images to calibrate and to evaluate with, seen as the supernet sees them
    /// ([`Supernet::see`](crate::checkpoint::Supernet::see)).
    pub dataset: &'a Dataset,
    /// Calibration settings.
    pub calibration: Calibration,
    /// Backend that computes.
    pub backend: Backend,
}

impl<'a> Evaluator<'a> {
    /// Evaluates sub-networks of a supernet whose weights lie where the kernels compute ([`Supernet::on`]), with the usual
    /// calibration. The images are taken as they are: show them with
    /// [`Supernet::see`](crate::checkpoint::Supernet::see) where the supernet sees others or names its classes otherwise.
    pub fn new(supernet: &'a Supernet, dataset: &'a Dataset, backend: &Backend) -> Self {
        let Supernet { space, weights, .. } = supernet;
        Self { space, weights, dataset, calibration: Calibration::default(), backend: backend.clone() }
    }

    /// The evaluator with another calibration.
    #[must_use]
    pub fn calibrating(self, calibration: Calibration) -> Self {
        Self { calibration, ..self }
    }
}

impl Evaluator<'_> {
    /// Statistics of a sub-network on training images at its resolution.
    ///
    /// # Errors
    /// If the images do not fit the space.
    pub fn calibrate(&self, arch: &Arch) -> Result<Statistics> {
        self.calibrate_unless(&AtomicBool::new(false), arch)
    }

    fn calibrate_unless(&self, stop: &AtomicBool, arch: &Arch) -> Result<Statistics> {
        let layers = self.space.lower(arch)?;
        let subnet = SubnetWeights::new(self.space, self.weights, &layers, &self.backend)?;
        let network = Network::new(&layers, &subnet.values()?)?;
        let Calibration { images, batch, seed } = self.calibration;
        let batches = calibration_batches(self.dataset, images, batch, arch.resolution, seed);
        calibrate(&network, batches.take_while(|_| !stop.load(Ordering::Relaxed)))
            .map_err(|error| error.in_place(format!("arch {arch}")))
    }

    /// Accuracy of a sub-network on a split, after calibration on training images.
    ///
    /// # Errors
    /// If the data set lacks the split or does not fit the space.
    pub fn accuracy(&self, arch: &Arch, split: Split) -> Result<Accuracy> {
        let counted = self.accuracy_unless(&AtomicBool::new(false), arch, split)?;
        Ok(counted.expect("nothing asks it to stop"))
    }

    /// [`Evaluator::accuracy`], stopped between two batches when `stop` is set; `None` then.
    ///
    /// # Errors
    /// If the data set lacks the split or does not fit the space.
    pub fn accuracy_unless(&self, stop: &AtomicBool, arch: &Arch, split: Split) -> Result<Option<Accuracy>> {
        Ok(self.hits_unless(stop, arch, split)?.map(|hits| share(&hits)))
    }

    /// Whether a sub-network finds the class of each image of a split, after calibration on training images; `None` if
    /// `stop` is set before the end.
    ///
    /// # Errors
    /// If the data set lacks the split or does not fit the space.
    pub fn hits_unless(&self, stop: &AtomicBool, arch: &Arch, split: Split) -> Result<Option<Vec<bool>>> {
        let stopped = || stop.load(Ordering::Relaxed);
        let statistics = self.calibrate_unless(stop, arch)?;
        if stopped() {
            return Ok(None);
        }
        let layers = self.space.lower(arch)?;
        let subnet = SubnetWeights::new(self.space, self.weights, &layers, &self.backend)?;
        let network = Network::new(&layers, &subnet.calibrated(&statistics)?)?;
        let batches = self.batches(arch.resolution, split)?.take_while(|_| !stopped());
        let hits = hits(&network, batches).map_err(|error| error.in_place(format!("arch {arch}")))?;
        Ok((!stopped()).then_some(hits))
    }

    /// A sub-network's result for each image of a split: after calibration on training images, or with these statistics
    /// of an imported supernet's largest network where they reach.
    ///
    /// # Errors
    /// If the data set lacks the split or does not fit the space.
    pub fn evaluate(&self, arch: &Arch, largest: Option<&Statistics>, split: Split) -> Result<Evaluation> {
        let evaluation = self.evaluate_unless(&AtomicBool::new(false), arch, largest, split)?;
        Ok(evaluation.expect("nothing asks it to stop"))
    }

    /// [`Evaluator::evaluate`], stopped between two batches when `stop` is set; `None` then.
    ///
    /// # Errors
    /// If the data set lacks the split or does not fit the space.
    pub fn evaluate_unless(
        &self,
        stop: &AtomicBool,
        arch: &Arch,
        largest: Option<&Statistics>,
        split: Split,
    ) -> Result<Option<Evaluation>> {
        let stopped = || stop.load(Ordering::Relaxed);
        if stopped() {
            return Ok(None);
        }
        let layers = self.space.lower(arch)?;
        let subnet = SubnetWeights::new(self.space, self.weights, &layers, &self.backend)?;
        let statistics = match largest {
            Some(largest) => subnet.inherit(largest)?,
            None => self.calibrate_unless(stop, arch)?,
        };
        if stopped() {
            return Ok(None);
        }
        let network = Network::new(&layers, &subnet.calibrated(&statistics)?)?;
        let batches = self.batches(arch.resolution, split)?.take_while(|_| !stopped());
        let images = judged(&network, batches).map_err(|error| error.in_place(format!("arch {arch}")))?;
        Ok((!stopped()).then(|| Evaluation { classes: self.space.classes(), images }))
    }

    /// Accuracy on a split of a network whose weights and statistics `source` answers with.
    ///
    /// # Errors
    /// If the data set lacks the split or does not fit.
    pub fn accuracy_of(
        &self,
        layers: &[space::LayerSpec],
        source: &Source,
        resolution: Extent,
        split: Split,
    ) -> Result<Accuracy> {
        accuracy(&Network::new(layers, source)?, self.batches(resolution, split)?)
    }

    fn batches(
        &self,
        resolution: Extent,
        split: Split,
    ) -> Result<impl Iterator<Item = Result<Batch>> + Send> {
        let set = self.dataset.split(split)?;
        Ok(eval_batches(set, self.dataset.preprocess(), resolution, self.calibration.batch))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interval_is_wilsons() {
        // 81 of 263: 0.2553 to 0.3662 (Newcombe 1998, table I).
        let [low, high] = Accuracy { correct: 81, n: 263 }.interval();
        assert!((low - 0.2553).abs() < 1e-4 && (high - 0.3662).abs() < 1e-4, "{low} {high}");
        let [low, high] = Accuracy { correct: 10, n: 10 }.interval();
        assert!(low > 0.7 && high > 0.999_999, "{low} {high}");
    }

    #[test]
    fn of_equal_scores_the_first_is_best() {
        assert_eq!(best(&[1.0, 3.0, 3.0]), Some(1));
        assert_eq!(best(&[f32::NEG_INFINITY]), Some(0));
        assert_eq!(best(&[]), None);
    }

    #[test]
    fn without_a_number_there_is_no_best() {
        assert_eq!(best(&[f32::NAN, 3.0]), None);
        assert_eq!(best(&[3.0, -f32::NAN]), None);
    }

    /// Weights of `tiny` whose batch norm `norm` leaves the range of f32, though each of its weights is finite.
    fn exploded(space: &SearchSpace, norm: &str) -> SharedWeights {
        let fresh =
            SharedWeights::new(space, &mut base::random::rng_for("weights", 1, &[])).expect("weights");
        let mut tensors = fresh.tensors().clone();
        let scale = tensors.get_mut(&format!("{norm}.bn.weight")).expect("a batch norm");
        *scale = Tensor::full(3e38f32, scale.dims(), &Device::Cpu).expect("a tensor");
        SharedWeights::from_tensors(space, tensors, "test").expect("finite")
    }

    #[test]
    fn a_network_without_numbers_has_no_accuracy() {
        let space = space::preset("tiny").expect("a preset");
        let dataset = Dataset::open("digits").expect("embedded");
        let arch = space::sampler::smallest(&space);
        for (norm, part) in [
            ("final_expand_layer", "network: logits of image 1: expected finite numbers, got "),
            ("first_conv", "network: statistics of "),
        ] {
            let weights = exploded(&space, norm);
            let calibration = Calibration { images: 100, batch: 50, seed: 0 };
            let backend = Backend::detect();
            let evaluator =
                Evaluator { space: &space, weights: &weights, dataset: &dataset, calibration, backend };
            let error = evaluator.accuracy(&arch, Split::Val).expect_err("no accuracy").to_string();
            assert!(error.starts_with(&format!("arch {arch}: {part}")), "{error}");
            assert!(error.contains("the network has no accuracy"), "{error}");
            assert!(evaluator.hits_unless(&AtomicBool::new(false), &arch, Split::Val).is_err());
        }
    }
}
