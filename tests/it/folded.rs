//! Folding batch norms into the weights changes a network by no more than rounding, on every backend.

use base::random::rng_for;
use kernels::Backend;
use network::nn::{FoldedNetwork, MapSource, Network, Pass, Source};
use space::{preset, sampler};

use crate::testing::formula::{all_backends, assert_close, formula, formula_weights};

/// Relative to the largest logit.
const TOLERANCE: f32 = 1e-5;

#[test]
fn folded_networks_agree_with_unfolded_ones() {
    // (space, resolution, sub-networks, images)
    for (name, resolution, count, images) in
        [("tiny", 8, 10, 3), ("fashion", 28, 4, 2), ("fashion", 28, 3, 1), ("ofa-mbv3-w1.0", 32, 1, 2)]
    {
        let space = preset(name).expect("a preset");
        for index in 0..count {
            let arch = sampler::random(&space, &mut rng_for("folded", 3, &[index])).at(resolution);
            let layers = space.lower(&arch).expect("legal");
            let images = formula("images", &[images, space.input_channels(), resolution, resolution]);
            for backend in all_backends() {
                if backend == Backend::reference() && name.starts_with("ofa") {
                    continue; // seconds of naive loops, and the small spaces have every kind of layer
                }
                let builder = MapSource::builder(formula_weights(&layers));
                let source = Source::new(builder, &backend, space.batch_norm_epsilon());
                let network = Network::new(&layers, &source).expect("a network");
                let expected = network.forward(&images, Pass::Inference).expect("forward");
                let folded = FoldedNetwork::new(&network).expect("calibrated");
                let got = folded.forward(&images).expect("forward");
                assert_close(&format!("{arch} on {}", backend.name()), &got, &expected, TOLERANCE);
            }
        }
    }
}

#[test]
fn an_uncalibrated_network_is_not_folded() {
    let space = preset("tiny").expect("a preset");
    let layers = space.lower(&sampler::smallest(&space)).expect("legal");
    let mut weights = formula_weights(&layers);
    weights.retain(|name, _| !name.contains("running"));
    let source = Source::new(MapSource::builder(weights), &Backend::detect(), space.batch_norm_epsilon());
    let network = Network::new(&layers, &source).expect("a network");
    let error = FoldedNetwork::new(&network).err().expect("refused").to_string();
    assert!(error.contains("first_conv.bn"), "{error}");
}
