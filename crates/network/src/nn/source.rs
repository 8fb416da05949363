//! The source of a layer's weights, by name and shape.

use std::collections::BTreeMap;
use std::sync::Arc;

use candle_core::{DType, Device, Shape, Tensor, bail};
use candle_nn::VarBuilder;
use candle_nn::var_builder::SimpleBackend;
use kernels::{Backend, BatchNormAffine};
use space::{Activation, LayerSpec};

use super::parameter::Parameter;

/// Tensors by the full names of weights.
type Tensors = Arc<BTreeMap<String, Tensor>>;

/// The weights of layers, and the backend that computes with them.
#[derive(Clone)]
pub struct Source<'a> {
    weights: VarBuilder<'a>,
    operands: Operands,
    gradients: Option<Tensors>,
    backend: Backend,
    epsilon: f32,
}

/// Origin of the operands.
#[derive(Clone)]
enum Operands {
    /// Copies that each layer makes for itself, where products do not read the weights as they are.
    OneByOne,
    /// Copies that were made before.
    Made(Tensors),
    /// The weights as they are, since they will be changed before a product reads them.
    Weights,
}

/// A batch norm's scale and shift, and their gradients to add to.
pub(super) struct Affine {
    pub with: BatchNormAffine,
    pub gradient: Option<BatchNormAffine>,
}

impl<'a> Source<'a> {
    /// Weights from `weights`; `epsilon` is added to the variance in batch norms.
    pub fn new(weights: VarBuilder<'a>, backend: &Backend, epsilon: f32) -> Self {
        Self { weights, operands: Operands::OneByOne, gradients: None, backend: backend.clone(), epsilon }
    }

    /// The source whose operands were made before, by [`operands`].
    #[must_use]
    pub fn with_operands(self, operands: BTreeMap<String, Tensor>) -> Self {
        Self { operands: Operands::Made(Arc::new(operands)), ..self }
    }

    /// The source whose weights no product will read as they are.
    #[must_use]
    pub fn without_operands(self) -> Self {
        Self { operands: Operands::Weights, ..self }
    }

    /// The source of a network that can go backward: gradients to add to, f32, by the weights' full names.
    #[must_use]
    pub fn with_gradients(self, gradients: BTreeMap<String, Tensor>) -> Self {
        Self { gradients: Some(Arc::new(gradients)), ..self }
    }

    /// The source one level down: names are prefixed with `part.`.
    #[must_use]
    pub fn pp(&self, part: &str) -> Self {
        Self { weights: self.weights.pp(part), ..self.clone() }
    }

    /// The source whose kernels' calls are recorded as this kind of layer's.
    pub(super) fn for_layer(&self, layer: &'static str) -> Self {
        Self { backend: self.backend.for_layer(layer), ..self.clone() }
    }

    /// A weight of this shape, on the backend's device.
    pub(super) fn get(&self, shape: impl Into<Shape>, name: &str) -> candle_core::Result<Parameter> {
        let shape = shape.into();
        let value = self.weights.get(shape.clone(), name)?.to_device(&self.backend.device())?;
        let Some(gradients) = &self.gradients else { return Ok(Parameter::new(value)) };
        let gradient = answer(gradients, &self.full_name(name), &shape)?;
        Ok(Parameter::new(value).with_gradient(Some(gradient)))
    }

    /// A weight with its operand: a matrix or filters.
    pub(super) fn operand(&self, shape: impl Into<Shape>, name: &str) -> candle_core::Result<Parameter> {
        let weight = self.get(shape, name)?;
        let operand = match &self.operands {
            Operands::OneByOne => Some(self.backend.operand(weight.value())?),
            Operands::Made(made) => made.get(&self.full_name(name)).cloned(),
            Operands::Weights => None,
        };
        Ok(weight.with_operand(operand))
    }

    /// An optional tensor, on its own device.
    pub(super) fn find(&self, shape: impl Into<Shape>, name: &str) -> candle_core::Result<Option<Tensor>> {
        self.weights.contains_tensor(name).then(|| self.weights.get(shape, name)).transpose()
    }

    /// The prefix of the names, a layer's or a part's.
    pub(super) fn prefix(&self) -> String {
        self.weights.prefix()
    }

    fn full_name(&self, name: &str) -> String {
        format!("{}.{name}", self.weights.prefix())
    }

    pub(super) fn backend(&self) -> Backend {
        self.backend.clone()
    }

    /// Reads `weight` and `bias`, `[C]`, of a batch norm.
    pub(super) fn affine(&self, channels: usize, activation: Activation) -> candle_core::Result<Affine> {
        let gamma = self.get(channels, "weight")?;
        let beta = self.get(channels, "bias")?;
        let epsilon = self.epsilon;
        let of = |gamma: &Tensor, beta: &Tensor| BatchNormAffine {
            gamma: gamma.clone(),
            beta: beta.clone(),
            epsilon,
            activation,
        };
        let gradient = match (gamma.find_gradient(), beta.find_gradient()) {
            (Some(gamma), Some(beta)) => Some(of(gamma, beta)),
            _ => None,
        };
        Ok(Affine { with: of(gamma.value(), beta.value()), gradient })
    }
}

/// The operands of a network's weights by name, all made at once.
///
/// # Errors
/// If there is no room for copies of them.
pub fn operands(
    tensors: &BTreeMap<String, Tensor>,
    layers: &[LayerSpec],
    backend: &Backend,
) -> candle_core::Result<BTreeMap<String, Tensor>> {
    let weights = layers.iter().flat_map(LayerSpec::weights).filter(|weight| weight.role.is_operand());
    // the layer that reads a missing weight reports it
    let found = weights.filter_map(|weight| Some((tensors.get(&weight.name)?, weight.name)));
    let (given, names): (Vec<&Tensor>, Vec<String>) = found.unzip();
    Ok(names.into_iter().zip(backend.operands(&given)?).collect())
}

/// A network's weights as tensors by name; a wrong shape or a missing name is an error.
pub struct MapSource {
    tensors: BTreeMap<String, Tensor>,
}

impl MapSource {
    /// A [`VarBuilder`] over f32 tensors on the CPU.
    pub fn builder(tensors: BTreeMap<String, Tensor>) -> VarBuilder<'static> {
        VarBuilder::from_backend(Box::new(Self { tensors }), DType::F32, Device::Cpu)
    }
}

/// The tensor of this name and shape.
fn answer(tensors: &BTreeMap<String, Tensor>, name: &str, shape: &Shape) -> candle_core::Result<Tensor> {
    let Some(tensor) = tensors.get(name) else {
        bail!("weight {name}: expected, but there is none of that name")
    };
    if tensor.shape() != shape {
        bail!("weight {name}: expected shape {shape:?}, got {:?}", tensor.shape());
    }
    Ok(tensor.clone())
}

impl SimpleBackend for MapSource {
    fn get(
        &self,
        shape: Shape,
        name: &str,
        _: candle_nn::Init,
        _: DType,
        _: &Device,
    ) -> candle_core::Result<Tensor> {
        answer(&self.tensors, name, &shape)
    }

    fn get_unchecked(&self, name: &str, _: DType, _: &Device) -> candle_core::Result<Tensor> {
        match self.tensors.get(name) {
            Some(tensor) => Ok(tensor.clone()),
            None => bail!("weight {name}: expected, but there is none of that name"),
        }
    }

    fn contains_tensor(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::testing::{noise, source, tensor, values};

    fn one() -> Source<'static> {
        source(&[("a.b.weight", tensor(&[2], &[3.0, 5.0]))])
    }

    #[test]
    fn a_weight_is_found_by_its_full_name_and_shape() {
        let source = one().pp("a").pp("b");
        assert_eq!(source.prefix(), "a.b");
        assert_eq!(values(source.get(2, "weight").expect("there").value()), [3.0, 5.0]);
        assert!(source.find(2, "running_mean").expect("none is no error").is_none());
        for (source, shape, expected) in [
            (one().pp("a"), 2, "weight a.weight: expected, but there is none of that name"),
            (one().pp("a.b"), 3, "weight a.b.weight: expected shape [3], got [2]"),
        ] {
            let error = source.get(shape, "weight").expect_err("refused").to_string();
            assert!(error.contains(expected), "{error}");
        }
        let error = source.find(3, "weight").expect_err("another shape").to_string();
        assert!(error.contains("weight a.b.weight: expected shape [3], got [2]"), "{error}");
    }

    #[test]
    fn a_source_with_gradients_has_one_for_each_weight() {
        let gradient = tensor(&[2], &[0.0, 0.0]);
        let with = one().with_gradients([("a.b.weight".to_string(), gradient)].into()).pp("a.b");
        assert!(with.get(2, "weight").expect("there").gradient().is_ok());
        assert!(one().pp("a.b").get(2, "weight").expect("there").find_gradient().is_none());
        let error = one().with_gradients(BTreeMap::new()).pp("a.b").get(2, "weight").expect_err("none");
        assert!(error.to_string().contains("weight a.b.weight: expected"), "{error}");
    }

    #[test]
    fn operands_are_those_made_before_or_the_weights() {
        let operand = [("a.b.weight".to_string(), tensor(&[2], &[30.0, 50.0]))].into();
        for (source, expected) in [
            (one().with_operands(operand), [30.0, 50.0]),
            (one().with_operands(BTreeMap::new()), [3.0, 5.0]),
            (one().without_operands(), [3.0, 5.0]),
            (one(), [3.0, 5.0]),
        ] {
            let weight = source.pp("a.b").operand(2, "weight").expect("there");
            assert_eq!(values(weight.operand()), expected);
            assert_eq!(values(weight.value()), [3.0, 5.0]);
        }
    }

    #[test]
    fn matrices_and_filters_have_operands_and_a_missing_one_is_left_out() {
        let layers: Vec<LayerSpec> = ["conv1x1 2-3 relu @2x2", "pool 3 @2x2", "linear 3-2 @1x1"]
            .map(|key| key.parse().expect("a key"))
            .to_vec();
        let weights = layers.iter().flat_map(LayerSpec::weights);
        let mut tensors: BTreeMap<String, Tensor> = weights
            .map(|weight| (weight.name.clone(), noise(&weight.name, &weight.shape, 1.0, 0.0)))
            .collect();
        let made = |tensors: &BTreeMap<String, Tensor>| {
            operands(tensors, &layers, &Backend::detect()).expect("room")
        };
        let all: Vec<String> = made(&tensors).into_keys().collect();
        assert_eq!(all, ["classifier.linear.weight", "final_expand_layer.conv.weight"]);
        tensors.remove("classifier.linear.weight");
        assert_eq!(made(&tensors).into_keys().collect::<Vec<_>>(), all[1..]);
    }
}
