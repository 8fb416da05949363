use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

use super::*;
use crate::{SearchSpace, arch_file, preset, preset_names, sampler};

/// A space at one resolution, for which a `net.config` needs no other file.
fn space(name: &str) -> SearchSpace {
    let space = preset(name).expect("a preset");
    let lowest = space.resolutions()[..1].to_vec();
    space.at_resolutions(&lowest).expect("one of its own")
}

fn read(space: &SearchSpace, config: &Value) -> Result<Arch> {
    arch_file::from_json(space, "net.config", &config.to_string())
}

#[test]
fn what_is_written_is_read() {
    for space in preset_names().map(space).filter(|space| class_of(space).is_ok()) {
        let name = space.name();
        let mut rng = ChaCha8Rng::seed_from_u64(5);
        let mut archs = vec![sampler::smallest(&space), sampler::largest(&space)];
        archs.extend((0..20).map(|_| sampler::random(&space, &mut rng)));
        for arch in archs {
            let config = net_config(&space, &arch).expect("a form");
            assert_eq!(read(&space, &config).expect(name), arch, "{name}");
        }
    }
}

/// A space and the config of its largest sub-network.
fn largest(name: &str) -> (SearchSpace, Value) {
    let space = space(name);
    let config = net_config(&space, &sampler::largest(&space)).expect("a form");
    (space, config)
}

/// Checks that a config with one changed value is refused, and that the error has the given part.
fn refused(space: &SearchSpace, config: &Value, at: &str, value: Value, part: &str) {
    let mut altered = config.clone();
    *altered.pointer_mut(at).expect(at) = value;
    let error = read(space, &altered).expect_err(at).to_string();
    assert!(error.starts_with("net.config: ") && error.contains(part), "{at}: {error}");
}

#[test]
fn a_config_of_another_network_is_refused_with_block_and_field() {
    let (space, config) = largest("ofa-mbv3-w1.0");
    for (at, value, part) in [
        ("/name", json!("ProxylessNASNets"), "name: expected MobileNetV3, the family of space"),
        ("/bn/eps", json!(1e-3), "bn.eps: expected 0.00001 (space ofa-mbv3-w1.0), got 0.001"),
        ("/first_conv/out_channels", json!(24), "first_conv.out_channels: expected 16"),
        ("/first_conv/act_func", Value::Null, "first_conv.act_func: expected h_swish"),
        ("/blocks/2/conv/kernel_size", json!(9), "kernel of stage 1, block 2: expected one of 3, 5, 7"),
        ("/blocks/2/conv/mid_channels", json!(80), "blocks.2.conv.mid_channels: expected one of 72, 96"),
        ("/blocks/2/conv/mid_channels", json!("72"), "blocks.2.conv.mid_channels: expected a whole"),
        ("/blocks/2/conv/expand_ratio", json!(1), "blocks.2.conv.expand_ratio: expected 6"),
        ("/blocks/2/conv/in_channels", json!(32), "blocks.2.conv.in_channels: expected 24"),
        ("/blocks/2/conv/groups", json!(2), "blocks.2.conv.groups: expected none"),
        ("/blocks/2/conv/use_se", json!(true), "blocks.2.conv.use_se: expected false"),
        ("/blocks/2/shortcut", Value::Null, "blocks.2.shortcut: expected a IdentityLayer"),
        ("/blocks/5/conv/out_channels", json!(48), "blocks.5.conv.out_channels: expected 40, got 48"),
        ("/blocks/5/conv/stride", json!(1), "blocks.5.conv.stride: expected 2"),
        ("/blocks/0", Value::Null, "blocks.0: expected a ResidualBlock"),
        ("/blocks", json!([]), "depth of stage 1: expected one of 2, 3, 4, got 0"),
        ("/blocks", json!(7), "blocks: expected a list, got 7"),
        ("/classifier/out_features", json!(10), "classifier.out_features: expected 1000"),
        ("/feature_mix_layer/use_bn", json!(true), "feature_mix_layer.use_bn: expected false"),
    ] {
        refused(&space, &config, at, value, part);
    }
    let (space, config) = largest("ofa-resnet50");
    for (at, value, part) in [
        ("/input_stem", json!([]), "input_stem: expected a list of 2 or 3"),
        ("/input_stem/0/out_channels", json!(48), "input_stem.0.out_channels: expected 24 or 32"),
        ("/input_stem/1/shortcut", Value::Null, "input_stem.1.shortcut"),
        ("/blocks/0/downsample_mode", json!("conv"), "blocks.0.downsample_mode: expected avgpool_conv"),
        ("/blocks/1/out_channels", json!(208), "blocks.1.out_channels: expected 336"),
        ("/blocks/1/mid_channels", json!(1e300), "blocks.1.mid_channels: expected a whole number"),
    ] {
        refused(&space, &config, at, value, part);
    }
}

#[test]
fn unknown_fields_and_surplus_blocks_are_refused() {
    let (space, config) = largest("ofa-mbv3-w1.0");
    let mut more = config.clone();
    more["blocks"][3]["conv"]["gates"] = json!(2);
    let error = read(&space, &more).expect_err("unknown").to_string();
    assert!(error.contains("blocks.3.conv.gates: expected none"), "{error}");
    let many = vec![config["blocks"][2].clone(); 200];
    more["blocks"] = json!(many);
    let error = read(&space, &more).expect_err("many").to_string();
    assert!(error.contains("blocks.1.conv.mid_channels: expected one of 48, 64, 96, got 144"), "{error}");
}

#[test]
fn words_of_older_releases_and_defaults_are_understood() {
    let space = space("ofa-mbv3-w1.0");
    let arch = sampler::smallest(&space);
    let mut config = net_config(&space, &arch).expect("a form");
    config["bn"] = json!({ "momentum": 0.01, "eps": 1e-5, "ws_eps": null });
    config["classifier"]["dropout_rate"] = json!(0.2);
    for block in config["blocks"].as_array_mut().expect("a list") {
        let fields = block.as_object_mut().expect("an object");
        fields["name"] = json!("MobileInvertedResidualBlock");
        let mut conv = fields.remove("conv").expect("a block has one");
        conv["name"] = json!("MBInvertedConvLayer");
        let layer = conv.as_object_mut().expect("an object");
        // 3 times the input is a multiple of 8 already
        (layer["mid_channels"], _) = (Value::Null, layer.remove("groups"));
        fields.insert("mobile_inverted_conv".to_string(), conv);
        if let Some(shortcut) = fields["shortcut"].as_object_mut() {
            shortcut["in_channels"] = json!([shortcut["in_channels"]]);
            shortcut.remove("ops_order");
        }
    }
    assert_eq!(read(&space, &config).expect("the same"), arch);
}

#[test]
fn the_resolution_is_that_of_the_file_beside_it() {
    let space = preset("tiny").expect("a preset");
    let arch = sampler::largest(&space);
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join(NET_CONFIG);
    let config = net_config(&space, &arch).expect("a form");
    std::fs::write(&path, config.to_string()).expect("written");
    let read = || arch_file::read(&space, path.to_str().expect("a plain path")).map_err(|e| e.to_string());
    let error = read().expect_err("no resolution");
    assert!(error.contains("net.config: resolution: expected a run.config beside it, got none"), "{error}");
    for (run, part) in
        [("{}", "run.config: image_size"), (r#"{"image_size": 9}"#, "expected one of 8, 12, got 9")]
    {
        std::fs::write(folder.path().join(RUN_CONFIG), run).expect("written");
        let error = read().expect_err(run);
        assert!(error.contains(part), "{error}");
    }
    std::fs::write(folder.path().join(RUN_CONFIG), run_config(&arch).to_string()).expect("written");
    assert_eq!(read(), Ok(arch));
}

#[test]
fn what_ofa_cannot_build_is_not_written() {
    let tiny = preset("tiny").expect("a preset").to_toml();
    for (from, to, part) in [
        ("expand = [3, 4, 6]", "expand = [1]", "blocks.1.expand_ratio: expected a value other than 1"),
        (
            "expand = [\n    3,\n    4,\n    6,\n]",
            "expand = [1]",
            "blocks.1.expand_ratio: expected a value other than 1",
        ),
        ("stride = 2\nactivation = \"relu\"", "stride = 2\nactivation = \"none\"", "blocks.1.act_func"),
    ] {
        if !tiny.contains(from) {
            continue;
        }
        let space = SearchSpace::from_toml("x", &tiny.replacen(from, to, 1)).expect("a space");
        let error = net_config(&space, &sampler::largest(&space)).expect_err(part).to_string();
        assert!(error.contains(part) && error.ends_with("has no form for it"), "{error}");
    }
}
