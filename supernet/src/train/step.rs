//! The part of one sub-network in a step: forward, loss, backward into the shared gradients.

use base::random::rng_for;
use candle_core::{Device, Tensor};
use kernels::Backend;
use network::elastic::{Gradients, SharedWeights, SubnetWeights};
use network::nn::{Network, Pass, Tape};
use rand::Rng;
use space::{Arch, Mixture, SearchSpace};

use super::loss::{Loss, Target, loss};
use crate::error::Result;

/// The shared weights of a space, and the backend that computes with them.
#[derive(Clone)]
pub struct Student<'a> {
    /// The search space.
    pub space: &'a SearchSpace,
    /// The weights.
    pub weights: &'a SharedWeights,
    /// The backend that computes.
    pub backend: Backend,
}

/// The outcome of one network's training pass.
#[derive(Clone, Debug)]
pub struct Learned {
    /// The loss.
    pub loss: Loss,
    /// The logits, `[N, classes]`.
    pub logits: Tensor,
}

impl Student<'_> {
    /// Adds a sub-network's gradients to `gradients`.
    ///
    /// # Errors
    /// If the images do not fit the space.
    pub fn learn(
        &self,
        arch: &Arch,
        images: &Tensor,
        target: &Target,
        dropout: Option<Tensor>,
        gradients: &Gradients,
    ) -> Result<Learned> {
        let layers = self.space.lower(arch)?;
        let subnet = SubnetWeights::new(self.space, self.weights, &layers, &self.backend)?;
        let views = subnet.gradients(gradients)?;
        let network = Network::new(&layers, &views.source()?)?;
        let learned = learn(&network, &self.backend, images, target, dropout)?;
        views.finish()?;
        Ok(learned)
    }

    /// Logits of a sub-network as a teacher: not trained, with the batch's own statistics.
    ///
    /// # Errors
    /// If the images do not fit the space.
    pub fn teach(&self, arch: &Arch, images: &Tensor) -> Result<Tensor> {
        let layers = self.space.lower(arch)?;
        let subnet = SubnetWeights::new(self.space, self.weights, &layers, &self.backend)?;
        Ok(Network::new(&layers, &subnet.values()?)?.forward(images, Pass::BatchStatistics)?)
    }
}

/// The shared weights of a space, and a mixture of its sub-networks with the weights of its sums.
pub(super) struct MixedStudent<'a> {
    pub student: Student<'a>,
    pub mixture: &'a Mixture,
    pub weights: &'a [Vec<f32>],
}

impl MixedStudent<'_> {
    /// Adds the mixture's gradients to `gradients`; its loss, and the slopes by the weights of its sums and by those of maps of
    /// ones.
    pub fn learn(
        &self,
        images: &Tensor,
        target: &Target,
        gradients: &Gradients,
    ) -> Result<(Loss, Vec<Vec<f32>>)> {
        let Student { space, weights, backend } = &self.student;
        let layers = &self.mixture.layers;
        let subnet = SubnetWeights::new(space, weights, layers, backend)?.mixing(self.weights)?;
        let views = subnet.gradients(gradients)?;
        let network = Network::new(layers, &views.source()?)?;
        let learned = learn(&network, backend, images, target, None)?;
        let slopes = views.mix_slopes()?;
        views.finish()?;
        Ok((learned.loss, slopes))
    }
}

/// Adds the gradients of a network where its source has them.
pub(super) fn learn(
    network: &Network,
    backend: &Backend,
    images: &Tensor,
    target: &Target,
    dropout: Option<Tensor>,
) -> Result<Learned> {
    let dropout = dropout.map(|mask| backend.mask(&mask)).transpose()?;
    let mut tape = dropout.map_or_else(Tape::new, Tape::with_dropout);
    let logits = network.forward(images, Pass::Training(&mut tape))?; // [N, classes]
    let (loss, dlogits) = loss(&logits, target, backend)?;
    network.backward(&dlogits, tape)?;
    Ok(Learned { loss, logits })
}

/// A loss above this counts as divergence: 30 times that of guessing, doubled because a teacher adds its own. This
/// toolkit's choice; healthy runs stay within a few times that of guessing.
pub(super) fn most_loss(classes: usize) -> f32 {
    60.0 * (classes.max(2) as f32).ln()
}

/// A mask `[features, images]` of zeros at the space's dropout rate, the rest scaled to keep the mean; as many
/// features as the sub-network's classifier reads.
///
/// # Errors
/// If the tensor cannot be made.
pub fn dropout_mask(
    space: &SearchSpace,
    arch: &Arch,
    images: usize,
    seed: u64,
    place: [u64; 2],
) -> Result<Option<Tensor>> {
    let rate = space.dropout();
    if rate == 0.0 {
        return Ok(None);
    }
    let mut rng = rng_for("dropout", seed, &place);
    let features = space.lower(arch)?.last().map_or(0, |classifier| classifier.input.channels);
    let kept = 1.0 / (1.0 - rate);
    let mask: Vec<f32> = std::iter::repeat_with(|| if rng.random::<f32>() < rate { 0.0 } else { kept })
        .take(features * images)
        .collect();
    Ok(Some(Tensor::from_vec(mask, (features, images), &Device::Cpu)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use space::{Index, preset};

    struct Fixture {
        space: SearchSpace,
        weights: SharedWeights,
        backend: Backend,
        images: Tensor,
        labels: Vec<u32>,
    }

    impl Fixture {
        fn new() -> Self {
            let space = preset("tiny-cell").expect("a preset");
            let weights = SharedWeights::new(&space, &mut rng_for("weights", 1, &[])).expect("weights");
            let mut rng = rng_for("images", 1, &[]);
            let values: Vec<f32> = (0..6 * 64).map(|_| rng.random_range(-1.0..1.0)).collect();
            let images = Tensor::from_vec(values, (6, 1, 8, 8), &Device::Cpu).expect("images");
            let labels = vec![0, 3, 5, 1, 9, 2];
            Self { space, weights, backend: Backend::reference(), images, labels }
        }

        fn student(&self) -> Student<'_> {
            Student { space: &self.space, weights: &self.weights, backend: self.backend.clone() }
        }

        fn target(&self) -> Target<'_> {
            Target { labels: &self.labels, ..Target::default() }
        }

        /// Loss, gradients of all weights, and slopes by the weights of sums.
        fn mixed(&self, values: &[Vec<Index>], weights: &[Vec<f32>]) -> (f32, Vec<f32>, Vec<Vec<f32>>) {
            let mixture = self.space.mixture(values, 8.into()).expect("its own");
            let gradients = Gradients::new(&self.weights).expect("zeros");
            let student = MixedStudent { student: self.student(), mixture: &mixture, weights };
            let (loss, slopes) = student.learn(&self.images, &self.target(), &gradients).expect("a pass");
            (loss.read().expect("a number"), all(&gradients), slopes)
        }
    }

    fn all(gradients: &Gradients) -> Vec<f32> {
        gradients.arena().values().flatten_all().and_then(|values| values.to_vec1()).expect("numbers")
    }

    #[test]
    fn a_mixture_of_single_values_is_the_sub_network() {
        let fixture = Fixture::new();
        let space = &fixture.space;
        for seed in 0..8 {
            let arch = space::sampler::random(space, &mut rng_for("arch", seed, &[])).at(8);
            let gradients = Gradients::new(&fixture.weights).expect("zeros");
            let learned = fixture
                .student()
                .learn(&arch, &fixture.images, &fixture.target(), None, &gradients)
                .expect("a pass");
            let row = space.row(&arch).expect("its own");
            let values: Vec<Vec<Index>> = row.iter().map(|value| vec![*value]).collect();
            let mixes = space.mixture(&values, 8.into()).expect("its own").mixes.len();
            let (loss, found, _) = fixture.mixed(&values, &vec![vec![1.0]; mixes]);
            assert_eq!(loss, learned.loss.read().expect("a number"), "{arch}");
            assert_eq!(found, all(&gradients), "{arch}");
        }
    }

    /// By central differences of the loss.
    #[test]
    fn slopes_by_the_weights_of_sums_are_those_of_the_loss() {
        let fixture = Fixture::new();
        let genome = fixture.space.genome();
        let values: Vec<Vec<Index>> = (0..genome.len())
            .map(|gene| if gene == 0 { vec![genome.allowed(0)[0]] } else { genome.allowed(gene).to_vec() })
            .collect();
        let mixture = fixture.space.mixture(&values, 8.into()).expect("its own");
        let mut rng = rng_for("weights of sums", 1, &[]);
        let weights: Vec<Vec<f32>> = mixture
            .mixes
            .iter()
            .map(|mix| mix.values.iter().map(|_| rng.random_range(0.2..0.8)).collect())
            .collect();
        let (_, _, slopes) = fixture.mixed(&values, &weights);
        let mut largest = 0.0f32;
        for (at, own) in weights.iter().enumerate() {
            assert_eq!(slopes[at].len(), own.len() + 1);
            for place in 0..own.len() {
                let moved = |by: f32| {
                    let mut weights = weights.clone();
                    weights[at][place] += by;
                    fixture.mixed(&values, &weights).0
                };
                let expected = (moved(5e-4) - moved(-5e-4)) / 1e-3;
                let found = slopes[at][place];
                largest = largest.max(found.abs());
                assert!(
                    (found - expected).abs() < 2e-3 + 0.02 * expected.abs(),
                    "sum {at}, {place}: {found} {expected}"
                );
            }
        }
        assert!(largest > 0.02, "{largest}");
    }
}
