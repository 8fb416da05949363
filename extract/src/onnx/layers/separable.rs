//! Depthwise-separable block: depthwise convolution, activation, 1x1 convolution, activation.

use space::Separable;

use super::nodes::{Window, activate, convolution};
use crate::error::Result;
use crate::onnx::graph::GraphBuilder;
use crate::onnx::weights::LayerWeights;

pub(super) fn append(
    graph: &mut GraphBuilder,
    name: &str,
    block: &Separable,
    channels: usize,
    weights: &LayerWeights,
) -> Result<()> {
    let &Separable { kernel, stride, activation } = block;
    let depthwise = Window { kernel, stride, groups: channels };
    for (part, window) in [("depthwise", &depthwise), ("pointwise", &Window::POINT)] {
        let name = format!("{name}.{part}");
        convolution(graph, format!("{name}.conv"), window, weights.folded(&format!(".{part}"))?);
        activate(graph, &name, activation);
    }
    Ok(())
}
