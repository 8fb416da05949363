//! Fits the multi-layer perceptron of Cai et al. (2020, section 3.4): 3 layers of 400, ReLU, one output.

use candle_core::backprop::GradStore;
use candle_core::{Device, Tensor, Var};
use rand::Rng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use space::Encoded;

use super::perceptron::{Dense, Network};
use crate::error::Result;
use crate::rng::{Purpose, rng};

/// The settings of a fit of the perceptron.
#[derive(Clone, Debug, PartialEq)]
pub struct MlpConfig {
    /// Width of the hidden layers: 400 (Cai et al. 2020).
    pub width: usize,
    /// Number of hidden layers: 3 (Cai et al. 2020).
    pub hidden: usize,
    /// Rows a step: 128, between the 500 of OFA's authors for many rows and what 200 rows allow.
    pub batch: usize,
    /// First learning rate, falling to 0 along a cosine: 1e-3 (OFA's authors).
    pub learning_rate: f64,
    /// Decoupled weight decay (Loshchilov & Hutter 2019).
    pub weight_decay: f64,
    /// Passes over the rows, within the limits on steps.
    pub epochs: usize,
    /// Least number of steps.
    pub min_steps: usize,
    /// Most steps.
    pub max_steps: usize,
}

impl Default for MlpConfig {
    fn default() -> Self {
        Self {
            width: 400,
            hidden: 3,
            batch: 128,
            learning_rate: 1e-3,
            weight_decay: 1e-2,
            epochs: 60,
            min_steps: 150,
            max_steps: 2000,
        }
    }
}

impl MlpConfig {
    fn steps(&self, rows: usize) -> usize {
        (self.epochs * rows.div_ceil(self.batch)).clamp(self.min_steps, self.max_steps)
    }
}

/// The weights while they are trained: `[inputs, outputs]` and `[outputs]` of each layer.
struct Trained {
    layers: Vec<(Var, Var)>,
}

impl Trained {
    /// Uniform within one over the root of the inputs, as PyTorch's linear layers begin; the last layer at 0,
    /// so that training starts from the mean.
    fn new(widths: &[usize], rng: &mut ChaCha8Rng) -> Result<Self> {
        let mut layers = Vec::new();
        for pair in widths.windows(2) {
            let inputs = pair[0];
            let outputs = pair[1];
            let bound = if outputs == 1 { 0.0 } else { 1.0 / (inputs as f32).sqrt() };
            let mut draw = |len: usize| -> Vec<f32> {
                (0..len).map(|_| bound * rng.random_range(-1.0f32..1.0)).collect()
            };
            let weight = Tensor::from_vec(draw(inputs * outputs), (inputs, outputs), &Device::Cpu)?;
            let bias = Tensor::from_vec(draw(outputs), outputs, &Device::Cpu)?;
            layers.push((Var::from_tensor(&weight)?, Var::from_tensor(&bias)?));
        }
        Ok(Self { layers })
    }

    fn variables(&self) -> Vec<Var> {
        self.layers.iter().flat_map(|(weight, bias)| [weight.clone(), bias.clone()]).collect()
    }

    /// `[rows, inputs]` to `[rows, 1]`.
    fn forward(&self, features: &Tensor) -> candle_core::Result<Tensor> {
        let mut hidden = features.clone();
        for (index, (weight, bias)) in self.layers.iter().enumerate() {
            if index > 0 {
                hidden = hidden.relu()?;
            }
            hidden = hidden.matmul(weight)?.broadcast_add(bias)?;
        }
        Ok(hidden)
    }

    /// The network that predicts `mean + scale * output`.
    fn finish(&self, mean: f64, scale: f64) -> Result<Network> {
        let mut layers = Vec::new();
        for (index, (weight, bias)) in self.layers.iter().enumerate() {
            let factor = if index + 1 == self.layers.len() { scale } else { 1.0 };
            let weight = (weight.as_tensor().t()?.contiguous()? * factor)?.flatten_all()?.to_vec1()?;
            layers.push(Dense { weight, bias: (bias.as_tensor() * factor)?.to_vec1()? });
        }
        Network::new(layers, mean as f32)
    }
}

/// Fits a perceptron of `len` features to the rows.
pub(super) fn fit_mlp(
    active: &Encoded,
    targets: &[f64],
    len: usize,
    config: &MlpConfig,
    seed: u64,
) -> Result<Network> {
    if config.width == 0 || config.batch == 0 {
        let got = format!("{} and {}", config.width, config.batch);
        return Err(base::Error::invalid("fit", "width and batch", "at least 1", got).into());
    }
    let rows = targets.len();
    let mean = targets.iter().sum::<f64>() / rows as f64;
    let variance = targets.iter().map(|target| (target - mean).powi(2)).sum::<f64>() / rows as f64;
    let scale = variance.sqrt().max(1e-6);
    let widths = [vec![len], vec![config.width; config.hidden], vec![1]].concat();
    let trained = Trained::new(&widths, &mut rng(seed, Purpose::Weights))?;
    let mut optimizer = AdamW::new(trained.variables(), config.weight_decay)?;
    let mut order = Order::new(rows, rng(seed, Purpose::Batches));
    let steps = config.steps(rows);
    for step in 0..steps {
        let progress = step as f64 / steps as f64;
        let rate = 0.5 * config.learning_rate * (1.0 + (std::f64::consts::PI * progress).cos());
        let batch = order.next(config.batch);
        let features = dense(batch.iter().map(|&row| active.get(row)), len)?;
        let expected: Vec<f32> = batch.iter().map(|&row| ((targets[row] - mean) / scale) as f32).collect();
        let expected = Tensor::from_vec(expected, (batch.len(), 1), &Device::Cpu)?;
        let loss = (trained.forward(&features)? - expected)?.sqr()?.mean_all()?;
        optimizer.step(&loss.backward()?, rate)?;
    }
    trained.finish(mean, scale)
}

/// `[rows, len]` of zeros and ones.
fn dense<'a>(rows: impl ExactSizeIterator<Item = &'a [u32]>, len: usize) -> Result<Tensor> {
    let count = rows.len();
    let mut values = vec![0.0f32; count * len];
    for (features, row) in rows.zip(values.chunks_exact_mut(len)) {
        features.iter().for_each(|&feature| row[feature as usize] = 1.0);
    }
    Ok(Tensor::from_vec(values, (count, len), &Device::Cpu)?)
}

/// AdamW (Loshchilov & Hutter 2019, algorithm 2) with the usual decay rates .9 and .999: one pass over each
/// weight, where a chain of tensor operations makes fourteen.
struct AdamW {
    states: Vec<AdamState>,
    weight_decay: f64,
    steps: i32,
}

struct AdamState {
    variable: Var,
    values: Vec<f32>,
    first: Vec<f32>,
    second: Vec<f32>,
}

const FIRST_DECAY: f64 = 0.9;
const SECOND_DECAY: f64 = 0.999;
const EPSILON: f32 = 1e-8;

impl AdamW {
    fn new(variables: Vec<Var>, weight_decay: f64) -> Result<Self> {
        let mut states = Vec::with_capacity(variables.len());
        for variable in variables {
            let values: Vec<f32> = variable.flatten_all()?.to_vec1()?;
            let zeros = vec![0.0; values.len()];
            states.push(AdamState { variable, values, first: zeros.clone(), second: zeros });
        }
        Ok(Self { states, weight_decay, steps: 0 })
    }

    fn step(&mut self, gradients: &GradStore, rate: f64) -> Result<()> {
        self.steps += 1;
        let keep = (1.0 - rate * self.weight_decay) as f32;
        let scale = (rate / (1.0 - FIRST_DECAY.powi(self.steps))) as f32;
        let correction = (1.0 / (1.0 - SECOND_DECAY.powi(self.steps))) as f32;
        for state in &mut self.states {
            let Some(gradient) = gradients.get(&state.variable) else { continue };
            let gradient: Vec<f32> = gradient.flatten_all()?.to_vec1()?;
            state.update(&gradient, keep, scale, correction);
            let values = Tensor::from_slice(&state.values, state.variable.shape(), &Device::Cpu)?;
            state.variable.set(&values)?;
        }
        Ok(())
    }
}

impl AdamState {
    fn update(&mut self, gradient: &[f32], keep: f32, scale: f32, correction: f32) {
        let a = FIRST_DECAY as f32;
        let b = SECOND_DECAY as f32;
        let moments = self.first.iter_mut().zip(&mut self.second);
        for ((value, (first, second)), g) in self.values.iter_mut().zip(moments).zip(gradient) {
            *first = a * *first + (1.0 - a) * g;
            *second = b * *second + (1.0 - b) * g * g;
            *value = keep * *value - scale * *first / ((correction * *second).sqrt() + EPSILON);
        }
    }
}

/// Rows in random order, again and again, cut into batches.
struct Order {
    rows: Vec<usize>,
    next: usize,
    rng: ChaCha8Rng,
}

impl Order {
    fn new(rows: usize, rng: ChaCha8Rng) -> Self {
        Self { rows: (0..rows).collect(), next: rows, rng }
    }

    fn next(&mut self, batch: usize) -> &[usize] {
        let batch = batch.min(self.rows.len());
        if self.next + batch > self.rows.len() {
            self.rows.shuffle(&mut self.rng);
            self.next = 0;
        }
        self.next += batch;
        &self.rows[self.next - batch..self.next]
    }
}
