//! Expected accuracies on the command line: refusals, warnings, evaluation of the best, and records.

use std::path::Path;

use serde_json::Value;

use crate::testing::commands::{assert_fails, fails, json, pipeline, run, stdout, succeeds};
use crate::testing::files::{read_text, write_file};

const TRAINED: &str = "--supernet run/supernet.safetensors --data digits";

fn search(estimator: &str) -> String {
    format!("search --space tiny --estimator {estimator} --latency-table table.json")
}

/// Writes the shared rows of accuracies after a change.
fn changed_rows(at: &Path, name: &str, change: impl Fn(Vec<Value>) -> Vec<Value>) {
    let text = read_text(at.join("accuracy.jsonl"));
    let (header, rows) = text.split_once('\n').expect("a header");
    let rows = rows.lines().map(|line| serde_json::from_str(line).expect("a row")).collect();
    let rows: String = change(rows).iter().map(|row: &Value| format!("{row}\n")).collect();
    write_file(at.join(name), format!("{header}\n{rows}"));
}

fn share(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

#[test]
fn the_best_are_evaluated_and_the_export_says_so() {
    let at = pipeline();
    let line = format!("{} --front --out validated.json {TRAINED}", search("estimator.safetensors"));
    let found = json("extract", at, &line);
    let best = &found["best"];
    let evaluated = found["evaluated"].as_array().expect("a list");
    assert_eq!((evaluated.len(), &best["accuracy_from"]), (20, &Value::from("predictor+validation")));
    let [low, accuracy, high] = ["accuracy_low", "accuracy", "accuracy_high"].map(|key| share(&best[key]));
    assert!(low < accuracy && accuracy < high, "{best}");
    assert_eq!((&evaluated[0]["arch"], share(&evaluated[0]["accuracy"])), (&best["arch"], accuracy));
    assert_eq!(
        found["front"].as_array().and_then(|front| front.last()).expect("a front")["arch"],
        best["arch"]
    );
    // `eval` reads the file, and the export records the split
    let counted = json("supernet", at, &format!("eval {TRAINED} --arch validated.json"));
    assert_eq!(counted["results"][0]["arch"], best["arch"]);
    let exported = json("extract", at, &format!("export {TRAINED} --arch validated.json --out validated"));
    let selected = &exported["measured"]["selected_on"];
    assert_eq!((&selected["split"], &selected["n"]), (&Value::from("val"), &evaluated[0]["n"]));
    assert!(selected["how"].as_str().is_some_and(|how| how.starts_with("best of 20 ")), "{selected}");
    json("extract", at, "inspect validated");
    let plain = json("extract", at, &format!("{} --out unvalidated.json", search("estimator.safetensors")));
    assert_eq!(plain["best"]["accuracy_from"], "predictor");
    assert!(share(&plain["best"]["accuracy_low"]) < share(&plain["best"]["accuracy"]));
    let words = run("extract", at, &line);
    let words = stdout(&words);
    assert!(words.contains("best of 20 evaluated: ") && words.contains("validation images"), "{words}");
}

#[test]
fn rounds_and_limits_on_accuracy_are_checked() {
    let at = pipeline();
    let line = format!("{} --out rounds.json {TRAINED}", search("estimator.safetensors"));
    assert_fails("extract", at, &format!("{line} --rounds 2"), 1, "--accuracy accuracy.jsonl");
    let found = json("extract", at, &format!("{line} --rounds 2 --accuracy accuracy.jsonl"));
    assert_eq!(found["evaluated"].as_array().map(Vec::len), Some(40));
    let line = format!("{} --out never.json {TRAINED} --min top1=1", search("estimator.safetensors"));
    let output = run("extract", at, &format!("{line} --json"));
    assert_eq!(output.status.code(), Some(1));
    let document: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert!(document["closest"].is_string() && !at.join("never.json").exists(), "{document}");
    for wrong in ["--min top1=91", "--min loss=0.1", "--rounds 0", "--data digits", "--rounds 2"] {
        fails("extract", at, &format!("{} --out never.json {wrong}", search("estimator.safetensors")), 2);
    }
    let text = read_text(at.join("accuracy.jsonl"));
    let (before, after) = text.split_once("\"supernet\":\"").expect("a hash");
    write_file(at.join("other-rows.jsonl"), format!("{before}\"supernet\":\"other{after}"));
    let line = format!("{} --out never.json {TRAINED} --rounds 2", search("estimator.safetensors"));
    assert_fails("extract", at, &format!("{line} --accuracy other-rows.jsonl"), 1, "other-rows.jsonl");
}

#[test]
fn an_estimator_that_ranks_nothing_is_refused_and_warned_of() {
    let at = pipeline();
    changed_rows(at, "shuffled.jsonl", |mut rows| {
        // permuted, far from their places and not in order
        let top1: Vec<Value> = rows.iter().map(|row| row["top1"].clone()).collect();
        let count = rows.len();
        rows.iter_mut()
            .enumerate()
            .for_each(|(place, row)| row["top1"] = top1[(place * 17 + 5) % count].clone());
        rows
    });
    let fit = "fit --accuracy shuffled.jsonl --out shuffled.safetensors";
    let message = fails("extract", at, fit, 1);
    assert!(message.contains("expected above 0 at 95 %") && message.contains("--force"), "{message}");
    assert!(!at.join("shuffled.safetensors").exists());
    json("extract", at, &format!("{fit} --force"));
    let words = succeeds("extract", at, &format!("{} --out shuffled.json", search("shuffled.safetensors")));
    assert!(words.contains("no better than chance"), "{words}");
}

#[test]
fn choices_that_no_row_had_are_refused_unless_asked_for() {
    let at = pipeline();
    changed_rows(at, "one-side.jsonl", |mut rows| {
        rows.iter_mut().for_each(|row| {
            let arch = row["arch"].as_str().expect("text").replacen("r8:", "r12:", 1);
            row["arch"] = arch.into();
        });
        let mut seen = std::collections::BTreeSet::new();
        rows.retain(|row| seen.insert(row["arch"].to_string()));
        rows
    });
    json("extract", at, "fit --accuracy one-side.jsonl --out one-side.safetensors --force");
    let line = format!("{} --out one-side.json", search("one-side.safetensors"));
    let message = fails("extract", at, &line, 1);
    assert!(
        message.contains("got resolution 8, which none had") && message.contains("--extrapolate"),
        "{message}"
    );
    json("extract", at, &format!("{line} --resolutions 12"));
    let words = succeeds("extract", at, &format!("{line} --extrapolate"));
    assert!(words.contains("extrapolating: no row of the estimator has"), "{words}");
}

#[test]
fn rows_in_per_cent_are_refused_as_such() {
    let at = pipeline();
    changed_rows(at, "per-cent.jsonl", |mut rows| {
        rows.iter_mut().for_each(|row| row["top1"] = (100.0 * share(&row["top1"])).into());
        rows
    });
    let message = fails("extract", at, "fit --accuracy per-cent.jsonl --out x", 1);
    assert!(
        message.contains("per-cent.jsonl, line 2: top1") && message.contains("if it is per cent"),
        "{message}"
    );
}
