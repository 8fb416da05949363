//! Files of torch.save (`tests/golden/make_pytorch.py`), whole and altered.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use base::random::rng_for;
use network::elastic::SharedWeights;
use network::pytorch::{self, Container, PickleValue, StateDict};
use proptest::prelude::*;
use space::SearchSpace;

use crate::testing::commands::{assert_fails, json, run, stdout};
use crate::testing::files::{read_bytes, scratch, write_file};
use crate::testing::formula::{formula, unit, values};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

const FILES: [(&str, Container); 2] =
    [("pytorch_zip.pth", Container::Zip), ("pytorch_legacy.pth", Container::Legacy)];

/// The value that the script gives a tensor of this type.
fn value_of(name: &str, element: &str, index: usize) -> f32 {
    let u = unit(name, index) as f32;
    let q = (64.0 * u).floor();
    match element {
        "f32" | "f64" => u,
        "f16" | "bf16" => q / 64.0,
        "u8" => q + 64.0,
        "bool" => f32::from(u8::from(q >= 0.0)),
        _ => q,
    }
}

#[test]
fn every_type_and_view_is_read_as_torch_wrote_it() {
    let table: [(&str, &[usize]); 12] = [
        ("f32", &[3, 4, 2]),
        ("f64", &[5]),
        ("f16", &[2, 3]),
        ("bf16", &[3, 2]),
        ("i64", &[7]),
        ("i32", &[2, 2]),
        ("i16", &[3]),
        ("i8", &[4]),
        ("u8", &[4]),
        ("bool", &[9]),
        ("scalar", &[]),
        ("empty", &[0, 3]),
    ];
    let base = |row: usize, column: usize| value_of("base", "f32", 6 * row + column);
    for (file, container) in FILES {
        let state = StateDict::read(&golden(file), None).expect("a network");
        assert_eq!((state.container(), state.names().count()), (container, 16), "{file}");
        let read = |name: &str| values(&state.tensor(name).expect("a tensor"));
        for (name, shape) in table {
            assert_eq!(state.get(name).expect("listed").shape(), shape, "{file}: {name}");
            let element = if name == "scalar" { "f32" } else { name };
            let expected: Vec<f32> =
                (0..shape.iter().product()).map(|index| value_of(name, element, index)).collect();
            assert_eq!(read(name), expected, "{file}: {name}");
        }
        let turned: Vec<f32> = (0..24).map(|index| base(index % 4, index / 4)).collect();
        assert_eq!(read("turned"), turned, "{file}");
        let part: Vec<f32> = (0..6).map(|index| base(1 + index / 3, 2 + index % 3)).collect();
        assert_eq!(read("part"), part, "{file}");
        let repeated: Vec<f32> = (0..6).map(|index| value_of("row", "f32", index % 3)).collect();
        assert_eq!(read("repeated"), repeated, "{file}");
        let parameter: Vec<f32> = (0..4).map(|index| value_of("parameter", "f32", index)).collect();
        assert_eq!(read("parameter"), parameter, "{file}");
    }
}

#[test]
fn what_lies_beside_the_network_is_read_too() {
    for (file, container) in FILES {
        let file = pytorch::read(&golden(file)).expect("a checkpoint");
        assert_eq!(file.container(), container);
        let get = |key: &str| file.value().get(key).expect("an entry");
        assert_eq!((get("epoch"), get("best_acc")), (&PickleValue::Int(3), &PickleValue::Float(0.5)));
        assert_eq!(get("name"), &PickleValue::Text("net".into()));
        assert_eq!(get("size"), &PickleValue::Tuple(vec![PickleValue::Int(4), PickleValue::Int(6)]));
        let Some(PickleValue::List(groups)) = get("optimizer").get("param_groups") else { panic!("a list") };
        assert_eq!(groups[0].get("lr"), Some(&PickleValue::Float(0.1)));
        assert_eq!(groups[0].get("params"), Some(&PickleValue::List(vec![PickleValue::Int(0)])));
    }
}

/// Writes the tiny space for images of so many channels, and its state dict with the names of an elastic network.
fn foreign_supernet(at: &Path, channels: usize) {
    let toml = space::preset("tiny").expect("a preset").to_toml();
    let toml = toml.replace("input_channels = 1", &format!("input_channels = {channels}"));
    write_file(at.join("space.toml"), &toml);
    let space = SearchSpace::from_toml("space.toml", &toml).expect("a space");
    let weights = SharedWeights::new(&space, &mut rng_for("weights", 1, &[])).expect("weights");
    let mut tensors = HashMap::new();
    for (name, tensor) in weights.tensors() {
        if let Some(norm) = name.strip_suffix(".bn.weight") {
            for last in ["running_mean", "running_var"] {
                let name = format!("{norm}.bn.bn.{last}");
                tensors.insert(name.clone(), formula(&name, tensor.dims()));
            }
        }
        tensors.insert(name.replace(".bn.", ".bn.bn."), tensor.clone());
    }
    candle_core::safetensors::save(&tensors, at.join("net.safetensors")).expect("written");
}

#[test]
fn an_imported_supernet_is_evaluated_and_exported_with_its_statistics() {
    let import = "import net.safetensors --space space.toml --out supernet.safetensors";
    let export = "export --supernet supernet.safetensors --arch random:3 --inherit-bn --out model";
    for (channels, data) in [(1, "--data digits"), (3, "")] {
        let folder = scratch();
        let at = folder.path();
        foreign_supernet(at, channels);
        let said = json("supernet", at, import);
        assert_eq!((&said["container"], &said["matrices_identity"]), (&"safetensors".into(), &0.into()));
        assert!(said["statistics"].as_u64() > Some(0), "{said}");
        json("extract", at, &format!("{export} {data}"));
        let inspected = json("extract", at, "inspect model");
        let origin = &inspected["facts"]["origin"];
        assert_eq!(origin["statistics"], "inherited");
        assert_eq!(origin["measured"].is_null(), data.is_empty(), "{origin}");
        let mean = &inspected["facts"]["input"]["mean"];
        assert_eq!(mean.as_array().map(Vec::len), Some(channels), "{mean}");
        json("extract", at, "verify model --supernet supernet.safetensors");
        let supernet = json("extract", at, "inspect supernet.safetensors");
        assert_eq!(supernet["facts"]["imported"]["file"], "net.safetensors");
        if data.is_empty() {
            continue;
        }
        let eval = "eval --supernet supernet.safetensors --data digits --arch random:3 --inherit-bn";
        let top1 = json("supernet", at, eval)["results"][0]["top1"].clone();
        assert_eq!(top1, origin["measured"]["top1"], "the same statistics");
        assert_fails("extract", at, export, 1, "say with --data which images the network takes");
        // the same sub-network, calibrated
        json("extract", at, &format!("{} {data}", export.replace("--inherit-bn", "")));
        assert!(
            json("extract", at, "inspect model")["facts"]["origin"]["statistics"]["calibrated"].is_object()
        );
    }
}

#[test]
fn an_import_says_what_it_chose_and_stripped() {
    let folder = scratch();
    let at = folder.path();
    foreign_supernet(at, 1);
    let tensors = candle_core::safetensors::load(at.join("net.safetensors"), &candle_core::Device::Cpu);
    let wrapped: HashMap<_, _> = tensors
        .expect("readable")
        .into_iter()
        .map(|(name, tensor)| (format!("module._orig_mod.{name}"), tensor))
        .collect();
    candle_core::safetensors::save(&wrapped, at.join("wrapped.safetensors")).expect("written");
    let import = "import wrapped.safetensors --space space.toml --out supernet.safetensors";
    let said = json("supernet", at, import);
    assert_eq!((&said["prefix"], &said["entry"]), (&"module._orig_mod.".into(), &"".into()));
    let output = run("supernet", at, import);
    let text = stdout(&output);
    assert!(text.contains("\nprefix      module._orig_mod. stripped from every name\n"), "{text}");
    assert_fails(
        "supernet",
        at,
        &format!("{import} --key state_dict_ema"),
        1,
        "safetensors, which have no entries; leave --key out",
    );
}

proptest! {
    #[test]
    fn altered_files_are_read_or_refused(
        which in 0..2usize,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        end in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut bytes = read_bytes(golden(FILES[which].0));
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Some(end) = end {
            bytes.truncate(end.index(bytes.len()));
        }
        match StateDict::from_bytes("the file", &bytes) {
            Ok(state) => {
                for name in state.names() {
                    let tensor = state.tensor(name).expect("its place in the file was checked");
                    prop_assert_eq!(tensor.dims(), state.get(name).expect("listed").shape());
                }
            }
            Err(error) => prop_assert!(error.to_string().starts_with("the file: "), "{}", error),
        }
    }
}
