//! ReLU, dense convolution, batch norm.

use space::Activation;

use super::nodes::{Window, activate, convolution};
use crate::error::Result;
use crate::onnx::graph::GraphBuilder;
use crate::onnx::weights::LayerWeights;

pub(super) fn append(
    graph: &mut GraphBuilder,
    name: &str,
    [kernel, stride]: [usize; 2],
    weights: &LayerWeights,
) -> Result<()> {
    activate(graph, name, Activation::Relu);
    let window = Window { kernel, stride, groups: 1 };
    convolution(graph, format!("{name}.conv"), &window, weights.folded("")?);
    Ok(())
}
