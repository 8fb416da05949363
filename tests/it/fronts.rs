//! The front of a search: compared, and exported as a whole.

use std::path::Path;

use extract::accuracy::AccuracyEstimator;
use extract::latency::LatencyTable;
use serde_json::Value;
use space::{Arch, preset};

use crate::testing::commands::{assert_fails, json, pipeline, run, stdout, succeeds};
use crate::testing::files::{names_in, read_text, scratch};

#[test]
fn a_front_is_compared_and_exported_as_a_whole() {
    let at = pipeline();
    let folder = scratch();
    let folder = folder.path();
    let search = format!(
        "search --space tiny --estimator {0}/estimator.safetensors --latency-table {0}/table.json --front --out found.json",
        at.display()
    );
    succeeds("extract", folder, &search);
    let found: Value = serde_json::from_str(&read_text(folder.join("found.json"))).expect("JSON");
    let front = found["front"].as_array().expect("a list");
    assert!(front.len() > 1, "{found}");

    let compared = json("extract", folder, "compare found.json found.json#front[0]");
    assert_eq!((&compared["one"], &compared["other"]), (&found["best"]["arch"], &front[0]["arch"]));
    let macs = &compared["metrics"]["macs"];
    let of = |candidate: &Value| candidate["values"]["macs"].as_f64().expect("a count");
    assert_eq!(macs["difference"].as_f64(), Some(of(&front[0]) - of(&found["best"])));
    let choices = compared["choices"].as_array().expect("a list");
    assert!(!choices.is_empty() && choices.iter().all(|choice| choice["from"] != choice["to"]), "{compared}");
    let same = json("extract", folder, "compare found.json found.json");
    assert_eq!(same["choices"].as_array().map(Vec::len), Some(0));
    assert_fails("extract", folder, "compare found.json found.json#front[99]", 1, "a place below");

    // as many folders as the front is long, each for the sub-network of its place
    let supernet = at.join("run/supernet.safetensors");
    let export =
        format!("export --supernet {} --arch found.json --data digits --out models", supernet.display());
    let exported = json("extract", folder, &format!("{export} --front --calibration-images 200"));
    let exported = exported["front"].as_array().expect("a list");
    assert_eq!(exported.len(), front.len());
    assert_eq!(names_in(&folder.join("models")).len(), front.len());
    for (place, (model, candidate)) in exported.iter().zip(front).enumerate() {
        assert_eq!(model["arch"], candidate["arch"]);
        assert_eq!(model["predicted_top1"].as_f64(), candidate["values"]["top1"]["mean"].as_f64());
        assert!(folder.join(format!("models/{place}/model.safetensors")).exists());
    }
    let alone =
        format!("export --supernet {} --arch largest --front --data digits --out m", supernet.display());
    assert_fails("extract", folder, &alone, 1, "largest");
}

#[test]
fn a_result_is_explained_by_what_else_there_is() {
    let at = pipeline();
    let folder = scratch();
    let folder = folder.path();
    let inputs = format!(
        "--space tiny --estimator {0}/estimator.safetensors --latency-table {0}/table.json",
        at.display()
    );
    let free = json("extract", folder, &format!("search {inputs} --out free.json"));
    let limit = 600.0 * free["best"]["latency_upper_ms"].as_f64().expect("known");
    let search =
        format!("search {inputs} --max-latency {limit:.3}us --max-macs 900K --front --out found.json");
    succeeds("extract", folder, &search);
    let explained = json("extract", folder, &format!("explain found.json {inputs} --svg why.svg"));

    let space = preset("tiny").expect("a preset");
    let table = LatencyTable::read(&at.join("table.json")).expect("a table");
    let estimator = AccuracyEstimator::read(&at.join("estimator.safetensors")).expect("an estimator");
    let check = |seen: &Value| {
        let arch: Arch = seen["arch"].as_str().expect("a text").parse().expect("a sub-network");
        let of = |metric: &str, field: &str| seen["metrics"][metric][field].as_f64().expect("a number");
        let latency = table.latency(&space, &arch).expect("known");
        assert!((of("latency", "mean") - latency.us).abs() < 1e-5, "{arch}");
        let predicted = f64::from(estimator.predict(std::slice::from_ref(&arch)).expect("of the space")[0]);
        assert!((of("top1", "mean") - estimator.expected(predicted)).abs() < 1e-6, "{arch}");
        let best = explained["best"]["metrics"]["top1"]["mean"].as_f64().expect("a number");
        assert!((of("top1", "difference") - (of("top1", "mean") - best)).abs() < 1e-9, "{arch}");
        let macs = space::cost(&space.lower(&arch).expect("of the space")).macs;
        assert_eq!(of("macs", "mean"), macs as f64, "{arch}");
        (latency.high_us > limit, macs > 900_000)
    };
    let choices = explained["choices"].as_array().expect("a list");
    assert!(choices.len() > 10, "{}", choices.len());
    for choice in choices {
        let (slow, large) = check(choice);
        let breaks =
            |metric: &str| choice["breaks"].as_array().expect("a list").iter().any(|one| one == metric);
        assert_eq!((breaks("latency"), breaks("macs")), (slow, large), "{choice}");
        assert!(!choice["changes"].as_array().expect("a list").is_empty());
    }
    let device = &explained["layers"][0];
    let layers = device["layers"].as_array().expect("a list").iter();
    let sum: f64 = layers.map(|layer| layer["us"].as_f64().expect("a number")).sum();
    let sum = sum + device["constant_us"].as_f64().expect("a number");
    let latency = explained["best"]["metrics"]["latency"]["mean"].as_f64().expect("a number");
    assert!((sum - latency).abs() < 1e-5, "{sum} {latency}");
    let relaxed = explained["relaxed"].as_array().expect("a list");
    assert_eq!(relaxed.len(), 4, "two limits, two factors");
    for one in relaxed {
        check(one);
        assert!(one["metrics"]["top1"]["difference"].as_f64() >= Some(-1e-9), "{one}");
    }
    assert!(!explained["largest"]["breaks"].as_array().expect("a list").is_empty());
    assert_told(folder, &inputs);
}

/// What `explain` draws and says, and its refusals.
fn assert_told(folder: &Path, inputs: &str) {
    let picture = read_text(folder.join("why.svg"));
    assert!(picture.starts_with("<svg") && picture.contains("another choice"));
    let text = succeeds_with_text(folder, &format!("explain found.json {inputs}"));
    for part in [
        "other choices break a limit",
        "latency by layer",
        "with a relaxed limit",
        "it breaks the limits on",
        " points (",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let missing =
        format!("explain found.json {}", inputs.split(" --latency-table").next().unwrap_or_default());
    assert_fails("extract", folder, &missing, 1, "give the tables of the search");
    assert_fails("extract", folder, &missing.replace("tiny", "fashion"), 1, "space: expected tiny");
}

/// The cheapest of all sub-networks whose interval reaches an accuracy, by looking at every one.
#[test]
fn the_cheapest_that_is_accurate_enough_is_found() {
    let at = pipeline();
    let folder = scratch();
    let folder = folder.path();
    let space = preset("tiny").expect("a preset");
    let estimator = AccuracyEstimator::read(&at.join("estimator.safetensors")).expect("an estimator");
    let archs: Vec<Arch> = space.genome().all().iter().map(|row| space.arch(row)).collect();
    let below = 1.959_964 * estimator.report().expect("fitted here").variance().sqrt();
    let predicted = estimator.predict(&archs).expect("of the space");
    let low = |predicted: &f32| estimator.expected(f64::from(*predicted)) - below;
    let mut lows: Vec<f64> = predicted.iter().map(low).collect();
    let costs = archs.iter().map(|arch| space::cost(&space.lower(arch).expect("of the space")));
    let costs: Vec<_> = costs.collect();
    let unsorted = lows.clone();
    lows.sort_by(f64::total_cmp);
    for (share, strategy) in [(0.3, ""), (0.7, ""), (0.7, "--strategy exact"), (0.98, "")] {
        let least = lows[(share * lows.len() as f64) as usize].max(1e-6);
        let search = format!(
            "search --space tiny --estimator {}/estimator.safetensors --out found.json --min top1={least}",
            at.display()
        );
        let accurate =
            || costs.iter().zip(&unsorted).filter(|(_, low)| **low >= least + 2e-9).map(|(cost, _)| cost);
        let fewest = accurate().map(|cost| cost.params).min().expect("some");
        let found = json("extract", folder, &format!("{search} --minimize params {strategy}"));
        assert_eq!(found["best"]["params"].as_u64(), Some(fewest), "{share}");
        assert_eq!(found["goal"], "params");
        assert!(found["best"]["accuracy_low"].as_f64() >= Some(least));
        let limited = format!("{search} --minimize macs --max-params {}", fewest + fewest / 4);
        let kept = accurate().filter(|cost| cost.params <= fewest + fewest / 4);
        let fewest = kept.map(|cost| cost.macs).min().expect("some");
        assert_eq!(json("extract", folder, &limited)["best"]["macs"].as_u64(), Some(fewest), "{share}");
    }
    let search =
        format!("search --space tiny --estimator {}/estimator.safetensors --out f.json", at.display());
    for (more, code, part) in [
        ("--minimize macs", 1, "a least accuracy, such as --min top1=0.9"),
        ("--minimize macs --min top1=1", 1, "ask for less"),
        ("--minimize loss --min top1=0.1", 1, "give an --evaluator for other metrics"),
        ("--minimize latency@phone --min top1=0.1", 1, "latency@phone"),
        ("--maximize macs", 1, "--maximize: metric"),
    ] {
        assert_fails("extract", folder, &format!("{search} {more}"), code, part);
    }
}

fn succeeds_with_text(folder: &Path, line: &str) -> String {
    let output = run("extract", folder, line);
    assert!(output.status.success());
    stdout(&output)
}
