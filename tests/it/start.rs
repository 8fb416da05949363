//! Weights to start from: for the same classes or for others, a supernet or one network.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use image::GrayImage;
use kernels::Backend;
use network::checkpoint::{Provenance, Supernet};
use network::data::{Dataset, Images, Split};
use network::eval::Accuracy;
use network::model_folder::ModelFolder;
use serde_json::Value;
use space::Arch;
use supernet::train::{
    Observer, PlannedPhase, Recipe, RunFolder, RunOutcome, Start, StepRecord, TrainConfig, TrainTask, Trainer,
};

use crate::cli::{fails, json, pipeline};
use crate::common::values;

/// Head, full network, then all sub-networks; in epochs.
fn recipe(head: Option<f64>, full: f64, all: f64, lr: f64) -> String {
    let phase = |name: &str, epochs: f64, more: &str| {
        format!("[[phases]]\nname = \"{name}\"\nepochs = {epochs:?}\nwarmup_epochs = 0\n{more}\n")
    };
    let alone = "allowed = { kernel = 1, depth = 1, expand = 1 }\nsubnetworks = 1\ndistill = false\nsort_channels = false";
    let every = "allowed = { kernel = 9, depth = 9, expand = 9 }\nsubnetworks = 2\ndistill = true\nsort_channels = true";
    let head = head.map_or(String::new(), |epochs| {
        phase("head", epochs, &format!("{alone}\nlr = 0.1\nhead_only = true"))
    });
    format!(
        "version = 1\nname = \"start\"\nbatch = 16\nlr_batch = 16\nmomentum = 0.9\nweight_decay = 3e-5\n\
         label_smoothing = 0.1\n{head}{}{}",
        phase("full", full, &format!("{alone}\nlr = {lr:?}")),
        phase("all", all, &format!("{every}\nlr = {lr:?}")),
    )
}

/// Two classes of digits as images in folders: with a closed round part, and of straight lines; 200 and 60 of each.
fn two_classes(at: &Path) {
    let digits = Dataset::open("digits").expect("embedded");
    for (split, source, count) in [("train", Split::Train, 200), ("val", Split::Test, 60)] {
        let Images::Pixels(set) = digits.split(source).expect("there") else { panic!("in memory") };
        for (class, labels) in [("round", [0, 6, 8, 9]), ("straight", [1, 4, 7, 7])] {
            let to = at.join("two").join(split).join(class);
            std::fs::create_dir_all(&to).expect("a folder");
            let of_class = (0..set.len()).filter(|i| labels.contains(&set.label(*i))).take(count);
            for (index, i) in of_class.enumerate() {
                let image = GrayImage::from_raw(8, 8, set.pixels(i).bytes().expect("bytes").to_vec())
                    .expect("64 values");
                image.save(to.join(format!("{index:03}.png"))).expect("written");
            }
        }
    }
}

fn top1(document: &Value) -> f64 {
    document["results"][0]["top1"].as_f64().expect("a share")
}

#[test]
fn weights_for_other_classes_start_ahead() {
    let source = pipeline();
    let folder = tempfile::tempdir().expect("a folder");
    let at = folder.path();
    two_classes(at);
    let imported = source.join("run/supernet.safetensors");
    let start = imported.display();
    std::fs::write(at.join("start.toml"), recipe(Some(1.0), 1.0, 1.0, 0.01)).expect("written");
    std::fs::write(at.join("scratch.toml"), recipe(None, 2.0, 1.0, 0.05)).expect("written");
    json(
        "supernet",
        at,
        &format!("train --start {start} --data folder:two --recipe start.toml --out started"),
    );
    let trained = Supernet::read(&at.join("started/supernet.safetensors")).expect("written");
    let was = Supernet::read(&imported).expect("there");
    assert_eq!((trained.space.classes(), trained.space.name()), (2, "tiny"));
    assert_eq!(trained.interface.preprocess, was.interface.preprocess, "it sees what it saw");
    assert_eq!(trained.classes().expect("named"), ["round", "straight"]);
    let Provenance::Trained(training) = &trained.provenance else { panic!("trained here") };
    let from = training.start.as_ref().expect("said");
    assert_eq!((&from.weights, from.fresh_classifier), (&was.hash, true));
    // as many steps from fresh weights
    std::fs::write(at.join("two.toml"), was.space.to_toml().replace("classes = 10", "classes = 2"))
        .expect("written");
    json(
        "supernet",
        at,
        "train --space two.toml --data folder:two --recipe scratch.toml --resize stretch --out scratch",
    );
    let [started, scratch] = ["started", "scratch"].map(|run| {
        let eval = format!("eval --supernet {run}/supernet.safetensors --data folder:two");
        ["largest", "smallest"].map(|arch| top1(&json("supernet", at, &format!("{eval} --arch {arch}"))))
    });
    assert!(started[0] > scratch[0] && started[1] > scratch[1], "{started:?} and {scratch:?}");
    // goes on with the same command, and a start from a run's folder is one from its supernet
    let again = format!("train --start {start} --data folder:two --recipe start.toml --out started --resume");
    json("supernet", at, &again);
    let other = again.replace(&format!("--start {start}"), "--space two.toml --resize stretch");
    let refused = fails("supernet", at, &other, 1);
    assert!(refused.contains("resume with the flags"), "{refused}");
    json("supernet", at, "train --start started --data folder:two --scale 0.0001 --out further");
    let further = Supernet::read(&at.join("further/supernet.safetensors")).expect("written");
    let Provenance::Trained(training) = &further.provenance else { panic!("trained here") };
    let from = training.start.as_ref().expect("said");
    assert_eq!((&from.weights, from.fresh_classifier), (&trained.hash, false));
}

#[test]
fn the_head_learns_with_all_else_frozen() {
    let source = pipeline();
    let folder = tempfile::tempdir().expect("a folder");
    let at = folder.path();
    two_classes(at);
    let start = source.join("run/supernet.safetensors");
    // the phases after the first move nothing
    std::fs::write(at.join("head.toml"), recipe(Some(2.0), 0.01, 0.01, 0.0)).expect("written");
    let train = format!("train --start {} --data folder:two --recipe head.toml", start.display());
    json("supernet", at, &format!("{train} --out run"));
    let [before, after] = [start, at.join("run/supernet.safetensors")]
        .map(|file| Supernet::read(&file).expect("there").weights);
    let mut moved = 0;
    for (name, tensor) in after.tensors() {
        if name.starts_with("classifier.") {
            let magnitude: f32 = values(tensor).iter().map(|value| value.abs()).sum();
            assert!(magnitude > 0.0, "{name}");
            moved += 1;
        } else if !name.contains("_matrix") {
            // sorted: the same values in another order
            let sorted = |tensor| {
                let mut values = values(tensor);
                values.sort_by(f32::total_cmp);
                values
            };
            assert!(sorted(tensor) == sorted(before.get(name).expect("the same names")), "{name}");
        }
    }
    assert_eq!(moved, 2);
    let log = std::fs::read_to_string(at.join("run/log.jsonl")).expect("a log");
    let losses: Vec<f64> = log
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("whole lines"))
        .filter(|line| line["phase"] == "head" && line["event"] == "step")
        .map(|line| line["loss"].as_f64().expect("a number"))
        .collect();
    let mean = |losses: &[f64]| losses.iter().sum::<f64>() / losses.len() as f64;
    assert!(losses.len() == 50 && mean(&losses[40..]) < 0.9 * mean(&losses[..5]), "{losses:?}");
}

struct Stopper<'a> {
    stop: &'a AtomicBool,
    at: Option<u64>,
}

impl Observer for Stopper<'_> {
    fn phase(&mut self, _: &PlannedPhase, _: u64) {}

    fn step(&mut self, record: &StepRecord) {
        if Some(record.step) == self.at {
            self.stop.store(true, Ordering::Relaxed);
        }
    }

    fn evaluated(&mut self, _: &Arch, _: Accuracy) {}
}

#[test]
fn a_started_run_that_is_stopped_ends_with_the_same_bytes() {
    let source = pipeline();
    let folder = tempfile::tempdir().expect("a folder");
    let at = folder.path();
    two_classes(at);
    let start = Start::read(&source.join("run")).expect("a run's folder");
    let dataset = Dataset::open(&format!("folder:{}", at.join("two").display())).expect("a folder");
    let recipe = Recipe::from_toml("start", &recipe(Some(0.2), 0.2, 0.2, 0.01)).expect("a recipe");
    let train = |run: &str, stop_at: Option<u64>| {
        let config =
            TrainConfig { seed: 2, checkpoint_every: Duration::from_secs(3600), backend: Backend::detect() };
        let folder = RunFolder::open(&at.join(run), true).expect("a folder");
        let space = start.space_for(None, dataset.classes().len()).expect("its own");
        let seen = start.see(&dataset, &space, None).expect("channels that fit");
        let task =
            TrainTask { space, dataset: Arc::new(seen), recipe: &recipe, start: &start, teacher: None };
        let mut trainer = Trainer::of(task, folder, config).expect("it fits");
        let stop = AtomicBool::new(false);
        trainer.run(&stop, &mut Stopper { stop: &stop, at: stop_at }).expect("no errors")
    };
    assert_eq!(train("whole", None), RunOutcome::Finished);
    for stop_at in [1, 4, 6, 11] {
        assert_eq!(train("parts", Some(stop_at)), RunOutcome::Interrupted { step: stop_at + 1 });
    }
    assert_eq!(train("parts", None), RunOutcome::Finished);
    let bytes = |run: &str, file: &str| std::fs::read(at.join(run).join(file)).expect("weights");
    for file in ["supernet.safetensors", "teacher.safetensors"] {
        assert!(bytes("whole", file) == bytes("parts", file), "{file}");
    }
}

#[test]
fn one_network_learns_other_classes_too() {
    let source = pipeline();
    let folder = tempfile::tempdir().expect("a folder");
    let at = folder.path();
    two_classes(at);
    let supernet = source.join("run/supernet.safetensors");
    let export =
        format!("export --supernet {} --data digits --arch smallest --out model", supernet.display());
    json("extract", at, &export);
    let refused = fails("supernet", at, "finetune model --data folder:two --out tuned", 1);
    assert!(refused.contains("classes: expected 10, got 2") && refused.contains("--new-head"), "{refused}");
    let finetune = "finetune model --new-head --data folder:two --epochs 4 --batch 16 --lr 0.02";
    let tuned = json("supernet", at, &format!("{finetune} --out tuned"));
    let [before, after] = ["before", "after"].map(|when| tuned[when]["top1"].as_f64().expect("a share"));
    assert!(after > before.max(0.75), "{tuned}");
    let model = ModelFolder::read(&at.join("tuned")).expect("a model");
    assert_eq!(model.config.classes, ["round", "straight"]);
    assert_eq!(model.config.space.classes(), 2);
    let was = ModelFolder::read(&at.join("model")).expect("a model");
    assert_eq!(model.config.input, was.config.input);
    let last = model.config.origin.fine_tuned.last().expect("said");
    assert_eq!((&last.from.model, last.new_head), (&was.config.model_hash, true));
    let predicted = json("extract", at, "predict tuned two/val/round/000.png");
    assert_eq!(predicted["predictions"][0]["top"].as_array().expect("scores").len(), 2);
    // the same command goes on; a finished one is trained further into another folder
    json("supernet", at, &format!("{finetune} --out tuned --resume"));
    let refused =
        fails("supernet", at, &format!("{finetune} --out tuned --resume").replace("epochs 4", "epochs 9"), 1);
    assert!(refused.contains("it has finished: `supernet finetune tuned --out ANOTHER`"), "{refused}");
    json("supernet", at, "finetune tuned --data folder:two --epochs 1 --batch 16 --out further");
    let further = ModelFolder::read(&at.join("further")).expect("a model");
    assert_eq!(further.config.origin.fine_tuned.len(), 2);
}
