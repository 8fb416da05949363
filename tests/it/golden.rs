//! Blocks and a small network against PyTorch; `tests/golden/README.md` says how the numbers were made.

use std::collections::HashMap;

use candle_core::{Device, Tensor};
use network::nn::{Pass, Statistics, Tape};
use space::{Activation, Arch, FeatureMap, LayerSpec, MbConv, Operator, SearchSpace};

use crate::testing::formula::{
    all_backends, assert_close, formula, formula_weights, network_of, unit, values, zeros,
};

const EPSILON: f32 = 1e-5;

fn golden(file: &str) -> HashMap<String, Tensor> {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(file);
    candle_core::safetensors::load(path, &Device::Cpu).expect("golden numbers")
}

#[test]
fn the_formula_is_that_of_the_script() {
    assert_eq!(unit("images", 0), 0.281_620_144_844_055_2);
    let weight = formula("blocks.0.conv.inverted_bottleneck.conv.weight", &[64, 16, 1, 1]);
    assert_eq!(values(&weight)[1023].to_bits(), 0xbe9b_bb08);
    let scale = formula("blocks.0.conv.depth_conv.bn.weight", &[64]);
    assert_eq!(values(&scale)[7].to_bits(), 0x3f7d_c6c2);
}

fn block(index: usize, operator: MbConv, input: FeatureMap, output: FeatureMap) -> LayerSpec {
    let operator = Operator::MbConv(operator);
    LayerSpec { name: format!("blocks.{index}"), slot: None, operator, input, output, inputs: vec![None] }
}

fn square(channels: usize, side: usize) -> FeatureMap {
    FeatureMap { channels, height: side, width: side }
}

fn check_block(layer: LayerSpec, prefix: &str) {
    let golden = golden("block.safetensors");
    let layers = [layer];
    let [input, output] =
        [layers[0].input, layers[0].output].map(|map| [6, map.channels, map.height, map.width]);
    let swapped = |tensor: Tensor| tensor.transpose(0, 1).and_then(|t| t.contiguous()).expect("rank 4");
    for backend in all_backends() {
        let weights = formula_weights(&layers);
        let zeros = zeros(&layers);
        let values = network_of(&layers, weights, &zeros, &backend, EPSILON);
        let mut tape = Tape::new();
        let x = swapped(formula("images", &input));
        let y = values.forward_maps(x, &mut Pass::Training(&mut tape)).expect("forward");
        assert_close("output", &swapped(y), &golden[&format!("{prefix}output")], 1e-5);
        let dy = swapped(formula("gradient", &output));
        let dx = values.backward_maps(dy, &mut tape).expect("backward").expect("a block gives it");
        assert_close("input gradient", &swapped(dx), &golden[&format!("{prefix}input_gradient")], 3e-5);
        for (name, gradient) in &zeros {
            assert_close(name, gradient, &golden[&format!("{prefix}gradient.{name}")], 3e-5);
        }
    }
}

#[test]
fn residual_block_with_squeeze_excite() {
    let operator = MbConv {
        kernel: 5,
        stride: 1,
        mid: 64,
        expansion: true,
        activation: Activation::HSwish,
        squeeze: Some(16),
        residual: true,
    };
    check_block(block(0, operator, square(16, 9), square(16, 9)), "");
}

#[test]
fn strided_block() {
    let operator = MbConv {
        kernel: 7,
        stride: 2,
        mid: 48,
        expansion: true,
        activation: Activation::Relu,
        squeeze: None,
        residual: false,
    };
    check_block(block(1, operator, square(16, 9), square(24, 5)), "second.");
}

/// The space of the golden network.
fn golden_space() -> SearchSpace {
    let stage = |channels, activation, squeeze| {
        format!(
            "[[stages]]\nchannels = {channels}\nstride = 2\nactivation = \"{activation}\"\nsqueeze_excite = {squeeze}\n"
        )
    };
    let text = format!(
        "version = 1\nname = \"golden\"\nfamily = \"mobilenet-v3\"\nclasses = 10\ninput_channels = 1\n\
         resolutions = [14]\nkernel = [3, 5, 7]\nexpand = [3, 4, 6]\ndepth = [2, 3]\n\
         [stem]\nchannels = 8\nstride = 1\nactivation = \"h_swish\"\n\
         [first_block]\nchannels = 8\nactivation = \"relu\"\n{}{}\
         [head]\nexpand_channels = 48\nfeature_channels = 64\nactivation = \"h_swish\"\n",
        stage(16, "relu", false),
        stage(24, "h_swish", true)
    );
    SearchSpace::from_toml("golden", &text).expect("a space")
}

#[test]
fn whole_network() {
    let golden = golden("network.safetensors");
    let arch: Arch = "r14:k5e3,k3e4/k7e6,k3e3,k5e4".parse().expect("an arch");
    let layers = golden_space().lower(&arch).expect("legal");
    let weights = formula_weights(&layers);
    let images = formula("images", &[5, 1, 14, 14]);
    let labels: Vec<u32> = (0..5).collect();
    let teacher = formula("teacher", &[5, 10]);
    for backend in all_backends() {
        let zeros = zeros(&layers);
        let values = network_of(&layers, weights.clone(), &zeros, &backend, EPSILON);

        let eval = values.forward(&images, Pass::Inference).expect("inference");
        assert_close("eval logits", &eval, &golden["eval_logits"], 1e-4);

        let mut statistics = Statistics::new();
        values.forward(&images, Pass::Calibration(&mut statistics)).expect("calibration");
        for (name, seen) in &statistics {
            for (row, what) in ["mean", "var"].into_iter().enumerate() {
                assert_close(
                    name,
                    &seen.get(row).expect("two rows"),
                    &golden[&format!("calibrated.{name}.{what}")],
                    1e-4,
                );
            }
        }
        assert_eq!(statistics.len(), golden.keys().filter(|name| name.ends_with(".var")).count());

        let mut tape = Tape::new();
        let logits = values.forward(&images, Pass::Training(&mut tape)).expect("forward");
        assert_close("logits", &logits, &golden["logits"], 1e-4);
        let target = supernet::train::Target {
            labels: &labels,
            smoothing: 0.1,
            teacher: Some(&teacher),
            ..Default::default()
        };
        let (loss, gradient) = supernet::train::loss(&logits, &target, &backend).expect("a loss");
        let loss = loss.read().expect("known on a CPU");
        assert_close("loss", &Tensor::new(&[loss], &Device::Cpu).expect("a number"), &golden["loss"], 1e-5);
        values.backward(&gradient, tape).expect("backward");
        for (name, gradient) in &zeros {
            assert_close(name, gradient, &golden[&format!("gradient.{name}")], 1e-4);
        }
    }
}

/// A space of one of the families whose layers choose operators, of which `table` says how.
fn space_of_operators(family: &str, resolution: &str, table: &str) -> SearchSpace {
    let text = format!(
        "version = 1\nname = \"golden\"\nfamily = \"{family}\"\nclasses = 10\ninput_channels = 2\n\
         resolutions = [{resolution}]\n{table}"
    );
    SearchSpace::from_toml("golden", &text).expect("a space")
}

/// Logits, loss and every gradient of a network, against those of a file, on every backend.
fn check_network(space: &SearchSpace, arch: &str, file: &str) {
    let golden = golden(file);
    let arch: Arch = arch.parse().expect("an arch");
    let layers = space.lower(&arch).expect("legal");
    let weights = formula_weights(&layers);
    let images = formula("images", &[5, 2, arch.resolution.height, arch.resolution.width]);
    let labels: Vec<u32> = (0..5).collect();
    for backend in all_backends() {
        let zeros = zeros(&layers);
        let network = network_of(&layers, weights.clone(), &zeros, &backend, EPSILON);
        let eval = network.forward(&images, Pass::Inference).expect("inference");
        assert_close("eval logits", &eval, &golden["eval_logits"], 1e-4);
        let mut tape = Tape::new();
        let logits = network.forward(&images, Pass::Training(&mut tape)).expect("forward");
        assert_close("logits", &logits, &golden["logits"], 1e-4);
        let target = supernet::train::Target { labels: &labels, smoothing: 0.1, ..Default::default() };
        let (loss, gradient) = supernet::train::loss(&logits, &target, &backend).expect("a loss");
        let loss = loss.read().expect("known on a CPU");
        assert_close("loss", &Tensor::new(&[loss], &Device::Cpu).expect("a number"), &golden["loss"], 1e-5);
        network.backward(&gradient, tape).expect("backward");
        for (name, gradient) in &zeros {
            assert_close(name, gradient, &golden[&format!("gradient.{name}")], 1e-4);
        }
        assert_eq!(zeros.len(), golden.keys().filter(|name| name.starts_with("gradient.")).count());
    }
}

#[test]
fn network_of_cells() {
    let table = "[cell]\nnodes = 4\noperator = [\"nor_conv_3x3\", \"nor_conv_1x1\", \"avg_pool_3x3\", \
        \"max_pool_3x3\", \"skip_connect\", \"none\"]\nchannels = [4, 8]\ncells = 1\n";
    let space = space_of_operators("dense-cell", "10", table);
    let cell = "|nor_conv_3x3~0|+|avg_pool_3x3~0|nor_conv_1x1~1|+|skip_connect~0|none~1|max_pool_3x3~2|";
    check_network(&space, &format!("r10:{cell}"), "cell.safetensors");
}

/// Of odd height and width, so that reductions reach beyond the map.
#[test]
fn network_of_layers_with_skips() {
    let table = "[layers]\ncount = 6\nchannels = 6\noperator = [\"conv_5x5\", \"conv_3x3\", \"sep_conv_5x5\", \
        \"sep_conv_3x3\", \"avg_pool_3x3\", \"max_pool_3x3\"]\nconnection = [0, 1]\nreductions = [2]\n";
    let space = space_of_operators("skip-layers", "\"9x7\"", table);
    let layers = "conv_3x3/avg_pool_3x3+0/sep_conv_3x3+0+1/max_pool_3x3+1+2/conv_5x5+0/sep_conv_5x5";
    check_network(&space, &format!("r9x7:{layers}"), "macro.safetensors");
}
