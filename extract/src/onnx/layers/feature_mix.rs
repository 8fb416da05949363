//! 1x1 convolution on pooled features without batch norm or bias, activation.

use space::Activation;

use super::nodes::{Window, activate, convolution};
use crate::error::Result;
use crate::onnx::graph::GraphBuilder;
use crate::onnx::weights::LayerWeights;

pub(super) fn append(
    graph: &mut GraphBuilder,
    name: &str,
    activation: Activation,
    weights: &LayerWeights,
) -> Result<()> {
    convolution(graph, format!("{name}.conv"), &Window::POINT, [weights.get(".conv.weight")?]);
    activate(graph, name, activation);
    Ok(())
}
