//! The flow of paths through a network: the number that synaptic flow (Tanaka et al. 2020, "synflow") is read from.
//!
//! All weights are taken without their signs, batch norms and biases are left out, activations and squeeze-and-excite are the
//! identity, and the input is 1 everywhere. The output's sum R is then a sum over paths of products of weights, and synflow
//! is the sum over all weights of `w dR/dw`. Scaling all weights by t gives `dR/dt` at t = 1, so one pass with dual numbers has
//! it without going backward: a layer's output value is `W v`, and its derivative `W (v + v')`. In f64, as R grows with depth
//! beyond f32.

use candle_core::Tensor;
use space::FeatureMap;

use crate::error::Result;

/// Maps `[C, H, W]` of one image, with their derivatives by the scale of all weights.
#[derive(Clone)]
pub(super) struct Flow {
    shape: [usize; 3],
    values: Vec<f64>,
    derivatives: Vec<f64>,
}

/// Filters without their signs: `[outputs, inputs of a group, k, k]`.
struct Filters {
    values: Vec<f64>,
    outputs: usize,
    inputs: usize,
    kernel: usize,
}

impl Filters {
    fn of(weight: &Tensor) -> Result<Self> {
        let dims = weight.dims();
        let kernel = dims.get(2).copied().unwrap_or(1);
        let values = weight.to_device(&candle_core::Device::Cpu)?.flatten_all()?.to_vec1::<f32>()?;
        let values = values.into_iter().map(|value| f64::from(value.abs())).collect();
        Ok(Self { values, outputs: dims[0], inputs: dims[1], kernel })
    }
}

impl Flow {
    /// The input: 1 everywhere.
    pub fn ones(map: FeatureMap) -> Self {
        let shape = [map.channels, map.height, map.width];
        Self { shape, values: vec![1.0; map.len()], derivatives: vec![0.0; map.len()] }
    }

    /// The sum of the derivatives.
    pub fn total(&self) -> f64 {
        self.derivatives.iter().sum()
    }

    /// Through a convolution with padding k/2, in as many groups as its filters have: `weight` is `[O, I, k, k]`, or `[O, I]` for
    /// a product at each place.
    ///
    /// # Errors
    /// If the weight cannot be read.
    pub fn convolved(&self, weight: &Tensor, stride: usize) -> Result<Self> {
        let filters = Filters::of(weight)?;
        let [_, height, width] = self.shape;
        let shape = [filters.outputs, height.div_ceil(stride), width.div_ceil(stride)];
        let values = convolve(&filters, stride, self.shape, shape, &self.values);
        let scaled: Vec<f64> =
            self.values.iter().zip(&self.derivatives).map(|(one, other)| one + other).collect();
        let derivatives = convolve(&filters, stride, self.shape, shape, &scaled);
        Ok(Self { shape, values, derivatives })
    }

    /// Through the sum of several maps.
    pub fn sum(flows: &[&Self]) -> Self {
        let mut sum = flows[0].clone();
        for flow in &flows[1..] {
            sum.values.iter_mut().zip(&flow.values).for_each(|(sum, value)| *sum += value);
            sum.derivatives.iter_mut().zip(&flow.derivatives).for_each(|(sum, value)| *sum += value);
        }
        sum
    }

    /// Through means over adjacent windows of this height and width; those at the edges over what they have.
    pub fn averaged(&self, size: [usize; 2]) -> Self {
        self.mean_over(size.map(|size| Span { size, step: size, padding: 0 }))
    }

    /// Through means over windows with padding `(kernel - 1) / 2`, over what of them lies in the map.
    pub fn average_pooled(&self, kernel: usize, stride: usize) -> Self {
        self.mean_over([Span { size: kernel, step: stride, padding: (kernel - 1) / 2 }; 2])
    }

    /// Through the mean of each map.
    pub fn mean(&self) -> Self {
        self.averaged([self.shape[1], self.shape[2]])
    }

    fn mean_over(&self, spans: [Span; 2]) -> Self {
        let mean = |of: &[f64]| {
            each(self.through(spans), |at| {
                let places = self.window(spans, at);
                places.iter().map(|place| of[*place]).sum::<f64>() / places.len() as f64
            })
        };
        Self { shape: self.through(spans), values: mean(&self.values), derivatives: mean(&self.derivatives) }
    }

    /// Through max pooling over 3 x 3, padding 1: the greatest value with its derivative.
    pub fn max_pooled(&self, stride: usize) -> Self {
        let spans = [Span { size: 3, step: stride, padding: 1 }; 2];
        let shape = self.through(spans);
        let greatest = |at| {
            let places = self.window(spans, at).into_iter();
            places.reduce(|best, at| if self.values[at] > self.values[best] { at } else { best }).unwrap_or(0)
        };
        let from: Vec<usize> = each(shape, greatest);
        let of = |all: &[f64]| from.iter().map(|at| all[*at]).collect();
        Self { shape, values: of(&self.values), derivatives: of(&self.derivatives) }
    }

    /// Every second place in both directions from `first` on; a place beyond the map is 0.
    pub fn sampled(&self, first: usize) -> Self {
        let [channels, height, width] = self.shape;
        let shape = [channels, height.div_ceil(2), width.div_ceil(2)];
        let of = |all: &[f64]| {
            each(shape, |[channel, y, x]| {
                let [y, x] = [2 * y + first, 2 * x + first];
                if y < height && x < width { all[(channel * height + y) * width + x] } else { 0.0 }
            })
        };
        Self { shape, values: of(&self.values), derivatives: of(&self.derivatives) }
    }

    /// Maps of one extent side by side.
    pub fn stacked(flows: &[Self]) -> Self {
        let [_, height, width] = flows[0].shape;
        let channels = flows.iter().map(|flow| flow.shape[0]).sum();
        let values = flows.iter().flat_map(|flow| &flow.values).copied().collect();
        let derivatives = flows.iter().flat_map(|flow| &flow.derivatives).copied().collect();
        Self { shape: [channels, height, width], values, derivatives }
    }

    /// No paths lead through: zeros.
    #[must_use]
    pub fn none(&self) -> Self {
        let zeros = vec![0.0; self.values.len()];
        Self { shape: self.shape, values: zeros.clone(), derivatives: zeros }
    }

    /// The shape after windows of these spans down and across.
    fn through(&self, [down, across]: [Span; 2]) -> [usize; 3] {
        let [channels, height, width] = self.shape;
        [channels, height.div_ceil(down.step), width.div_ceil(across.step)]
    }

    /// The places of one window that lie in the map.
    fn window(&self, [down, across]: [Span; 2], [channel, y, x]: [usize; 3]) -> Vec<usize> {
        let [_, height, width] = self.shape;
        let rows = down.within(y, height);
        rows.flat_map(|y| across.within(x, width).map(move |x| (channel * height + y) * width + x)).collect()
    }
}

/// Windows along one axis.
#[derive(Clone, Copy)]
struct Span {
    size: usize,
    step: usize,
    padding: usize,
}

impl Span {
    /// The part of a window that lies in a map.
    fn within(self, window: usize, len: usize) -> std::ops::Range<usize> {
        let begin = window * self.step;
        begin.saturating_sub(self.padding)..(begin + self.size - self.padding).min(len)
    }
}

/// A value for each place of maps.
fn each<T>([channels, height, width]: [usize; 3], value: impl Fn([usize; 3]) -> T) -> Vec<T> {
    let places =
        (0..channels * height * width).map(|at| [at / (height * width), at / width % height, at % width]);
    places.map(value).collect()
}

/// Filters on maps; those of a group read its inputs only.
fn convolve(
    filters: &Filters,
    stride: usize,
    [channels, height, width]: [usize; 3],
    [outputs, out_height, out_width]: [usize; 3],
    maps: &[f64],
) -> Vec<f64> {
    let &Filters { ref values, inputs, kernel, .. } = filters;
    let pad = kernel / 2;
    let outputs_of_group = outputs / (channels / inputs);
    let mut y = vec![0.0; outputs * out_height * out_width];
    for (output, plane) in y.chunks_exact_mut(out_height * out_width).enumerate() {
        let first = output / outputs_of_group * inputs;
        for (input, weights) in values[output * inputs * kernel * kernel..][..inputs * kernel * kernel]
            .chunks_exact(kernel * kernel)
            .enumerate()
        {
            let x = &maps[(first + input) * height * width..][..height * width];
            for (at, weight) in weights.iter().enumerate() {
                let [down, across] = [at / kernel, at % kernel];
                for (row, line) in plane.chunks_exact_mut(out_width).enumerate() {
                    let Some(source) = (row * stride + down).checked_sub(pad).filter(|row| *row < height)
                    else {
                        continue;
                    };
                    let source = &x[source * width..][..width];
                    // columns with column * stride + across - pad in 0..width
                    let from = pad.saturating_sub(across).div_ceil(stride);
                    let to = (width + pad).saturating_sub(across).div_ceil(stride).min(out_width);
                    for column in from..to.max(from) {
                        line[column] += weight * source[column * stride + across - pad];
                    }
                }
            }
        }
    }
    y
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::testing::{Maps, Naive, chain, noise, weights};
    use crate::nn::{MapSource, Network, Source};
    use kernels::Backend;

    #[test]
    fn a_path_counts_once_for_each_of_its_weights() {
        let ones = Flow::ones(FeatureMap { channels: 1, height: 1, width: 1 });
        let weight = |value: f32| Tensor::new(&[[value]], &candle_core::Device::Cpu).expect("one");
        let twice =
            ones.convolved(&weight(-2.0), 1).expect("a weight").convolved(&weight(3.0), 1).expect("a weight");
        assert_eq!((twice.values[0], twice.total()), (6.0, 2.0 * 6.0));
        let both = Flow::sum(&[&ones, &twice]);
        assert_eq!((both.values[0], both.total()), (7.0, 12.0));
    }

    /// Values are those of the plain operators, which tests of all layers compare with.
    #[test]
    fn operators_are_those_of_the_network() {
        let maps = |shape: &[usize]| noise("maps", shape, 0.5, 1.0);
        for (shape, filters, stride) in [
            ([2, 5, 4], vec![3, 2, 3, 3], 2),
            ([2, 4, 5], vec![2, 1, 5, 5], 1),
            ([3, 4, 4], vec![3, 1, 3, 3], 2),
        ] {
            let weight = noise("filters", &filters, 0.5, 0.7);
            let x = maps(&[shape[0], 1, shape[1], shape[2]]);
            let values: Vec<f64> = crate::nn::testing::values(&x).into_iter().map(f64::from).collect();
            let flow = Flow { shape, derivatives: vec![0.0; values.len()], values };
            let got = flow.convolved(&weight, stride).expect("a weight");
            let naive = Naive::new("x", &[("x.conv.weight".to_string(), weight)].into());
            let expected = naive.conv(&Maps::of(&x), "conv", stride);
            assert_eq!(got.shape[..], [expected.shape[0], expected.shape[2], expected.shape[3]]);
            for (got, expected) in got.values.iter().zip(&expected.values) {
                assert!((got - expected).abs() < 1e-9, "{got} {expected}");
            }
            let pooled = Maps::of(&x).max_pool(stride);
            assert!(flow.max_pooled(stride).values.iter().zip(&pooled.values).all(|(a, b)| a == b));
            let pooled_mean = Maps::of(&x).average_pool(3, stride);
            let got = flow.average_pooled(3, stride);
            assert!(got.values.iter().zip(&pooled_mean.values).all(|(a, b)| (a - b).abs() < 1e-9));
            let mean = Maps::of(&x).mean();
            assert!(flow.mean().values.iter().zip(&mean.values).all(|(a, b)| (a - b).abs() < 1e-9));
        }
    }

    /// Against a finite difference.
    #[test]
    fn it_is_the_derivative_by_the_scale_of_all_weights() {
        for keys in [
            &[
                "stem k3 s2 3-4 relu @7x6",
                "mbconv k5 s1 4-8-4 h_swish se2 skip @4x3",
                "pool 4 @4x3",
                "linear 4-5 @1x1",
            ][..],
            &[
                "stem k3 s1 1-4 relu @5x4",
                "maxpool 4 @5x4",
                "mbconv k3 s1 4-4-6 relu e1 @3x2",
                "reluconv k3 6-6 @3x2",
                "avgpool k3 6 @3x2",
                "fredux 6-6 @3x2",
                "conv1x1 6-7 relu @2x1",
                "norm 7 relu @2x1",
                "pool 7 @2x1",
                "mix 7-8 h_swish @1x1",
                "linear 8-3 @1x1",
            ],
        ] {
            let layers = chain(keys);
            let tensors = weights(&layers);
            let total = |scale: f64| {
                let scaled = tensors
                    .iter()
                    .map(|(name, tensor)| (name.clone(), tensor.affine(scale, 0.0).expect("a tensor")));
                let source = Source::new(MapSource::builder(scaled.collect()), &Backend::detect(), 1e-5);
                Network::new(&layers, &source).expect("all weights").flow(layers[0].input).expect("f32")
            };
            let step = 1e-3;
            let numeric = (total(1.0 + step).values.iter().sum::<f64>()
                - total(1.0 - step).values.iter().sum::<f64>())
                / (2.0 * step);
            let got = total(1.0).total();
            assert!((got / numeric - 1.0).abs() < 1e-4, "{got} {numeric}");
        }
    }
}
