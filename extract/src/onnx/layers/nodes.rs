//! Nodes that several layers use.

use space::Activation;

use crate::onnx::graph::{GraphBuilder, float, int, ints};
use crate::onnx::proto::AttributeProto;
use crate::onnx::weights::Numbers;

/// A convolution's kernel, stride and groups; its padding is `kernel / 2` on every side.
pub(super) struct Window {
    pub kernel: usize,
    pub stride: usize,
    pub groups: usize,
}

impl Window {
    /// A 1x1 convolution.
    pub const POINT: Self = Self { kernel: 1, stride: 1, groups: 1 };
}

/// The sum of the tip and another value.
pub(super) fn add(graph: &mut GraphBuilder, name: &str, other: &str) {
    graph.node(format!("{name}.add"), "Add", &[&graph.tip(), other], Vec::new());
}

/// The mean over each map of the tip.
pub(super) fn mean(graph: &mut GraphBuilder, name: String) {
    graph.node(name, "GlobalAveragePool", &[&graph.tip()], Vec::new());
}

/// A convolution with its weight and, where it has one, its bias.
pub(super) fn convolution<const N: usize>(
    graph: &mut GraphBuilder,
    name: String,
    window: &Window,
    numbers: [Numbers; N],
) {
    let Window { kernel, stride, groups } = *window;
    let attributes = vec![
        ints("kernel_shape", &[kernel; 2]),
        ints("strides", &[stride; 2]),
        ints("pads", &[kernel / 2; 4]),
        int("group", groups),
    ];
    weighted(graph, name, "Conv", numbers, attributes);
}

/// A node that reads the tip and constants of its own.
pub(super) fn weighted<const N: usize>(
    graph: &mut GraphBuilder,
    name: String,
    operator: &str,
    numbers: [Numbers; N],
    attributes: Vec<AttributeProto>,
) {
    let mut inputs = vec![graph.tip()];
    for (suffix, numbers) in ["weight", "bias"].iter().zip(numbers) {
        inputs.push(graph.constant(format!("{name}.{suffix}"), &numbers.shape, &numbers.values));
    }
    let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
    graph.node(name, operator, &inputs, attributes);
}

/// The activation after `<part>`.
pub(super) fn activate(graph: &mut GraphBuilder, part: &str, activation: Activation) {
    let name = format!("{part}.{activation}");
    let tip = graph.tip();
    match activation {
        Activation::None => {}
        Activation::Relu => graph.node(name, "Relu", &[&tip], Vec::new()),
        Activation::Relu6 => {
            let bounds = [("zero", 0.0), ("six", 6.0)].map(|(name, value)| {
                if !graph.has_constant(name) {
                    graph.constant(name.to_string(), &[], &[value]);
                }
                name
            });
            graph.node(name, "Clip", &[&tip, bounds[0], bounds[1]], Vec::new());
        }
        Activation::HSwish => graph.node(name, "HardSwish", &[&tip], Vec::new()),
        Activation::HSigmoid => {
            let attributes = vec![float("alpha", 1.0 / 6.0), float("beta", 0.5)];
            graph.node(name, "HardSigmoid", &[&tip], attributes);
        }
    }
}
