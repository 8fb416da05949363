//! Mean over each map.

use super::nodes::mean;
use crate::onnx::graph::Graph;

pub(super) fn append(graph: &mut Graph, name: &str) {
    mean(graph, name.to_string());
}
