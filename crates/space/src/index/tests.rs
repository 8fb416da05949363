use std::collections::BTreeSet;
use std::sync::Arc;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;
use crate::builder::Builder;
use crate::families::stages::Stages;
use crate::families::{Family, Words};
use crate::genome::{Choice, Declaring};
use crate::trace::fixed;
use crate::{
    Activation, Dimension, End, Extent, FamilyName, Operator, RESOLUTION, Steps, cost, preset, preset_names,
    sampler,
};

/// 1,000 networks of each preset: slots hold the layers of lowering, and no others exist.
#[test]
fn the_index_has_every_layer_of_every_network() {
    for name in preset_names() {
        let space = preset(name).expect("a preset");
        let index = space.index();
        let keys = index.by_key();
        let mut rng = ChaCha8Rng::seed_from_u64(2);
        for _ in 0..1000 {
            let row = space.genome().random(&mut rng);
            let layers = space.lower_row(&row);
            let found: Vec<_> = index.slots().iter().filter_map(|slot| index.at(slot, &row)).collect();
            assert_eq!(found.len(), layers.len());
            for (found, layer) in found.iter().zip(&layers) {
                let same = (&found.operator, found.input, found.output)
                    == (&layer.operator, layer.input, layer.output);
                assert!(same && keys.contains_key(&layer.key()), "{name}: {layer}");
            }
        }
        println!("{name}: {} builds, {} layers", index.builds(), index.layers().len());
    }
}

/// 1,000 networks of each preset: a step changes only slots that depend on its changes, and at least one.
#[test]
fn what_a_layer_depends_on_is_true() {
    for name in preset_names() {
        let space = preset(name).expect("a preset");
        let genome = space.genome();
        let index = space.index();
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let mut steps = Steps::default();
        let mut changing = 0;
        for _ in 0..1000 {
            let row = genome.random(&mut rng);
            genome.steps(&row, |_| true, &mut steps);
            let step = steps.steps[rng.random_range(0..steps.steps.len())];
            let mut other = row.clone();
            steps.apply(genome, step, &mut other);
            let changes = steps.changes(step).iter();
            let changed: BTreeSet<u32> = changes
                .flat_map(|change| genome.group(change.group).genes())
                .filter(|gene| {
                    row[*gene] != other[*gene] || genome.exists(&row, *gene) != genome.exists(&other, *gene)
                })
                .map(|gene| gene as u32)
                .collect();
            let keys = |row: &GeneRow| -> Vec<_> {
                let nodes = space.build(row, None);
                nodes.into_iter().map(|node| (node.what.value, node.extents.value)).collect()
            };
            let before = keys(&row);
            let after = keys(&other);
            let mut some = false;
            for ((slot, before), after) in index.slots().iter().zip(&before).zip(&after) {
                let depends = slot.table.vars.iter().any(|var| changed.contains(var));
                let there = before.0.is_some() || after.0.is_some();
                let differs = there && before != after;
                assert!(depends || !differs, "{name}: {} by {step:?}", slot.name);
                some |= differs;
            }
            let text = (space.arch(&row), space.arch(&other));
            // the operator of an edge that no other layer reads decides nothing
            let same = space.lower_row(&row) == space.lower_row(&other);
            assert!(some || (space.family() == FamilyName::DenseCell && same), "{name}: {text:?}");
            changing += usize::from(some);
        }
        assert!(changing > 700, "{name}: {changing} of 1,000 steps change something");
    }
}

#[test]
fn few_networks_show_all() {
    for (name, most) in [("tiny", 30), ("fashion", 80), ("ofa-mbv3-w1.0", 120), ("ofa-resnet50", 600)] {
        let space = preset(name).expect("a preset");
        let index = space.index();
        assert!(index.builds() <= most, "{name}: {}", index.builds());
        assert!(space.weights().builds() <= most);
    }
}

/// Counted by hand: 9 choices x (first block or not) x 2 stages, and 6 fixed layers, for each extent of map; pool, mix and
/// classifier see one extent only where their input does.
#[test]
fn keys_of_the_smallest_space() {
    let space = preset("tiny").expect("a preset");
    let index = space.index();
    assert_eq!(index.by_key().len(), 2 * (4 * 9 + 4) + 2);
    let slot = index.slot("blocks.2").expect("a slot");
    let names = slot.table.vars.iter().map(|var| space.genome().genes()[*var as usize].name.as_str());
    assert_eq!(names.collect::<Vec<_>>(), ["resolution", "s1.depth", "s1.b2.kernel", "s1.b2.expand"]);
}

#[test]
fn a_restricted_space_has_fewer_layers() {
    let space = preset("ofa-mbv3-w1.0").expect("a preset");
    let largest = space.restricted(&[("expand".to_string(), 1), ("kernel".to_string(), 2)].into());
    let index = space.weights();
    let slot = &index.slots()[5];
    let of = |genome: &Genome| index.layers_within(slot, genome).collect::<BTreeSet<_>>().len();
    assert_eq!((of(space.genome()), of(largest.genome())), (9, 2));
    assert_eq!(sampler::largest(&largest), sampler::largest(&space));
    let row = space.genome().corner(|_| End::Largest);
    assert_eq!(space.genome().allowed(RESOLUTION).last(), Some(&row[RESOLUTION]));
}

/// Inputs that are not square, all the way through the list, the layers and the text.
#[test]
fn inputs_need_not_be_square() {
    let text = preset("tiny").expect("a preset").to_toml();
    let text = text.replace("resolutions = [8, 12]", "resolutions = [8, \"10x25\", \"40x101\"]");
    let space = crate::SearchSpace::from_toml("wide.toml", &text).expect("a space");
    assert_eq!(crate::SearchSpace::from_toml("wide.toml", &space.to_toml()).expect("its own text"), space);
    let arch: crate::Arch = "r40x101:k5e4/k3e6,k7e3".parse().expect("an arch");
    assert_eq!(space.arch(&space.row(&arch).expect("listed")), arch);
    let layers = space.lower(&arch).expect("legal");
    assert_eq!(layers[0].key(), "stem k3 s1 1-16 h_swish @40x101");
    let first = layers.iter().find(|layer| layer.key().starts_with("mbconv k5")).expect("a block");
    assert_eq!(
        (first.input.extent().to_string(), first.output.extent().to_string()),
        ("40x101".into(), "20x51".into())
    );
    let keys = space.layers();
    assert!(layers.iter().all(|layer| keys.contains_key(&layer.key())));
    assert_eq!(layers[0].key().parse::<crate::LayerSpec>().expect("a key").output, layers[0].output);
    assert_eq!(sampler::largest(&space).resolution.to_string(), "40x101");
    let error =
        space.row(&"r41x101:k5e4/k3e6".parse().expect("an arch")).expect_err("not listed").to_string();
    assert!(error.contains("resolution: expected one of 8, 10x25, 40x101, got 41x101"), "{error}");
    for wrong in ["[8, \"2x25\"]", "[\"40x101\", 8]", "[8, \"x\"]", "[-8]", "[8.5]"] {
        let text = text.replace("[8, \"10x25\", \"40x101\"]", wrong);
        let error = crate::SearchSpace::from_toml("wide.toml", &text).expect_err(wrong).to_string();
        assert!(error.contains("resolutions"), "{error}");
    }
}

/// A diamond: a convolution is added to the input that it reads.
#[derive(Clone, Debug)]
struct Diamond {
    stages: Stages,
    kernel: Choice<usize>,
}

impl Family for Diamond {
    fn build(&self, b: &mut Builder<'_>) {
        let activation = Activation::Relu;
        let kernel = b.of(self.kernel);
        let image = b.input(1, self.stages.resolution);
        let extent = image.extent.clone();
        let x = b.push(SlotName::one("stem"), &[&image], fixed(4), extent.clone(), |_| Operator::Stem {
            kernel: 3,
            stride: 1,
            activation,
        });
        let wide = b.push(SlotName::one("wide"), &[&x], fixed(8), extent.clone(), |t| Operator::Conv {
            kernel: t.get(&kernel),
            stride: 1,
            activation,
            residual: false,
        });
        let narrow = b.push(SlotName::one("narrow"), &[&wide], fixed(4), extent.clone(), |_| {
            Operator::HeadConv { activation }
        });
        b.push(SlotName::one("sum"), &[&x, &narrow], fixed(4), extent, |_| Operator::Sum { of: 2 });
    }

    fn words(&self) -> &dyn Words {
        &self.stages
    }
}

#[test]
fn a_diamond_says_what_it_reads_and_is_priced_by_lowering() {
    let mut list = Declaring::new();
    let sizes = [Extent::from(8), Extent::from(12)];
    let dimension = Dimension::named("resolution");
    let resolution = list.choice("resolution".into(), String::new(), dimension, &sizes, None);
    let kernel = list.choice("kernel".into(), String::new(), Dimension::named("kernel"), &[1usize, 3], None);
    let (mut stages, _) = Stages::declare("diamond", 1, &sizes, Vec::new());
    stages.resolution = resolution;
    let file = preset("tiny").expect("a preset").into();
    let space = crate::SearchSpace::new(file, Arc::new(Diamond { stages, kernel }), list.finish());
    let index = space.index();
    assert!(!index.is_chain() && preset("tiny").expect("a preset").index().is_chain());
    for row in space.genome().all() {
        let layers = space.lower_row(&row);
        let inputs: Vec<_> = layers.iter().map(|layer| layer.inputs.clone()).collect();
        assert_eq!(inputs, [vec![None], vec![Some(0)], vec![Some(1)], vec![Some(0), Some(2)]]);
        let names: Vec<_> = layers[0].weights().into_iter().map(|weight| weight.name).collect();
        let parts = index.layers_of("stem").next().expect("a layer").weights();
        assert_eq!(names, parts.iter().map(|part| format!("stem.{}", part.name)).collect::<Vec<_>>());
        // while the last convolution runs: its input (8), its output (4), and the map that waits for the sum (4)
        let plane = layers[0].input.plane() as u64;
        assert_eq!(cost(&layers).peak_activation_bytes, 4 * 16 * plane);
        assert_eq!(
            layers.iter().map(|layer: &LayerSpec| cost(&[layer.alone()]).peak_activation_bytes).max(),
            Some(4 * 12 * plane)
        );
    }
}
