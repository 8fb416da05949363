//! Commands that are killed at any moment and started again lose at most the row or step in flight, leave only readable
//! files, and end with the same bytes.
//!
//! `ONCE_FOR_ALL_KILLS=100 cargo test --test it kills -- --nocapture` kills a hundred times; the default is ten.

#![cfg(unix)]

use std::path::{Path, PathBuf};
use std::time::Duration;

use extract::latency::LatencyTable;
use extract::search::Found;
use network::accuracy_file;
use network::checkpoint::{Checkpoint, Supernet};
use network::model_folder::ModelFolder;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::Value;
use supernet::train::FineTuneCheckpoint;

use crate::testing::commands::{command, json, pipeline};
use crate::testing::controllers::quick_controller;
use crate::testing::files::{names_in, read_bytes, read_text, scratch};
use crate::testing::signals::start;

/// A command that is killed.
struct Victim<'a> {
    name: &'static str,
    line: String,
    /// Its duration without a kill.
    takes: Duration,
    /// Checks the files after a kill.
    check: &'a dyn Fn(),
    /// Prepares another start after the command ended before the kill.
    restart: &'a dyn Fn(),
}

/// The number of kills of all six commands together.
fn kills() -> usize {
    let requested = std::env::var("ONCE_FOR_ALL_KILLS").ok();
    requested.map_or(10, |count| count.parse().expect("ONCE_FOR_ALL_KILLS is a number"))
}

/// Runs a command to its end, and returns the duration.
fn timed(folder: &Path, name: &str, line: &str) -> Duration {
    let start = std::time::Instant::now();
    json(name, folder, line);
    start.elapsed()
}

/// Starts the command and kills it after a random time. True if it was still running.
fn kill_once(folder: &Path, victim: &Victim, rng: &mut ChaCha8Rng) -> bool {
    let mut child = start(command(victim.name, folder, &victim.line));
    // the wait is part of the test: the kill comes at a random moment
    std::thread::park_timeout(victim.takes.mul_f64(rng.random::<f64>()));
    child.kill().expect("a child");
    let killed = child.wait().expect("a child").code().is_none();
    (victim.check)();
    killed
}

/// Kills the running command `count` times; the number of kills that hit it.
fn kill(folder: &Path, victim: &Victim, count: usize, rng: &mut ChaCha8Rng) -> usize {
    let mut killed = 0;
    for _ in 0..10 * count {
        if killed == count {
            break;
        }
        match kill_once(folder, victim, rng) {
            true => killed += 1,
            false => (victim.restart)(),
        }
    }
    killed
}

/// The paths that exist.
fn there(paths: &[PathBuf]) -> impl Iterator<Item = &PathBuf> {
    paths.iter().filter(|path| path.exists())
}

const TRAIN: &str = "train --space tiny --data digits --seed 5 --scale 0.004";
/// The command for a space whose edges choose operators.
const TRAIN_CELLS: &str = "train --space tiny-cell --data digits --seed 5 --scale 0.004";

/// The command for a recipe whose controller learns four times an epoch.
const TRAIN_LAYERS: &str = "train --space tiny-macro --data digits --seed 5 --scale 0.004";

/// Kills per training run.
const KILLS_PER_RUN: usize = 5;

fn train(at: &Path, train: &str, count: usize, rng: &mut ChaCha8Rng) -> usize {
    let takes = timed(at, "supernet", &format!("{train} --out whole"));
    let expected = read_bytes(at.join("whole/supernet.safetensors"));
    let mut killed = 0;
    for index in 0..3 * count {
        if killed >= count {
            break;
        }
        let run = format!("run{index}");
        let file = |name: &str| at.join(&run).join(name);
        let check = || {
            there(&[file("checkpoint.safetensors")])
                .for_each(|path| drop(Checkpoint::read(path).expect("whole")));
            let weights = [file("teacher.safetensors"), file("supernet.safetensors")];
            there(&weights).for_each(|path| drop(Supernet::read(path).expect("whole")));
            there(&[file("plan.json")])
                .for_each(|path| drop(serde_json::from_slice::<Value>(&read_bytes(path)).expect("whole")));
        };
        let line = format!("{train} --out {run} --resume --checkpoint-seconds 0");
        let victim = Victim { name: "supernet", line, takes, check: &check, restart: &|| () };
        let most = KILLS_PER_RUN.min(count - killed);
        killed += (0..most).take_while(|_| kill_once(at, &victim, rng)).count();
        json("supernet", at, &format!("{train} --out {run} --resume"));
        assert!(read_bytes(file("supernet.safetensors")) == expected, "{run} differs");
        assert_log_is_whole(&file("log.jsonl"), &at.join("whole/log.jsonl"));
        let mut expected = 6;
        if at.join("whole/derived.json").exists() {
            expected += 1;
            let derived = |run: &str| read_text(at.join(run).join("derived.json"));
            assert_eq!(derived(&run), derived("whole"));
        }
        let left = std::fs::read_dir(at.join(&run)).expect("a folder").count();
        assert_eq!(left, expected, "plan, log, lock, checkpoint, teacher, supernet and nothing else");
    }
    killed
}

/// A fifth of the kills for each recipe that comes with the tool, and for one with the fields that these leave out.
#[test]
fn runs_by_every_recipe_that_are_killed_end_with_the_same_bytes() {
    let mut rng = ChaCha8Rng::seed_from_u64(11);
    let count = (kills() / 5).max(1);
    let others = "ema_decay = 0.9\naccumulation = 2\ngradient_clip = 1.0\n\n[augmentation]\nmixup = 0.2\ncutmix = 1.0\n\
                  erasing = 0.25\nrand_augment = { operations = 2, magnitude = 9 }\n\n[[phases]]";
    let text = supernet::train::Recipe::text_of("attentive").expect("built in");
    let quick = quick_controller();
    let darts = supernet::train::Recipe::text_of("darts").expect("built in");
    let second = darts.replacen("order = 1", "order = 2", 1);
    let names = supernet::train::Recipe::names().filter(|name| *name != "enas").map(str::to_string);
    for recipe in names.chain(["others.toml", "enas.toml", "second.toml"].map(str::to_string)) {
        let folder = scratch();
        std::fs::write(folder.path().join("enas.toml"), &quick).expect("written");
        std::fs::write(folder.path().join("second.toml"), &second).expect("written");
        std::fs::write(folder.path().join("others.toml"), text.replacen("[[phases]]", others, 1))
            .expect("written");
        let reports = if recipe == "others.toml" { " --report-conflicts 0.5" } else { "" };
        let of_operators =
            ["uniform", "fair", "darts", "gdas", "proxyless", "second.toml"].contains(&recipe.as_str());
        let train_line = match recipe.as_str() {
            "enas.toml" => TRAIN_LAYERS,
            _ if of_operators => TRAIN_CELLS,
            _ => TRAIN,
        };
        let line = format!("{train_line} --recipe {recipe}{reports}");
        let killed = train(folder.path(), &line, count, &mut rng);
        println!("{recipe}: {killed} kills");
        assert!(killed > 0, "{recipe}");
    }
}

/// Checks that a killed run logged the steps and evaluations of an uninterrupted one, each once.
fn assert_log_is_whole(path: &Path, unbroken: &Path) {
    let events = |path: &Path| -> Vec<String> {
        let text = read_text(path);
        let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("whole lines"));
        let kept = lines.filter(|line| line["event"] != "resumed" && line["event"] != "checkpoint");
        kept.map(|line| format!("{} {} {} {}", line["event"], line["step"], line["arch"], line["loss"]))
            .collect()
    };
    assert_eq!(events(path), events(unbroken));
}

fn sample(at: &Path, count: usize, rng: &mut ChaCha8Rng) -> usize {
    let line =
        "sample --supernet whole/supernet.safetensors --data digits --count 25 --calibration-images 100";
    let takes = timed(at, "supernet", &format!("{line} --out rows.jsonl"));
    let out = at.join("killed.jsonl");
    let lines = std::cell::Cell::new(0);
    let check = || {
        let text = if out.exists() { read_text(&out) } else { String::new() };
        let whole = text.matches('\n').count();
        assert!(whole >= lines.get(), "no row is lost: {whole} of {}", lines.get());
        lines.set(whole);
    };
    let line = format!("{line} --out killed.jsonl");
    let restart = || {
        assert!(read_bytes(&out) == read_bytes(at.join("rows.jsonl")), "rows differ");
        std::fs::remove_file(&out).expect("removed");
        lines.set(0);
    };
    let victim = Victim { name: "supernet", line, takes, check: &check, restart: &restart };
    let killed = kill(at, &victim, count, rng);
    json("supernet", at, &victim.line);
    assert!(read_bytes(&out) == read_bytes(at.join("rows.jsonl")), "rows differ");
    accuracy_file::read(&out).expect("whole");
    killed
}

fn measure(at: &Path, count: usize, rng: &mut ChaCha8Rng) -> usize {
    let out = at.join("table.json");
    let rows = at.join("table.json.rows");
    let visits = std::cell::Cell::new(0);
    let check = || {
        there(std::slice::from_ref(&out)).for_each(|path| drop(LatencyTable::read(path).expect("whole")));
        let text = if rows.exists() { read_text(&rows) } else { String::new() };
        assert!(out.exists() || text.matches('\n').count() >= visits.get(), "no visit is lost");
        visits.set(text.matches('\n').count());
    };
    let line = "measure --space tiny --out table.json --threads 1 --half-width 50 --budget 20 --networks 8 --replace".to_string();
    let takes = timed(at, "extract", &line);
    std::fs::remove_file(&out).expect("removed");
    let restart = || {
        let _ = std::fs::remove_file(&out);
        visits.set(0);
    };
    let victim = Victim { name: "extract", line, takes, check: &check, restart: &restart };
    let killed = kill(at, &victim, count, rng);
    json("extract", at, &victim.line);
    let covered = json("extract", at, "table table.json --space tiny");
    assert_eq!(covered["coverage"]["missing"], serde_json::json!([]));
    assert!(covered["spaces"][0]["validation"]["n"].as_u64() > Some(0), "sub-networks were measured too");
    killed
}

fn search(at: &Path, count: usize, rng: &mut ChaCha8Rng) -> usize {
    let estimator = pipeline().join("estimator.safetensors");
    let search = format!(
        "search --space tiny --estimator {} --latency-table table.json --max-macs 700K --front",
        estimator.display()
    );
    let takes = timed(at, "extract", &format!("{search} --out expected.json"));
    let found = |name: &str| {
        let mut found = Found::read(&at.join(name)).expect("whole");
        found.run.clear();
        found.to_json()
    };
    let expected = found("expected.json");
    let line = format!("{search} --out found.json");
    let restart = || std::fs::remove_file(at.join("found.json")).expect("removed");
    let victim = Victim {
        name: "extract",
        line,
        takes,
        check: &|| there(&[at.join("found.json")]).for_each(|_| assert_eq!(found("found.json"), expected)),
        restart: &restart,
    };
    let killed = kill(at, &victim, count, rng);
    json("extract", at, &victim.line);
    assert_eq!(found("found.json"), expected);
    killed
}

fn export(at: &Path, count: usize, rng: &mut ChaCha8Rng) -> usize {
    let export = "export --supernet whole/supernet.safetensors --arch expected.json --data digits --calibration-images 200";
    let takes = timed(at, "extract", &format!("{export} --out expected"));
    let expected = read_bytes(at.join("expected/model.safetensors"));
    let model = at.join("model");
    let whole = || {
        let read = ModelFolder::read(&model).expect("whole");
        assert_eq!(read.tensors.len(), ModelFolder::read(&at.join("expected")).expect("whole").tensors.len());
        assert!(read_bytes(model.join("model.safetensors")) == expected);
    };
    let line = format!("{export} --out model");
    let victim = Victim {
        name: "extract",
        line,
        takes,
        check: &|| {
            if model.exists() {
                whole();
            }
        },
        restart: &|| (),
    };
    let killed = kill(at, &victim, count, rng);
    json("extract", at, &victim.line);
    whole();
    let left: Vec<_> = names_in(at).into_iter().filter(|name| name.starts_with(".model")).collect();
    assert!(left.is_empty(), "leftovers of killed exports: {left:?}");
    killed
}

/// Fine-tunes the model that [`export`] wrote.
fn finetune(at: &Path, count: usize, rng: &mut ChaCha8Rng) -> usize {
    let line = "finetune expected --data digits --epochs 10 --batch 32";
    let takes = timed(at, "supernet", &format!("{line} --out whole-tuned"));
    let expected = read_bytes(at.join("whole-tuned/model.safetensors"));
    let tuned = at.join("tuned");
    let check = || {
        there(&[tuned.join("checkpoint.safetensors")])
            .for_each(|path| drop(FineTuneCheckpoint::read(path).expect("whole")));
        there(&[tuned.join("plan.json")])
            .for_each(|path| drop(serde_json::from_slice::<Value>(&read_bytes(path)).expect("whole")));
        there(&[tuned.join("config.json")]).for_each(|_| drop(ModelFolder::read(&tuned).expect("whole")));
    };
    let finished = || {
        assert!(read_bytes(tuned.join("model.safetensors")) == expected, "the model differs");
        assert_log_is_whole(&tuned.join("log.jsonl"), &at.join("whole-tuned/log.jsonl"));
        let left = std::fs::read_dir(&tuned).expect("a folder").count();
        assert_eq!(left, 5, "plan, log, lock, configuration, weights and nothing else");
    };
    let restart = || {
        finished();
        std::fs::remove_dir_all(&tuned).expect("removed");
    };
    let line = format!("{line} --out tuned --resume --checkpoint-seconds 0");
    let victim = Victim { name: "supernet", line, takes, check: &check, restart: &restart };
    let killed = kill(at, &victim, count, rng);
    json("supernet", at, &victim.line);
    finished();
    killed
}

#[test]
fn nothing_is_lost_to_kills() {
    let folder = scratch();
    let at = folder.path();
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    let all = kills();
    let share = |part: usize| (all * part).div_ceil(100);
    let killed = [
        ("train", train(at, TRAIN, share(35), &mut rng)),
        ("sample", sample(at, share(15), &mut rng)),
        ("measure", measure(at, share(15), &mut rng)),
        ("search", search(at, share(15), &mut rng)),
        ("export", export(at, share(10), &mut rng)),
        ("finetune", finetune(at, share(10), &mut rng)),
    ];
    println!("killed in their work: {killed:?}; 0 differences, 0 unreadable files");
    assert!(killed.iter().any(|(_, count)| *count > 0), "{killed:?}");
}
