//! Inverted residual: 1x1 expansion, depthwise convolution, squeeze-and-excite, 1x1 projection.

use space::{Activation, MbConv};

use super::nodes::{Window, activate, add, convolution, mean};
use crate::error::Result;
use crate::onnx::graph::GraphBuilder;
use crate::onnx::weights::LayerWeights;

pub(super) fn append(
    graph: &mut GraphBuilder,
    name: &str,
    block: &MbConv,
    weights: &LayerWeights,
) -> Result<()> {
    let input = graph.tip();
    if block.expansion {
        let part = format!("{name}.inverted_bottleneck");
        let folded = weights.folded(".conv.inverted_bottleneck")?;
        convolution(graph, format!("{part}.conv"), &Window::POINT, folded);
        activate(graph, &part, block.activation);
    }
    let part = format!("{name}.depth_conv");
    let window = Window { kernel: block.kernel, stride: block.stride, groups: block.mid };
    convolution(graph, format!("{part}.conv"), &window, weights.folded(".conv.depth_conv")?);
    activate(graph, &part, block.activation);
    if block.squeeze.is_some() {
        squeeze_excite(graph, &format!("{part}.se"), weights)?;
    }
    let folded = weights.folded(".conv.point_linear")?;
    convolution(graph, format!("{name}.point_linear.conv"), &Window::POINT, folded);
    if block.residual {
        add(graph, name, &input);
    }
    Ok(())
}

/// The tip, each of its channels times `h_sigmoid(expand(relu(reduce(mean))))`.
fn squeeze_excite(graph: &mut GraphBuilder, name: &str, weights: &LayerWeights) -> Result<()> {
    let maps = graph.tip();
    mean(graph, format!("{name}.mean"));
    for (part, activation) in [("reduce", Activation::Relu), ("expand", Activation::HSigmoid)] {
        let fc = format!(".conv.depth_conv.se.fc.{part}");
        let numbers = [weights.get(&format!("{fc}.weight"))?, weights.get(&format!("{fc}.bias"))?];
        convolution(graph, format!("{name}.{part}"), &Window::POINT, numbers);
        activate(graph, &format!("{name}.{part}"), activation);
    }
    graph.node(format!("{name}.scale"), "Mul", &[&maps, &graph.tip()], Vec::new());
    Ok(())
}
