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

/// The possible kernel sizes of each depthwise weight of a space that has several, in falling order, by the weight's
/// shared name.
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
    let mut specs = Vec::new();
    for (weight, sizes) in kernel_sizes(space) {
        for pair in sizes.windows(2) {
            let name = matrix_name(&weight, pair[0], pair[1]);
            specs.push(WeightSpec::new(name, &[pair[1].pow(2); 2], WeightRole::KernelTransform));
        }
    }
    specs
}

/// The steps from a shared depthwise kernel to a smaller one.
pub(super) struct KernelTransform {
    /// Name of the shared weight.
    weight: String,
    channels: usize,
    /// Kernel sizes in falling order; the first is the shared kernel's.
    sizes: Vec<usize>,
}

impl KernelTransform {
    /// The transform for a sub-network's weight; `None` where it is the shared kernel itself.
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

#[cfg(test)]
mod tests {
    use candle_core::Device;
    use space::preset;

    use super::*;
    use crate::elastic::testing::lively;
    use crate::nn::testing::{assert_close, noise, slopes, values};

    const WEIGHT: &str = "blocks.1.conv.depth_conv.conv.weight";
    const CHANNELS: usize = 3;

    fn shared() -> SharedWeights {
        lively(&preset("tiny").expect("a preset"))
    }

    /// The transform of `WEIGHT` to a kernel of this size.
    fn transform(shared: &SharedWeights, size: usize) -> Option<KernelTransform> {
        let spec = WeightSpec::new("conv.weight", &[CHANNELS, 1, size, size], WeightRole::DepthwiseFilters);
        KernelTransform::of(shared, WEIGHT, &spec)
    }

    /// A tensor of f64 by the last part of its name.
    fn exact(shared: &SharedWeights, last: &str) -> Vec<f64> {
        let name = format!("blocks.1.conv.depth_conv.conv.{last}");
        values(shared.get(&name).expect("a shared tensor")).into_iter().map(f64::from).collect()
    }

    /// Crops of 7 x 7 kernels `[C, 7 7]`, times the matrices, in plain loops: `[C, k k]` of the last size.
    fn naive(kernels: &[f64], matrices: &[Vec<f64>], sizes: &[usize]) -> Vec<f64> {
        let mut current = kernels.to_vec();
        for (pair, matrix) in sizes.windows(2).zip(matrices) {
            let margin = (pair[0] - pair[1]) / 2;
            let area = pair[1].pow(2);
            let mut next = Vec::new();
            for kernel in current[..CHANNELS * pair[0].pow(2)].chunks(pair[0].pow(2)) {
                let crop: Vec<f64> = (0..area)
                    .map(|at| kernel[(at / pair[1] + margin) * pair[0] + at % pair[1] + margin])
                    .collect();
                for row in matrix.chunks(area) {
                    next.push(row.iter().zip(&crop).map(|(m, value)| m * value).sum());
                }
            }
            current = next;
        }
        current
    }

    #[test]
    fn a_matrix_stands_between_two_sizes_of_each_depthwise_weight() {
        let space = preset("tiny").expect("a preset");
        let sizes = kernel_sizes(&space);
        assert!(sizes.contains(&(WEIGHT.to_string(), vec![7, 5, 3])), "{sizes:?}");
        let specs = matrix_specs(&space);
        assert_eq!(specs.len(), 2 * sizes.len());
        for (last, side) in [("7to5_matrix", 25), ("5to3_matrix", 9)] {
            let name = format!("blocks.1.conv.depth_conv.conv.{last}");
            let spec = specs.iter().find(|spec| spec.name == name).expect("a matrix");
            assert_eq!(spec.shape, [side, side]);
        }
    }

    #[test]
    fn smaller_kernels_are_crops_times_matrices() {
        let shared = shared();
        assert!(transform(&shared, 7).is_none(), "the largest kernel is taken as it is");
        let kernels = exact(&shared, "weight");
        let matrices = ["7to5_matrix", "5to3_matrix"].map(|name| exact(&shared, name));
        for backend in [Backend::detect(), Backend::reference()] {
            for sizes in [&[7, 5][..], &[7, 5, 3]] {
                let size = sizes[sizes.len() - 1];
                let transform = transform(&shared, size).expect("a smaller kernel");
                assert_eq!(transform.sizes, sizes);
                let kernel = transform.forward(&shared, &backend).expect("fitting shapes");
                assert_eq!(kernel.dims(), [CHANNELS, 1, size, size]);
                assert_close("kernel", &values(&kernel), &naive(&kernels, &matrices, sizes), 1e-5);
            }
        }
    }

    #[test]
    fn gradients_are_the_slopes() {
        let shared = shared();
        let sizes = [7, 5, 3];
        let kernels = exact(&shared, "weight");
        let matrices = ["7to5_matrix", "5to3_matrix"].map(|name| exact(&shared, name));
        let upstream = noise("gradient", &[CHANNELS, 1, 3, 3], 1.0, 0.0);
        let value = |kernels: &[f64], matrices: &[Vec<f64>]| -> f64 {
            let kernel = naive(kernels, matrices, &sizes);
            kernel.iter().zip(values(&upstream)).map(|(a, b)| a * f64::from(b)).sum()
        };
        let with = |index: usize, moved: Vec<f64>| {
            let mut matrices = matrices.clone();
            matrices[index] = moved;
            value(&kernels, &matrices)
        };
        let gradients = Gradients::new(&shared).expect("zeros");
        let transform = transform(&shared, 3).expect("a smaller kernel");
        transform.backward(&upstream, &shared, &gradients, &Backend::detect()).expect("fitting shapes");
        for (last, expected) in [
            ("weight", slopes(&kernels, |moved| value(&moved, &matrices))),
            ("7to5_matrix", slopes(&matrices[0], |moved| with(0, moved))),
            ("5to3_matrix", slopes(&matrices[1], |moved| with(1, moved))),
        ] {
            let name = format!("blocks.1.conv.depth_conv.conv.{last}");
            assert_close(last, &values(gradients.get(&name).expect("a gradient")), &expected, 1e-4);
        }
        assert_eq!(gradients.touched().len(), 3);
    }

    #[test]
    fn the_square_is_the_middle() {
        let kernel = Tensor::arange(0.0f32, 25.0, &Device::Cpu).and_then(|row| row.reshape((1, 1, 5, 5)));
        let middle = square(&kernel.expect("25 values"), 3).expect("a smaller one");
        assert_eq!(values(&middle), [6., 7., 8., 11., 12., 13., 16., 17., 18.]);
    }
}
