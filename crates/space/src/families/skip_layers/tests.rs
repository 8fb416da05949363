use crate::families::testing::check_row;
use crate::{Arch, LayerSpec, SearchSpace, preset, sampler};

fn tiny() -> SearchSpace {
    preset("tiny-macro").expect("a preset")
}

fn layers(choices: &str) -> Vec<LayerSpec> {
    tiny().lower(&format!("r8:{choices}").parse::<Arch>().expect("an arch")).expect("legal")
}

fn check(choices: &str, expected: &[(&str, &str, &[usize])]) {
    let got: Vec<(String, String, Vec<usize>)> = layers(choices)
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
fn chosen_outputs_are_added_and_halved_where_they_are_read() {
    check(
        "conv_3x3/avg_pool_3x3+0/sep_conv_3x3+0/max_pool_3x3+1+2",
        &[
            ("first_conv", "stem k3 s1 1-8 none @8x8", &[]),
            ("conv_3x3_in.0", "conv1x1 8-8 relu @8x8", &[0]),
            ("conv_3x3.0", "conv k3 8-8 relu @8x8", &[1]),
            ("avg_pool_3x3_in.1", "conv1x1 8-8 relu @8x8", &[2]),
            ("avg_pool_3x3.1", "avgpool k3 8 @8x8", &[3]),
            ("sum.0", "sum2 8 @8x8", &[4, 0]),
            ("layer_norm.1", "norm 8 none @8x8", &[5]),
            ("reduction.0", "fredux 8-8 @8x8", &[0]),
            ("reduction.1", "fredux 8-8 @8x8", &[2]),
            ("reduction.2", "fredux 8-8 @8x8", &[6]),
            ("sep_conv_3x3_in.2", "conv1x1 8-8 relu @4x4", &[9]),
            ("sep_conv_3x3.2", "sepconv k3 s1 8-8 relu @4x4", &[10]),
            ("sum.1", "sum2 8 @4x4", &[11, 7]),
            ("layer_norm.2", "norm 8 none @4x4", &[12]),
            ("max_pool_3x3_in.3", "conv1x1 8-8 relu @4x4", &[13]),
            ("max_pool_3x3.3", "maxpool s1 8 @4x4", &[14]),
            ("sum.4", "sum2 8 @4x4", &[15, 8]),
            ("sum.5", "sum2 8 @4x4", &[16, 9]),
            ("layer_norm.3", "norm 8 none @4x4", &[17]),
            ("pool", "pool 8 @4x4", &[18]),
            ("classifier", "linear 8-10 @1x1", &[19]),
        ],
    );
    let keys =
        |choices: &str| layers(choices).into_iter().map(|layer| layer.shared_name()).collect::<Vec<_>>();
    let chain = keys("conv_3x3/conv_3x3/conv_3x3/conv_3x3");
    let reductions: Vec<_> = chain.iter().filter(|name| name.starts_with("reduction")).collect();
    assert_eq!(reductions, ["reduction.2"], "{chain:?}");
}

/// Published for twelve layers: 1.6 x 10^29 networks.
#[test]
fn enas_macro_has_its_number_of_networks() {
    let space = preset("enas-macro").expect("a preset");
    let six = num_bigint::BigUint::from(6u32).pow(12);
    assert_eq!(space.subnetworks(), six << 66);
    assert!(space.subnetworks().to_string().starts_with("16") && space.subnetworks().to_string().len() == 30);
    let largest = sampler::largest(&space);
    assert!(largest.choices().ends_with("/conv_5x5+0+1+2+3+4+5+6+7+8+9+10"), "{largest}");
    assert_eq!(sampler::smallest(&space).choices(), ["max_pool_3x3"; 12].join("/"));
}

/// Each layer of random networks, against the tables of the space.
#[test]
fn tables_of_layers_are_right() {
    // twice in a row, and where sides are odd
    let text = include_str!("../../presets/tiny-macro.toml").replace("[8]", "[7, \"9x5\"]");
    let halved = text.replace("count = 4", "count = 6").replace("[2]", "[1, 2, 4]");
    check_tables(&tiny());
    check_tables(&SearchSpace::from_toml("x.toml", &halved).expect("a space"));
}

fn check_tables(space: &SearchSpace) {
    let index = space.index();
    for seed in 0..200 {
        let arch = sampler::random(space, &mut base::random::rng_for("layers", seed, &[]));
        check_row(space, &index, &space.row(&arch).expect("legal"));
    }
}

#[test]
fn other_texts_are_refused() {
    for (choices, part) in [
        ("conv_3x3", "number of layers: expected 4 (space tiny-macro), got 1"),
        ("conv/conv_3x3/conv_3x3/conv_3x3", "operator of layer 0: expected one of conv_3x3, sep_conv_3x3"),
        ("conv_3x3+0/conv_3x3/conv_3x3/conv_3x3", "layer 0: outputs after +: expected none, got `0`"),
        (
            "conv_3x3/conv_3x3+x/conv_3x3/conv_3x3",
            "layer 1: outputs after +: expected numbers below 1, got `x`",
        ),
        (
            "conv_3x3/conv_3x3/conv_3x3+1+0/conv_3x3",
            "choices: expected `conv_3x3/conv_3x3/conv_3x3+0+1/conv_3x3`",
        ),
        ("conv_5x5/conv_3x3/conv_3x3/conv_3x3", "operator of layer 0: expected one of"),
    ] {
        let arch = format!("r8:{choices}").parse().expect("an arch");
        let error = tiny().row(&arch).expect_err(choices).to_string();
        assert!(error.contains(part), "{choices}: {error}");
    }
}

#[test]
fn broken_spaces_are_refused_with_the_field() {
    let good = include_str!("../../presets/tiny-macro.toml");
    for (from, to, field) in [
        ("count = 4", "count = 25", "layers.count: expected 1 to 24, got 25"),
        (
            "count = 4",
            "count = 20",
            "layers.reductions: expected at most 12 layers after the first one, got 18",
        ),
        ("reductions = [2]", "reductions = [4]", "layers.reductions: expected 1 to 3, got 4"),
        ("reductions = [2]", "reductions = [2, 2]", "layers.reductions: expected a rising list"),
        ("count = 4", "count = 1", "layers.reductions: expected none in a network of one layer, got [2]"),
        (
            "[\"conv_3x3\", \"sep_conv_3x3\"",
            "[\"sep_conv_3x3\", \"conv_3x3\"",
            "layers.operator: expected some of these in this order",
        ),
        ("connection = [0, 1]", "connection = [2]", "layers.connection: expected 0 to 1, got 2"),
        ("channels = 8", "channels = 1", "layers.channels: expected 2 to 65536, got 1"),
        ("[layers]", "[cell]", "invalid type: integer"),
        (
            "dropout = 0.0",
            "dropout = 0.0\nstages = []\nhead = { expand_channels = 8, activation = \"relu\" }",
            "head: expected none",
        ),
    ] {
        assert!(good.contains(from), "{from}");
        let error = SearchSpace::from_toml("x.toml", &good.replacen(from, to, 1)).expect_err(to).to_string();
        assert!(error.starts_with("x.toml: ") && error.contains(field), "{to}: {error}");
    }
    let chain = good
        .replace("connection = [0, 1]", "connection = [0]")
        .replace("reductions = [2]", "reductions = []");
    let space = SearchSpace::from_toml("x.toml", &chain).expect("a chain");
    assert!(space.index().is_chain());
}
