//! Channel sorting: before widths shrink, the most important inner channels of each block move to the front.
//!
//! Importance of an inner channel is the L1 norm of its column in the projection (Cai et al. 2020). The order
//! of inner channels is free, so the largest network computes what it did before.

use std::collections::BTreeSet;

use candle_core::{Device, Tensor};
use space::{Layer, LayerSpec, Operator, SearchSpace, sampler};

use super::shared::SharedWeights;
use crate::error::Result;

/// Sorts the inner channels of every elastic block, and those inside its squeeze-and-excite, by importance.
///
/// `trained` are the restrictions of `space` whose sub-networks were trained before. Each of them must compute what it
/// did, so in each block channels stay between the inner widths that `trained` has in that block.
///
/// # Errors
/// If the weights are another space's.
pub fn sort_channels(space: &SearchSpace, shared: &mut SharedWeights, trained: &[SearchSpace]) -> Result<()> {
    for layer in space.lower(&sampler::largest(space))? {
        match &layer.operator {
            Operator::MbConv(block) if block.expansion => {
                let trained = inner_widths(space, &layer, trained);
                sort_block(shared, &layer.name, block.squeeze, &trained)?;
            }
            Operator::Bottleneck(block) => {
                let trained = inner_widths(space, &layer, trained);
                sort_bottleneck(shared, &layer.name, block.mid, &trained)?;
            }
            _ => {}
        }
    }
    Ok(())
}

/// The inner widths that a layer's slot has in the sub-networks of some restrictions of the space.
fn inner_widths(space: &SearchSpace, layer: &LayerSpec, trained: &[SearchSpace]) -> BTreeSet<usize> {
    let index = space.weights();
    let Some(slot) = index.slot(&layer.shared_name()) else { return BTreeSet::new() };
    let layers = trained.iter().flat_map(|restricted| index.layers_within(slot, restricted.genome()));
    let mid = |layer: &Layer| match &layer.operator {
        Operator::MbConv(block) => Some(block.mid),
        Operator::Bottleneck(block) => Some(block.mid),
        _ => None,
    };
    layers.filter_map(mid).collect()
}

/// Bounds of the groups within which `channels` may change places: the trained widths, and all of them.
fn bounds(channels: usize, trained: impl Iterator<Item = usize>) -> BTreeSet<usize> {
    trained.map(|width| width.min(channels)).chain([channels]).collect()
}

fn sort_block(
    shared: &mut SharedWeights,
    layer: &str,
    squeeze: Option<usize>,
    trained: &BTreeSet<usize>,
) -> Result<()> {
    let name = |part: &str| format!("{layer}.conv.{part}");
    let projection = name("point_linear.conv.weight");
    let mid = shared.get(&projection)?.dim(1)?;
    let order = sorted(&column_norms(shared.get(&projection)?)?, &bounds(mid, trained.iter().copied()));
    permute(shared, &projection, 1, &order)?;
    for part in ["inverted_bottleneck", "depth_conv"] {
        for tensor in ["conv.weight", "bn.weight", "bn.bias"] {
            permute(shared, &name(&format!("{part}.{tensor}")), 0, &order)?;
        }
    }
    let Some(squeeze) = squeeze else { return Ok(()) };
    let fc = |part: &str| name(&format!("depth_conv.se.fc.{part}"));
    permute(shared, &fc("reduce.weight"), 1, &order)?;
    permute(shared, &fc("expand.weight"), 0, &order)?;
    permute(shared, &fc("expand.bias"), 0, &order)?;
    let bounds = bounds(squeeze, trained.iter().map(|&mid| LayerSpec::squeeze_of(mid)));
    let order = sorted(&column_norms(shared.get(&fc("expand.weight"))?)?, &bounds);
    permute(shared, &fc("expand.weight"), 1, &order)?;
    permute(shared, &fc("reduce.weight"), 0, &order)?;
    permute(shared, &fc("reduce.bias"), 0, &order)
}

/// First the channels between the dense convolution and the expansion, then those before it, as the expansion's and
/// then the dense convolution's weights value them.
fn sort_bottleneck(
    shared: &mut SharedWeights,
    layer: &str,
    mid: usize,
    trained: &BTreeSet<usize>,
) -> Result<()> {
    let bounds = bounds(mid, trained.iter().copied());
    for (from, to) in [("conv2", "conv3"), ("conv1", "conv2")] {
        let name = |tensor: &str| format!("{layer}.{tensor}");
        let reads = name(&format!("{to}.conv.weight"));
        let order = sorted(&column_norms(shared.get(&reads)?)?, &bounds);
        permute(shared, &reads, 1, &order)?;
        for tensor in ["conv.weight", "bn.weight", "bn.bias"] {
            permute(shared, &name(&format!("{from}.{tensor}")), 0, &order)?;
        }
    }
    Ok(())
}

/// L1 norm of all that a weight `[O, I, k, k]` has for each of its inputs.
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

/// Indices by falling importance, but each group (up to its bound) stays where it is; ties keep their order.
fn sorted(importance: &[f64], bounds: &BTreeSet<usize>) -> Vec<u32> {
    let mut order: Vec<u32> = (0..importance.len() as u32).collect();
    let mut start = 0;
    for &bound in bounds {
        order[start..bound].sort_by(|&a, &b| importance[b as usize].total_cmp(&importance[a as usize]));
        start = bound;
    }
    order
}

fn permute(shared: &mut SharedWeights, name: &str, dimension: usize, order: &[u32]) -> Result<()> {
    let (index, tensor) = (Tensor::new(order, &Device::Cpu)?, shared.get(name)?);
    let permuted = tensor.to_device(&Device::Cpu)?.contiguous()?.index_select(&index, dimension)?;
    let permuted = permuted.to_device(tensor.device())?;
    shared.replace(name, permuted);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use space::{Bottleneck, MbConv, preset};
    use std::collections::BTreeMap;

    #[test]
    fn groups_keep_their_places() {
        let importance = [1.0, 3.0, 2.0, 9.0, 8.0, 10.0];
        assert_eq!(sorted(&importance, &bounds(6, [].into_iter())), [5, 3, 4, 1, 2, 0]);
        assert_eq!(sorted(&importance, &bounds(6, [3, 9].into_iter())), [1, 2, 0, 5, 3, 4]);
    }

    /// The inner widths of each elastic block, of the sub-networks with so many of the largest ratios and widths.
    fn widths_of(space: &SearchSpace, expand: usize, width: usize) -> Vec<Vec<usize>> {
        let largest = [("expand".to_string(), expand), ("width".to_string(), width)].into();
        let restricted = [space.restricted(&largest)];
        let layers = space.lower(&sampler::largest(space)).expect("legal");
        let widths = layers.iter().map(|layer| inner_widths(space, layer, &restricted));
        let elastic = layers.iter().zip(widths).filter(|(layer, _)| match &layer.operator {
            Operator::MbConv(block) => block.expansion,
            Operator::Bottleneck(_) => true,
            _ => false,
        });
        elastic.map(|(_, widths)| widths.into_iter().collect()).collect()
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
            let (listed, mut rng) = (widths_of(&space, 9, 9), base::random::rng_for("widths", 1, &[]));
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
