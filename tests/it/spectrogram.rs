//! Spectrograms of 40 bands and 101 frames, from `.npy` files to a verified folder and a prediction, with
//! depthwise-separable blocks.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::Tensor;
use extract::accuracy::AccuracyEstimator;
use kernels::Backend;
use network::nn::{FoldedNetwork, MapSource, Network, Pass, Source, Tape};
use serde_json::Value;
use space::{Extent, LayerSpec, preset};

use crate::testing::commands::{assert_fails, json};
use crate::testing::files::{read_text, scratch, write_file};
use crate::testing::formula::{
    all_backends, assert_close, formula, formula_weights, network_of, unit, values, zeros,
};
use crate::testing::python::{assert_logits, logits, npy, python_with, run_script};

const BANDS: usize = 40;
const FRAMES: usize = 101;

/// A falling tone, a high hum, a low hum, a rising tone.
const CLASSES: [&str; 4] = ["down", "high", "low", "up"];

/// Loudness in dB: noise around -60, and 40 more in the band of the class, with a delay and a shift that depend on the name.
fn spectrogram(class: usize, name: &str) -> Vec<f32> {
    let shift = 4.0 * unit(name, 1_000_000);
    let delay = 8.0 * unit(name, 1_000_001);
    let mut values = Vec::new();
    for at in 0..BANDS * FRAMES {
        let band = (at / FRAMES) as f64;
        let frame = (at % FRAMES) as f64;
        let apart = (band - band_of(class, frame - delay) - shift) / 2.0;
        values.push((-60.0 + 12.0 * unit(name, at) + 40.0 * (-apart * apart).exp()) as f32);
    }
    values
}

/// The band of a class's sound in a frame.
fn band_of(class: usize, frame: f64) -> f64 {
    let along = frame / FRAMES as f64;
    match class {
        0 => 32.0 - 24.0 * along,
        1 => 30.0,
        2 => 10.0,
        _ => 8.0 + 24.0 * along,
    }
}

/// Writes the splits; every other array has a channel axis, and is big-endian float64.
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
                write_file(folder.join(format!("{number:02}.npy")), bytes);
            }
        }
    }
}

/// Checks that the result of a search is the best of all sub-networks within the limit.
fn assert_is_best(at: &Path, found: &Value, most_macs: u64) {
    let space = preset("tiny-spectrogram").expect("a preset");
    let rows = space.genome().all();
    assert_eq!(rows.len(), 1728);
    let mut archs = Vec::new();
    for row in &rows {
        if space::cost(&space.lower_row(row)).macs as u64 <= most_macs {
            archs.push(space.arch(row));
        }
    }
    assert!((100..1700).contains(&archs.len()), "{} within the limit", archs.len());
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
    let folder = scratch();
    let at = folder.path();
    write_data(at);
    let train = format!("train --space tiny-spectrogram {DATA} --batch 24 --seed 1 --scale 0.1");
    json("supernet", at, &format!("{train} --out run --threads 2"));
    let plan = read_text(at.join("run/plan.json"));
    assert!(plan.contains("\"min_width\": 0.8") && plan.contains("\"flip\": false"), "{plan}");
    let log = read_text(at.join("run/log.jsonl"));
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

/// Checks predictions of the exported network, in this toolkit and in Python where that is installed.
fn assert_predictions(at: &Path) {
    let config = read_text(at.join("model/config.json"));
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
            write_file(at.join(name), bytes);
        }
        assert_fails("extract", at, &format!("predict model {name}"), 1, part);
    }
    // an array of another size is resized
    let small = npy("<f2", "(1, 2)", [0, 0xd4, 0, 0xd4].into_iter());
    write_file(at.join("small.npy"), small);
    json("extract", at, "predict model small.npy");
    let eval = "eval --supernet run/supernet.safetensors --arch largest --data";
    assert_fails("supernet", at, &format!("{eval} digits"), 1, "classes: expected");
    write_file(at.join("words/val/up/01.npy"), b"PNG");
    assert_fails(
        "supernet",
        at,
        &format!("{eval} npy:words"),
        1,
        "val/up/01.npy: header: expected numpy's .npy format",
    );
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

/// The output of a layer, the gradient of its input, and those of its weights by name.
fn outcome(layer: &LayerSpec, weights: &Weights, backend: &Backend) -> (Tensor, Tensor, Weights) {
    let layers = std::slice::from_ref(layer);
    let gradients = zeros(layers);
    let network = network_of(layers, weights.clone(), &gradients, backend, 1e-5);
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

/// Without activations, a separable block equals an inverted residual without expansion bit for bit, forward and backward.
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

/// With activations, every backend agrees with the reference, and folded with unfolded.
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
