//! What each kind of layer is in ONNX's operators.

use space::{Activation, Bottleneck, LayerSpec, MbConv, Operator};

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
        Operator::Conv { kernel, activation, residual } => {
            let input = graph.tip();
            let window = Window { kernel: *kernel, stride: 1, groups: 1 };
            let part = if *residual { ".conv" } else { "" };
            convolution(graph, format!("{name}.conv"), &window, weights.folded(part)?);
            activate(graph, name, *activation);
            if *residual {
                add(graph, name, &input);
            }
        }
        Operator::MaxPool => {
            let attributes =
                vec![ints("kernel_shape", &[3; 2]), ints("strides", &[2; 2]), ints("pads", &[1; 4])];
            graph.node(name.clone(), "MaxPool", &[&graph.tip()], attributes);
        }
        Operator::Bottleneck(block) => bottleneck(graph, name, block, weights)?,
        Operator::Pool => mean(graph, name.clone()),
        Operator::Sum { of } => {
            let inputs = vec![graph.tip(); *of];
            let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
            graph.node(name.clone(), "Sum", &inputs, Vec::new());
        }
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
        add(graph, name, &input);
    }
    Ok(())
}

fn bottleneck(graph: &mut Graph, name: &str, block: &Bottleneck, weights: &LayerWeights) -> Result<()> {
    let &Bottleneck { kernel, stride, activation, .. } = block;
    let input = graph.tip();
    let dense = Window { kernel, stride, groups: 1 };
    for (part, window) in [("conv1", &Window::POINT), ("conv2", &dense)] {
        convolution(graph, format!("{name}.{part}.conv"), window, weights.folded(&format!(".{part}"))?);
        activate(graph, &format!("{name}.{part}"), activation);
    }
    convolution(graph, format!("{name}.conv3.conv"), &Window::POINT, weights.folded(".conv3")?);
    if block.downsample {
        let main = graph.tip();
        if stride > 1 {
            mean_of_squares(graph, format!("{name}.downsample.avg_pool"), &input, stride);
        } else {
            graph.set_tip(input);
        }
        let folded = weights.folded(".downsample")?;
        convolution(graph, format!("{name}.downsample.conv"), &Window::POINT, folded);
        add(graph, name, &main);
    } else {
        add(graph, name, &input);
    }
    activate(graph, name, activation);
    Ok(())
}

/// Means over squares beside one another; of one that is cut off at the edge, over what there is of it.
fn mean_of_squares(graph: &mut Graph, name: String, input: &str, side: usize) {
    let attributes = vec![
        ints("kernel_shape", &[side; 2]),
        ints("strides", &[side; 2]),
        int("ceil_mode", 1),
        int("count_include_pad", 0),
    ];
    graph.node(name, "AveragePool", &[input], attributes);
}

/// The sum of the tip and another value.
fn add(graph: &mut Graph, name: &str, other: &str) {
    graph.node(format!("{name}.add"), "Add", &[&graph.tip(), other], Vec::new());
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
