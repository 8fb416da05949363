//! Layers as an ONNX model, for other runtimes.
//!
//! Batch norms are multiplied into the convolutions before them. Knows nothing of how weights came to be, nor of
//! who runs the model. An [`OnnxModel`] is such a file read again, to be compared and run.

mod compare;
mod decoded;
mod graph;
mod interpret;
mod layers;
pub(crate) mod proto;
#[cfg(test)]
mod tests;
mod weights;

use std::collections::BTreeMap;

use candle_core::Tensor;
use space::{FeatureMap, LayerSpec, Operator};

use crate::error::Result;
pub use decoded::OnnxModel;
use graph::{GraphBuilder, Sizes};
use weights::LayerWeights;

/// Name of a model's only input.
pub const INPUT: &str = graph::INPUT;
/// Name of a model's only output.
pub const OUTPUT: &str = graph::OUTPUT;

/// Name of a number of images that is open.
const BATCH: &str = "N";

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

/// The bytes of an ONNX file (operator set 17, IR version 8) that computes the layers, each of its inputs: one layer by
/// itself ([`LayerSpec::alone`]), or a network. The last layer's output is the model's.
///
/// `weights` have the names and shapes of [`LayerSpec::weights`], with `running_mean` and `running_var` next to the
/// `weight` of each batch norm; batch norms add `epsilon` to variances. The number
/// of images is fixed to `batch`, since runtimes plan their memory by it. Without layers the model is one `Identity`:
/// calling it costs what any call costs.
///
/// # Shapes
/// As [`shapes`] says, of [`INPUT`] and [`OUTPUT`].
///
/// # Errors
/// If a weight is missing, is not of that shape or not f32, or if a layer reads
/// what no layer before it makes, or what has another size.
pub fn model(
    layers: &[LayerSpec],
    weights: &BTreeMap<String, Tensor>,
    epsilon: f32,
    batch: usize,
) -> Result<Vec<u8>> {
    let sizes = shapes(layers, batch).map(|shape| Sizes::fixed(&shape));
    Ok(graph(layers, weights, epsilon)?.into_file(sizes, BTreeMap::new()))
}

/// The bytes of an ONNX file as [`model`] makes, for any number of images at once, whose size is named `N`;
/// `properties` lie in it as `metadata_props`.
///
/// # Shapes
/// As [`shapes`] says, of [`INPUT`] and [`OUTPUT`].
///
/// # Errors
/// As [`model`].
pub fn model_for_any_batch(
    layers: &[LayerSpec],
    weights: &BTreeMap<String, Tensor>,
    epsilon: f32,
    properties: BTreeMap<String, String>,
) -> Result<Vec<u8>> {
    let sizes = shapes(layers, 1).map(|shape| Sizes::fixed(&shape).with_open_first(BATCH));
    Ok(graph(layers, weights, epsilon)?.into_file(sizes, properties))
}

/// A program that runs ONNX files.
pub trait OnnxRuntime {
    /// The runtime's name and version.
    fn describe(&self) -> String;

    /// Returns the model's outputs for these inputs, row by row.
    ///
    /// # Errors
    /// If it refuses the model.
    fn run_model(&self, model: &[u8], inputs: &[Tensor]) -> Result<Vec<Vec<f32>>>;
}

fn graph(layers: &[LayerSpec], weights: &BTreeMap<String, Tensor>, epsilon: f32) -> Result<GraphBuilder> {
    let mut graph = GraphBuilder::new();
    let mut outputs: Vec<String> = Vec::with_capacity(layers.len());
    for at in 0..layers.len() {
        check_inputs(layers, at)?;
        let layer = &layers[at];
        let inputs: Vec<String> = layer
            .inputs
            .iter()
            .map(|input: &Option<usize>| input.map_or(INPUT.to_string(), |from| outputs[from].clone()))
            .collect();
        layers::append(&mut graph, layer, &inputs, &LayerWeights::new(layer, weights, epsilon))?;
        outputs.push(graph.tip());
    }
    if layers.is_empty() {
        graph.node("identity".to_string(), "Identity", &[INPUT], Vec::new());
    }
    Ok(graph)
}

/// Whether a layer has as many inputs as its operator takes, each made before it and of the size that it reads.
fn check_inputs(layers: &[LayerSpec], at: usize) -> Result<()> {
    let layer = &layers[at];
    let wrong = |field: &str, expected: String, got: String| {
        Err(base::Error::invalid(format!("layer {}", layer.name), field, expected, got).into())
    };
    if layer.inputs.len() != layer.operator.arity() {
        return wrong("inputs", layer.operator.arity().to_string(), layer.inputs.len().to_string());
    }
    let text = |map: FeatureMap| format!("{}x{}x{}", map.channels, map.height, map.width);
    for input in &layer.inputs {
        let (made, maker) = match *input {
            None => (layers[0].input, "the network reads"),
            Some(from) if from < at => (layers[from].output, &*format!("{} makes", layers[from].name)),
            Some(from) => {
                let expected = format!("a layer before this one, which is layer {at} of the list");
                return wrong("inputs", expected, format!("layer {from}"));
            }
        };
        if made != layer.input {
            return wrong("input", format!("{}, which {maker}", text(made)), text(layer.input));
        }
    }
    Ok(())
}
