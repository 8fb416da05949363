use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor};
use kernels::Backend;
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

/// Values on the tape of a sub-network's training pass.
fn kept(space: &SearchSpace, arch: &Arch, images: usize) -> usize {
    kept_by(&space.lower(arch).expect("legal"), images)
}

/// Values on the tape of a training pass over some layers.
fn kept_by(layers: &[LayerSpec], images: usize) -> usize {
    let weights = layers.iter().flat_map(LayerSpec::weights);
    let ones = |shape: &[usize]| Tensor::ones(shape, DType::F32, &Device::Cpu).expect("a tensor");
    let weights = weights.map(|weight| (weight.name, ones(&weight.shape))).collect();
    let source = Source::new(MapSource::builder(weights), &Backend::detect(), 1e-5);
    let network = Network::new(layers, &source).expect("all weights");
    let input = layers[0].input;
    let mut tape = Tape::with_dropout(ones(&[layers.last().expect("a classifier").input.channels, images]));
    let batch = ones(&[images, input.channels, input.height, input.width]);
    network.forward(&batch, Pass::Training(&mut tape)).expect("logits");
    values(tape.saved())
}

#[test]
fn the_tape_is_as_large_as_it_is_said() {
    for (name, resolution) in [
        ("tiny", 8),
        ("tiny-choice", 12),
        ("tiny-cell", 8),
        ("tiny-macro", 8),
        ("enas-macro", 16),
        ("nas-bench-201", 16),
        ("fashion", 20),
        ("tiny-spectrogram", 13),
        ("ofa-mbv3-w1.0", 32),
        ("ofa-resnet50", 64),
    ] {
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

/// Layers by key, each with what it reads.
fn graph(layers: &[(&str, &[Option<usize>])]) -> Vec<LayerSpec> {
    layers
        .iter()
        .enumerate()
        .map(|(number, (key, inputs)): (usize, &(&str, &[Option<usize>]))| LayerSpec {
            name: format!("layers.{number}"),
            inputs: inputs.to_vec(),
            ..key.parse().expect("a key")
        })
        .collect()
}

#[test]
fn what_several_layers_read_is_counted_once() {
    let layers = graph(&[
        ("conv k3 4-8 relu @6x6", &[None]),
        ("mbconv k3 s1 8-24-8 relu skip @6x6", &[Some(0)]),
        ("conv k3 8-8 relu @6x6", &[Some(0)]),
        ("sum3 8 @6x6", &[Some(1), Some(2), Some(0)]),
        ("pool 8 @6x6", &[Some(3)]),
        ("linear 8-10 @1x1", &[Some(4)]),
    ]);
    for images in [1, 3] {
        let footprint = Footprint::of(&layers);
        assert_eq!(
            kept_by(&layers, images),
            images * footprint.tape + footprint.statistics,
            "{images} images"
        );
    }
}

#[test]
fn outputs_and_gradients_that_wait_are_held() {
    // a: 36 values of the input and 72 of its own; the second sum runs while a's output, b's and its own are there
    let layers = graph(&[
        ("conv1x1 1-2 none @6x6", &[None]),
        ("conv1x1 2-2 none @6x6", &[Some(0)]),
        ("sum2 2 @6x6", &[Some(1), Some(0)]),
    ]);
    let footprint = Footprint::of(&layers);
    let input = 36;
    let map = 72;
    // each convolution keeps its input and what its batch norm reads
    assert_eq!(footprint.tape, input + map + map + map);
    // at the sum: both of its inputs and its output
    assert_eq!(footprint.forgetting, 3 * map);
    // forward, at the sum: the tape, b's output, which is not on it, and the sum
    let forward = footprint.tape + map + map;
    // backward, at b: the tape of a, what b kept, its gradients, and the part of a's gradient that the sum gave
    let backward = (input + map) + (map + map + map) + map;
    assert_eq!(footprint.training, forward.max(backward).max(footprint.tape + 2 * map));
}
