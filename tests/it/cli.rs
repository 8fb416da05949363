//! The two command lines as scripts use them: files, JSON keys, exit codes.

use std::path::Path;

use serde_json::Value;

use crate::testing::commands::{
    TRAIN, assert_fails, command, fails, json, pipeline, run, run_with_kernels, stderr, stdout,
};
use crate::testing::files::{log_of, read_bytes, read_text, weights_of, write_file};
use crate::testing::signals::{signal_and_wait, start, wait_until};

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
    let bytes = |folder: &str| read_bytes(at.join(folder).join("model.safetensors"));
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
    let out = stdout(&plain);
    let err = stderr(&plain);
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
    let good = read_bytes(&path);
    for place in [good.len() - 1, good.len() / 2] {
        let mut bytes = good.clone();
        bytes[place] ^= 1;
        write_file(&path, &bytes);
        assert_fails("extract", at, "verify spoiled --supernet run/supernet.safetensors", 4, "spoiled");
        assert_fails("extract", at, "predict spoiled nothing.png", 1, "changed after the export");
    }
    write_file(&path, &good[..good.len() - 5]);
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
    let bytes = |folder: &str| read_bytes(at.join(folder).join("model.safetensors"));
    assert!(bytes("forms") == bytes("again"), "net.config names the same sub-network");
    let named = json("supernet", at, "space tiny --arch forms/net.config");
    assert_eq!(named["archs"][0]["arch"], exported["arch"]);
    for file in ["model.onnx", "net.config", "run.config"] {
        let path = at.join("forms").join(file);
        let good = read_bytes(&path);
        let mut bytes = good.clone();
        bytes[good.len() / 2] ^= 1;
        write_file(&path, &bytes);
        assert_fails("extract", at, verify, 4, &format!("blake3 of {file}"));
        std::fs::remove_file(&path).expect("removed");
        assert_fails("extract", at, verify, 1, file);
        write_file(&path, &good);
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
        assert_fails(name, at, line, code, part);
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
        assert_fails("extract", at, &format!("{search} {limit}"), 2, part);
    }
}

#[test]
fn fit_and_search_compute_with_the_kernels_of_the_environment() {
    let at = pipeline();
    let fit = "fit --accuracy accuracy.jsonl --out kernels.safetensors";
    let search = "search --space tiny --estimator estimator.safetensors --out kernels.json";
    for line in [fit, search] {
        assert!(run_with_kernels("extract", at, line, "reference").status.success(), "{line}");
        let refused = run_with_kernels("extract", at, line, "sse9");
        assert_eq!(refused.status.code(), Some(1), "{line}");
        let message = stderr(&refused);
        assert!(message.contains("portable") && message.contains("sse9"), "{message}");
    }
}

#[test]
fn kernels_of_every_kind_agree_on_the_command_line() {
    let at = pipeline();
    let line = "eval --supernet run/supernet.safetensors --data digits --arch largest --json";
    let accuracy = |kernels: &str| {
        let output = run_with_kernels("supernet", at, line, kernels);
        let message = stderr(&output);
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
    let output = run_with_kernels("supernet", at, bench, "portable");
    let document: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(document["kernels"], "portable", "the environment chooses the kernels");
    let message = accuracy("sse9").expect_err("no such kernels");
    assert!(message.contains("ONCE_FOR_ALL_KERNELS") && message.contains("portable"), "{message}");
}

/// Sends a signal to a run once it has written a checkpoint within a phase; the exit code.
#[cfg(unix)]
fn train_and_kill(at: &Path, signal: &str) -> Option<i32> {
    let line = format!("{TRAIN} --out killed --resume --checkpoint-seconds 0 --quiet --threads 1");
    let mut child = start(command("supernet", at, &line));
    let log = at.join("killed/log.jsonl");
    let before = at.join("killed/checkpoint.safetensors");
    let lines = || std::fs::read_to_string(&log).map_or(0, |text| text.lines().count());
    let first = lines();
    wait_until(&mut child, || before.exists() && lines() >= first + 3);
    signal_and_wait(child, signal)
}

#[test]
#[cfg(unix)]
fn a_killed_run_ends_with_the_same_bytes() {
    let at = pipeline();
    assert_eq!(train_and_kill(at, "-KILL"), None, "killed by the signal");
    assert_eq!(train_and_kill(at, "-INT"), Some(130), "saved and said so");
    let trained = json("supernet", at, &format!("{TRAIN} --out killed --resume"));
    assert!(trained["resumed_from_step"].as_u64().expect("a step") > 0);
    let killed = at.join("killed");
    assert!(weights_of(&killed) == weights_of(&at.join("run")), "resumed at other threads, equal bytes");
    let log = log_of(&killed);
    let steps = log.iter().filter(|line| line["event"] == "step");
    let steps: Vec<u64> = steps.filter_map(|line| line["step"].as_u64()).collect();
    assert!(steps.windows(2).all(|pair| pair[0] + 1 == pair[1]), "each step once, in order");
}

/// JSON pointers to these keys of the document.
fn pointers(keys: &[&str]) -> Vec<String> {
    pointers_in("", keys)
}

/// JSON pointers to these keys of a part of the document.
fn pointers_in(part: &str, keys: &[&str]) -> Vec<String> {
    keys.iter().map(|key| format!("{part}/{key}")).collect()
}

/// Runs a command with `--json`, and checks that its document has these keys.
fn assert_keys(name: &str, line: &str, keys: &[Vec<String>]) {
    let document = json(name, pipeline(), line);
    for key in keys.iter().flatten() {
        assert!(document.pointer(key).is_some(), "{name} {line}: {key} in {document}");
    }
}

const STEP_KEYS: [&str; 5] =
    ["step_ms/median", "step_ms/p10", "step_ms/p90", "images_per_second", "peak_rss_mb"];

#[test]
fn documents_have_the_keys_that_scripts_rely_on() {
    assert_keys_of_supernet();
    assert_keys_of_extract();
    let finetune = "finetune keys-model --data digits --out keys-tuned --epochs 1";
    let of_run = pointers(&["resumed_from_step", "folder", "finished"]);
    let counted = ["/before", "/after"].map(|when| pointers_in(when, &["split", "n", "top1", "interval/1"]));
    assert_keys("supernet", finetune, &[pointers(&STEP_KEYS), of_run, counted.concat()]);
    let plot =
        "plot --accuracy accuracy.jsonl --latency-table table.json --found keys-found.json --out keys.svg";
    assert_keys("extract", plot, &[pointers(&["out", "points", "candidates"])]);
    let picture = read_text(pipeline().join("keys.svg"));
    assert!(
        picture.starts_with("<svg") && picture.matches("<circle").count() > 80,
        "two panels of 40 points"
    );
}

fn assert_keys_of_supernet() {
    let cost = ["arch", "macs", "params", "peak_activation_bytes"];
    let ends = ["/largest/8", "/smallest/8"].map(|end| pointers_in(end, &cost));
    assert_keys("supernet", "space tiny", &[pointers(&["name", "subnetworks"]), ends.concat()]);
    assert_keys("supernet", "space tiny --arch largest", &[pointers_in("/archs/0", &cost)]);
    let steps = pointers(&STEP_KEYS);
    for images in ["--space tiny", "--data digits"] {
        let bench = format!("bench {images} --resolution 8 --batch 2 --steps 2");
        assert_keys("supernet", &bench, std::slice::from_ref(&steps));
    }
    let of_run = pointers(&["resumed_from_step", "supernet", "finished"]);
    assert_keys("supernet", &format!("{TRAIN} --out keys"), &[steps, of_run]);
    let eval = "eval --supernet run/supernet.safetensors --data digits --arch smallest";
    let counted = pointers_in("/results/0", &["arch", "split", "n", "top1", "interval/1"]);
    assert_keys("supernet", eval, &[counted]);
}

fn assert_keys_of_extract() {
    let fit = "fit --accuracy accuracy.jsonl --out keys.safetensors";
    assert_keys("extract", fit, &[pointers(&["rmse", "spearman", "kendall", "n"])]);
    let measure = "measure --space tiny --out keys.json --half-width 50 --budget 16 --networks 0";
    assert_keys("extract", measure, &[pointers(&["entries", "unconverged", "finished"])]);
    let covered = pointers(&["entries", "unconverged", "coverage/missing", "validation"]);
    assert_keys("extract", "table table.json --space tiny", &[covered]);
    let best = ["arch", "accuracy", "latency_ms", "latency_upper_ms", "macs", "params"];
    let whole = ["candidates", "seconds", "front/0/arch", "nearest_feasible"];
    let search = format!("{SEARCH} --front --out keys-found.json");
    assert_keys("extract", &search, &[pointers_in("/best", &best), pointers(&whole)]);
    let trained = "--supernet run/supernet.safetensors --data digits";
    let verified = pointers(&["max_abs_difference", "inputs", "folder"]);
    let export = format!("export {trained} --arch smallest --out keys-model");
    assert_keys("extract", &export, std::slice::from_ref(&verified));
    assert_keys("extract", "verify keys-model --supernet run/supernet.safetensors", &[verified]);
}
