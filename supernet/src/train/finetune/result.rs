//! Results of a fine-tuning: accuracy before and after, and the folder's two files.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;

use base::timing::unix_seconds;
use candle_core::Tensor;
use network::data::{Split, calibration_batches, eval_batches};
use network::eval::{Accuracy, Calibration, accuracy, calibrate};
use network::model_folder::{
    FineTuned, FineTunedFrom, MeasuredAccuracy, ModelConfig, ModelFolder, ModelOrigin, StatisticsOrigin,
    with_statistics,
};
use network::nn::Network;

use super::{FineTuner, PHASE};
use crate::error::Result;
use crate::train::record::LogLine;

impl FineTuner {
    /// Measures the given model's accuracy, unless the log has it; false if `stop` was set first.
    pub(super) fn count_before(
        &mut self,
        stop: &AtomicBool,
        report: &mut dyn FnMut(&LogLine),
    ) -> Result<bool> {
        if self.before.is_none() {
            let network = self.model.network(&self.config.backend)?;
            self.before = self.count(&network, stop)?;
            if let Some(accuracy) = self.before {
                self.log_accuracy(0, accuracy, report)?;
            }
        }
        Ok(self.before.is_some())
    }

    /// Calibrates, measures accuracy, and writes the folder's files; false if `stop` was set first.
    pub(super) fn finish(&mut self, stop: &AtomicBool, report: &mut dyn FnMut(&LogLine)) -> Result<bool> {
        let Some(tensors) = self.calibrated(stop)? else { return Ok(false) };
        let mut model = self.fine_tuned(tensors)?;
        let Some(after) = self.count(&model.network(&self.config.backend)?, stop)? else { return Ok(false) };
        if self.resumed.as_ref().is_none_or(|resumed| resumed.evaluated.is_empty()) {
            self.log_accuracy(self.step, after, report)?;
        }
        // the images by which its architecture was selected stay the same
        let before = model.config.origin.fine_tuned.last().and_then(|last| last.from.measured.as_ref());
        let selected_on = before.and_then(|measured| measured.selected_on.clone());
        let measured = MeasuredAccuracy { selected_on, ..MeasuredAccuracy::of(after, Split::Val) };
        model.config.origin.measured = Some(measured);
        model.config.run = BTreeMap::from([("unix_seconds".to_string(), unix_seconds().into())]);
        self.folder.sync_log()?;
        // config.json comes last: a folder that has one is finished
        model.write(self.folder.path())?;
        self.after = Some(after);
        self.remove_checkpoint()?;
        Ok(true)
    }

    /// The weights with statistics gathered on training images, as in an export; `None` if `stop` was set.
    fn calibrated(&self, stop: &AtomicBool) -> Result<Option<BTreeMap<String, Tensor>>> {
        let Calibration { images, batch, seed } = Calibration::default();
        let resolution = self.model.config.arch.resolution;
        let batches = calibration_batches(&self.dataset, images, batch, resolution, seed);
        let batches = batches.take_while(|_| !Self::stopped(stop));
        let statistics = calibrate(&self.network.network()?, batches)?;
        match Self::stopped(stop) {
            true => Ok(None),
            false => Ok(Some(with_statistics(self.network.weights().tensors(), &statistics)?)),
        }
    }

    /// Accuracy on the `val` split; `None` if `stop` was set.
    fn count(&self, network: &Network, stop: &AtomicBool) -> Result<Option<Accuracy>> {
        let set = self.dataset.val();
        let resolution = self.model.config.arch.resolution;
        let batches = eval_batches(set, self.dataset.preprocess(), resolution, Calibration::default().batch);
        let counted = accuracy(network, batches.take_while(|_| !Self::stopped(stop)))?;
        Ok((!Self::stopped(stop)).then_some(counted))
    }

    fn log_accuracy(
        &mut self,
        step: u64,
        accuracy: Accuracy,
        report: &mut dyn FnMut(&LogLine),
    ) -> Result<()> {
        let line = LogLine::Evaluation {
            step,
            phase: PHASE.to_string(),
            arch: self.model.config.arch.clone(),
            split: Split::Val.to_string(),
            top1: accuracy.top1(),
            accuracy,
        };
        report(&line);
        self.folder.log(&line)
    }

    /// The model to write, without its measured accuracy.
    fn fine_tuned(&self, tensors: BTreeMap<String, Tensor>) -> Result<ModelFolder> {
        let ModelConfig { arch, space, input, classes, origin, .. } = &self.model.config;
        let calibration = Calibration::default();
        let mut fine_tuned = origin.fine_tuned.clone();
        fine_tuned.push(self.provenance(origin));
        let origin = ModelOrigin {
            tool: env!("CARGO_PKG_VERSION").to_string(),
            backend: self.config.backend.name().to_string(),
            statistics: StatisticsOrigin::Calibrated {
                images: calibration.images.min(self.dataset.train().len()),
                data: self.dataset.identity(),
                seed: calibration.seed,
            },
            measured: None,
            fine_tuned,
            ..origin.clone()
        };
        Ok(ModelFolder::new((space, arch), tensors, input.clone(), classes.clone(), origin)?)
    }

    /// The entry of this run in the model's history.
    fn provenance(&self, before: &ModelOrigin) -> FineTuned {
        let counted = self.before.expect("counted before the first step");
        FineTuned {
            from: FineTunedFrom {
                model: self.plan.model.clone(),
                tool: before.tool.clone(),
                backend: before.backend.clone(),
                statistics: before.statistics.clone(),
                measured: before.measured.clone(),
                counted: MeasuredAccuracy::of(counted, Split::Val),
            },
            tool: env!("CARGO_PKG_VERSION").to_string(),
            backend: self.backend(),
            data: self.dataset.identity(),
            plan: self.plan.hash(),
            seed: self.plan.seed,
            epochs: self.plan.epochs,
            batch: self.plan.batch,
            lr: self.plan.lr,
            steps: self.plan.steps,
            teacher: self.plan.teacher.clone(),
            new_head: self.plan.head_lr.is_some(),
        }
    }
}
