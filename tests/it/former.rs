//! Files of former versions keep their meaning. `former/` was written by a build from before weights recorded their
//! preprocessing, on the reference kernels: a run of 12 of its 24 steps, its final supernet, a network exported from that,
//! and its logits. The images are in color, not square, and one lies on its side.

use std::path::{Path, PathBuf};

use network::checkpoint::{Provenance, Supernet};
use network::model_folder::ModelFolder;
use serde_json::Value;

use crate::testing::commands::{run_with_kernels, stderr};
use crate::testing::files::{read_json, scratch};
use crate::testing::formula::values;

/// A copy of the files to work in.
fn files() -> tempfile::TempDir {
    fn copy(from: &Path, to: &Path) {
        std::fs::create_dir_all(to).expect("a folder");
        for entry in from.read_dir().expect("a folder") {
            let path = entry.expect("an entry").path();
            let to = to.join(path.file_name().expect("a name"));
            if path.is_dir() {
                copy(&path, &to);
            } else {
                std::fs::copy(&path, &to).expect("a file");
            }
        }
    }
    let folder = scratch();
    copy(&PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/it/former"), folder.path());
    folder
}

/// Runs a command that must succeed on the reference kernels, and returns its document.
fn json(name: &str, folder: &Path, line: &str) -> Value {
    let output = run_with_kernels(name, folder, &format!("{line} --json"), "reference");
    let errors = stderr(&output);
    assert!(output.status.success(), "{name} {line}: {errors}");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{name} {line}: {error}"))
}

#[test]
fn a_former_run_goes_on_as_it_began() {
    let folder = files();
    let at = folder.path();
    // the same images in a folder of another name
    std::fs::rename(at.join("images"), at.join("elsewhere")).expect("moved");
    let train =
        "train --space space.toml --recipe recipe.toml --data folder:elsewhere --seed 3 --out run --resume";
    let trained = json("supernet", at, train);
    assert_eq!(trained["resumed_from_step"], 12);
    let [expected, got] = ["supernet.safetensors", "run/supernet.safetensors"]
        .map(|file| Supernet::read(&at.join(file)).expect(file));
    for (name, tensor) in expected.weights.tensors() {
        assert!(values(tensor) == values(got.weights.get(name).expect("the same names")), "{name}");
    }
    let without_tool = |mut supernet: Supernet| {
        if let Provenance::Trained(training) = &mut supernet.provenance {
            training.tool = String::new();
        }
        (supernet.interface, supernet.provenance)
    };
    assert_eq!(without_tool(got), without_tool(expected), "all but the version of the tool");
}

#[test]
fn a_former_model_sees_what_it_saw() {
    let folder = files();
    let at = folder.path();
    let expected = read_json(at.join("predicted.json"));
    let got = json("extract", at, "predict model turned.jpg images/val/cold/00.png --logits");
    for index in 0..2 {
        for class in 0..2 {
            let logit = |document: &Value| document["predictions"][index]["logits"][class].as_f64();
            let expected = logit(&expected).expect("a number");
            let got = logit(&got).expect("a number");
            assert!((expected - got).abs() < 1e-5, "{index}, {class}: {got} not {expected}");
        }
    }
    json("extract", at, "verify model --supernet supernet.safetensors --data folder:images");
    // gathered again, the statistics are the same: calibration sees what it saw
    json(
        "extract",
        at,
        "export --supernet supernet.safetensors --arch random:1 --data folder:images --out again",
    );
    let [before, after] =
        ["model", "again"].map(|name| ModelFolder::read(&at.join(name)).expect("an export").config);
    assert_eq!((&before.model_hash, &before.input), (&after.model_hash, &after.input));
    assert_eq!((&before.classes, before.origin.measured), (&after.classes, after.origin.measured));
    let evaluated =
        json("supernet", at, "eval --supernet supernet.safetensors --data folder:images --arch random:1");
    assert_eq!(evaluated["results"][0]["top1"], 1.0);
    // and so does a fine-tuning, whose folder keeps the form
    json("supernet", at, "finetune model --data folder:images --out tuned --epochs 1 --batch 8");
    let tuned = ModelFolder::read(&at.join("tuned")).expect("a model").config;
    assert_eq!(tuned.input, before.input);
}
