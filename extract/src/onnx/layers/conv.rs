//! Dense convolution on maps, batch norm, activation.

use space::Activation;

use super::nodes::{Window, activate, add, convolution};
use crate::error::Result;
use crate::onnx::graph::GraphBuilder;
use crate::onnx::weights::LayerWeights;

/// The operator's fields.
pub(super) struct Conv {
    pub kernel: usize,
    pub stride: usize,
    pub activation: Activation,
    /// Whether the input is added to the output; the weights' names then have a part more.
    pub residual: bool,
}

pub(super) fn append(
    graph: &mut GraphBuilder,
    name: &str,
    conv: &Conv,
    weights: &LayerWeights,
) -> Result<()> {
    let input = graph.tip();
    let window = Window { kernel: conv.kernel, stride: conv.stride, groups: 1 };
    let part = if conv.residual { ".conv" } else { "" };
    convolution(graph, format!("{name}.conv"), &window, weights.folded(part)?);
    activate(graph, name, conv.activation);
    if conv.residual {
        add(graph, name, &input);
    }
    Ok(())
}
