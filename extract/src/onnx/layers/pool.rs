//! Mean over each map.

use super::nodes::mean;
use crate::onnx::graph::GraphProto;

pub(super) fn append(graph: &mut GraphProto, name: &str) {
    mean(graph, name.to_string());
}
