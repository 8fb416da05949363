//! Channel sorting: before widths shrink, the most important inner channels of each block move to the front.
//!
//! Importance of an inner channel is the L1 norm of its column in the projection (Cai et al. 2020). The order
//! of inner channels is free, so the largest network computes what it did before.

use candle_core::{Device, Tensor};

use super::shared::SharedWeights;
use crate::error::Result;
use crate::space::{LayerSpec, Operator, Ratio, SearchSpace, sampler};

/// Which channels may change places.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Nesting {
    /// All of a block's.
    None,
    /// Only those between the widths of these expand ratios, which have been trained already.
    Within(Vec<Ratio>),
}

impl Nesting {
    /// Bounds of the groups: rising channel counts, the last being all of them.
    fn bounds(&self, inner: usize, width_of: impl Fn(Ratio) -> usize) -> Vec<usize> {
        let mut bounds = match self {
            Self::None => Vec::new(),
            Self::Within(expands) => expands.iter().map(|&expand| width_of(expand).min(inner)).collect(),
        };
        bounds.push(inner);
        bounds.sort_unstable();
        bounds.dedup();
        bounds
    }
}

/// Sorts the inner channels of every elastic block, and those inside its squeeze-and-excite, by importance.
///
/// # Errors
/// If the weights are another space's.
pub fn sort_channels(space: &SearchSpace, shared: &mut SharedWeights, nesting: &Nesting) -> Result<()> {
    for layer in space.lower(&sampler::largest(space))? {
        match &layer.operator {
            Operator::MbConv(block) if block.expansion => sort_block(shared, &layer, block.squeeze, nesting)?,
            Operator::Bottleneck(block) => sort_bottleneck(shared, &layer, block.mid, nesting)?,
            _ => {}
        }
    }
    Ok(())
}

fn sort_block(
    shared: &mut SharedWeights,
    layer: &LayerSpec,
    squeeze: Option<usize>,
    nesting: &Nesting,
) -> Result<()> {
    let name = |part: &str| format!("{}.conv.{part}", layer.name);
    let projection = name("point_linear.conv.weight");
    let mid = shared.get(&projection)?.dim(1)?;
    let width_of = |expand| layer.mid_of(expand);
    let order = sorted(&column_norms(shared.get(&projection)?)?, &nesting.bounds(mid, width_of));
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
    let width_of = |expand| LayerSpec::squeeze_of(layer.mid_of(expand));
    let order = sorted(&column_norms(shared.get(&fc("expand.weight"))?)?, &nesting.bounds(squeeze, width_of));
    permute(shared, &fc("expand.weight"), 1, &order)?;
    permute(shared, &fc("reduce.weight"), 0, &order)?;
    permute(shared, &fc("reduce.bias"), 0, &order)
}

/// First the channels between the dense convolution and the expansion, then those before it, as the expansion's and
/// then the dense convolution's weights value them.
fn sort_bottleneck(
    shared: &mut SharedWeights,
    layer: &LayerSpec,
    mid: usize,
    nesting: &Nesting,
) -> Result<()> {
    let bounds = nesting.bounds(mid, |expand| layer.mid_of(expand));
    for (from, to) in [("conv2", "conv3"), ("conv1", "conv2")] {
        let name = |tensor: &str| format!("{}.{tensor}", layer.name);
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
fn sorted(importance: &[f64], bounds: &[usize]) -> Vec<u32> {
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

    #[test]
    fn groups_keep_their_places() {
        let importance = [1.0, 3.0, 2.0, 9.0, 8.0, 10.0];
        assert_eq!(sorted(&importance, &[6]), [5, 3, 4, 1, 2, 0]);
        assert_eq!(sorted(&importance, &[3, 6]), [1, 2, 0, 5, 3, 4]);
    }
}
