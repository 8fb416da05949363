//! Mean over each map.

use super::nodes::mean;
use crate::onnx::graph::GraphBuilder;

pub(super) fn append(graph: &mut GraphBuilder, name: &str) {
    mean(graph, name.to_string());
}
