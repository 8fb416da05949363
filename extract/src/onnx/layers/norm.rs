//! Batch norm and activation by themselves: a scale and a shift of each channel.

use space::Activation;

use super::nodes::activate;
use crate::error::Result;
use crate::onnx::graph::GraphBuilder;
use crate::onnx::weights::{LayerWeights, Numbers};

pub(super) fn append(
    graph: &mut GraphBuilder,
    name: &str,
    activation: Activation,
    weights: &LayerWeights,
) -> Result<()> {
    let [scale, shift] = weights.norm("")?;
    for (operator, part, Numbers { values, .. }) in [("Mul", "scale", scale), ("Add", "shift", shift)] {
        let input = graph.tip();
        let constant = graph.constant(format!("{name}.{part}.values"), &[values.len(), 1, 1], &values);
        graph.node(format!("{name}.{part}"), operator, &[&input, &constant], Vec::new());
    }
    activate(graph, name, activation);
    Ok(())
}
