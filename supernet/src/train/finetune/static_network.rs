//! One static network in training: its weights and gradients by name.

use std::collections::BTreeMap;
use std::sync::Arc;

use candle_core::Tensor;
use kernels::Backend;
use network::arena::{Arena, ArenaPart, Layout};
use network::model_folder::ModelFolder;
use network::nn::{MapSource, Network, Source, operands};
use space::{Arch, LayerSpec, SearchSpace};

use crate::error::{Error, Result};
use crate::train::Optimizer;
use crate::train::loss::{Loss, Target};
use crate::train::step::learn;

/// A network that shares its weights with no other.
pub struct StaticNetwork {
    layers: Vec<LayerSpec>,
    epsilon: f32,
    weights: Arena,
    gradients: Arena,
    backend: Backend,
}

/// The tensors that the network trains; each must be present with its shape.
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
    /// A sub-network over copies of these weights, which training changes in place.
    ///
    /// # Errors
    /// If a weight is missing or has another shape.
    pub fn new(
        space: &SearchSpace,
        arch: &Arch,
        weights: BTreeMap<String, Tensor>,
        backend: &Backend,
    ) -> Result<Self> {
        let layers = space.lower(arch)?;
        let weights = trained(&layers, weights, "network")?;
        let layout = Arc::new(Layout::of(ArenaPart::of_layers(&layers)));
        let weights = Arena::of(layout, weights, "network")?.on(&backend.device())?;
        let gradients = weights.zeros_like()?;
        Ok(Self { layers, epsilon: space.batch_norm_epsilon(), weights, gradients, backend: backend.clone() })
    }

    /// A model's network over copies of its weights.
    ///
    /// # Errors
    /// If a tensor cannot be copied.
    pub fn of_model(model: &ModelFolder, backend: &Backend) -> Result<Self> {
        Self::new(&model.config.space, &model.config.arch, model.tensors.clone(), backend)
    }

    /// The weights, without statistics.
    pub fn weights(&self) -> &Arena {
        &self.weights
    }

    /// The layers.
    pub fn layers(&self) -> &[LayerSpec] {
        &self.layers
    }

    /// Adds the gradients of a batch and returns its loss.
    ///
    /// # Errors
    /// If the images do not fit.
    pub fn learn(&self, images: &Tensor, target: &Target, dropout: Option<Tensor>) -> Result<Loss> {
        let source = self.source()?.with_gradients(self.gradients.tensors().clone());
        let learned = learn(&Network::new(&self.layers, &source)?, &self.backend, images, target, dropout)?;
        Ok(learned.loss)
    }

    /// One step on every weight; the gradients are zero after it.
    ///
    /// # Errors
    /// If the optimizer is another network's.
    pub fn step(&self, optimizer: &mut dyn Optimizer, lr: f32) -> Result<()> {
        let names: Vec<&str> = self.weights.layout().names().collect();
        optimizer.move_weights(&self.weights, &self.gradients, &names, lr)
    }

    /// One step on the classifier alone; all other weights stay.
    ///
    /// # Errors
    /// If the optimizer is another network's.
    pub fn step_head(&self, optimizer: &mut dyn Optimizer, lr: f32) -> Result<()> {
        let layout = self.weights.layout();
        let head: Vec<&str> = layout.names().filter(|name| layout.is_of_classes(name)).collect();
        optimizer.move_weights(&self.weights, &self.gradients, &head, lr)?;
        self.clear()
    }

    /// Sets the gradients back to zero.
    ///
    /// # Errors
    /// If a tensor cannot be written.
    pub fn clear(&self) -> Result<()> {
        Ok(self.backend.fill_zero(self.gradients.values())?)
    }

    /// The network without statistics, for passes that use the batch's own.
    ///
    /// # Errors
    /// Never: the weights were checked.
    pub fn network(&self) -> Result<Network> {
        Ok(Network::new(&self.layers, &self.source()?)?)
    }

    /// The weights with their operands.
    fn source(&self) -> Result<Source<'static>> {
        let tensors = self.weights.tensors();
        let operands = operands(tensors, &self.layers, &self.backend)?;
        let builder = MapSource::builder(tensors.clone());
        Ok(Source::new(builder, &self.backend, self.epsilon).with_operands(operands))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;
    use rand::Rng;

    use super::*;
    use crate::train::{OptimizerSettings, Student, dropout_mask};
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

    const OPTIMIZERS: [OptimizerSettings; 2] = [
        OptimizerSettings::Nesterov { momentum: 0.9 },
        OptimizerSettings::AdamW { beta1: 0.9, beta2: 0.999, epsilon: 1e-8 },
    ];

    #[test]
    fn steps_are_the_supernets_where_the_network_is_all_there_is() {
        for settings in OPTIMIZERS {
            for preset in ["tiny", "tiny-resnet"] {
                assert_steps_are_the_supernets(preset, settings);
            }
        }
    }

    fn assert_steps_are_the_supernets(preset: &str, settings: OptimizerSettings) {
        let (space, arch) = one_network(preset);
        let backend = Backend::detect();
        let logits = uniform("teacher", &[IMAGES, 10]);
        for teacher in [None, Some(&logits)] {
            let weights = SharedWeights::new(&space, &mut rng_for("weights", 1, &[])).expect("weights");
            let copies = weights.tensors().clone();
            let network = StaticNetwork::new(&space, &arch, copies, &backend).expect("the same names");
            let gradients = Gradients::new(&weights).expect("zeros");
            let mut optimizers =
                [0, 1].map(|_| settings.at_rest(weights.arena(), 3e-5, &backend).expect("at rest"));
            let student = Student { space: &space, weights: &weights, backend: backend.clone() };
            for step in 0..3 {
                let images = uniform(&format!("images {step}"), &[IMAGES, 1, 8, 8]);
                let target = Target { labels: &LABELS, smoothing: 0.1, teacher, ..Default::default() };
                let mask = || dropout_mask(&space, &arch, IMAGES, 1, [step, 0]).expect("a mask");
                let losses = [
                    student
                        .learn(&arch, &images, &target, mask(), &gradients)
                        .and_then(|learned| learned.loss.read())
                        .expect("it fits"),
                    network.learn(&images, &target, mask()).and_then(|loss| loss.read()).expect("it fits"),
                ];
                assert_eq!(losses[0].to_bits(), losses[1].to_bits(), "step {step}");
                optimizers[0].step(&weights, &gradients, 0.1).expect("its own");
                network.step(&mut *optimizers[1], 0.1).expect("its own");
                for (name, weight) in network.weights().tensors() {
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
        let images = uniform("images", &[IMAGES, 1, 8, 8]);
        let logits = uniform("teacher", &[IMAGES, 10]);
        for teacher in [None, Some(&logits)] {
            let target = Target { labels: &LABELS, smoothing: 0.1, teacher, ..Default::default() };
            let of = |tensors: &BTreeMap<String, Tensor>| {
                StaticNetwork::new(&space, &arch, tensors.clone(), &Backend::reference()).expect("a network")
            };
            let network = of(weights.tensors());
            network.learn(&images, &target, None).expect("it fits");
            let norm = network
                .gradients
                .tensors()
                .values()
                .map(|tensor: &Tensor| values(tensor).iter().map(|g| f64::from(*g).powi(2)).sum::<f64>())
                .sum::<f64>()
                .sqrt();
            let loss_at = |distance: f64| {
                let moved = weights.tensors().iter().map(|(name, weight)| {
                    let along =
                        network.gradients.tensors()[name].affine(distance / norm, 0.0).expect("a product");
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
        let error = StaticNetwork::new(&space, &arch, BTreeMap::new(), &Backend::reference());
        let error = error.err().expect("refused").to_string();
        assert!(error.starts_with("network: ") && error.ends_with("got none"), "{error}");
    }
}
