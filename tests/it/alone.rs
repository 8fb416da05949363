//! One sub-network trained alone, and recipes of one phase.

use std::path::Path;

use network::checkpoint::Supernet;
use space::{preset, sampler};

use crate::testing::commands::{assert_fails, json};
use crate::testing::files::{plan_of, scratch, weights_of};
#[cfg(unix)]
use crate::testing::signals::{When, interrupt};

const ARCH: &str = "r8:k3e4/k5e3";
const TRAIN: &str = "train --space tiny --data digits --scale 0.02 --quiet";

fn supernet(at: &Path, run: &str) -> Supernet {
    Supernet::read(&at.join(run).join("supernet.safetensors")).expect("sound")
}

#[test]
fn a_network_trained_alone_is_all_that_its_supernet_holds() {
    let folder = scratch();
    let at = folder.path();
    json("supernet", at, &format!("{TRAIN} --arch {ARCH} --out alone"));
    let alone = supernet(at, "alone");
    assert_eq!(alone.space.subnetworks(), 1u32.into());
    assert_eq!(sampler::smallest(&alone.space).to_string(), ARCH);
    let layers = preset("tiny").expect("a preset").lower(&sampler::largest(&alone.space)).expect("its own");
    let own: usize = layers
        .iter()
        .flat_map(space::LayerSpec::weights)
        .map(|weight| weight.shape.iter().product::<usize>())
        .sum();
    let held: usize = alone.weights.tensors().values().map(candle_core::Tensor::elem_count).sum();
    assert_eq!(held, own, "no larger weights, and no matrices between kernel sizes");

    let plan = plan_of(&at.join("alone"));
    assert_eq!(plan["plan"]["phases"].as_array().map(Vec::len), Some(1), "the others have nothing to add");
    let evaluation =
        json("supernet", at, "eval --supernet alone/supernet.safetensors --data digits --arch largest");
    assert_eq!(evaluation["results"][0]["arch"], ARCH);
    assert!(evaluation["results"][0]["top1"].as_f64().is_some_and(|top1| top1 > 0.5), "{evaluation}");
    json(
        "extract",
        at,
        "export --supernet alone/supernet.safetensors --arch largest --data digits --out model",
    );
    json("extract", at, "verify model --supernet alone/supernet.safetensors");
    let other = format!("{TRAIN} --arch r8:k3e4/k5e4 --out alone --resume");
    assert_fails("supernet", at, &other, 1, "alone");
    assert_fails("supernet", at, &format!("{TRAIN} --arch r8:k9e4/k5e4 --out other"), 1, "--arch");
}

/// Training the largest network alone gives the same weights as training in a space whose lists have one choice each.
#[test]
fn a_largest_network_alone_is_that_of_a_space_of_single_choices() {
    let folder = scratch();
    let at = folder.path();
    let text = preset("tiny").expect("a preset").to_toml();
    let singles: String = text
        .lines()
        .map(|line| match line.split_once(" = ").map_or("", |(key, _)| key) {
            "resolutions" => "resolutions = [8]\n".to_string(),
            "kernel" => "kernel = [7]\n".to_string(),
            "expand" => "expand = [6]\n".to_string(),
            "depth" => "depth = [2]\n".to_string(),
            _ => format!("{line}\n"),
        })
        .collect();
    std::fs::write(at.join("single.toml"), singles).expect("written");
    json("supernet", at, "train --space single.toml --data digits --scale 0.004 --quiet --out single");
    json(
        "supernet",
        at,
        "train --space tiny --arch r8:k7e6,k7e6/k7e6,k7e6 --data digits --scale 0.004 --quiet --out alone",
    );
    let [single, alone] = ["single", "alone"].map(|run| supernet(at, run));
    assert_eq!(single.weights.tensors().len(), alone.weights.tensors().len());
    for (name, tensor) in single.weights.tensors() {
        let values = |tensor: &candle_core::Tensor| {
            tensor.flatten_all().and_then(|flat| flat.to_vec1::<f32>()).expect("f32")
        };
        assert!(values(tensor) == values(alone.weights.get(name).expect("the same names")), "{name}");
    }
}

#[test]
fn a_network_alone_can_start_from_shared_weights() {
    let folder = scratch();
    let at = folder.path();
    json("supernet", at, "train --space tiny --data digits --scale 0.01 --quiet --out run");
    let start = "train --start run --data digits --scale 0.004 --quiet";
    json("supernet", at, &format!("{start} --arch {ARCH} --lr 0.001 --out alone"));
    assert_eq!(sampler::largest(&supernet(at, "alone").space).to_string(), ARCH);
    // an own space may have other resolutions than the weights'
    let text = preset("tiny").expect("a preset").to_toml();
    let text: String = text
        .lines()
        .map(|line| match line.starts_with("resolutions") {
            true => "resolutions = [10, 12]\n".to_string(),
            false => format!("{line}\n"),
        })
        .collect();
    std::fs::write(at.join("finer.toml"), text).expect("written");
    json("supernet", at, &format!("{start} --space finer.toml --arch r12:k3e4/k5e3 --out finer"));
    assert_fails(
        "supernet",
        at,
        &format!("{start} --space fashion --arch smallest --out other"),
        1,
        "leave out --space",
    );
    // recipes of one phase begin with their classifier alone where that is fresh
    json("supernet", at, &format!("{start} --recipe alphanet --lr 0.001 --out again"));
    json("supernet", at, &format!("{start} --recipe sandwich --arch {ARCH} --lr 0.001 --out single"));
    assert_eq!(plan_of(&at.join("single"))["plan"]["phases"][0]["subnetworks"], 1);
}

#[test]
#[cfg(unix)]
fn killed_runs_of_one_phase_end_with_the_same_bytes() {
    let folder = scratch();
    let at = folder.path();
    for recipe in ["sandwich", "alphanet", "attentive"] {
        let train = format!("train --space tiny --data digits --recipe {recipe} --scale 0.02 --quiet");
        json("supernet", at, &format!("{train} --out whole-{recipe}"));
        let killed = format!("{train} --out killed --resume --checkpoint-seconds 0 --threads 1");
        let saved = When::Changed("killed/checkpoint.safetensors");
        assert_eq!(interrupt(at, "supernet", &killed, "-KILL", saved), None, "killed by the signal");
        let grown = When::Changed("killed/log.jsonl");
        assert_eq!(interrupt(at, "supernet", &killed, "-INT", grown), Some(130), "saved and said so");
        // a run goes on by its own recipe
        json("supernet", at, &killed.replace(&format!(" --recipe {recipe}"), ""));
        assert!(
            weights_of(&at.join("killed")) == weights_of(&at.join(format!("whole-{recipe}"))),
            "{recipe}"
        );
        std::fs::remove_dir_all(at.join("killed")).expect("removed");
    }
}

/// The message of a divergence says so: lower the rate by --lr, and continue with --resume.
#[test]
#[cfg(unix)]
fn a_run_goes_on_at_another_rate_without_its_recipe() {
    let folder = scratch();
    let at = folder.path();
    let train = "train --space tiny --data digits --recipe sandwich --scale 0.1 --quiet --out run";
    let grown = When::Changed("run/log.jsonl");
    assert_eq!(interrupt(at, "supernet", train, "-INT", grown), Some(130), "saved and said so");
    let resume = "train --space tiny --data digits --scale 0.1 --quiet --out run --resume";
    json("supernet", at, &format!("{resume} --lr 0.01"));
    let document = plan_of(&at.join("run"));
    assert_eq!(
        (&document["plan"]["recipe"], &document["plan"]["phases"][0]["scaled_lr"]),
        (&"sandwich".into(), &0.01.into())
    );
    assert!(document["earlier"].is_array(), "the first steps keep their plan: {document}");
}
