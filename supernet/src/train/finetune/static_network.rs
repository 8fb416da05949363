//! One static network in training: its own weights by name, and gradients of the same names.

use std::collections::BTreeMap;

use candle_core::Tensor;
use kernels::Kernels;
use network::elastic::is_classifier;
use network::model_folder::ModelFolder;
use network::nn::{MapSource, Network, Source, with_operands};
use space::{Arch, LayerSpec, SearchSpace};

use crate::error::{Error, Result};
use crate::train::Sgd;
use crate::train::loss::{Loss, Target};
use crate::train::step::learn;

/// A network whose weights are nobody else's.
pub struct StaticNetwork {
    layers: Vec<LayerSpec>,
    epsilon: f32,
    weights: BTreeMap<String, Tensor>,
    gradients: BTreeMap<String, Tensor>,
    kernels: Kernels,
}

/// Those of `tensors` that are trained in the network; all must be there in their shapes.
pub(super) fn trained(
    layers: &[LayerSpec],
    mut tensors: BTreeMap<String, Tensor>,
    place: &str,
) -> Result<BTreeMap<String, Tensor>> {
    let mut trained = BTreeMap::new();
    for weight in layers.iter().flat_map(LayerSpec::weights) {
        let expected = || format!("a tensor {:?}", weight.shape);
        let tensor = tensors
            .remove(&weight.name)
            .ok_or_else(|| Error::invalid(place, &weight.name, expected(), "none"))?;
        if tensor.dims() != weight.shape.as_slice() {
            return Err(Error::invalid(place, &weight.name, expected(), format!("{:?}", tensor.dims())));
        }
        trained.insert(weight.name, tensor);
    }
    Ok(trained)
}

impl StaticNetwork {
    /// A sub-network over weights of its own, which training changes in place.
    ///
    /// # Errors
    /// If a weight is missing or has another shape.
    pub fn new(
        (space, arch): (&SearchSpace, &Arch),
        weights: BTreeMap<String, Tensor>,
        kernels: &Kernels,
    ) -> Result<Self> {
        let layers = space.lower(arch)?;
        let device = kernels.device();
        let weights = trained(&layers, weights, "network")?.into_iter();
        let weights =
            weights.map(|(name, weight)| Ok((name, weight.to_device(&device)?))).collect::<Result<_>>()?;
        let gradients = zeros_like(&weights)?;
        Ok(Self { layers, epsilon: space.batch_norm_epsilon(), weights, gradients, kernels: kernels.clone() })
    }

    /// A model's network over copies of its weights.
    ///
    /// # Errors
    /// If a tensor cannot be copied.
    pub fn of_model(model: &ModelFolder, kernels: &Kernels) -> Result<Self> {
        let copy = |(name, tensor): (&String, &Tensor)| Ok((name.clone(), tensor.copy()?));
        let copies = model.tensors.iter().map(copy).collect::<Result<_>>()?;
        Self::new((&model.config.space, &model.config.arch), copies, kernels)
    }

    /// The weights by name, without statistics.
    pub fn weights(&self) -> &BTreeMap<String, Tensor> {
        &self.weights
    }

    /// Its layers.
    pub fn layers(&self) -> &[LayerSpec] {
        &self.layers
    }

    /// Zeros of the weights' names and shapes.
    ///
    /// # Errors
    /// If a tensor cannot be made.
    pub fn zeros_like(&self) -> Result<BTreeMap<String, Tensor>> {
        zeros_like(&self.weights)
    }

    /// Adds the gradients of a batch and returns its loss.
    ///
    /// # Errors
    /// If the images do not fit.
    pub fn learn(&self, images: &Tensor, target: &Target, dropout: Option<Tensor>) -> Result<Loss> {
        let sources = [&self.values()?, &self.source(&self.gradients).as_they_are()];
        learn(&self.layers, sources, &self.kernels, images, target, dropout)
    }

    /// One step on every weight; the gradients are zero after it.
    ///
    /// # Errors
    /// If the optimizer is another network's.
    pub fn step(&self, optimizer: &Sgd, lr: f32) -> Result<()> {
        let parts = self.weights.iter().map(|(name, weight)| (name.as_str(), weight, &self.gradients[name]));
        optimizer.move_weights(parts, lr)
    }

    /// The same on the classifier alone; all else rests.
    ///
    /// # Errors
    /// If the optimizer is another network's.
    pub fn step_head(&self, optimizer: &Sgd, lr: f32) -> Result<()> {
        let parts = self.weights.iter().filter(|(name, _)| is_classifier(name));
        optimizer
            .move_weights(parts.map(|(name, weight)| (name.as_str(), weight, &self.gradients[name])), lr)?;
        self.clear()
    }

    /// Sets the gradients back to zero.
    ///
    /// # Errors
    /// If a tensor cannot be written.
    pub fn clear(&self) -> Result<()> {
        self.gradients.values().try_for_each(|gradient| Ok(self.kernels.fill_zero(gradient)?))
    }

    /// The network without statistics, for passes that use the batch's own.
    ///
    /// # Errors
    /// Never: the weights were checked.
    pub fn network(&self) -> Result<Network> {
        Ok(Network::new(&self.layers, &self.values()?)?)
    }

    /// The weights, those that products read as they read them.
    fn values(&self) -> Result<Source<'static>> {
        Ok(self.source(&with_operands(self.weights.clone(), &self.layers, &self.kernels)?))
    }

    fn source(&self, tensors: &BTreeMap<String, Tensor>) -> Source<'static> {
        Source::new(MapSource::builder(tensors.clone()), &self.kernels, self.epsilon)
    }
}

fn zeros_like(tensors: &BTreeMap<String, Tensor>) -> Result<BTreeMap<String, Tensor>> {
    let zeros = |(name, tensor): (&String, &Tensor)| Ok((name.clone(), tensor.zeros_like()?));
    tensors.iter().map(zeros).collect()
}

#[cfg(test)]
mod tests {
    use candle_core::Device;
    use rand::Rng;

    use super::*;
    use crate::train::{Pupil, dropout_mask};
    use base::random::rng_for;
    use network::elastic::{Gradients, SharedWeights};
    use space::{KINDS, preset, sampler};

    const IMAGES: usize = 6;

    /// A preset with one choice of each.
    fn one_network(name: &str) -> (SearchSpace, Arch) {
        let space = preset(name).expect("a preset");
        let space = space.restricted(&KINDS.map(|kind| (kind.key.to_string(), 1)).into());
        let arch = sampler::largest(&space);
        (space, arch)
    }

    fn uniform(name: &str, shape: &[usize]) -> Tensor {
        let mut rng = rng_for(name, 1, &[]);
        let values: Vec<f32> = (0..shape.iter().product()).map(|_| rng.random_range(-1.0..1.0)).collect();
        Tensor::from_vec(values, shape, &Device::Cpu).expect("sizes agree")
    }

    fn bits(tensor: &Tensor) -> Vec<u32> {
        values(tensor).iter().map(|value| value.to_bits()).collect()
    }

    fn values(tensor: &Tensor) -> Vec<f32> {
        tensor.flatten_all().and_then(|flat| flat.to_vec1::<f32>()).expect("f32 on the CPU")
    }

    const LABELS: [u32; IMAGES] = [0, 1, 2, 3, 9, 9];

    #[test]
    fn steps_are_the_supernets_where_the_network_is_all_there_is() {
        ["tiny", "tiny-resnet"].into_iter().for_each(assert_steps_are_the_supernets);
    }

    fn assert_steps_are_the_supernets(preset: &str) {
        let (space, arch) = one_network(preset);
        let kernels = Kernels::detect();
        let logits = uniform("teacher", &[IMAGES, 10]);
        for teacher in [None, Some(&logits)] {
            let weights = SharedWeights::new(&space, &mut rng_for("weights", 1, &[])).expect("weights");
            let copies = weights.detached().expect("copies").tensors().clone();
            let network = StaticNetwork::new((&space, &arch), copies, &kernels).expect("the same names");
            let gradients = Gradients::new(&weights).expect("zeros");
            let optimizers = [0, 1].map(|_| Sgd::new(&weights, 0.9, 3e-5, &kernels).expect("at rest"));
            let pupil = Pupil { space: &space, weights: &weights, kernels: kernels.clone() };
            for step in 0..3 {
                let images = uniform(&format!("images {step}"), &[IMAGES, 1, 8, 8]);
                let target = Target { labels: &LABELS, smoothing: 0.1, teacher, class_weights: None };
                let mask = || dropout_mask(&space, &arch, IMAGES, 1, [step, 0]).expect("a mask");
                let losses = [
                    pupil
                        .learn(&arch, &images, &target, mask(), &gradients)
                        .and_then(|loss| loss.read())
                        .expect("it fits"),
                    network.learn(&images, &target, mask()).and_then(|loss| loss.read()).expect("it fits"),
                ];
                assert_eq!(losses[0].to_bits(), losses[1].to_bits(), "step {step}");
                optimizers[0].step(&weights, &gradients, 0.1).expect("its own");
                network.step(&optimizers[1], 0.1).expect("its own");
                for (name, weight) in network.weights() {
                    assert!(
                        bits(weight) == bits(weights.get(name).expect("the same names")),
                        "{preset}: {name}"
                    );
                }
            }
        }
    }

    #[test]
    fn the_gradient_is_the_slope_with_a_teacher_and_without() {
        let (space, arch) = one_network("tiny");
        let weights = SharedWeights::new(&space, &mut rng_for("weights", 2, &[])).expect("weights");
        let (images, logits) = (uniform("images", &[IMAGES, 1, 8, 8]), uniform("teacher", &[IMAGES, 10]));
        for teacher in [None, Some(&logits)] {
            let target = Target { labels: &LABELS, smoothing: 0.1, teacher, class_weights: None };
            let of = |tensors: &BTreeMap<String, Tensor>| {
                let copies =
                    tensors.iter().map(|(name, tensor)| (name.clone(), tensor.copy().expect("a copy")));
                StaticNetwork::new((&space, &arch), copies.collect(), &Kernels::reference())
                    .expect("a network")
            };
            let network = of(weights.tensors());
            network.learn(&images, &target, None).expect("it fits");
            let square = |tensor: &Tensor| values(tensor).iter().map(|g| f64::from(*g).powi(2)).sum::<f64>();
            let norm = network.gradients.values().map(square).sum::<f64>().sqrt();
            let loss_at = |distance: f64| {
                let moved = weights.tensors().iter().map(|(name, weight)| {
                    let along = network.gradients[name].affine(distance / norm, 0.0).expect("a product");
                    (name.clone(), weight.add(&along).expect("a sum"))
                });
                of(&moved.collect())
                    .learn(&images, &target, None)
                    .and_then(|loss| loss.read())
                    .expect("it fits")
            };
            let slope = f64::from(loss_at(5e-3) - loss_at(-5e-3)) / 1e-2;
            assert!((slope / norm - 1.0).abs() < 0.02, "slope {slope}, norm of the gradient {norm}");
        }
    }

    #[test]
    fn weights_of_another_network_are_refused() {
        let (space, arch) = one_network("tiny");
        let error = StaticNetwork::new((&space, &arch), BTreeMap::new(), &Kernels::reference());
        let error = error.err().expect("refused").to_string();
        assert!(error.starts_with("network: ") && error.ends_with("got none"), "{error}");
    }
}
