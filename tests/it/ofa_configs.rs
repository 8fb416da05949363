//! Network descriptions of PyTorch's `ofa`: those that its code writes, and those that its authors published.

use std::path::Path;

use serde_json::{Value, json};
use space::arch_file::{self, net_config, run_config};
use space::{Arch, SearchSpace, preset};

use crate::testing::files::read_json;
use crate::testing::spaces::at_one_resolution;

/// Checks for the same fields with the same values. Fields that only some releases have may hold their neutral value.
fn assert_same(path: &str, ours: &Value, theirs: &Value) {
    match (ours, theirs) {
        (Value::Object(a), Value::Object(b)) => {
            let older =
                |key: &str| if key == "mobile_inverted_conv" { "conv".to_string() } else { key.to_string() };
            for (key, value) in b {
                let mine = a.get(&older(key)).unwrap_or(&Value::Null);
                assert_same(&format!("{path}/{key}"), mine, value);
            }
            for (key, value) in a.iter().filter(|(key, _)| !b.keys().any(|other| older(other) == **key)) {
                assert!([json!(null), json!(false)].contains(value), "{path}/{key} is {value}");
            }
        }
        (Value::Array(a), Value::Array(b)) => {
            assert_eq!(a.len(), b.len(), "{path}");
            for (index, (ours, theirs)) in a.iter().zip(b).enumerate() {
                assert_same(&format!("{path}/{index}"), ours, theirs);
            }
        }
        (Value::Number(a), Value::Number(b)) => {
            // the dropout rate of training is not part of a network
            assert!(a.as_f64() == b.as_f64() || path == "/classifier/dropout_rate", "{path}: {a} not {b}");
        }
        (Value::Number(number), Value::Array(list)) => {
            assert_eq!(&[Value::Number(number.clone())], list.as_slice())
        }
        (Value::String(a), Value::String(b)) => {
            let renamed =
                [("ResidualBlock", "MobileInvertedResidualBlock"), ("MBConvLayer", "MBInvertedConvLayer")];
            assert!(a == b || renamed.contains(&(a.as_str(), b.as_str())), "{path}: {a} not {b}");
        }
        _ => assert_eq!(ours, theirs, "{path}"),
    }
}

/// The numbers of blocks of a sub-network's stages.
fn depths_of(arch: &Arch) -> Vec<usize> {
    let blocks =
        |stage: &str| stage.rsplit(':').next().unwrap_or(stage).split(',').filter(|b| !b.is_empty()).count();
    arch.choices().split('/').map(blocks).collect()
}

/// `make_ofa_net_configs.py` recorded the descriptions by the package.
#[test]
fn our_configs_are_those_of_ofas_code() {
    let mut names = Vec::new();
    for line in include_str!("../golden/ofa_net_configs.jsonl").lines() {
        let golden: Value = serde_json::from_str(line).expect("JSON");
        let name = golden["space"].as_str().expect("a name");
        let space = preset(name).and_then(|space| space.at_resolutions(&[160])).expect("a preset");
        let sampled = arch_file::from_json(&space, name, &golden["sample"].to_string()).expect("a sample");
        let read = arch_file::from_json(&space, name, &golden["config"].to_string()).expect("a config");
        assert_eq!(read, sampled, "{name}");
        assert_same("", &net_config(&space, &sampled).expect("a form"), &golden["config"]);
        names.push(name.to_string());
    }
    assert_eq!(names, ["ofa-mbv3-w1.0", "ofa-proxyless-w1.3", "ofa-resnet50", "ofa-resnet50"]);
}

/// The published networks belong to others and are not part of this repository.
#[test]
fn published_networks_are_read_and_written() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data/ofa");
    if !folder.is_dir() {
        println!("skipped: no published networks in {}", folder.display());
        return;
    }
    let presets = ["ofa-mbv3-w1.0", "ofa-mbv3-w1.2", "ofa-proxyless-w1.0", "ofa-proxyless-w1.3"];
    for (network, name, depths, refused) in [
        ("cpu_lat-15ms_top1-74.6_finetune-25", "ofa-proxyless-w1.3", [2, 2, 2, 3, 2, 1].as_slice(), None),
        ("flops-389M_top1-79.1_finetune-75", "ofa-mbv3-w1.2", &[2, 3, 3, 4, 4], None),
        ("note10_lat-22ms_top1-76.6_finetune-25", "ofa-mbv3-w1.0", &[2, 3, 3, 3, 4], None),
        ("note10_lat-64ms_top1-80.2_finetune-75", "ofa-mbv3-w1.2", &[3, 4, 4, 4, 4], Some("got 260")),
    ] {
        let path = folder.join(network).join("net.config");
        let read = |space: &SearchSpace| arch_file::read(space, path.to_str().expect("a plain path"));
        for other in presets.iter().filter(|other| **other != name) {
            let error = read(&preset(other).expect("a preset")).expect_err(other).to_string();
            assert!(error.contains("net.config: "), "{other}: {error}");
        }
        let mut space = preset(name).expect("a preset");
        if let Some(part) = refused {
            let error = read(&space).expect_err(network).to_string();
            assert!(error.contains("resolution: expected one of 160, ") && error.contains(part), "{error}");
            space = at_one_resolution(&space, 260);
        }
        let arch = read(&space).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(depths_of(&arch), depths, "{network}");
        let theirs = |file: &str| read_json(folder.join(network).join(file));
        assert_same("", &net_config(&space, &arch).expect("a form"), &theirs("net.config"));
        assert_eq!(run_config(&arch), theirs("run.config"));
    }
}
