//! A small fully connected network on one-hot features, evaluated fast: its first layer is a sum of rows, the others are
//! products with packed weights.

use std::fmt;
use std::sync::Arc;

use candle_core::{Device, Tensor};
use rayon::prelude::*;
use supernet::kernels::{Kernels, PackedWeight};
use supernet::space::Activation;

use crate::encode::Encoded;
use crate::error::Result;

/// Sub-networks that one thread takes at a time: their activations stay in a level 2 cache, and a generation is work for
/// several threads. No bit depends on it, for a product's elements are sums of their own.
const CHUNK: usize = 192;

/// Sums that one sub-network's first layer keeps in registers.
const SUMS: usize = 32;

/// One layer as PyTorch keeps it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Dense {
    /// `[outputs, inputs]`, row-major.
    pub weight: Vec<f32>,
    /// `[outputs]`.
    pub bias: Vec<f32>,
}

impl Dense {
    pub fn outputs(&self) -> usize {
        self.bias.len()
    }

    pub fn inputs(&self) -> usize {
        self.weight.len() / self.bias.len()
    }
}

/// A layer between the first and the last, ready for products.
struct Middle {
    weight: PackedWeight,
    bias: Tensor,
}

/// Layers with ReLU between them, and a constant that is added to the one output.
#[derive(Clone)]
pub(super) struct Network {
    pub layers: Vec<Dense>,
    pub mean: f32,
    /// The first layer's weight, `[inputs, width]`, and its bias; `width` is a whole number of [`SUMS`].
    first: Vec<f32>,
    first_bias: Vec<f32>,
    middle: Arc<[Middle]>,
    kernels: Kernels,
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Network").field("layers", &self.layers).field("mean", &self.mean).finish()
    }
}

impl Network {
    /// Takes layers whose sizes fit one another and whose last has one output; for the fastest kernels.
    pub fn new(layers: Vec<Dense>, mean: f32) -> Result<Self> {
        Self::on(layers, mean, Kernels::detect())
    }

    /// The same network for other kernels.
    pub fn with_kernels(self, kernels: Kernels) -> Result<Self> {
        if kernels == self.kernels { Ok(self) } else { Self::on(self.layers, self.mean, kernels) }
    }

    fn on(layers: Vec<Dense>, mean: f32, kernels: Kernels) -> Result<Self> {
        let (inputs, outputs) = (layers[0].inputs(), layers[0].outputs());
        let width = outputs.next_multiple_of(SUMS);
        let (mut first, mut first_bias) = (vec![0.0; inputs * width], layers[0].bias.clone());
        first_bias.resize(width, 0.0);
        for (output, weights) in layers[0].weight.chunks_exact(inputs).enumerate() {
            weights.iter().enumerate().for_each(|(input, weight)| first[input * width + output] = *weight);
        }
        let between = 1..layers.len().max(2) - 1;
        let pack = |layer: &Dense| {
            let weight = Tensor::from_slice(&layer.weight, (layer.outputs(), layer.inputs()), &Device::Cpu)?;
            let bias = Tensor::from_slice(&layer.bias, layer.outputs(), &Device::Cpu)?;
            Ok(Middle { weight: kernels.pack(&weight)?, bias })
        };
        let middle = layers[between].iter().map(pack).collect::<candle_core::Result<_>>()?;
        Ok(Self { layers, mean, first, first_bias, middle, kernels })
    }

    /// One output for each sub-network.
    ///
    /// # Errors
    /// If a feature is none of the first layer's.
    pub fn predict(&self, encoded: &Encoded) -> Result<Vec<f32>> {
        let inputs = self.layers[0].inputs();
        if let Some(feature) = encoded.features().iter().find(|feature| **feature as usize >= inputs) {
            return Err(
                supernet::Error::invalid("estimator", "feature", format!("below {inputs}"), feature).into()
            );
        }
        let mut outputs = vec![self.mean; encoded.len()];
        let chunks = outputs.par_chunks_mut(CHUNK).enumerate();
        chunks.try_for_each(|(chunk, outputs)| self.predict_chunk(encoded, chunk * CHUNK, outputs))?;
        Ok(outputs)
    }

    /// Adds the network's output to the outputs of the sub-networks from `start` on.
    fn predict_chunk(&self, encoded: &Encoded, start: usize, outputs: &mut [f32]) -> Result<()> {
        let width = self.first_bias.len();
        // a product with one column alone would be another kernel, whose sums have another order
        let rows = outputs.len().max(2);
        let mut hidden = vec![0.0; rows * width];
        for (index, sums) in hidden.chunks_exact_mut(width).take(outputs.len()).enumerate() {
            self.first_layer(encoded.get(start + index), sums);
        }
        let [first, .., last] = &self.layers[..] else {
            outputs.iter_mut().zip(hidden.chunks_exact(width)).for_each(|(output, sums)| *output += sums[0]);
            return Ok(());
        };
        hidden.iter_mut().for_each(|sum| *sum = sum.max(0.0));
        let hidden = Tensor::from_vec(hidden, (rows, width), &Device::Cpu)?;
        let mut hidden = hidden.narrow(1, 0, first.outputs())?.t()?; // [width, rows]
        for Middle { weight, bias } in self.middle.iter() {
            hidden = self.kernels.product_activated(weight, &hidden, bias, Activation::Relu)?;
        }
        let hidden: Vec<f32> = hidden.contiguous()?.flatten_all()?.to_vec1()?;
        for (row, weight) in hidden.chunks_exact(rows).zip(&last.weight) {
            outputs.iter_mut().zip(row).for_each(|(output, value)| *output += weight * value);
        }
        outputs.iter_mut().for_each(|output| *output += last.bias[0]);
        Ok(())
    }

    /// The bias and a row of weights for each feature, before the activation.
    fn first_layer(&self, features: &[u32], sums: &mut [f32]) {
        let width = self.first_bias.len();
        for (block, to) in sums.chunks_exact_mut(SUMS).enumerate() {
            let mut sums: [f32; SUMS] = std::array::from_fn(|lane| self.first_bias[block * SUMS + lane]);
            for &feature in features {
                let weights = &self.first[feature as usize * width + block * SUMS..][..SUMS];
                sums.iter_mut().zip(weights).for_each(|(sum, weight)| *sum += weight);
            }
            to.copy_from_slice(&sums);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    fn random(widths: &[usize], rng: &mut ChaCha8Rng) -> Network {
        let mut draw = |len: usize| (0..len).map(|_| rng.random_range(-0.5f32..0.5)).collect::<Vec<_>>();
        let layer = |pair: &[usize]| Dense { weight: draw(pair[0] * pair[1]), bias: draw(pair[1]) };
        Network::new(widths.windows(2).map(layer).collect(), 0.5).expect("sizes fit")
    }

    fn by_definition(network: &Network, features: &[u32]) -> f64 {
        let mut values = vec![0.0; network.layers[0].inputs()];
        features.iter().for_each(|&feature| values[feature as usize] = 1.0);
        for (index, layer) in network.layers.iter().enumerate() {
            let row = |output: usize| {
                let weights = &layer.weight[output * layer.inputs()..][..layer.inputs()];
                let sum: f64 = weights.iter().zip(&values).map(|(w, x)| f64::from(*w) * x).sum();
                let sum = sum + f64::from(layer.bias[output]);
                if index + 1 < network.layers.len() { sum.max(0.0) } else { sum }
            };
            values = (0..layer.outputs()).map(row).collect();
        }
        values[0] + f64::from(network.mean)
    }

    #[test]
    fn predictions_are_the_definition_and_do_not_depend_on_company() {
        let mut rng = ChaCha8Rng::seed_from_u64(0);
        for widths in [&[7, 1][..], &[7, 5, 1], &[9, 40, 30, 1], &[54, 400, 400, 400, 1]] {
            let network = random(widths, &mut rng);
            let mut active = Encoded::default();
            for _ in 0..2 * CHUNK + 70 {
                let features: Vec<u32> = (0..widths[0] as u32).filter(|_| rng.random_bool(0.3)).collect();
                active.push(features);
            }
            let together = network.predict(&active).expect("sizes fit");
            assert_eq!(together.len(), active.len());
            let naive = network.clone().with_kernels(Kernels::reference()).expect("the same sizes");
            assert_eq!(naive.kernels, Kernels::reference());
            for (naive, fast) in naive.predict(&active).expect("sizes fit").iter().zip(&together) {
                assert!((naive - fast).abs() < 1e-4 * fast.abs().max(1.0));
            }
            for (index, together) in together.into_iter().enumerate().step_by(7) {
                let features = active.get(index);
                let exact = by_definition(&network, features);
                assert!((f64::from(together) - exact).abs() < 1e-4 * exact.abs().max(1.0));
                for company in 1..4 {
                    let mut few = Encoded::default();
                    (0..company).for_each(|_| few.push(features.iter().copied()));
                    assert_eq!(network.predict(&few).expect("sizes fit"), vec![together; company]);
                }
            }
        }
        let network = random(&[3, 1], &mut rng);
        assert!(network.predict(&Encoded::default()).expect("nothing").is_empty());
        let mut wrong = Encoded::default();
        wrong.push([3]);
        assert!(network.predict(&wrong).expect_err("no such feature").to_string().contains("below 3"));
    }
}
