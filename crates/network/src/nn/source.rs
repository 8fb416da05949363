//! Who answers when a layer asks for a weight.

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

/// Where a layer gets its weights, and the kernels that it will compute with.
#[derive(Clone)]
pub struct Source<'a> {
    weights: VarBuilder<'a>,
    operands: Operands,
    gradients: Option<Tensors>,
    backend: Backend,
    epsilon: f32,
}

/// Where operands come from.
#[derive(Clone)]
enum Operands {
    /// Copies that each layer makes of its own, where products do not read the weights as they are.
    OneByOne,
    /// Copies that were made before.
    Made(Tensors),
    /// The weights as they are: they will be changed before a product reads them.
    Weights,
}

/// A batch norm's scale and shift, and where their gradients are added.
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

    /// The source of a network that can go backward: where the gradient of each weight is added, f32, by the weights' full
    /// names.
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

    /// A weight of this shape, where the kernels compute.
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

    /// A tensor that need not be there, where it lies.
    pub(super) fn find(&self, shape: impl Into<Shape>, name: &str) -> candle_core::Result<Option<Tensor>> {
        self.weights.contains_tensor(name).then(|| self.weights.get(shape, name)).transpose()
    }

    /// The name of what asks here.
    pub(super) fn prefix(&self) -> String {
        self.weights.prefix()
    }

    fn full_name(&self, name: &str) -> String {
        format!("{}.{name}", self.weights.prefix())
    }

    pub(super) fn backend(&self) -> Backend {
        self.backend.clone()
    }

    /// Asks for `weight` and `bias`, `[C]`, of a batch norm.
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

/// The operands of a network's weights, by name, all made at once.
///
/// # Errors
/// If there is no room for copies of them.
pub fn operands(
    tensors: &BTreeMap<String, Tensor>,
    layers: &[LayerSpec],
    backend: &Backend,
) -> candle_core::Result<BTreeMap<String, Tensor>> {
    let weights = layers.iter().flat_map(LayerSpec::weights).filter(|weight| weight.role.is_operand());
    // one that is missing is told of by the layer that asks for it
    let found = weights.filter_map(|weight| Some((tensors.get(&weight.name)?, weight.name)));
    let (given, names): (Vec<&Tensor>, Vec<String>) = found.unzip();
    Ok(names.into_iter().zip(backend.operands(&given)?).collect())
}

/// Tensors by name that answer for a network's weights; a wrong shape or a missing name is an error.
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
