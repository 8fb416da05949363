//! The weights of one sub-network as views of the shared ones, and where their gradients go.

use std::collections::BTreeMap;

use candle_core::{DType, Tensor};
use candle_nn::VarBuilder;
use kernels::Backend;
use space::{Arch, LayerSpec, MIXES, SearchSpace, WeightSpec};

use super::kernel_transform::KernelTransform;
use super::shared::{Gradients, SharedWeights};
use super::statistics::statistics_to_tensors;
use super::takes::{is_gathered, view};
use crate::error::Result;
use crate::nn::{MapSource, Source, Statistics, operands};

/// A sub-network's weights under the names of a static network: parts of the shared tensors, and weights made from them.
pub struct SubnetWeights<'a> {
    shared: &'a SharedWeights,
    layers: &'a [LayerSpec],
    /// The weights that are no views, by their names in the static network.
    made: BTreeMap<String, Made>,
    values: BTreeMap<String, Tensor>,
    /// Names of the weights of a mixture's sums, which are not shared.
    mixes: Vec<String>,
    backend: Backend,
    epsilon: f32,
}

/// A weight that is not a view, and the way it is made from a shared one.
enum Made {
    /// A smaller depthwise kernel.
    Transformed(KernelTransform),
    /// Blocks that lie apart, from the shared weight of this name.
    Gathered(String, WeightSpec),
}

impl Made {
    fn of(shared: &SharedWeights, name: &str, weight: &WeightSpec) -> Option<Self> {
        if is_gathered(weight) {
            return Some(Self::Gathered(name.to_string(), weight.clone()));
        }
        KernelTransform::of(shared, name, weight).map(Self::Transformed)
    }

    /// The weight, in memory of its own.
    fn forward(&self, shared: &SharedWeights, backend: &Backend) -> Result<Tensor> {
        match self {
            Self::Transformed(transform) => transform.forward(shared, backend),
            Self::Gathered(name, weight) => {
                Ok(backend.numbers(&view(shared.get(name)?, weight)?)?.reshape(weight.shape.as_slice())?)
            }
        }
    }

    /// Adds the weight's gradient to the gradients of the tensors that it was made from.
    fn backward(
        &self,
        gradient: &Tensor,
        shared: &SharedWeights,
        gradients: &Gradients,
        backend: &Backend,
    ) -> Result<()> {
        match self {
            Self::Transformed(transform) => transform.backward(gradient, shared, gradients, backend),
            Self::Gathered(name, weight) => {
                let part = view(gradients.touch(name)?, weight)?;
                Ok(backend.add_to_view(&part, &gradient.reshape(part.dims())?)?)
            }
        }
    }
}

/// A weight's name in the supernet.
fn shared_name(layer: &LayerSpec, name: &str) -> String {
    format!("{}{}", layer.shared_name(), &name[layer.name.len()..])
}

impl SharedWeights {
    /// A copy of one sub-network's weights, as those of the space that holds it alone ([`SearchSpace::only`]).
    ///
    /// # Errors
    /// If the sub-network does not lie in the space, or these weights are another space's.
    pub fn only(&self, space: &SearchSpace, arch: &Arch, backend: &Backend) -> Result<Self> {
        let layers = space.lower(arch)?;
        let subnet = SubnetWeights::new(space, self, &layers, backend)?;
        let mut tensors = BTreeMap::new();
        for layer in &layers {
            for weight in layer.weights() {
                let value = subnet.values[&weight.name].force_contiguous()?;
                tensors.insert(shared_name(layer, &weight.name), value);
            }
        }
        Self::from_tensors(&space.only(arch)?, tensors, &format!("arch {arch}"))
    }
}

impl<'a> SubnetWeights<'a> {
    /// The weights of the sub-network that `layers` is the lowering of.
    ///
    /// # Errors
    /// If the shared weights are another space's.
    pub fn new(
        space: &SearchSpace,
        shared: &'a SharedWeights,
        layers: &'a [LayerSpec],
        backend: &Backend,
    ) -> Result<Self> {
        let mut made = BTreeMap::new();
        let mut values = BTreeMap::new();
        for layer in layers {
            for weight in layer.weights() {
                let name = shared_name(layer, &weight.name);
                let value = match Made::of(shared, &name, &weight) {
                    Some(how) => {
                        let value = how.forward(shared, backend)?;
                        made.insert(weight.name.clone(), how);
                        value
                    }
                    None => view(shared.get(&name)?, &weight)?,
                };
                values.insert(weight.name, value);
            }
        }
        let epsilon = space.batch_norm_epsilon();
        Ok(Self { shared, layers, made, values, mixes: Vec::new(), backend: backend.clone(), epsilon })
    }

    /// The weights of a mixture: those of its weighted sums are these, in their order, and 0 for a map of ones.
    ///
    /// # Errors
    /// If a tensor cannot be made.
    pub fn mixing(mut self, weights: &[Vec<f32>]) -> Result<Self> {
        for (at, own) in weights.iter().enumerate() {
            let name = format!("{MIXES}.{at}.weight");
            let values = [own.as_slice(), &[0.0]].concat();
            let tensor = Tensor::from_vec(values, own.len() + 1, &self.backend.device())?;
            self.values.insert(name.clone(), tensor);
            self.mixes.push(name);
        }
        Ok(self)
    }

    /// A source of compact copies of the weights and of the running statistics of every batch norm, for another
    /// backend.
    ///
    /// # Errors
    /// If statistics are not `[2, C]`, or there is no room for the copies.
    pub fn calibrated_for(&self, statistics: &Statistics, backend: &Backend) -> Result<Source<'static>> {
        let mut tensors = statistics_to_tensors(statistics)?;
        for (name, weight) in &self.values {
            tensors.insert(name.clone(), weight.contiguous()?);
        }
        Ok(Source::new(MapSource::builder(tensors), backend, self.epsilon))
    }

    /// The sub-network's layers.
    pub fn layers(&self) -> &'a [LayerSpec] {
        self.layers
    }

    /// The weights by name: views of the supernet's memory, but for made ones, which have their own.
    pub fn tensors(&self) -> &BTreeMap<String, Tensor> {
        &self.values
    }

    /// A source of the weights and their operands.
    ///
    /// # Errors
    /// If there is no room for the operands.
    pub fn values(&self) -> Result<Source<'static>> {
        let operands = operands(&self.values, self.layers, &self.backend)?;
        Ok(self.source(MapSource::builder(self.values.clone())).with_operands(operands))
    }

    /// A source of the weights and of the running statistics of every batch norm.
    ///
    /// # Errors
    /// If statistics are not `[2, C]`.
    pub fn calibrated(&self, statistics: &Statistics) -> Result<Source<'static>> {
        let mut tensors = self.values.clone();
        tensors.extend(statistics_to_tensors(statistics)?);
        Ok(self.source(MapSource::builder(tensors)))
    }

    fn source(&self, builder: VarBuilder<'static>) -> Source<'static> {
        Source::new(builder, &self.backend, self.epsilon)
    }

    /// The tensors that backward adds to: views of the shared gradients, and temporaries for weights that are not views.
    ///
    /// # Errors
    /// If the gradients are another space's.
    pub fn gradients<'g>(&'a self, gradients: &'g Gradients) -> Result<SubnetGradients<'g>>
    where
        'a: 'g,
    {
        let mut tensors = BTreeMap::new();
        for layer in self.layers {
            for weight in layer.weights() {
                let tensor = if self.made.contains_key(&weight.name) {
                    Tensor::zeros(weight.shape.as_slice(), DType::F32, &self.backend.device())?
                } else {
                    view(gradients.touch(&shared_name(layer, &weight.name))?, &weight)?
                };
                tensors.insert(weight.name, tensor);
            }
        }
        for name in &self.mixes {
            tensors.insert(name.clone(), self.values[name].zeros_like()?);
        }
        Ok(SubnetGradients { subnet: self, gradients, tensors })
    }
}

/// The gradients of one sub-network's weights; [`SubnetGradients::finish`] must follow backward.
pub struct SubnetGradients<'a> {
    subnet: &'a SubnetWeights<'a>,
    gradients: &'a Gradients,
    tensors: BTreeMap<String, Tensor>,
}

impl SubnetGradients<'_> {
    /// A source of the weights, their operands and their gradients.
    ///
    /// # Errors
    /// If there is no room for the operands.
    pub fn source(&self) -> Result<Source<'static>> {
        Ok(self.subnet.values()?.with_gradients(self.tensors.clone()))
    }

    /// The slopes by the weights of a mixture's sums, in their order, and by that of a map of ones.
    ///
    /// # Errors
    /// If they cannot be read.
    pub fn mix_slopes(&self) -> Result<Vec<Vec<f32>>> {
        self.subnet.mixes.iter().map(|name| Ok(self.tensors[name].to_vec1()?)).collect()
    }

    /// Adds the gradients of weights that are not views to those of the shared tensors.
    ///
    /// # Errors
    /// If a product fails.
    pub fn finish(self) -> Result<()> {
        let SubnetWeights { shared, made, backend, .. } = self.subnet;
        for (name, how) in made {
            how.backward(&self.tensors[name], shared, self.gradients, backend)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use base::random::rng_for;
    use space::{Take, WeightRole, preset, sampler};

    use super::*;
    use crate::elastic::testing::lively;
    use crate::nn::testing::values;

    fn rows(tensor: &Tensor) -> Vec<Vec<f32>> {
        tensor.to_vec2().expect("a matrix")
    }

    /// Where each value of a weight lies in the shared tensor of this shape, in row-major order.
    fn places(weight: &WeightSpec, big: &[usize]) -> Vec<usize> {
        let mut places = vec![0];
        for ((&length, take), &all) in weight.shape.iter().zip(&weight.takes).zip(big) {
            let mut next = Vec::new();
            for place in places {
                for index in 0..length {
                    let along = match *take {
                        Take::Leading => index,
                        Take::Center => all / 2 - length / 2 + index,
                        Take::Blocks(blocks) => {
                            let block = length / blocks;
                            index / block * (all / blocks) + index % block
                        }
                    };
                    next.push(place * all + along);
                }
            }
            places = next;
        }
        places
    }

    #[test]
    fn weights_are_the_parts_of_shared_ones_that_they_take() {
        for name in ["tiny", "tiny-resnet", "tiny-spectrogram"] {
            let space = preset(name).expect("a preset");
            let shared = lively(&space);
            let layers = space.lower(&sampler::smallest(&space)).expect("legal");
            let subnet =
                SubnetWeights::new(&space, &shared, &layers, &Backend::detect()).expect("its weights");
            let mut narrowed = 0;
            for layer in &layers {
                for weight in layer.weights() {
                    if matches!(subnet.made.get(&weight.name), Some(Made::Transformed(_))) {
                        continue;
                    }
                    let big = shared.get(&shared_name(layer, &weight.name)).expect("a shared tensor");
                    let all = values(big);
                    let expected: Vec<f32> =
                        places(&weight, big.dims()).into_iter().map(|place| all[place]).collect();
                    let got = &subnet.tensors()[&weight.name];
                    assert_eq!(
                        (got.dims(), values(got)),
                        (&weight.shape[..], expected),
                        "{name}, {}",
                        weight.name
                    );
                    narrowed += usize::from(big.dims() != weight.shape);
                }
            }
            assert!(narrowed > 0, "{name}");
        }
    }

    #[test]
    fn gradients_of_views_lie_in_the_shared_ones() {
        let space = preset("tiny").expect("a preset");
        let shared = lively(&space);
        let layers = space.lower(&sampler::smallest(&space)).expect("legal");
        let subnet = SubnetWeights::new(&space, &shared, &layers, &Backend::detect()).expect("its weights");
        let gradients = Gradients::new(&shared).expect("zeros");
        let parts = subnet.gradients(&gradients).expect("views");
        for (name, part) in &parts.tensors {
            let one = Tensor::ones(part.dims(), DType::F32, &candle_core::Device::Cpu).expect("ones");
            Backend::detect().add_to_view(part, &one).unwrap_or_else(|error| panic!("{name}: {error}"));
        }
        let bias = gradients.get("blocks.1.conv.depth_conv.bn.bias").expect("a gradient");
        let taken = subnet.tensors()["blocks.1.conv.depth_conv.bn.bias"].elem_count();
        let expected: Vec<f32> = (0..bias.elem_count()).map(|i| f32::from(u8::from(i < taken))).collect();
        assert!(taken < expected.len());
        assert_eq!(values(bias), expected);
        // kernels of 3 are made from those of 7: their gradients come to the shared ones at the end
        let kernels = gradients.get("blocks.1.conv.depth_conv.conv.weight").expect("a gradient");
        assert!(values(kernels).iter().all(|value| *value == 0.0));
        parts.finish().expect("fitting shapes");
        assert!(values(kernels).iter().any(|value| *value != 0.0));
    }

    /// A sub-network's weights are the same tensors whether they are taken from the shared ones or have a space to themselves.
    #[test]
    fn weights_of_one_network_alone_are_those_of_the_sub_network() {
        let backend = Backend::detect();
        for name in ["tiny", "tiny-resnet", "tiny-choice", "tiny-cell", "tiny-macro", "tiny-spectrogram"] {
            let space = preset(name).expect("a preset");
            let shared = SharedWeights::new(&space, &mut rng_for("weights", 1, &[])).expect("weights");
            for seed in 0..4 {
                let arch = sampler::random(&space, &mut rng_for("arch", seed, &[]));
                let layers = space.lower(&arch).expect("its own");
                let alone = space.only(&arch).expect("its own");
                let copied = shared.only(&space, &arch, &backend).expect("its own");
                let taken = SubnetWeights::new(&space, &shared, &layers, &backend).expect("its own");
                let again = SubnetWeights::new(&alone, &copied, &layers, &backend).expect("its own");
                assert_eq!(taken.values.len(), copied.tensors().len(), "{name} {arch}");
                for (weight, value) in &taken.values {
                    let numbers = |tensor: &Tensor| {
                        tensor.flatten_all().and_then(|flat| flat.to_vec1::<f32>()).expect("f32")
                    };
                    assert_eq!(numbers(value), numbers(&again.values[weight]), "{name} {arch}: {weight}");
                }
            }
        }
    }

    /// The classifier's matrix `[10, F]`, of which a weight takes the leading part of each half of its columns.
    #[test]
    fn blocks_are_gathered_and_their_gradients_added_back() {
        const NAME: &str = "classifier.linear.weight";
        let space = preset("tiny").expect("a preset");
        let backend = Backend::detect();
        let shared = SharedWeights::new(&space, &mut rng_for("weights", 1, &[])).expect("weights");
        let gradients = Gradients::new(&shared).expect("zeros");
        let big = rows(shared.get(NAME).expect("there"));
        let half = big[0].len() / 2;
        let part = big[0].len() / 2 - 3;
        let takes = vec![Take::Leading, Take::Blocks(2)];
        let weight = WeightSpec { takes, ..WeightSpec::new(NAME, &[7, 2 * part], WeightRole::Matrix) };
        let made = Made::of(&shared, NAME, &weight).expect("no view");
        let expected: Vec<Vec<f32>> =
            big[..7].iter().map(|row| [&row[..part], &row[half..half + part]].concat()).collect();
        assert_eq!(rows(&made.forward(&shared, &backend).expect("gathered")), expected);

        let gradient = Tensor::ones((7, 2 * part), DType::F32, &candle_core::Device::Cpu).expect("ones");
        for _ in 0..2 {
            made.backward(&gradient, &shared, &gradients, &backend).expect("added");
        }
        assert_eq!(gradients.touched(), [NAME]);
        for (row, values) in rows(gradients.get(NAME).expect("there")).iter().enumerate() {
            for (column, value) in values.iter().enumerate() {
                let taken = row < 7 && column % half < part;
                assert_eq!(*value, if taken { 2.0 } else { 0.0 }, "row {row}, column {column}");
            }
        }
    }
}
