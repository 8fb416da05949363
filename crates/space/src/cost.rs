//! What a list of layers costs: multiply-accumulates, parameters, peak activation memory.

use serde::{Deserialize, Serialize};

use super::layer::{Bottleneck, LayerSpec, MbConv, Operator};

/// Exact costs of one sub-network for one image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cost {
    /// Multiply-accumulates of convolutions, squeeze-and-excite and the linear layer.
    pub macs: u64,
    /// Trainable parameters, batch norms included.
    pub params: u64,
    /// Bytes of the activations that live at once, at most, in f32 at batch 1: an operator's input and
    /// output, and the block's input where it is added at the end; batch norm and activation work in place.
    pub peak_activation_bytes: u64,
}

/// Sums the layers' costs.
pub fn cost(layers: &[LayerSpec]) -> Cost {
    layers.iter().map(layer_cost).fold(Cost::default(), |sum, layer| Cost {
        macs: sum.macs + layer.macs,
        params: sum.params + layer.params,
        peak_activation_bytes: sum.peak_activation_bytes.max(layer.peak_activation_bytes),
    })
}

fn layer_cost(layer: &LayerSpec) -> Cost {
    let params = layer.weights().iter().map(|weight| weight.shape.iter().product::<usize>() as u64).sum();
    let peak_activation_bytes = 4 * peak_values(layer) as u64;
    Cost { macs: macs(layer) as u64, params, peak_activation_bytes }
}

fn macs(layer: &LayerSpec) -> usize {
    let (input, output) = (layer.input, layer.output);
    match &layer.operator {
        Operator::Stem { kernel, .. } => output.len() * kernel * kernel * input.channels,
        Operator::Conv { kernel, .. } => output.len() * kernel * kernel * input.channels,
        Operator::MbConv(block) => mbconv_macs(block, layer),
        Operator::Bottleneck(block) => bottleneck_macs(block, layer),
        Operator::HeadConv { .. } => output.len() * input.channels,
        Operator::Pool | Operator::MaxPool | Operator::Sum { .. } => 0,
        Operator::FeatureMix { .. } | Operator::Classifier => output.channels * input.channels,
    }
}

fn mbconv_macs(block: &MbConv, layer: &LayerSpec) -> usize {
    let (input, output) = (layer.input, layer.output);
    let expansion = if block.expansion { block.mid * input.len() } else { 0 };
    let depthwise = block.mid * block.kernel * block.kernel * output.plane();
    let squeeze = block.squeeze.map_or(0, |squeeze| 2 * squeeze * block.mid);
    expansion + depthwise + squeeze + block.mid * output.len()
}

fn bottleneck_macs(block: &Bottleneck, layer: &LayerSpec) -> usize {
    let (input, output) = (layer.input, layer.output);
    let mid = block.mid * output.plane();
    let downsample = if block.downsample { output.len() * input.channels } else { 0 };
    block.mid * input.len()
        + mid * block.kernel * block.kernel * block.mid
        + mid * output.channels
        + downsample
}

fn peak_values(layer: &LayerSpec) -> usize {
    match &layer.operator {
        Operator::MbConv(block) => mbconv_peak(block, layer),
        Operator::Bottleneck(block) => bottleneck_peak(block, layer),
        _ => layer.input.len() + layer.output.len(),
    }
}

/// The input lives until the shortcut has been computed.
fn bottleneck_peak(block: &Bottleneck, layer: &LayerSpec) -> usize {
    let (input, output) = (layer.input.len(), layer.output.len());
    let (reduced, mid) = (block.mid * layer.input.plane(), block.mid * layer.output.plane());
    let pooled = if block.stride > 1 { layer.input.channels * layer.output.plane() } else { 0 };
    let shortcut = match (block.downsample, pooled) {
        (false, _) => input + output,
        (true, 0) => input + 2 * output,
        (true, pooled) => (input + output + pooled).max(pooled + 2 * output),
    };
    input + (reduced + mid).max(mid + output).max(shortcut - input)
}

fn mbconv_peak(block: &MbConv, layer: &LayerSpec) -> usize {
    let (input, output) = (layer.input.len(), layer.output.len());
    let kept = if block.residual { input } else { 0 };
    let (before, after) = (block.mid * layer.input.plane(), block.mid * layer.output.plane());
    let expansion = if block.expansion { input + before } else { 0 };
    let depthwise = if block.expansion { kept + before + after } else { input + after };
    expansion.max(depthwise).max(kept + after + output)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sampler::{largest, smallest};
    use crate::{Arch, End, SearchSpace, preset};

    fn macs(space: &SearchSpace, arch: &Arch) -> u64 {
        cost(&space.lower(arch).expect("legal")).macs
    }

    /// Counted by forward hooks on the static networks of PyTorch's `ofa` package.
    #[test]
    fn ofa_mobilenet_v3_costs_are_exact() {
        let space = preset("ofa-mbv3-w1.0").expect("a preset");
        let (largest, smallest) = (largest(&space), smallest(&space));
        for (side, large, small) in [
            (64, 50_822_016, 12_457_152),
            (128, 188_248_320, 41_476_224),
            (160, 291_318_048, 63_240_528),
            (192, 417_292_160, 89_841_344),
            (224, 566_170_656, 121_278_672),
        ] {
            assert_eq!(
                (macs(&space, &largest.at(side)), macs(&space, &smallest.at(side))),
                (large, small),
                "{side}"
            );
        }
        let deep = space.genome().corner(|dimension| match dimension.key {
            "resolution" | "depth" => End::Largest,
            _ => End::Smallest,
        });
        assert_eq!(macs(&space, &space.arch(&deep)), 226_193_808);
        let middle: Arch = format!("r224:{}", ["k5e4,k5e4,k5e4"; 5].join("/")).parse().expect("an arch");
        assert_eq!(macs(&space, &middle), 250_746_944);
        let params = |arch| cost(&space.lower(arch).expect("legal")).params;
        assert_eq!((params(&largest), params(&smallest)), (7_664_760, 3_410_792));
    }

    #[test]
    fn ofa_mobilenet_v3_has_its_number_of_subnetworks() {
        let space = preset("ofa-mbv3-w1.0").expect("a preset");
        let count = space.subnetworks();
        assert_eq!(count, num_bigint::BigUint::from(9u32 * 9 + 9 * 9 * 9 + 9 * 9 * 9 * 9).pow(5));
        assert!(count.to_string().starts_with("21758") && count.to_string().len() == 20, "{count}");
    }

    #[test]
    fn peak_memory_counts_what_lives_at_once() {
        let space = preset("tiny").expect("a preset");
        let layers = space.lower(&"r8:k3e3,k3e3/k3e3".parse().expect("an arch")).expect("legal");
        // Block 1 (16 -> 48 at 8x8, stride 2): the expansion's input and output, then its output and the
        // depthwise output.
        assert_eq!(cost(&layers[2..3]).peak_activation_bytes, 4 * (16 * 64 + 48 * 64));
        // Block 2 (residual at 4x4): input kept, expansion's output, depthwise output.
        assert_eq!(cost(&layers[3..4]).peak_activation_bytes, 4 * (16 * 16 + 48 * 16 + 48 * 16));
    }
}
