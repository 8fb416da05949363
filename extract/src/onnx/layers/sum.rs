//! Sum of several inputs of one size: they are added one after the other.

use crate::onnx::graph::GraphBuilder;

pub(super) fn append(graph: &mut GraphBuilder, name: &str, inputs: &[String]) {
    for (number, input) in inputs.iter().enumerate().skip(1) {
        graph.node(format!("{name}.add{number}"), "Add", &[&graph.tip(), input], Vec::new());
    }
}
