//! Smaller depthwise kernels from larger ones: center crop, then a learned matrix (Cai et al. 2020, section 3.2).
//!
//! The crop to the next smaller size, flattened row by row, is multiplied by the layer's matrix, which all its
//! channels share: `F' = crop M^T`. 7 to 3 goes through 5. The largest kernel is taken as it is.

use candle_core::Tensor;
use kernels::Backend;
use space::{SearchSpace, WeightRole, WeightSpec};

use super::shared::{Gradients, SharedWeights};
use super::takes::center;
use crate::error::Result;

/// The matrix between two kernel sizes of a depthwise weight, a sibling of the weight as in PyTorch's `ofa`.
fn matrix_name(weight: &str, from: usize, to: usize) -> String {
    let module = weight.rsplit_once('.').map_or("", |(module, _)| module);
    format!("{module}.{from}to{to}_matrix")
}

/// Of each depthwise weight of a space, by its shared name, the kernel sizes that it can have, falling, where there are
/// several.
pub(super) fn kernel_sizes(space: &SearchSpace) -> Vec<(String, Vec<usize>)> {
    let index = space.weights();
    let mut found: Vec<(String, Vec<usize>)> = Vec::new();
    for slot in index.slots() {
        let name = slot.name.to_string();
        let weights = index.layers_of(&name).flat_map(space::Layer::weights);
        for weight in weights.filter(|weight| weight.role == WeightRole::DepthwiseFilters) {
            let name = format!("{name}.{}", weight.name);
            let size = weight.shape.last();
            match found.iter_mut().find(|(entered, _)| *entered == name) {
                Some((_, sizes)) => sizes.extend(size),
                None => found.push((name, size.copied().into_iter().collect())),
            }
        }
    }
    for (_, sizes) in &mut found {
        sizes.sort_unstable_by(|a, b| b.cmp(a));
        sizes.dedup();
    }
    found.retain(|(_, sizes)| sizes.len() > 1);
    found
}

/// The matrices of a space, in the order of its slots.
pub(super) fn matrix_specs(space: &SearchSpace) -> Vec<WeightSpec> {
    let matrices = |(weight, sizes): (String, Vec<usize>)| {
        sizes
            .windows(2)
            .map(|pair: &[usize]| {
                let name = matrix_name(&weight, pair[0], pair[1]);
                WeightSpec::new(name, &[pair[1].pow(2); 2], WeightRole::KernelTransform)
            })
            .collect::<Vec<_>>()
    };
    kernel_sizes(space).into_iter().flat_map(matrices).collect()
}

/// How a depthwise kernel comes out of the shared one.
pub(super) struct KernelTransform {
    /// Name of the shared weight.
    weight: String,
    channels: usize,
    /// Kernel sizes, falling; the first is the shared one's.
    sizes: Vec<usize>,
}

impl KernelTransform {
    /// The transform that gives a sub-network's weight; `None` where it takes the shared kernel as it is.
    pub fn of(shared: &SharedWeights, name: &str, weight: &WeightSpec) -> Option<Self> {
        let [channels, _, _, size] = weight.shape[..] else { return None };
        let sizes: Vec<usize> =
            shared.kernel_sizes(name)?.iter().copied().take_while(|larger| *larger >= size).collect();
        (sizes.len() > 1).then(|| Self { weight: name.to_string(), channels, sizes })
    }

    /// Each step's crop, flattened, and the kernel that it gives, `[C, k k]`.
    fn steps(&self, shared: &SharedWeights, backend: &Backend) -> Result<Vec<(Tensor, Tensor)>> {
        let mut current = shared.get(&self.weight)?.narrow(0, 0, self.channels)?;
        let mut steps = Vec::new();
        for pair in self.sizes.windows(2) {
            let from = pair[0];
            let to = pair[1];
            let crop = backend.numbers(&square(&current, to)?)?.reshape((self.channels, to * to))?;
            let matrix = shared.get(&matrix_name(&self.weight, from, to))?;
            let kernel = backend.product(&crop, &matrix.t()?)?; // [C, to to]
            current = kernel.reshape((self.channels, 1, to, to))?;
            steps.push((crop, kernel));
        }
        Ok(steps)
    }

    /// The transformed kernel, `[C, 1, k, k]`.
    pub fn forward(&self, shared: &SharedWeights, backend: &Backend) -> Result<Tensor> {
        let steps = self.steps(shared, &backend.for_layer("kernel transform"))?;
        let (_, kernel) = steps.last().expect("a transform has a step");
        let size = *self.sizes.last().expect("a transform has sizes");
        Ok(kernel.reshape((self.channels, 1, size, size))?)
    }

    /// Pulls the gradient of the transformed kernel, `[C, 1, k, k]`, back to the shared kernel and the matrices.
    pub fn backward(
        &self,
        dkernel: &Tensor,
        shared: &SharedWeights,
        gradients: &Gradients,
        backend: &Backend,
    ) -> Result<()> {
        let backend = backend.for_layer("kernel transform");
        let steps = self.steps(shared, &backend)?;
        let mut d = dkernel.flatten_from(1)?; // [C, to to]
        for (index, pair) in self.sizes.windows(2).enumerate().rev() {
            let from = pair[0];
            let to = pair[1];
            let name = matrix_name(&self.weight, from, to);
            backend.add_product(gradients.touch(&name)?, &d.t()?, &steps[index].0)?;
            let dcrop = backend.product(&d, shared.get(&name)?)?.reshape((self.channels, 1, to, to))?;
            let dcurrent = if index == 0 {
                gradients.touch(&self.weight)?.narrow(0, 0, self.channels)?
            } else {
                Tensor::zeros((self.channels, 1, from, from), candle_core::DType::F32, dcrop.device())?
            };
            backend.add_to_view(&square(&dcurrent, to)?, &dcrop)?;
            d = dcurrent.flatten_from(1)?;
        }
        Ok(())
    }
}

/// The middle `to` x `to` of a kernel `[C, 1, from, from]`, as a view.
fn square(kernel: &Tensor, to: usize) -> candle_core::Result<Tensor> {
    center(&center(kernel, 2, to)?, 3, to)
}
