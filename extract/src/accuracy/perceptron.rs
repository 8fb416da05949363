//! A small fully connected network on one-hot features, evaluated fast: its first layer is a sum of rows, the others are
//! products with packed weights.
//!
//! It has its own backward pass: candle's optimizer spent most of a fit in a spinning thread pool.

use std::fmt;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use kernels::{Backend, PackedWeight};
use rayon::prelude::*;
use search::OpenFeatures;
use space::{Activation, Encoded};

use crate::error::Result;

/// Sub-networks that one thread takes at a time: their activations stay in a level 2 cache, and a generation is work for
/// several threads. No bit depends on it, for a product's elements are sums of their own.
const CHUNK: usize = 192;

/// Sub-networks below which slopes are summed one by one: a dense product is padded to a tile's columns.
const FEW: usize = 8;

/// One layer as PyTorch keeps it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Dense {
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
pub(crate) struct Network {
    pub layers: Vec<Dense>,
    pub mean: f32,
    /// The weights of all layers but the last, transposed: `[inputs, outputs]`.
    transposed: Arc<[Vec<f32>]>,
    middle: Arc<[Middle]>,
    /// The way back, for slopes: the transposed weights of the layers between, and the first layer's, `[inputs, outputs]`.
    back: Arc<[Middle]>,
    backend: Backend,
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Network").field("layers", &self.layers).field("mean", &self.mean).finish()
    }
}

/// More than the rounding of sums in single precision, as a share of the sizes of their terms.
const ROUNDING: f64 = 1e-5;

/// The ends of a layer's sums, given those of its inputs before the ReLU. Inputs that are 0 for certain have no part.
fn through(layer: &Dense, transposed: &[f32], low: &[f32], high: &[f32]) -> (Vec<f32>, Vec<f32>) {
    let units = layer.outputs();
    let mut centers = layer.bias.clone();
    let mut radii = vec![0.0; units];
    for ((row, low), high) in transposed.chunks_exact(units).zip(low).zip(high) {
        if *high <= 0.0 {
            continue;
        }
        let low = low.max(0.0);
        let [center, radius] = [0.5 * (high + low), 0.5 * (high - low)];
        for ((own, of), weight) in centers.iter_mut().zip(&mut radii).zip(row) {
            *own += center * weight;
            *of += radius * weight.abs();
        }
    }
    let lows = centers.iter().zip(&radii).map(|(center, radius)| center - radius).collect();
    (lows, centers.iter().zip(&radii).map(|(center, radius)| center + radius).collect())
}

impl Network {
    /// Takes layers whose sizes fit one another and whose last has one output; for the fastest kernels.
    pub fn new(layers: Vec<Dense>, mean: f32) -> Result<Self> {
        Self::on(layers, mean, &Backend::detect())
    }

    /// This network on another backend.
    pub fn with_backend(self, backend: &Backend) -> Result<Self> {
        if *backend == self.backend { Ok(self) } else { Self::on(self.layers, self.mean, backend) }
    }

    fn on(layers: Vec<Dense>, mean: f32, backend: &Backend) -> Result<Self> {
        let between = 1..layers.len().max(2) - 1;
        let mut middle = Vec::new();
        for layer in &layers[between.clone()] {
            let weight = Tensor::from_slice(&layer.weight, (layer.outputs(), layer.inputs()), &Device::Cpu)?;
            let bias = Tensor::from_slice(&layer.bias, layer.outputs(), &Device::Cpu)?;
            middle.push(Middle { weight: backend.pack(&weight)?, bias });
        }
        let transposed = |layer: &Dense| {
            let outputs = layer.outputs();
            let inputs = layer.inputs();
            let weight = Tensor::from_slice(&layer.weight, (outputs, inputs), &Device::Cpu)?;
            let bias = Tensor::zeros(inputs, DType::F32, &Device::Cpu)?;
            Ok(Middle { weight: backend.pack(&weight.t()?.contiguous()?)?, bias })
        };
        let back = layers[..between.end].iter().map(transposed).collect::<candle_core::Result<_>>()?;
        let transposed = |layer: &Dense| {
            let inputs = layer.inputs();
            let outputs = layer.outputs();
            (0..inputs * outputs)
                .map(|place: usize| layer.weight[place % outputs * inputs + place / outputs])
                .collect()
        };
        let transposed = layers[..between.end].iter().map(transposed).collect();
        Ok(Self { layers, mean, transposed, middle: middle.into(), back, backend: backend.clone() })
    }

    /// One output for each sub-network.
    ///
    /// # Errors
    /// If a feature is none of the first layer's.
    pub fn predict(&self, encoded: &Encoded) -> Result<Vec<f32>> {
        self.check(encoded)?;
        let mut outputs = vec![self.mean; encoded.len()];
        let chunks = outputs.par_chunks_mut(CHUNK).enumerate();
        chunks.try_for_each(|(chunk, outputs)| self.predict_chunk(encoded, chunk * CHUNK, outputs))?;
        Ok(outputs)
    }

    fn check(&self, encoded: &Encoded) -> Result<()> {
        self.check_features(encoded.features())
    }

    fn check_features(&self, features: &[u32]) -> Result<()> {
        let inputs = self.layers[0].inputs();
        let unknown = features.iter().find(|feature| **feature as usize >= inputs);
        unknown.map_or(Ok(()), |feature| {
            let expected = format!("below {inputs}");
            Err(base::Error::invalid("estimator", "feature", expected, feature).into())
        })
    }

    /// Bounds on the output of all sub-networks that have one of the open features of each gene: interval arithmetic from
    /// layer to layer (Gowal et al. 2018), as centers and radii. They are wider than exact ones by a margin for the rounding
    /// of predictions, a hundred-thousandth of the sizes of the last layer's terms.
    ///
    /// # Errors
    /// If a feature is none of the first layer's.
    pub fn range(&self, open: &[OpenFeatures]) -> Result<[f64; 2]> {
        let [hidden @ .., last] = &self.layers[..] else { unreachable!("a network has a layer") };
        let first = &self.layers[0];
        let mut low = first.bias.clone();
        let mut high = first.bias.clone();
        let units = first.outputs();
        let (mut least, mut most) = (vec![0.0; units], vec![0.0; units]);
        for OpenFeatures { features, may_be_absent } in open {
            self.check_features(features)?;
            let rows =
                features.iter().map(|feature| &self.transposed[0][*feature as usize * units..][..units]);
            let start = if *may_be_absent || features.is_empty() {
                [0.0; 2]
            } else {
                [f32::INFINITY, f32::NEG_INFINITY]
            };
            least.fill(start[0]);
            most.fill(start[1]);
            for row in rows {
                least.iter_mut().zip(row).for_each(|(least, value)| *least = value.min(*least));
                most.iter_mut().zip(row).for_each(|(most, value)| *most = value.max(*most));
            }
            low.iter_mut().zip(&least).for_each(|(low, least)| *low += least);
            high.iter_mut().zip(&most).for_each(|(high, most)| *high += most);
        }
        if hidden.is_empty() {
            return Ok(self.widened(low[0], high[0], low[0].abs().max(high[0].abs())));
        }
        for (layer, transposed) in self.layers[1..self.layers.len() - 1].iter().zip(&self.transposed[1..]) {
            (low, high) = through(layer, transposed, &low, &high);
        }
        let (mut sums, mut size) = ([last.bias[0]; 2], last.bias[0].abs());
        for ((weight, low), high) in last.weight.iter().zip(&low).zip(&high) {
            let [from, to] = [weight * low.max(0.0), weight * high.max(0.0)];
            sums = [sums[0] + from.min(to), sums[1] + from.max(to)];
            size += from.abs().max(to.abs());
        }
        Ok(self.widened(sums[0], sums[1], size))
    }

    /// An interval of sums with the constant and the margin.
    fn widened(&self, low: f32, high: f32, size: f32) -> [f64; 2] {
        let mean = f64::from(self.mean);
        let margin = ROUNDING * (1.0 + f64::from(size));
        [f64::from(low) + mean - margin, f64::from(high) + mean + margin]
    }

    /// The derivatives of the output by the features, one row of all features for each sub-network, where each feature
    /// that it has is 1 and the others 0. Of a ReLU at 0 it is 0. Rounding depends on whether there are few of them.
    ///
    /// # Errors
    /// If a feature is none of the first layer's.
    pub fn slopes(&self, encoded: &Encoded) -> Result<Vec<f32>> {
        self.check(encoded)?;
        let inputs = self.layers[0].inputs();
        let mut slopes = vec![0.0; inputs * encoded.len()];
        let chunks = slopes.par_chunks_mut(CHUNK * inputs).enumerate();
        chunks.try_for_each(|(chunk, slopes)| self.slopes_chunk(encoded, chunk * CHUNK, slopes))?;
        Ok(slopes)
    }

    fn slopes_chunk(&self, encoded: &Encoded, start: usize, slopes: &mut [f32]) -> Result<()> {
        let [first, .., last] = &self.layers[..] else {
            slopes
                .chunks_exact_mut(self.layers[0].inputs())
                .for_each(|row| row.copy_from_slice(&self.layers[0].weight));
            return Ok(());
        };
        let inputs = first.inputs();
        if slopes.len() < FEW * inputs {
            for (index, slopes) in slopes.chunks_exact_mut(inputs).enumerate() {
                self.slopes_at(encoded.get(start + index), slopes);
            }
            return Ok(());
        }
        let (hidden, rows) = self.hidden(encoded, start, slopes.len() / inputs)?;
        let mut active = vec![hidden];
        for Middle { weight, bias } in self.middle.iter() {
            let before = active.last().expect("it began with one");
            active.push(self.backend.product_activated(weight, before, bias, Activation::Relu)?);
        }
        let mut back: Option<Vec<f32>> = None;
        for (layer, active) in self.back.iter().zip(&active).rev() {
            let active: Vec<f32> = active.contiguous()?.flatten_all()?.to_vec1()?;
            let mut slope = back.take().unwrap_or_else(|| {
                last.weight.iter().flat_map(|weight| std::iter::repeat_n(*weight, rows)).collect()
            });
            slope
                .iter_mut()
                .zip(&active)
                .for_each(|(slope, value)| *slope = if *value > 0.0 { *slope } else { 0.0 });
            let slope = Tensor::from_vec(slope, (active.len() / rows, rows), &Device::Cpu)?;
            let to = self.backend.product_activated(&layer.weight, &slope, &layer.bias, Activation::None)?;
            back = Some(to.contiguous()?.flatten_all()?.to_vec1()?);
        }
        let back = back.expect("at least one layer before the last");
        for (row, slopes) in slopes.chunks_exact_mut(inputs).enumerate() {
            slopes.iter_mut().zip(back.chunks_exact(rows)).for_each(|(slope, of)| *slope = of[row]);
        }
        Ok(())
    }

    /// The derivatives for one sub-network. Forward and back, outputs that a ReLU makes 0 have no part in the next layer.
    fn slopes_at(&self, features: &[u32], slopes: &mut [f32]) {
        let [hidden @ .., last] = &self.layers[..] else { unreachable!("a network has a layer") };
        let mut active: Vec<Vec<(u32, f32)>> = Vec::with_capacity(hidden.len());
        let mut terms: Vec<(u32, f32)> = features.iter().map(|feature| (*feature, 1.0)).collect();
        for (layer, transposed) in hidden.iter().zip(self.transposed.iter()) {
            let mut sums = layer.bias.clone();
            self.backend.add_rows(transposed, &terms, &mut sums);
            let units = sums.iter().enumerate().filter(|(_, sum)| **sum > 0.0);
            terms = units.map(|(unit, sum)| (unit as u32, *sum)).collect();
            active.push(terms.clone());
        }
        let mut slope = last.weight.clone();
        for (layer, active) in hidden.iter().zip(&active).rev() {
            let terms: Vec<(u32, f32)> =
                active.iter().map(|(unit, _)| (*unit, slope[*unit as usize])).collect();
            slope = vec![0.0; layer.inputs()];
            self.backend.add_rows(&layer.weight, &terms, &mut slope);
        }
        slopes.copy_from_slice(&slope);
    }

    /// The first layer's activated output for `count` sub-networks from `start` on, `[outputs, columns]`, and the number
    /// of columns, at least 2: a product with one column alone would be another kernel, whose sums have another
    /// order.
    fn hidden(&self, encoded: &Encoded, start: usize, count: usize) -> Result<(Tensor, usize)> {
        let width = self.layers[0].outputs();
        let rows = count.max(2);
        let mut hidden = vec![0.0; rows * width];
        let mut terms = Vec::new();
        for (index, sums) in hidden.chunks_exact_mut(width).take(count).enumerate() {
            self.first_layer(encoded.get(start + index), &mut terms, sums);
        }
        hidden.iter_mut().for_each(|sum| *sum = sum.max(0.0));
        Ok((Tensor::from_vec(hidden, (rows, width), &Device::Cpu)?.t()?, rows))
    }

    /// Adds the network's output to the outputs of the sub-networks from `start` on.
    fn predict_chunk(&self, encoded: &Encoded, start: usize, outputs: &mut [f32]) -> Result<()> {
        let [_, .., last] = &self.layers[..] else {
            let mut terms = Vec::new();
            for (index, output) in outputs.iter_mut().enumerate() {
                let mut sum = [0.0];
                self.first_layer(encoded.get(start + index), &mut terms, &mut sum);
                *output += sum[0];
            }
            return Ok(());
        };
        let (mut hidden, rows) = self.hidden(encoded, start, outputs.len())?;
        for Middle { weight, bias } in self.middle.iter() {
            hidden = self.backend.product_activated(weight, &hidden, bias, Activation::Relu)?;
        }
        let hidden: Vec<f32> = hidden.contiguous()?.flatten_all()?.to_vec1()?;
        for (row, weight) in hidden.chunks_exact(rows).zip(&last.weight) {
            outputs.iter_mut().zip(row).for_each(|(output, value)| *output += weight * value);
        }
        outputs.iter_mut().for_each(|output| *output += last.bias[0]);
        Ok(())
    }

    /// The bias and a row of weights for each feature, before the activation; `terms` is room for these.
    fn first_layer(&self, features: &[u32], terms: &mut Vec<(u32, f32)>, sums: &mut [f32]) {
        terms.clear();
        terms.extend(features.iter().map(|feature| (*feature, 1.0)));
        sums.copy_from_slice(&self.layers[0].bias);
        self.backend.add_rows(&self.transposed[0], terms, sums);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    fn random(widths: &[usize], rng: &mut ChaCha8Rng) -> Network {
        let mut draw = |len: usize| (0..len).map(|_| rng.random_range(-0.5f32..0.5)).collect::<Vec<_>>();
        Network::new(
            widths
                .windows(2)
                .map(|pair: &[usize]| Dense { weight: draw(pair[0] * pair[1]), bias: draw(pair[1]) })
                .collect(),
            0.5,
        )
        .expect("sizes fit")
    }

    fn inputs(network: &Network, features: &[u32]) -> Vec<f64> {
        let mut values = vec![0.0; network.layers[0].inputs()];
        features.iter().for_each(|&feature| values[feature as usize] = 1.0);
        values
    }

    fn by_definition(network: &Network, mut values: Vec<f64>) -> f64 {
        for (index, layer) in network.layers.iter().enumerate() {
            let mut outputs = Vec::with_capacity(layer.outputs());
            for output in 0..layer.outputs() {
                let weights = &layer.weight[output * layer.inputs()..][..layer.inputs()];
                let sum: f64 = weights.iter().zip(&values).map(|(w, x)| f64::from(*w) * x).sum();
                let sum = sum + f64::from(layer.bias[output]);
                outputs.push(if index + 1 < network.layers.len() { sum.max(0.0) } else { sum });
            }
            values = outputs;
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
            let naive = network.clone().with_backend(&Backend::reference()).expect("the same sizes");
            assert_eq!(naive.backend, Backend::reference());
            for (naive, fast) in naive.predict(&active).expect("sizes fit").iter().zip(&together) {
                assert!((naive - fast).abs() < 1e-4 * fast.abs().max(1.0));
            }
            for (index, together) in together.into_iter().enumerate().step_by(7) {
                let features = active.get(index);
                let exact = by_definition(&network, inputs(&network, features));
                assert!((f64::from(together) - exact).abs() < 1e-4 * exact.abs().max(1.0));
                for company in 1..4 {
                    let mut few = Encoded::default();
                    (0..company).for_each(|_| few.push(features.iter().copied()));
                    assert_eq!(network.predict(&few).expect("sizes fit"), vec![together; company]);
                }
            }
        }
        let network = random(&[3, 1], &mut rng);
        assert!(network.slopes(&Encoded::default()).expect("nothing").is_empty());
        assert!(network.predict(&Encoded::default()).expect("nothing").is_empty());
        let mut wrong = Encoded::default();
        wrong.push([3]);
        assert!(network.predict(&wrong).expect_err("no such feature").to_string().contains("below 3"));
    }

    /// Central differences in f64; between two kinks of the activations they are exact.
    #[test]
    fn slopes_are_the_derivatives_in_any_company() {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        for widths in [&[7, 1][..], &[7, 5, 1], &[9, 40, 30, 1], &[54, 100, 100, 100, 1]] {
            let network = random(widths, &mut rng);
            let mut active = Encoded::default();
            for _ in 0..CHUNK + 5 {
                let features: Vec<u32> = (0..widths[0] as u32).filter(|_| rng.random_bool(0.3)).collect();
                active.push(features);
            }
            let slopes = network.slopes(&active).expect("sizes fit");
            assert_eq!(slopes.len(), active.len() * widths[0]);
            for (index, slopes) in slopes.chunks_exact(widths[0]).enumerate().step_by(39) {
                let at = inputs(&network, active.get(index));
                let largest = slopes.iter().fold(0.0f32, |most, slope| most.max(slope.abs()));
                for (feature, slope) in slopes.iter().enumerate() {
                    let moved = |by: f64| {
                        let mut values = at.clone();
                        values[feature] += by;
                        by_definition(&network, values)
                    };
                    let exact = (moved(1e-7) - moved(-1e-7)) / 2e-7;
                    assert!((f64::from(*slope) - exact).abs() < 1e-4 * f64::from(largest), "{slope} {exact}");
                }
                for company in [1, FEW - 1, FEW] {
                    let mut few = Encoded::default();
                    (0..company).for_each(|_| few.push(active.get(index).iter().copied()));
                    let few = network.slopes(&few).expect("sizes fit");
                    let (first, rest) = few.split_at(widths[0]);
                    assert!(
                        rest.chunks_exact(widths[0]).all(|other| other == first),
                        "the same in any place"
                    );
                    for (few, many) in first.iter().zip(slopes) {
                        assert!((few - many).abs() <= 1e-5 * largest, "{company}: {few} {many}");
                    }
                }
            }
            active.push([widths[0] as u32]);
            assert!(network.slopes(&active).expect_err("no such feature").to_string().contains("below"));
        }
    }

    /// 6 genes of 3 features each; a few are set, the others open, some possibly absent.
    #[test]
    fn a_range_holds_all_that_are_open_and_is_a_point_when_none_is() {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        for widths in [&[18, 1][..], &[18, 12, 1], &[18, 40, 30, 1]] {
            let network = random(widths, &mut rng);
            for set in 0..=6 {
                let open: Vec<OpenFeatures> = (0..6u32)
                    .map(|gene: u32| {
                        let all = 3 * gene..3 * gene + 3;
                        let features = if gene < set { vec![3 * gene + gene % 3] } else { all.collect() };
                        OpenFeatures { features, may_be_absent: gene >= set && gene % 2 == 1 }
                    })
                    .collect();
                let [low, high] = network.range(&open).expect("features of the network");
                let mut encoded = Encoded::default();
                for _ in 0..200 {
                    encoded.push(open.iter().filter_map(|one| {
                        let absent = one.may_be_absent && rng.random_bool(0.3);
                        (!absent).then(|| one.features[rng.random_range(0..one.features.len())])
                    }));
                }
                for value in network.predict(&encoded).expect("features of the network") {
                    assert!((low..=high).contains(&f64::from(value)), "{set} set: {value} {low} {high}");
                }
                // the margin for rounding is all that is left
                assert!(set < 6 || high - low < 1e-3, "{low} {high}");
            }
            let unknown = OpenFeatures { features: vec![18], may_be_absent: false };
            assert!(network.range(&[unknown]).is_err());
        }
    }
}
