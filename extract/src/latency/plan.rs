//! What has to be measured for a space: its distinct layers, found without enumerating its networks.

use std::collections::BTreeMap;

use crate::error::Result;
use supernet::space::{Arch, Block, LayerSpec, SearchSpace, Stage, sampler};

/// One sub-network of full depth in which every block has the choice of the same index.
pub(crate) struct Covering {
    /// Index of the resolution.
    pub resolution: usize,
    /// The sub-network.
    pub arch: Arch,
}

/// Sub-networks that between them contain every layer of the space.
///
/// A layer depends on its own choices, the resolution and whether it is the first of its stage; never on
/// another block's choices, because all blocks of a stage have the same outputs. So it is enough to see each
/// resolution, kernel and expand ratio once in every place.
pub(crate) fn covering(space: &SearchSpace) -> Vec<Covering> {
    let longest = |len: fn(&Stage) -> usize| space.stages().iter().map(len).max().unwrap_or(0);
    let (kernels, expands) =
        (longest(|stage| stage.choices.kernel.len()), longest(|stage| stage.choices.expand.len()));
    let mut all = Vec::new();
    for (resolution, &side) in space.resolutions().iter().enumerate() {
        for kernel in 0..kernels {
            for expand in 0..expands {
                let blocks = |stage: &Stage| vec![block(stage, kernel, expand); stage.choices.max_depth()];
                let arch = Arch {
                    resolution: side,
                    stages: space.stages().iter().map(blocks).collect(),
                    widths: sampler::largest(space).widths,
                };
                all.push(Covering { resolution, arch });
            }
        }
    }
    all
}

/// The block with these choices; a shorter list gives its last.
fn block(stage: &Stage, kernel: usize, expand: usize) -> Block {
    let (kernels, expands) = (&stage.choices.kernel, &stage.choices.expand);
    Block { kernel: kernels[kernel.min(kernels.len() - 1)], expand: expands[expand.min(expands.len() - 1)] }
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
        for layer in space.lower(&network.arch)? {
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
    use supernet::space::{preset, preset_names};

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
