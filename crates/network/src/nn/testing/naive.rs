//! The operators in plain loops on f64, independent of the kernels.

use std::collections::BTreeMap;

use candle_core::Tensor;
use space::Activation;

use super::{EPSILON, values};

/// Maps `[C, N, H, W]`.
#[derive(Clone, Debug, Default, PartialEq)]
pub(in crate::nn) struct Maps {
    pub shape: [usize; 4],
    pub values: Vec<f64>,
}

impl Maps {
    pub fn of(tensor: &Tensor) -> Self {
        let (channels, images, height, width) = tensor.dims4().expect("maps");
        let values = values(tensor).into_iter().map(f64::from).collect();
        Self { shape: [channels, images, height, width], values }
    }

    fn from_fn(shape: [usize; 4], value: impl Fn([usize; 4]) -> f64) -> Self {
        let mut values = Vec::new();
        for channel in 0..shape[0] {
            for image in 0..shape[1] {
                for row in 0..shape[2] {
                    for column in 0..shape[3] {
                        values.push(value([channel, image, row, column]));
                    }
                }
            }
        }
        Self { shape, values }
    }

    fn at(&self, [channel, image, row, column]: [usize; 4]) -> f64 {
        let [_, images, height, width] = self.shape;
        self.values[((channel * images + image) * height + row) * width + column]
    }

    /// The value there, or `None` in the padding, which is `padding` wide.
    fn padded(&self, [channel, image, row, column]: [usize; 4], padding: usize) -> Option<f64> {
        let row = row.checked_sub(padding).filter(|row| *row < self.shape[2])?;
        let column = column.checked_sub(padding).filter(|column| *column < self.shape[3])?;
        Some(self.at([channel, image, row, column]))
    }

    pub fn dot(&self, other: &Self) -> f64 {
        self.values.iter().zip(&other.values).map(|(a, b)| a * b).sum()
    }

    pub fn plus(&self, other: &Self) -> Self {
        Self::from_fn(self.shape, |at| self.at(at) + other.at(at))
    }

    pub fn times(&self, factor: f64) -> Self {
        Self::from_fn(self.shape, |at| factor * self.at(at))
    }

    pub fn activated(&self, activation: Activation) -> Self {
        let gate = |z: f64| (z + 3.0).clamp(0.0, 6.0) / 6.0;
        Self::from_fn(self.shape, |at| {
            let z = self.at(at);
            match activation {
                Activation::None => z,
                Activation::Relu => z.max(0.0),
                Activation::Relu6 => z.clamp(0.0, 6.0),
                Activation::HSwish => z * gate(z),
                Activation::HSigmoid => gate(z),
            }
        })
    }

    /// Each map scaled by its factor, `[C, N, 1, 1]`.
    pub fn scaled(&self, factor: &Self) -> Self {
        Self::from_fn(self.shape, |at| self.at(at) * factor.at([at[0], at[1], 0, 0]))
    }

    /// `[C, N, H, W] -> [C, N, 1, 1]`.
    pub fn mean(&self) -> Self {
        let [channels, images, height, width] = self.shape;
        let plane = height * width;
        Self::from_fn([channels, images, 1, 1], |[channel, image, ..]| {
            let begin = (channel * images + image) * plane;
            self.values[begin..begin + plane].iter().sum::<f64>() / plane as f64
        })
    }

    /// Every second place in both directions from `first` on; a place beyond the map is 0.
    pub fn sampled(&self, first: usize) -> Self {
        let [channels, images, height, width] = self.shape;
        Self::from_fn([channels, images, height.div_ceil(2), width.div_ceil(2)], |[channel, image, y, x]| {
            self.padded([channel, image, 2 * y + first, 2 * x + first], 0).unwrap_or(0.0)
        })
    }

    /// The channels of another after its own.
    pub fn beside(&self, other: &Self) -> Self {
        let mut shape = self.shape;
        shape[0] += other.shape[0];
        Self { shape, values: [&self.values[..], &other.values].concat() }
    }

    /// The mean of each window, padding `(side - 1) / 2`, which is not counted.
    pub fn average_pool(&self, side: usize, stride: usize) -> Self {
        self.pooled(side, stride, |window| window.iter().sum::<f64>() / window.len() as f64)
    }

    /// The greatest of each 3 x 3, padding 1.
    pub fn max_pool(&self, stride: usize) -> Self {
        self.pooled(3, stride, |window| window.iter().copied().fold(f64::NEG_INFINITY, f64::max))
    }

    /// What `reduce` makes of the values of each window that lie in the map.
    fn pooled(&self, side: usize, stride: usize, reduce: impl Fn(&[f64]) -> f64) -> Self {
        let [channels, images, height, width] = self.shape;
        let shape = [channels, images, height.div_ceil(stride), width.div_ceil(stride)];
        Self::from_fn(shape, |[channel, image, row, column]| {
            let window: Vec<f64> = square(side)
                .filter_map(|(down, right)| {
                    let at = [channel, image, stride * row + down, stride * column + right];
                    self.padded(at, (side - 1) / 2)
                })
                .collect();
            reduce(&window)
        })
    }
}

/// The places of a square, row by row.
fn square(side: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..side * side).map(move |place| (place / side, place % side))
}

/// The weights of one layer, by the part of their names below the layer's.
#[derive(Clone)]
pub(in crate::nn) struct Naive {
    tensors: BTreeMap<String, (Vec<usize>, Vec<f64>)>,
    batch_statistics: bool,
}

impl Naive {
    pub fn new(layer: &str, tensors: &BTreeMap<String, Tensor>) -> Self {
        let named = tensors.iter().map(|(name, tensor)| {
            let values = values(tensor).into_iter().map(f64::from).collect();
            (name[layer.len() + 1..].to_string(), (tensor.dims().to_vec(), values))
        });
        Self { tensors: named.collect(), batch_statistics: false }
    }

    /// Batch norms use the mean and variance of their input.
    pub fn with_batch_statistics(self) -> Self {
        Self { batch_statistics: true, ..self }
    }

    /// The same weights with other values of one.
    pub fn with(&self, name: &str, values: Vec<f64>) -> Self {
        let mut changed = self.clone();
        changed.tensors.get_mut(name).expect("a weight").1 = values;
        changed
    }

    pub fn has(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// Shape and values.
    pub fn get(&self, name: &str) -> &(Vec<usize>, Vec<f64>) {
        self.tensors.get(name).unwrap_or_else(|| panic!("no weight {name}"))
    }

    /// Convolution with padding k/2; depthwise where a filter has one input of several.
    pub fn conv(&self, x: &Maps, name: &str, stride: usize) -> Maps {
        let (shape, weight) = self.get(&format!("{name}.weight"));
        let [filters, inputs, kernel, _] = shape[..] else { panic!("{name}: {shape:?}") };
        let [channels, images, height, width] = x.shape;
        let through = |side: usize| (side - 1) / stride + 1;
        Maps::from_fn([filters, images, through(height), through(width)], |[filter, image, row, column]| {
            let mut sum = 0.0;
            for input in 0..inputs {
                let channel = if inputs == channels { input } else { filter };
                for (place, (down, right)) in square(kernel).enumerate() {
                    let at = [channel, image, row * stride + down, column * stride + right];
                    let value = x.padded(at, kernel / 2).unwrap_or(0.0);
                    sum += weight[(filter * inputs + input) * kernel * kernel + place] * value;
                }
            }
            sum
        })
    }

    /// Batch norm and activation.
    pub fn norm(&self, x: &Maps, name: &str, activation: Activation) -> Maps {
        let parameter = |part: &str, channel: usize| self.get(&format!("{name}.{part}")).1[channel];
        let count = x.values.len() / x.shape[0];
        let statistics: Vec<(f64, f64)> = (0..x.shape[0])
            .map(|channel| {
                if !self.batch_statistics {
                    return (parameter("running_mean", channel), parameter("running_var", channel));
                }
                let values = &x.values[channel * count..][..count];
                let mean = values.iter().sum::<f64>() / count as f64;
                let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / count as f64;
                (mean, variance)
            })
            .collect();
        let normalized = Maps::from_fn(x.shape, |at| {
            let (mean, variance) = statistics[at[0]];
            let deviation = (variance + f64::from(EPSILON)).sqrt();
            parameter("weight", at[0]) * (x.at(at) - mean) / deviation + parameter("bias", at[0])
        });
        normalized.activated(activation)
    }

    /// Convolution `conv`, batch norm `bn` and activation, below `name`.
    pub fn conv_norm(&self, x: &Maps, name: &str, stride: usize, activation: Activation) -> Maps {
        let prefix = if name.is_empty() { String::new() } else { format!("{name}.") };
        self.norm(&self.conv(x, &format!("{prefix}conv"), stride), &format!("{prefix}bn"), activation)
    }

    /// A product with bias on features `[C, N, 1, 1]`.
    pub fn linear(&self, x: &Maps, name: &str) -> Maps {
        let (_, weight) = self.get(&format!("{name}.weight"));
        let (_, bias) = self.get(&format!("{name}.bias"));
        let [inputs, images, ..] = x.shape;
        Maps::from_fn([bias.len(), images, 1, 1], |[output, image, ..]| {
            let row = &weight[output * inputs..][..inputs];
            let products = row.iter().enumerate().map(|(input, w)| w * x.at([input, image, 0, 0]));
            products.sum::<f64>() + bias[output]
        })
    }
}
