//! Translates each layer to ONNX's operators: one file per operator.

mod average_pool;
mod bottleneck;
mod classifier;
mod conv;
mod factorized_reduction;
mod feature_mix;
mod head_conv;
mod max_pool;
mod mbconv;
mod nodes;
mod norm;
mod pool;
mod relu_conv;
mod separable;
mod stem;
mod sum;
mod zero;

use space::{LayerSpec, Operator};

use super::graph::GraphBuilder;
use super::weights::LayerWeights;
use crate::error::Result;
use conv::Conv;

/// Appends a layer to the graph: it reads the values of these names, and leaves its output at the tip.
pub(super) fn append(
    graph: &mut GraphBuilder,
    layer: &LayerSpec,
    inputs: &[String],
    weights: &LayerWeights,
) -> Result<()> {
    let name = &layer.name;
    if let Some(first) = inputs.first() {
        graph.set_tip(first.clone());
    }
    match &layer.operator {
        Operator::Stem { kernel, stride, activation } => {
            stem::append(graph, name, [*kernel, *stride], *activation, weights)?;
        }
        Operator::MbConv(block) => mbconv::append(graph, name, block, weights)?,
        Operator::Separable(block) => {
            separable::append(graph, name, block, layer.input.channels, weights)?;
        }
        &Operator::Conv { kernel, stride, activation, residual } => {
            conv::append(graph, name, &Conv { kernel, stride, activation, residual }, weights)?;
        }
        Operator::ReluConv { kernel, stride } => {
            relu_conv::append(graph, name, [*kernel, *stride], weights)?;
        }
        Operator::MaxPool { stride } => max_pool::append(graph, name, *stride),
        Operator::AveragePool { kernel, stride } => {
            average_pool::append(graph, name.clone(), [*kernel, *stride]);
        }
        Operator::Bottleneck(block) => bottleneck::append(graph, name, block, weights)?,
        Operator::HeadConv { activation } => head_conv::append(graph, name, *activation, weights)?,
        Operator::Pool => pool::append(graph, name),
        Operator::FeatureMix { activation } => feature_mix::append(graph, name, *activation, weights)?,
        Operator::Classifier => classifier::append(graph, name, weights)?,
        Operator::Sum { .. } => sum::append(graph, name, inputs),
        Operator::Zero => zero::append(graph, name),
        Operator::WeightedSum { .. } => {
            let place = format!("layer {name}");
            let error = base::Error::invalid(place, "operator", "that of a sub-network", "a mixture of them");
            return Err(error.into());
        }
        Operator::FactorizedReduction => {
            let extent = [layer.input.height, layer.input.width];
            factorized_reduction::append(graph, name, extent, weights)?;
        }
        Operator::Norm { activation } => norm::append(graph, name, *activation, weights)?,
    }
    Ok(())
}
