use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor};
use kernels::Kernels;
use space::{Arch, SearchSpace, preset, sampler};

use super::*;
use crate::nn::{MapSource, Network, Pass, Source, Tape};

/// Values in the memory of some tensors, where they share it counted once.
fn values(tensors: &[Tensor]) -> usize {
    let mut sizes = BTreeMap::new();
    for tensor in tensors {
        let (storage, _) = tensor.storage_and_layout();
        sizes.insert(&raw const *storage as usize, tensor.elem_count());
    }
    sizes.values().sum()
}

/// What the tape of a training pass of a sub-network holds.
fn kept(space: &SearchSpace, arch: &Arch, images: usize) -> usize {
    let layers = space.lower(arch).expect("legal");
    let weights = layers.iter().flat_map(LayerSpec::weights);
    let ones = |shape: &[usize]| Tensor::ones(shape, DType::F32, &Device::Cpu).expect("a tensor");
    let weights = weights.map(|weight| (weight.name, ones(&weight.shape))).collect();
    let source = Source::new(MapSource::builder(weights), &Kernels::detect(), space.batch_norm_epsilon());
    let network = Network::new(&layers, &source).expect("all weights");
    let side = arch.resolution;
    let mut tape = Tape::with_dropout(ones(&[layers.last().expect("a classifier").input.channels, images]));
    let batch = ones(&[images, space.input_channels(), side.height, side.width]);
    network.forward(&batch, Pass::Training(&mut tape)).expect("logits");
    values(tape.saved())
}

#[test]
fn the_tape_is_as_large_as_it_is_said() {
    for (name, resolution) in [("tiny", 8), ("fashion", 20), ("ofa-mbv3-w1.0", 32), ("ofa-resnet50", 64)] {
        let space = preset(name).expect("a preset");
        for arch in [sampler::largest(&space), sampler::smallest(&space)] {
            let arch = arch.at(resolution);
            let footprint = Footprint::of(&space.lower(&arch).expect("legal"));
            for images in [1, 3] {
                let expected = images * footprint.tape + footprint.statistics;
                assert_eq!(kept(&space, &arch, images), expected, "{name}: {arch}, {images} images");
            }
            assert!(footprint.tape < footprint.training && footprint.forgetting < footprint.training);
        }
    }
}
