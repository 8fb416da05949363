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
        serde_json::json!(["progressive", "sandwich", "alphanet"])
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
        "nothing: expected a recipe (progressive, sandwich, alphanet) or a TOML file",
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
