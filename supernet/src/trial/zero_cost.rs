//! Scores of sub-networks that are not trained at all ("zero-cost proxies"; Abdelfattah et al. 2021).

use std::collections::BTreeMap;
use std::path::PathBuf;

use base::equations::eigenvalue_sums;
use candle_core::Tensor;
use kernels::Backend;
use network::data::{Dataset, Resize, calibration_batches};
use network::elastic::{Gradients, SharedWeights, SubnetWeights};
use network::nn::{ActivationCodes, Network, Pass, Tape};
use space::{Arch, LayerSpec, SearchSpace, cost};

use super::TrialRequest;
use crate::error::{Error, Result};
use crate::train::{Start, Student, Target};

/// Added to the eigenvalues of the correlations of gradients (Mellor et al. 2021, first version).
const LEAST_EIGENVALUE: f64 = 1e-5;

/// Scores sub-networks before any training, each by one batch of training images, seen as evaluation sees them.
pub struct ZeroCostTrials {
    /// The space of the sub-networks.
    pub space: SearchSpace,
    /// The images, not preprocessed yet.
    pub dataset: Dataset,
    /// File of shared weights of which each sub-network has its part; without one it has fresh weights.
    pub start: Option<PathBuf>,
    /// Part of an image that is seen, where it is not the usual one.
    pub resize: Option<Resize>,
    /// Images in the batch.
    pub images: usize,
    /// The backend.
    pub backend: Backend,
}

/// The scores of a sub-network; of each more is better.
#[derive(Clone, Debug, PartialEq)]
pub struct ZeroCostScores {
    /// The scores by name.
    ///
    /// - `grad-norm`: sum over the weights of convolutions and linear layers of the Euclidean norm of the loss's gradient, in nats;
    /// - `jacov` (Mellor et al. 2021, first version): `-sum(ln(e + k) + 1 / (e + k))` over the eigenvalues e of the correlations
    ///   between the images' gradients of the sum of logits by the image, k = 1e-5;
    /// - `nwot` (Mellor et al. 2021): the natural logarithm of the determinant of the matrix that counts, for each two images, the
    ///   units that are above 0 for both or for neither ([`ActivationCodes`]);
    /// - `synflow` (Tanaka et al. 2020), its natural logarithm ([`Network::synaptic_flow`]), which no image is needed for;
    /// - `params` and `macs`.
    pub metrics: BTreeMap<&'static str, f64>,
    /// Number of images.
    pub n: usize,
}

/// Weights and layers of a sub-network, and the batch.
struct Subject<'a> {
    space: &'a SearchSpace,
    weights: &'a SharedWeights,
    arch: &'a Arch,
    layers: &'a [LayerSpec],
    backend: &'a Backend,
    images: &'a Tensor,
    labels: &'a [u32],
}

impl ZeroCostTrials {
    /// Scores a sub-network with the weights and images of the request's seed; its fidelity is ignored.
    ///
    /// # Errors
    /// If it does not lie in the space, there are fewer than two training images, or a score has no value: an output that no image
    /// changes, two images that look alike to the sub-network, or numbers beyond f32.
    pub fn evaluate(&self, request: &TrialRequest) -> Result<ZeroCostScores> {
        let TrialRequest { arch, seed, .. } = request;
        self.space.check(arch)?;
        let start = self.start.as_deref().map_or(Ok(Start::Fresh), Start::read)?;
        let start = start.only(&self.space, arch, &self.backend)?;
        let space = self.space.only(arch)?;
        let dataset = start.see(&self.dataset, &space, self.resize)?;
        let weights = start.weights(&space, &dataset, *seed)?.weights.on(&self.backend)?;
        let mut batches = calibration_batches(&dataset, self.images, self.images, arch.resolution, *seed);
        let batch = batches.next().transpose()?.filter(|batch| batch.len() > 1);
        let expected = "at least 2, which are compared";
        let batch = batch.ok_or_else(|| {
            Error::invalid("zero-cost scores", "training images", expected, dataset.train().len())
        })?;
        let layers = space.lower(arch)?;
        let subject = Subject {
            space: &space,
            weights: &weights,
            arch,
            layers: &layers,
            backend: &self.backend,
            images: &batch.inputs,
            labels: batch.targets.classes(),
        };
        let cost = cost(&layers);
        let metrics = [
            ("grad-norm", subject.gradient_norm()?),
            ("jacov", subject.jacobian_covariance()?),
            ("nwot", subject.code_determinant()?),
            ("synflow", subject.network()?.synaptic_flow(layers[0].input)?),
            ("params", cost.params as f64),
            ("macs", cost.macs as f64),
        ];
        if let Some((name, value)) = metrics.iter().find(|(_, value)| !value.is_finite()) {
            return Err(Error::invalid("zero-cost scores", *name, "a finite number", value));
        }
        Ok(ZeroCostScores { metrics: metrics.into(), n: batch.len() })
    }
}

impl Subject<'_> {
    fn network(&self) -> Result<Network> {
        let subnet = SubnetWeights::new(self.space, self.weights, self.layers, self.backend)?;
        Ok(Network::new(self.layers, &subnet.values()?)?)
    }

    fn gradient_norm(&self) -> Result<f64> {
        let gradients = Gradients::new(self.weights)?;
        let student = Student { space: self.space, weights: self.weights, backend: self.backend.clone() };
        let target = Target { labels: self.labels, ..Target::default() };
        student.learn(self.arch, self.images, &target, None, &gradients)?;
        let mut sum = 0.0;
        for tensor in gradients.arena().detached()?.tensors().values() {
            // of weights alone: scales, shifts and biases are vectors
            if tensor.rank() > 1 {
                let values = tensor.flatten_all()?.to_vec1::<f32>()?;
                sum += values.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt();
            }
        }
        Ok(sum)
    }

    fn jacobian_covariance(&self) -> Result<f64> {
        let subnet = SubnetWeights::new(self.space, self.weights, self.layers, self.backend)?;
        let gradients = Gradients::new(self.weights)?;
        let views = subnet.gradients(&gradients)?;
        let network = Network::new(self.layers, &views.source()?)?;
        let mut tape = Tape::new().reaching_images();
        let logits = network.forward(self.images, Pass::Training(&mut tape))?;
        let of_images =
            network.backward_to_images(&logits.ones_like()?, tape)?.expect("the tape reaches them");
        let rows = of_images.flatten_from(1)?.to_vec2::<f32>()?;
        if rows.iter().flatten().all(|value| *value == 0.0) {
            let place = format!("arch {}", self.arch);
            return Err(Error::invalid(
                place,
                "zero-cost scores",
                "an output that depends on the image",
                "a constant",
            ));
        }
        let mut matrix = correlations(&rows);
        let len = rows.len();
        (0..len).for_each(|at| matrix[at * len + at] += LEAST_EIGENVALUE);
        let sums = eigenvalue_sums(matrix, len).map_err(|error| error.in_place("jacov"))?;
        Ok(-(sums.logarithms + sums.reciprocals))
    }

    fn code_determinant(&self) -> Result<f64> {
        let mut codes = ActivationCodes::new();
        self.network()?.forward(self.images, Pass::Codes(&mut codes))?;
        let matrix = codes.agreeing().iter().map(|count| *count as f64).collect();
        let sums = eigenvalue_sums(matrix, codes.images());
        Ok(sums.map_err(|error| error.in_place("nwot: two images are the same to it"))?.logarithms)
    }
}

/// The correlations between rows; NaN for a row without variance.
fn correlations(rows: &[Vec<f32>]) -> Vec<f64> {
    let normalized = |row: &Vec<f32>| -> Vec<f64> {
        let mean = row.iter().map(|value| f64::from(*value)).sum::<f64>() / row.len() as f64;
        let centered: Vec<f64> = row.iter().map(|value| f64::from(*value) - mean).collect();
        let length = centered.iter().map(|value| value * value).sum::<f64>().sqrt();
        centered.into_iter().map(|value| value / length).collect()
    };
    let rows: Vec<Vec<f64>> = rows.iter().map(normalized).collect();
    let product = |one: &[f64], other: &[f64]| one.iter().zip(other).map(|(one, other)| one * other).sum();
    rows.iter().flat_map(|one| rows.iter().map(move |other| product(one, other))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use space::{preset, sampler};

    fn trials() -> ZeroCostTrials {
        ZeroCostTrials {
            space: preset("tiny").expect("a preset"),
            dataset: Dataset::open("digits").expect("embedded"),
            start: None,
            resize: None,
            images: 32,
            backend: Backend::detect(),
        }
    }

    fn scores(trials: &ZeroCostTrials, arch: Arch, seed: u64) -> ZeroCostScores {
        trials.evaluate(&TrialRequest { arch, fidelity: 1.0, seed }).expect("scores")
    }

    #[test]
    fn correlations_are_those_of_the_textbook() {
        let got = correlations(&[vec![1.0, 2.0, 3.0], vec![6.0, 4.0, 2.0], vec![1.0, 0.0, 1.0]]);
        let expected = [1.0, -1.0, 0.0, -1.0, 1.0, 0.0, 0.0, 0.0, 1.0];
        assert!(got.iter().zip(expected).all(|(got, expected)| (got - expected).abs() < 1e-12), "{got:?}");
    }

    #[test]
    fn larger_sub_networks_have_higher_scores() {
        let trials = trials();
        let resolution = trials.space.greatest_resolution();
        let ends = [sampler::smallest(&trials.space), sampler::largest(&trials.space)];
        let [small, large] = ends.map(|arch| scores(&trials, arch.at(resolution), 3));
        assert_eq!(small.n, 32);
        for name in ["nwot", "synflow", "params", "macs"] {
            assert!(small.metrics[name] < large.metrics[name], "{name} {small:?} {large:?}");
        }
        assert!(small.metrics.values().chain(large.metrics.values()).all(|value| value.is_finite()));
    }

    #[test]
    fn scores_depend_on_the_seed_and_on_nothing_else() {
        let trials = trials();
        let arch = sampler::smallest(&trials.space);
        let first = scores(&trials, arch.clone(), 3);
        assert_eq!(scores(&trials, arch.clone(), 3), first);
        let other = scores(&trials, arch, 4);
        assert!(
            ["grad-norm", "jacov", "nwot", "synflow"]
                .iter()
                .all(|name| other.metrics[name] != first.metrics[name])
        );
        assert_eq!(other.metrics["params"], first.metrics["params"]);
    }

    #[test]
    fn one_image_is_not_enough() {
        let trials = ZeroCostTrials { images: 1, ..trials() };
        let arch = sampler::smallest(&trials.space);
        let error = trials.evaluate(&TrialRequest { arch, fidelity: 1.0, seed: 0 }).expect_err("refused");
        assert!(error.to_string().contains("training images: expected at least 2"), "{error}");
    }

    #[test]
    fn a_network_that_no_image_changes_has_no_scores() {
        let trials = ZeroCostTrials { space: preset("tiny-cell").expect("a preset"), ..trials() };
        for arch in ["r8:|none~0|+|none~0|none~1|", "r8:|none~0|+|none~0|nor_conv_3x3~1|"] {
            let request = TrialRequest { arch: arch.parse().expect("an arch"), fidelity: 1.0, seed: 0 };
            let error = trials.evaluate(&request).expect_err(arch).to_string();
            let part = "zero-cost scores: expected an output that depends on the image, got a constant";
            assert!(error.contains(part), "{error}");
        }
    }
}
