//! Arrays of floats that are wider than high, from `.npy` files to a verified folder and a prediction: depthwise-separable
//! blocks on 40 bands and 101 frames.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::Tensor;
use extract::accuracy::AccuracyEstimator;
use kernels::Backend;
use network::nn::{FoldedNetwork, MapSource, Network, Pass, Source, Tape};
use serde_json::Value;
use space::{Extent, LayerSpec, preset};

use crate::cli::{fails, json};
use crate::common::{all_backends, assert_close, formula, formula_weights, unit, values, zeros};
use crate::examples::{assert_logits, logits, python_with, run_script};

const BANDS: usize = 40;
const FRAMES: usize = 101;

/// What is heard: a tone that rises, one that falls, a low and a high hum.
const CLASSES: [&str; 4] = ["down", "high", "low", "up"];

/// Loudness in decibels: noise around -60, and 40 more where the class has its sound, somewhat later or higher each time.
fn spectrogram(class: usize, name: &str) -> Vec<f32> {
    let shift = 4.0 * unit(name, 1_000_000);
    let delay = 8.0 * unit(name, 1_000_001);
    let sound = |frame: f64| {
        let along = (frame - delay) / FRAMES as f64;
        match class {
            0 => 32.0 - 24.0 * along,
            1 => 30.0,
            2 => 10.0,
            _ => 8.0 + 24.0 * along,
        }
    };
    let value = |at: usize| {
        let band = (at / FRAMES) as f64;
        let frame = (at % FRAMES) as f64;
        let apart = (band - sound(frame) - shift) / 2.0;
        -60.0 + 12.0 * unit(name, at) + 40.0 * (-apart * apart).exp()
    };
    (0..BANDS * FRAMES).map(|at| value(at) as f32).collect()
}

fn npy(descr: &str, shape: &str, data: impl Iterator<Item = u8>) -> Vec<u8> {
    let header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}\n");
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.extend(data);
    bytes
}

/// Splits of so many arrays of each class; every other one is written with a channel, and as big-endian float64.
fn write_data(at: &Path) {
    for (split, count) in [("train", 24), ("val", 12), ("test", 6)] {
        for (class, word) in CLASSES.iter().enumerate() {
            let folder = at.join("words").join(split).join(word);
            std::fs::create_dir_all(&folder).expect("made");
            for number in 0..count {
                let values = spectrogram(class, &format!("{split}/{word}/{number}"));
                let bytes = if number % 2 == 0 {
                    npy("<f4", "(40, 101)", values.into_iter().flat_map(f32::to_le_bytes))
                } else {
                    let bytes = values.into_iter().flat_map(|value| f64::from(value).to_be_bytes());
                    npy(">f8", "(1, 40, 101)", bytes)
                };
                std::fs::write(folder.join(format!("{number:02}.npy")), bytes).expect("written");
            }
        }
    }
}

/// The sub-network that is found is the best of all that keep the limit.
fn assert_is_best(at: &Path, found: &Value, most_macs: u64) {
    let space = preset("tiny-spectrogram").expect("a preset");
    let rows = space.genome().all();
    assert_eq!(rows.len(), 1728);
    let kept = |macs: u64| macs <= most_macs;
    let archs: Vec<_> = rows
        .iter()
        .filter(|row| kept(space::cost(&space.lower_row(row)).macs as u64))
        .map(|row| space.arch(row))
        .collect();
    assert!((100..1700).contains(&archs.len()), "{} keep the limit", archs.len());
    let estimator = AccuracyEstimator::read(&at.join("estimator.safetensors")).expect("an estimator");
    let predicted = estimator.predict(&archs).expect("of the space");
    let best = predicted.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let arch = found["best"]["arch"].as_str().expect("text");
    let place = archs.iter().position(|other| other.to_string() == arch).expect("it keeps the limit");
    assert_eq!(predicted[place], best, "{arch}");
}

const DATA: &str = "--data npy:words";
const FROM: &str = "--supernet run/supernet.safetensors --data npy:words";

#[test]
fn spectrograms_go_all_the_way() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = folder.path();
    write_data(at);
    let train = format!("train --space tiny-spectrogram {DATA} --batch 24 --seed 1 --scale 0.1");
    json("supernet", at, &format!("{train} --out run --threads 2"));
    let plan = std::fs::read_to_string(at.join("run/plan.json")).expect("a plan");
    assert!(plan.contains("\"min_width\": 0.8") && plan.contains("\"flip\": false"), "{plan}");
    let log = std::fs::read_to_string(at.join("run/log.jsonl")).expect("a log");
    assert!(log.contains("\"resolution\":\"40x101\""), "{log}");

    let judged = json("supernet", at, &format!("eval {FROM} --arch largest --arch smallest --split test"));
    assert_eq!(judged["results"][0]["arch"], "r40x101:w1:k5e1,k5e1/w1:k5e1,k5e1/w1:k5e1,k5e1");
    assert_eq!(judged["results"][1]["arch"], "r40x101:w0.5:k3e1/w0.5:k3e1/w0.5:k3e1");
    let top1 = judged["results"][0]["top1"].as_f64().expect("a share");
    assert!(top1 > 0.9, "four sounds that are easy to tell apart: {judged}");

    json("supernet", at, &format!("sample {FROM} --count 40 --calibration-images 96 --out rows.jsonl"));
    json(
        "extract",
        at,
        "measure --space tiny-spectrogram --out table.json --threads 1 --half-width 50 --budget 16 --networks 0",
    );
    json("extract", at, "fit --accuracy rows.jsonl --out estimator.safetensors");
    let search =
        "search --space tiny-spectrogram --estimator estimator.safetensors --latency-table table.json";
    let limits = "--max-macs 2M --max-latency 1s";
    let found = json("extract", at, &format!("{search} {limits} --out found.json"));
    assert_is_best(at, &found, 2_000_000);

    let export = format!("export {FROM} --calibration-images 96 --arch found.json --format onnx --out model");
    assert_eq!(json("extract", at, &export)["max_abs_difference"], 0.0);
    json("extract", at, &format!("verify model {FROM}"));
    let own = json("supernet", at, &format!("eval {FROM} --arch model/config.json --split test"));
    assert_eq!(own["results"][0]["arch"], found["best"]["arch"]);
    assert_predictions(at);
    json(
        "extract",
        at,
        "plot --accuracy rows.jsonl --latency-table table.json --found found.json --out plot.svg",
    );
    assert_refusals(at);
}

/// What the exported network says of files, in this toolkit and in others where they are.
fn assert_predictions(at: &Path) {
    let config = std::fs::read_to_string(at.join("model/config.json")).expect("a config");
    let config: Value = serde_json::from_str(&config).expect("JSON");
    let input = &config["input"];
    assert_eq!((&config["version"], &input["values"]), (&4.into(), &"floats".into()), "{config}");
    assert_eq!(input["resolution"], "40x101");
    let mean = input["mean"][0].as_f64().expect("a mean");
    assert!((-58.0..-50.0).contains(&mean), "of the values themselves: {mean}");
    let files = "words/test/up/00.npy words/test/down/01.npy";
    let predicted = json("extract", at, &format!("predict model {files} --logits"));
    for (index, (file, class)) in files.split(' ').zip(["up", "down"]).enumerate() {
        let prediction = &predicted["predictions"][index];
        assert_eq!(prediction["top"][0]["class"], class, "{prediction}");
        let expected = logits(&prediction["logits"]);
        for (script, modules) in [("predict.py", "numpy, safetensors"), ("run_onnx.py", "numpy, onnxruntime")]
        {
            let Some(python) = python_with(script, modules) else { continue };
            assert_logits(script, &run_script(at, &python, script, &["model", file]), &expected);
        }
    }
}

fn assert_refusals(at: &Path) {
    image::GrayImage::new(8, 8).save(at.join("picture.png")).expect("written");
    for (name, bytes, part) in [
        ("picture.png", None, "picture.png: kind: expected an array as .npy, got another file"),
        (
            "two.npy",
            Some(npy("|u1", "(2, 1, 1)", [1, 2].into_iter())),
            "two.npy: channels: expected 1, got 2",
        ),
        (
            "nan.npy",
            Some(npy("<f4", "(1, 1)", f32::NAN.to_le_bytes().into_iter())),
            "values: expected finite",
        ),
    ] {
        if let Some(bytes) = bytes {
            std::fs::write(at.join(name), bytes).expect("written");
        }
        let error = fails("extract", at, &format!("predict model {name}"), 1);
        assert!(error.contains(part), "{error}");
    }
    // an array of another size is resized
    let small = npy("<f2", "(1, 2)", [0, 0xd4, 0, 0xd4].into_iter());
    std::fs::write(at.join("small.npy"), small).expect("written");
    json("extract", at, "predict model small.npy");
    let eval = "eval --supernet run/supernet.safetensors --arch largest --data";
    let error = fails("supernet", at, &format!("{eval} digits"), 1);
    assert!(error.contains("classes: expected"), "{error}");
    std::fs::write(at.join("words/val/up/01.npy"), b"PNG").expect("written");
    let error = fails("supernet", at, &format!("{eval} npy:words"), 1);
    assert!(error.contains("val/up/01.npy: header: expected numpy's .npy format"), "{error}");
}

/// Odd extents are halved upwards at each stride, in the stem and in blocks.
#[test]
fn extents_are_halved_upwards() {
    let space = preset("tiny-spectrogram").expect("a preset");
    let layers = space.lower(&space::sampler::largest(&space)).expect("legal");
    let keys: Vec<String> = layers.iter().map(|layer| layer.key()).collect();
    assert_eq!(keys[0], "stem k5 s2 1-16 relu @40x101");
    assert_eq!(keys[1], "sepconv k5 s1 16-32 relu @20x51");
    assert_eq!(keys[3], "sepconv k5 s2 32-48 relu @20x51");
    assert_eq!(keys[5], "sepconv k5 s2 48-64 relu @10x26");
    assert_eq!(keys[7], "pool 64 @5x13");
    assert_eq!(layers[6].output.height * layers[6].output.width, 5 * 13);
    assert_eq!(space.greatest_resolution(), Extent { height: 40, width: 101 });
}

/// What a layer makes of some maps, and the gradients of these and of its weights, by their names.
fn outcome(layer: &LayerSpec, weights: &Weights, backend: &Backend) -> (Tensor, Tensor, Weights) {
    let layers = std::slice::from_ref(layer);
    let gradients = zeros(layers);
    let source = Source::new(MapSource::builder(weights.clone()), backend, 1e-5);
    let network = Network::new(layers, &source.with_gradients(gradients.clone())).expect("all weights");
    let mut tape = Tape::new();
    let y =
        network.forward_maps(maps("images", layer.input), &mut Pass::Training(&mut tape)).expect("forward");
    let dx = network.backward_maps(maps("gradient", layer.output), &mut tape).expect("backward");
    (y, dx.expect("no stem"), gradients)
}

type Weights = BTreeMap<String, Tensor>;

fn maps(name: &str, map: space::FeatureMap) -> Tensor {
    formula(name, &[map.channels, 3, map.height, map.width])
}

/// Without activations it is an inverted residual that does not expand, bit for bit, forward and backward.
#[test]
fn a_separable_block_is_an_inverted_residual_without_expansion() {
    let renamed = |name: &str| {
        name.replace(".depthwise", ".conv.depth_conv").replace(".pointwise", ".conv.point_linear")
    };
    for (backend, (kernel, stride)) in all_backends().iter().flat_map(|k| [(3, 1), (5, 2)].map(|w| (k, w))) {
        let separable: LayerSpec =
            format!("sepconv k{kernel} s{stride} 8-12 none @13x7").parse().expect("a key");
        let inverted: LayerSpec =
            format!("mbconv k{kernel} s{stride} 8-8-12 none e1 @13x7").parse().expect("a key");
        let weights = formula_weights(std::slice::from_ref(&separable));
        let other = weights.iter().map(|(name, weight)| (renamed(name), weight.clone())).collect();
        let (y, dx, gradients) = outcome(&separable, &weights, backend);
        let (expected, expected_dx, others) = outcome(&inverted, &other, backend);
        assert_eq!(values(&y), values(&expected), "{backend:?}: {separable}");
        assert_eq!(values(&dx), values(&expected_dx), "{backend:?}: {separable}");
        for (name, gradient) in &gradients {
            assert_eq!(values(gradient), values(&others[&renamed(name)]), "{backend:?}: {name}");
        }
    }
}

/// With activations it is on every path what the naive loops make of it, and folded what it is unfolded.
#[test]
fn a_separable_block_is_the_same_on_every_path_and_folded() {
    for key in ["sepconv k3 s2 16-24 relu @20x51", "sepconv k5 s1 6-10 h_swish @5x13"] {
        let layer: LayerSpec = key.parse().expect("a key");
        let weights = formula_weights(std::slice::from_ref(&layer));
        let (expected, expected_dx, others) = outcome(&layer, &weights, &Backend::reference());
        for backend in all_backends() {
            let (y, dx, gradients) = outcome(&layer, &weights, &backend);
            assert_close(key, &y, &expected, 1e-5);
            assert_close(key, &dx, &expected_dx, 1e-4);
            for (name, gradient) in &gradients {
                assert_close(name, gradient, &others[name], 1e-4);
            }
            let source = Source::new(MapSource::builder(weights.clone()), &backend, 1e-5);
            let network = Network::new(std::slice::from_ref(&layer), &source).expect("all weights");
            let deployed = network.forward_maps(maps("images", layer.input), &mut Pass::Inference);
            let folded = FoldedNetwork::new(&network).expect("it has statistics");
            let folded = folded.forward_maps(maps("images", layer.input)).expect("inference");
            assert_close("folded", &folded, &deployed.expect("inference"), 1e-5);
        }
    }
}
