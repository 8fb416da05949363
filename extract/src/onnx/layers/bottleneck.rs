//! Residual bottleneck: 1x1 reduction, dense convolution, 1x1 expansion, shortcut, activation.

use space::Bottleneck;

use super::average_pool;
use super::nodes::{Window, activate, add, convolution};
use crate::error::Result;
use crate::onnx::graph::GraphBuilder;
use crate::onnx::weights::LayerWeights;

pub(super) fn append(
    graph: &mut GraphBuilder,
    name: &str,
    block: &Bottleneck,
    weights: &LayerWeights,
) -> Result<()> {
    let &Bottleneck { kernel, stride, activation, .. } = block;
    let input = graph.tip();
    let dense = Window { kernel, stride, groups: 1 };
    for (part, window) in [("conv1", &Window::POINT), ("conv2", &dense)] {
        convolution(graph, format!("{name}.{part}.conv"), window, weights.folded(&format!(".{part}"))?);
        activate(graph, &format!("{name}.{part}"), activation);
    }
    convolution(graph, format!("{name}.conv3.conv"), &Window::POINT, weights.folded(".conv3")?);
    if block.downsample {
        let main = graph.tip();
        graph.set_tip(input);
        if stride > 1 {
            average_pool::append(graph, format!("{name}.downsample.avg_pool"), [stride; 2]);
        }
        let folded = weights.folded(".downsample")?;
        convolution(graph, format!("{name}.downsample.conv"), &Window::POINT, folded);
        add(graph, name, &main);
    } else {
        add(graph, name, &input);
    }
    activate(graph, name, activation);
    Ok(())
}
