//! A teacher from a file: the largest network of a supernet, or an exported network, of any space.

use std::path::Path;
use std::sync::Arc;

use candle_core::Tensor;
use kernels::Backend;
use network::arena::{Arena, ArenaPart, Layout};
use network::checkpoint::Supernet;
use network::data::{Dataset, Preprocess};
use network::elastic::SharedWeights;
use network::model_folder::{ModelFolder, config_path};
use network::nn::{MapSource, Network, Pass, Source, operands};
use space::{Arch, Extent, LayerSpec, SearchSpace, sampler};

use super::Teacher;
use crate::error::{Error, Result};
use crate::train::recipe::Recipe;
use crate::train::step::Student;

/// A teacher network from a file. Like every teacher here it normalizes with the statistics of the batch, as in the
/// authors' code, so that it takes images at any resolution that a step draws.
pub struct TeacherFile {
    space: SearchSpace,
    arch: Arch,
    weights: Weights,
    preprocess: Option<Preprocess>,
    classes: Option<Vec<String>>,
    hash: String,
    place: String,
}

/// The teacher's weights.
enum Weights {
    /// Shared weights of a supernet.
    Shared(SharedWeights),
    /// Weights of one exported network.
    Own(Arena),
}

impl TeacherFile {
    /// Reads the teacher file of a recipe's phases; `None` if no phase has one and no path is given.
    ///
    /// # Errors
    /// If a phase needs a file and none is given, a file is given that no phase needs, or it cannot be read.
    pub fn for_recipe(path: Option<&Path>, recipe: &Recipe) -> Result<Option<Self>> {
        recipe.check_teacher_file(path.map(|path| path.display().to_string()).as_deref())?;
        path.map(Self::read).transpose()
    }

    /// Reads a supernet, a teacher or an exported folder; from a run's folder its supernet, else its teacher.
    ///
    /// # Errors
    /// If there is no such file, or it is broken or changed.
    pub fn read(path: &Path) -> Result<Self> {
        if path.is_dir() && config_path(path).exists() {
            return Self::of_model(ModelFolder::read(path)?, path.display().to_string());
        }
        let names = ["supernet.safetensors", "teacher.safetensors"];
        let file = match path.is_dir() {
            true => names.map(|name| path.join(name)).into_iter().find(|file| file.is_file()),
            false => Some(path.to_path_buf()),
        };
        let file = file.ok_or_else(|| {
            let expected = format!("config.json, {}", names.join(" or "));
            Error::invalid(path.display(), "files", expected, "none")
                .and_then_do("give a supernet, or a folder that `extract export` wrote")
        })?;
        Ok(Self::of_supernet(Supernet::read(&file)?, file.display().to_string()))
    }

    fn of_supernet(supernet: Supernet, place: String) -> Self {
        let Supernet { space, weights, interface, hash, .. } = supernet;
        let arch = sampler::largest(&space);
        let weights = Weights::Shared(weights);
        let preprocess = interface.preprocess;
        let classes = interface.classes;
        Self { space, arch, weights, preprocess, classes, hash, place }
    }

    fn of_model(model: ModelFolder, place: String) -> Result<Self> {
        let preprocess = Some(model.preprocess()?);
        let ModelFolder { config, mut tensors } = model;
        let parts = ArenaPart::of_layers(&config.space.lower(&config.arch)?);
        // the rest are statistics, which those of the batch replace
        let layout = Layout::of(parts);
        tensors.retain(|name, _| layout.names().any(|weight| weight == name));
        let weights = Weights::Own(Arena::of(Arc::new(layout), tensors, &place)?);
        let space = config.space;
        let arch = config.arch;
        let classes = Some(config.classes);
        Ok(Self { space, arch, weights, preprocess, classes, hash: config.model_hash, place })
    }

    /// blake3 of the file of weights, in hexadecimal.
    pub fn hash(&self) -> &str {
        &self.hash
    }

    /// Path of the teacher, for messages.
    pub fn place(&self) -> &str {
        &self.place
    }

    /// Checks that the teacher takes a space's images at every resolution, and has its classes.
    ///
    /// # Errors
    /// If something differs, which the error names.
    pub fn check_fits(&self, space: &SearchSpace) -> Result<()> {
        let pairs = [
            ("channels", space.input_channels(), self.space.input_channels()),
            ("classes", space.classes(), self.space.classes()),
        ];
        for (field, expected, got) in pairs {
            if expected != got {
                let place = format!("teacher {}", self.place);
                return Err(Error::invalid(place, field, expected, got)
                    .and_then_do("give a teacher of the images and classes that are trained on"));
            }
        }
        space.resolutions().iter().try_for_each(|resolution: &Extent| self.layers(*resolution).map(drop))
    }

    /// Checks that the teacher was trained on images preprocessed as in the run, with its classes in the run's order,
    /// as far as its file says.
    ///
    /// # Errors
    /// If something differs, which the error names.
    pub fn check_sees(&self, dataset: &Dataset) -> Result<()> {
        let place = format!("teacher {}", self.place);
        if let Some(classes) = self.classes.as_deref().filter(|classes| *classes != dataset.classes()) {
            let expected =
                format!("those of data {}, in their order: {:?}", dataset.name(), dataset.classes());
            return Err(Error::invalid(place, "classes", expected, format!("{classes:?}"))
                .and_then_do("give a teacher of the same classes, or start the run from it with --start"));
        }
        let normalization = &dataset.preprocess().normalization;
        let own = self.preprocess.as_ref().map(|preprocess| &preprocess.normalization);
        if let Some(own) = own.filter(|own| *own != normalization) {
            let said = |mean: &[f32], std: &[f32]| format!("mean {mean:?} and deviation {std:?}");
            let expected = said(normalization.mean(), normalization.std());
            return Err(Error::invalid(place, "normalization", expected, said(own.mean(), own.std()))
                .and_then_do("give a teacher that was trained on the same images"));
        }
        Ok(())
    }

    /// The teacher with its weights on the backend's device.
    ///
    /// # Errors
    /// If there is no room for them.
    pub fn on(self, backend: &Backend) -> Result<Self> {
        let weights = match self.weights {
            Weights::Shared(weights) => Weights::Shared(weights.on(backend)?),
            Weights::Own(arena) => Weights::Own(arena.on(&backend.device())?),
        };
        Ok(Self { weights, ..self })
    }

    /// The teacher's logits `[N, classes]` for images `[N, C, H, W]`, with the batch's own statistics.
    ///
    /// # Errors
    /// If the images do not fit it, or its weights are not on the backend's device.
    pub fn teach(&self, images: &Tensor, backend: &Backend) -> Result<Tensor> {
        let (_, _, height, width) = images.dims4()?;
        let resolution = Extent { height, width };
        match &self.weights {
            Weights::Shared(weights) => {
                let student = Student { space: &self.space, weights, backend: backend.clone() };
                student.teach(&self.arch.at(resolution), images)
            }
            Weights::Own(arena) => {
                let layers = self.layers(resolution)?;
                let tensors = arena.tensors();
                let builder = MapSource::builder(tensors.clone());
                let source = Source::new(builder, backend, self.space.batch_norm_epsilon())
                    .with_operands(operands(tensors, &layers, backend)?);
                Ok(Network::new(&layers, &source)?.forward(images, Pass::BatchStatistics)?)
            }
        }
    }

    /// The teacher's layers at a resolution.
    pub(in crate::train) fn layers(&self, resolution: Extent) -> Result<Vec<LayerSpec>> {
        Ok(self.space.lower(&self.arch.at(resolution))?)
    }

    /// Number of weight values; for a supernet, of all its weights.
    pub(in crate::train) fn values(&self) -> usize {
        match &self.weights {
            Weights::Shared(weights) => weights.arena().values().elem_count(),
            Weights::Own(arena) => arena.values().elem_count(),
        }
    }
}

impl Recipe {
    /// Checks that a teacher file is given if a phase needs one, and only then; `given` names the file in messages.
    ///
    /// # Errors
    /// If not; the error names the phase or the file.
    pub(in crate::train) fn check_teacher_file(&self, given: Option<&str>) -> Result<()> {
        let mut phases = self.phases.iter().enumerate();
        let asking = phases.find(|(_, phase)| phase.teacher == Teacher::File);
        let place = format!("recipe {}", self.name);
        match (asking, given) {
            (Some((index, phase)), None) => {
                let field = format!("phases[{}] ({}).teacher", index + 1, phase.name);
                Err(Error::invalid(place, field, "a teacher file", "none").and_then_do(
                    "give a supernet or an exported folder with --teacher, or change the phase's teacher",
                ))
            }
            (None, Some(file)) => Err(Error::invalid(
                place,
                "phases with teacher = \"file\"",
                format!("one for {file}"),
                "none",
            )
            .and_then_do("leave --teacher out, or name a file as a phase's teacher in the recipe")),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
