//! The supernet's weights at full size, and gradients of the same names and shapes.
//!
//! Sorting channels makes new shared weights instead of changing these: views of the old ones keep their values.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use candle_core::{Device, Tensor};
use kernels::Backend;
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use rand_distr::StandardNormal;
use space::{SearchSpace, WeightRole, WeightSpec};

use super::kernel_transform::{kernel_sizes, matrix_specs};
use crate::arena::{Arena, ArenaPart, Layout, infinite};
use crate::error::{Error, Result};

/// All trainable tensors of a supernet by name: for each slot the union over all networks that have a layer there,
/// and the matrices that turn a larger depthwise kernel into a smaller one.
///
/// Cloning shares memory; [`SharedWeights::detached`] copies.
#[derive(Clone)]
pub struct SharedWeights {
    arena: Arena,
    /// Kernel sizes of each depthwise weight that has several, in falling order.
    kernel_sizes: Arc<BTreeMap<String, Vec<usize>>>,
}

/// The shared tensors of a space, in the order in which fresh values are drawn.
pub fn shared_parts(space: &SearchSpace) -> Vec<ArenaPart> {
    let index = space.weights();
    let mut parts = Vec::new();
    for slot in index.slots() {
        let name = slot.name.to_string();
        let mut union: Vec<ArenaPart> = Vec::new();
        for layer in index.layers_of(&name) {
            for spec in layer.weights() {
                enter(&mut union, ArenaPart::of_slot(&name, layer, spec));
            }
        }
        parts.append(&mut union);
    }
    parts.extend(matrix_specs(space).into_iter().map(|spec| ArenaPart { spec, of_classes: false }));
    parts
}

/// Enters a weight of a slot; one of the same name grows to the larger size in each dimension.
fn enter(union: &mut Vec<ArenaPart>, part: ArenaPart) {
    match union.iter_mut().find(|entered| entered.spec.name == part.spec.name) {
        Some(entered) => {
            let sizes = entered.spec.shape.iter_mut().zip(&part.spec.shape);
            sizes.for_each(|(size, other)| *size = (*size).max(*other));
        }
        None => union.push(part),
    }
}

/// Names, shapes and roles of a space's shared tensors.
pub fn shared_specs(space: &SearchSpace) -> Vec<WeightSpec> {
    shared_parts(space).into_iter().map(|part| part.spec).collect()
}

impl SharedWeights {
    /// Fresh weights: He's normal initialization over the fan-out for convolutions (`he_fout` in OFA), uniform
    /// in +-1/sqrt(fan-in) for the linear layer, ones and zeros for batch norms, identities for the matrices.
    ///
    /// # Errors
    /// If a tensor cannot be made.
    pub fn new(space: &SearchSpace, rng: &mut ChaCha8Rng) -> Result<Self> {
        let parts = shared_parts(space);
        let mut tensors = BTreeMap::new();
        for ArenaPart { spec, .. } in &parts {
            let tensor = Tensor::from_vec(initial(spec, rng), spec.shape.as_slice(), &Device::Cpu)?;
            tensors.insert(spec.name.clone(), tensor);
        }
        Self::over(space, parts, tensors, "fresh weights")
    }

    fn over(
        space: &SearchSpace,
        parts: Vec<ArenaPart>,
        tensors: BTreeMap<String, Tensor>,
        place: &str,
    ) -> Result<Self> {
        let arena = Arena::of(Arc::new(Layout::of(parts)), tensors, place)?;
        Ok(Self { arena, kernel_sizes: Arc::new(kernel_sizes(space).into_iter().collect()) })
    }

    /// Checks tensors from a file: every name of the space and no other, the space's shapes, finite values.
    ///
    /// # Errors
    /// Names the tensor; `place` says whose it is.
    pub fn from_tensors(space: &SearchSpace, tensors: BTreeMap<String, Tensor>, place: &str) -> Result<Self> {
        let parts = shared_parts(space);
        for ArenaPart { spec: WeightSpec { name, shape, .. }, .. } in &parts {
            let wanted = || format!("a tensor {shape:?} for space {}", space.name());
            let tensor = tensors.get(name).ok_or_else(|| Error::invalid(place, name, wanted(), "none"))?;
            if tensor.dims() != shape.as_slice() {
                return Err(Error::invalid(place, name, wanted(), format!("{:?}", tensor.dims())));
            }
            check_finite(tensor, place, name)?;
        }
        if tensors.len() > parts.len() {
            let known: BTreeSet<&String> = parts.iter().map(|part| &part.spec.name).collect();
            let other = tensors.keys().find(|name| !known.contains(name)).map_or("", String::as_str);
            return Err(Error::invalid(
                place,
                other,
                format!("no such tensor in space {}", space.name()),
                "one",
            ));
        }
        Self::over(space, parts, tensors, place)
    }

    /// The same weights with a fresh classifier for the classes of `space`, which must otherwise equal the weights'
    /// space.
    ///
    /// # Errors
    /// If a tensor cannot be made, or the spaces differ in something else.
    pub fn with_fresh_classifier(&self, space: &SearchSpace, rng: &mut ChaCha8Rng) -> Result<Self> {
        let mut tensors = self.tensors().clone();
        tensors.extend(fresh_classifier(shared_parts(space), rng)?);
        Self::from_tensors(space, tensors, "weights to start from")
    }

    /// The tensor of this name.
    ///
    /// # Errors
    /// If there is none.
    pub fn get(&self, name: &str) -> Result<&Tensor> {
        let found = self.arena.get(name);
        found.ok_or_else(|| Error::invalid("supernet", name, "a tensor of this name", "none"))
    }

    /// All tensors in the order of their names.
    pub fn tensors(&self) -> &BTreeMap<String, Tensor> {
        self.arena.tensors()
    }

    /// All weights in one row of values.
    pub fn arena(&self) -> &Arena {
        &self.arena
    }

    /// The weights on the device of this backend; the same memory if they lie there.
    ///
    /// # Errors
    /// If there is no room for them.
    pub fn on(&self, backend: &Backend) -> Result<Self> {
        self.with(self.arena.on(&backend.device())?)
    }

    /// A copy that shares no memory.
    ///
    /// # Errors
    /// If a tensor cannot be copied.
    pub fn detached(&self) -> Result<Self> {
        self.with(self.arena.detached()?)
    }

    /// The same weights with other values for some of them.
    pub(super) fn replaced(&self, others: BTreeMap<String, Tensor>) -> Result<Self> {
        let mut tensors = self.tensors().clone();
        tensors.extend(others);
        let arena = Arena::of(self.arena.layout().clone(), tensors, "supernet")?;
        self.with(arena.on(self.arena.values().device())?)
    }

    fn with(&self, arena: Arena) -> Result<Self> {
        Ok(Self { arena, kernel_sizes: self.kernel_sizes.clone() })
    }

    /// The kernel sizes of a depthwise weight, in falling order, if it has several.
    pub(super) fn kernel_sizes(&self, name: &str) -> Option<&[usize]> {
        self.kernel_sizes.get(name).map(Vec::as_slice)
    }
}

/// Fresh values of those weights of a network that depend on its classes, by name.
///
/// # Errors
/// If a tensor cannot be made.
pub fn fresh_classifier(parts: Vec<ArenaPart>, rng: &mut ChaCha8Rng) -> Result<Vec<(String, Tensor)>> {
    parts
        .into_iter()
        .filter(|part| part.of_classes)
        .map(|ArenaPart { spec, .. }: ArenaPart| {
            let tensor = Tensor::from_vec(initial(&spec, rng), spec.shape.as_slice(), &Device::Cpu)?;
            Ok((spec.name, tensor))
        })
        .collect()
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

fn initial(spec: &WeightSpec, rng: &mut ChaCha8Rng) -> Vec<f32> {
    let length = spec.shape.iter().product();
    let shape = &spec.shape;
    match spec.role {
        WeightRole::NormScale(_) => vec![1.0; length],
        WeightRole::NormShift(_) | WeightRole::Bias => vec![0.0; length],
        WeightRole::KernelTransform => {
            let side = shape[0];
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

/// Gradients of the shared weights, and the names of those that were added to.
pub struct Gradients {
    arena: Arena,
    touched: RefCell<BTreeSet<String>>,
}

impl Gradients {
    /// Zero gradients.
    ///
    /// # Errors
    /// If there is no room for them.
    pub fn new(weights: &SharedWeights) -> Result<Self> {
        Ok(Self { arena: weights.arena.zeros_like()?, touched: RefCell::default() })
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
        let found = self.arena.get(name);
        found.ok_or_else(|| Error::invalid("gradients", name, "a tensor of this name", "none"))
    }

    /// All gradients in one row of values.
    pub fn arena(&self) -> &Arena {
        &self.arena
    }

    /// Names of the tensors that were added to since they were last set back to zero, in order.
    pub fn touched(&self) -> Vec<String> {
        self.touched.borrow().iter().cloned().collect()
    }

    /// [`Gradients::touched`], forgotten here: the caller sets them back to zero.
    pub fn take_touched(&self) -> BTreeSet<String> {
        std::mem::take(&mut self.touched.borrow_mut())
    }

    /// Sets the touched gradients back to zero.
    ///
    /// # Errors
    /// If a tensor cannot be written.
    pub fn clear(&self, backend: &Backend) -> Result<()> {
        let touched = self.take_touched();
        for run in self.arena.layout().runs(touched.iter().map(String::as_str)) {
            backend.fill_zero(&self.arena.run(&run)?)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::random::rng_for;
    use space::{preset, sampler};

    #[test]
    fn ofa_supernet_has_its_parameters() {
        let space = preset("ofa-mbv3-w1.0").expect("a preset");
        let lengths = shared_specs(&space).into_iter().map(|spec| spec.shape.iter().product::<usize>());
        assert_eq!(lengths.sum::<usize>(), 7_678_880);
    }

    /// A layer's weights under the names that they have in the supernet.
    fn of_supernet(layer: &space::LayerSpec) -> Vec<WeightSpec> {
        let mut weights = layer.weights();
        for weight in &mut weights {
            weight.name = format!("{}{}", layer.shared_name(), &weight.name[layer.name.len()..]);
        }
        weights
    }

    /// The largest network has each of its weights in its greatest size; where blocks choose their operator there are others.
    #[test]
    fn the_union_is_that_of_the_largest_network_and_no_network_needs_more() {
        for name in space::preset_names() {
            let space = preset(name).expect("a preset");
            let layers = space.lower(&sampler::largest(&space)).expect("legal");
            let largest: Vec<WeightSpec> = layers.iter().flat_map(of_supernet).collect();
            let union = shared_specs(&space);
            let rest: Vec<&WeightSpec> = union.iter().filter(|spec| !largest.contains(spec)).collect();
            assert_eq!(rest.len() + largest.len(), union.len(), "{name}");
            let matrices = rest.iter().all(|spec| spec.role == WeightRole::KernelTransform);
            assert!(matrices || space.genome().is_elastic("operator"), "{name}");
            let mut rng = rng_for("union", 1, &[]);
            for _ in 0..20 {
                let layers = space.lower(&sampler::random(&space, &mut rng)).expect("legal");
                for weight in layers.iter().flat_map(of_supernet) {
                    let of_union = union.iter().find(|spec| spec.name == weight.name).expect("in the union");
                    assert!(weight.shape.iter().zip(&of_union.shape).all(|(size, most)| size <= most));
                }
            }
        }
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
    fn fresh_values_follow_the_role() {
        let mut rng = rng_for("weights", 1, &[]);
        let mut fresh = |shape: &[usize], role| initial(&WeightSpec::new("x", shape, role), &mut rng);
        let norm = space::Norm::Batch;
        assert_eq!(fresh(&[2], WeightRole::NormScale(norm)), [1.0; 2]);
        assert_eq!(fresh(&[2], WeightRole::NormShift(norm)), [0.0; 2]);
        assert_eq!(fresh(&[2], WeightRole::Bias), [0.0; 2]);
        assert_eq!(fresh(&[2, 2], WeightRole::KernelTransform), [1.0, 0.0, 0.0, 1.0]);
        let matrix = fresh(&[50, 16], WeightRole::Matrix);
        let bound = matrix.iter().fold(0.0f32, |bound, value| bound.max(value.abs()));
        assert!(bound < 0.25 && bound > 0.24, "{bound}");
        // the fan-out is 8 filters of 9 values, so the variance is 2 / 72
        let filters = fresh(&[8, 100, 3, 3], WeightRole::Filters);
        let variance = filters.iter().map(|value| value * value).sum::<f32>() / filters.len() as f32;
        assert!((variance * 36.0 - 1.0).abs() < 0.05, "{variance}");
    }

    #[test]
    fn a_fresh_classifier_replaces_that_alone() {
        let space = preset("tiny").expect("a preset");
        let before = SharedWeights::new(&space, &mut rng_for("weights", 1, &[])).expect("weights");
        let after =
            before.with_fresh_classifier(&space, &mut rng_for("classifier", 1, &[])).expect("as large");
        let flat = |tensor: &Tensor| -> Vec<f32> {
            tensor.flatten_all().and_then(|flat| flat.to_vec1()).expect("f32 on the CPU")
        };
        for (name, tensor) in before.tensors() {
            let same = flat(tensor) == flat(&after.tensors()[name]);
            assert_eq!(same, name != "classifier.linear.weight", "{name}");
        }
    }

    #[test]
    fn gradients_know_what_was_touched_and_go_back_to_zero() {
        let space = preset("tiny").expect("a preset");
        let weights = SharedWeights::new(&space, &mut rng_for("weights", 1, &[])).expect("weights");
        let gradients = Gradients::new(&weights).expect("zeros");
        let backend = Backend::detect();
        let name = "classifier.linear.bias";
        let sum = || {
            let tensor = gradients.get(name).expect("there");
            tensor.sum_all().and_then(|sum| sum.to_scalar::<f32>()).expect("f32")
        };
        let ones = Tensor::ones(10, candle_core::DType::F32, &Device::Cpu).expect("a tensor");
        backend.add_assign(gradients.touch(name).expect("there"), &ones).expect("same shapes");
        assert_eq!((gradients.touched(), sum()), (vec![name.to_string()], 10.0));
        gradients.clear(&backend).expect("writable");
        assert_eq!((gradients.touched(), sum()), (Vec::new(), 0.0));
        let error = gradients.get("x").expect_err("none").to_string();
        assert!(error.contains("gradients: x: expected a tensor of this name, got none"), "{error}");
        let error = weights.get("x").expect_err("none").to_string();
        assert!(error.contains("supernet: x: expected a tensor of this name, got none"), "{error}");
    }

    #[test]
    fn a_detached_copy_keeps_its_values() {
        let space = preset("tiny").expect("a preset");
        let weights = SharedWeights::new(&space, &mut rng_for("weights", 1, &[])).expect("weights");
        let name = "first_conv.bn.weight";
        let detached = weights.detached().expect("room");
        let first = |weights: &SharedWeights| {
            let tensor = weights.get(name).expect("there");
            tensor.get(0).and_then(|value| value.to_scalar::<f32>()).expect("f32")
        };
        let clone = weights.clone();
        Backend::detect().fill_zero(weights.get(name).expect("there")).expect("contiguous");
        assert_eq!((first(&clone), first(&detached)), (0.0, 1.0));
    }

    #[test]
    fn tensors_of_another_space_are_refused() {
        let tiny = preset("tiny").expect("a preset");
        let fashion = preset("fashion").expect("a preset");
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
