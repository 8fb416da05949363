//! `supernet recipe`, and the flags that replace fields of a recipe.

use std::path::Path;

use serde_json::Value;

use crate::testing::commands::{assert_fails, fails, json, pipeline, run, succeeds};
use crate::testing::files::{plan_of, read_bytes, scratch, weights_of, write_file};

fn plan(at: &Path, run: &str) -> Value {
    plan_of(&at.join(run))["plan"].clone()
}

#[test]
fn what_recipe_prints_is_what_train_reads() {
    let folder = scratch();
    let at = folder.path();
    assert_eq!(
        json("supernet", at, "recipe --list")["recipes"],
        serde_json::json!([
            "progressive",
            "sandwich",
            "alphanet",
            "attentive",
            "shrinking",
            "once-for-all",
            "uniform",
            "fair",
            "enas",
            "darts",
            "gdas",
            "proxyless"
        ])
    );
    let text = run("supernet", at, "recipe progressive --toml").stdout;
    write_file(at.join("mine.toml"), &text);
    assert!(run("supernet", at, "recipe mine.toml --toml").stdout == text);
    let document = json("supernet", at, "recipe mine.toml");
    assert_eq!((&document["batch"], &document["phases"][0]["lr"]), (&64.into(), &2.6.into()));
    let said = String::from_utf8(run("supernet", at, "recipe progressive").stdout).expect("text");
    assert!(said.contains("progressive: 64 images per step") && said.lines().count() == 13, "{said}");
    let train = "train --space tiny --data digits --scale 0.001";
    json("supernet", at, &format!("{train} --out built"));
    json("supernet", at, &format!("{train} --recipe mine.toml --out read"));
    assert!(weights_of(&at.join("built")) == weights_of(&at.join("read")));
    assert_fails(
        "supernet",
        at,
        "recipe nothing",
        1,
        "nothing: expected a recipe (progressive, sandwich, alphanet, attentive, shrinking, once-for-all, uniform, fair, enas, darts, gdas, proxyless) or a TOML file",
    );
}

#[test]
fn flags_replace_batch_and_rate() {
    let folder = scratch();
    let at = folder.path();
    let train = "train --space tiny --data digits --scale 0.001";
    json("supernet", at, &format!("{train} --batch 32 --out smaller"));
    json("supernet", at, &format!("{train} --batch 32 --lr 0.01 --out slower"));
    let rates = |run: &str| -> Vec<f64> {
        let phases = plan(at, run)["phases"].as_array().expect("phases").clone();
        phases.iter().map(|phase| phase["scaled_lr"].as_f64().expect("a rate")).collect()
    };
    assert_eq!(plan(at, "smaller")["batch"], 32);
    let smaller = rates("smaller");
    let slower = rates("slower");
    assert_eq!(smaller[0], 2.6 * 32.0 / 2048.0);
    for (one, other) in smaller.iter().zip(&slower) {
        assert!((other / one - 0.01 / smaller[0]).abs() < 1e-9, "{one} and {other}");
    }
    assert!((slower[0] - 0.01).abs() < 1e-12);
    // the same flags resume
    json("supernet", at, &format!("{train} --batch 32 --lr 0.01 --out slower --resume"));
    // with weights to start from, the rate is still that of the whole network, not that of a fine-tuning
    let start = "train --start smaller --data digits --scale 0.001 --lr 0.3 --out started";
    json("supernet", at, start);
    assert!((rates("started")[0] - 0.3).abs() < 1e-12);
    for lr in ["0", "nan", "inf"] {
        assert!(fails("supernet", at, &format!("{train} --lr {lr} --out x"), 2).contains("a number above 0"));
    }
    let message = fails("supernet", at, &format!("{train} --lr 1e9 --out x"), 1);
    assert!(
        message.contains("--lr") && message.contains("expected 0 to 1000") && !at.join("x").exists(),
        "{message}"
    );
}

#[test]
fn a_set_smaller_than_the_batch_makes_it_smaller() {
    let from = pipeline();
    let folder = scratch();
    let at = folder.path();
    let supernet = from.join("run/supernet.safetensors");
    let export =
        format!("export --supernet {} --data digits --arch smallest --out model", supernet.display());
    json("extract", at, &export);
    for (line, run_folder) in [
        ("train --space tiny --data digits --scale 0.001 --batch 2000", "run"),
        ("finetune model --data digits --epochs 1 --batch 2000", "tuned"),
    ] {
        let message = succeeds("supernet", at, &format!("{line} --out {run_folder}"));
        let note =
            "note: digits has 1071 training images, fewer than a batch of 2000: steps are of 1071 images";
        assert!(message.contains(note), "{message}");
        assert_eq!(
            (&plan(at, run_folder)["batch"], &plan(at, run_folder)["steps_per_epoch"]),
            (&1071.into(), &1.into())
        );
    }
}

/// A flag names the file of the teacher that a phase requires, and the plan records it.
#[test]
fn a_teacher_is_given_where_the_recipe_asks_for_one() {
    let folder = scratch();
    let at = folder.path();
    let text = String::from_utf8(run("supernet", at, "recipe progressive --toml").stdout).expect("text");
    let taught = text.replacen("[[phases]]\n", "[[phases]]\nteacher = \"file\"\n", 1);
    let adamw = taught.replacen("momentum = 0.9\n", "", 1).replacen(
        "[[phases]]",
        "[optimizer]\nkind = \"adamw\"\n\n[[phases]]",
        1,
    );
    write_file(at.join("taught.toml"), adamw);
    let said = String::from_utf8(run("supernet", at, "recipe taught.toml").stdout).expect("text");
    assert!(said.contains("; optimizer adamw\n") && said.contains(", taught by a file\n"), "{said}");
    let train = "train --space tiny --data digits --scale 0.001 --lr 0.002";
    json("supernet", at, "train --space tiny --data digits --scale 0.001 --out first");
    assert_fails(
        "supernet",
        at,
        &format!("{train} --recipe taught.toml --out run"),
        1,
        "phases[1] (full).teacher: expected a teacher file, got none",
    );
    assert_fails("supernet", at, &format!("{train} --teacher first --out run"), 1, "leave --teacher out");
    let taught = format!("{train} --recipe taught.toml --out run --teacher");
    json("supernet", at, &format!("{taught} first"));
    let hash = blake3::hash(&read_bytes(at.join("first/supernet.safetensors")));
    let plan = plan(at, "run");
    assert_eq!(plan["teacher"], hash.to_hex().as_str());
    assert_eq!((&plan["optimizer"]["kind"], plan.get("momentum")), (&"adamw".into(), None));
    let other = "first/teacher.safetensors";
    assert_fails("supernet", at, &format!("{taught} {other} --resume"), 1, "plan.teacher: expected \"");
    json("supernet", at, &format!("{taught} first --resume"));
}

#[test]
fn what_a_training_takes_is_shown_before_it() {
    let folder = scratch();
    let at = folder.path();
    let document = json("supernet", at, "plan sandwich --space tiny --data digits --scale 0.1 --steps 2");
    let phase = &document["phases"][0];
    assert_eq!((&phase["phase"]["name"], &phase["phase"]["subnetworks"]), (&"sandwich".into(), &4.into()));
    let seconds = document["seconds"].as_f64().expect("a number");
    let steps = phase["phase"]["steps"].as_f64().expect("a number");
    let per_step = phase["mean_ms"].as_f64().expect("a number");
    assert!((seconds - steps * per_step / 1e3).abs() < 1e-6 * seconds, "{document}");
    assert!(document["estimated_memory_mb"].as_f64().is_some_and(|megabytes| megabytes > 1.0));
    assert_eq!(document["gpu_hours"], Value::Null);
    let said = String::from_utf8(
        run("supernet", at, "plan progressive --space tiny --data digits --arch largest --steps 1").stdout,
    );
    assert!(said.expect("text").contains("evaluations, and validations within phases, are not counted"));
    let refused = "plan sandwich --space tiny --data digits --batch 1000 --steps 1 --latency-table none.json";
    assert_fails("supernet", at, refused, 1, "none.json");
    assert_fails("supernet", at, "plan sandwich-rule --space tiny --data digits", 1, "RECIPE: give ");
    let left: Vec<_> = std::fs::read_dir(at).expect("a folder").collect();
    assert!(left.is_empty(), "nothing is left of a trial: {left:?}");
}

#[test]
fn the_steps_of_a_recipe_are_timed_by_phase() {
    let folder = scratch();
    let at = folder.path();
    let bench = "bench --space tiny --data digits --steps 3 --recipe";
    let document = json("supernet", at, &format!("{bench} progressive"));
    let phases = document["phases"].as_array().expect("phases");
    assert_eq!(phases.len(), 6);
    for phase in phases {
        let [mean, passes] = ["mean_ms", "passes_ms"].map(|key| phase[key].as_f64().expect("a number"));
        assert!(0.0 < passes && passes < mean, "{phase}");
    }
    write_file(at.join("taught.toml"), by_file());
    assert_fails(
        "supernet",
        at,
        &format!("{bench} taught.toml"),
        1,
        "needs no other files; try `supernet plan`",
    );
    assert_fails("supernet", at, &format!("{bench} sandwich --profile"), 2, "cannot be used with");
    assert_fails("supernet", at, "bench --space tiny", 2, "--resolution");
}

/// The sandwich rule, taught by a file.
fn by_file() -> Vec<u8> {
    let text = supernet::train::Recipe::text_of("sandwich").expect("built in");
    text.replace("teacher = \"first\"", "teacher = \"file\"").into_bytes()
}

#[test]
fn training_attends_to_the_latencies_of_a_device() {
    let folder = scratch();
    let at = folder.path();
    let table = pipeline().join("table.json");
    let text = supernet::train::Recipe::text_of("attentive").expect("built in");
    write_file(at.join("device.toml"), text.replace("bins = 20", "bins = 20, by = \"latency\"").as_bytes());
    let train = "train --space tiny --data digits --scale 0.002 --recipe device.toml";
    assert_fails("supernet", at, &format!("{train} --out none"), 1, "give --latency-table");
    let given = format!("{train} --latency-table {}", table.display());
    json("supernet", at, &format!("{given} --out run"));
    let hash = plan(at, "run")["latency_table"].as_str().expect("a hash").to_string();
    assert_eq!(hash, extract::latency::LatencyTable::read(&table).expect("a table").hash());
    let macs = given.replace("device.toml", "attentive");
    assert_fails(
        "supernet",
        at,
        &format!("{macs} --out other"),
        1,
        "expected a recipe that draws by latency",
    );
    let wide = given.replace("--space tiny", "--space tiny-resnet");
    assert_fails("supernet", at, &format!("{wide} --out wide"), 1, "--latency-table ");
}

#[test]
fn a_run_goes_on_by_its_own_recipe() {
    let folder = scratch();
    let at = folder.path();
    let train = "train --space tiny --data digits --scale 0.004 --out run";
    json("supernet", at, &format!("{train} --recipe sandwich"));
    json("supernet", at, &format!("{train} --resume"));
    // the same name, other rates
    let text = supernet::train::Recipe::text_of("sandwich").expect("built in");
    write_file(at.join("mine.toml"), text.replace("lr = 1.3", "lr = 1.0").as_bytes());
    json("supernet", at, &format!("{} --recipe mine.toml", train.replace("run", "mine")));
    let resume = format!("{} --resume", train.replace("run", "mine"));
    assert_fails("supernet", at, &resume, 1, "mine");
    write_file(at.join("named.toml"), text.replace("name = \"sandwich\"", "name = \"named\"").as_bytes());
    json("supernet", at, &format!("{} --recipe named.toml", train.replace("run", "named")));
    let resume = format!("{} --resume", train.replace("run", "named"));
    assert_fails("supernet", at, &resume, 1, "--recipe: expected the file of the recipe named");
}
