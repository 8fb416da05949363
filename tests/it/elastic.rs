//! Extracted equals elastic, sorting channels changes nothing, threads change no bit.

use std::collections::BTreeMap;

use candle_core::Tensor;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use supernet::elastic::{Gradients, Nesting, SharedWeights, SubnetWeights, sort_channels};
use supernet::kernels::Kernels;
use supernet::nn::{MapSource, Network, Pass, Source, Statistics};
use supernet::random::rng_for;
use supernet::space::{Arch, Ratio, SearchSpace, preset, sampler};
use supernet::train::{Pupil, Target};

use crate::common::{assert_close, formula, values};

fn weights(space: &SearchSpace) -> SharedWeights {
    SharedWeights::new(space, &mut rng_for("weights", 5, &[])).expect("weights")
}

fn images(space: &SearchSpace, resolution: usize, count: usize) -> Tensor {
    formula("images", &[count, space.input_channels(), resolution, resolution])
}

/// Logits of the elastic view and of the same weights copied out, each with the same statistics.
fn both(space: &SearchSpace, weights: &SharedWeights, arch: &Arch, images: &Tensor) -> [Vec<f32>; 2] {
    let kernels = Kernels::detect();
    let layers = space.lower(arch).expect("legal");
    let subnet = SubnetWeights::new(space, weights, &layers, kernels).expect("views");
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
    let source = Source::new(MapSource::builder(copied), kernels, space.batch_norm_epsilon());
    let extracted = Network::new(&layers, &source).expect("a network");
    [elastic, extracted].map(|network| values(&network.forward(images, Pass::Inference).expect("forward")))
}

#[test]
fn extracted_equals_elastic_bit_for_bit() {
    for name in ["tiny", "fashion"] {
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
                assert_eq!(arch == other, logits == others, "{arch} and {other}");
            }
        }
    }
}

#[test]
fn sorting_channels_leaves_the_largest_network_as_it_was() {
    let space = preset("fashion").expect("a preset");
    let mut weights = weights(&space);
    let arch = sampler::largest(&space);
    let images = images(&space, arch.resolution, 8);
    let logits = |weights: &SharedWeights, arch: &Arch| {
        let pupil = Pupil { space: &space, weights, kernels: Kernels::detect() };
        pupil.teach(arch, &images).expect("logits")
    };
    let before = logits(&weights, &arch);
    let narrow: Arch = arch.to_string().replace("e6", "e4").parse().expect("an arch");
    sort_channels(&space, &mut weights, &Nesting::None).expect("sorted");
    assert_close("largest, sorted", &logits(&weights, &arch), &before, 1e-5);

    // The second width phase keeps what is nested: the network of ratio 4 stays as it is, too.
    let nested = logits(&weights, &narrow);
    let mut changed = weights.detached().expect("a copy");
    let bumped = changed.tensors().clone();
    let noisy = |(name, tensor): (String, Tensor)| {
        let noise = (formula(&name, tensor.dims()) * 0.3).expect("a number");
        (name, (tensor + noise).expect("same shapes"))
    };
    changed =
        SharedWeights::from_tensors(&space, bumped.into_iter().map(noisy).collect(), "test").expect("finite");
    let (before, narrow_before) = (logits(&changed, &arch), logits(&changed, &narrow));
    sort_channels(&space, &mut changed, &Nesting::Within(vec![Ratio::whole(4), Ratio::whole(6)]))
        .expect("sorted");
    assert_close("largest, sorted in groups", &logits(&changed, &arch), &before, 1e-5);
    assert_close("ratio 4, sorted in groups", &logits(&changed, &narrow), &narrow_before, 1e-5);
    assert_ne!(values(&nested), values(&narrow_before), "the weights did change between");
    let name = "blocks.2.conv.point_linear.conv.weight";
    assert_ne!(values(changed.get(name).expect("there")), values(weights.get(name).expect("there")));
}

#[test]
fn gradients_are_the_same_at_any_number_of_threads() {
    let space = preset("fashion").expect("a preset");
    let weights = weights(&space);
    let run = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
        pool.install(|| {
            let gradients = Gradients::new(&weights).expect("zeros");
            let pupil = Pupil { space: &space, weights: &weights, kernels: Kernels::detect() };
            let labels: Vec<u32> = (0..32).map(|label| label % 10).collect();
            let target = Target { labels: &labels, smoothing: 0.1, teacher: None };
            let arch = sampler::largest(&space);
            let loss = pupil
                .learn(&arch, &images(&space, 28, 32), &target, None, &gradients)
                .expect("a step")
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
