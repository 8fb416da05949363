use base::random::rng_for;
use prost::Message;
use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::super::graph::{GraphBuilder, Sizes, float, int, ints};
use super::super::proto;
use super::*;

type Values<'a> = (&'a [usize], &'a [f32]);

/// A graph of one node, whose first input is the graph's; no shape stands for an input that is left out.
fn graph(
    operator: &str,
    attributes: Vec<proto::AttributeProto>,
    inputs: &[Option<Values>],
    output: &[usize],
) -> OnnxModel {
    let mut graph = GraphBuilder::new();
    let mut names = vec!["input".to_string()];
    for (index, values) in inputs.iter().enumerate().skip(1) {
        names.push(values.as_ref().map_or_else(String::new, |(shape, values): &Values| {
            graph.constant(format!("constant{index}"), shape, values)
        }));
    }
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    graph.node("node".to_string(), operator, &names, attributes);
    let shape = inputs[0].expect("the graph's input").0;
    let sizes = [shape, output].map(Sizes::fixed);
    OnnxModel::from_bytes("x.onnx", &graph.into_file(sizes, Default::default())).expect("a sound graph")
}

fn check(
    operator: &str,
    attributes: Vec<proto::AttributeProto>,
    inputs: &[Option<Values>],
    expected: Values,
) {
    let (shape, expected) = expected;
    let (input, values) = inputs[0].expect("the graph's input");
    let got = graph(operator, attributes, inputs, shape).run(input, values);
    let got = got.unwrap_or_else(|error| panic!("{operator}: {error}"));
    assert_eq!(got.len(), expected.len(), "{operator}");
    for (index, (got, expected)) in got.iter().zip(expected).enumerate() {
        let same =
            (got - expected).abs() <= 2e-6 * expected.abs().max(1.0) || got.is_nan() && expected.is_nan();
        assert!(same, "{operator}[{index}]: {got} not {expected}");
    }
}

/// The values 1, 2, … of a shape.
fn counted(shape: &[usize]) -> Vec<f32> {
    (1..=shape.iter().product()).map(|value: usize| value as f32).collect()
}

#[test]
fn values_by_themselves() {
    let x: Values = (&[2, 3], &[-4.0, -3.0, -0.0, 0.3, 3.0, f32::NAN]);
    let nan = f32::NAN;
    check("Identity", vec![], &[Some(x)], x);
    check("Relu", vec![], &[Some(x)], (&[2, 3], &[0.0, 0.0, 0.0, 0.3, 3.0, nan]));
    check("HardSwish", vec![], &[Some(x)], (&[2, 3], &[0.0, 0.0, 0.0, 0.165, 3.0, nan]));
    // 0.2 x + 0.5 by default
    check("HardSigmoid", vec![], &[Some(x)], (&[2, 3], &[0.0, 0.0, 0.5, 0.56, 1.0, nan]));
    let own = vec![float("alpha", 0.5), float("beta", 0.25)];
    check("HardSigmoid", own, &[Some(x)], (&[2, 3], &[0.0, 0.0, 0.25, 0.4, 1.0, nan]));
    let bound = |value: &'static [f32]| Some((&[][..], value));
    let clips: [(&[Option<Values>], [f32; 6]); 5] = [
        (&[bound(&[-3.5]), bound(&[0.1])], [-3.5, -3.0, 0.0, 0.1, 0.1, nan]),
        (&[bound(&[-3.5])], [-3.5, -3.0, 0.0, 0.3, 3.0, nan]),
        (&[None, bound(&[0.1])], [-4.0, -3.0, 0.0, 0.1, 0.1, nan]),
        (&[bound(&[2.0]), bound(&[1.0])], [1.0, 1.0, 1.0, 1.0, 1.0, nan]),
        (&[], [-4.0, -3.0, 0.0, 0.3, 3.0, nan]),
    ];
    for (bounds, expected) in clips {
        check("Clip", vec![], &[&[Some(x)], bounds].concat(), (&[2, 3], &expected));
    }
}

#[test]
fn pairs_are_broadcast() {
    let x: Values = (&[2, 2, 1, 2], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]);
    let scales: Values = (&[2, 2, 1, 1], &[1.0, 10.0, 100.0, 1000.0]);
    let scaled = [1.0, 2.0, 30.0, 40.0, 500.0, 600.0, 7000.0, 8000.0];
    check("Mul", vec![], &[Some(x), Some(scales)], (&[2, 2, 1, 2], &scaled));
    let row: Values = (&[2], &[10.0, 20.0]);
    let added = [11.0, 22.0, 13.0, 24.0, 15.0, 26.0, 17.0, 28.0];
    check("Add", vec![], &[Some(x), Some(row)], (&[2, 2, 1, 2], &added));
    check("Add", vec![], &[Some(row), Some(x)], (&[2, 2, 1, 2], &added));
    // [2, 1] and [3] to [2, 3]
    let sums = [11.0, 21.0, 31.0, 12.0, 22.0, 32.0];
    check(
        "Add",
        vec![],
        &[Some((&[2, 1], &[1.0, 2.0])), Some((&[3], &[10.0, 20.0, 30.0]))],
        (&[2, 3], &sums),
    );
    check("Add", vec![], &[Some((&[], &[1.0])), Some((&[], &[2.0]))], (&[], &[3.0]));
}

#[test]
fn matrices() {
    let a: Values = (&[2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    let b: Values = (&[3, 2], &[1.0, 0.0, 0.0, 1.0, 1.0, 1.0]);
    check("Gemm", vec![], &[Some(a), Some(b)], (&[2, 2], &[4.0, 5.0, 10.0, 11.0]));
    let shift: Values = (&[2], &[100.0, 200.0]);
    let with = vec![float("alpha", 2.0), float("beta", 0.5)];
    check("Gemm", with, &[Some(a), Some(b), Some(shift)], (&[2, 2], &[58.0, 110.0, 70.0, 122.0]));
    let column: Values = (&[2, 1], &[100.0, 200.0]);
    check("Gemm", vec![], &[Some(a), Some(b), Some(column)], (&[2, 2], &[104.0, 105.0, 210.0, 211.0]));
    check("Gemm", vec![], &[Some(a), Some(b), Some((&[], &[1.0]))], (&[2, 2], &[5.0, 6.0, 11.0, 12.0]));
    // transposed: [[1, 0, 1], [0, 1, 1]] as it lies
    let rows: Values = (&[2, 3], &[1.0, 0.0, 1.0, 0.0, 1.0, 1.0]);
    check("Gemm", vec![int("transB", 1)], &[Some(a), Some(rows)], (&[2, 2], &[4.0, 5.0, 10.0, 11.0]));
    let columns: Values = (&[3, 2], &[1.0, 4.0, 2.0, 5.0, 3.0, 6.0]);
    check("Gemm", vec![int("transA", 1)], &[Some(columns), Some(b)], (&[2, 2], &[4.0, 5.0, 10.0, 11.0]));
    let values = counted(&[2, 3, 4]);
    let x: Values = (&[2, 3, 4], &values);
    let shapes: [(i64, [usize; 2]); 5] =
        [(0, [1, 24]), (1, [2, 12]), (2, [6, 4]), (3, [24, 1]), (-1, [6, 4])];
    for (at, shape) in shapes {
        let axis = proto::AttributeProto { i: Some(at), ..int("axis", 0) };
        check("Flatten", vec![axis], &[Some(x)], (&shape, &values));
    }
    check("Flatten", vec![], &[Some(x)], (&[2, 12], &values));
}

#[test]
fn pools() {
    let values = counted(&[1, 1, 3, 3]);
    let x: Values = (&[1, 1, 3, 3], &values);
    check("GlobalAveragePool", vec![], &[Some(x)], (&[1, 1, 1, 1], &[5.0]));
    check(
        "GlobalAveragePool",
        vec![],
        &[Some((&[2, 1, 2], &[1.0, 3.0, 5.0, 9.0]))],
        (&[2, 1, 1], &[2.0, 7.0]),
    );
    let two = |more: Vec<proto::AttributeProto>| [vec![ints("kernel_shape", &[2; 2])], more].concat();
    let strided = || ints("strides", &[2; 2]);
    check("MaxPool", two(vec![]), &[Some(x)], (&[1, 1, 2, 2], &[5.0, 6.0, 8.0, 9.0]));
    check("MaxPool", two(vec![strided()]), &[Some(x)], (&[1, 1, 1, 1], &[5.0]));
    let ceil = || vec![strided(), int("ceil_mode", 1)];
    check("MaxPool", two(ceil()), &[Some(x)], (&[1, 1, 2, 2], &[5.0, 6.0, 8.0, 9.0]));
    // a padding is below every value
    let negative: Vec<f32> = values.iter().map(|value| -value).collect();
    let padded = || vec![strided(), ints("pads", &[1; 4])];
    check(
        "MaxPool",
        two(padded()),
        &[Some((&[1, 1, 3, 3], &negative))],
        (&[1, 1, 2, 2], &[-1.0, -2.0, -4.0, -5.0]),
    );
    // rows: one above alone; columns: none before, two behind are cut to one
    let uneven = vec![ints("pads", &[1, 0, 0, 1])];
    check(
        "MaxPool",
        two(uneven),
        &[Some(x)],
        (&[1, 1, 3, 3], &[2.0, 3.0, 3.0, 5.0, 6.0, 6.0, 8.0, 9.0, 9.0]),
    );
    check("AveragePool", two(vec![strided()]), &[Some(x)], (&[1, 1, 1, 1], &[3.0]));
    check("AveragePool", two(ceil()), &[Some(x)], (&[1, 1, 2, 2], &[3.0, 4.5, 7.5, 9.0]));
    check("AveragePool", two(padded()), &[Some(x)], (&[1, 1, 2, 2], &[1.0, 2.5, 5.5, 7.0]));
    let counted = [padded(), vec![int("count_include_pad", 1)]].concat();
    check("AveragePool", two(counted), &[Some(x)], (&[1, 1, 2, 2], &[0.25, 1.25, 2.75, 7.0]));
    let nan: Values = (&[1, 1, 2, 2], &[1.0, f32::NAN, 2.0, 3.0]);
    check("MaxPool", two(vec![]), &[Some(nan)], (&[1, 1, 1, 1], &[f32::NAN]));
}

fn drawn(shape: &[usize], rng: &mut ChaCha8Rng) -> Vec<f32> {
    (0..shape.iter().product()).map(|_| rng.random_range(-1.0..1.0)).collect()
}

/// A convolution as the specification writes it: each value of the output by itself, in f64.
fn convolved(
    input: Values,
    filters: Values,
    window: ([usize; 2], [usize; 4], usize),
) -> (Vec<usize>, Vec<f32>) {
    let (input, x) = input;
    let (filters, w) = filters;
    let (strides, pads, group) = window; // strides, padding of every side, groups
    let size =
        |axis: usize| (input[axis + 2] + pads[axis] + pads[axis + 2] - filters[axis + 2]) / strides[axis] + 1;
    let shape = vec![input[0], filters[0], size(0), size(1)];
    let at = |image: usize, channel: usize, y: usize, x_: usize| {
        ((image * input[1] + channel) * input[2] + y) * input[3] + x_
    };
    let mut made = Vec::new();
    for index in 0..shape.iter().product() {
        let column = index % shape[3];
        let row = index / shape[3] % shape[2];
        let filter = index / shape[3] / shape[2] % shape[1];
        let image = index / shape[3] / shape[2] / shape[1];
        let mut sum = 0.0f64;
        for tap in 0..filters[1] * filters[2] * filters[3] {
            let channel = tap / filters[3] / filters[2];
            let ky = tap / filters[3] % filters[2];
            let y = row * strides[0] + ky;
            let x_ = column * strides[1] + tap % filters[3];
            if y < pads[0] || x_ < pads[1] || y - pads[0] >= input[2] || x_ - pads[1] >= input[3] {
                continue;
            }
            let channel = filter / (filters[0] / group) * filters[1] + channel;
            let weight = w[filter * filters[1] * filters[2] * filters[3] + tap];
            sum += f64::from(weight) * f64::from(x[at(image, channel, y - pads[0], x_ - pads[1])]);
        }
        made.push(sum as f32);
    }
    (shape, made)
}

#[test]
fn convolutions_are_those_of_the_specification() {
    // a hand-made one: the sum of each 2 x 2, bias 100
    let nine = counted(&[1, 1, 3, 3]);
    check(
        "Conv",
        vec![],
        &[Some((&[1, 1, 3, 3], &nine)), Some((&[1, 1, 2, 2], &[1.0; 4])), Some((&[1], &[100.0]))],
        (&[1, 1, 2, 2], &[112.0, 116.0, 124.0, 128.0]),
    );
    let mut rng = rng_for("convolutions", 0, &[]);
    // (input, weight, strides, pads, group)
    type Case = ([usize; 4], [usize; 4], [usize; 2], [usize; 4], usize);
    let cases: [Case; 9] = [
        ([2, 3, 5, 4], [4, 3, 1, 1], [1, 1], [0; 4], 1),
        ([1, 3, 5, 5], [2, 3, 1, 1], [2, 2], [0; 4], 1),
        ([2, 3, 6, 5], [4, 3, 3, 3], [1, 1], [1; 4], 1),
        ([1, 4, 7, 7], [4, 1, 5, 5], [2, 2], [2; 4], 4),
        ([2, 4, 5, 7], [6, 2, 3, 2], [1, 3], [1, 0, 2, 1], 2),
        ([1, 1, 2, 2], [1, 1, 5, 5], [1, 1], [3; 4], 1),
        ([1, 2, 1, 1], [2, 1, 7, 7], [2, 2], [3; 4], 2),
        ([1, 2, 3, 3], [2, 2, 1, 1], [1, 1], [1, 2, 0, 3], 1),
        ([1, 1, 4, 4], [1, 1, 1, 2], [3, 2], [0, 4, 0, 4], 1),
    ];
    for (input, weight, strides, pads, group) in cases {
        let x = drawn(&input, &mut rng);
        let w = drawn(&weight, &mut rng);
        let (shape, expected) = convolved((&input, &x), (&weight, &w), (strides, pads, group));
        let attributes = || vec![ints("strides", &strides), ints("pads", &pads), int("group", group)];
        let inputs = [Some((&input[..], &x[..])), Some((&weight[..], &w[..]))];
        check("Conv", attributes(), &inputs, (&shape, &expected));
        let with_kernel = [attributes(), vec![ints("kernel_shape", &weight[2..])]].concat();
        check("Conv", with_kernel, &inputs, (&shape, &expected));
    }
}

/// Values 1 to 9 as a map of 3 x 3.
const X: Option<Values<'static>> = Some((&[1, 1, 3, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0]));

/// Ones of a shape.
fn of(shape: &'static [usize]) -> Option<Values<'static>> {
    Some((shape, &[1.0f32; 16][..shape.iter().product()]))
}

fn kernel(size: usize) -> proto::AttributeProto {
    ints("kernel_shape", &[size; 2])
}

/// An attribute with numbers that [`ints`] does not take.
fn odd(attribute: proto::AttributeProto, values: &[i64]) -> proto::AttributeProto {
    proto::AttributeProto { ints: values.to_vec(), ..attribute }
}

/// An operator, its attributes and inputs, and a part of the refusal.
type Refused = (&'static str, Vec<proto::AttributeProto>, Vec<Option<Values<'static>>>, &'static str);

fn check_refused(cases: impl IntoIterator<Item = Refused>) {
    for (operator, attributes, inputs, said) in cases {
        let (shape, values) = inputs[0].expect("the graph's input");
        let error =
            graph(operator, attributes, &inputs, &[1]).run(shape, values).expect_err(said).to_string();
        assert!(error.starts_with("x.onnx: node `node` (") && error.contains(said), "{said}\n{error}");
    }
}

#[test]
fn an_operator_refuses_other_inputs_and_attributes_by_name() {
    check_refused([
        ("Sin", vec![], vec![X], "(Sin): operator: expected one of those that are written here, got Sin"),
        ("Relu", vec![], vec![X, X], "(Relu): inputs: expected at most 1, got 2"),
        ("Relu", vec![int("axis", 1)], vec![X], "(Relu): axis: expected no attribute of this name, got one"),
        ("Add", vec![], vec![X], "(Add): inputs: expected input 1, got none"),
        (
            "Add",
            vec![],
            vec![X, of(&[2])],
            "expected shapes that go together, got [1, 1, 3, 3] and [1, 1, 1, 2]",
        ),
        ("Clip", vec![], vec![X, of(&[1])], "bounds: expected shape [], got [1]"),
        ("HardSigmoid", vec![int("alpha", 1)], vec![X], "alpha: expected a number, got 1"),
        ("Flatten", vec![int("axis", 5)], vec![X], "axis: expected -4 to 4, got 5"),
        ("Flatten", vec![float("axis", 1.0)], vec![X], "axis: expected a whole number, got 1.0"),
        ("Gemm", vec![], vec![X, of(&[3, 3])], "inputs: expected 2 dimensions, got shape [1, 1, 3, 3]"),
        ("GlobalAveragePool", vec![], vec![of(&[3])], "expected at least 2 dimensions, got shape [3]"),
        ("MaxPool", vec![], vec![X], "kernel_shape: expected two sizes, got none"),
        ("Conv", vec![int("group", 0)], vec![X, of(&[1, 1, 1, 1])], "got 0"),
    ]);
}

#[test]
fn a_window_refuses_other_inputs_and_attributes_by_name() {
    check_refused([
        (
            "Conv",
            vec![],
            vec![X, of(&[1, 2, 1, 1])],
            "group: expected one that makes 1 filters of 2 channels read 1",
        ),
        (
            "Conv",
            vec![kernel(2)],
            vec![X, of(&[1, 1, 1, 1])],
            "kernel_shape: expected [1, 1], as the weight has, got [2, 2]",
        ),
        ("Conv", vec![], vec![X, of(&[1, 1, 1, 1]), of(&[2])], "bias: expected shape [1]"),
        (
            "Conv",
            vec![],
            vec![X, of(&[1, 1, 4, 4])],
            "input: expected a map of at least [4, 4] with its pads, got [3, 3]",
        ),
        (
            "Conv",
            vec![ints("pads", &[1])],
            vec![X, of(&[1, 1, 1, 1])],
            "pads: expected 4 whole numbers from 0 to 65536, got [1]",
        ),
        (
            "Conv",
            vec![odd(ints("strides", &[]), &[0, 1])],
            vec![X, of(&[1, 1, 1, 1])],
            "from 1 to 65536, got [0, 1]",
        ),
        ("Conv", vec![odd(ints("pads", &[]), &[-1; 4])], vec![X, of(&[1, 1, 1, 1])], "got [-1, -1, -1, -1]"),
        (
            "Conv",
            vec![ints("dilations", &[2; 2])],
            vec![X, of(&[1, 1, 1, 1])],
            "dilations: expected [1, 1], got [2, 2]",
        ),
        (
            "Conv",
            vec![ints("pads", &[65_536; 4])],
            vec![X, of(&[1, 1, 1, 1])],
            "output: expected one in proportion to the graph's input",
        ),
        (
            "MaxPool",
            vec![kernel(2), ints("pads", &[2; 4])],
            vec![X],
            "pads: expected less than the kernel, [2, 2], got [2, 2] and [2, 2]",
        ),
        (
            "MaxPool",
            vec![kernel(1), ints("strides", &[3; 2]), int("ceil_mode", 1)],
            vec![X],
            "strides: expected windows that cover a value each",
        ),
    ]);
}

#[test]
fn shapes_are_those_that_the_file_declares() {
    let input: Values = (&[1, 2], &[1.0, 2.0]);
    let model = graph("Identity", vec![], &[Some(input)], &[1, 3]);
    let said = |shape: &[usize], values: &[f32]| model.run(shape, values).expect_err("refused").to_string();
    assert_eq!(said(&[2, 1], &[0.0; 2]), "x.onnx: input: expected `input` [1, 2], got shape [2, 1]");
    assert_eq!(said(&[2], &[0.0; 2]), "x.onnx: input: expected `input` [1, 2], got shape [2]");
    assert_eq!(said(&[1, 2], &[0.0]), "x.onnx: input: expected values of shape [1, 2], got 1 values");
    assert_eq!(said(&[1, 2], &[0.0; 2]), "x.onnx: output: expected `output` [1, 3], got shape [1, 2]");
    // an open size is one size wherever its name stands
    let mut graph = GraphBuilder::new();
    graph.node("sum".to_string(), "Flatten", &["input"], vec![int("axis", 0)]);
    let sizes = [Sizes::fixed(&[1, 1]), Sizes::fixed(&[1, 2])].map(|sizes| sizes.with_open_first("N"));
    let bytes = graph.into_file(sizes, Default::default());
    let model = OnnxModel::from_bytes("x.onnx", &bytes).expect("sound");
    assert_eq!(model.input_shape(7), [7, 1]);
    let error = model.run(&[2, 1], &[0.0; 2]).expect_err("refused").to_string();
    assert_eq!(error, "x.onnx: output: expected size N of 2, as the input has, got 1");
}

/// A change of a sound file.
type Fault = fn(&mut proto::ModelProto, &mut proto::GraphProto);

const FAULTS: [(Fault, &str); 21] = [
    (|file, _| file.ir_version = None, "ir_version: expected 8, got none"),
    (|file, _| file.ir_version = Some(9), "ir_version: expected 8, got 9"),
    (
        |file, _| file.opset_import.clear(),
        "opset_import: expected version 17 of ONNX's own operators alone, got []",
    ),
    (|file, _| file.opset_import[0].domain = Some("a".into()), "got [(\"a\", 17)]"),
    (
        |file, _| file.metadata_props = vec![proto::Property::default(); 2],
        "metadata_props: : expected one value, got several",
    ),
    (|_, graph| graph.input.clear(), "input: expected one value, got 0"),
    (|_, graph| graph.input[0].name = None, "input: expected a name, got none"),
    (|_, graph| graph.output[0].r#type = None, "output: expected a tensor, got another type"),
    (
        |_, graph| graph.initializer[0].dims = vec![3],
        "w: expected the bytes of f32 values of shape [3], got 8 bytes",
    ),
    (|_, graph| graph.initializer[0].dims = vec![2, 0], "w: expected sizes of at least 1"),
    (
        |_, graph| graph.initializer[0].dims = vec![i64::MAX; 4],
        "w: expected the bytes of f32 values of shape",
    ),
    (|_, graph| graph.initializer[0].data_type = Some(10), "w: expected numbers of type 1 (f32), got 10"),
    (
        |_, graph| graph.initializer.push(graph.initializer[0].clone()),
        "w: expected one initializer of this name, got several",
    ),
    (
        |_, graph| graph.initializer[0].name = Some("input".into()),
        "input: expected a name that is given once",
    ),
    (|_, graph| graph.node[0].output[0] = "w".into(), "w: expected a name that is given once"),
    (
        |_, graph| graph.node.swap(0, 1),
        "node `b` (HardSigmoid): input: expected values that were made before it, got `a`",
    ),
    (
        |_, graph| graph.node[0].input[0] = "output".into(),
        "node `a` (Add): input: expected values that were made before it",
    ),
    (|_, graph| graph.node[0].output.push("c".into()), "node `a` (Add): output: expected one value, got 2"),
    (
        |_, graph| graph.output[0].name = Some("w".into()),
        "output: expected a value that a node makes, got `w`",
    ),
    (
        |_, graph| graph.node[1].attribute[0].i = Some(1),
        "alpha: expected one number, or a list of whole ones",
    ),
    (
        |_, graph| graph.node[1].attribute.push(float("alpha", 1.0)),
        "alpha: expected one attribute of this name, got several",
    ),
];

#[test]
fn files_that_are_not_written_here_are_refused() {
    let whole = || {
        let mut graph = GraphBuilder::new();
        let weight = graph.constant("w".to_string(), &[2], &[1.0, 2.0]);
        graph.node("a".to_string(), "Add", &["input", &weight], vec![]);
        graph.node("b".to_string(), "HardSigmoid", &["a"], vec![float("alpha", 0.1)]);
        let bytes = graph.into_file([Sizes::fixed(&[2]), Sizes::fixed(&[2])], Default::default());
        proto::ModelProto::decode(bytes.as_slice()).expect("a message")
    };
    let read = |file: &proto::ModelProto| OnnxModel::from_bytes("x.onnx", &file.encode_to_vec());
    read(&whole()).expect("sound");
    for (fault, said) in FAULTS {
        let mut file = whole();
        let mut graph = file.graph.take().expect("a graph");
        fault(&mut file, &mut graph);
        file.graph = Some(graph);
        let error = read(&file).expect_err(said).to_string();
        assert!(error.starts_with("x.onnx: ") && error.contains(said), "{said}\n{error}");
    }
    // a field that nobody here knows: 15 of the file, a text
    let mut bytes = whole().encode_to_vec();
    bytes.extend([0x7a, 1, b'x']);
    let error = OnnxModel::from_bytes("x.onnx", &bytes).expect_err("refused").to_string();
    assert!(error.starts_with("x.onnx: content: expected only fields that are written here"), "{error}");
}

#[test]
fn a_small_file_asks_for_little() {
    // each node doubles the map by its padding
    let mut graph = GraphBuilder::new();
    let mut tip = "input".to_string();
    let weight = graph.constant("w".to_string(), &[1, 1, 1, 1], &[1.0]);
    for index in 0..40 {
        let pads = 1usize << index.min(15);
        graph.node(format!("n{index}"), "Conv", &[&tip, &weight], vec![ints("pads", &[pads; 4])]);
        tip = format!("n{index}");
    }
    let sizes = [Sizes::fixed(&[1, 1, 1, 1]), Sizes::fixed(&[1, 1, 1, 1])];
    let model = OnnxModel::from_bytes("x.onnx", &graph.into_file(sizes, Default::default())).expect("sound");
    let error = model.run(&[1, 1, 1, 1], &[1.0]).expect_err("refused").to_string();
    assert!(error.contains("output: expected one in proportion to the graph's input"), "{error}");
}
