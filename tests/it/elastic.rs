//! Extracted networks equal elastic ones, sorting channels changes no logits, the number of threads changes no bit.

use std::collections::BTreeMap;

use base::random::rng_for;
use candle_core::Tensor;
use kernels::Backend;
use network::elastic::{Gradients, SharedWeights, SubnetWeights, sort_channels};
use network::nn::{MapSource, Network, Pass, Source, Statistics};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use space::{Arch, Extent, Operator, SearchSpace, preset, sampler};
use supernet::train::{Recipe, Student, Target, TrainingPlan};

use crate::testing::formula::{assert_close, formula, values};

fn weights(space: &SearchSpace) -> SharedWeights {
    SharedWeights::new(space, &mut rng_for("weights", 5, &[])).expect("weights")
}

fn images(space: &SearchSpace, resolution: impl Into<Extent>, count: usize) -> Tensor {
    let Extent { height, width } = resolution.into();
    formula("images", &[count, space.input_channels(), height, width])
}

/// The logits of the elastic view and of copied weights, with the same statistics.
fn both(space: &SearchSpace, weights: &SharedWeights, arch: &Arch, images: &Tensor) -> [Vec<f32>; 2] {
    let backend = Backend::detect();
    let layers = space.lower(arch).expect("legal");
    let subnet = SubnetWeights::new(space, weights, &layers, &backend).expect("views");
    let mut statistics = Statistics::new();
    let network = Network::new(&layers, &subnet.values().expect("views")).expect("a network");
    network.forward(images, Pass::Calibration(&mut statistics)).expect("forward");
    let elastic =
        Network::new(&layers, &subnet.calibrated(&statistics).expect("statistics")).expect("a network");

    let mut copied: BTreeMap<String, Tensor> = BTreeMap::new();
    for (name, tensor) in subnet.tensors() {
        let fresh = Tensor::from_vec(values(tensor), tensor.dims(), tensor.device()).expect("a copy");
        copied.insert(name.clone(), fresh);
    }
    for (name, tensor) in &statistics {
        copied.insert(format!("{name}.running_mean"), tensor.get(0).expect("two rows"));
        copied.insert(format!("{name}.running_var"), tensor.get(1).expect("two rows"));
    }
    let source = Source::new(MapSource::builder(copied), &backend, space.batch_norm_epsilon());
    let extracted = Network::new(&layers, &source).expect("a network");
    [elastic, extracted].map(|network| values(&network.forward(images, Pass::Inference).expect("forward")))
}

#[test]
fn extracted_equals_elastic_bit_for_bit() {
    for name in ["tiny", "tiny-choice", "tiny-cell", "tiny-macro", "fashion"] {
        let space = preset(name).expect("a preset");
        let weights = weights(&space);
        let mut rng = ChaCha8Rng::seed_from_u64(9);
        let mut seen = Vec::new();
        for _ in 0..50 {
            let arch = sampler::random(&space, &mut rng);
            for count in [3, 1] {
                let [elastic, extracted] =
                    both(&space, &weights, &arch, &images(&space, arch.resolution, count));
                assert_eq!(elastic, extracted, "{name} {arch}");
                assert!(elastic.iter().all(|logit| logit.is_finite()));
                if count == 3 {
                    seen.push((arch.clone(), elastic));
                }
            }
        }
        for (index, (arch, logits)) in seen.iter().enumerate() {
            for (other, others) in &seen[..index] {
                let layers = |arch: &Arch| space.lower(arch).expect("legal");
                // before training, a convolution of zeros is zeros: the shift of its batch norm
                let of_zeros =
                    |arch: &Arch| layers(arch).iter().any(|layer| layer.operator == Operator::Zero);
                if !of_zeros(arch) && !of_zeros(other) {
                    // networks that differ in what nothing reads are the same
                    assert_eq!(layers(arch) == layers(other), logits == others, "{arch} and {other}");
                }
            }
        }
    }
}

/// Logits with the statistics of the batch.
fn logits(space: &SearchSpace, weights: &SharedWeights, arch: &Arch) -> Tensor {
    let student = Student { space, weights, backend: Backend::detect() };
    student.teach(arch, &images(space, arch.resolution, 8)).expect("logits")
}

/// The weights with noise in every value, as after training.
fn noisy(space: &SearchSpace, weights: &SharedWeights) -> SharedWeights {
    let tensors = weights
        .tensors()
        .iter()
        .map(|(name, tensor): (&String, &Tensor)| {
            let noise = (formula(name, tensor.dims()) * 0.3).expect("a number");
            (name.clone(), (tensor + noise).expect("same shapes"))
        })
        .collect();
    SharedWeights::from_tensors(space, tensors, "test").expect("finite")
}

/// Corners and random sub-networks of a space.
fn some_of(space: &SearchSpace) -> Vec<Arch> {
    let mut rng = ChaCha8Rng::seed_from_u64(4);
    let random = (0..12).map(|_| sampler::random(space, &mut rng));
    [sampler::largest(space), sampler::smallest(space)].into_iter().chain(random).collect()
}

/// A space whose stages have different expand ratios: 40 channels are a width of the second stage alone.
fn uneven() -> SearchSpace {
    let text = preset("tiny").expect("a preset").to_toml();
    let (first, last) = text.rsplit_once("[[stages]]\n").expect("two stages");
    SearchSpace::from_toml("uneven", &format!("{first}[[stages]]\nexpand = [2, 2.5]\n{last}"))
        .expect("a space")
}

#[test]
fn sorting_channels_leaves_the_largest_network_as_it_was() {
    let space = preset("fashion").expect("a preset");
    let mut weights = weights(&space);
    let arch = sampler::largest(&space);
    let before = logits(&space, &weights, &arch);
    sort_channels(&space, &mut weights, &[]).expect("sorted");
    assert_close("largest, sorted", &logits(&space, &weights, &arch), &before, 1e-5);
}

#[test]
fn sorting_channels_leaves_what_was_trained_as_it_was() {
    let per_stage = uneven();
    let presets = ["fashion", "tiny-resnet", "tiny-choice"].map(|name| preset(name).expect("a preset"));
    for space in presets.iter().chain([&per_stage]) {
        // every later phase sorts, those of stages' widths too
        let mut recipe = Recipe::progressive().suited_to(space);
        for phase in &mut recipe.phases[1..] {
            phase.sort_channels = true;
        }
        let plan = TrainingPlan::new(&recipe, 1, 1);
        for index in 1..plan.phases.len() {
            let what = format!("{} before {}", space.name(), plan.phases[index].phase.name);
            let trained = plan.trained_before(space, index);
            let mut weights = noisy(space, &weights(space));
            let archs: Vec<Arch> = trained.iter().flat_map(some_of).collect();
            let before: Vec<Tensor> = archs.iter().map(|arch| logits(space, &weights, arch)).collect();
            let unsorted = weights.detached().expect("a copy");
            sort_channels(space, &mut weights, &trained).expect("sorted");
            for (arch, before) in archs.iter().zip(&before) {
                assert_close(&format!("{what}: {arch}"), &logits(space, &weights, arch), before, 1e-5);
            }
            assert!(
                weights.tensors().keys().any(
                    |name: &String| values(&weights.tensors()[name]) != values(&unsorted.tensors()[name])
                ),
                "{what}: nothing was sorted"
            );
        }
    }
}

#[test]
fn a_sort_minds_the_widths_of_its_own_stage_alone() {
    let space = uneven();
    let mut weights = weights(&uneven());
    let trained = space.restricted(&[("expand".to_string(), 1)].into());
    sort_channels(&space, &mut weights, &[trained]).expect("sorted");
    // of the first block's 96 channels the next phase uses 64, which must be the most important ones
    let projection = weights.get("blocks.1.conv.point_linear.conv.weight").expect("there");
    let columns = projection.flatten_from(1).and_then(|flat| flat.to_vec2::<f32>()).expect("f32"); // [O, I]
    let norms: Vec<f32> = (0..96).map(|column| columns.iter().map(|row| row[column].abs()).sum()).collect();
    let mut falling = norms.clone();
    falling.sort_by(|a, b| b.total_cmp(a));
    assert!(norms[..64].iter().all(|norm| *norm >= falling[63]), "{norms:?}");
    assert_eq!(norms, falling);
}

#[test]
fn gradients_are_the_same_at_any_number_of_threads() {
    let space = preset("fashion").expect("a preset");
    let weights = weights(&space);
    let run = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
        pool.install(|| {
            let gradients = Gradients::new(&weights).expect("zeros");
            let student = Student { space: &space, weights: &weights, backend: Backend::detect() };
            let labels: Vec<u32> = (0..32).map(|label| label % 10).collect();
            let target = Target { labels: &labels, smoothing: 0.1, ..Default::default() };
            let arch = sampler::largest(&space);
            let loss = student
                .learn(&arch, &images(&space, 28, 32), &target, None, &gradients)
                .expect("a step")
                .loss
                .read()
                .expect("known");
            let all: Vec<f32> = gradients
                .touched()
                .iter()
                .flat_map(|name| values(gradients.get(name).expect("there")))
                .collect();
            (loss.to_bits(), all)
        })
    };
    let one = run(1);
    assert!(one.1.iter().any(|gradient| *gradient != 0.0));
    for threads in [2, 3] {
        assert!(run(threads) == one, "{threads} threads");
    }
}
