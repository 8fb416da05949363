//! Training that starts from the weights of a supernet or of one network, for the same classes or for others.

use std::path::Path;
use std::sync::Arc;

use candle_core::Tensor;
use image::GrayImage;
use network::checkpoint::{Provenance, Supernet};
use network::data::{Dataset, Images, Split};
use network::model_folder::ModelFolder;
use serde_json::Value;
use supernet::train::{Recipe, RunFolder, RunOutcome, Start, TrainTask, Trainer};

use crate::testing::commands::{assert_fails, fails, json, pipeline};
use crate::testing::files::{log_of, read_bytes, scratch, write_file};
use crate::testing::formula::values;
use crate::testing::training::{StopAt, config_without_clock, train_until};

/// Phases of so many epochs: the head, the full network, all sub-networks.
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

/// Writes digits of two classes, round and straight, as images: 200 per class for training, 60 for validation.
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
    let folder = scratch();
    let at = folder.path();
    two_classes(at);
    let imported = source.join("run/supernet.safetensors");
    let start = imported.display();
    write_file(at.join("start.toml"), recipe(Some(1.0), 1.0, 1.0, 0.01));
    write_file(at.join("scratch.toml"), recipe(None, 2.0, 1.0, 0.05));
    json(
        "supernet",
        at,
        &format!("train --start {start} --data folder:two --recipe start.toml --out started"),
    );
    let trained = Supernet::read(&at.join("started/supernet.safetensors")).expect("written");
    let was = Supernet::read(&imported).expect("there");
    assert_eq!((trained.space.classes(), trained.space.name()), (2, "tiny"));
    assert_eq!(trained.interface.preprocess, was.interface.preprocess, "the same preprocessing");
    assert_eq!(trained.classes().expect("named"), ["round", "straight"]);
    let Provenance::Trained(training) = &trained.provenance else { panic!("trained here") };
    let from = training.start.as_ref().expect("said");
    assert_eq!((&from.weights, from.fresh_classifier), (&was.hash, true));
    // as many steps from fresh weights
    write_file(at.join("two.toml"), was.space.to_toml().replace("classes = 10", "classes = 2"));
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
    // the same command resumes; the folder of a run stands for its supernet
    let again = format!("train --start {start} --data folder:two --recipe start.toml --out started --resume");
    json("supernet", at, &again);
    let other = again.replace(&format!("--start {start}"), "--space two.toml --resize stretch");
    assert_fails("supernet", at, &other, 1, "resume with the flags");
    json("supernet", at, "train --start started --data folder:two --scale 0.0001 --out further");
    let further = Supernet::read(&at.join("further/supernet.safetensors")).expect("written");
    let Provenance::Trained(training) = &further.provenance else { panic!("trained here") };
    let from = training.start.as_ref().expect("said");
    assert_eq!((&from.weights, from.fresh_classifier), (&trained.hash, false));
}

#[test]
fn the_head_learns_with_all_else_frozen() {
    let source = pipeline();
    let folder = scratch();
    let at = folder.path();
    two_classes(at);
    let start = source.join("run/supernet.safetensors");
    // the phases after the first move nothing
    write_file(at.join("head.toml"), recipe(Some(2.0), 0.01, 0.01, 0.0));
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
            let sorted = |tensor: &Tensor| {
                let mut values = values(tensor);
                values.sort_by(f32::total_cmp);
                values
            };
            assert!(sorted(tensor) == sorted(before.get(name).expect("the same names")), "{name}");
        }
    }
    assert_eq!(moved, 2);
    let losses: Vec<f64> = log_of(&at.join("run"))
        .iter()
        .filter(|line| line["phase"] == "head" && line["event"] == "step")
        .map(|line| line["loss"].as_f64().expect("a number"))
        .collect();
    let mean = |losses: &[f64]| losses.iter().sum::<f64>() / losses.len() as f64;
    assert!(losses.len() == 50 && mean(&losses[40..]) < 0.9 * mean(&losses[..5]), "{losses:?}");
}

#[test]
fn a_started_run_that_is_stopped_ends_with_the_same_bytes() {
    let source = pipeline();
    let folder = scratch();
    let at = folder.path();
    two_classes(at);
    let start = Start::read(&source.join("run")).expect("a run's folder");
    let dataset = Dataset::open(&format!("folder:{}", at.join("two").display())).expect("a folder");
    let recipe = Recipe::from_toml("start", &recipe(Some(0.2), 0.2, 0.2, 0.01)).expect("a recipe");
    let train = |run: &str, stop_at: StopAt| {
        let folder = RunFolder::open(&at.join(run), true).expect("a folder");
        let space = start.space_for(None, dataset.classes().len()).expect("its own");
        let seen = start.see(&dataset, &space, None).expect("channels that fit");
        let task = TrainTask {
            space,
            dataset: Arc::new(seen),
            recipe: &recipe,
            start: &start,
            teacher: None,
            latency_table: None,
        };
        let mut trainer = Trainer::of(task, folder, config_without_clock(2)).expect("it fits");
        train_until(&mut trainer, stop_at)
    };
    assert_eq!(train("whole", StopAt::Never), RunOutcome::Finished);
    for stop_at in [1, 4, 6, 11] {
        assert_eq!(train("parts", StopAt::Step(stop_at)), RunOutcome::Interrupted { step: stop_at + 1 });
    }
    assert_eq!(train("parts", StopAt::Never), RunOutcome::Finished);
    let bytes = |run: &str, file: &str| read_bytes(at.join(run).join(file));
    for file in ["supernet.safetensors", "teacher.safetensors"] {
        assert!(bytes("whole", file) == bytes("parts", file), "{file}");
    }
}

#[test]
fn one_network_learns_other_classes_too() {
    let source = pipeline();
    let folder = scratch();
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
    assert_fails(
        "supernet",
        at,
        &format!("{finetune} --out tuned --resume").replace("epochs 4", "epochs 9"),
        1,
        "it has finished: `supernet finetune tuned --out ANOTHER`",
    );
    json("supernet", at, "finetune tuned --data folder:two --epochs 1 --batch 16 --out further");
    let further = ModelFolder::read(&at.join("further")).expect("a model");
    assert_eq!(further.config.origin.fine_tuned.len(), 2);
}
