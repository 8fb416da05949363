//! Residual bottleneck: 1x1 reduction, dense convolution, 1x1 expansion, shortcut, activation.

use space::Bottleneck;

use super::nodes::{Window, activate, add, convolution};
use crate::error::Result;
use crate::onnx::graph::{GraphBuilder, int, ints};
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
        if stride > 1 {
            mean_of_squares(graph, format!("{name}.downsample.avg_pool"), &input, stride);
        } else {
            graph.set_tip(input);
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

/// Means over adjacent squares; a square that is cut off at the edge is averaged over its part inside.
fn mean_of_squares(graph: &mut GraphBuilder, name: String, input: &str, side: usize) {
    let attributes = vec![
        ints("kernel_shape", &[side; 2]),
        ints("strides", &[side; 2]),
        int("ceil_mode", 1),
        int("count_include_pad", 0),
    ];
    graph.node(name, "AveragePool", &[input], attributes);
}
