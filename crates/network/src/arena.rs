//! A network's weights, their gradients or an optimizer's state, each as one row of values, so that an
//! operation on all of them is one call.
//!
//! Weights that decay come first, then those that do not; in each part the classifier's are last. So a step of the
//! optimizer moves a few long runs. Files hold tensors by name and know nothing of this order.
//!
//! On a GPU the arenas are made there and stay for the whole run; they go to the CPU for a checkpoint only. Operands in bfloat16
//! are other tensors (`Parameter::operand`), a copy for each sub-network; gradients are added in f32 where they lie.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use space::{Layer, LayerSpec, Operator, WeightRole, WeightSpec};

use crate::error::{Error, Result};

/// Each tensor begins at a multiple of this number of values: 64 bytes, so that any load of a vector may be aligned.
const ALIGNED: usize = 16;

/// A weight of a network, and whether it belongs to the classifier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArenaPart {
    /// Name, shape and role.
    pub spec: WeightSpec,
    /// Whether it depends on the classes: a new task replaces it.
    pub of_classes: bool,
}

impl ArenaPart {
    /// The weights of a static network.
    pub fn of_layers(layers: &[LayerSpec]) -> Vec<Self> {
        layers
            .iter()
            .flat_map(|layer: &LayerSpec| {
                let of_classes = layer.operator == Operator::Classifier;
                layer.weights().into_iter().map(move |spec| Self { spec, of_classes }).collect::<Vec<_>>()
            })
            .collect()
    }

    /// A weight of a layer that can stand in a slot, named after the slot.
    pub(crate) fn of_slot(slot: &str, layer: &Layer, spec: WeightSpec) -> Self {
        let name = format!("{slot}.{}", spec.name);
        Self { spec: WeightSpec { name, ..spec }, of_classes: layer.operator == Operator::Classifier }
    }
}

/// Where each tensor of an [`Arena`] lies.
#[derive(Debug, PartialEq, Eq)]
pub struct Layout {
    places: BTreeMap<String, Place>,
    length: usize,
}

#[derive(Debug, PartialEq, Eq)]
struct Place {
    begin: usize,
    shape: Vec<usize>,
    role: WeightRole,
    of_classes: bool,
}

impl Place {
    fn values(&self) -> Range<usize> {
        self.begin..self.begin + self.shape.iter().product::<usize>()
    }

    /// The values and the gap after them.
    fn with_gap(&self) -> Range<usize> {
        self.begin..self.values().end.next_multiple_of(ALIGNED)
    }
}

impl Layout {
    /// The layout of some weights, whatever their order.
    pub fn of(mut parts: Vec<ArenaPart>) -> Self {
        parts.sort_by(|a, b| {
            let key = |part: &ArenaPart| (!part.spec.role.decays(), part.of_classes);
            key(a).cmp(&key(b)).then_with(|| a.spec.name.cmp(&b.spec.name))
        });
        let mut places = BTreeMap::new();
        let mut length = 0;
        for ArenaPart { spec, of_classes } in parts {
            let place = Place { begin: length, shape: spec.shape, role: spec.role, of_classes };
            length = place.with_gap().end;
            places.insert(spec.name, place);
        }
        Self { places, length }
    }

    /// Names of the tensors, in their order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.places.keys().map(String::as_str)
    }

    /// Whether a tensor decays: no bias, no norm's scale or shift does.
    pub fn decays(&self, name: &str) -> bool {
        self.places.get(name).is_some_and(|place| place.role.decays())
    }

    /// Whether a tensor depends on the classes.
    pub fn is_of_classes(&self, name: &str) -> bool {
        self.places.get(name).is_some_and(|place| place.of_classes)
    }

    /// The values of some tensors as few runs, rising; gaps between tensors of a run are in it.
    pub fn runs<'a>(&self, names: impl IntoIterator<Item = &'a str>) -> Vec<Range<usize>> {
        let found = names.into_iter().filter_map(|name| self.places.get(name));
        let mut places: Vec<Range<usize>> = found.map(Place::with_gap).collect();
        places.sort_by_key(|place| place.start);
        let mut runs: Vec<Range<usize>> = Vec::new();
        for place in places {
            match runs.last_mut() {
                Some(last) if last.end == place.start => last.end = place.end,
                _ => runs.push(place),
            }
        }
        runs
    }
}

/// Tensors by name in one allocation. Cloning shares it.
#[derive(Clone, Debug)]
pub struct Arena {
    layout: Arc<Layout>,
    values: Tensor, // [length]
    tensors: BTreeMap<String, Tensor>,
}

impl Arena {
    fn over(layout: Arc<Layout>, values: Tensor) -> Result<Self> {
        let mut tensors = BTreeMap::new();
        for (name, place) in &layout.places {
            let values = values.narrow(0, place.begin, place.values().len())?;
            tensors.insert(name.clone(), values.reshape(place.shape.as_slice())?);
        }
        Ok(Self { layout, values, tensors })
    }

    /// Tensors on the CPU; they must be those of the layout, each in its shape and f32. Each is let go as it is copied.
    ///
    /// # Errors
    /// Names the first that is not; `place` says whose it is.
    pub fn of(layout: Arc<Layout>, mut tensors: BTreeMap<String, Tensor>, place: &str) -> Result<Self> {
        let mut values = vec![0.0; layout.length];
        for (name, at) in &layout.places {
            let wanted = || format!("a tensor {:?}", at.shape);
            let tensor = tensors.remove(name).ok_or_else(|| Error::invalid(place, name, wanted(), "none"))?;
            if tensor.dims() != at.shape.as_slice() {
                return Err(Error::invalid(place, name, wanted(), format!("{:?}", tensor.dims())));
            }
            let tensor = tensor.to_device(&Device::Cpu)?.flatten_all()?;
            values[at.values()].copy_from_slice(&tensor.to_vec1::<f32>()?);
        }
        match tensors.keys().next() {
            Some(name) => Err(Error::invalid(place, name, "no such tensor", "one")),
            None => {
                let values = Tensor::from_vec(values, layout.length, &Device::Cpu)?;
                Self::over(layout, values)
            }
        }
    }

    /// Zeros of the same layout, in the same memory.
    ///
    /// # Errors
    /// If there is no room for them.
    pub fn zeros_like(&self) -> Result<Self> {
        let values = Tensor::zeros(self.layout.length, DType::F32, self.values.device())?;
        Self::over(self.layout.clone(), values)
    }

    /// The tensors on a device; the same memory if they lie there.
    ///
    /// # Errors
    /// If there is no room for them.
    pub fn on(&self, device: &Device) -> Result<Self> {
        if self.values.device().same_device(device) {
            return Ok(self.clone());
        }
        Self::over(self.layout.clone(), self.values.to_device(device)?)
    }

    /// A copy that shares no memory.
    ///
    /// # Errors
    /// If there is no room for it.
    pub fn detached(&self) -> Result<Self> {
        Self::over(self.layout.clone(), self.values.copy()?)
    }

    /// Where each tensor lies.
    pub fn layout(&self) -> &Arc<Layout> {
        &self.layout
    }

    /// All values, gaps between tensors included, which are zeros: `[length]`.
    pub fn values(&self) -> &Tensor {
        &self.values
    }

    /// The tensors, in the order of their names.
    pub fn tensors(&self) -> &BTreeMap<String, Tensor> {
        &self.tensors
    }

    /// A tensor by name.
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.tensors.get(name)
    }

    /// A run of values, as [`Layout::runs`] gives them.
    ///
    /// # Errors
    /// If it lies outside.
    pub fn run(&self, run: &Range<usize>) -> Result<Tensor> {
        Ok(self.values.narrow(0, run.start, run.len())?)
    }

    /// Name of the first tensor that holds a number that is not finite.
    ///
    /// # Errors
    /// If the values cannot be read: a GPU has failed, which says nothing of the numbers.
    pub fn unsound(&self) -> Result<Option<&str>> {
        if infinite(&self.values)?.is_none() {
            return Ok(None);
        }
        for (name, tensor) in &self.tensors {
            if infinite(tensor)?.is_some() {
                return Ok(Some(name));
            }
        }
        Ok(None)
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

#[cfg(test)]
mod tests {
    use super::*;
    use space::Norm;

    fn part(name: &str, shape: &[usize], role: WeightRole, of_classes: bool) -> ArenaPart {
        let takes = vec![space::Take::Leading; shape.len()];
        let spec = WeightSpec { name: name.to_string(), shape: shape.to_vec(), role, takes };
        ArenaPart { spec, of_classes }
    }

    fn parts() -> Vec<ArenaPart> {
        vec![
            part("b.bias", &[3], WeightRole::Bias, true),
            part("b.weight", &[3, 5], WeightRole::Matrix, true),
            part("a.bn.weight", &[5], WeightRole::NormScale(Norm::Batch), false),
            part("a.conv.weight", &[5, 1, 3, 3], WeightRole::Filters, false),
        ]
    }

    fn tensors(from: f32) -> BTreeMap<String, Tensor> {
        let mut tensors = BTreeMap::new();
        for ArenaPart { spec, .. } in parts() {
            let count = spec.shape.iter().product::<usize>();
            let values: Vec<f32> = (0..count).map(|index| from + index as f32).collect();
            let tensor = Tensor::from_vec(values, spec.shape, &Device::Cpu).expect("a tensor");
            tensors.insert(spec.name, tensor);
        }
        tensors
    }

    fn values(tensor: &Tensor) -> Vec<f32> {
        tensor.flatten_all().and_then(|flat| flat.to_vec1()).expect("f32 on the CPU")
    }

    #[test]
    fn tensors_lie_in_one_row_those_that_decay_first() {
        let layout = Arc::new(Layout::of(parts()));
        let arena = Arena::of(layout.clone(), tensors(1.0), "x").expect("its tensors");
        for (name, tensor) in tensors(1.0) {
            assert_eq!(values(&arena.tensors()[&name]), values(&tensor), "{name}");
        }
        // 45 and 15 values that decay, then 5 and 3 that do not, each from a multiple of 16 on
        assert_eq!(layout.runs(["b.weight", "a.conv.weight"]), vec![0..64]);
        assert_eq!(layout.runs(["b.bias", "a.bn.weight"]), vec![64..96]);
        assert_eq!(layout.runs(["a.conv.weight", "b.bias"]), vec![0..48, 80..96]);
        assert_eq!(layout.runs(layout.names()), vec![0..96]);
        let sum = values(arena.values()).iter().sum::<f32>();
        let gaps = arena.run(&(93..96)).expect("inside");
        let expected: f32 = tensors(1.0).values().flat_map(values).sum();
        assert_eq!((sum, values(&gaps)), (expected, vec![0.0; 3]));
        assert!(layout.decays("a.conv.weight") && !layout.decays("a.bn.weight"));
        assert!(layout.is_of_classes("b.bias") && !layout.is_of_classes("a.conv.weight"));
    }

    #[test]
    fn writing_to_a_view_writes_to_the_row() {
        let arena = Arena::of(Arc::new(Layout::of(parts())), tensors(0.0), "x").expect("its tensors");
        let copy = arena.detached().expect("a copy");
        let zeros = arena.zeros_like().expect("zeros");
        kernels::Backend::detect().fill_zero(&arena.tensors()["b.weight"]).expect("contiguous");
        assert_eq!(values(&arena.run(&(48..64)).expect("inside")), vec![0.0; 16]);
        assert_eq!(values(&copy.tensors()["b.weight"]), values(&tensors(0.0)["b.weight"]));
        assert_eq!(values(zeros.values()), vec![0.0; 96]);
    }

    #[test]
    fn what_is_missing_or_not_finite_is_named() {
        let layout = Arc::new(Layout::of(parts()));
        let refused = |tensors| Arena::of(layout.clone(), tensors, "x").expect_err("refused").to_string();
        let mut others = tensors(0.0);
        let taken = others.remove("b.bias").expect("there");
        assert!(refused(others.clone()).contains("x: b.bias: expected a tensor [3], got none"));
        others.insert("b.bias".to_string(), taken.narrow(0, 0, 2).expect("a part"));
        assert!(refused(others.clone()).contains("x: b.bias: expected a tensor [3], got [2]"));
        others.insert("b.bias".to_string(), taken.clone());
        others.insert("c".to_string(), taken);
        assert!(refused(others).contains("x: c: expected no such tensor, got one"));
        let mut bad = tensors(0.0);
        bad.insert("a.bn.weight".to_string(), Tensor::full(f32::NAN, 5, &Device::Cpu).expect("a tensor"));
        let arena = |tensors| Arena::of(layout.clone(), tensors, "x").expect("its tensors");
        assert_eq!(arena(bad).unsound().expect("readable"), Some("a.bn.weight"));
        assert_eq!(arena(tensors(0.0)).unsound().expect("readable"), None);
    }
}
