//! The examples, run as a user runs them, on a small supernet.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::SystemTime;

use base::random::rng_for;
use rand::Rng;
use serde_json::Value;

use crate::cli::{binary, json, pipeline, run};

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(name)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Runs pipeline.sh on the shared supernet or another, and returns its exit code with what it said.
fn ship(at: &Path, extract: &Path, supernet: &str, out: &str, devices: &[&str]) -> (Option<i32>, String) {
    let command = &mut Command::new("bash");
    command.current_dir(at).env("EXTRACT", extract).arg(example("pipeline.sh"));
    let output =
        command.args([supernet, "digits", "estimator.safetensors", "tiny", out]).args(devices).output();
    let output = output.expect("bash");
    (output.status.code(), text(&output.stdout) + &text(&output.stderr))
}

/// Each file under a folder, with its bytes and when it was written.
fn files(folder: &Path) -> BTreeMap<PathBuf, (Vec<u8>, SystemTime)> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            let written = path.metadata().and_then(|facts| facts.modified()).expect("facts");
            let bytes = std::fs::read(&path).expect("readable");
            found.insert(path, (bytes, written));
        }
    }
    found
}

/// A shipped folder verifies, and its sums hold.
fn assert_whole(at: &Path, folder: &str) {
    json("extract", at, &format!("verify {folder} --supernet run/supernet.safetensors"));
    let sums = Command::new("sha256sum").args(["-c", "SHA256SUMS"]).current_dir(at.join(folder)).output();
    let sums = sums.expect("sha256sum");
    assert!(sums.status.success() && text(&sums.stdout).lines().count() == 2, "{}", text(&sums.stdout));
}

const SUPERNET: &str = "run/supernet.safetensors";

/// Whether pipeline.sh can run here.
fn ships() -> bool {
    let lacking =
        ["bash", "sha256sum"].into_iter().find(|tool| Command::new(tool).arg("--version").output().is_err());
    lacking.inspect(|tool| println!("skipped: there is no {tool}")).is_none()
}

#[test]
fn one_supernet_is_shipped_to_each_device() {
    if !ships() {
        return;
    }
    let at = pipeline();
    let extract = binary("extract");
    for device in ["phone", "watch"] {
        std::fs::copy(at.join("table.json"), at.join(format!("{device}.json"))).expect("copied");
    }
    let ship = |supernet: &str, devices: &[&str]| ship(at, &extract, supernet, "ship", devices);

    let (code, said) = ship(SUPERNET, &["watch.json@0.001us", "phone.json@1s"]);
    assert_eq!(code, Some(3), "{said}");
    assert_whole(at, "ship/phone");
    assert!(!at.join("ship/watch").exists());
    let nearest = said.split("nearest feasible limit is ").nth(1).and_then(|rest| rest.lines().next());
    let nearest = format!("watch.json@{}", nearest.expect("the limit to ask for"));

    let phone = files(&at.join("ship"));
    let devices = ["phone.json@1s", nearest.as_str()];
    let (code, said) = ship(SUPERNET, &devices);
    assert_eq!(code, Some(0), "{said}");
    assert_whole(at, "ship/watch");
    let both = files(&at.join("ship"));
    assert_eq!(both.len(), 6, "three files a device, and nothing else");
    assert!(phone.iter().all(|(path, file)| both.get(path) == Some(file)), "the first is left as it is");

    assert_eq!(ship(SUPERNET, &devices).0, Some(0));
    assert!(files(&at.join("ship")) == both, "a second run changes nothing");

    for (devices, expected, part) in [
        (["watch.json@1s"], 1, "ship/watch holds"),
        (["watch.json@0.001us"], 1, "move it away"),
        (["watch.json"], 2, "TABLE.json@LIMIT"),
        (["watch.json@1"], 2, "--max-latency"),
    ] {
        let (code, said) = ship(SUPERNET, &devices);
        assert_eq!(code, Some(expected), "{said}");
        assert!(said.contains(part), "{said}");
    }
    assert!(files(&at.join("ship")) == both, "an error changes nothing");
}

#[test]
fn nothing_broken_is_shipped() {
    if !ships() {
        return;
    }
    let at = pipeline();
    let extract = binary("extract");
    std::fs::copy(at.join("table.json"), at.join("board.json")).expect("copied");
    let weights = std::fs::read(at.join(SUPERNET)).expect("weights");
    std::fs::write(at.join("torn.safetensors"), &weights[..weights.len() / 2]).expect("written");
    let (code, said) = ship(at, &extract, "torn.safetensors", "broken", &["board.json@1s"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(files(&at.join("broken")).is_empty());

    assert_eq!(ship(at, &extract, SUPERNET, "broken", &["board.json@1s"]).0, Some(0));
    for (file, part) in [("model.safetensors", "does not verify"), ("SHA256SUMS", "not what SHA256SUMS says")]
    {
        let path = at.join("broken/board").join(file);
        let good = std::fs::read(&path).expect("readable");
        let mut bytes = good.clone();
        bytes[good.len() - 2] ^= 1; // in the last weight, in the last name
        std::fs::write(&path, &bytes).expect("written");
        let (code, said) = ship(at, &extract, SUPERNET, "broken", &["board.json@1s"]);
        assert_eq!(code, Some(4), "{file}: {said}");
        assert!(said.contains(part), "{said}");
        std::fs::write(&path, &good).expect("written");
    }
    // codes that only a stand-in gives at will
    for (failing, code) in [("search", 130), ("export", 130), ("export", 4), ("verify", 4)] {
        let stand_in = at.join("stand-in");
        let real = extract.display();
        let script =
            format!("#!/bin/sh\nif [ \"$1\" = {failing} ]; then exit {code}; fi\nexec '{real}' \"$@\"\n");
        std::fs::write(&stand_in, script).expect("written");
        assert!(Command::new("chmod").arg("+x").arg(&stand_in).status().expect("chmod").success());
        let out = format!("{failing}-{code}");
        let (got, said) = ship(at, &stand_in, SUPERNET, &out, &["board.json@1s"]);
        assert_eq!(got, Some(code), "{said}");
        assert!(files(&at.join(out)).is_empty(), "nothing is left");
    }
}

/// A Python that can run predict.py: the one that the environment names, which then must, or `python3` if it can.
fn python() -> Option<String> {
    let python = python_with("predict.py", "numpy, safetensors");
    assert!(python.is_some() || std::env::var("ONCE_FOR_ALL_PYTHON").is_err(), "it cannot run predict.py");
    python
}

/// The Python that the environment names, or `python3`, if it has what a script imports.
pub(crate) fn python_with(script: &str, modules: &str) -> Option<String> {
    let name = std::env::var("ONCE_FOR_ALL_PYTHON").unwrap_or_else(|_| "python3".to_string());
    let reason = match Command::new(&name).args(["-c", &format!("import {modules}")]).output() {
        Ok(output) if output.status.success() => return Some(name),
        Ok(output) => text(&output.stderr),
        Err(error) => error.to_string(),
    };
    println!("skipped: {name} cannot run {script}: {reason}");
    None
}

/// A `.npy` file of random values, `[1, side, side]`.
pub(crate) fn write_npy(path: &Path, side: u64) {
    let mut rng = rng_for("predict.py", 0, &[side]);
    let header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': (1, {side}, {side}), }}\n");
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.extend((0..side * side).flat_map(|_| rng.random_range(-2.0f32..2.0).to_le_bytes()));
    std::fs::write(path, bytes).expect("written");
}

pub(crate) fn logits(list: &Value) -> Vec<f64> {
    list.as_array().expect("a list").iter().map(|logit| logit.as_f64().expect("a number")).collect()
}

#[test]
fn numpy_computes_the_same_logits() {
    let (Some(python), at) = (python(), pipeline()) else { return };
    // Strides on odd sizes, squeeze-and-excite with either activation, a first block without a residual.
    let tiny = text(&run("supernet", at, "space tiny --toml").stdout);
    let odd = tiny.replace("[8, 12]", "[9, 13]").replace("excite = false", "excite = true");
    let odd = odd.replacen("stride = 1", "stride = 2", 1).replacen("\"tiny\"", "\"odd\"", 1);
    let odd = odd.replace(
        "[first_block]\nchannels = 16\nactivation = \"relu\"",
        "[first_block]\nchannels = 24\nactivation = \"relu6\"",
    );
    std::fs::write(at.join("odd.toml"), odd).expect("written");
    json("supernet", at, "train --space odd.toml --data digits --scale 0.0001 --out odd");
    for (case, (run, arch)) in
        [("run", "largest"), ("run", "r8:k5e4/k3e3,k7e6"), ("odd", "r13:k3e6,k5e3/k7e4,k3e6")]
            .into_iter()
            .enumerate()
    {
        let export = format!("export --supernet {run}/supernet.safetensors --arch {arch} --data digits");
        let exported = json("extract", at, &format!("{export} --out numpy{case}"));
        let arch = exported["arch"].as_str().expect("canonical text");
        let side = arch[1..].split(':').next().and_then(|side| side.parse().ok()).expect("a resolution");
        write_npy(&at.join("random.npy"), side);
        let predicted = json("extract", at, &format!("predict numpy{case} random.npy --logits"));
        let expected = logits(&predicted["predictions"][0]["logits"]);
        let got = run_script(at, &python, "predict.py", &[&format!("numpy{case}"), "random.npy"]);
        assert_logits(arch, &got, &expected);
    }
}

/// What a script makes of a folder and an image.
pub(crate) fn run_script(at: &Path, python: &str, script: &str, arguments: &[&str; 2]) -> Vec<f64> {
    let command = &mut Command::new(python);
    command.current_dir(at).arg(example("python").join(script)).args(arguments);
    let output = command.output().expect("Python");
    assert!(output.status.success(), "{script}: {}", text(&output.stderr));
    logits(&serde_json::from_slice(&output.stdout).expect("JSON"))
}

pub(crate) fn assert_logits(what: &str, got: &[f64], expected: &[f64]) {
    let largest = expected.iter().fold(0.0f64, |largest, logit| largest.max(logit.abs()));
    assert_eq!(got.len(), expected.len());
    for (got, expected) in got.iter().zip(expected) {
        assert!((got - expected).abs() <= 1e-4 * largest, "{what}: {got} not {expected}");
    }
}

#[test]
fn other_runtimes_compute_the_same_logits() {
    let at = pipeline();
    let scripts = [
        ("run_pytorch.py", "numpy, safetensors, torch, ofa.imagenet_classification.networks"),
        ("run_onnx.py", "numpy, onnxruntime"),
    ];
    let runtimes = scripts.map(|(script, modules)| (script, python_with(script, modules)));
    if runtimes.iter().all(|(_, python)| python.is_none()) {
        return;
    }
    for arch in ["largest", "r8:k5e4/k3e3,k7e6"] {
        let export = format!("export --supernet run/supernet.safetensors --arch {arch} --data digits");
        let exported = json("extract", at, &format!("{export} --format ofa,onnx --out elsewhere"));
        let resolution = exported["arch"].as_str().and_then(|arch| arch[1..].split(':').next());
        write_npy(
            &at.join("random.npy"),
            resolution.and_then(|side| side.parse().ok()).expect("a resolution"),
        );
        let predicted = json("extract", at, "predict elsewhere random.npy --logits");
        let expected = logits(&predicted["predictions"][0]["logits"]);
        for (script, python) in &runtimes {
            let Some(python) = python else { continue };
            assert_logits(script, &run_script(at, python, script, &["elsewhere", "random.npy"]), &expected);
        }
    }
}

#[test]
fn a_program_of_ones_own_classifies() {
    // `cargo test --workspace` builds the examples, a test by its name does not
    let folder = binary("extract").with_file_name("examples");
    let program = folder.join(format!("deploy{}", std::env::consts::EXE_SUFFIX));
    if !program.is_file() {
        println!("skipped: {} is not built", program.display());
        return;
    }
    let at = pipeline();
    json(
        "extract",
        at,
        "export --supernet run/supernet.safetensors --arch smallest --data digits --out deployed",
    );
    let image = image::GrayImage::from_fn(8, 8, |x, y| image::Luma([(x * y * 4) as u8]));
    image.save(at.join("ones-own.png")).expect("written");
    let deploy = |arguments: &[&str]| -> Output {
        Command::new(&program).current_dir(at).args(arguments).output().expect("a binary that starts")
    };
    let output = deploy(&["deployed", "ones-own.png", "ones-own.png"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let predicted = json("extract", at, "predict deployed ones-own.png");
    let best = &predicted["predictions"][0]["top"][0];
    let class = best["class"].as_str();
    let share = best["probability"].as_f64();
    let class = class.expect("a name");
    let share = share.expect("a share");
    let line = format!("ones-own.png  {class}  {:.2} %\n", 100.0 * share);
    assert_eq!(text(&output.stdout), line.repeat(2));
    for (arguments, code, part) in [
        (&[][..], 2, "usage: deploy FOLDER IMAGE"),
        (&["deployed"], 2, "usage"),
        (&["nowhere", "ones-own.png"], 1, "nowhere"),
        (&["deployed", "table.json"], 1, "table.json"),
    ] {
        let output = deploy(arguments);
        assert_eq!(output.status.code(), Some(code), "{}", text(&output.stderr));
        assert!(text(&output.stderr).contains(part), "{}", text(&output.stderr));
    }
}
