//! Shared helpers of the tests of training.

use base::random::rng_for;
use kernels::Backend;
use network::data::Dataset;
use network::elastic::{SharedWeights, SubnetWeights};
use network::eval::{Calibration, Evaluator};
use network::model_folder::{Input, ModelFolder, ModelOrigin, StatisticsOrigin, with_statistics};
use space::{SearchSpace, preset, sampler};

/// The embedded data set.
pub(super) fn digits() -> Dataset {
    Dataset::open("digits").expect("embedded")
}

/// The smallest preset.
pub(super) fn tiny() -> SearchSpace {
    preset("tiny").expect("a preset")
}

/// The smallest network of `tiny` with fresh weights, as an export would write it.
pub(super) fn model() -> ModelFolder {
    let space = tiny();
    let dataset = digits();
    let backend = Backend::detect();
    let weights = SharedWeights::new(&space, &mut rng_for("weights", 1, &[])).expect("weights");
    let arch = sampler::smallest(&space);
    let calibration = Calibration { images: 200, ..Calibration::default() };
    let evaluator = Evaluator {
        space: &space,
        weights: &weights,
        dataset: &dataset,
        calibration,
        backend: backend.clone(),
    };
    let statistics = evaluator.calibrate(&arch).expect("it fits");
    let layers = space.lower(&arch).expect("in the space");
    let subnet = SubnetWeights::new(&space, &weights, &layers, &backend).expect("its space");
    let tensors = with_statistics(subnet.tensors(), &statistics).expect("copies");
    let input = Input::new(arch.resolution, dataset.preprocess());
    let origin = ModelOrigin {
        tool: "0.0.1".to_string(),
        backend: "reference".to_string(),
        supernet: "its hash".to_string(),
        statistics: StatisticsOrigin::Calibrated { images: 200, data: dataset.identity(), seed: 0 },
        predicted_top1: Some(0.5),
        predicted_latency_ms: Some(1.5),
        measured: None,
        fine_tuned: Vec::new(),
    };
    ModelFolder::new((&space, &arch), tensors, input, dataset.classes().to_vec(), origin).expect("f32")
}
