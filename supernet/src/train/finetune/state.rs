//! Checkpoints of a fine-tuning: the file, saving, and resuming.

use std::collections::BTreeMap;
use std::path::Path;

use base::document;
use base::file;
use candle_core::{Device, Tensor};
use network::model_folder::{ModelFolder, config_path, weights_path};
use network::tensor_file;
use serde::{Deserialize, Serialize};
use space::{Arch, SearchSpace};

use super::static_network::{StaticNetwork, trained};
use super::{FineTuner, PHASE};
use crate::error::{Error, Result};
use crate::train::Nesterov;
use crate::train::resumed::Resumed;

/// The `kind` of a checkpoint.
const KIND: &str = "fine_tuning";
/// Version of the format that this code writes and reads.
const VERSION: u32 = 1;
/// Prefix of the velocities' names.
const VELOCITY: &str = "velocity.";

/// The document inside `checkpoint.safetensors`.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    kind: String,
    version: u32,
    tool: String,
    arch: Arch,
    space: SearchSpace,
    #[serde(rename = "kernels")]
    backend: String,
    plan: String,
    step: u64,
}

/// State of a fine-tuning between two steps.
pub struct FineTuneCheckpoint {
    /// Version of the tool that wrote it.
    pub tool: String,
    /// Kernels that computed the weights.
    pub backend: String,
    /// Hash of the plan.
    pub plan: String,
    /// The next step.
    pub step: u64,
    /// The weights by name.
    pub weights: BTreeMap<String, Tensor>,
    /// The optimizer's velocity of each weight.
    pub velocities: BTreeMap<String, Tensor>,
}

impl FineTuneCheckpoint {
    /// Reads a checkpoint.
    ///
    /// # Errors
    /// If the file is broken, of another kind or version, or its tensors are not its sub-network's.
    pub fn read(path: &Path) -> Result<Self> {
        let bytes = file::read(path)?;
        Self::from_bytes(&path.display().to_string(), &bytes)
    }

    /// Reads a file's bytes; `place` names them in messages.
    ///
    /// # Errors
    /// As [`FineTuneCheckpoint::read`].
    pub fn from_bytes(place: &str, bytes: &[u8]) -> Result<Self> {
        let file = tensor_file::from_bytes(place, bytes)?;
        let form = "the metadata of a fine-tuning's checkpoint";
        let document: Document = document::read(place, &file.document, (KIND, VERSION), form)?;
        let Document { tool, arch, space, backend, plan, step, .. } = document;
        let layers = space.lower(&arch).map_err(|error| error.in_place(place))?;
        let count = file.tensors.len();
        let mut weights = BTreeMap::new();
        let mut velocities = BTreeMap::new();
        for (name, tensor) in file.tensors {
            match name.strip_prefix(VELOCITY) {
                Some(name) => velocities.insert(name.to_string(), tensor),
                None => weights.insert(name, tensor),
            };
        }
        let weights = trained(&layers, weights, place)?;
        let velocities = trained(&layers, velocities, &format!("{place}: velocities"))?;
        if count != weights.len() + velocities.len() {
            let expected = weights.len() + velocities.len();
            return Err(Error::invalid(place, "number of tensors", expected, count));
        }
        Ok(Self { tool, backend, plan, step, weights, velocities })
    }
}

impl FineTuner {
    /// Resumes from what the folder holds: a finished model, a checkpoint, or nothing.
    pub(super) fn resume(&mut self) -> Result<()> {
        let path = self.folder.path();
        if config_path(path).exists() {
            return self.resume_finished();
        }
        if self.folder.checkpoint().exists() {
            return self.restore();
        }
        if weights_path(path).exists() {
            return Err(base::Error::Occupied {
                path: weights_path(path),
                reason: "it is there, but neither its config.json nor the checkpoint that it came from is"
                    .to_string(),
                next: "choose another folder".to_string(),
            }
            .into());
        }
        self.folder.empty_log()
    }

    /// Leaves a finished run as it is, except for the leftover checkpoint of a killed process.
    fn resume_finished(&mut self) -> Result<()> {
        let path = self.folder.path();
        let written = ModelFolder::read(path)?;
        let origin = &written.config.origin;
        let last = origin.fine_tuned.last().filter(|last| last.plan == self.plan.hash());
        let (Some(last), Some(measured)) = (last, &origin.measured) else {
            let folder = path.display();
            return Err(self.folder.other_plan(&self.plan).and_then_do(format!(
                "it has finished: `supernet finetune {folder} --out ANOTHER` trains it further"
            )));
        };
        self.step = self.plan.steps;
        self.resumed = Some(Resumed::new(self.step, &last.backend));
        self.before = Some(last.from.counted.accuracy());
        self.after = Some(measured.accuracy());
        self.remove_checkpoint()
    }

    fn restore(&mut self) -> Result<()> {
        let checkpoint = FineTuneCheckpoint::read(&self.folder.checkpoint())?;
        if checkpoint.plan != self.plan.hash() {
            return Err(self.folder.other_plan(&self.plan));
        }
        let FineTuneCheckpoint { tool, backend, step, weights, velocities, .. } = checkpoint;
        let config = &self.model.config;
        let now = self.config.backend.clone();
        self.network = StaticNetwork::new(&config.space, &config.arch, weights, &now)?;
        let momentum = self.plan.momentum;
        let decay = self.plan.weight_decay;
        let optimizer = Nesterov::new(self.network.weights(), momentum, decay, &now)?;
        self.optimizer = optimizer.moving(velocities)?;
        self.step = step;
        self.saved = Some(step);
        let mut resumed = Resumed::new(step, &backend);
        let happened = self.folder.cut_log(step)?;
        self.before = self.folder.log_before_steps()?.iter().find_map(|line| line.accuracy_at(0));
        resumed.evaluated = happened.into_iter().filter_map(|line| line.evaluated_at(step)).collect();
        self.resumed = Some(match step < self.plan.steps {
            true => resumed.compared(&self.folder, &now, &tool),
            false => resumed,
        });
        Ok(())
    }

    /// Saves the state, unless a value is not finite: then the last good checkpoint must remain.
    pub(super) fn write_checkpoint(&mut self) -> Result<()> {
        let weights = self.network.weights();
        let velocities = self.optimizer.velocities();
        if let Some(name) = weights.unsound()?.map_or_else(|| velocities.unsound(), |name| Ok(Some(name)))? {
            let step = self.step.saturating_sub(1);
            return Err(self.diverged(step, format!("{name} is no longer finite")));
        }
        self.folder.sync_log()?;
        let document = Document {
            kind: KIND.to_string(),
            version: VERSION,
            tool: env!("CARGO_PKG_VERSION").to_string(),
            arch: self.model.config.arch.clone(),
            space: self.model.config.space.clone(),
            backend: self.backend(),
            plan: self.plan.hash(),
            step: self.step,
        };
        let mut tensors = self.network.weights().on(&Device::Cpu)?.tensors().clone();
        let velocities = self.optimizer.velocities().on(&Device::Cpu)?;
        tensors.extend(
            velocities.tensors().iter().map(|(name, tensor)| (format!("{VELOCITY}{name}"), tensor.clone())),
        );
        tensor_file::write(&self.folder.checkpoint(), &tensors, &document)?;
        self.saved = Some(self.step);
        self.folder.note_checkpoint(self.step)
    }

    /// Removes the checkpoint, which is no longer needed once the model is written.
    pub(super) fn remove_checkpoint(&self) -> Result<()> {
        let path = self.folder.checkpoint();
        if path.exists() {
            std::fs::remove_file(&path).map_err(Error::io("remove", &path))?;
        }
        Ok(())
    }

    /// All kernels that computed the weights.
    pub(super) fn backend(&self) -> String {
        Resumed::backend(self.resumed.as_ref(), &self.config.backend)
    }

    pub(super) fn diverged(&self, step: u64, what: String) -> Error {
        let phase = PHASE.to_string();
        let archs = self.model.config.arch.to_string();
        let next = "give a lower learning rate (--lr) and another folder: this one can only be continued at the same rate, \
                    from its checkpoint";
        Error::Diverged { step, phase, what, archs, checkpoint: self.saved, next }
    }
}
