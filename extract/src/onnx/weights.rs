//! The constants of nodes: weights by name, with batch norms multiplied into the layers before them.

use std::collections::BTreeMap;

use candle_core::{DType, Tensor};
use space::LayerSpec;

use crate::error::Result;

/// A weight or a bias, row by row.
pub(super) struct Numbers {
    pub(super) shape: Vec<usize>,
    pub(super) values: Vec<f32>,
}

/// Answers for the weights of one layer, whose specification says what shapes they have.
pub(super) struct LayerWeights<'a> {
    tensors: &'a BTreeMap<String, Tensor>,
    prefix: &'a str,
    shapes: BTreeMap<String, Vec<usize>>,
    epsilon: f32,
}

impl<'a> LayerWeights<'a> {
    pub(super) fn new(layer: &'a LayerSpec, tensors: &'a BTreeMap<String, Tensor>, epsilon: f32) -> Self {
        let shapes = layer.weights().into_iter().map(|weight| (weight.name, weight.shape)).collect();
        Self { tensors, prefix: &layer.name, shapes, epsilon }
    }

    /// The weight `<layer><suffix>`.
    pub(super) fn get(&self, suffix: &str) -> Result<Numbers> {
        let name = format!("{}{suffix}", self.prefix);
        let shape = self.shapes.get(&name).cloned().ok_or_else(|| {
            base::Error::invalid(self.prefix, "weight", "a weight that the layer has", &name)
        })?;
        let values = self.values(&name, &shape)?;
        Ok(Numbers { shape, values })
    }

    /// The convolution `<layer><part>.conv` as it is with the batch norm `<layer><part>.bn` after it: each of its
    /// output channels times the scale, and the shift as a bias.
    pub(super) fn folded(&self, part: &str) -> Result<[Numbers; 2]> {
        let mut weight = self.get(&format!("{part}.conv.weight"))?;
        let [scale, shift] = self.norm(part)?;
        let fan_in = weight.values.len() / scale.values.len();
        for (row, scale) in weight.values.chunks_mut(fan_in).zip(&scale.values) {
            row.iter_mut().for_each(|value| *value *= scale);
        }
        Ok([weight, shift])
    }

    /// The batch norm `<layer><part>.bn` as a scale and a shift per channel: `gamma / sqrt(variance + epsilon)`, and `beta -
    /// mean` times that.
    pub(super) fn norm(&self, part: &str) -> Result<[Numbers; 2]> {
        let mut scale = self.get(&format!("{part}.bn.weight"))?;
        let mut shift = self.get(&format!("{part}.bn.bias"))?;
        let statistic = |name| self.values(&format!("{}{part}.bn.{name}", self.prefix), &scale.shape);
        let mean = statistic("running_mean")?;
        let variance = statistic("running_var")?;
        for (channel, scale) in scale.values.iter_mut().enumerate() {
            *scale /= (variance[channel] + self.epsilon).sqrt();
            shift.values[channel] -= mean[channel] * *scale;
        }
        Ok([scale, shift])
    }

    fn values(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        let expected = || format!("shape {shape:?}");
        let tensor = self
            .tensors
            .get(name)
            .ok_or_else(|| base::Error::invalid("weights", name, expected(), "no such weight"))?;
        if tensor.dims() != shape || tensor.dtype() != DType::F32 {
            let got = format!("shape {:?} of {:?}", tensor.dims(), tensor.dtype());
            let expected = format!("{} of F32", expected());
            return Err(base::Error::invalid("weights", name, expected, got).into());
        }
        Ok(tensor.flatten_all()?.to_vec1()?)
    }
}
