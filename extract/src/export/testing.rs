//! One supernet of random weights for the tests of exports: it has statistics, so that exports need no images.

use base::random::rng_for;
use candle_core::{Device, Tensor};
use network::checkpoint::{ImportSource, Interface, Provenance, Supernet};
use network::data::{Normalization, Preprocess};
use network::elastic::{SharedWeights, shared_specs};
use network::nn::Statistics;
use network::pytorch::Container;
use rand::Rng;
use space::{Arch, preset, sampler};

use super::{NormStatistics, Request};

/// An imported supernet of a preset.
pub(super) fn supernet(name: &str) -> Supernet {
    let space = preset(name).expect("a preset");
    let mut rng = rng_for("weights", 1, &[]);
    let weights = SharedWeights::new(&space, &mut rng).expect("weights");
    let mut statistics = Statistics::new();
    for spec in shared_specs(&space) {
        let Some(norm) = spec.batch_norm() else { continue };
        let channels = spec.shape[0];
        let values: Vec<f32> = (0..2 * channels).map(|_| rng.random_range(0.5..1.5)).collect();
        let pair = Tensor::from_vec(values, (2, channels), &Device::Cpu).expect("sizes agree");
        statistics.insert(norm.to_string(), pair);
    }
    let channels = space.input_channels();
    let normalization = Normalization::new(vec![0.5; channels], vec![0.25; channels]).expect("positive");
    let imported = ImportSource {
        tool: "0".to_string(),
        file: "weights.pth".to_string(),
        blake3: "none".to_string(),
        container: Container::Zip,
        matrices_read: 0,
        matrices_identity: 0,
        key: None,
    };
    Supernet {
        space,
        weights,
        statistics: Some(statistics),
        provenance: Provenance::Imported(imported),
        interface: Interface { preprocess: Some(Preprocess::photographs(normalization)), classes: None },
        hash: "a supernet".to_string(),
    }
}

/// The largest sub-network of a supernet.
pub(super) fn largest(supernet: &Supernet) -> Arch {
    sampler::largest(&supernet.space)
}

/// An export with the supernet's statistics and without images.
pub(super) fn request<'a>(supernet: &'a Supernet, arch: &'a Arch) -> Request<'a> {
    Request::new(supernet, arch, NormStatistics::Inherited { dataset: None })
}
