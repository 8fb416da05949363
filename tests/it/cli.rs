//! The two command lines, as scripts use them: files, keys, exit codes.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

use serde_json::Value;

/// The folder of this build's binaries; those of the other packages are built beside the tests.
pub(crate) fn binary(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a running test has a path");
    let folder = test.ancestors().nth(2).expect("target/<profile>/deps/<test>");
    let path = folder.join(format!("{name}{}", std::env::consts::EXE_SUFFIX));
    assert!(path.is_file(), "{} is built by `cargo test --workspace`", path.display());
    path
}

pub(crate) fn run(name: &str, folder: &Path, line: &str) -> Output {
    let command = &mut Command::new(binary(name));
    command
        .current_dir(folder)
        .stdin(Stdio::null())
        .args(line.split_whitespace())
        .output()
        .expect("a binary that starts")
}

/// Runs a command that must succeed, with `--json`, and returns its document.
pub(crate) fn json(name: &str, folder: &Path, line: &str) -> Value {
    let output = run(name, folder, &format!("{line} --json"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name} {line}: {errors}");
    let document: Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{name} {line}: {error}"));
    let lines = output.stdout.iter().filter(|byte| **byte == b'\n').count();
    assert_eq!((lines, document["version"].is_u64()), (1, true), "{name} {line}: one line, with a version");
    document
}

/// Runs a command that must fail with this code, and returns its message.
pub(crate) fn fails(name: &str, folder: &Path, line: &str, code: i32) -> String {
    let output = run(name, folder, line);
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{name} {line}: {message}");
    assert!(!message.contains("panicked"), "{message}");
    message
}

const TRAIN: &str = "train --space tiny --data digits --seed 3 --scale 0.02";

/// A trained supernet and all that follows from it, made once for all tests here.
pub(crate) fn pipeline() -> &'static Path {
    static FOLDER: OnceLock<tempfile::TempDir> = OnceLock::new();
    FOLDER
        .get_or_init(|| {
            let folder = tempfile::tempdir().expect("a folder");
            let at = folder.path();
            let trained = json("supernet", at, &format!("{TRAIN} --out run --profile"));
            assert_eq!(trained["supernet"], "run/supernet.safetensors");
            let profile = trained["profile"].as_array().expect("rows");
            let layers = |layer: &str| profile.iter().filter(|row| row["layer"] == layer).count();
            assert!(layers("pointwise") > 0 && layers("depthwise") > 0 && layers("optimizer") == 1, "{profile:?}");
            assert!(trained["step_ms"]["median"].as_f64().expect("a number") > 0.0);
            let sample = "sample --supernet run/supernet.safetensors --data digits --count 40 --calibration-images 200";
            json("supernet", at, &format!("{sample} --out accuracy.jsonl"));
            json("extract", at, "measure --space tiny --out table.json --threads 1 --half-width 20 --budget 20 --networks 0");
            let fit = json("extract", at, "fit --accuracy accuracy.jsonl --out estimator.safetensors");
            assert_eq!(fit["n"], 40);
            folder
        })
        .path()
}

const SEARCH: &str = "search --space tiny --estimator estimator.safetensors --latency-table table.json";

#[test]
fn the_main_job() {
    let at = pipeline();
    let found = json("extract", at, &format!("{SEARCH} --max-macs 600K --max-latency 1s --out found.json"));
    assert!(found["best"]["macs"].as_u64().expect("a number") <= 600_000);
    let again = json(
        "extract",
        at,
        &format!("{SEARCH} --max-macs 600K --max-latency 1s --out again.json --threads 1"),
    );
    assert_eq!(found["best"], again["best"], "same seed, same result, at any number of threads");

    let export = "export --supernet run/supernet.safetensors --arch found.json --data digits";
    let exported = json("extract", at, &format!("{export} --out model"));
    assert_eq!(exported["max_abs_difference"], 0.0);
    json("extract", at, &format!("{export} --out model2 --threads 1"));
    let bytes = |folder: &str| std::fs::read(at.join(folder).join("model.safetensors")).expect("weights");
    assert!(bytes("model") == bytes("model2"), "equal exports have equal bytes");
    let verified = json("extract", at, "verify model --supernet run/supernet.safetensors --data digits");
    assert!(verified["inputs"].as_u64().expect("a number") > 6);

    let evaluated = json(
        "supernet",
        at,
        "eval --supernet run/supernet.safetensors --data digits --arch found.json model/config.json",
    );
    let results = evaluated["results"].as_array().expect("a list");
    assert_eq!(results[0], results[1], "found.json and config.json name the same sub-network");
    assert_eq!(results[0]["top1"], exported["measured"]["top1"]);

    let plain =
        run("supernet", at, "eval --supernet run/supernet.safetensors --data digits --arch found.json");
    let out = String::from_utf8_lossy(&plain.stdout);
    let err = String::from_utf8_lossy(&plain.stderr);
    assert!(out.starts_with("val top-1 "), "results on stdout: {out}");
    assert_eq!(err, "data digits: 1071 train, 362 val, 364 test images of 10 classes\n");

    let image = image::GrayImage::from_fn(8, 8, |x, y| image::Luma([(x * y * 4) as u8]));
    image.save(at.join("digit.png")).expect("written");
    let predicted = json("extract", at, "predict model digit.png --top 3 --logits");
    let prediction = &predicted["predictions"][0];
    assert_eq!(prediction["top"].as_array().map(Vec::len), Some(3));
    assert_eq!(prediction["logits"].as_array().map(Vec::len), Some(10));
    let inspected = json("extract", at, "inspect model");
    assert_eq!(inspected["facts"]["arch"], found["best"]["arch"]);
    let covered = json("extract", at, "table table.json --space tiny");
    assert_eq!(covered["coverage"]["missing"], serde_json::json!([]));
    let validated = json("extract", at, "table table.json --space tiny --validate 2 --threads 1");
    assert_eq!(validated["validation"]["n"], 2);
}

#[test]
fn a_corrupted_weight_fails_verification() {
    let at = pipeline();
    let export = "export --supernet run/supernet.safetensors --data digits --calibration-images 200";
    json("extract", at, &format!("{export} --arch smallest --out spoiled"));
    let path = at.join("spoiled/model.safetensors");
    let good = std::fs::read(&path).expect("weights");
    for place in [good.len() - 1, good.len() / 2] {
        let mut bytes = good.clone();
        bytes[place] ^= 1;
        std::fs::write(&path, &bytes).expect("written");
        let message = fails("extract", at, "verify spoiled --supernet run/supernet.safetensors", 4);
        assert!(message.contains("spoiled"), "{message}");
        let message = fails("extract", at, "predict spoiled nothing.png", 1);
        assert!(message.contains("changed after the export"), "{message}");
    }
    std::fs::write(&path, &good[..good.len() - 5]).expect("written");
    fails("extract", at, "verify spoiled --supernet run/supernet.safetensors", 1);
}

#[test]
fn forms_for_other_programs_are_part_of_the_export() {
    let at = pipeline();
    let export = "export --supernet run/supernet.safetensors --data digits --calibration-images 200";
    let exported =
        json("extract", at, &format!("{export} --arch largest --format safetensors,ofa,onnx --out forms"));
    assert_eq!(exported["files"], serde_json::json!(["model.onnx", "net.config", "run.config"]));
    let verify = "verify forms --supernet run/supernet.safetensors";
    json("extract", at, verify);
    json("extract", at, &format!("{export} --arch forms/net.config --out again"));
    let bytes = |folder: &str| std::fs::read(at.join(folder).join("model.safetensors")).expect("weights");
    assert!(bytes("forms") == bytes("again"), "net.config names the same sub-network");
    let named = json("supernet", at, "space tiny --arch forms/net.config");
    assert_eq!(named["archs"][0]["arch"], exported["arch"]);
    for file in ["model.onnx", "net.config", "run.config"] {
        let path = at.join("forms").join(file);
        let good = std::fs::read(&path).expect("a file");
        let mut bytes = good.clone();
        bytes[good.len() / 2] ^= 1;
        std::fs::write(&path, &bytes).expect("written");
        let message = fails("extract", at, verify, 4);
        assert!(message.contains(&format!("blake3 of {file}")), "{message}");
        std::fs::remove_file(&path).expect("removed");
        let message = fails("extract", at, verify, 1);
        assert!(message.contains(file), "{message}");
        std::fs::write(&path, &good).expect("written");
    }
    // an export without them takes the place of one with them
    json("extract", at, &format!("{export} --arch largest --out forms"));
    let names = std::fs::read_dir(at.join("forms")).expect("a folder");
    assert_eq!(names.count(), 2, "config.json and model.safetensors");
}

#[test]
fn an_infeasible_limit_exits_3_with_the_nearest_value() {
    let at = pipeline();
    let output = run("extract", at, &format!("{SEARCH} --max-macs 1K --out none.json --json"));
    assert_eq!(output.status.code(), Some(3));
    let document: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let nearest = document["nearest_feasible"]["value"].as_f64().expect("a number");
    let space = json("supernet", at, "space tiny");
    assert_eq!(nearest, space["smallest"]["8"]["macs"].as_f64().expect("a number"));
    assert!(!at.join("none.json").exists());
}

#[test]
fn messages_say_what_to_do() {
    let at = pipeline();
    for (name, line, code, part) in [
        ("supernet", "space nothing", 1, "a preset (tiny, tiny-resnet, "),
        ("supernet", "train --space tiny --data digits --out run", 1, "--resume"),
        ("supernet", "train --space fashion --data idx:/nowhere --out x", 1, "/nowhere"),
        (
            "supernet",
            "train --space ofa-mbv3-w1.0 --data digits --out x",
            1,
            "classes: expected 1000, got 10",
        ),
        ("supernet", "train --space tiny --data digits --out x --device cuda:0", 1, "cpu"),
        ("supernet", "train --space tiny", 2, "--data"),
        ("supernet", "eval --supernet table.json --data digits --arch largest", 1, "table.json"),
        (
            "supernet",
            "eval --supernet run/checkpoint.safetensors --data digits --arch largest",
            1,
            "--resume",
        ),
        (
            "supernet",
            "eval --supernet run/supernet.safetensors --data digits --arch r9:k3e3/k3e3",
            1,
            "one of 8, 12",
        ),
        ("extract", "verify nowhere --supernet run/supernet.safetensors", 1, "nowhere"),
        ("extract", "fit --accuracy table.json --out x", 1, "table.json"),
        (
            "extract",
            "export --supernet run/supernet.safetensors --arch smallest --data digits --out run",
            1,
            "run",
        ),
        (
            "extract",
            "search --space fashion --estimator estimator.safetensors --latency-table table.json --out x",
            1,
            "measure",
        ),
        ("extract", "nonsense", 2, "nonsense"),
    ] {
        let message = fails(name, at, line, code);
        assert!(message.contains(part), "{name} {line}: {message}");
    }
}

#[test]
fn a_search_needs_a_table_only_for_latencies() {
    let at = pipeline();
    let search = "search --space tiny --estimator estimator.safetensors --out untimed.json";
    let found =
        json("extract", at, &format!("{search} --max-macs 600_000 --max-params 5e6 --max-memory 4000000"));
    let best = found["best"].as_object().expect("an object");
    assert!(!best.contains_key("latency_ms") && best["macs"].as_u64() <= Some(600_000), "{found}");
    assert_eq!(found["interrupted"], false);
    let file = extract::search::Found::read(&at.join("untimed.json")).expect("own file");
    assert!(file.latency_table.is_none() && file.best.latency_ms().is_none() && !file.interrupted);
    json("extract", at, "plot --accuracy accuracy.jsonl --found untimed.json --out untimed.svg");
    let export = "export --supernet run/supernet.safetensors --arch untimed.json --data digits --out untimed";
    json("extract", at, export);
    for (limit, part) in [
        ("--max-latency 1ms", "--latency-table <TABLE.json>"),
        ("--front", "--latency-table <TABLE.json>"),
        ("--latency-table table.json --max-latency -1ms", "expected an amount above 0"),
    ] {
        let message = fails("extract", at, &format!("{search} {limit}"), 2);
        assert!(message.contains(part), "{limit}: {message}");
    }
}

#[test]
fn fit_and_search_compute_with_the_kernels_of_the_environment() {
    let at = pipeline();
    let fit = "fit --accuracy accuracy.jsonl --out kernels.safetensors";
    let search = "search --space tiny --estimator estimator.safetensors --out kernels.json";
    for line in [fit, search] {
        let run = |kernels: &str| {
            let command = &mut Command::new(binary("extract"));
            command.current_dir(at).env("ONCE_FOR_ALL_KERNELS", kernels).args(line.split_whitespace());
            command.output().expect("a binary that starts")
        };
        assert!(run("reference").status.success(), "{line}");
        let refused = run("sse9");
        assert_eq!(refused.status.code(), Some(1), "{line}");
        let message = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(message.contains("portable") && message.contains("sse9"), "{message}");
    }
}

#[test]
fn kernels_of_every_kind_agree_on_the_command_line() {
    let at = pipeline();
    let line = "eval --supernet run/supernet.safetensors --data digits --arch largest --json";
    let accuracy = |kernels: &str| {
        let command = &mut Command::new(binary("supernet"));
        command.current_dir(at).env("ONCE_FOR_ALL_KERNELS", kernels).args(line.split_whitespace());
        let output = command.output().expect("a binary that starts");
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        if !output.status.success() {
            return Err(message);
        }
        let document: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        Ok(document["results"][0]["top1"].as_f64().expect("a share"))
    };
    let expected = accuracy("portable").expect("every CPU has these");
    for kernels in ["avx512", "avx2", "reference"] {
        match accuracy(kernels) {
            // An image on the border between two classes may fall on either side: 1 of some hundred.
            Ok(top1) => assert!((top1 - expected).abs() < 0.01, "{kernels}: {top1} not {expected}"),
            Err(message) => assert!(message.contains("one that this CPU has"), "{message}"),
        }
    }
    let bench = "bench --space tiny --arch smallest largest --resolution 8 --batch 2 --steps 2 --json";
    let command = &mut Command::new(binary("supernet"));
    command.env("ONCE_FOR_ALL_KERNELS", "portable").args(bench.split_whitespace());
    let output = command.output().expect("a binary that starts");
    let document: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(document["kernels"], "portable", "the variable is heeded");
    let message = accuracy("sse9").expect_err("no such kernels");
    assert!(message.contains("ONCE_FOR_ALL_KERNELS") && message.contains("portable"), "{message}");
}

/// Waits until the run has written a checkpoint within a phase, then kills it.
fn train_and_kill(at: &Path, signal: &str) -> Option<i32> {
    let line = format!("{TRAIN} --out killed --resume --checkpoint-seconds 0 --quiet --threads 1");
    let mut child = Command::new(binary("supernet"))
        .current_dir(at)
        .args(line.split_whitespace())
        .stdout(Stdio::null())
        .spawn()
        .expect("a binary that starts");
    let log = at.join("killed/log.jsonl");
    let before = at.join("killed/checkpoint.safetensors");
    let lines = || std::fs::read_to_string(&log).map_or(0, |text| text.lines().count());
    let start = lines();
    while child.try_wait().expect("a child").is_none() && (!before.exists() || lines() < start + 3) {
        std::thread::yield_now();
    }
    Command::new("kill").args([signal, &child.id().to_string()]).status().expect("kill");
    child.wait().expect("a child").code()
}

#[test]
#[cfg(unix)]
fn a_killed_run_ends_with_the_same_bytes() {
    let at = pipeline();
    assert_eq!(train_and_kill(at, "-KILL"), None, "killed by the signal");
    assert_eq!(train_and_kill(at, "-INT"), Some(130), "saved and said so");
    let trained = json("supernet", at, &format!("{TRAIN} --out killed --resume"));
    assert!(trained["resumed_from_step"].as_u64().expect("a step") > 0);
    let bytes = |run: &str| std::fs::read(at.join(run).join("supernet.safetensors")).expect("weights");
    assert!(bytes("killed") == bytes("run"), "resumed at other threads, equal bytes");
    let log = std::fs::read_to_string(at.join("killed/log.jsonl")).expect("a log");
    let steps = log.lines().map(|line| serde_json::from_str::<Value>(line).expect("whole lines"));
    let steps: Vec<u64> =
        steps.filter(|line| line["event"] == "step").filter_map(|line| line["step"].as_u64()).collect();
    assert!(steps.windows(2).all(|pair| pair[0] + 1 == pair[1]), "each step once, in order");
}

#[test]
fn documents_have_the_keys_that_scripts_rely_on() {
    let at = pipeline();
    let trained = "--supernet run/supernet.safetensors --data digits";
    let cost = ["arch", "macs", "params", "peak_activation_bytes"];
    let costs = |end: &str| cost.map(|key| format!("/{end}/8/{key}"));
    let flat = |keys: &[&str]| keys.iter().map(|key| format!("/{key}")).collect::<Vec<_>>();
    let steps = flat(&["step_ms/median", "step_ms/p10", "step_ms/p90", "images_per_second", "peak_rss_mb"]);
    let space =
        [flat(&["name", "subnetworks"]), costs("largest").to_vec(), costs("smallest").to_vec()].concat();
    let counted =
        |when: &str| ["split", "n", "top1", "interval/1"].map(|key| format!("/{when}/{key}")).to_vec();
    let verified = flat(&["max_abs_difference", "inputs", "folder"]);
    let best = ["arch", "accuracy", "latency_ms", "latency_upper_ms", "macs", "params"];
    let found = best.map(|key| format!("/best/{key}")).to_vec();
    let found = [found, flat(&["candidates", "seconds", "front/0/arch", "nearest_feasible"])].concat();
    for (name, line, keys) in [
        ("supernet", "space tiny".to_string(), space),
        ("supernet", "space tiny --arch largest".to_string(), cost.map(|key| format!("/archs/0/{key}")).to_vec()),
        ("supernet", "bench --space tiny --resolution 8 --batch 2 --steps 2".to_string(), steps.clone()),
        ("supernet", "bench --data digits --resolution 8 --batch 2 --steps 2".to_string(), steps.clone()),
        (
            "supernet",
            format!("{TRAIN} --out keys"),
            [steps.clone(), flat(&["resumed_from_step", "supernet", "finished"])].concat(),
        ),
        (
            "supernet",
            format!("eval {trained} --arch smallest"),
            ["arch", "split", "n", "top1", "interval/1"].map(|key| format!("/results/0/{key}")).to_vec(),
        ),
        (
            "extract",
            "fit --accuracy accuracy.jsonl --out keys.safetensors".to_string(),
            flat(&["rmse", "spearman", "kendall", "n"]),
        ),
        (
            "extract",
            "measure --space tiny --out keys.json --half-width 50 --budget 16 --networks 0".to_string(),
            flat(&["entries", "unconverged", "finished"]),
        ),
        (
            "extract",
            "table table.json --space tiny".to_string(),
            flat(&["entries", "unconverged", "coverage/missing", "validation"]),
        ),
        ("extract", format!("{SEARCH} --front --out keys-found.json"), found),
        ("extract", format!("export {trained} --arch smallest --out keys-model"), verified.clone()),
        ("extract", "verify keys-model --supernet run/supernet.safetensors".to_string(), verified),
        (
            "supernet",
            "finetune keys-model --data digits --out keys-tuned --epochs 1".to_string(),
            [steps, flat(&["resumed_from_step", "folder", "finished"]), counted("before"), counted("after")].concat(),
        ),
        (
            "extract",
            "plot --accuracy accuracy.jsonl --latency-table table.json --found keys-found.json --out keys.svg"
                .to_string(),
            flat(&["out", "points", "candidates"]),
        ),
    ] {
        let document = json(name, at, &line);
        for key in keys {
            assert!(document.pointer(&key).is_some(), "{name} {line}: {key} in {document}");
        }
    }
    let picture = std::fs::read_to_string(at.join("keys.svg")).expect("a picture");
    assert!(
        picture.starts_with("<svg") && picture.matches("<circle").count() > 80,
        "two panels of 40 points"
    );
}
