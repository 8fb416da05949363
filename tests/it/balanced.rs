//! Training on classes of unequal size: balanced sampling and class weights.

use std::path::Path;
use std::sync::Arc;

use kernels::Backend;
use network::checkpoint::Supernet;
use network::data::{Dataset, DatasetOrigin, ImageSet, Images, Split, Splits};
use network::eval::{Calibration, Evaluator};
use space::{SearchSpace, preset, sampler};
use supernet::train::{Recipe, RunFolder, RunOutcome, Trainer};

use crate::testing::commands::{fails, json, pipeline};
use crate::testing::files::{plan_of, scratch, weights_of, write_file};
use crate::testing::training::{StopAt, config_without_clock, short_recipe, train_until};

/// The digits of the common and of the rare class, which look alike.
const DIGITS: [usize; 2] = [8, 3];

/// Digits of two classes, with these numbers for training, and all of the test split for validation.
fn unbalanced(counts: [usize; 2]) -> Dataset {
    let digits = Dataset::open("digits").expect("embedded");
    let set = |split: Split, most: [usize; 2]| {
        let Images::Pixels(all) = digits.split(split).expect("there") else { panic!("in memory") };
        let mut pixels = Vec::new();
        let mut labels = Vec::new();
        for (label, (digit, most)) in DIGITS.iter().zip(most).enumerate() {
            for image in (0..all.len()).filter(|image| all.label(*image) as usize == *digit).take(most) {
                pixels.extend_from_slice(all.pixels(image).bytes().expect("bytes"));
                labels.push(label as u32);
            }
        }
        Images::from(ImageSet::new(pixels, labels, [8, 8, 1], 2).expect("a set"))
    };
    let origin = DatasetOrigin { name: "unbalanced".to_string(), source: String::new(), flip: false };
    let all = [usize::MAX; 2];
    let splits = Splits { train: set(Split::Train, counts), val: set(Split::Test, all), test: None };
    Dataset::new(origin, ["common", "rare"].map(str::to_string).to_vec(), splits).expect("a data set")
}

fn two_classes() -> SearchSpace {
    preset("tiny").and_then(|space| space.with_classes(2)).expect("a space")
}

/// Trains the largest network only, with these fields in the recipe.
fn train(folder: &Path, fields: &str, stop_at: StopAt) -> RunOutcome {
    let recipe = short_recipe(6.0, &[("full", 0.05, 1, 1)]);
    let recipe = recipe.replacen("batch = 64", &format!("batch = 16\n{fields}"), 1);
    let recipe = Recipe::from_toml("balanced", &recipe).expect("a recipe");
    let run = RunFolder::open(folder, true).expect("a folder");
    let dataset = Arc::new(unbalanced([100, 10]));
    let mut trainer =
        Trainer::new(two_classes(), dataset, &recipe, run, config_without_clock(2)).expect("it fits");
    train_until(&mut trainer, stop_at)
}

/// The recall of the rare class.
fn recall(folder: &Path) -> f64 {
    let supernet = Supernet::read(&folder.join("supernet.safetensors")).expect("done");
    let dataset = unbalanced([100, 10]);
    let evaluator = Evaluator {
        space: &supernet.space,
        weights: &supernet.weights,
        dataset: &dataset,
        calibration: Calibration::default(),
        backend: Backend::detect(),
    };
    let judged = evaluator.evaluate(&sampler::largest(&supernet.space), None, Split::Val).expect("it fits");
    judged.per_class()[1].top1()
}

#[test]
fn a_rare_class_is_found_more_often_where_classes_are_balanced() {
    let folder = scratch();
    let at = |name: &str| folder.path().join(name);
    let of = |name: &str, fields: &str| {
        assert_eq!(train(&at(name), fields, StopAt::Never), RunOutcome::Finished);
        recall(&at(name))
    };
    let plain = of("plain", "");
    let sampled = of("sampled", "sampling = \"balanced\"");
    let weighted = of("weighted", "class_weights = \"balanced\"");
    println!("recall of the rare class: {plain:.3}, sampled {sampled:.3}, weighted {weighted:.3}");
    assert!(sampled > plain + 0.1 && weighted > plain + 0.1, "{plain}, {sampled}, {weighted}");
    let plan = |name: &str| plan_of(&at(name))["plan"].clone();
    assert_eq!(plan("weighted")["class_weights"], serde_json::json!([0.55, 5.5]));
    assert_eq!(plan("sampled")["sampling"], "balanced");
    assert!(plan("plain").get("sampling").is_none() && plan("plain").get("class_weights").is_none());
}

#[test]
fn a_balanced_run_that_is_stopped_ends_with_the_same_bytes() {
    let folder = scratch();
    let at = |name: &str| folder.path().join(name);
    let fields = "sampling = \"balanced\"\nclass_weights = { rare = 3.0, common = 1.0 }";
    assert_eq!(train(&at("whole"), fields, StopAt::Never), RunOutcome::Finished);
    for stop_at in [0, 5, 6, 20] {
        assert_eq!(
            train(&at("parts"), fields, StopAt::Step(stop_at)),
            RunOutcome::Interrupted { step: stop_at + 1 }
        );
    }
    assert_eq!(train(&at("parts"), fields, StopAt::Never), RunOutcome::Finished);
    assert!(weights_of(&at("whole")) == weights_of(&at("parts")));
}

#[test]
fn finetune_balances_too_and_wrong_names_are_told() {
    let at = pipeline();
    let export =
        "export --supernet run/supernet.safetensors --data digits --arch smallest --out balanced-model";
    json("extract", at, export);
    let line =
        "finetune balanced-model --data digits --epochs 1 --sampling balanced --class-weights balanced";
    json("supernet", at, &format!("{line} --out balanced-tuned"));
    let plan = plan_of(&at.join("balanced-tuned"));
    assert_eq!(plan["plan"]["sampling"], "balanced");
    assert_eq!(plan["plan"]["class_weights"].as_array().map(Vec::len), Some(10));
    json("supernet", at, &format!("{line} --out balanced-tuned --resume"));
    let recipe = short_recipe(1.0, &[("full", 0.05, 1, 1)]).replacen(
        "[[phases]]",
        "[class_weights]\nzero = 2.0\n[[phases]]",
        1,
    );
    write_file(at.join("names.toml"), recipe);
    let train = "train --space tiny --data digits --recipe names.toml --out balanced-names";
    let message = fails("supernet", at, train, 1);
    assert!(
        message.contains("a weight for each class: `0`, `1`, ") && message.contains("unknown: `zero`"),
        "{message}"
    );
}
