//! Dense convolution on the image, batch norm, activation.

use space::Activation;

use super::nodes::{Window, activate, convolution};
use crate::error::Result;
use crate::onnx::graph::GraphBuilder;
use crate::onnx::weights::LayerWeights;

pub(super) fn append(
    graph: &mut GraphBuilder,
    name: &str,
    sizes: [usize; 2],
    activation: Activation,
    weights: &LayerWeights,
) -> Result<()> {
    let [kernel, stride] = sizes;
    let window = Window { kernel, stride, groups: 1 };
    convolution(graph, format!("{name}.conv"), &window, weights.folded("")?);
    activate(graph, name, activation);
    Ok(())
}
