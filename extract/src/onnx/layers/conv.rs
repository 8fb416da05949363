//! Dense convolution on maps, batch norm, activation.

use space::Activation;

use super::nodes::{Window, activate, add, convolution};
use crate::error::Result;
use crate::onnx::graph::Graph;
use crate::onnx::weights::LayerWeights;

pub(super) fn append(
    graph: &mut Graph,
    name: &str,
    [kernel, stride]: [usize; 2],
    activation: Activation,
    weights: &LayerWeights,
) -> Result<()> {
    let window = Window { kernel, stride, groups: 1 };
    convolution(graph, format!("{name}.conv"), &window, weights.folded("")?);
    activate(graph, name, activation);
    Ok(())
}

/// The convolution with its input added to its output.
pub(super) fn append_residual(
    graph: &mut Graph,
    name: &str,
    kernel: usize,
    activation: Activation,
    weights: &LayerWeights,
) -> Result<()> {
    let (input, window) = (graph.tip(), Window { kernel, stride: 1, groups: 1 });
    convolution(graph, format!("{name}.conv"), &window, weights.folded(".conv")?);
    activate(graph, name, activation);
    add(graph, name, &input);
    Ok(())
}
