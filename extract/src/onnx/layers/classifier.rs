//! Linear layer with bias.

use super::nodes::weighted;
use crate::error::Result;
use crate::onnx::graph::{GraphBuilder, int};
use crate::onnx::weights::LayerWeights;

/// `[N, C, 1, 1] -> [N, classes]`.
pub(super) fn append(graph: &mut GraphBuilder, name: &str, weights: &LayerWeights) -> Result<()> {
    graph.node(format!("{name}.flatten"), "Flatten", &[&graph.tip()], vec![int("axis", 1)]);
    let numbers = [weights.get(".linear.weight")?, weights.get(".linear.bias")?];
    let attributes = vec![int("transB", 1)]; // the weight is [classes, C]
    weighted(graph, format!("{name}.linear"), "Gemm", numbers, attributes);
    Ok(())
}
