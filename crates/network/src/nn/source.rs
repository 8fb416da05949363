//! Who answers when a layer asks for a weight.

use std::collections::BTreeMap;

use candle_core::{DType, Device, Shape, Tensor, bail};
use candle_nn::VarBuilder;
use candle_nn::var_builder::SimpleBackend;

use kernels::{Kernels, Normalisation};
use space::{Activation, LayerSpec};

/// Where a layer gets its weights, and the kernels that it will compute with.
#[derive(Clone)]
pub struct Source<'a> {
    weights: VarBuilder<'a>,
    kernels: Kernels,
    epsilon: f32,
    /// Whether what products read may be another tensor than the weight.
    as_operands: bool,
}

impl<'a> Source<'a> {
    /// Weights from `weights`; `epsilon` is added to the variance in batch norms.
    pub fn new(weights: VarBuilder<'a>, kernels: &Kernels, epsilon: f32) -> Self {
        Self { weights, kernels: kernels.clone(), epsilon, as_operands: true }
    }

    /// The source whose weights are given as they are, whatever products read: gradients, which are added to, and
    /// weights that will be changed before a product reads them.
    #[must_use]
    pub fn as_they_are(self) -> Self {
        Self { as_operands: false, ..self }
    }

    /// The source one level down: names are prefixed with `part.`.
    #[must_use]
    pub fn pp(&self, part: &str) -> Self {
        Self { weights: self.weights.pp(part), ..self.clone() }
    }

    /// The source whose kernels' calls are recorded as this kind of layer's.
    pub(super) fn for_layer(&self, layer: &'static str) -> Self {
        Self { kernels: self.kernels.for_layer(layer), ..self.clone() }
    }

    /// A weight of this shape, where the kernels compute.
    pub(super) fn get(&self, shape: impl Into<Shape>, name: &str) -> candle_core::Result<Tensor> {
        self.weights.get(shape, name)?.to_device(&self.kernels.device())
    }

    /// A weight that products read, a matrix or filters.
    pub(super) fn operand(&self, shape: impl Into<Shape>, name: &str) -> candle_core::Result<Tensor> {
        let weight = self.get(shape, name)?;
        if self.as_operands { self.kernels.operand(&weight) } else { Ok(weight) }
    }

    /// A weight that need not be there.
    pub(super) fn find(&self, shape: impl Into<Shape>, name: &str) -> candle_core::Result<Option<Tensor>> {
        self.weights.contains_tensor(name).then(|| self.weights.get(shape, name)).transpose()
    }

    pub(super) fn prefix(&self) -> String {
        self.weights.prefix()
    }

    pub(super) fn kernels(&self) -> Kernels {
        self.kernels.clone()
    }

    pub(super) fn normalisation(
        &self,
        channels: usize,
        activation: Activation,
    ) -> candle_core::Result<Normalisation> {
        let (gamma, beta) = (self.get(channels, "weight")?, self.get(channels, "bias")?);
        Ok(Normalisation { gamma, beta, epsilon: self.epsilon, activation })
    }
}

/// The weights of a network's layers, those that products read replaced by what they read, all made at once.
///
/// # Errors
/// If there is no room for copies of them.
pub fn with_operands(
    mut tensors: BTreeMap<String, Tensor>,
    layers: &[LayerSpec],
    kernels: &Kernels,
) -> candle_core::Result<BTreeMap<String, Tensor>> {
    let weights = layers.iter().flat_map(LayerSpec::weights).filter(|weight| weight.role.is_operand());
    let names: Vec<String> = weights.map(|weight| weight.name).collect();
    let given: Vec<&Tensor> = names.iter().filter_map(|name| tensors.get(name)).collect();
    // one that is missing is told of by the layer that asks for it
    if given.len() == names.len() {
        let operands = kernels.operands(&given)?;
        tensors.extend(names.into_iter().zip(operands));
    }
    Ok(tensors)
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

impl SimpleBackend for MapSource {
    fn get(
        &self,
        shape: Shape,
        name: &str,
        _: candle_nn::Init,
        dtype: DType,
        device: &Device,
    ) -> candle_core::Result<Tensor> {
        let tensor = self.get_unchecked(name, dtype, device)?;
        if tensor.shape() != &shape {
            bail!("weight {name}: expected shape {shape:?}, got {:?}", tensor.shape());
        }
        Ok(tensor)
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
