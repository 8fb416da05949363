//! What has to be measured for a space: its distinct layers, found without enumerating its networks.

use std::collections::BTreeMap;

use base::Result;
use space::{Arch, Block, LayerSpec, Ratio, SearchSpace, Stage};

/// Sub-networks of full depth that between them contain every layer of the space.
///
/// A layer depends on its own choices, the resolution, whether it is the first of its stage, the width of its stage
/// and, the first one, of the stage before; never on another block's choices, because all blocks of a stage have the
/// same outputs. So it is enough to see each resolution, kernel and expand ratio once in every place at each pair of
/// widths of neighbouring stages.
pub fn covering(space: &SearchSpace) -> Vec<Arch> {
    let longest = |len: fn(&Stage) -> usize| space.stages().iter().map(len).max().unwrap_or(0);
    let (kernels, expands) =
        (longest(|stage| stage.choices.kernel.len()), longest(|stage| stage.choices.expand.len()));
    let widths = width_pairs(space, longest(|stage| stage.choices.width.len()));
    let mut all = Vec::new();
    for &resolution in space.resolutions() {
        for kernel in 0..kernels {
            for expand in 0..expands {
                let blocks = |stage: &Stage| vec![block(stage, kernel, expand); stage.choices.max_depth()];
                let stages: Vec<_> = space.stages().iter().map(blocks).collect();
                for widths in &widths {
                    all.push(Arch { resolution, stages: stages.clone(), widths: widths.clone() });
                }
            }
        }
    }
    all
}

/// Widths of all stages, so often that each pair of choices stands in each pair of neighbours: one width in the first,
/// third and so on, another in those between.
fn width_pairs(space: &SearchSpace, most: usize) -> Vec<Vec<Ratio>> {
    let pairs = (0..most.max(1)).flat_map(|even| (0..most.max(1)).map(move |odd| [even, odd]));
    let width = |(index, stage): (usize, &Stage), pair: [usize; 2]| at(&stage.choices.width, pair[index % 2]);
    pairs
        .map(|pair| space.stages().iter().enumerate().filter_map(|stage| width(stage, pair)).collect())
        .collect()
}

/// The block with these choices.
fn block(stage: &Stage, kernel: usize, expand: usize) -> Block {
    let listed = "a checked space has choices";
    Block {
        kernel: at(&stage.choices.kernel, kernel).expect(listed),
        expand: at(&stage.choices.expand, expand).expect(listed),
    }
}

/// A choice by its index; a shorter list gives its last.
fn at<T: Copy>(choices: &[T], index: usize) -> Option<T> {
    choices.get(index).or(choices.last()).copied()
}

/// The distinct layers of all sub-networks of a space, by latency key.
///
/// A layer's name, slot and inputs are those of one network that contains it.
///
/// # Errors
/// None for a checked space; passes on what lowering says.
pub fn space_layers(space: &SearchSpace) -> Result<BTreeMap<String, LayerSpec>> {
    let mut layers = BTreeMap::new();
    for network in covering(space) {
        for layer in space.lower(&network)? {
            layers.entry(layer.key()).or_insert(layer);
        }
    }
    Ok(layers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;
    use space::{preset, preset_names, sampler};

    #[test]
    fn every_layer_of_random_networks_is_planned() {
        for name in preset_names() {
            let space = preset(name).expect("a preset");
            let layers = space_layers(&space).expect("a checked space");
            let mut rng = ChaCha8Rng::seed_from_u64(2);
            for _ in 0..200 {
                for layer in space.lower(&sampler::random(&space, &mut rng)).expect("legal") {
                    assert!(layers.contains_key(&layer.key()), "{name}: {layer}");
                }
            }
        }
    }

    /// Counted by hand: 9 choices x (first block or not) x 2 stages, and 6 fixed layers, for each size of map;
    /// pool, mix and classifier see one size only where their input does.
    #[test]
    fn nothing_is_planned_twice_or_needlessly() {
        let space = preset("tiny").expect("a preset");
        let layers = space_layers(&space).expect("a checked space");
        let blocks = layers.keys().filter(|key| key.starts_with("mbconv") && !key.contains(" e1")).count();
        assert_eq!(blocks, 2 * 36);
        assert_eq!(layers.len(), 72 + 2 * 4 + 2);
    }
}
