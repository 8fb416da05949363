//! Smaller depthwise kernels from larger ones: centre crop, then a learned matrix (Cai et al. 2020, section 3.2).
//!
//! The crop to the next smaller size, flattened row by row, is multiplied by the layer's matrix, which all its
//! channels share: `F' = crop M^T`. 7 to 3 goes through 5. The largest kernel is taken as it is.

use candle_core::Tensor;
use kernels::Kernels;
use space::{Layer, LayerSpec, Operator, SearchSpace, WeightRole, WeightSpec};

use super::shared::{Gradients, SharedWeights};
use crate::error::Result;

/// Name of a block's depthwise convolution.
pub(super) fn depthwise_name(block: &str) -> String {
    format!("{block}.conv.depth_conv.conv")
}

fn matrix_name(block: &str, from: usize, to: usize) -> String {
    format!("{}.{from}to{to}_matrix", depthwise_name(block))
}

/// The kernels that a layer's slot can have, rising; none where it is no block with a depthwise convolution.
fn kernel_choices(space: &SearchSpace, layer: &LayerSpec) -> Vec<usize> {
    if !matches!(layer.operator, Operator::MbConv(_)) {
        return Vec::new();
    }
    let kernel = |layer: &Layer| match &layer.operator {
        Operator::MbConv(block) => Some(block.kernel),
        _ => None,
    };
    let mut sizes: Vec<usize> = space.weights().layers_of(&layer.shared_name()).filter_map(kernel).collect();
    sizes.sort_unstable();
    sizes.dedup();
    sizes
}

/// The matrices of every block of the largest network.
pub(super) fn matrix_specs(space: &SearchSpace, largest: &[LayerSpec]) -> Vec<WeightSpec> {
    let mut specs = Vec::new();
    for layer in largest {
        for pair in kernel_choices(space, layer).windows(2).rev() {
            let name = matrix_name(&layer.name, pair[1], pair[0]);
            specs.push(WeightSpec::new(name, &[pair[0].pow(2); 2], WeightRole::KernelTransform));
        }
    }
    specs
}

/// How the depthwise kernel of one block comes out of the shared one.
pub(super) struct KernelTransform {
    /// Name of the block in the supernet.
    block: String,
    channels: usize,
    /// Kernel sizes, falling; the first is the shared one's.
    sizes: Vec<usize>,
}

impl KernelTransform {
    /// The transform that a layer needs; `None` where it takes the shared kernel as it is.
    pub(super) fn of(space: &SearchSpace, layer: &LayerSpec) -> Option<Self> {
        let Operator::MbConv(block) = &layer.operator else { return None };
        let sizes = kernel_choices(space, layer).into_iter().rev();
        let sizes: Vec<usize> = sizes.take_while(|&size| size >= block.kernel).collect();
        (sizes.len() > 1).then(|| Self { block: layer.shared_name(), channels: block.mid, sizes })
    }

    fn weight_name(&self) -> String {
        format!("{}.weight", depthwise_name(&self.block))
    }

    /// Each step's crop, flattened, and the kernel that it gives, `[C, k k]`.
    fn steps(&self, shared: &SharedWeights, kernels: &Kernels) -> Result<Vec<(Tensor, Tensor)>> {
        let mut current = shared.get(&self.weight_name())?.narrow(0, 0, self.channels)?;
        let mut steps = Vec::new();
        for pair in self.sizes.windows(2) {
            let (from, to) = (pair[0], pair[1]);
            let crop = kernels.numbers(&centre(&current, from, to)?)?.reshape((self.channels, to * to))?;
            let matrix = shared.get(&matrix_name(&self.block, from, to))?;
            let kernel = kernels.product(&crop, &matrix.t()?)?; // [C, to to]
            current = kernel.reshape((self.channels, 1, to, to))?;
            steps.push((crop, kernel));
        }
        Ok(steps)
    }

    /// The transformed kernel, `[C, 1, k, k]`.
    pub(super) fn forward(&self, shared: &SharedWeights, kernels: &Kernels) -> Result<Tensor> {
        let steps = self.steps(shared, &kernels.for_layer("kernel transform"))?;
        let (_, kernel) = steps.last().expect("a transform has a step");
        let size = *self.sizes.last().expect("a transform has sizes");
        Ok(kernel.reshape((self.channels, 1, size, size))?)
    }

    /// Pulls the gradient of the transformed kernel, `[C, 1, k, k]`, back to the shared kernel and the matrices.
    pub(super) fn backward(
        &self,
        dkernel: &Tensor,
        shared: &SharedWeights,
        gradients: &Gradients,
        kernels: &Kernels,
    ) -> Result<()> {
        let kernels = kernels.for_layer("kernel transform");
        let steps = self.steps(shared, &kernels)?;
        let mut d = dkernel.flatten_from(1)?; // [C, to to]
        for (index, pair) in self.sizes.windows(2).enumerate().rev() {
            let (from, to) = (pair[0], pair[1]);
            let name = matrix_name(&self.block, from, to);
            kernels.add_product(gradients.touch(&name)?, &d.t()?, &steps[index].0)?;
            let dcrop = kernels.product(&d, shared.get(&name)?)?.reshape((self.channels, 1, to, to))?;
            let dcurrent = if index == 0 {
                gradients.touch(&self.weight_name())?.narrow(0, 0, self.channels)?
            } else {
                Tensor::zeros((self.channels, 1, from, from), candle_core::DType::F32, dcrop.device())?
            };
            kernels.add_to_view(&centre(&dcurrent, from, to)?, &dcrop)?;
            d = dcurrent.flatten_from(1)?;
        }
        Ok(())
    }
}

/// The middle `to` x `to` of a kernel `[C, 1, from, from]`, as a view.
fn centre(kernel: &Tensor, from: usize, to: usize) -> candle_core::Result<Tensor> {
    let start = from / 2 - to / 2;
    kernel.narrow(2, start, to)?.narrow(3, start, to)
}
