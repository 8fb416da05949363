//! Fine-tuning of an exported network on the command line: it helps, says what it is, and outlives kills.

use std::path::Path;

use serde_json::Value;

use crate::cli::{fails, json, pipeline, run};
use crate::failures::{When, interrupt};

/// Exports the smallest sub-network of the pipeline's supernet under this name.
fn export(name: &str) -> (&'static Path, Value) {
    let at = pipeline();
    let export = "export --supernet run/supernet.safetensors --data digits --arch smallest";
    (at, json("extract", at, &format!("{export} --out {name}")))
}

fn log(at: &Path, folder: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(at.join(folder).join("log.jsonl")).expect("a log");
    text.lines().map(|line| serde_json::from_str(line).expect("whole lines")).collect()
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("a number: {value}"))
}

#[test]
fn it_helps_and_the_folder_says_so() {
    let (at, exported) = export("tune-model");
    let teacher = "--teacher run/supernet.safetensors";
    let finetune = format!("finetune tune-model --data digits --epochs 6 --batch 32 --lr 0.01 {teacher}");
    let tuned = json("supernet", at, &format!("{finetune} --out tuned"));
    assert_eq!((&tuned["folder"], &tuned["resumed_from_step"]), (&"tuned".into(), &Value::Null));
    assert_eq!(tuned["before"]["top1"], exported["measured"]["top1"], "as the export counted it");
    let [before, after] = ["before", "after"].map(|when| number(&tuned[when]["top1"]));
    assert!(after >= before, "{tuned}");
    assert!(number(&tuned["after"]["interval"][0]) < after && after < number(&tuned["after"]["interval"][1]));
    let losses: Vec<f64> = log(at, "tuned")
        .iter()
        .filter(|line| line["event"] == "step")
        .map(|line| number(&line["loss"]))
        .collect();
    assert_eq!(losses.len(), 6 * (1071 / 32));
    let mean = |losses: &[f64]| losses.iter().sum::<f64>() / losses.len() as f64;
    assert!(mean(&losses[losses.len() - 33..]) < mean(&losses[..33]), "{losses:?}");

    let inspected = json("extract", at, "inspect tuned");
    let history = &inspected["facts"]["origin"]["fine_tuned"];
    assert_eq!(history[0]["steps"], losses.len());
    assert_eq!(history[0]["from"]["measured"], exported["measured"]);
    assert_eq!(inspected["facts"]["origin"]["measured"]["top1"], after);
    let message = fails("extract", at, "verify tuned --supernet run/supernet.safetensors", 4);
    assert!(
        message.contains("fine-tuned since") && message.contains("the supernet's no longer"),
        "{message}"
    );
    json("extract", at, "verify tune-model --supernet run/supernet.safetensors");
    image::GrayImage::new(8, 8).save(at.join("tuned.png")).expect("written");
    json("extract", at, "predict tuned tuned.png");
    let eval = "eval --supernet run/supernet.safetensors --data digits --arch tuned/config.json";
    assert_eq!(json("supernet", at, eval)["results"][0]["arch"], exported["arch"]);
    let message = fails(
        "extract",
        at,
        "export --supernet run/supernet.safetensors --data digits --arch smallest --out tuned",
        1,
    );
    assert!(message.contains("which is no part of an export"), "{message}");

    let again = json("supernet", at, &format!("{finetune} --out tuned --resume"));
    assert_eq!((&again["before"], &again["after"]), (&tuned["before"], &tuned["after"]));
    assert_eq!(again["resumed_from_step"], losses.len());
    let plain = run("supernet", at, &format!("{finetune} --out tuned --resume --quiet"));
    let out = String::from_utf8_lossy(&plain.stdout);
    let err = String::from_utf8_lossy(&plain.stderr);
    assert!(out.starts_with("before   val top-1 ") && out.ends_with("folder   tuned\n"), "{out}");
    assert!(err.is_empty(), "{err}");
}

#[test]
#[cfg(unix)]
fn a_killed_fine_tuning_ends_with_the_same_bytes() {
    let (at, _) = export("kill-model");
    let finetune = "finetune kill-model --data digits --epochs 40 --batch 32 --seed 3 --quiet";
    json("supernet", at, &format!("{finetune} --out kill-whole"));
    let killed = format!("{finetune} --out kill-tuned --resume --checkpoint-seconds 0 --threads 1");
    let saved = When::Changed("kill-tuned/checkpoint.safetensors");
    assert_eq!(interrupt(at, "supernet", &killed, "-KILL", saved), None, "killed by the signal");
    for signal in ["-INT", "-TERM"] {
        let grown = When::Changed("kill-tuned/log.jsonl");
        assert_eq!(interrupt(at, "supernet", &killed, signal, grown), Some(130), "saved and said so");
    }
    let message = fails("supernet", at, &format!("{finetune} --out kill-tuned"), 1);
    assert!(message.contains("add --resume to continue it"), "{message}");
    let other = killed.replace("--seed 3", "--seed 4");
    let message = fails("supernet", at, &other, 1);
    assert!(message.contains("plan.seed: expected 3, got 4; resume with the flags"), "{message}");
    let tuned = json("supernet", at, &format!("{finetune} --out kill-tuned --resume"));
    assert!(number(&tuned["resumed_from_step"]) > 0.0);
    let bytes = |folder: &str| std::fs::read(at.join(folder).join("model.safetensors")).expect("weights");
    assert!(bytes("kill-tuned") == bytes("kill-whole"), "resumed at other threads, equal bytes");
    let config = |folder: &str| {
        let text = std::fs::read_to_string(at.join(folder).join("config.json")).expect("a file");
        let mut config: Value = serde_json::from_str(&text).expect("JSON");
        config["run"] = Value::Null;
        config
    };
    assert_eq!(config("kill-tuned"), config("kill-whole"));
    let steps = log(at, "kill-tuned").into_iter().filter(|line| line["event"] == "step");
    let steps: Vec<u64> = steps.filter_map(|line| line["step"].as_u64()).collect();
    assert_eq!(steps, (0..40 * (1071 / 32)).collect::<Vec<u64>>(), "each step once, in order");
}
