//! Greatest of 3 x 3, padding 1.

use crate::onnx::graph::{GraphBuilder, ints};

pub(super) fn append(graph: &mut GraphBuilder, name: &str, stride: usize) {
    let attributes =
        vec![ints("kernel_shape", &[3; 2]), ints("strides", &[stride; 2]), ints("pads", &[1; 4])];
    graph.node(name.to_string(), "MaxPool", &[&graph.tip()], attributes);
}
