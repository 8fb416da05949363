//! A supernet with finite weights and infinite logits: no command may report an accuracy for it.

use std::collections::HashMap;
use std::path::Path;

use base::random::rng_for;
use candle_core::{Device, Tensor};
use network::elastic::SharedWeights;
use space::preset;

use crate::testing::commands::{fails, json};
use crate::testing::files::{read_text, scratch};
use crate::testing::formula::formula;

/// Imports a supernet of `tiny`, with statistics, whose last batch norm scales beyond the range of f32.
fn exploded(at: &Path) {
    let space = preset("tiny").expect("a preset");
    let weights = SharedWeights::new(&space, &mut rng_for("weights", 1, &[])).expect("weights");
    let mut tensors: HashMap<String, Tensor> = HashMap::new();
    for (name, tensor) in weights.tensors() {
        if let Some(norm) = name.strip_suffix(".bn.weight") {
            for statistic in ["running_mean", "running_var"] {
                let name = format!("{norm}.bn.{statistic}");
                tensors.insert(name.clone(), formula(&name, tensor.dims()));
            }
        }
        tensors.insert(name.clone(), tensor.clone());
    }
    let scale = tensors.get_mut("final_expand_layer.bn.weight").expect("a batch norm");
    *scale = Tensor::full(3e38f32, scale.dims(), &Device::Cpu).expect("a tensor");
    candle_core::safetensors::save(&tensors, at.join("net.safetensors")).expect("written");
    json("supernet", at, "import net.safetensors --space tiny --out supernet.safetensors");
}

#[test]
fn no_command_gives_an_accuracy_to_logits_that_are_no_numbers() {
    let folder = scratch();
    let at = folder.path();
    exploded(at);
    let images = "--supernet supernet.safetensors --data digits";
    for (tool, line) in [
        ("supernet", format!("eval {images} --arch random:3")),
        ("supernet", format!("eval {images} --arch random:3 --inherit-bn")),
        ("supernet", format!("sample {images} --count 3 --calibration-images 200 --out rows.jsonl")),
        ("extract", format!("export {images} --arch random:3 --out model")),
        ("extract", format!("export {images} --arch random:3 --inherit-bn --out model")),
    ] {
        let message = fails(tool, at, &line, 1);
        assert!(
            message.contains("arch r") && message.contains("logits of image 1: expected finite"),
            "{message}"
        );
        assert!(message.contains("the network has no accuracy") && !message.contains('%'), "{message}");
    }
    let rows = read_text(at.join("rows.jsonl"));
    assert_eq!(rows.lines().count(), 1, "the header alone: {rows}");
    assert!(!at.join("model").exists(), "nothing was exported");
}
