//! Sum of several inputs of one size: they are added one after the other.

use crate::onnx::graph::GraphProto;

pub(super) fn append(graph: &mut GraphProto, name: &str, inputs: &[String]) {
    for (number, input) in inputs.iter().enumerate().skip(1) {
        graph.node(format!("{name}.add{number}"), "Add", &[&graph.tip(), input], Vec::new());
    }
}
