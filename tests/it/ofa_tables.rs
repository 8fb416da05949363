//! Latency tables of PyTorch's `ofa`: keys that its own code asks for, and the tables that its authors published.

use std::collections::BTreeSet;
use std::path::Path;

use extract::ofa::table::{OfaTable, layer_of, ofa_key};
use space::{LayerSpec, SearchSpace, preset};

/// The distinct layers of a preset at one resolution.
fn layers(name: &str, resolution: usize) -> Vec<LayerSpec> {
    let space = preset(name).expect("a preset");
    let text = space.to_toml();
    let (before, rest) = text.split_once("resolutions = [").expect("a list");
    let (_, after) = rest.split_once(']').expect("its end");
    let text = format!("{before}resolutions = [{resolution}]{after}");
    let space = SearchSpace::from_toml(name, &text).expect("a space");
    space.layers().into_values().collect()
}

fn keys(layers: &[LayerSpec]) -> BTreeSet<String> {
    layers.iter().map(|layer| ofa_key(layer).unwrap_or_else(|error| panic!("{error}"))).collect()
}

/// `make_ofa_keys.py` recorded what the package asks for at 132.
#[test]
fn our_keys_are_those_that_ofas_code_asks_for() {
    let asked = include_str!("../golden/ofa_keys.txt").lines().map(String::from).collect::<BTreeSet<_>>();
    let layers = layers("ofa-mbv3-w1.0", 132);
    assert_eq!(layers.len(), 96);
    assert_eq!(keys(&layers), asked);
}

/// The published tables are data of others and no part of this repository.
#[test]
fn published_tables_are_read_whole() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data/ofa");
    if !folder.is_dir() {
        println!("skipped: no published tables in {}", folder.display());
        return;
    }
    for resolution in [160, 176, 192, 208, 224] {
        let path = folder.join(format!("note10_{resolution}_lookup_table.yaml"));
        let table = OfaTable::read(&path).unwrap_or_else(|error| panic!("{error}"));
        let text = std::fs::read_to_string(&path).expect("a text");
        assert_eq!(table.to_yaml(), text, "count, mean and std to the last digit");
        let layers = layers("ofa-mbv3-w1.2", resolution);
        assert_eq!(
            keys(&layers),
            table.rows().keys().cloned().collect(),
            "{resolution}: all layers and no more"
        );
        for (key, layer) in table.rows().keys().zip(table.layers()) {
            assert_eq!(ofa_key(&layer.0).expect("own layer"), *key);
            assert_eq!(layer_of(key).expect("own key"), layer.0);
        }
    }
}
