//! How much a pass over a list of layers holds at once, by the layers' sizes alone: what a step takes is known before
//! anything is allocated.
//!
//! It follows `forward` and `backward` of each layer tensor by tensor, with a scope's end where Rust has it, and must be changed
//! with them; a test compares it with the tape of real steps.

use space::{Bottleneck, LayerSpec, MbConv, Operator};

/// What passes over some layers hold, in values of a tensor; for each image of a batch unless something else is said. The batch
/// of images itself is not counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Footprint {
    /// Kept by a training pass for its backward pass.
    pub tape: usize,
    /// Kept besides, whatever the number of images: statistics of batch norms.
    pub statistics: usize,
    /// Held at most at once by a training pass, forward and backward, the tape included.
    pub training: usize,
    /// Held at most at once by a pass that keeps nothing: a teacher's, a calibration's, an evaluation's.
    pub forgetting: usize,
    /// Held at most by the patches of one image under a dense kernel.
    pub patches: usize,
    /// Held at most by a thread that computes one channel of an inverted residual block.
    pub scratch: usize,
}

impl Footprint {
    /// What passes over these layers hold.
    pub fn of(layers: &[LayerSpec]) -> Self {
        let mut sum = Self::default();
        for layer in layers {
            let held = Held::of(layer);
            let before = sum.tape;
            sum.tape += held.kept;
            sum.statistics += held.statistics;
            sum.training = sum.training.max(sum.tape + held.forward).max(before + held.backward);
            sum.forgetting = sum.forgetting.max(held.forgetting);
            sum.patches = sum.patches.max(held.patches);
            sum.scratch = sum.scratch.max(held.scratch);
        }
        // the loss's gradient at the logits, and the logits
        let logits = layers.last().map_or(0, |layer| 2 * layer.output.len());
        sum.training = sum.training.max(sum.tape + logits);
        sum
    }
}

/// What one layer holds.
#[derive(Default)]
struct Held {
    /// On the tape, its input included.
    kept: usize,
    statistics: usize,
    /// Beside the tape at the end of forward, the output included.
    forward: usize,
    /// At most in backward, beside the tape of the layers before: what it kept and all gradients.
    backward: usize,
    /// In a pass that keeps nothing, input and output included.
    forgetting: usize,
    patches: usize,
    scratch: usize,
}

impl Held {
    fn of(layer: &LayerSpec) -> Self {
        let (input, output) = (layer.input.len(), layer.output.len());
        match &layer.operator {
            Operator::Stem { kernel, .. } => Self::conv_norm(layer, *kernel, false),
            Operator::HeadConv { .. } => Self::conv_norm(layer, 1, false),
            Operator::Conv { kernel, residual, .. } => Self::conv_norm(layer, *kernel, *residual),
            Operator::MbConv(block) => Self::mbconv(block, layer),
            Operator::Bottleneck(block) => Self::bottleneck(block, layer),
            Operator::MaxPool | Operator::Pool | Operator::Sum { .. } => Self {
                kept: input,
                forward: output,
                backward: 2 * input + output,
                forgetting: input + output,
                ..Self::default()
            },
            // products with what comes before their activation kept, dropout's mask and what it leaves
            Operator::FeatureMix { .. } | Operator::Classifier => Self {
                kept: input + output,
                forward: input + output,
                backward: 2 * (input + output),
                forgetting: 2 * input + 2 * output,
                ..Self::default()
            },
        }
    }

    /// Convolution, batch norm, activation; `residual` adds the input, and keeps its gradient meanwhile.
    fn conv_norm(layer: &LayerSpec, kernel: usize, residual: bool) -> Self {
        let (input, output) = (layer.input.len(), layer.output.len());
        let kept = input + output;
        let past = if residual { output } else { 0 };
        Self {
            kept,
            statistics: 2 * layer.output.channels,
            forward: output,
            // the batch norm's, which frees its input, then the convolution's
            backward: past + input + output + output.max(input),
            forgetting: input + output,
            patches: patches(layer.input.channels, kernel, layer.output.plane()),
            ..Self::default()
        }
    }

    fn mbconv(block: &MbConv, layer: &LayerSpec) -> Self {
        let (input, output) = (layer.input.len(), layer.output.len());
        let (mid_in, mid_out) = (block.mid * layer.input.plane(), block.mid * layer.output.plane());
        let expanded = if block.expansion { mid_in } else { 0 };
        // means, both products, the factors, and the scaled maps
        let excited = block.squeeze.map_or(0, |squeeze| 3 * block.mid + 2 * squeeze + mid_out);
        let kept = input + expanded + 2 * mid_out + excited + output;
        let norms = if block.expansion { 2 } else { 1 };
        // the gradients of output and inner maps wait for the end
        let waiting = output + mid_out;
        let past = if block.residual { 0 } else { input };
        let chain_dx = if block.expansion { mid_in } else { input };
        Self {
            kept,
            statistics: 2 * (norms * block.mid + layer.output.channels),
            forward: output,
            backward: (kept + waiting)
                .max(input + expanded + mid_out + waiting + chain_dx)
                .max(input + waiting + chain_dx + past),
            forgetting: input + mid_out + expanded.max(output),
            scratch: layer.input.plane() + layer.output.plane(),
            ..Self::default()
        }
    }

    fn bottleneck(block: &Bottleneck, layer: &LayerSpec) -> Self {
        let (input, output) = (layer.input.len(), layer.output.len());
        let (mid_in, mid_out) = (block.mid * layer.input.plane(), block.mid * layer.output.plane());
        let pooled = match block.downsample && block.stride > 1 {
            true => layer.input.channels * layer.output.plane(),
            false => 0,
        };
        let shortcut = if block.downsample { output } else { 0 };
        let kept = input + pooled + shortcut + 2 * mid_in + 2 * mid_out + 2 * output;
        let norms = 2 * block.mid + layer.output.channels;
        // the gradient before the last activation waits with that after it
        let expansion = kept + 2 * output + output.max(mid_out);
        let dense = kept + output + mid_in - mid_out.min(mid_in);
        let reduction = input + pooled + shortcut + 3 * output + mid_in + input;
        let past = input + shortcut + 3 * output + 2 * input + pooled;
        Self {
            kept,
            statistics: 2 * (norms + if block.downsample { layer.output.channels } else { 0 }),
            forward: shortcut + output,
            backward: expansion.max(dense).max(reduction).max(past),
            forgetting: input + (shortcut + pooled).max(shortcut + mid_in + mid_out + 2 * output),
            patches: patches(block.mid, block.kernel, layer.output.plane()),
            ..Self::default()
        }
    }
}

/// Values under a kernel at all its places.
fn patches(channels: usize, kernel: usize, plane: usize) -> usize {
    if kernel == 1 { 0 } else { channels * kernel * kernel * plane }
}

#[cfg(test)]
mod tests;
