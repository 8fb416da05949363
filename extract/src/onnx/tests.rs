use candle_core::{DType, Device};
use prost::Message;
use space::{Activation, Bottleneck, MbConv, Separable, preset, sampler};

use super::*;

/// All weights are a quarter, statistics included.
fn quarters(layers: &[LayerSpec]) -> BTreeMap<String, Tensor> {
    let mut tensors = BTreeMap::new();
    for weight in layers.iter().flat_map(LayerSpec::weights) {
        let tensor = Tensor::full(0.25f32, weight.shape.as_slice(), &Device::Cpu).expect("a small tensor");
        if let Some(norm) = weight.batch_norm() {
            for statistic in ["running_mean", "running_var"] {
                tensors.insert(format!("{norm}.{statistic}"), tensor.clone());
            }
        }
        tensors.insert(weight.name, tensor);
    }
    tensors
}

fn decoded(layers: &[LayerSpec], batch: usize) -> proto::GraphProto {
    let bytes = model(layers, &quarters(layers), 1e-5, batch).expect("written");
    let model = proto::ModelProto::decode(bytes.as_slice()).expect("a message");
    assert_eq!((model.ir_version(), model.opset_import[0].version()), (8, 17));
    model.graph.expect("a graph")
}

fn layer(operator: Operator, input: [usize; 2], output: [usize; 2]) -> LayerSpec {
    let map = |[channels, side]: [usize; 2]| FeatureMap { channels, height: side, width: side };
    let name = "some.layer".to_string();
    let inputs = vec![None; operator.arity()];
    LayerSpec { name, slot: None, operator, input: map(input), output: map(output), inputs }
}

/// The block with all that a block can have.
fn block(activation: Activation) -> LayerSpec {
    let block = MbConv {
        kernel: 5,
        stride: 1,
        mid: 24,
        expansion: true,
        activation,
        squeeze: Some(8),
        residual: true,
    };
    layer(Operator::MbConv(block), [8, 14], [8, 14])
}

fn operators(graph: &proto::GraphProto) -> Vec<&str> {
    graph.node.iter().map(proto::NodeProto::op_type).collect()
}

fn sizes(value: &proto::ValueInfoProto) -> Vec<i64> {
    let tensor = value.r#type.as_ref().and_then(|kind| kind.tensor_type.as_ref()).expect("a tensor");
    let shape = tensor.shape.as_ref().expect("a shape");
    shape.dim.iter().map(proto::DimensionProto::dim_value).collect()
}

fn constant(graph: &proto::GraphProto, name: &str) -> (Vec<i64>, Vec<f32>) {
    let tensor = graph.initializer.iter().find(|tensor| tensor.name() == name).expect(name);
    let values = tensor.raw_data().chunks(4).map(|bytes| f32::from_le_bytes(bytes.try_into().expect("four")));
    (tensor.dims.clone(), values.collect())
}

/// Each node reads what there is by then; no name is made twice; constants have as many values as their shapes say.
fn assert_sound(what: &str, graph: &proto::GraphProto) {
    let mut known = vec![INPUT];
    for tensor in &graph.initializer {
        let (shape, values) = constant(graph, tensor.name());
        assert_eq!(shape.iter().product::<i64>(), values.len() as i64, "{what}: {}", tensor.name());
        known.push(tensor.name());
    }
    for node in &graph.node {
        for input in &node.input {
            assert!(known.contains(&input.as_str()), "{what}: {} reads {input}", node.name());
        }
        for output in &node.output {
            assert!(!known.contains(&output.as_str()), "{what}: {output} is made twice");
            known.push(output);
        }
    }
    assert_eq!(graph.node.last().expect("a node").output, [OUTPUT], "{what}");
    for tensor in &graph.initializer {
        let read = graph.node.iter().any(|node| node.input.iter().any(|input| input == tensor.name()));
        assert!(read, "{what}: nobody reads {}", tensor.name());
    }
}

#[test]
fn every_layer_and_every_network_of_a_space_is_sound() {
    for name in [
        "tiny",
        "tiny-cell",
        "tiny-macro",
        "nas-bench-201",
        "ofa-mbv3-w1.0",
        "ofa-proxyless-w1.0",
        "ofa-resnet50",
    ] {
        let space = preset(name).expect("a preset");
        for (key, layer) in space.layers().iter().step_by(7) {
            assert_sound(key, &decoded(std::slice::from_ref(layer), 1));
        }
        for arch in [sampler::smallest(&space), sampler::largest(&space)] {
            assert_sound(name, &decoded(&space.lower(&arch).expect("legal"), 2));
        }
    }
}

#[test]
fn operators_of_each_kind_of_layer() {
    let activation = Activation::HSwish;
    let stem = Operator::Stem { kernel: 3, stride: 2, activation };
    let bare = MbConv {
        kernel: 3,
        stride: 2,
        mid: 8,
        expansion: false,
        activation: Activation::Relu6,
        squeeze: None,
        residual: false,
    };
    let relu = Activation::Relu;
    let dense = |stride, residual| Operator::Conv { kernel: 3, stride, activation: relu, residual };
    let bottleneck = |stride, downsample| {
        Operator::Bottleneck(Bottleneck { kernel: 3, stride, mid: 8, activation: relu, downsample })
    };
    let separable = Separable { kernel: 5, stride: 2, activation: relu };
    // (layer, operators, output for two images)
    let table: [(LayerSpec, &str, &[i64]); 15] = [
        (layer(stem, [3, 28], [16, 14]), "Conv HardSwish", &[2, 16, 14, 14]),
        (layer(Operator::MbConv(bare), [8, 13], [16, 7]), "Conv Clip Conv", &[2, 16, 7, 7]),
        (
            block(Activation::Relu),
            "Conv Relu Conv Relu GlobalAveragePool Conv Relu Conv HardSigmoid Mul Conv Add",
            &[2, 8, 14, 14],
        ),
        (layer(Operator::Separable(separable), [8, 13], [16, 7]), "Conv Relu Conv Relu", &[2, 16, 7, 7]),
        (layer(dense(1, false), [8, 7], [16, 7]), "Conv Relu", &[2, 16, 7, 7]),
        (layer(dense(1, true), [8, 7], [8, 7]), "Conv Relu Add", &[2, 8, 7, 7]),
        (layer(dense(2, false), [8, 7], [16, 4]), "Conv Relu", &[2, 16, 4, 4]),
        (layer(Operator::MaxPool { stride: 2 }, [8, 7], [8, 4]), "MaxPool", &[2, 8, 4, 4]),
        (layer(Operator::MaxPool { stride: 1 }, [8, 7], [8, 7]), "MaxPool", &[2, 8, 7, 7]),
        (layer(bottleneck(1, false), [32, 7], [32, 7]), "Conv Relu Conv Relu Conv Add Relu", &[2, 32, 7, 7]),
        (
            layer(bottleneck(1, true), [16, 7], [32, 7]),
            "Conv Relu Conv Relu Conv Conv Add Relu",
            &[2, 32, 7, 7],
        ),
        (
            layer(bottleneck(2, true), [16, 7], [32, 4]),
            "Conv Relu Conv Relu Conv AveragePool Conv Add Relu",
            &[2, 32, 4, 4],
        ),
        (layer(Operator::HeadConv { activation }, [8, 7], [48, 7]), "Conv HardSwish", &[2, 48, 7, 7]),
        (layer(Operator::Pool, [48, 7], [48, 1]), "GlobalAveragePool", &[2, 48, 1, 1]),
        (layer(Operator::Classifier, [48, 1], [10, 1]), "Flatten Gemm", &[2, 10]),
    ];
    table.iter().for_each(|(layer, expected, shape)| check_operators(layer, expected, shape));
}

#[test]
fn operators_of_layers_that_choices_name() {
    let activation = Activation::Relu;
    let average = |kernel, stride| Operator::AveragePool { kernel, stride };
    let table: [(LayerSpec, &str, &[i64]); 6] = [
        (layer(Operator::ReluConv { kernel: 3, stride: 2 }, [8, 7], [16, 4]), "Relu Conv", &[2, 16, 4, 4]),
        (layer(average(3, 1), [8, 7], [8, 7]), "AveragePool", &[2, 8, 7, 7]),
        (layer(average(2, 2), [8, 7], [8, 4]), "AveragePool", &[2, 8, 4, 4]),
        (layer(Operator::FactorizedReduction, [8, 7], [6, 4]), "Conv", &[2, 6, 4, 4]),
        (layer(Operator::Zero, [8, 7], [8, 7]), "Mul", &[2, 8, 7, 7]),
        (layer(Operator::Norm { activation }, [8, 7], [8, 7]), "Mul Add Relu", &[2, 8, 7, 7]),
    ];
    table.iter().for_each(|(layer, expected, shape)| check_operators(layer, expected, shape));
}

/// A layer's operators, and the sizes of its input and its output for two images.
fn check_operators(layer: &LayerSpec, expected: &str, shape: &[i64]) {
    let graph = decoded(std::slice::from_ref(layer), 2);
    assert_eq!(operators(&graph).join(" "), expected);
    let input = layer.input;
    assert_eq!(sizes(&graph.input[0]), [2, input.channels, input.height, input.width].map(|s| s as i64));
    assert_eq!(sizes(&graph.output[0]), shape, "{layer}");
    assert_sound(expected, &graph);
}

#[test]
fn attributes_of_a_block() {
    let graph = decoded(&[block(Activation::HSwish)], 1);
    let node = |name: &str| graph.node.iter().find(|node| node.name() == name).expect("a node");
    let attribute = |node: &proto::NodeProto, name: &str| {
        node.attribute.iter().find(|attribute| attribute.name() == name).cloned().expect("an attribute")
    };
    let depthwise = node("some.layer.depth_conv.conv");
    assert_eq!(attribute(depthwise, "kernel_shape").ints, [5, 5]);
    assert_eq!(attribute(depthwise, "strides").ints, [1, 1]);
    assert_eq!(attribute(depthwise, "pads").ints, [2; 4]);
    assert_eq!(attribute(depthwise, "group").i(), 24);
    assert_eq!(constant(&graph, "some.layer.depth_conv.conv.weight").0, [24, 1, 5, 5]);
    let gate = node("some.layer.depth_conv.se.expand.h_sigmoid");
    assert_eq!((attribute(gate, "alpha").f(), attribute(gate, "beta").f()), (1.0 / 6.0, 0.5));
    assert_eq!(attribute(gate, "alpha").kind(), proto::AttributeKind::Float);
    let scale = node("some.layer.depth_conv.se.scale");
    assert_eq!(scale.input, ["some.layer.depth_conv.h_swish", "some.layer.depth_conv.se.expand.h_sigmoid"]);
    let add = node("some.layer.add");
    assert_eq!(add.input, ["some.layer.point_linear.conv", INPUT]);
}

#[test]
fn a_shortcut_that_shrinks_is_a_mean_of_what_there_is() {
    let operator =
        Bottleneck { kernel: 3, stride: 2, mid: 8, activation: Activation::Relu, downsample: true };
    let graph = decoded(&[layer(Operator::Bottleneck(operator), [16, 7], [32, 4])], 1);
    let node = |name: &str| graph.node.iter().find(|node| node.name() == name).expect(name);
    let pool = node("some.layer.downsample.avg_pool");
    assert_eq!(pool.input, [INPUT]);
    let attribute =
        |name: &str| pool.attribute.iter().find(|attribute| attribute.name() == name).expect("an attribute");
    assert_eq!((attribute("ceil_mode").i(), attribute("count_include_pad").i()), (1, 0));
    assert_eq!((&attribute("kernel_shape").ints, &attribute("strides").ints), (&vec![2, 2], &vec![2, 2]));
    assert_eq!(node("some.layer.downsample.conv").input[0], "some.layer.downsample.avg_pool");
    assert_eq!(node("some.layer.add").input, ["some.layer.downsample.conv", "some.layer.conv3.conv"]);
}

#[test]
fn a_model_for_any_batch_says_what_it_is() {
    let layers = [layer(Operator::Pool, [48, 7], [48, 1])];
    let properties = BTreeMap::from([("arch".to_string(), "r8:k3e3/k3e3".to_string())]);
    let bytes = model_for_any_batch(&layers, &BTreeMap::new(), 1e-5, properties.clone()).expect("written");
    assert_eq!(OnnxModel::from_bytes("x.onnx", &bytes).expect("read").properties(), &properties);
    let graph = proto::ModelProto::decode(bytes.as_slice()).expect("a message").graph.expect("a graph");
    for value in [&graph.input[0], &graph.output[0]] {
        let tensor = value.r#type.as_ref().and_then(|kind| kind.tensor_type.as_ref()).expect("a tensor");
        let first = &tensor.shape.as_ref().expect("a shape").dim[0];
        assert_eq!((first.dim_param(), first.dim_value), ("N", None));
    }
    for bytes in [&bytes[..bytes.len() - 1], b"", b"\x08\x08"] {
        let error = OnnxModel::from_bytes("x.onnx", bytes).expect_err("no file").to_string();
        assert!(error.starts_with("x.onnx: content: expected a whole ONNX file"), "{error}");
    }
}

#[test]
fn a_batch_norm_is_multiplied_into_the_convolution_before_it() {
    let operator = Operator::HeadConv { activation: Activation::Relu };
    let layers = [layer(operator, [2, 1], [1, 1])];
    let weights = [
        ("conv.weight", &[1, 2, 1, 1][..], &[2.0f32, -4.0][..]),
        ("bn.weight", &[1], &[3.0]),
        ("bn.bias", &[1], &[1.0]),
        ("bn.running_mean", &[1], &[0.5]),
        ("bn.running_var", &[1], &[3.0]),
    ];
    let mut tensors = BTreeMap::new();
    for (name, shape, values) in weights {
        let tensor = Tensor::from_slice(values, shape, &Device::Cpu).expect("sizes agree");
        tensors.insert(format!("some.layer.{name}"), tensor);
    }
    let bytes = model(&layers, &tensors, 1.0, 1).expect("written");
    let graph = proto::ModelProto::decode(bytes.as_slice()).expect("a message").graph.expect("a graph");
    // 3 / sqrt(3 + 1) = 1.5
    assert_eq!(constant(&graph, "some.layer.conv.weight"), (vec![1, 2, 1, 1], vec![3.0, -6.0]));
    assert_eq!(constant(&graph, "some.layer.conv.bias"), (vec![1], vec![0.25])); // 1 - 0.5 * 1.5
}

#[test]
fn bounds_of_relu6_are_shared() {
    let graph = decoded(&[block(Activation::Relu6)], 1);
    assert_eq!(constant(&graph, "zero"), (vec![], vec![0.0]));
    assert_eq!(constant(&graph, "six"), (vec![], vec![6.0]));
    let clips: Vec<_> = graph.node.iter().filter(|node| node.op_type() == "Clip").collect();
    assert_eq!(clips.len(), 2);
    assert!(clips.iter().all(|clip| clip.input[1..] == ["zero", "six"]));
}

#[test]
fn no_layers_are_an_identity() {
    let graph = decoded(&[], 3);
    assert_eq!(operators(&graph), ["Identity"]);
    assert_eq!((sizes(&graph.input[0]), sizes(&graph.output[0])), (vec![3, 1, 1, 1], vec![3, 1, 1, 1]));
    assert_sound("nothing", &graph);
}

#[test]
fn what_cannot_be_written_is_said() {
    let layers = [block(Activation::Relu)];
    let refused =
        |layers: &[LayerSpec], weights| model(layers, &weights, 1e-5, 1).expect_err("refused").to_string();
    let name = "some.layer.conv.point_linear.bn.running_var";
    let mut weights = quarters(&layers);
    weights.remove(name);
    assert_eq!(
        refused(&layers, weights.clone()),
        format!("weights: {name}: expected shape [8], got no such weight")
    );
    weights.insert(name.to_string(), Tensor::zeros(9, DType::F32, &Device::Cpu).expect("small"));
    assert_eq!(
        refused(&layers, weights),
        format!("weights: {name}: expected shape [8] of F32, got shape [9] of F32")
    );
    let pool = layer(Operator::Pool, [9, 14], [9, 1]);
    for (inputs, expected) in [
        (vec![Some(0)], "input: expected 8x14x14, which some.layer makes, got 9x14x14"),
        (vec![None], "input: expected 8x14x14, which the network reads, got 9x14x14"),
        (vec![], "inputs: expected 1, got 0"),
        (
            vec![Some(1)],
            "inputs: expected a layer before this one, which is layer 1 of the list, got layer 1",
        ),
    ] {
        let pair = [layers[0].clone(), LayerSpec { inputs, ..pool.clone() }];
        assert_eq!(refused(&pair, quarters(&pair)), format!("layer some.layer: {expected}"));
    }
}

/// `relu(2 x - 1)`, of which `relu(x / 2 + 3)` is made, and the sum of both and the image, against the same by hand.
#[test]
fn a_diamond_is_the_sum_of_its_sides() {
    let point = |name: &str, inputs: &[Option<usize>]| LayerSpec {
        name: name.to_string(),
        inputs: inputs.to_vec(),
        ..layer(Operator::HeadConv { activation: Activation::Relu }, [1, 2], [1, 2])
    };
    let mut layers = vec![point("first", &[None]), point("second", &[Some(0)])];
    layers.push(LayerSpec {
        name: "sum".to_string(),
        inputs: vec![Some(0), Some(1), None],
        ..layer(Operator::Sum { of: 3 }, [1, 2], [1, 2])
    });
    let mut weights = BTreeMap::new();
    for (name, weight, bias) in [("first", 2.0f32, -1.0f32), ("second", 0.5, 3.0)] {
        let values = [("conv.weight", weight), ("bn.weight", 1.0), ("bn.bias", bias)];
        for (part, value) in values.into_iter().chain([("bn.running_mean", 0.0), ("bn.running_var", 1.0)]) {
            let shape = if part == "conv.weight" { vec![1; 4] } else { vec![1] };
            let tensor = Tensor::full(value, shape, &Device::Cpu).expect("one value");
            weights.insert(format!("{name}.{part}"), tensor);
        }
    }
    let bytes = model(&layers, &weights, 0.0, 2).expect("written");
    let graph = proto::ModelProto::decode(bytes.as_slice()).expect("a message").graph.expect("a graph");
    assert_eq!(operators(&graph), ["Conv", "Relu", "Conv", "Relu", "Add", "Add"]);
    assert_eq!(graph.node[4].input, ["first.relu", "second.relu"]);
    assert_eq!(graph.node[5].input, ["sum.add1", INPUT]);
    assert_sound("diamond", &graph);
    let image = [-7.0f32, 0.0, 0.5, 1.0, 2.0, 3.0, -0.25, 10.0];
    let decoded = OnnxModel::from_bytes("x.onnx", &bytes).expect("a sound graph");
    let got = decoded.run(&[2, 1, 2, 2], &image).expect("run");
    assert_eq!(
        got,
        image
            .iter()
            .map(|x: &f32| {
                let first = (2.0 * x - 1.0).max(0.0);
                first + (0.5 * first + 3.0).max(0.0) + x
            })
            .collect::<Vec<_>>()
    );
    // another edge is another model
    layers[2].inputs = vec![Some(0), None, Some(1)];
    let other = model(&layers, &weights, 0.0, 2).expect("written");
    let other = OnnxModel::from_bytes("y.onnx", &other).expect("a sound graph");
    let error = other.compare(&decoded).expect_err("other inputs").to_string();
    assert!(error.contains("node 4: expected `sum.add1` = Add(`first.relu`, `second.relu`)"), "{error}");
}

/// An inverted residual block whose input another layer reads too, against the parts by themselves.
#[test]
fn a_skip_over_a_block_adds_what_the_block_reads() {
    let block = block(Activation::HSwish);
    let sum = layer(Operator::Sum { of: 2 }, [8, 14], [8, 14]);
    let layers = [block.clone(), LayerSpec { name: "sum".into(), inputs: vec![Some(0), None], ..sum }];
    let run = |layers: &[LayerSpec]| {
        let bytes = model(layers, &quarters(layers), 1e-5, 1).expect("written");
        let image: Vec<f32> = (0..8 * 14 * 14).map(|at| (at % 11) as f32 / 8.0 - 0.5).collect();
        let made = OnnxModel::from_bytes("x.onnx", &bytes).expect("sound").run(&[1, 8, 14, 14], &image);
        (image, made.expect("run"))
    };
    let (image, alone) = run(std::slice::from_ref(&block));
    let expected: Vec<f32> = alone.iter().zip(&image).map(|(made, read)| made + read).collect();
    assert_eq!(run(&layers).1, expected);
}
