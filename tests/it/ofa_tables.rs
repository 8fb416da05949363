//! Latency tables of PyTorch's `ofa`: the keys that its code looks up, and the tables that its authors published.

use std::collections::BTreeSet;
use std::path::Path;

use extract::ofa::table::{OfaTable, layer_of, ofa_key};
use space::{LayerSpec, preset};

use crate::testing::files::read_text;
use crate::testing::spaces::at_one_resolution;

/// The distinct layers of a preset at one resolution.
fn layers(name: &str, resolution: usize) -> Vec<LayerSpec> {
    let space = at_one_resolution(&preset(name).expect("a preset"), resolution);
    space.layers().into_values().collect()
}

fn keys(layers: &[LayerSpec]) -> BTreeSet<String> {
    layers.iter().map(|layer| ofa_key(layer).unwrap_or_else(|error| panic!("{error}"))).collect()
}

/// `make_ofa_keys.py` recorded the keys that the package looks up at 132 pixels.
#[test]
fn our_keys_are_those_that_ofas_code_asks_for() {
    let expected = include_str!("../golden/ofa_keys.txt").lines().map(String::from).collect::<BTreeSet<_>>();
    let layers = layers("ofa-mbv3-w1.0", 132);
    assert_eq!(layers.len(), 96);
    assert_eq!(keys(&layers), expected);
}

/// The published tables belong to others and are not part of this repository.
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
        let text = read_text(&path);
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
