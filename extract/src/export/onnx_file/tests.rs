//! Faults in a sound file: each must be found.

use base::random::rng_for;
use candle_core::{DType, Device};
use kernels::Backend;
use network::data::{Normalization, Preprocess};
use network::model_folder::{Input, ModelDescription, ModelOrigin, StatisticsOrigin, with_statistics};
use network::nn::{Pass, Statistics};
use prost::Message;
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use space::{LayerSpec, WeightRole, preset, sampler};

use super::*;
use crate::onnx::proto;

/// An exported network of random weights, a batch of images and its logits.
struct Sample {
    model: ModelFolder,
    bytes: Vec<u8>,
    images: Tensor,
    logits: Vec<f32>,
}

fn random(shape: &[usize], center: f32, spread: f32, rng: &mut ChaCha8Rng) -> Tensor {
    let values: Vec<f32> =
        (0..shape.iter().product()).map(|_| center + spread * rng.random_range(-1.0..1.0)).collect();
    Tensor::from_vec(values, shape, &Device::Cpu).expect("sizes agree")
}

/// Weights that keep activations of ordinary size, statistics included.
fn random_weights(layers: &[LayerSpec], rng: &mut ChaCha8Rng) -> BTreeMap<String, Tensor> {
    let mut tensors = BTreeMap::new();
    let mut statistics = Statistics::new();
    for weight in layers.iter().flat_map(LayerSpec::weights) {
        let shape = &weight.shape;
        let (center, spread) = match weight.role {
            WeightRole::NormScale(_) => (1.0, 0.1),
            WeightRole::NormShift(_) | WeightRole::Bias => (0.0, 0.1),
            _ => (0.0, (3.0 / shape[1..].iter().product::<usize>() as f32).sqrt()),
        };
        tensors.insert(weight.name.clone(), random(shape, center, spread, rng));
        if let Some(norm) = weight.batch_norm() {
            let [mean, variance] = [(0.0, 0.1), (1.0, 0.1)].map(|(at, by)| random(shape, at, by, rng));
            let pair = Tensor::stack(&[mean, variance], 0).expect("of one shape");
            statistics.insert(norm.to_string(), pair);
        }
    }
    with_statistics(&tensors, &statistics).expect("of one shape each")
}

impl Sample {
    fn new(space: &str, resolution: usize) -> Self {
        let name = space;
        let space = preset(space).expect("a preset");
        let mut rng = rng_for(name, 0, &[]);
        let arch = sampler::random(&space, &mut rng).at(resolution);
        let layers = space.lower(&arch).expect("legal");
        let channels = space.input_channels();
        let origin = ModelOrigin {
            tool: "0".to_string(),
            backend: "none".to_string(),
            supernet: "none".to_string(),
            statistics: StatisticsOrigin::Inherited,
            predicted_top1: None,
            predicted_latency_ms: None,
            measured: None,
            fine_tuned: Vec::new(),
        };
        let mean = vec![0.5; channels];
        let std = vec![0.25; channels];
        let normalization = Normalization::new(mean, std).expect("positive");
        let input = Input::new(resolution, &Preprocess::photographs(normalization));
        let classes = (0..space.classes()).map(|class| class.to_string()).collect();
        let tensors = random_weights(&layers, &mut rng);
        let description = ModelDescription { space: &space, arch: &arch, input, classes, origin };
        let model = ModelFolder::new(description, tensors).expect("f32");
        let images = random(&[2, channels, resolution, resolution], 0.0, 1.0, &mut rng);
        let network = model.network(&Backend::detect()).expect("whole");
        let logits = values(&network.forward(&images, Pass::Inference).expect("forward")).expect("f32");
        let bytes = contents(&model).expect("written");
        Self { model, bytes, images, logits }
    }

    fn verify(&self, bytes: &[u8]) -> Result<OnnxVerification> {
        let folder = Path::new("some-folder");
        let file = OnnxFile::from_bytes(folder, &self.model, bytes.to_vec())?;
        file.verify(folder, std::slice::from_ref(&self.images), 0, std::slice::from_ref(&self.logits), None)
    }

    /// Whether running the bytes, with nothing to compare them with, finds a fault.
    fn is_seen_by_running(&self, bytes: &[u8]) -> bool {
        let images = values(&self.images).expect("f32");
        let run = OnnxModel::from_bytes("x", bytes).and_then(|model| model.run(self.images.dims(), &images));
        let apart =
            |got: Vec<f32>| compare(Path::new("x"), "logits", std::slice::from_ref(&self.logits), &[got]);
        run.and_then(apart).is_err()
    }
}

#[test]
fn a_large_network_is_interpreted_on_the_first_images_only() {
    let case = Sample::new("tiny", 8);
    let file = OnnxFile::from_bytes(Path::new("x"), &case.model, case.bytes.clone()).expect("sound");
    let batches = [case.images.clone(), case.images.clone()];
    let logits = [case.logits.clone(), case.logits.clone()];
    for (macs, inputs) in [(0, 4), (MOST_MACS / 4, 4), (MOST_MACS / 4 + 1, 2), (u64::MAX, 2)] {
        let verification = file.verify(Path::new("x"), &batches, macs, &logits, None).expect("equal");
        assert_eq!(verification.inputs, inputs, "{macs}");
    }
}

/// A kind of fault: bytes of a file that is sound to those of one that is not.
type Fault = fn(&[u8], &mut ChaCha8Rng) -> Vec<u8>;

const FAULTS: [(&str, Fault); 12] = [
    ("a bit of a weight", flip_weight),
    ("any bit", flip_any),
    ("4,000 bytes zeroed", zero),
    ("truncated", truncate),
    ("an attribute", change_attribute),
    ("an edge", change_edge),
    ("operators swapped", swap_operators),
    ("a size", change_size),
    ("a node", change_node),
    ("an initializer", change_initializer),
    ("a property", change_property),
    ("what a file is", change_model),
];

/// The file with a change of its graph.
fn with_graph(bytes: &[u8], change: impl FnOnce(&mut proto::GraphProto)) -> Vec<u8> {
    let mut file = proto::ModelProto::decode(bytes).expect("sound");
    change(file.graph.as_mut().expect("a graph"));
    file.encode_to_vec()
}

fn pick<'a, T>(items: &'a mut [T], rng: &mut ChaCha8Rng) -> &'a mut T {
    let index = rng.random_range(0..items.len());
    &mut items[index]
}

fn flip(bytes: &mut [u8], rng: &mut ChaCha8Rng) {
    *pick(bytes, rng) ^= 1 << rng.random_range(0..8);
}

fn flip_weight(bytes: &[u8], rng: &mut ChaCha8Rng) -> Vec<u8> {
    with_graph(bytes, |graph| flip(pick(&mut graph.initializer, rng).raw_data.as_mut().expect("data"), rng))
}

fn flip_any(bytes: &[u8], rng: &mut ChaCha8Rng) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    flip(&mut bytes, rng);
    bytes
}

fn zero(bytes: &[u8], rng: &mut ChaCha8Rng) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let from = rng.random_range(0..bytes.len() - 4000);
    bytes[from..from + 4000].fill(0);
    bytes
}

fn truncate(bytes: &[u8], rng: &mut ChaCha8Rng) -> Vec<u8> {
    bytes[..rng.random_range(0..bytes.len())].to_vec()
}

fn change_attribute(bytes: &[u8], rng: &mut ChaCha8Rng) -> Vec<u8> {
    with_graph(bytes, |graph| {
        let mut nodes: Vec<_> = graph.node.iter_mut().filter(|node| !node.attribute.is_empty()).collect();
        let attributes = &mut pick(&mut nodes, rng).attribute;
        let attribute = pick(attributes, rng);
        match rng.random_range(0..4) {
            0 => attribute.name = Some("dilations".to_string()),
            1 => attribute.kind = Some(rng.random_range(0..8)),
            2 => {
                let index = rng.random_range(0..attributes.len());
                attributes.remove(index);
            }
            _ => {
                let by = if rng.random() { 1 } else { -1 };
                attribute.i = attribute.i.map(|value| value + by);
                attribute.f = attribute.f.map(|value| f32::from_bits(value.to_bits() ^ 1));
                if !attribute.ints.is_empty() {
                    *pick(&mut attribute.ints, rng) += by;
                }
            }
        }
    })
}

fn change_edge(bytes: &[u8], rng: &mut ChaCha8Rng) -> Vec<u8> {
    with_graph(bytes, |graph| {
        let values: Vec<String> = graph.node.iter().flat_map(|node| node.output.clone()).collect();
        let node = pick(&mut graph.node, rng);
        match rng.random_range(0..5) {
            0 => drop(node.input.pop()),
            1 => node.input.push(String::new()),
            2 => node.output[0].push('x'),
            3 => pick(&mut node.input, rng).push('x'),
            _ => *pick(&mut node.input, rng) = values[rng.random_range(0..values.len())].clone(),
        }
    })
}

fn swap_operators(bytes: &[u8], rng: &mut ChaCha8Rng) -> Vec<u8> {
    with_graph(bytes, |graph| {
        let mut types: Vec<_> = graph.node.iter_mut().map(|node| &mut node.op_type).collect();
        let other = pick(&mut types, rng).clone();
        **pick(&mut types, rng) = other;
    })
}

fn change_size(bytes: &[u8], rng: &mut ChaCha8Rng) -> Vec<u8> {
    with_graph(bytes, |graph| {
        let dims = match rng.random_range(0..4) {
            0 => {
                let value = if rng.random() { &mut graph.input[0] } else { &mut graph.output[0] };
                let tensor =
                    value.r#type.as_mut().and_then(|kind| kind.tensor_type.as_mut()).expect("a tensor");
                let dimension = pick(&mut tensor.shape.as_mut().expect("a shape").dim, rng);
                *dimension =
                    proto::DimensionProto { dim_value: Some(rng.random_range(-2..9)), dim_param: None };
                return;
            }
            _ => &mut pick(&mut graph.initializer, rng).dims,
        };
        match rng.random_range(0..3) {
            0 => dims.reverse(),
            1 => dims.push(1),
            _ if dims.is_empty() => dims.push(i64::MIN),
            _ => *pick(dims, rng) += if rng.random() { 1 } else { -1 },
        }
    })
}

fn change_node(bytes: &[u8], rng: &mut ChaCha8Rng) -> Vec<u8> {
    with_graph(bytes, |graph| {
        let index = rng.random_range(1..graph.node.len());
        match rng.random_range(0..4) {
            0 => drop(graph.node.remove(index)),
            1 => graph.node.swap(index - 1, index),
            2 => graph.node.insert(index, graph.node[index].clone()),
            _ => graph.node[index].name = None,
        }
    })
}

fn change_initializer(bytes: &[u8], rng: &mut ChaCha8Rng) -> Vec<u8> {
    with_graph(bytes, |graph| {
        let index = rng.random_range(1..graph.initializer.len());
        match rng.random_range(0..5) {
            0 => drop(graph.initializer.remove(index)),
            1 => graph
                .initializer
                .push(proto::Tensor { name: Some("more".to_string()), ..graph.initializer[0].clone() }),
            2 => graph.initializer[index].name = graph.initializer[index - 1].name.clone(),
            3 => graph.initializer[index].data_type = Some(rng.random_range(0..20)),
            // the same sum, and the same order of magnitude
            _ => graph.initializer[index]
                .raw_data
                .as_mut()
                .expect("data")
                .chunks_exact_mut(4)
                .for_each(|value| value[3] ^= 0x80),
        }
    })
}

fn change_property(bytes: &[u8], rng: &mut ChaCha8Rng) -> Vec<u8> {
    let mut file = proto::ModelProto::decode(bytes).expect("sound");
    let index = rng.random_range(0..file.metadata_props.len());
    match rng.random_range(0..4) {
        0 => drop(file.metadata_props.remove(index)),
        1 => file.metadata_props.push(file.metadata_props[index].clone()),
        2 => file.metadata_props[index].key = Some("mean ".to_string()),
        _ => file.metadata_props[index].value.get_or_insert_default().push('0'),
    }
    file.encode_to_vec()
}

fn change_model(bytes: &[u8], rng: &mut ChaCha8Rng) -> Vec<u8> {
    let mut file = proto::ModelProto::decode(bytes).expect("sound");
    match rng.random_range(0..4) {
        0 => file.ir_version = Some(rng.random_range(0..8)),
        1 => file.opset_import[0].version = Some(rng.random_range(0..17)),
        2 => file.opset_import[0].domain = Some("ai.onnx.ml".to_string()),
        _ => file.graph = None,
    }
    file.encode_to_vec()
}

/// Whether two files differ in nothing but what no reader obeys: who wrote them and the graph's name.
fn means_the_same(a: &[u8], b: &[u8]) -> bool {
    let plain = |bytes: &[u8]| {
        let mut file = proto::ModelProto::decode(bytes).ok().filter(|file| file.encode_to_vec() == bytes)?;
        (file.producer_name, file.producer_version) = (None, None);
        file.graph.as_mut()?.name = None;
        Some(file)
    };
    plain(a).is_some_and(|a| plain(b) == Some(a))
}

/// Each kind of fault so many times. Returns how many were made, and how many running alone would have found.
fn assert_every_fault_is_found(space: &str, resolution: usize, times: u64) -> [usize; 2] {
    let sample = Sample::new(space, resolution);
    let sound = sample.verify(&sample.bytes).expect("as it was written");
    assert!(sound.max_relative_difference < 1e-5 && sound.inputs == 2 && sound.weights > 10, "{sound:?}");
    assert!(!sample.is_seen_by_running(&sample.bytes));
    let mut made = 0;
    let mut seen = 0;
    for (kind, (what, fault)) in FAULTS.into_iter().enumerate() {
        for index in 0..times {
            let mut rng = rng_for("faults", index, &[kind as u64]);
            let faulty = loop {
                let faulty = fault(&sample.bytes, &mut rng);
                if !means_the_same(&faulty, &sample.bytes) {
                    break faulty;
                }
            };
            match sample.verify(&faulty) {
                Err(Error::VerificationFailed { what, .. }) => {
                    assert!(what.starts_with(ONNX_MODEL), "{what}")
                }
                other => panic!("{space}: {what}, {index}: {other:?}"),
            }
            made += 1;
            seen += usize::from(sample.is_seen_by_running(&faulty));
        }
    }
    [made, seen]
}

#[test]
fn five_hundred_faults_are_found_each() {
    let [made, seen] = assert_every_fault_is_found("tiny", 8, 42);
    println!("{made} faults found, {seen} by running alone");
    assert!(made >= 500 && 2 * seen > made, "running alone finds {seen} of {made}");
}

#[test]
fn faults_in_networks_of_other_families_are_found() {
    for (space, resolution) in [("fashion", 28), ("tiny-resnet", 12)] {
        let [made, seen] = assert_every_fault_is_found(space, resolution, 8);
        assert!(made == 96 && 2 * seen > made, "{space}: running alone finds {seen} of {made}");
    }
}

#[test]
fn a_zero_with_a_sign_is_another_number() {
    let sample = Sample::new("tiny", 8);
    let with = |value: f32| {
        let mut model =
            ModelFolder { config: sample.model.config.clone(), tensors: sample.model.tensors.clone() };
        let name = model.tensors.keys().find(|name| name.ends_with("linear.bias")).expect("a bias").clone();
        let shape = model.tensors[&name].dims().to_vec();
        let zeros =
            Tensor::full(value, shape, &Device::Cpu).expect("small").to_dtype(DType::F32).expect("f32");
        model.tensors.insert(name, zeros);
        model
    };
    let positive = with(0.0);
    let negative = contents(&with(-0.0)).expect("written");
    let folder = Path::new("f");
    let error = OnnxFile::from_bytes(folder, &positive, negative).err().expect("refused").to_string();
    assert!(error.ends_with("expected 0.0 (0x00000000), got -0.0 (0x80000000)"), "{error}");
}
