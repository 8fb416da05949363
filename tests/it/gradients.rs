//! Gradients of whole networks through elastic weights, against finite differences.

use base::random::rng_for;
use candle_core::Tensor;
use kernels::Backend;
use network::elastic::{Gradients, SharedWeights, SubnetWeights};
use network::nn::{Network, Pass, Tape};
use space::{Arch, SearchSpace, preset};

use crate::testing::formula::{formula, unit, values};

/// Shared weights in which every value matters: matrices are not identities, batch norms not ones.
fn lively_weights(space: &SearchSpace) -> SharedWeights {
    let weights = SharedWeights::new(space, &mut rng_for("weights", 1, &[])).expect("weights");
    let mut tensors = weights.tensors().clone();
    for (name, tensor) in &mut tensors {
        let noise = formula(&format!("{name}.bn.bias"), tensor.dims());
        *tensor = if name.ends_with("_matrix") || name.contains(".bn.") || name.ends_with("bias") {
            (tensor.clone() + noise).expect("same shapes")
        } else {
            formula(name, tensor.dims())
        };
    }
    SharedWeights::from_tensors(space, tensors, "test").expect("the same shapes")
}

struct Problem {
    space: SearchSpace,
    arch: Arch,
    images: Tensor,
    backend: Backend,
}

impl Problem {
    /// A smooth function of the logits: a weighted sum.
    fn value(&self, weights: &SharedWeights) -> f64 {
        let layers = self.space.lower(&self.arch).expect("legal");
        let subnet = SubnetWeights::new(&self.space, weights, &layers, &self.backend).expect("views");
        let network = Network::new(&layers, &subnet.values().expect("views")).expect("a network");
        let logits = network.forward(&self.images, Pass::BatchStatistics).expect("forward");
        values(&logits)
            .iter()
            .enumerate()
            .map(|(index, &logit)| f64::from(logit) * unit("gradient", index))
            .sum()
    }

    fn gradients(&self, weights: &SharedWeights) -> Gradients {
        let layers = self.space.lower(&self.arch).expect("legal");
        let subnet = SubnetWeights::new(&self.space, weights, &layers, &self.backend).expect("views");
        let gradients = Gradients::new(weights).expect("zeros");
        let views = subnet.gradients(&gradients).expect("views");
        let network = Network::new(&layers, &views.source().expect("views")).expect("a network");
        let mut tape = Tape::new();
        let logits = network.forward(&self.images, Pass::Training(&mut tape)).expect("forward");
        let upstream = formula("gradient", logits.dims());
        network.backward(&upstream, tape).expect("backward");
        views.finish().expect("pulled back");
        gradients
    }
}

/// A preset without activations, because their kinks disturb finite differences.
fn smooth_space(name: &str) -> SearchSpace {
    let text = preset(name).expect("a preset").to_toml();
    SearchSpace::from_toml("smooth", &text.replace("\"relu\"", "\"none\"").replace("\"h_swish\"", "\"none\""))
        .expect("a space")
}

/// Moves all of a tensor along one direction and compares the change with the gradient's projection.
fn check(backend: &Backend, space: &str, arch: &str) {
    let space = smooth_space(space);
    let arch: Arch = arch.parse().expect("an arch");
    let problem = Problem {
        images: formula("images", &[6, 1, arch.resolution.height, arch.resolution.width]),
        arch,
        backend: backend.clone(),
        space,
    };
    let weights = lively_weights(&problem.space);
    let gradients = problem.gradients(&weights);
    let touched = gradients.touched();
    let layers = problem.space.lower(&problem.arch).expect("legal");
    let elastic = layers.iter().any(|layer| layer.name != layer.shared_name());
    assert!(
        elastic
            || problem.space.genome().is_elastic("width")
            || touched.iter().any(|name| name.ends_with("7to5_matrix")),
        "{touched:?}"
    );
    for (name, tensor) in weights.tensors() {
        let direction = formula(&format!("{name}.running_mean"), tensor.dims());
        let moved = |step: f64| {
            let mut tensors = weights.tensors().clone();
            let change = (&direction * step).expect("a number");
            tensors.insert(name.clone(), (tensor + change).expect("same shapes"));
            problem.value(&SharedWeights::from_tensors(&problem.space, tensors, "test").expect("finite"))
        };
        // the choices of a max pool change with its input: a small step meets few of those kinks, but some
        let (step, relative, absolute) =
            if name.starts_with("input_stem") { (5e-4, 0.15, 0.012) } else { (2e-3, 0.02, 4e-3) };
        let measured = (moved(step) - moved(-step)) / (2.0 * step);
        let gradient = values(gradients.get(name).expect("every name"));
        let predicted: f64 =
            gradient.iter().zip(values(&direction)).map(|(g, d)| f64::from(*g) * f64::from(d)).sum();
        if !touched.contains(name) {
            assert_eq!(predicted, 0.0, "{name} takes no part");
        }
        assert!(
            (measured - predicted).abs() <= relative * measured.abs().max(predicted.abs()) + absolute,
            "{name}: {measured} measured, {predicted} predicted"
        );
    }
}

#[test]
fn elastic_gradients_are_the_slopes() {
    for backend in [Backend::detect(), Backend::reference()] {
        check(&backend, "tiny", "r12:k3e4,k5e3/k7e6,k3e3");
    }
}

#[test]
fn elastic_gradients_of_separable_blocks_are_the_slopes() {
    for backend in [Backend::detect(), Backend::reference()] {
        check(&backend, "tiny-spectrogram", "r13x21:w0.5:k3e1,k5e1/w1:k5e1/w0.5:k3e1,k3e1");
        check(&backend, "tiny-spectrogram", "r10x7:w1:k5e1/w0.5:k3e1,k5e1/w1:k3e1");
    }
}

#[test]
fn elastic_gradients_of_a_resnet_are_the_slopes() {
    for backend in [Backend::detect(), Backend::reference()] {
        check(&backend, "tiny-resnet", "r12:w0.5:/w0.75:k3e1/w0.75:k3e0.25/w0.5:k3e0.5,k3e0.25");
        check(&backend, "tiny-resnet", "r12:w1:k3e1/w1:k3e1/w1:k3e0.5,k3e0.5/w1:k3e0.25,k3e0.5");
    }
}

#[test]
fn gradients_past_connections_and_through_each_operator_are_the_slopes() {
    for backend in [Backend::detect(), Backend::reference()] {
        check(&backend, "tiny-choice", "r12:+:i3e6,c/+:c,i3e3");
        check(&backend, "tiny-choice", "r12:c,s/+:i5e6,c");
    }
}
