//! Channel sorting: before widths shrink, the most important inner channels of each block move to the front.
//!
//! Importance of an inner channel is the L1 norm of its column in the projection (Cai et al. 2020). The order
//! of inner channels is free, so the largest network computes what it did before.

use std::collections::{BTreeMap, BTreeSet};

use candle_core::{Device, Tensor};
use space::{FreeChannels, SearchSpace, Slot};

use super::shared::SharedWeights;
use crate::error::Result;

/// Sorts the inner channels of every elastic block, and those inside its squeeze-and-excite, by importance.
///
/// `trained` are the restrictions of `space` whose sub-networks were trained before. Their outputs must not change, so in
/// each block channels stay between the inner widths that `trained` has in that block.
///
/// # Errors
/// If the weights are another space's.
pub fn sort_channels(space: &SearchSpace, shared: &mut SharedWeights, trained: &[SearchSpace]) -> Result<()> {
    let mut sorting = Sorting { shared, changed: BTreeMap::new() };
    for slot in space.weights().slots() {
        for Sortable { free, bounds } in sortable(space, slot, trained) {
            sorting.sort(&slot.name.to_string(), &free, &bounds)?;
        }
    }
    let changed = sorting.changed;
    *shared = shared.replaced(changed)?;
    Ok(())
}

/// Free channels of the layers that can stand in a slot.
struct Sortable {
    /// The free channels of the layer that has the most.
    free: FreeChannels,
    /// Bounds of the groups within which channels may change places: the numbers of channels in networks that were trained
    /// before, and the number of all.
    bounds: BTreeSet<usize>,
}

/// The free channels of a slot, in the order in which they are sorted.
fn sortable(space: &SearchSpace, slot: &Slot, trained: &[SearchSpace]) -> Vec<Sortable> {
    let index = space.weights();
    let mut all: Vec<Sortable> = Vec::new();
    for layer in index.layers_of(&slot.name.to_string()) {
        for (place, free) in layer.operator.free_channels().into_iter().enumerate() {
            match all.get_mut(place) {
                Some(known) if known.free.count < free.count => known.free = free,
                Some(_) => {}
                None => all.push(Sortable { free, bounds: BTreeSet::new() }),
            }
        }
    }
    for restricted in trained {
        for layer in index.layers_within(slot, restricted.genome()) {
            for (sortable, free) in all.iter_mut().zip(layer.operator.free_channels()) {
                sortable.bounds.insert(free.count);
            }
        }
    }
    for sortable in &mut all {
        sortable.bounds.insert(sortable.free.count);
    }
    all
}

/// Shared weights, some of them sorted.
struct Sorting<'a> {
    shared: &'a SharedWeights,
    changed: BTreeMap<String, Tensor>,
}

impl Sorting<'_> {
    /// Sorts the free channels of a slot by their importance in the weight that reads them.
    fn sort(&mut self, slot: &str, free: &FreeChannels, bounds: &BTreeSet<usize>) -> Result<()> {
        let order = sorted(&column_norms(self.get(&format!("{slot}.{}", free.read_by))?)?, bounds);
        for (part, dimension) in &free.members {
            self.permute(&format!("{slot}.{part}"), *dimension, &order)?;
        }
        Ok(())
    }

    fn get(&self, name: &str) -> Result<&Tensor> {
        self.changed.get(name).map_or_else(|| self.shared.get(name), Ok)
    }

    fn permute(&mut self, name: &str, dimension: usize, order: &[u32]) -> Result<()> {
        let tensor = self.get(name)?.to_device(&Device::Cpu)?;
        let permuted = tensor.contiguous()?.index_select(&Tensor::new(order, &Device::Cpu)?, dimension)?;
        self.changed.insert(name.to_string(), permuted);
        Ok(())
    }
}

/// L1 norm of a weight's values for each of its inputs: `[O, I, k, k] -> [I]`.
fn column_norms(weight: &Tensor) -> Result<Vec<f64>> {
    let rows = weight.to_device(&Device::Cpu)?.flatten_from(2)?.to_vec3::<f32>()?; // [O, I, k k]
    let mut norms = vec![0.0; weight.dim(1)?];
    for row in &rows {
        for (norm, values) in norms.iter_mut().zip(row) {
            values.iter().for_each(|value| *norm += f64::from(value.abs()));
        }
    }
    Ok(norms)
}

/// Indices by falling importance within each group (up to its bound); groups stay in place, ties keep their order.
fn sorted(importance: &[f64], bounds: &BTreeSet<usize>) -> Vec<u32> {
    let mut order: Vec<u32> = (0..importance.len() as u32).collect();
    let mut start = 0;
    for &bound in bounds {
        order[start..bound].sort_by(|&a, &b| importance[b as usize].total_cmp(&importance[a as usize]));
        start = bound;
    }
    order
}

#[cfg(test)]
mod tests {
    use kernels::Backend;
    use space::{Arch, Bottleneck, MbConv, Operator, preset, sampler};

    use super::*;
    use crate::elastic::SubnetWeights;
    use crate::elastic::testing::lively;
    use crate::nn::testing::{assert_close, noise, values};
    use crate::nn::{Network, Pass};

    /// Class scores of three images.
    fn scores(space: &SearchSpace, shared: &SharedWeights, arch: &Arch) -> Vec<f32> {
        let layers = space.lower(arch).expect("legal");
        let backend = Backend::detect();
        let subnet = SubnetWeights::new(space, shared, &layers, &backend).expect("its weights");
        let network = Network::new(&layers, &subnet.values().expect("views")).expect("all weights");
        let input = layers[0].input;
        let images = noise("images", &[3, input.channels, input.height, input.width], 1.0, 0.0);
        values(&network.forward(&images, Pass::BatchStatistics).expect("fitting shapes"))
    }

    /// Sorting leaves the largest network of the space, and those of restrictions that were trained before, what they were.
    fn check_equal(name: &str, trained: &[(&str, usize)]) {
        let space = preset(name).expect("a preset");
        let allowed = trained.iter().map(|(kind, count)| (kind.to_string(), *count)).collect();
        let restricted = space.restricted(&allowed);
        let before = lively(&space);
        let mut after = before.clone();
        sort_channels(&space, &mut after, std::slice::from_ref(&restricted)).expect("its weights");
        for arch in [sampler::largest(&space), sampler::smallest(&restricted)] {
            let expected: Vec<f64> = scores(&space, &before, &arch).into_iter().map(f64::from).collect();
            assert_close(&format!("{name}, {arch}"), &scores(&space, &after, &arch), &expected, 1e-4);
        }
    }

    #[test]
    fn networks_that_were_trained_compute_what_they_did() {
        for name in ["tiny", "tiny-choice", "tiny-resnet"] {
            check_equal(name, &[("expand", 1), ("width", 1)]);
            check_equal(name, &[("expand", 2), ("width", 1)]);
        }
    }

    #[test]
    fn the_most_important_channels_come_first_and_move_together() {
        let space = preset("tiny").expect("a preset");
        let before = lively(&space);
        let mut after = before.clone();
        sort_channels(&space, &mut after, &[]).expect("its weights");
        let get = |shared: &SharedWeights, part: &str| {
            shared.get(&format!("blocks.1.conv.{part}")).expect("a shared tensor").clone()
        };
        let norms = |shared| column_norms(&get(shared, "point_linear.conv.weight")).expect("a matrix");
        let importance = norms(&before);
        let order = sorted(&importance, &[importance.len()].into());
        assert!(norms(&after).is_sorted_by(|a, b| a >= b));
        let smallest = sampler::smallest(&space);
        assert_ne!(scores(&space, &before, &smallest), scores(&space, &after, &smallest));
        for part in ["inverted_bottleneck.conv.weight", "depth_conv.conv.weight", "depth_conv.bn.bias"] {
            let rows = |shared| -> Vec<Vec<f32>> {
                let tensor = get(shared, part);
                values(&tensor).chunks(tensor.elem_count() / tensor.dims()[0]).map(<[f32]>::to_vec).collect()
            };
            let old = rows(&before);
            let moved: Vec<Vec<f32>> = order.iter().map(|&index| old[index as usize].clone()).collect();
            assert_eq!(rows(&after), moved, "{part}");
        }
    }

    #[test]
    fn importance_is_the_sum_of_magnitudes_of_a_column() {
        let weight = Tensor::new(&[[1.0f32, -2.0, 0.0], [-3.0, 0.5, 0.0]], &Device::Cpu).expect("a matrix");
        let weight = weight.reshape((2, 3, 1, 1)).expect("filters");
        assert_eq!(column_norms(&weight).expect("filters"), [4.0, 2.5, 0.0]);
    }

    #[test]
    fn groups_keep_their_places() {
        let importance = [1.0, 3.0, 2.0, 9.0, 8.0, 10.0];
        assert_eq!(sorted(&importance, &[6].into()), [5, 3, 4, 1, 2, 0]);
        assert_eq!(sorted(&importance, &[3, 6].into()), [1, 2, 0, 5, 3, 4]);
    }

    /// The inner widths of each elastic block, of the sub-networks with the `expand` largest ratios and the `width` largest widths.
    fn widths_of(space: &SearchSpace, expand: usize, width: usize) -> Vec<Vec<usize>> {
        let largest = [("expand".to_string(), expand), ("width".to_string(), width)].into();
        let restricted = [space.restricted(&largest)];
        let slots = space.weights().slots().iter();
        let first = slots.filter_map(|slot| sortable(space, slot, &restricted).into_iter().next());
        first.map(|sortable| sortable.bounds.into_iter().collect()).collect()
    }

    #[test]
    fn inner_widths_are_those_of_all_sub_networks() {
        let tiny = preset("tiny").expect("a preset");
        assert_eq!(widths_of(&tiny, 2, 1), [vec![64, 96], vec![64, 96], vec![64, 96], vec![96, 144]]);
        let resnet = preset("tiny-resnet").expect("a preset");
        // .25 and .5 of 80, 64 channels; then also of 64, 48 (three quarters)
        assert_eq!(widths_of(&resnet, 2, 1), [[24, 40], [24, 40], [16, 32], [16, 32]]);
        let wide = [vec![16, 24, 32, 40], vec![16, 24, 32, 40], vec![16, 24, 32], vec![16, 24, 32]];
        assert_eq!(widths_of(&resnet, 2, 2), wide);
        for space in [tiny, resnet] {
            let listed = widths_of(&space, 9, 9);
            let mut rng = base::random::rng_for("widths", 1, &[]);
            let mut met: BTreeMap<Option<usize>, BTreeSet<usize>> = BTreeMap::new();
            for _ in 0..500 {
                for layer in space.lower(&sampler::random(&space, &mut rng)).expect("legal") {
                    let mid = match layer.operator {
                        Operator::MbConv(MbConv { mid, expansion: true, .. }) => mid,
                        Operator::Bottleneck(Bottleneck { mid, .. }) => mid,
                        _ => continue,
                    };
                    met.entry(layer.slot).or_default().insert(mid);
                }
            }
            let met: Vec<Vec<usize>> = met.into_values().map(|widths| widths.into_iter().collect()).collect();
            assert_eq!(listed, met, "{}", space.name());
        }
    }
}
