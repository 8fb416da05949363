//! What each kind of layer is in ONNX's operators.

use supernet::space::{Activation, LayerSpec, MbConv, Operator};

use super::graph::{Graph, float, int, ints};
use super::proto::Attribute;
use super::weights::{LayerWeights, Numbers};
use crate::error::Result;

/// How a convolution moves over its input; its padding is `kernel / 2` on every side.
struct Window {
    kernel: usize,
    stride: usize,
    groups: usize,
}

impl Window {
    /// That of a 1x1 convolution.
    const POINT: Self = Self { kernel: 1, stride: 1, groups: 1 };
}

/// Appends a layer to the graph: it reads the tip and leaves its output there.
pub(super) fn append(graph: &mut Graph, layer: &LayerSpec, weights: &LayerWeights) -> Result<()> {
    let name = &layer.name;
    match &layer.operator {
        Operator::Stem { kernel, stride, activation } => {
            let window = Window { kernel: *kernel, stride: *stride, groups: 1 };
            convolution(graph, format!("{name}.conv"), &window, weights.folded("")?);
            activate(graph, name, *activation);
        }
        Operator::HeadConv { activation } => {
            convolution(graph, format!("{name}.conv"), &Window::POINT, weights.folded("")?);
            activate(graph, name, *activation);
        }
        Operator::FeatureMix { activation } => {
            convolution(graph, format!("{name}.conv"), &Window::POINT, [weights.get(".conv.weight")?]);
            activate(graph, name, *activation);
        }
        Operator::MbConv(block) => inverted_residual(graph, name, block, weights)?,
        Operator::Conv { .. } | Operator::MaxPool | Operator::Bottleneck(_) => {
            return Err(supernet::Error::invalid("onnx", "layer", "one that has a graph", layer).into());
        }
        Operator::Pool => mean(graph, name.clone()),
        Operator::Classifier => classifier(graph, name, weights)?,
    }
    Ok(())
}

fn inverted_residual(graph: &mut Graph, name: &str, block: &MbConv, weights: &LayerWeights) -> Result<()> {
    let input = graph.tip();
    if block.expansion {
        let part = format!("{name}.inverted_bottleneck");
        let folded = weights.folded(".conv.inverted_bottleneck")?;
        convolution(graph, format!("{part}.conv"), &Window::POINT, folded);
        activate(graph, &part, block.activation);
    }
    let part = format!("{name}.depth_conv");
    let window = Window { kernel: block.kernel, stride: block.stride, groups: block.mid };
    convolution(graph, format!("{part}.conv"), &window, weights.folded(".conv.depth_conv")?);
    activate(graph, &part, block.activation);
    if block.squeeze.is_some() {
        squeeze_excite(graph, &format!("{part}.se"), weights)?;
    }
    let folded = weights.folded(".conv.point_linear")?;
    convolution(graph, format!("{name}.point_linear.conv"), &Window::POINT, folded);
    if block.residual {
        graph.node(format!("{name}.add"), "Add", &[&graph.tip(), &input], Vec::new());
    }
    Ok(())
}

/// The tip, each of its channels times `h_sigmoid(expand(relu(reduce(mean))))`.
fn squeeze_excite(graph: &mut Graph, name: &str, weights: &LayerWeights) -> Result<()> {
    let maps = graph.tip();
    mean(graph, format!("{name}.mean"));
    for (part, activation) in [("reduce", Activation::Relu), ("expand", Activation::HSigmoid)] {
        let fc = format!(".conv.depth_conv.se.fc.{part}");
        let numbers = [weights.get(&format!("{fc}.weight"))?, weights.get(&format!("{fc}.bias"))?];
        convolution(graph, format!("{name}.{part}"), &Window::POINT, numbers);
        activate(graph, &format!("{name}.{part}"), activation);
    }
    graph.node(format!("{name}.scale"), "Mul", &[&maps, &graph.tip()], Vec::new());
    Ok(())
}

fn mean(graph: &mut Graph, name: String) {
    graph.node(name, "GlobalAveragePool", &[&graph.tip()], Vec::new());
}

/// `[N, C, 1, 1] -> [N, classes]`.
fn classifier(graph: &mut Graph, name: &str, weights: &LayerWeights) -> Result<()> {
    graph.node(format!("{name}.flatten"), "Flatten", &[&graph.tip()], vec![int("axis", 1)]);
    let numbers = [weights.get(".linear.weight")?, weights.get(".linear.bias")?];
    let attributes = vec![int("transB", 1)]; // the weight is [classes, C]
    weighted(graph, format!("{name}.linear"), "Gemm", numbers, attributes);
    Ok(())
}

/// A convolution with its weight and, where it has one, its bias.
fn convolution<const N: usize>(graph: &mut Graph, name: String, window: &Window, numbers: [Numbers; N]) {
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
fn weighted<const N: usize>(
    graph: &mut Graph,
    name: String,
    operator: &str,
    numbers: [Numbers; N],
    attributes: Vec<Attribute>,
) {
    let mut inputs = vec![graph.tip()];
    for (suffix, numbers) in ["weight", "bias"].iter().zip(numbers) {
        inputs.push(graph.constant(format!("{name}.{suffix}"), &numbers.shape, &numbers.values));
    }
    let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
    graph.node(name, operator, &inputs, attributes);
}

/// The activation after `<part>`.
fn activate(graph: &mut Graph, part: &str, activation: Activation) {
    let (name, tip) = (format!("{part}.{activation}"), graph.tip());
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
