//! The operators as layers: forward, backward, folded for inference, and their memory. Each has a file of the operator's
//! name.

mod average_pool;
mod bottleneck;
mod classifier;
mod conv;
mod factorized_reduction;
mod feature_mix;
mod head_conv;
mod max_pool;
mod mbconv;
mod norm;
mod pool;
mod relu_conv;
mod separable;
mod stem;
mod sum;
mod weighted_sum;
mod zero;

use candle_core::Tensor;
use kernels::{Backend, Window};
use space::{LayerSpec, Operator};

use super::flow::Flow;
use super::folding::{FoldedDense, Product};
use super::footprint::Held;
use super::graph::InputGradients;
use super::pass::{Pass, Tape};
use super::source::Source;
use crate::error::Result;

/// An operator with its weights.
pub(super) trait Layer: Send + Sync {
    /// Computes the output. Inputs are never overwritten.
    ///
    /// # Shapes
    /// `[C, N, H, W]` each.
    ///
    /// # Errors
    /// If the shapes do not fit, or at inference without running statistics.
    fn forward(&self, inputs: &[&Tensor], pass: &mut Pass) -> Result<Tensor>;

    /// Adds the gradients of its weights and returns its inputs' gradients. It owns `dy`, its output's gradient, and may
    /// overwrite and return it.
    ///
    /// # Errors
    /// If the tape does not fit, or there are no gradients to add to.
    fn backward(&self, dy: Tensor, tape: &mut Tape) -> Result<InputGradients>;

    /// The flow of paths through the layer, which synaptic flow is read from.
    ///
    /// # Errors
    /// If a weight cannot be read.
    fn flow(&self, inputs: &[&Flow]) -> Result<Flow>;

    /// The layer for inference alone, batch norms multiplied into weights.
    ///
    /// # Errors
    /// If a batch norm has no running statistics.
    fn fold(&self, backend: &Backend) -> Result<Box<dyn FoldedLayer>>;
}

/// An operator for inference alone.
pub(super) trait FoldedLayer: Send + Sync {
    /// Computes the output. Inputs are never overwritten.
    ///
    /// # Shapes
    /// `[C, N, H, W]` each.
    ///
    /// # Errors
    /// If the shapes do not fit.
    fn forward(&self, inputs: &[&Tensor], backend: &Backend) -> Result<Tensor>;
}

/// The layer of a specification, with weights from a source.
pub(super) fn layer(spec: &LayerSpec, source: &Source) -> Result<Box<dyn Layer>> {
    let source = &source.pp(&spec.name);
    Ok(match &spec.operator {
        Operator::Stem { .. } => Box::new(stem::Stem::new(spec, source)?),
        Operator::Separable(block) => Box::new(separable::Separable::new(block, spec, source)?),
        Operator::MbConv(block) => Box::new(mbconv::MbConv::new(block, spec, source)?),
        Operator::Conv { .. } => Box::new(conv::Conv::new(spec, source)?),
        &Operator::ReluConv { kernel, stride } => {
            Box::new(relu_conv::ReluConv::new(Window { kernel, stride }, spec, source)?)
        }
        Operator::MaxPool { stride } => Box::new(max_pool::MaxPool::new(*stride, source)),
        &Operator::AveragePool { kernel, stride } => {
            Box::new(average_pool::AveragePool::new(Window { kernel, stride }, spec, source))
        }
        Operator::Bottleneck(block) => Box::new(bottleneck::Bottleneck::new(block, spec, source)?),
        Operator::HeadConv { activation } => Box::new(head_conv::HeadConv::new(*activation, spec, source)?),
        Operator::Pool => Box::new(pool::Pool::new(source)),
        Operator::FeatureMix { activation } => {
            Box::new(feature_mix::FeatureMix::new(*activation, spec, source)?)
        }
        Operator::Classifier => Box::new(classifier::Classifier::new(spec, source)?),
        Operator::Sum { .. } => Box::new(sum::Sum::new(source)),
        Operator::WeightedSum { of } => Box::new(weighted_sum::WeightedSum::new(*of, source)?),
        Operator::Zero => Box::new(zero::Zero::new(source)),
        Operator::FactorizedReduction => {
            Box::new(factorized_reduction::FactorizedReduction::new(spec, source)?)
        }
        Operator::Norm { activation } => Box::new(norm::Norm::new(*activation, spec, source)?),
    })
}

/// The memory of passes over a layer.
pub(super) fn held(spec: &LayerSpec) -> Held {
    match &spec.operator {
        Operator::Stem { kernel, .. } => Held::conv_norm(spec, *kernel, false),
        Operator::MbConv(block) => mbconv::held(block, spec),
        Operator::Separable(_) => separable::held(spec),
        Operator::Conv { kernel, residual, .. } => conv::held(*kernel, *residual, spec),
        &Operator::ReluConv { kernel, stride } => relu_conv::held(Window { kernel, stride }, spec),
        Operator::AveragePool { .. } => average_pool::held(spec),
        Operator::MaxPool { .. } | Operator::Pool => Held::pooled(spec),
        Operator::Bottleneck(block) => bottleneck::held(block, spec),
        Operator::HeadConv { .. } => Held::conv_norm(spec, 1, false),
        Operator::FeatureMix { .. } => feature_mix::held(spec),
        Operator::Classifier => classifier::held(spec),
        Operator::Sum { of } => sum::held(*of, spec),
        Operator::WeightedSum { of } => weighted_sum::held(*of, spec),
        Operator::Zero => zero::held(spec),
        Operator::FactorizedReduction => factorized_reduction::held(spec),
        Operator::Norm { .. } => norm::held(spec),
    }
}

/// The input of a layer that has one; the graph has checked the count.
fn only<'a, T>(inputs: &[&'a T]) -> &'a T {
    inputs[0]
}

impl FoldedLayer for FoldedDense {
    fn forward(&self, inputs: &[&Tensor], backend: &Backend) -> Result<Tensor> {
        self.maps(only(inputs), backend)
    }
}

impl FoldedLayer for Product {
    fn forward(&self, inputs: &[&Tensor], backend: &Backend) -> Result<Tensor> {
        self.maps(only(inputs), backend)
    }
}
