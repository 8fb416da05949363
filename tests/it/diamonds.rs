//! A network with branches and sums against the same sums by hand, forward and backward, on every backend.

use std::collections::BTreeMap;

use candle_core::Tensor;
use kernels::Backend;
use network::nn::{FoldedNetwork, Network, Pass, Statistics, Tape};
use space::{LayerSpec, Operator};
use supernet::agreement::diamond;

use crate::testing::formula::{
    all_backends, assert_close, formula, formula_weights, network_of, values, zeros,
};

const IMAGES: usize = 3;
const EPSILON: f32 = 1e-5;

/// The output of a diamond, and the gradients of its input and of its weights.
struct DiamondResult {
    output: Tensor,
    input: Tensor,
    weights: BTreeMap<String, Tensor>,
}

fn network(layers: &[LayerSpec], gradients: &BTreeMap<String, Tensor>, backend: &Backend) -> Network {
    network_of(layers, formula_weights(layers), gradients, backend, EPSILON)
}

fn maps(name: &str, layer: space::FeatureMap) -> Tensor {
    formula(name, &[layer.channels, IMAGES, layer.height, layer.width])
}

fn as_a_graph(backend: &Backend) -> DiamondResult {
    let layers = diamond().expect("keys");
    let weights = zeros(&layers);
    let network = network(&layers, &weights, backend);
    let mut tape = Tape::new();
    let x = maps("images", layers[0].input);
    let output = network.forward_maps(x, &mut Pass::Training(&mut tape)).expect("forward");
    let dy = maps("gradient", layers[5].output);
    let input = network.backward_maps(dy, &mut tape).expect("backward").expect("a convolution gives it");
    DiamondResult { output, input, weights }
}

/// The diamond with each layer as a network by itself, and the sums written out.
fn by_hand(backend: &Backend) -> DiamondResult {
    let layers = diamond().expect("keys");
    let weights = zeros(&layers);
    let alone: Vec<Option<Network>> = layers
        .iter()
        .map(|layer| {
            let layer = LayerSpec { inputs: vec![None], ..layer.clone() };
            let is_sum = matches!(layer.operator, Operator::Sum { .. });
            (!is_sum).then(|| network(&[layer], &weights, backend))
        })
        .collect();
    let mut tapes: Vec<Tape> = layers.iter().map(|_| Tape::new()).collect();
    let mut forward = |place: usize, x: &Tensor| {
        let network = alone[place].as_ref().expect("no sum");
        network.forward_maps(x.clone(), &mut Pass::Training(&mut tapes[place])).expect("forward")
    };
    let plus = |a: &Tensor, b: &Tensor| a.add(b).expect("one shape");
    let a = forward(0, &maps("images", layers[0].input));
    let d = plus(&forward(1, &a), &forward(2, &a));
    let output = plus(&plus(&forward(4, &d), &a), &d);
    let mut backward = |place: usize, dy: &Tensor| {
        let network = alone[place].as_ref().expect("no sum");
        let dy = dy.copy().expect("a copy");
        network.backward_maps(dy, &mut tapes[place]).expect("backward").expect("no stem")
    };
    let dy = maps("gradient", layers[5].output);
    let dd = plus(&dy, &backward(4, &dy));
    let da = plus(&dy, &backward(2, &dd));
    let da = plus(&da, &backward(1, &dd));
    DiamondResult { output, input: backward(0, &da), weights }
}

#[test]
fn a_diamond_is_the_sum_by_hand_bit_for_bit() {
    for backend in all_backends() {
        let graph = as_a_graph(&backend);
        let hand = by_hand(&backend);
        assert_eq!(values(&graph.output), values(&hand.output), "{backend:?}");
        assert_eq!(values(&graph.input), values(&hand.input), "{backend:?}");
        for (name, gradient) in &graph.weights {
            assert_eq!(values(gradient), values(&hand.weights[name]), "{backend:?}: {name}");
        }
    }
}

#[test]
fn a_diamond_is_the_same_on_every_path_and_folded() {
    let expected = as_a_graph(&Backend::reference());
    let layers = diamond().expect("keys");
    for backend in all_backends() {
        let got = as_a_graph(&backend);
        assert_close("output", &got.output, &expected.output, 1e-5);
        assert_close("input gradient", &got.input, &expected.input, 1e-4);
        for (name, gradient) in &got.weights {
            assert_close(name, gradient, &expected.weights[name], 1e-4);
        }
        let calibrated = network(&layers, &zeros(&layers), &backend);
        let deployed = calibrated.forward_maps(maps("images", layers[0].input), &mut Pass::Inference);
        let folded = FoldedNetwork::new(&calibrated).expect("it has statistics");
        let folded = folded.forward_maps(maps("images", layers[0].input)).expect("inference");
        assert_close("folded", &folded, &deployed.expect("inference"), 1e-4);
    }
}

/// Compares the gradient of the input with a finite difference of a smooth sum of the output.
#[test]
fn the_gradient_of_a_diamond_is_its_slope() {
    let layers: Vec<LayerSpec> = diamond().expect("keys").into_iter().map(smooth).collect();
    let backend = Backend::reference();
    let weights = zeros(&layers);
    let direction = maps("teacher", layers[0].input);
    let network = network(&layers, &weights, &backend);
    let value = |distance: f64| {
        let moved = (&direction * distance).and_then(|step| maps("images", layers[0].input).add(&step));
        let mut statistics = Statistics::new();
        let output = network.forward_maps(moved.expect("a sum"), &mut Pass::Calibration(&mut statistics));
        let upstream = values(&maps("gradient", layers[5].output));
        let output = values(&output.expect("forward"));
        output.iter().zip(&upstream).map(|(y, dy)| f64::from(*y) * f64::from(*dy)).sum::<f64>()
    };
    let mut tape = Tape::new();
    network.forward_maps(maps("images", layers[0].input), &mut Pass::Training(&mut tape)).expect("forward");
    let dx = network.backward_maps(maps("gradient", layers[5].output), &mut tape);
    let dx = values(&dx.expect("backward").expect("no stem"));
    let slope = (value(1e-2) - value(-1e-2)) / 2e-2;
    let expected: f64 =
        dx.iter().zip(values(&direction)).map(|(dx, along)| f64::from(*dx) * f64::from(along)).sum();
    assert!((slope / expected - 1.0).abs() < 5e-3, "slope {slope}, along the gradient {expected}");
}

/// The layer without activations, whose kinks would disturb a finite difference.
fn smooth(mut layer: LayerSpec) -> LayerSpec {
    use space::Activation::None;
    match &mut layer.operator {
        Operator::Conv { activation, .. } | Operator::HeadConv { activation } => *activation = None,
        Operator::MbConv(block) => (block.activation, block.squeeze) = (None, Option::None),
        Operator::Bottleneck(block) => block.activation = None,
        _ => {}
    }
    layer
}
