use crate::families::testing::check_row;
use crate::genome::Index;
use crate::operators::Operator;
use crate::{Arch, LayerSpec, SearchSpace, cost, preset, sampler};

fn tiny() -> SearchSpace {
    preset("tiny-cell").expect("a preset")
}

fn layers(space: &SearchSpace, choices: &str) -> Vec<LayerSpec> {
    let text = format!("r{}:{choices}", space.resolutions()[0]);
    space.lower(&text.parse::<Arch>().expect("an arch")).expect("legal")
}

/// Names, keys and inputs of the first cell's layers.
fn check(choices: &str, expected: &[(&str, &str, &[usize])]) {
    let all = layers(&tiny(), choices);
    let end = all.iter().position(|layer| layer.name == "reduction_a.0").expect("a second stage");
    let got: Vec<(String, String, Vec<usize>)> = all[1..end]
        .iter()
        .map(|layer| (layer.shared_name(), layer.key(), layer.inputs.iter().flatten().copied().collect()))
        .collect();
    let expected: Vec<_> = expected
        .iter()
        .map(|(name, key, inputs)| (name.to_string(), key.to_string(), inputs.to_vec()))
        .collect();
    assert_eq!(got, expected, "{choices}");
}

#[test]
fn a_node_is_the_sum_of_its_edges() {
    check(
        "|nor_conv_3x3~0|+|avg_pool_3x3~0|nor_conv_1x1~1|",
        &[
            ("nor_conv_3x3.0", "reluconv k3 8-8 @8x8", &[0]),
            ("avg_pool_3x3.1", "avgpool k3 8 @8x8", &[0]),
            ("nor_conv_1x1.2", "reluconv k1 8-8 @8x8", &[1]),
            ("sum.1", "sum2 8 @8x8", &[2, 3]),
        ],
    );
    check("|skip_connect~0|+|skip_connect~0|skip_connect~1|", &[("sum.1", "sum2 8 @8x8", &[0, 0])]);
    check("|none~0|+|skip_connect~0|none~1|", &[]);
}

#[test]
fn what_nothing_reads_is_not_built_and_nothing_is_zeros() {
    check("|nor_conv_3x3~0|+|nor_conv_1x1~0|none~1|", &[("nor_conv_1x1.1", "reluconv k1 8-8 @8x8", &[0])]);
    check("|none~0|+|none~0|none~1|", &[("zero.1", "zero 8 @8x8", &[0])]);
    check(
        "|none~0|+|none~0|nor_conv_3x3~1|",
        &[("zero.0", "zero 8 @8x8", &[0]), ("nor_conv_3x3.2", "reluconv k3 8-8 @8x8", &[1])],
    );
}

/// Published: .073306 M to 1.531546 M parameters.
#[test]
fn nas_bench_201_is_as_published() {
    let space = preset("nas-bench-201").expect("a preset");
    assert_eq!(space.subnetworks(), 15_625u32.into());
    let params = |choices: &str| cost(&layers(&space, choices)).params;
    let all = |operator: &str| {
        let node = |to: usize| (0..to).map(|from| format!("{operator}~{from}|")).collect::<String>();
        (1..4).map(|to| format!("|{}", node(to))).collect::<Vec<_>>().join("+")
    };
    assert_eq!(params(&all("none")), 73_306);
    assert_eq!(params(&all("nor_conv_3x3")), 1_531_546);
    assert_eq!(params(&all("nor_conv_1x1")), 241_306);
    // published are 802,426, with convolutions that nothing reads
    let unread = "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|none~0|none~1|none~2|";
    assert_eq!(params(unread), 73_306);
    let largest = sampler::largest(&space);
    assert_eq!(largest.choices(), all("nor_conv_3x3"));
    assert_eq!(sampler::smallest(&space).choices(), all("none"));
    let names: Vec<String> =
        layers(&space, &all("skip_connect")).into_iter().map(|layer| layer.key()).collect();
    let reduction = [
        "reluconv k3 s2 16-32 @32x32",
        "reluconv k3 32-32 @16x16",
        "avgpool k2 s2 16 @32x32",
        "mix 16-32 none @16x16",
        "sum2 32 @16x16",
    ];
    let at = names.iter().position(|key| key == reduction[0]).expect("a reduction");
    assert_eq!(names[at..at + 5], reduction);
    assert_eq!(names[0], "stem k3 s1 3-16 none @32x32");
    assert_eq!(names[names.len() - 3..], ["norm 64 relu @8x8", "pool 64 @8x8", "linear 64-10 @1x1"]);
}

/// Each layer of each network of the small preset, against its tables.
#[test]
fn tables_of_layers_are_right() {
    let space = tiny();
    let index = space.index();
    assert!(!index.is_chain());
    space.genome().all().iter().for_each(|row| check_row(&space, &index, row));
}

#[test]
fn other_texts_are_refused() {
    for (choices, part) in [
        ("|none~0|", "nodes after the first: expected 2 joined by + (space tiny-cell), got 1"),
        ("|none~0|+|none~0|", "node 2: expected `|OPERATOR~0|OPERATOR~1|`, got `|none~0|`"),
        ("none~0+|none~0|none~1|", "node 1: expected `|OPERATOR~0|`, got `none~0`"),
        ("|none~1|+|none~0|none~1|", "node 1: expected `|OPERATOR~0|`"),
        ("|conv~0|+|none~0|none~1|", "operator of edge 0 to 1: expected one of nor_conv_3x3, nor_conv_1x1"),
        ("|max_pool_3x3~0|+|none~0|none~1|", "skip_connect, none, got max_pool_3x3"),
    ] {
        let arch = format!("r8:{choices}").parse().expect("an arch");
        let error = tiny().row(&arch).expect_err(choices).to_string();
        assert!(error.contains(part), "{choices}: {error}");
    }
}

#[test]
fn broken_spaces_are_refused_with_the_field() {
    let good = include_str!("../../presets/tiny-cell.toml");
    for (from, to, field) in [
        ("nodes = 3", "nodes = 1", "cell.nodes: expected 2 to 8, got 1"),
        (
            "nodes = 3",
            "nodes = 7",
            "decide whether a layer exists, over all layers: expected at most 1048576",
        ),
        ("channels = [8, 16]", "channels = []", "cell.channels (number of stages): expected 1 to 6, got 0"),
        ("channels = [8, 16]", "channels = [8, 0]", "cell.channels: expected 1 to 65536, got 0"),
        ("cells = 1", "cells = 0", "cell.cells: expected 1 to 64, got 0"),
        (
            "\"skip_connect\", \"none\"",
            "\"none\", \"skip_connect\"",
            "cell.operator: expected some of these in this order: nor_conv_5x5, nor_conv_3x3, nor_conv_1x1",
        ),
        ("\"none\"", "\"sep\"", "unknown variant `sep`"),
        (
            "dropout = 0.0",
            "dropout = 0.0\nkernel = [3]",
            "kernel: expected none in family \"dense-cell\", got one",
        ),
        ("dropout = 0.0", "dropout = 0.0\nwidth_multiplier = 2", "width_multiplier: expected none in family"),
        ("dense-cell", "mobilenet-v3", "cell: expected none in family \"mobilenet-v3\", got one"),
    ] {
        assert!(good.contains(from), "{from}");
        let error = SearchSpace::from_toml("x.toml", &good.replacen(from, to, 1)).expect_err(to).to_string();
        assert!(error.starts_with("x.toml: ") && error.contains(field), "{to}: {error}");
    }
    let only_none =
        good.replace("\"nor_conv_3x3\", \"nor_conv_1x1\", \"avg_pool_3x3\", \"skip_connect\", ", "");
    let error = SearchSpace::from_toml("x.toml", &only_none).expect_err("no network").to_string();
    assert!(error.contains("cell.operator: expected another operator too, got none alone"), "{error}");
    let headless = good.split("[cell]").next().expect("a text");
    let error = SearchSpace::from_toml("x.toml", headless).expect_err("no cell").to_string();
    assert!(error.contains("cell: expected one in family \"dense-cell\", got none"), "{error}");
}

#[test]
fn without_none_every_edge_stands_in_every_network() {
    let text = include_str!("../../presets/tiny-cell.toml");
    let text =
        text.replace(", \"none\"", "").replace("\"avg_pool_3x3\"", "\"avg_pool_3x3\", \"max_pool_3x3\"");
    let text = text.replace("nodes = 3", "nodes = 8").replace("cells = 1", "cells = 2");
    let space = SearchSpace::from_toml("x.toml", &text).expect("a space");
    assert_eq!(space.subnetworks(), num_bigint::BigUint::from(5u32).pow(28));
    let index = space.index();
    let mut zeros = index.slots().iter().filter(|slot| slot.name.name == "zero");
    assert!(zeros.all(|slot| slot.table.cells.iter().all(|layer| *layer == 0)));
}

/// Of single values a mixture is the sub-network itself but for the sums with one weight, and of all values it has every layer.
#[test]
fn a_mixture_has_the_layers_of_all_its_values() {
    let space = preset("tiny-cell").expect("a preset");
    let genome = space.genome();
    let side = space.greatest_resolution();
    let all: Vec<Vec<Index>> = (0..genome.len())
        .map(|gene| if gene == 0 { vec![genome.allowed(0)[0]] } else { genome.allowed(gene).to_vec() })
        .collect();
    let mixture = space.mixture(&all, side).expect("its own");
    let mixes = mixture.layers.iter().filter(|layer| matches!(layer.operator, Operator::WeightedSum { .. }));
    assert_eq!(mixes.count(), mixture.mixes.len());
    let is_none =
        |gene: usize, value: Index| genome.genes()[gene].values[usize::from(value)].to_string() == "none";
    for (at, mix) in mixture.mixes.iter().enumerate() {
        let layer = mixture.layers.iter().find(|layer| layer.name == format!("mix.{at}")).expect("a sum");
        assert_eq!((layer.slot, layer.inputs.len()), (Some(mix.number), mix.values.len()));
        let expected: Vec<Index> =
            genome.allowed(mix.gene).iter().copied().filter(|value| !is_none(mix.gene, *value)).collect();
        assert_eq!(mix.values, expected);
    }
    // every weight of the space belongs to some layer of it
    let slots: std::collections::BTreeSet<String> = mixture
        .layers
        .iter()
        .filter(|layer| !layer.weights().is_empty())
        .map(|layer| layer.shared_name())
        .collect();
    let known = space.weights().slots().iter().filter(|slot| {
        !space.weights().layers_of(&slot.name.to_string()).all(|layer| layer.weights().is_empty())
    });
    for slot in known {
        assert!(slots.contains(&slot.name.to_string()), "{}", slot.name);
    }
    for seed in 0..20 {
        let arch = crate::sampler::random(&space, &mut base::random::rng_for("arch", seed, &[])).at(side);
        let row = space.row(&arch).expect("its own");
        let one: Vec<Vec<Index>> = row.iter().map(|value| vec![*value]).collect();
        let mixture = space.mixture(&one, side).expect("its own");
        let plain =
            mixture.layers.iter().filter(|layer| !matches!(layer.operator, Operator::WeightedSum { .. }));
        let names = |layer: &crate::layer::LayerSpec| (layer.shared_name(), layer.key());
        let expected: Vec<_> = space.lower(&arch).expect("its own").iter().map(names).collect();
        assert_eq!(plain.map(names).collect::<Vec<_>>(), expected, "{arch}");
    }
}

#[test]
fn a_mixture_of_other_values_is_refused() {
    let space = preset("tiny-cell").expect("a preset");
    let side = space.greatest_resolution();
    let error = |values: Vec<Vec<Index>>| space.mixture(&values, side).expect_err("refused").to_string();
    let one = vec![vec![0]; space.genome().len()];
    assert!(error(one[1..].to_vec()).contains("lists of values: expected"));
    let mut none = one.clone();
    none[1].clear();
    assert!(error(none).contains("edge 0 to 1: expected 1 to"));
    let mut other = one;
    other[2] = vec![99];
    assert!(error(other).contains("values that may be drawn, got [99]"));
}
