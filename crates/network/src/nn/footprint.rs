//! The memory that a pass over a list of layers holds at once, by the layers' sizes alone: a step's need is known before
//! anything is allocated.
//!
//! It follows `forward` and `backward` of each layer tensor by tensor, with a scope's end where Rust has it, and must be changed
//! with them; a test compares it with the tape of real steps.

use space::LayerSpec;

use super::layers::held;

/// Memory of passes over some layers, in values of a tensor per image of a batch, unless stated otherwise. The batch of
/// images itself is not counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Footprint {
    /// Saved by a training pass for its backward pass.
    pub tape: usize,
    /// Also saved, whatever the number of images: statistics of batch norms.
    pub statistics: usize,
    /// Peak of a training pass, forward and backward, the tape included.
    pub training: usize,
    /// Peak of a pass that saves nothing: a teacher's, a calibration's, an evaluation's.
    pub forgetting: usize,
    /// Peak of the patches of one image under a dense kernel.
    pub patches: usize,
    /// Peak of a thread that computes one channel of an inverted residual block.
    pub scratch: usize,
}

impl Footprint {
    /// The footprint of these layers.
    pub fn of(layers: &[LayerSpec]) -> Self {
        let graph = Reads::of(layers);
        let mut sum = Self::default();
        let mut kept = vec![false; layers.len() + 1];
        for (index, layer) in layers.iter().enumerate() {
            let held = held(layer);
            // tensors that the tape has already, since another reader kept them
            let shared = if held.keeps_input { graph.values(index, |place| kept[place]) } else { 0 };
            let inputs = if held.keeps_input { graph.values(index, |_| true) } else { 0 };
            let before = sum.tape;
            sum.tape += held.inner + inputs - shared;
            if held.keeps_input {
                graph.inputs[index].iter().for_each(|place| kept[*place] = true);
            }
            let forward = sum.tape + held.forward + graph.alive(index, |place| !kept[place]);
            let backward = before + held.backward - shared + graph.gradients(index);
            sum.training = sum.training.max(forward).max(backward);
            sum.forgetting = sum.forgetting.max(held.forgetting + graph.alive(index, |_| true));
            sum.statistics += held.statistics;
            sum.patches = sum.patches.max(held.patches);
            sum.scratch = sum.scratch.max(held.scratch);
        }
        // the loss's gradient at the logits, and the logits
        let logits = layers.last().map_or(0, |layer| 2 * layer.output.len());
        sum.training = sum.training.max(sum.tape + logits);
        sum
    }
}

/// The readers of each output: place 0 is the network's input, then the layers' outputs follow.
struct Reads {
    /// The places that each layer reads, each once.
    inputs: Vec<Vec<usize>>,
    /// Values at each place.
    sizes: Vec<usize>,
    /// The last layer that reads each place, if one does.
    last: Vec<Option<usize>>,
}

impl Reads {
    fn of(layers: &[LayerSpec]) -> Self {
        let mut reads = Self {
            inputs: Vec::with_capacity(layers.len()),
            sizes: vec![0; layers.len() + 1],
            last: vec![None; layers.len() + 1],
        };
        for (index, layer) in layers.iter().enumerate() {
            let mut places: Vec<usize> =
                layer.inputs.iter().map(|from| from.map_or(0, |from| from + 1)).collect();
            places.sort_unstable();
            places.dedup();
            for &place in &places {
                reads.sizes[place] = layer.input.len();
                reads.last[place] = Some(index);
            }
            reads.sizes[index + 1] = layer.output.len();
            reads.inputs.push(places);
        }
        reads
    }

    /// Values of the layer's inputs at places for which `holds` is true.
    fn values(&self, layer: usize, holds: impl Fn(usize) -> bool) -> usize {
        self.inputs[layer].iter().filter(|place| holds(**place)).map(|place| self.sizes[*place]).sum()
    }

    /// Values alive while a layer runs forward, its inputs included, at places for which `holds` is true.
    fn alive(&self, layer: usize, holds: impl Fn(usize) -> bool) -> usize {
        (0..=layer)
            .filter(|place: &usize| holds(*place) && self.last[*place].is_some_and(|last| last >= layer))
            .map(|place| self.sizes[place])
            .sum()
    }

    /// Values of the gradients that wait for earlier layers while a layer runs backward.
    fn gradients(&self, layer: usize) -> usize {
        (0..=layer)
            .filter(|place: &usize| self.last[*place].is_some_and(|last| last > layer))
            .map(|place| self.sizes[place])
            .sum()
    }
}

/// Memory of one layer, in values of a tensor.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Held {
    /// On the tape, in addition to its inputs.
    pub inner: usize,
    /// Whether its inputs are on the tape too.
    pub keeps_input: bool,
    /// On the tape whatever the number of images.
    pub statistics: usize,
    /// Next to the tape and its inputs at the end of forward, the output included.
    pub forward: usize,
    /// Peak in backward, in addition to the tape of the layers before: its saved tensors, its inputs included, and all gradients.
    pub backward: usize,
    /// In a pass that saves nothing, in addition to its inputs.
    pub forgetting: usize,
    /// The patches of one image.
    pub patches: usize,
    /// The memory of a thread that computes one channel.
    pub scratch: usize,
}

impl Held {
    /// Convolution, batch norm, activation; `residual` adds the input, and holds its gradient until then.
    pub fn conv_norm(spec: &LayerSpec, kernel: usize, residual: bool) -> Self {
        let input = spec.input.len();
        let output = spec.output.len();
        let past = if residual { output } else { 0 };
        Self {
            inner: output,
            keeps_input: true,
            statistics: 2 * spec.output.channels,
            forward: output,
            // the batch norm's, which frees its input, then the convolution's
            backward: past + input + output + output.max(input),
            forgetting: output,
            // a product with the maps themselves where the kernel is 1
            patches: if kernel == 1 { 0 } else { patches(spec.input.channels, kernel, spec.output.plane()) },
            scratch: 0,
        }
    }

    /// A pooling.
    pub fn pooled(spec: &LayerSpec) -> Self {
        let input = spec.input.len();
        let output = spec.output.len();
        Self {
            keeps_input: true,
            forward: output,
            backward: 2 * input + output,
            forgetting: output,
            ..Self::default()
        }
    }
}

/// Values under a kernel at all places of the output.
pub(super) fn patches(channels: usize, kernel: usize, plane: usize) -> usize {
    channels * kernel * kernel * plane
}

#[cfg(test)]
mod tests;
