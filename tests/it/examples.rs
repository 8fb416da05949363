//! The examples, run as users run them, on a small supernet.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::SystemTime;

use crate::testing::commands::{binary, json, pipeline, run, stderr, stdout};
use crate::testing::files::{read_bytes, write_file};
use crate::testing::python::{assert_logits, example, logits, python_with, run_script, side_of, write_npy};

/// Runs pipeline.sh on a supernet; its exit code, and standard output with standard error.
fn ship(at: &Path, extract: &Path, supernet: &str, out: &str, devices: &[&str]) -> (Option<i32>, String) {
    let command = &mut Command::new("bash");
    command.current_dir(at).env("EXTRACT", extract).arg(example("pipeline.sh"));
    let output =
        command.args([supernet, "digits", "estimator.safetensors", "tiny", out]).args(devices).output();
    let output = output.expect("bash");
    (output.status.code(), stdout(&output) + &stderr(&output))
}

/// The files under a folder, with their bytes and times of modification.
fn files(folder: &Path) -> BTreeMap<PathBuf, (Vec<u8>, SystemTime)> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            let written = path.metadata().and_then(|facts| facts.modified()).expect("facts");
            let bytes = read_bytes(&path);
            found.insert(path, (bytes, written));
        }
    }
    found
}

/// Checks that a shipped folder verifies, and that its checksums hold.
fn assert_whole(at: &Path, folder: &str) {
    json("extract", at, &format!("verify {folder} --supernet run/supernet.safetensors"));
    let sums = Command::new("sha256sum").args(["-c", "SHA256SUMS"]).current_dir(at.join(folder)).output();
    let sums = sums.expect("sha256sum");
    assert!(sums.status.success() && stdout(&sums).lines().count() == 2, "{}", stdout(&sums));
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
    let nearest = format!("watch.json@{}", nearest.expect("a feasible limit"));

    let phone = files(&at.join("ship"));
    let devices = ["phone.json@1s", nearest.as_str()];
    let (code, said) = ship(SUPERNET, &devices);
    assert_eq!(code, Some(0), "{said}");
    assert_whole(at, "ship/watch");
    let both = files(&at.join("ship"));
    assert_eq!(both.len(), 6, "three files per device, and nothing else");
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
    let weights = read_bytes(at.join(SUPERNET));
    write_file(at.join("torn.safetensors"), &weights[..weights.len() / 2]);
    let (code, said) = ship(at, &extract, "torn.safetensors", "broken", &["board.json@1s"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(files(&at.join("broken")).is_empty());

    assert_eq!(ship(at, &extract, SUPERNET, "broken", &["board.json@1s"]).0, Some(0));
    for (file, part) in [("model.safetensors", "does not verify"), ("SHA256SUMS", "not what SHA256SUMS says")]
    {
        let path = at.join("broken/board").join(file);
        let good = read_bytes(&path);
        let mut bytes = good.clone();
        bytes[good.len() - 2] ^= 1; // in the last weight, in the last name
        write_file(&path, &bytes);
        let (code, said) = ship(at, &extract, SUPERNET, "broken", &["board.json@1s"]);
        assert_eq!(code, Some(4), "{file}: {said}");
        assert!(said.contains(part), "{said}");
        write_file(&path, &good);
    }
    // exit codes of `extract` that only a stand-in returns at will
    for (failing, code) in [("search", 130), ("export", 130), ("export", 4), ("verify", 4)] {
        let stand_in = at.join("stand-in");
        let real = extract.display();
        let script =
            format!("#!/bin/sh\nif [ \"$1\" = {failing} ]; then exit {code}; fi\nexec '{real}' \"$@\"\n");
        write_file(&stand_in, script);
        assert!(Command::new("chmod").arg("+x").arg(&stand_in).status().expect("chmod").success());
        let out = format!("{failing}-{code}");
        let (got, said) = ship(at, &stand_in, SUPERNET, &out, &["board.json@1s"]);
        assert_eq!(got, Some(code), "{said}");
        assert!(files(&at.join(out)).is_empty(), "nothing is left");
    }
}

/// A Python that can run predict.py. The one that the environment names must be able to.
fn python() -> Option<String> {
    let python = python_with("predict.py", "numpy, safetensors");
    assert!(python.is_some() || std::env::var("ONCE_FOR_ALL_PYTHON").is_err(), "it cannot run predict.py");
    python
}

#[test]
fn numpy_computes_the_same_logits() {
    let (Some(python), at) = (python(), pipeline()) else { return };
    // Strides on odd sizes, squeeze-and-excite with either activation, a first block without a residual.
    let tiny = stdout(&run("supernet", at, "space tiny --toml"));
    let odd = tiny.replace("[8, 12]", "[9, 13]").replace("excite = false", "excite = true");
    let odd = odd.replacen("stride = 1", "stride = 2", 1).replacen("\"tiny\"", "\"odd\"", 1);
    let odd = odd.replace(
        "[first_block]\nchannels = 16\nactivation = \"relu\"",
        "[first_block]\nchannels = 24\nactivation = \"relu6\"",
    );
    write_file(at.join("odd.toml"), odd);
    json("supernet", at, "train --space odd.toml --data digits --scale 0.0001 --out odd");
    for (case, run, arch) in
        [(0, "run", "largest"), (1, "run", "r8:k5e4/k3e3,k7e6"), (2, "odd", "r13:k3e6,k5e3/k7e4,k3e6")]
    {
        let export = format!("export --supernet {run}/supernet.safetensors --arch {arch} --data digits");
        let exported = json("extract", at, &format!("{export} --out numpy{case}"));
        let arch = exported["arch"].as_str().expect("canonical text");
        write_npy(&at.join("random.npy"), side_of(arch));
        let predicted = json("extract", at, &format!("predict numpy{case} random.npy --logits"));
        let expected = logits(&predicted["predictions"][0]["logits"]);
        let got = run_script(at, &python, "predict.py", &[&format!("numpy{case}"), "random.npy"]);
        assert_logits(arch, &got, &expected);
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
        let arch = exported["arch"].as_str().expect("canonical text");
        write_npy(&at.join("random.npy"), side_of(arch));
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
    assert!(output.status.success(), "{}", stderr(&output));
    let predicted = json("extract", at, "predict deployed ones-own.png");
    let best = &predicted["predictions"][0]["top"][0];
    let class = best["class"].as_str().expect("a name");
    let share = best["probability"].as_f64().expect("a share");
    let line = format!("ones-own.png  {class}  {:.2} %\n", 100.0 * share);
    assert_eq!(stdout(&output), line.repeat(2));
    for (arguments, code, part) in [
        (&[][..], 2, "usage: deploy FOLDER IMAGE"),
        (&["deployed"], 2, "usage"),
        (&["nowhere", "ones-own.png"], 1, "nowhere"),
        (&["deployed", "table.json"], 1, "table.json"),
    ] {
        let output = deploy(arguments);
        assert_eq!(output.status.code(), Some(code), "{}", stderr(&output));
        assert!(stderr(&output).contains(part), "{}", stderr(&output));
    }
}
