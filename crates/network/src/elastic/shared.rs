//! The supernet's weights at full size, and tensors of the same names and shapes beside them.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use candle_core::{Device, Tensor};
use kernels::Kernels;
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use rand_distr::StandardNormal;
use space::{SearchSpace, WeightRole, WeightSpec, sampler};

use super::kernel_transform::matrix_specs;
use crate::error::{Error, Result};

/// All trainable tensors of a supernet by name: those of its largest network, and the matrices that turn a
/// larger depthwise kernel into a smaller one.
///
/// Cloning shares memory; [`SharedWeights::detached`] copies.
#[derive(Clone)]
pub struct SharedWeights {
    tensors: BTreeMap<String, Tensor>,
}

/// Names, shapes and roles of a space's shared tensors.
pub fn shared_specs(space: &SearchSpace) -> Result<Vec<WeightSpec>> {
    let layers = space.lower(&sampler::largest(space))?;
    let mut specs: Vec<_> = layers.iter().flat_map(space::LayerSpec::weights).collect();
    specs.extend(matrix_specs(space, &layers));
    Ok(specs)
}

impl SharedWeights {
    /// Fresh weights: He's normal initialisation over the fan-out for convolutions (`he_fout` in OFA), uniform
    /// in +-1/sqrt(fan-in) for the linear layer, ones and zeros for batch norms, identities for the matrices.
    ///
    /// # Errors
    /// If a tensor cannot be made.
    pub fn new(space: &SearchSpace, rng: &mut ChaCha8Rng) -> Result<Self> {
        let mut tensors = BTreeMap::new();
        for spec in shared_specs(space)? {
            let tensor = Tensor::from_vec(initial(&spec, rng), spec.shape.as_slice(), &Device::Cpu)?;
            tensors.insert(spec.name, tensor);
        }
        Ok(Self { tensors })
    }

    /// Checks tensors from a file: every name there and no other, shapes as the space says, values finite.
    ///
    /// # Errors
    /// Names the tensor; `place` says whose it is.
    pub fn from_tensors(
        space: &SearchSpace,
        mut tensors: BTreeMap<String, Tensor>,
        place: &str,
    ) -> Result<Self> {
        let mut checked = BTreeMap::new();
        for WeightSpec { name, shape, .. } in shared_specs(space)? {
            let wanted = || format!("a tensor {shape:?} for space {}", space.name());
            let tensor =
                tensors.remove(&name).ok_or_else(|| Error::invalid(place, &name, wanted(), "none"))?;
            if tensor.dims() != shape.as_slice() {
                return Err(Error::invalid(place, &name, wanted(), format!("{:?}", tensor.dims())));
            }
            check_finite(&tensor, place, &name)?;
            checked.insert(name, tensor);
        }
        if let Some(name) = tensors.keys().next() {
            return Err(Error::invalid(
                place,
                name,
                format!("no such tensor in space {}", space.name()),
                "one",
            ));
        }
        Ok(Self { tensors: checked })
    }

    /// The same weights with a fresh classifier, of as many classes as this space has; all else is that of the weights'
    /// space.
    ///
    /// # Errors
    /// If a tensor cannot be made, or the spaces differ in something else.
    pub fn with_fresh_classifier(&self, space: &SearchSpace, rng: &mut ChaCha8Rng) -> Result<Self> {
        let mut tensors = self.tensors.clone();
        tensors.extend(fresh_classifier(&space.lower(&sampler::largest(space))?, rng)?);
        Self::from_tensors(space, tensors, "weights to start from")
    }

    /// The tensor of this name.
    ///
    /// # Errors
    /// If there is none.
    pub fn get(&self, name: &str) -> Result<&Tensor> {
        self.tensors
            .get(name)
            .ok_or_else(|| Error::invalid("supernet", name, "a tensor of this name", "none"))
    }

    /// All tensors in the order of their names.
    pub fn tensors(&self) -> &BTreeMap<String, Tensor> {
        &self.tensors
    }

    /// The weights where these kernels compute; the same memory if they lie there.
    ///
    /// # Errors
    /// If there is no room for them.
    pub fn on(&self, kernels: &Kernels) -> Result<Self> {
        let device = kernels.device();
        let moved = |(name, tensor): (&String, &Tensor)| Ok((name.clone(), tensor.to_device(&device)?));
        Ok(Self { tensors: self.tensors.iter().map(moved).collect::<Result<_>>()? })
    }

    /// A copy that shares no memory.
    ///
    /// # Errors
    /// If a tensor cannot be copied.
    pub fn detached(&self) -> Result<Self> {
        let copy = |(name, tensor): (&String, &Tensor)| Ok((name.clone(), tensor.copy()?));
        Ok(Self { tensors: self.tensors.iter().map(copy).collect::<Result<_>>()? })
    }

    /// Zeros of the same names and shapes.
    ///
    /// # Errors
    /// If a tensor cannot be made.
    pub fn zeros_like(&self) -> Result<BTreeMap<String, Tensor>> {
        let zeros = |(name, tensor): (&String, &Tensor)| Ok((name.clone(), tensor.zeros_like()?));
        self.tensors.iter().map(zeros).collect()
    }

    /// Puts other values in place of a tensor's.
    pub(super) fn replace(&mut self, name: &str, tensor: Tensor) {
        debug_assert_eq!(self.tensors.get(name).map(Tensor::dims), Some(tensor.dims()));
        self.tensors.insert(name.to_string(), tensor);
    }
}

/// Whether a tensor belongs to the classifier: to what depends on the classes.
pub fn is_classifier(name: &str) -> bool {
    name.starts_with("classifier.")
}

/// Fresh values of a network's classifier by name.
///
/// # Errors
/// If a tensor cannot be made.
pub fn fresh_classifier(layers: &[space::LayerSpec], rng: &mut ChaCha8Rng) -> Result<Vec<(String, Tensor)>> {
    let specs = layers.iter().flat_map(space::LayerSpec::weights);
    let fresh = |spec: WeightSpec| {
        let tensor = Tensor::from_vec(initial(&spec, rng), spec.shape.as_slice(), &Device::Cpu)?;
        Ok((spec.name, tensor))
    };
    specs.filter(|spec| is_classifier(&spec.name)).map(fresh).collect()
}

/// Whether this is one of the matrices that turn a depthwise kernel into a smaller one.
pub(crate) fn is_matrix(spec: &WeightSpec) -> bool {
    spec.role == WeightRole::KernelTransform
}

/// Whether every value of a tensor is a finite number.
///
/// # Errors
/// Names the tensor.
pub(crate) fn check_finite(tensor: &Tensor, place: &str, name: &str) -> Result<()> {
    match infinite(tensor)? {
        Some(value) => Err(Error::invalid(place, name, "finite values", value)),
        None => Ok(()),
    }
}

/// The first value that is not finite, if there is one.
///
/// # Errors
/// If the tensor cannot be read.
pub fn infinite(tensor: &Tensor) -> Result<Option<f32>> {
    let tensor = &tensor.to_device(&Device::Cpu)?;
    // a sum takes no copy; it may overflow, but what is not finite never leaves it finite
    if tensor.sum_all()?.to_scalar::<f32>()?.is_finite() {
        return Ok(None);
    }
    let values = tensor.flatten_all()?.to_vec1::<f32>()?;
    Ok(values.into_iter().find(|value| !value.is_finite()))
}

fn initial(spec: &WeightSpec, rng: &mut ChaCha8Rng) -> Vec<f32> {
    let length = spec.shape.iter().product();
    let shape = &spec.shape;
    match spec.role {
        WeightRole::NormScale(_) => vec![1.0; length],
        WeightRole::NormShift(_) | WeightRole::Bias => vec![0.0; length],
        WeightRole::KernelTransform => {
            let side = shape[1];
            (0..length).map(|index| if index / side == index % side { 1.0 } else { 0.0 }).collect()
        }
        WeightRole::Filters | WeightRole::DepthwiseFilters => {
            let fan_out = shape[0] * shape[2..].iter().product::<usize>();
            let deviation = (2.0 / fan_out as f32).sqrt();
            (0..length).map(|_| deviation * rng.sample::<f32, _>(StandardNormal)).collect()
        }
        WeightRole::Matrix => {
            let bound = 1.0 / (shape[1..].iter().product::<usize>() as f32).sqrt();
            (0..length).map(|_| rng.random_range(-bound..bound)).collect()
        }
    }
}

/// Gradients of the shared weights, with a note of those that something was added to.
pub struct Gradients {
    tensors: BTreeMap<String, Tensor>,
    touched: RefCell<BTreeSet<String>>,
}

impl Gradients {
    /// Zero gradients.
    ///
    /// # Errors
    /// If a tensor cannot be made.
    pub fn new(weights: &SharedWeights) -> Result<Self> {
        Ok(Self { tensors: weights.zeros_like()?, touched: RefCell::default() })
    }

    /// The gradient of a tensor, to add to.
    ///
    /// # Errors
    /// If there is none of that name.
    pub fn touch(&self, name: &str) -> Result<&Tensor> {
        self.touched.borrow_mut().insert(name.to_string());
        self.get(name)
    }

    /// The gradient of a tensor, to read.
    ///
    /// # Errors
    /// If there is none of that name.
    pub fn get(&self, name: &str) -> Result<&Tensor> {
        self.tensors
            .get(name)
            .ok_or_else(|| Error::invalid("gradients", name, "a tensor of this name", "none"))
    }

    /// Names of the tensors that were added to since they were last set back to zero, in order.
    pub fn touched(&self) -> Vec<String> {
        self.touched.borrow().iter().cloned().collect()
    }

    /// [`Gradients::touched`], forgotten here: the caller sets them back to zero.
    pub fn take_touched(&self) -> BTreeSet<String> {
        std::mem::take(&mut self.touched.borrow_mut())
    }

    /// Sets what was touched back to zero.
    ///
    /// # Errors
    /// If a tensor cannot be written.
    pub fn clear(&self, kernels: &Kernels) -> Result<()> {
        for name in self.take_touched() {
            kernels.fill_zero(self.get(&name)?)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::random::rng_for;
    use space::preset;

    #[test]
    fn ofa_supernet_has_its_parameters() {
        let space = preset("ofa-mbv3-w1.0").expect("a preset");
        let count = |specs: &[WeightSpec]| {
            specs.iter().map(|spec| spec.shape.iter().product::<usize>()).sum::<usize>()
        };
        assert_eq!(count(&shared_specs(&space).expect("a checked space")), 7_678_880);
    }

    #[test]
    fn weights_depend_on_the_seed_alone() {
        let space = preset("tiny").expect("a preset");
        let draw = |seed| {
            let weights = SharedWeights::new(&space, &mut rng_for("weights", seed, &[])).expect("weights");
            weights
                .get("blocks.1.conv.depth_conv.conv.weight")
                .expect("there")
                .flatten_all()
                .expect("flat")
                .to_vec1::<f32>()
                .expect("f32")
        };
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
        let deviation = (draw(1).iter().map(|w| w * w).sum::<f32>() / draw(1).len() as f32).sqrt();
        let expected = (2.0f32 / (96 * 49) as f32).sqrt();
        assert!((deviation / expected - 1.0).abs() < 0.05, "{deviation} {expected}");
    }

    #[test]
    fn tensors_of_another_space_are_refused() {
        let (tiny, fashion) = (preset("tiny").expect("a preset"), preset("fashion").expect("a preset"));
        let weights = SharedWeights::new(&tiny, &mut rng_for("weights", 1, &[])).expect("weights");
        let error = SharedWeights::from_tensors(&fashion, weights.tensors().clone(), "x.safetensors");
        let error = error.err().expect("refused").to_string();
        assert!(error.starts_with("x.safetensors: "), "{error}");
        let mut tensors = weights.tensors().clone();
        let nan = Tensor::full(f32::NAN, 10, &Device::Cpu).expect("a tensor");
        tensors.insert("classifier.linear.bias".to_string(), nan);
        let error = SharedWeights::from_tensors(&tiny, tensors, "x").err().expect("refused").to_string();
        assert!(error.contains("classifier.linear.bias: expected finite values, got NaN"), "{error}");
    }
}
