//! Layers as an ONNX model, for runtimes that are not ours.
//!
//! Batch norms are multiplied into the convolutions before them. Knows nothing of how weights came to be, nor of
//! who runs the model.

mod graph;
mod layers;
mod proto;
#[cfg(test)]
mod tests;
mod weights;

use std::collections::BTreeMap;

use candle_core::Tensor;
use supernet::space::{FeatureMap, LayerSpec, Operator};

use crate::error::Result;
use graph::Graph;
use weights::LayerWeights;

/// Name of a model's only input.
pub const INPUT: &str = graph::INPUT;
/// Name of a model's only output.
pub const OUTPUT: &str = graph::OUTPUT;

/// Shapes of what layers read and make, for a number of images.
///
/// # Shapes
/// `[N, C, H, W]`; what a classifier makes is `[N, classes]`. Without layers both are `[N, 1, 1, 1]`.
pub fn shapes(layers: &[LayerSpec], batch: usize) -> [Vec<usize>; 2] {
    let shape = |map: FeatureMap| vec![batch, map.channels, map.height, map.width];
    let nothing = || vec![batch, 1, 1, 1];
    let input = layers.first().map_or_else(nothing, |layer| shape(layer.input));
    let output = layers.last().map_or_else(nothing, |layer| match layer.operator {
        Operator::Classifier => vec![batch, layer.output.channels],
        _ => shape(layer.output),
    });
    [input, output]
}

/// The bytes of an ONNX file (operator set 17, IR version 8) that computes the layers one after the other: one layer
/// by itself, part of a network, or all of it.
///
/// `weights` are asked for by the names and shapes of [`LayerSpec::weights`], and for `running_mean` and
/// `running_var` beside the `weight` of each batch norm; `epsilon` is what batch norms add to variances. The number
/// of images is fixed to `batch`, since runtimes plan their memory by it. Without layers the model is one `Identity`:
/// calling it costs what any call costs.
///
/// # Shapes
/// As [`shapes`] says, of [`INPUT`] and [`OUTPUT`].
///
/// # Errors
/// If a weight is missing, is not of that shape or not f32, or if a layer does not read what the one before it makes.
pub fn model(
    layers: &[LayerSpec],
    weights: &BTreeMap<String, Tensor>,
    epsilon: f32,
    batch: usize,
) -> Result<Vec<u8>> {
    check_chain(layers)?;
    let mut graph = Graph::new();
    for layer in layers {
        layers::append(&mut graph, layer, &LayerWeights::new(layer, weights, epsilon))?;
    }
    if layers.is_empty() {
        graph.node("identity".to_string(), "Identity", &[INPUT], Vec::new());
    }
    let [input, output] = shapes(layers, batch);
    Ok(graph.into_file("network", &input, &output))
}

fn check_chain(layers: &[LayerSpec]) -> Result<()> {
    let text = |map: FeatureMap| format!("{}x{}x{}", map.channels, map.height, map.width);
    for pair in layers.windows(2) {
        let (made, read) = (pair[0].output, pair[1].input);
        if made != read {
            let place = format!("layer {}", pair[1].name);
            let expected = format!("{}, which {} makes", text(made), pair[0].name);
            return Err(supernet::Error::invalid(place, "input", expected, text(read)).into());
        }
    }
    Ok(())
}
