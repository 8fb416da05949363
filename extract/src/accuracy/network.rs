//! A small fully connected network on one-hot features, evaluated fast: its first layer is a sum of rows.

use crate::error::Result;
use candle_core::{Device, Tensor};

/// Rows of one matrix product. Always the same number, so that a prediction does not depend on which others
/// are asked for with it; enough that packing the weights is a small part of the work, and just the hundred
/// candidates of a generation.
const CHUNK: usize = 100;

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

/// Layers with ReLU between them, and a constant that is added to the one output.
#[derive(Clone, Debug)]
pub(super) struct Network {
    pub layers: Vec<Dense>,
    pub mean: f32,
    /// The first layer's weight, `[inputs, outputs]`.
    first: Vec<f32>,
    /// The weights of the layers between first and last, transposed: `[inputs, outputs]`.
    middle: Vec<Tensor>,
}

impl Network {
    /// Takes layers whose sizes fit one another and whose last has one output.
    pub fn new(layers: Vec<Dense>, mean: f32) -> Result<Self> {
        let transposed = |layer: &Dense| {
            Tensor::from_slice(&layer.weight, (layer.outputs(), layer.inputs()), &Device::Cpu)?
                .t()?
                .contiguous()
        };
        let first = transposed(&layers[0])?.flatten_all()?.to_vec1()?;
        let between = 1..layers.len().max(2) - 1;
        let middle = layers[between].iter().map(transposed).collect::<candle_core::Result<_>>()?;
        Ok(Self { layers, mean, first, middle })
    }

    /// One output for each list of features that are 1.
    pub fn predict(&self, active: &[Vec<usize>]) -> Result<Vec<f32>> {
        let mut outputs = Vec::with_capacity(active.len());
        for chunk in active.chunks(CHUNK) {
            let mut hidden = self.first_layer(chunk);
            for (weight, layer) in self.middle.iter().zip(&self.layers[1..]) {
                hidden = middle_layer(weight, layer, hidden)?;
            }
            self.last_layer(&hidden, chunk.len(), &mut outputs);
        }
        Ok(outputs)
    }

    /// `[CHUNK, width]`, before the activation; unused rows hold zeros.
    fn first_layer(&self, chunk: &[Vec<usize>]) -> Vec<f32> {
        let width = self.layers[0].outputs();
        let mut hidden = vec![0.0; CHUNK * width];
        for (features, row) in chunk.iter().zip(hidden.chunks_exact_mut(width)) {
            row.copy_from_slice(&self.layers[0].bias);
            for &feature in features {
                let weights = &self.first[feature * width..(feature + 1) * width];
                row.iter_mut().zip(weights).for_each(|(sum, weight)| *sum += weight);
            }
        }
        hidden
    }

    fn last_layer(&self, hidden: &[f32], rows: usize, outputs: &mut Vec<f32>) {
        let [.., last] = &self.layers[..] else { return };
        if self.layers.len() == 1 {
            outputs.extend(hidden[..rows].iter().map(|sum| sum + self.mean));
            return;
        }
        for row in hidden.chunks_exact(last.inputs()).take(rows) {
            outputs.push(dot_relu(row, &last.weight) + last.bias[0] + self.mean);
        }
    }
}

/// ReLU, matrix product, bias; `[CHUNK, inputs]` to `[CHUNK, outputs]`.
fn middle_layer(weight: &Tensor, layer: &Dense, mut hidden: Vec<f32>) -> Result<Vec<f32>> {
    hidden.iter_mut().for_each(|value| *value = value.max(0.0));
    let hidden = Tensor::from_vec(hidden, (CHUNK, layer.inputs()), &Device::Cpu)?;
    let mut sums: Vec<f32> = hidden.matmul(weight)?.flatten_all()?.to_vec1()?;
    for row in sums.chunks_exact_mut(layer.outputs()) {
        row.iter_mut().zip(&layer.bias).for_each(|(sum, bias)| *sum += bias);
    }
    Ok(sums)
}

/// Product with the activations, in eight partial sums of fixed order.
fn dot_relu(row: &[f32], weight: &[f32]) -> f32 {
    let mut sums = [0.0f32; 8];
    for (values, weights) in row.chunks(8).zip(weight.chunks(8)) {
        for ((sum, value), weight) in sums.iter_mut().zip(values).zip(weights) {
            *sum += value.max(0.0) * weight;
        }
    }
    sums.iter().sum()
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

    fn by_definition(network: &Network, features: &[usize]) -> f64 {
        let mut values = vec![0.0; network.layers[0].inputs()];
        features.iter().for_each(|&feature| values[feature] = 1.0);
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
            let active: Vec<Vec<usize>> =
                (0..70).map(|_| (0..widths[0]).filter(|_| rng.random_bool(0.3)).collect()).collect();
            let together = network.predict(&active).expect("sizes fit");
            assert_eq!(together.len(), active.len());
            for (features, together) in active.iter().zip(together) {
                let exact = by_definition(&network, features);
                assert!((f64::from(together) - exact).abs() < 1e-4 * exact.abs().max(1.0));
                assert_eq!(network.predict(std::slice::from_ref(features)).expect("sizes fit"), [together]);
            }
        }
        assert!(random(&[3, 1], &mut rng).predict(&[]).expect("nothing").is_empty());
    }
}
