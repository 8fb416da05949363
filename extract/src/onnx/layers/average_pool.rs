//! Mean over windows; places outside of the map are not counted.

use crate::onnx::graph::{GraphBuilder, int, ints};

/// Means of the value at the tip. Windows are padded by `(kernel - 1) / 2`; those that begin in the map are all there.
pub(super) fn append(graph: &mut GraphBuilder, name: String, [kernel, stride]: [usize; 2]) {
    let input = graph.tip();
    let mut attributes = vec![ints("kernel_shape", &[kernel; 2]), ints("strides", &[stride; 2])];
    match (kernel - 1) / 2 {
        0 => attributes.push(int("ceil_mode", 1)),
        padding => attributes.push(ints("pads", &[padding; 4])),
    }
    attributes.push(int("count_include_pad", 0));
    graph.node(name, "AveragePool", &[&input], attributes);
}
