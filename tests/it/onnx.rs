//! `model.onnx` computes the same as the network, and `extract verify` finds faults in it.

use std::path::Path;

use base::random::rng_for;
use extract::onnx::{OnnxModel, model_for_any_batch};
use kernels::Backend;
use network::nn::{MapSource, Network, Pass, Source};
use space::{preset, sampler};

use crate::testing::commands::{assert_fails, fails, json, pipeline, run, stdout};
use crate::testing::files::{read_bytes, read_json, write_file};
use crate::testing::formula::{formula, formula_weights, values};

/// Relative to the largest logit; the differences are printed.
const TOLERANCE: f32 = 1e-5;

#[test]
fn networks_of_each_family_run_as_ours_do() {
    // (space, resolution, sub-networks, images)
    for (name, resolution, count, batch) in [
        ("tiny", 8, 6, 3),
        ("tiny", 12, 3, 1),
        ("fashion", 28, 2, 2),
        ("tiny-resnet", 8, 4, 3),
        ("tiny-resnet", 12, 4, 1),
        ("tiny-choice", 8, 8, 3),
        ("tiny-choice", 12, 4, 1),
        ("tiny-cell", 8, 20, 3),
        ("nas-bench-201", 16, 2, 1),
        ("tiny-macro", 8, 20, 3),
        ("tiny-macro", 7, 4, 1),
        ("enas-macro", 16, 2, 1),
        ("tiny-spectrogram", 13, 4, 3),
        ("ofa-mbv3-w1.0", 64, 1, 1),
        ("ofa-proxyless-w1.0", 64, 1, 1),
        ("ofa-resnet50", 64, 1, 1),
    ] {
        let space = preset(name).expect("a preset");
        for index in 0..count {
            let arch = sampler::random(&space, &mut rng_for("onnx", 1, &[index])).at(resolution);
            let layers = space.lower(&arch).expect("legal");
            let weights = formula_weights(&layers);
            let epsilon = space.batch_norm_epsilon();
            let bytes = model_for_any_batch(&layers, &weights, epsilon, Default::default()).expect("written");
            let model = OnnxModel::from_bytes("model.onnx", &bytes).expect("sound");
            let images = formula("images", &[batch, space.input_channels(), resolution, resolution]);
            assert_eq!(model.input_shape(batch), images.dims());
            let got = model.run(images.dims(), &values(&images)).expect("run");
            let source = Source::new(MapSource::builder(weights), &Backend::detect(), epsilon);
            let network = Network::new(&layers, &source).expect("a network");
            let expected = values(&network.forward(&images, Pass::Inference).expect("forward"));
            assert_eq!(got.len(), expected.len(), "{name}");
            let largest = expected.iter().fold(0.0f32, |largest, logit| largest.max(logit.abs()));
            let apart = expected.iter().zip(&got).map(|(a, b)| (a - b).abs() / largest);
            let worst = apart.fold(0.0f32, |worst, apart| if apart <= worst { worst } else { apart });
            println!("{name} {arch}: {worst:.1e}");
            assert!(worst <= TOLERANCE, "{name} {arch}: {worst}");
        }
    }
}

const SUPERNET: &str = "--supernet run/supernet.safetensors";

/// Writes `model.onnx` with its hash in `config.json`, as an export would.
fn put(folder: &Path, bytes: &[u8]) {
    let file = folder.join("model.onnx");
    let config = folder.join("config.json");
    write_file(&file, bytes);
    let mut document = read_json(&config);
    document["files"]["model.onnx"] = network::tensor_file::hash(&file).expect("a hash").into();
    write_file(&config, document.to_string());
}

#[test]
fn faults_in_model_onnx_fail_the_verification() {
    let at = pipeline();
    let verify = format!("verify graph {SUPERNET}");
    let export =
        format!("export {SUPERNET} --data digits --calibration-images 200 --arch largest --out graph");
    let exported = json("extract", at, &format!("{export} --format onnx"));
    assert_eq!(exported["onnx"]["inputs"], exported["inputs"]);
    let folder = at.join("graph");
    let good = read_bytes(folder.join("model.onnx"));
    put(&folder, &good);
    let verified = json("extract", at, &verify);
    let onnx = &verified["onnx"];
    assert!(onnx["weights"].as_u64().expect("a number") > 40 && onnx["runtime"].is_null(), "{onnx}");
    assert!(onnx["max_relative_difference"].as_f64().expect("a number") < 1e-5, "{onnx}");

    let changed = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = good.clone();
        change(&mut bytes);
        bytes
    };
    let middle = good.len() / 2;
    for (bytes, said) in [
        (changed(&|bytes| bytes[middle..middle + 4000].fill(0)), "model.onnx: "),
        (changed(&|bytes| bytes[middle] ^= 1), "model.onnx: "),
        (changed(&|bytes| bytes.truncate(middle)), "model.onnx: content: expected a whole ONNX file"),
        (changed(&|bytes| bytes.clear()), "model.onnx: content: expected a whole ONNX file"),
        (changed(&|bytes| bytes.extend([0x7a, 1, b'x'])), "expected only fields that are written here"),
    ] {
        put(&folder, &bytes);
        assert_fails("extract", at, &verify, 4, said);
    }
    // a file that config.json does not list is compared all the same
    put(&folder, &good);
    json("extract", at, &format!("{export} --format safetensors"));
    assert!(json("extract", at, &verify).get("onnx").is_none());
    assert_fails("extract", at, &format!("{verify} --onnxruntime nowhere"), 1, "nowhere");
    write_file(folder.join("model.onnx"), &good[..middle]);
    fails("extract", at, &verify, 4);
}

#[test]
fn onnx_runtime_computes_the_same() {
    let Ok(library) = std::env::var("ONNXRUNTIME_LIB") else {
        println!("skipped: ONNXRUNTIME_LIB does not name a library of ONNX Runtime");
        return;
    };
    let at = pipeline();
    let export = format!("export {SUPERNET} --data digits --calibration-images 200 --arch smallest");
    json("extract", at, &format!("{export} --format onnx --out run-graph"));
    let line = format!("verify run-graph {SUPERNET} --data digits --onnxruntime {library}");
    let runtime = &json("extract", at, &line)["onnx"]["runtime"];
    assert!(runtime["name"].as_str().is_some_and(|name| name.starts_with("onnxruntime 1.")), "{runtime}");
    assert!(runtime["max_relative_difference"].as_f64().is_some_and(|apart| apart < 1e-5), "{runtime}");
    let said = run("extract", at, &line);
    let said = stdout(&said);
    assert!(said.contains("model.onnx: ") && said.contains(", by onnxruntime 1."), "{said}");
    json("extract", at, &format!("{export} --out bare-graph"));
    assert_fails(
        "extract",
        at,
        &line.replace("run-graph", "bare-graph"),
        1,
        "expected model.onnx, got none; export with --format onnx",
    );
}
